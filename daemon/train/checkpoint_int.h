/* checkpoint_int.h: a checkpoint's insides, for checkpoint.c and snapshot.c only. */
#ifndef LIGHTHOUSE_CHECKPOINT_INT_H
#define LIGHTHOUSE_CHECKPOINT_INT_H

#include "train/checkpoint.h"

/* What files of a kind hold: states, and what their tensors' names end in. */
struct lh_part {
	enum lh_manifest_kind kind;
	int states;
	enum lh_model_state state[2];
	const char *suffix[2];
};
extern const struct lh_part lh_parts[LH_MANIFEST_KINDS];

/* Tensors of the model's table, from .. to - 1. */
struct lh_span {
	int from, to;
};

struct lh_span lh_span_of_all(const struct lh_model *m);

/* A part's tensors of a span are numbered: those of its first state, then of its second. */
struct lh_numbered {
	const struct lh_param *param;
	enum lh_model_state state;
	char name[80];
};

int lh_part_count(const struct lh_part *part, struct lh_span s);
struct lh_numbered lh_part_tensor(const struct lh_part *part, const struct lh_model *m,
				  struct lh_span s, int t);

/* Where it is written, before it has its name; the caller's. */
char *lh_checkpoint_place(const char *dir, int64_t step);

#endif

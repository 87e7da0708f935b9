/* team_int.h: what team.c, team_files.c and team_looks.c share behind team.h: orders, which are
 * a struct from rank 0, and how it went, which is told by all. */
#ifndef LIGHTHOUSE_TEAM_INT_H
#define LIGHTHOUSE_TEAM_INT_H

#include "train/team.h"

enum task { MAKE_MODEL, PREPARE, INIT, LOAD, BEGIN, MICRO, MEASURE, APPLY, EVALUATE,
	    PASSKEY, LOSS, SELECTION, FOLLOW, OPEN_SAVER, SAVE, MEET, END };

enum { FULL = -1 };

struct order {
	enum task task;
	int phase;          /* whose attention, or FULL */
	int64_t at;         /* the first sequence of all ranks, or of each of a step */
	int b;              /* sequences that rank 0 gives to all */
	int64_t step, cursor;
	float scale;
	struct lh_mix mix;
	int set;
	int64_t context;
	int depth_percent;
	uint64_t seed;
	size_t path_bytes;  /* of one that follows */
	bool moments;
	struct lh_adamw opt;
	enum lh_recompute recompute[LH_PHASES_MAX];
};

static inline void give(struct lh_team *t, struct order *o)
{
	o->mix = t->data.mix; /* may be set at any boundary */
	lh_comm_share(&t->comm, "what is to be done", o, sizeof(*o));
}

/* Who has sequences of its own: a rank, or those that share them. */
static inline int group_of(const struct lh_team *t)
{
	return t->comm.rank / t->job->context;
}

static inline bool is_shared(const struct lh_team *t)
{
	return t->context.size > 1;
}

/* The first rank's trouble is that of all. */
static inline int agree(struct lh_team *t, struct lh_err *err)
{
	const struct lh_err own = t->trouble;

	t->trouble = (struct lh_err)LH_ERR_INIT;
	return lh_comm_agree(&t->comm, "how it went", &own, err);
}

/* ---- team_files.c ---------------------------------------------------------- */
/* What a rank that is not 0 does in one of LOAD, OPEN_SAVER .. MEET. */
void lh_team_obey_file(struct lh_team *t, const struct order *o);

/* ---- team_looks.c ---------------------------------------------------------- */
/* Sequences of an evaluation: a micro-batch where there is none, which other looks
 * need. */
int64_t lh_team_evaluated(const struct lh_team *t);
/* What a rank that is not 0 does in one of EVALUATE .. SELECTION. */
void lh_team_obey_look(struct lh_team *t, const struct order *o);

#endif

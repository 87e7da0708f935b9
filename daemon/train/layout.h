/* layout.h: where the model's activations lie, and how many bytes that takes.
 *
 * One arena holds the activations of whatever runs: a training step in one of
 * the job's modes, or a forward pass alone. It is as large as the largest of
 * them and is laid out anew when another begins, so a switch allocates nothing.
 *
 * What is not kept from forward to backward is computed again there. Tensors of
 * (R,C) a layer that stay, with C = H*D, F = 1.5 C, G = H, s = S/T:
 *
 *                 full attention         Lighthouse
 *   none          12.5                   9.5 + 4 s
 *   cheap          9                     5 + 4 s     norms, h, Lighthouse's o
 *   mlp            6                     2 + 4 s     and gate, up
 *   layer          2                     1 + s       and all but x, attention's
 *                                                    result and its choice
 *
 * Of a sequence that several ranks share each has its part of all that, and keys and values
 * of all for the layer that it is at: scratch, of which backward has twice as much.
 *
 * Attention itself is never computed twice. What is computed again goes where
 * the same layer's gradients go later: scratch costs nothing more.
 *
 * Pure arithmetic: the same code answers where there is no device.
 */
#ifndef LIGHTHOUSE_LAYOUT_H
#define LIGHTHOUSE_LAYOUT_H

#include "train/attention.h"
#include "train/model.h"

struct lh_layer_acts {
	lh_act *x;     /* (R,C) residual stream on entry */
	lh_act *n1;    /* (R,C) */
	float *rstd1;  /* (R) */
	struct lh_attention_saved attention;
	lh_act *mid;   /* (R,C) residual stream after attention */
	lh_act *n2;    /* (R,C) */
	float *rstd2;  /* (R) */
	lh_act *gu;    /* (R,2F) */
	lh_act *h;     /* (R,F) */
};

/* R: rows of this rank. */
struct lh_acts {
	/* Same place in every layout of a model. */
	struct lh_rope rope;         /* (T, D/2) */
	int32_t *tokens, *targets;   /* (R) */
	int32_t *starts;             /* (R) of documents, lh_heads.start */
	float *row_loss;             /* (R) */

	int32_t *sub_starts;         /* (B,S) the same in the sub-sequence */
	struct lh_layer_acts layer[LH_LAYERS_MAX];
	lh_act *last;  /* (R,C) residual stream after all layers */
	lh_act *nf;    /* (R,C) */
	float *rstdf;  /* (R) */

	/* Dead when a layer is done. */
	lh_act *dx;    /* (R,C) gradient of the residual stream */
	lh_act *dn;    /* (R,C) */
	lh_act *wide;  /* (R, max(2F, (H+2G)*D)) */
	lh_act *half;  /* (R, max(F, H*D, C)) */
	lh_act *raw;   /* (R,(H+2G)*D) before norms of q and k, if there are any */
	struct lh_attention_scratch attention;
	void *xent;
	size_t xent_bytes;
};

/* Bytes by what they are for. */
struct lh_layout_bytes {
	int64_t state;   /* weights, gradients, moments */
	int64_t kept;    /* from forward to backward */
	int64_t scratch; /* of a layer, gradients of activations */
	int64_t loss;    /* logits */
	int64_t device;  /* the device's own: libraries, scratch of ops */
	int64_t total;
};

struct lh_layout {
	const struct lh_job_model *model;
	const struct lh_ops_sizes *sizes;
	int B;
	int rest; /* sequences of a smaller last micro-batch, 0 = none */
	int64_t T;
	const struct lh_attention_mode *mode; /* recompute is not AUTO */
	int ranks; /* that share the moments, 0 = 1 */
	int context; /* of them, those that share each sequence, 0 = 1; then B is 1 */
	enum lh_divide divide; /* what else they share */
	bool deterministic; /* the device is */
	bool train; /* false: forward only, nothing is kept */
	bool documents; /* are kept apart */
};

/* Of `count` parameters, those that one of `ranks` updates. */
static inline int64_t lh_layout_shard(int64_t count, int ranks)
{
	const int64_t unit = 64; /* as memory is aligned */

	return ranks > 1 ? (count + unit * ranks - 1) / (unit * ranks) * unit : count;
}

/* Bytes of activations, by purpose (NULL: not wanted); state and device too. */
int64_t lh_layout_measure(const struct lh_layout *l, struct lh_layout_bytes *bytes);
/* Views into `arena`, of lh_layout_measure bytes at least. */
void lh_layout_place(const struct lh_layout *l, void *arena, struct lh_acts *acts);

/* mode->recompute <- the least that fits `memory_bytes` in all, if it is AUTO.
 * LH_ETOOBIG says what is needed where. */
int lh_layout_choose(struct lh_layout *l, struct lh_attention_mode *mode,
		     int64_t memory_bytes, struct lh_err *err);

const char *lh_recompute_name(enum lh_recompute r);

/* One layer's attention as the mode has it: NULL is full. */
const struct lh_lighthouse *lh_layout_lighthouse(const struct lh_attention_mode *mode,
						 int layer);
struct lh_heads lh_layout_heads(const struct lh_job_model *c, int B, int64_t T);
/* What ops have of a layer's attention at a time, in a pass over B sequences; of a shared one
 * its last piece, which sees most. g: of the sequence, or NULL. */
struct lh_sdpa lh_layout_sdpa(const struct lh_layout *l, int B, const struct lh_lighthouse *g);

#endif

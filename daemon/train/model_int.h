/* model_int.h: the model's insides, for model.c, forward.c, update.c and
 * decode.c only. Shapes: R = B*T rows; see lighthouse/ops.h for the letters. */
#ifndef LIGHTHOUSE_MODEL_INT_H
#define LIGHTHOUSE_MODEL_INT_H

#include "train/layout.h"
#include "train/model.h"
#include "train/params.h"

struct lh_model {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	struct lh_job_model c;
	int B;
	int64_t T;
	struct lh_params params;

	/* The rank that this is, and what it updates: `shard` parameters from
	 * first on. The last shards may end behind the parameters, or lie there. */
	struct lh_comm comm;
	int64_t shard, first;

	void *state_arena;
	float *param, *grad; /* (size * shard) */
	float *m, *v;        /* (shard) */
	lh_act *weight;              /* compute copy; == param for float32 */
	float *loss;                 /* (1) of the optimizer step */
	float *eval_loss;            /* (1) */
	float *grad_norm;            /* (1) */

	void *act_arena;
	int64_t act_bytes;
	struct lh_layout layout;     /* of `acts`; its mode is that of the pass */
	struct lh_acts acts;
};

/* Gives `acts` the places of a pass in this mode. */
void lh_model_lay_out(struct lh_model *m, const struct lh_attention_mode *mode,
		      bool train);

/* Rotary tables of positions 0 .. tokens-1 into backend memory (tokens, D/2): angles
 * t * turn[d] of rope.h, in double so that long positions keep their precision. */
void lh_model_fill_rope(struct lh_model *m, const struct lh_rope *rope, int64_t tokens);

/* The norms of a layer's q and k, of a model that has them. */
struct lh_attention_norm lh_model_norm_of(const struct lh_model *m, int layer);

/* n activations to the host, as float32. */
int lh_model_fetch(struct lh_model *m, float *host, const lh_act *src, int64_t n,
		   struct lh_err *err);

/* Compute copy of the tensor at a parameter offset. */
static inline lh_act *weight_at(const struct lh_model *m, int64_t offset)
{
	return (char *)m->weight +
	       (size_t)offset * lh_dtype_bytes(m->ops->sizes->act_type);
}

/* Parameters of this rank's shard, from m->first on: 0 where it lies behind them. */
static inline int64_t shard_count(const struct lh_model *m)
{
	int64_t rest = m->params.floats - m->first;

	return rest < 0 ? 0 : rest < m->shard ? rest : m->shard;
}

#endif

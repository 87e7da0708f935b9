/* model_int.h: the model's insides, for model.c, forward.c and
 * decode.c only. Shapes: R = B*T rows; see lighthouse/ops.h for the letters. */
#ifndef LIGHTHOUSE_MODEL_INT_H
#define LIGHTHOUSE_MODEL_INT_H

#include "train/attention.h"
#include "train/model.h"

struct layer_params { /* offsets in the flat array */
	int64_t norm1; /* (C) */
	int64_t wqkv;  /* ((H+2G)*D, C) */
	int64_t wo;    /* (C, H*D) */
	int64_t norm2; /* (C) */
	int64_t wgu;   /* (2F, C) */
	int64_t wdown; /* (C, F) */
};

struct layer_acts { /* kept from forward to backward */
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

struct scratch { /* dead when a call returns */
	lh_act *dx;    /* (R,C) gradient of the residual stream */
	lh_act *dn;    /* (R,C) */
	lh_act *wide;  /* (R, max(2F, (H+2G)*D)) */
	lh_act *half;  /* (R, max(F, H*D)) */
	struct lh_attention_scratch attention;
	void *xent;
	size_t xent_bytes;
};

struct lh_model {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	struct lh_job_model c;
	int B;
	int64_t T;
	struct lh_param *table;
	int table_count;
	int64_t count;       /* parameters */
	int64_t decay_count; /* of them, from the front, decay */
	int64_t embed, output, final_norm; /* offsets; output == embed if tied */
	struct layer_params *layers;

	void *state_arena;
	float *param, *grad, *m, *v; /* (count) */
	lh_act *weight;              /* compute copy; == param for float32 */
	float *loss;                 /* (1) of the optimizer step */
	float *eval_loss;            /* (1) */
	float *grad_norm;            /* (1) */

	void *act_arena;
	int64_t arena_bytes;
	struct lh_rope rope;         /* (T, D/2) */
	int32_t *tokens, *targets;   /* (R) */
	float *row_loss;             /* (R) */
	struct layer_acts *acts;
	lh_act *last;                /* (R,C) residual stream after all layers */
	lh_act *nf;                  /* (R,C) */
	float *rstdf;                /* (R) */
	struct scratch s;
};

/* Compute copy of the tensor at a parameter offset. */
static inline lh_act *weight_at(const struct lh_model *m, int64_t offset)
{
	return (char *)m->weight +
	       (size_t)offset * lh_dtype_bytes(m->ops->act_type);
}

static inline int64_t qkv_width(const struct lh_job_model *c)
{
	return (int64_t)(c->heads + 2 * c->kv_heads) * c->head_dim;
}


#endif

/* params.h: which parameter tensors a model has, and where each lies.
 *
 * All of them form one flat float32 array, tensors that decay first, then gains
 * and biases, so that the optimizer is two calls and a checkpoint is a table. Projections
 * are packed: wqkv (H+2G)*D x C rows q, k, v; wgu 2F x C rows gate, up.
 *
 * Arithmetic alone: the model has one, and so has whoever reads or writes its
 * parameters without a device. A table belongs to its holder.
 */
#ifndef LIGHTHOUSE_PARAMS_H
#define LIGHTHOUSE_PARAMS_H

#include "lighthouse/job.h"

/* One parameter tensor: offset and count in floats of the flat array. */
struct lh_param {
	char name[64];   /* "layers.3.wqkv", "embed", "output", "final_norm" */
	int64_t rows, cols;  /* cols = 1 for a vector of rows */
	int64_t offset, count;
	bool decays;     /* weight decay applies: a matrix, drawn at random */
	float initial;   /* of what does not: 1 of a gain, 0 of a bias */
};

struct lh_layer_params { /* offsets in the flat array */
	int64_t norm1; /* (C) */
	int64_t wqkv;  /* ((H+2G)*D, C) */
	int64_t bqkv;  /* ((H+2G)*D), with qkv_bias */
	int64_t q_norm, k_norm; /* (D), with qk_norm */
	int64_t wo;    /* (C, H*D) */
	int64_t norm2; /* (C) */
	int64_t wgu;   /* (2F, C) */
	int64_t wdown; /* (C, F) */
};

struct lh_params {
	struct lh_param *table;
	int count;
	int64_t floats;       /* of all tensors */
	int64_t decay_floats; /* of them, from the front, decay */
	int64_t embed, output, final_norm; /* offsets; output == embed if tied */
	struct lh_layer_params *layers;
};

/* Floats of a layer's matrices, which lie together, from its wqkv on; of the embedding, or
 * the output as large; and of gains and biases, from decay_floats on. */
struct lh_params_parts {
	int64_t layer, ends, gains;
};
struct lh_params_parts lh_params_parts(const struct lh_params *p,
				       const struct lh_job_model *c);

void lh_params_init(struct lh_params *p, const struct lh_job_model *c);
void lh_params_release(struct lh_params *p); /* zeroed is allowed */

/* Elements of a packed row of q, k, v. */
static inline int64_t lh_qkv_width(const struct lh_job_model *c)
{
	return (int64_t)(c->heads + 2 * c->kv_heads) * c->head_dim;
}

#endif

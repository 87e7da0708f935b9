/* ranks_step.cuh: optimizer steps of a 530 M model: 30 layers of width 1024, 8 heads of 128,
 * FFN 1536, vocabulary 128,256; or, where there is no GPU, of a small one. */
#ifndef LIGHTHOUSE_TESTS_RANKS_STEP_CUH
#define LIGHTHOUSE_TESTS_RANKS_STEP_CUH

#include "ranks.cuh"

extern "C" {
#include "train/model.h"
}

static inline struct lh_job_model step_shape(bool small)
{
	struct lh_job_model shape = { };

	shape.vocab = small ? 512 : 128256, shape.layers = small ? 2 : 30;
	shape.dim = small ? 128 : 1024;
	shape.heads = shape.kv_heads = small ? 1 : 8;
	shape.head_dim = 128, shape.ffn_dim = small ? 192 : 1536;
	shape.rope_theta = 10000, shape.norm_eps = 1e-5, shape.init_std = 0.02;
	return shape;
}

/* Tokens of sequence `number`, and one more. */
static inline std::vector<int32_t> step_ids(int64_t tokens, int number, int64_t vocab)
{
	std::vector<int32_t> ids((size_t)tokens + 1);

	for (size_t i = 0; i < ids.size(); i++)
		ids[i] = (int32_t)(((i + (size_t)number * ids.size()) * 2654435761u >> 7) %
				   (size_t)vocab);
	return ids;
}

/* Seconds of step 1, 2, ... on one sequence, with a share of 1 / `sequences` of the batch. */
static inline double step_s(struct ranks *r, struct lh_model *m,
			    const struct lh_attention_mode *mode,
			    const std::vector<int32_t> &ids, int sequences, int64_t step)
{
	struct lh_adamw opt = { };
	struct lh_err err = LH_ERR_INIT;
	int64_t start = lh_clock_us();
	float loss, norm;

	opt.lr = 1e-4f, opt.beta1 = 0.9f, opt.beta2 = 0.95f, opt.eps = 1e-8f;
	opt.weight_decay = 0.1f, opt.step = step, opt.clip = 1, opt.grad_scale = 1;
	lh_model_zero_grad(m);
	lh_model_forward_backward(m, mode, 1, ids.data(), ids.data() + 1, nullptr,
				  1 / ((float)(ids.size() - 1) * (float)sequences));
	if (lh_model_measure(m, &loss, &norm, &err))
		ranks_die(&err);
	lh_model_apply(m, &opt);
	ranks_sync(r);
	return (double)(lh_clock_us() - start) / 1e6;
}

#endif

/* test_model_grad.c: the model's gradient against finite differences.
 *
 * A tiny float32 model; the derivative along a direction u of every parameter
 * tensor, and along random directions of all of them, by central differences of
 * the loss against <gradient, u>. Directions mix the gradient itself with noise,
 * so the derivative is not lost in rounding. Selection is piecewise constant and
 * carries no gradient: it is recorded once and replayed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "frozen.h"
#include "train/model_int.h"
#include "train/rng.h"

enum { B = 2, T = 64, V = 19 };

static struct lh_dev *dev;
static struct lh_ops ops;

struct setup {
	struct lh_job_model c;
	struct lh_attention_mode mode;
	struct lh_model *m;
	int32_t tokens[B * T], targets[B * T];
	const int32_t *starts; /* NULL */
};

/* Documents of whole windows, of the coarsest level too. */
static const int32_t *documents(void)
{
	static const int ends[] = { 4, 12, 44, 48, T, T + 40, 2 * T };
	static int32_t starts[B * T];

	for (int i = 0, d = 0; i < B * T; i++) {
		d += i == ends[d];
		starts[i] = d ? ends[d - 1] % T : 0;
	}
	return starts;
}

/* `qwen`: all that some families have besides. */
static void setup_init(struct setup *s, bool lighthouse, bool tied, int kv_heads, bool qwen)
{
	struct lh_err err = LH_ERR_INIT;
	uint32_t r[4];

	memset(s, 0, sizeof(*s));
	s->c = (struct lh_job_model){ .vocab = V, .dim = 16, .layers = 3, .heads = 4,
				      .kv_heads = kv_heads, .head_dim = 6,
				      .ffn_dim = 24, .tied = tied,
				      .rope_theta = 10000, .norm_eps = 1e-5,
				      .init_std = 0.3, .qkv_bias = qwen,
				      .qk_norm = qwen };
	if (qwen)
		s->c.rope_scaling = (struct lh_job_rope_scaling){
			.type = LH_ROPE_YARN, .factor = 4, .original_tokens = 16,
			.beta_fast = 2, .beta_slow = 0.5 };
	s->mode.recompute = LH_RECOMPUTE_NONE;
	if (lighthouse) {
		s->mode.attention = LH_ATTENTION_LIGHTHOUSE;
		s->mode.geometry = (struct lh_lighthouse){
			.tokens = T, .levels = 3, .pool = 2, .topk = 8, .tile = 4 };
		s->mode.dense[1] = true;
		assert_int_equal(lh_lighthouse_check(&s->mode.geometry, NULL, &err), 0);
	}
	assert_int_equal(lh_model_new(&s->m, &ops, dev, NULL, &s->c, B, T, &s->mode, 1,
				      &err), 0);
	assert_int_equal(lh_model_param_count(s->m), lh_job_model_params(&s->c));
	lh_model_init(s->m, 7);
	for (int i = 0; i < B * T; i++) {
		lh_rng_block(3, LH_RNG_SAMPLE, (uint64_t)i, r);
		s->tokens[i] = (int32_t)(r[0] % V);
		s->targets[i] = r[1] % 8 ? (int32_t)(r[2] % V) : -1;
	}
}

/* Loss at params + eps * u. */
static double loss_at(struct setup *s, const float *base, const float *u, double eps)
{
	int64_t n = lh_model_param_count(s->m);
	float *p = lh_calloc((size_t)n, 4), *rows = lh_calloc(B * T, 4);
	struct lh_err err = LH_ERR_INIT;
	double loss, sum = 0;

	for (int64_t i = 0; i < n; i++)
		p[i] = (float)(base[i] + eps * u[i]);
	lh_model_write(s->m, LH_STATE_PARAM, 0, n, p);
	assert_int_equal(lh_model_loss(s->m, &s->mode, B, T, s->tokens, s->targets,
				       s->starts, &loss, rows, &err), 0);
	/* In double: the float32 sum would hide small differences. */
	for (int i = 0; i < B * T; i++)
		sum += rows[i];
	free(p);
	free(rows);
	return sum;
}

/* Relative error of the derivative along u. */
static double check_direction(struct setup *s, const float *base, const float *grad,
			      const float *u)
{
	int64_t n = lh_model_param_count(s->m);
	double dot = 0, norm = 0, best = INFINITY;

	for (int64_t i = 0; i < n; i++) {
		dot += (double)grad[i] * u[i];
		norm += (double)u[i] * u[i];
	}
	/* Two sizes of step: the smaller for curvature, the larger for rounding. */
	for (double h = 0.01; h > 0.001; h /= 4) {
		double eps = h / sqrt(norm), diff, error;

		diff = (loss_at(s, base, u, eps) - loss_at(s, base, u, -eps)) /
		       (2 * eps);
		error = fabs(diff - dot) / (fabs(dot) + 1e-9);
		best = error < best ? error : best;
	}
	return best;
}

static void check(bool lighthouse, bool tied, int kv_heads, bool qwen,
		  const int32_t *starts)
{
	const struct lh_param *params;
	struct lh_err err = LH_ERR_INIT;
	struct setup s;
	float *base, *grad, *u;
	int64_t n;
	int count;

	setup_init(&s, lighthouse, tied, kv_heads, qwen);
	s.starts = starts;
	n = lh_model_param_count(s.m);
	params = lh_model_params(s.m, &count);
	base = lh_calloc((size_t)n, 4);
	grad = lh_calloc((size_t)n, 4);
	u = lh_calloc((size_t)n + 4, 4);
	assert_int_equal(lh_model_read(s.m, LH_STATE_PARAM, 0, n, base, &err), 0);
	lh_model_zero_grad(s.m);
	/* As two micro-batches of one sequence each: gradients accumulate. */
	for (int b = 0; b < B; b++)
		lh_model_forward_backward(s.m, &s.mode, 1, s.tokens + b * T,
					  s.targets + b * T,
					  s.starts ? s.starts + b * T : NULL, 1);
	assert_int_equal(lh_model_read(s.m, LH_STATE_GRAD, 0, n, grad, &err), 0);
	frozen_record();
	loss_at(&s, base, u, 0);
	frozen_replay(true);
	for (int i = -4; i < count; i++) {
		int64_t from = i < 0 ? 0 : params[i].offset;
		int64_t to = i < 0 ? n : from + params[i].count;
		double scale = 0, error;

		for (int64_t j = from; j < to; j++)
			scale += (double)grad[j] * grad[j];
		scale = sqrt(scale / (double)(to - from));
		memset(u, 0, (size_t)n * 4);
		for (int64_t j = from; j < to; j++) {
			float z[4];

			lh_rng_normal(11, LH_RNG_SAMPLE, (uint64_t)(j + 100000 * i), z);
			u[j] = grad[j] + (float)(0.5 * scale) * z[0];
		}
		error = check_direction(&s, base, grad, u);
		if (error >= 1e-3)
			fail_msg("%s: relative error %g", i < 0 ? "all" : params[i].name,
				 error);
	}
	frozen_record();
	free(base);
	free(grad);
	free(u);
	lh_model_free(s.m);
}

static void gradient_of_full_attention(void **state)
{
	(void)state;
	check(false, false, 4, false, NULL);
}

static void gradient_of_full_attention_tied_with_grouped_heads(void **state)
{
	(void)state;
	check(false, true, 2, false, NULL);
}

static void gradient_with_biases_and_norms_of_q_and_k(void **state)
{
	(void)state;
	check(true, true, 2, true, NULL); /* one of its layers is full */
}

static void gradient_of_lighthouse_attention(void **state)
{
	(void)state;
	check(true, false, 4, false, NULL);
}

static void gradient_of_lighthouse_attention_tied_with_grouped_heads(void **state)
{
	(void)state;
	check(true, true, 2, false, NULL);
}

static void gradient_of_documents_that_are_kept_apart(void **state)
{
	(void)state;
	check(false, true, 2, false, documents());
	check(true, true, 2, true, documents());
}

/* What is computed again comes out as it was: the same gradient, bit for bit. */
static void recomputation_changes_no_bit(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++) {
		struct lh_err err = LH_ERR_INIT;
		float *kept = NULL, *again;
		struct setup s;
		int64_t n;

		setup_init(&s, i % 2, false, 2, i / 2 % 2);
		s.starts = i / 4 ? documents() : NULL;
		n = lh_model_param_count(s.m);
		again = lh_calloc((size_t)n, 4);
		for (int r = LH_RECOMPUTE_NONE; r <= LH_RECOMPUTE_LAYER; r++) {
			s.mode.recompute = (enum lh_recompute)r;
			lh_model_zero_grad(s.m);
			lh_model_forward_backward(s.m, &s.mode, B, s.tokens, s.targets,
						  s.starts, 1);
			assert_int_equal(lh_model_read(s.m, LH_STATE_GRAD, 0, n, again,
						       &err), 0);
			if (kept) {
				assert_memory_equal(kept, again, (size_t)n * 4);
				continue;
			}
			kept = again;
			again = lh_calloc((size_t)n, 4);
		}
		free(kept);
		free(again);
		lh_model_free(s.m);
	}
}

/* Five steps twice: the same bits. */
static void training_repeats_bit_for_bit(void **state)
{
	float losses[2][5];

	(void)state;
	for (int run = 0; run < 2; run++) {
		struct lh_adamw opt = { .lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.95f,
					.eps = 1e-8f, .weight_decay = 0.1f, .clip = 1,
					.grad_scale = 1 };
		struct lh_err err = LH_ERR_INIT;
		struct setup s;
		float norm;

		setup_init(&s, true, false, 2, false);
		for (int i = 0; i < 5; i++) {
			opt.step = i + 1;
			lh_model_zero_grad(s.m);
			lh_model_forward_backward(s.m, &s.mode, B, s.tokens, s.targets,
						  s.starts, 1.0f / (B * T));
			assert_int_equal(lh_model_measure(s.m, &losses[run][i], &norm,
							  &err), 0);
			lh_model_apply(s.m, &opt);
			frozen_record();
		}
		lh_model_free(s.m);
	}
	assert_memory_equal(losses[0], losses[1], sizeof(losses[0]));
	assert_true(losses[0][4] < losses[0][0]);
}

static void a_gradient_that_is_not_finite_is_not_applied(void **state)
{
	struct lh_adamw opt = { .lr = 1, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
				.step = 1, .grad_scale = 1 };
	struct lh_err err = LH_ERR_INIT;
	float loss, norm, bad = NAN;
	float *before, *after;
	struct setup s;
	int64_t n;

	(void)state;
	setup_init(&s, false, false, 4, false);
	n = lh_model_param_count(s.m);
	before = lh_calloc((size_t)n, 4);
	after = lh_calloc((size_t)n, 4);
	lh_model_read(s.m, LH_STATE_PARAM, 0, n, before, &err);
	lh_model_zero_grad(s.m);
	lh_model_write(s.m, LH_STATE_GRAD, 5, 1, &bad);
	assert_int_equal(lh_model_measure(s.m, &loss, &norm, &err), 0);
	assert_false(isfinite(norm));
	lh_model_apply(s.m, &opt);
	lh_model_read(s.m, LH_STATE_PARAM, 0, n, after, &err);
	assert_memory_equal(before, after, (size_t)n * 4);
	free(before);
	free(after);
	lh_model_free(s.m);
}

static int open_dev(void **state)
{
	(void)state;
	ops = frozen_ops();
	return ops.open(&dev, 2, NULL);
}

static int close_dev(void **state)
{
	(void)state;
	ops.close(dev);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gradient_of_full_attention),
		cmocka_unit_test(gradient_of_full_attention_tied_with_grouped_heads),
		cmocka_unit_test(gradient_with_biases_and_norms_of_q_and_k),
		cmocka_unit_test(gradient_of_lighthouse_attention),
		cmocka_unit_test(
			gradient_of_lighthouse_attention_tied_with_grouped_heads),
		cmocka_unit_test(gradient_of_documents_that_are_kept_apart),
		cmocka_unit_test(recomputation_changes_no_bit),
		cmocka_unit_test(training_repeats_bit_for_bit),
		cmocka_unit_test(a_gradient_that_is_not_finite_is_not_applied),
	};

	return cmocka_run_group_tests(tests, open_dev, close_dev);
}

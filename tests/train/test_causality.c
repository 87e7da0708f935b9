/* test_causality.c: nothing before token j changes when token j does.
 *
 * Bit for bit, in full attention, and in Lighthouse attention with the selection
 * held fixed (which entries exist depends on later tokens of their tile; what
 * they hold does not). The loss at row i predicts token i + 1 from tokens
 * <= i, so rows before j must stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "frozen.h"
#include "train/model.h"
#include "train/rng.h"

enum { T = 256, V = 31 };

static void check(const struct lh_attention_mode *mode)
{
	struct lh_job_model c = { .vocab = V, .dim = 32, .layers = 3, .heads = 4,
				  .kv_heads = 2, .head_dim = 8, .ffn_dim = 48,
				  .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.3 };
	int32_t tokens[T], targets[T];
	float before[T], after[T];
	struct lh_ops ops = frozen_ops();
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;
	struct lh_dev *dev;
	double loss;

	assert_int_equal(ops.open(&dev, 2, &err), 0);
	assert_int_equal(lh_model_new(&m, &ops, dev, NULL, &c, 1, T, mode, 1, &err), 0);
	lh_model_init(m, 5);
	for (int i = 0; i < T; i++) {
		tokens[i] = (int32_t)(lh_rng_uniform(1, LH_RNG_SAMPLE, (uint64_t)i) * V);
		targets[i] = (tokens[i] * 7 + i) % V;
	}
	frozen_record();
	assert_int_equal(lh_model_loss(m, mode, 1, T, tokens, targets, NULL, &loss,
				       before, &err), 0);
	for (int j = 1; j < T; j += 13) {
		int changed = 0, old = tokens[j];

		tokens[j] = (old + 1) % V;
		frozen_replay(true);
		assert_int_equal(lh_model_loss(m, mode, 1, T, tokens, targets, NULL,
					       &loss, after, &err), 0);
		assert_memory_equal(before, after, (size_t)j * sizeof(float));
		for (int i = j; i < T; i++)
			changed += before[i] != after[i];
		assert_true(changed > 0);
		tokens[j] = old;
	}
	frozen_record();
	lh_model_free(m);
	ops.close(dev);
}

static void full_attention_is_causal(void **state)
{
	(void)state;
	check(&lh_attention_full);
}

static void lighthouse_attention_is_causal_with_its_selection_held(void **state)
{
	struct lh_attention_mode mode = {
		.recompute = LH_RECOMPUTE_NONE,
		.attention = LH_ATTENTION_LIGHTHOUSE,
		.geometry = { .tokens = T, .levels = 3, .pool = 4, .topk = 8, .tile = 4,
			      .dilation = 4 } };

	(void)state;
	for (int dilated = 0; dilated < 2; dilated++) {
		mode.geometry.scorer = dilated ? LH_SCORER_DILATED : LH_SCORER_NORM;
		assert_int_equal(lh_lighthouse_check(&mode.geometry, NULL, NULL), 0);
		check(&mode);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_attention_is_causal),
		cmocka_unit_test(lighthouse_attention_is_causal_with_its_selection_held),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

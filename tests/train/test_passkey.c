/* test_passkey.c: texts that hide a digit: what they are, and that a model which learned
 * to look one up finds it, while one that did not is at chance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/shard.h"
#include "train/model.h"
#include "train/passkey.h"

enum { T = 64, B = 16, STEPS = 500, ASKED = 20 };

/* ---- the text -------------------------------------------------------------- */

static void as_text(const int32_t *tokens, int64_t n, char *text)
{
	for (int64_t i = 0; i < n; i++)
		text[i] = (char)tokens[i];
	text[n] = '\0';
}

static void the_digit_is_said_at_its_depth_and_asked_for_at_the_end(void **state)
{
	int32_t tokens[200];
	char text[201], said[40];

	(void)state;
	for (int d = 0; d < LH_PASSKEY_DEPTHS; d++) {
		int digit = lh_passkey_text(7, d, 150, lh_passkey_depths[d], 200, tokens);
		long at, room = 150 - 17 - 20;

		as_text(tokens, 150, text);
		snprintf(said, sizeof(said), " The pass key is %d. ", digit);
		assert_non_null(strstr(text, said));
		at = strstr(text, said) - text;
		assert_int_equal(at, room * lh_passkey_depths[d] / 100);
		assert_string_equal(text + 150 - 17, " The pass key is ");
		for (int t = 150; t < 200; t++)
			assert_int_equal(tokens[t], 0);
	}
}

static void texts_follow_from_the_seed_and_differ_by_sample(void **state)
{
	int32_t a[T], b[T];
	int digits[10] = { 0 };

	(void)state;
	assert_int_equal(lh_passkey_text(1, 3, T, 50, T, a), lh_passkey_text(1, 3, T, 50, T, b));
	assert_memory_equal(a, b, sizeof(a));
	lh_passkey_text(1, 4, T, 50, T, b);
	assert_memory_not_equal(a, b, sizeof(a));
	lh_passkey_text(2, 3, T, 50, T, b);
	assert_memory_not_equal(a, b, sizeof(a));
	for (int i = 0; i < 200; i++)
		digits[lh_passkey_text(1, i, T, 15, T, a)]++;
	for (int d = 0; d < 10; d++)
		assert_true(digits[d] > 5);
}

static void contexts_double_up_to_the_sequence(void **state)
{
	int64_t c[LH_PASSKEY_CONTEXTS_MAX];

	(void)state;
	assert_int_equal(lh_passkey_contexts(4096, 98304, c), 6);
	assert_int_equal(c[0], 4096);
	assert_int_equal(c[4], 65536);
	assert_int_equal(c[5], 98304);
	assert_int_equal(lh_passkey_contexts(4096, 2048, c), 1);
	assert_int_equal(c[0], 2048);
	assert_int_equal(lh_passkey_contexts(64, 16777216, c), 19);
}

/* ---- a model --------------------------------------------------------------- */

static struct lh_dev *dev;

static struct lh_model *new_model(void)
{
	struct lh_job_model c = { .vocab = LH_BYTES_VOCAB, .dim = 32, .layers = 2,
				  .heads = 2, .kv_heads = 2, .head_dim = 16, .ffn_dim = 64,
				  .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.1 };
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;

	assert_int_equal(lh_model_new(&m, &lh_ops_cpu, dev, NULL, &c, B, T, &lh_attention_full, 1,
				      &err), 0);
	lh_model_init(m, 2);
	return m;
}

/* On other texts than those asked for; only the answer is trained. */
static void train(struct lh_model *m)
{
	struct lh_adamw opt = { .lr = 4e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
				.clip = 1, .grad_scale = 1 };
	int32_t tokens[B * T], targets[B * T];
	struct lh_err err = LH_ERR_INIT;
	float loss, norm;

	memset(targets, 0xff, sizeof(targets)); /* -1 */
	for (int i = 0; i < STEPS; i++) {
		for (int b = 0; b < B; b++)
			targets[b * T + T - 1] =
				'0' + lh_passkey_text(99, i * B + b, T,
						      lh_passkey_depths[b % LH_PASSKEY_DEPTHS],
						      T, tokens + b * T);
		opt.step = i + 1;
		lh_model_zero_grad(m);
		lh_model_forward_backward(m, &lh_attention_full, B, tokens, targets, NULL,
					  1.0f / B);
		assert_int_equal(lh_model_measure(m, &loss, &norm, &err), 0);
		lh_model_apply(m, &opt);
	}
}

/* Share that is found at all depths. */
static double found(struct lh_model *m)
{
	static float logits[B * LH_BYTES_VOCAB];
	int32_t tokens[B * T];
	struct lh_err err = LH_ERR_INIT;
	int digit[B], right = 0;

	for (int i = 0; i < ASKED; i++) {
		for (int b = 0; b < B; b++)
			digit[b] = lh_passkey_text(1, i * B + b, T,
						   lh_passkey_depths[b % LH_PASSKEY_DEPTHS], T,
						   tokens + b * T);
		assert_int_equal(lh_model_logits(m, &lh_attention_full, B, T, tokens, T - 1,
						 logits, &err), 0);
		for (int b = 0; b < B; b++)
			right += lh_passkey_answer(logits + b * LH_BYTES_VOCAB) == digit[b];
	}
	return (double)right / (B * ASKED);
}

static void one_that_learned_to_look_up_finds_it_an_untrained_one_does_not(void **state)
{
	struct lh_model *m = new_model();

	(void)state;
	assert_true(found(m) < 0.2); /* 320 asked, 0.1 by chance */
	train(m);
	assert_true(found(m) > 0.5);
	lh_model_free(m);
}

/* What follows a shorter context is padding, and changes no answer. */
static void the_rest_of_a_sequence_changes_nothing(void **state)
{
	float a[LH_BYTES_VOCAB], b[LH_BYTES_VOCAB];
	struct lh_model *m = new_model();
	struct lh_err err = LH_ERR_INIT;
	int32_t tokens[T];

	(void)state;
	lh_passkey_text(1, 0, T, 30, T, tokens);
	assert_int_equal(lh_model_logits(m, &lh_attention_full, 1, T, tokens, 40, a, &err), 0);
	memset(tokens + 41, 0, (T - 41) * sizeof(*tokens));
	assert_int_equal(lh_model_logits(m, &lh_attention_full, 1, T, tokens, 40, b, &err), 0);
	assert_memory_equal(a, b, sizeof(a));
	lh_model_free(m);
}

static int setup(void **state)
{
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	return lh_ops_cpu.open(&dev, 1, &err);
}

static int teardown(void **state)
{
	(void)state;
	lh_ops_cpu.close(dev);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_digit_is_said_at_its_depth_and_asked_for_at_the_end),
		cmocka_unit_test(texts_follow_from_the_seed_and_differ_by_sample),
		cmocka_unit_test(contexts_double_up_to_the_sequence),
		cmocka_unit_test(one_that_learned_to_look_up_finds_it_an_untrained_one_does_not),
		cmocka_unit_test(the_rest_of_a_sequence_changes_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

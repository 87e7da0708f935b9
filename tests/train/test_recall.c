/* test_recall.c: attention learns to look something up, and nothing else can.
 *
 * A sequence is a random word of LENGTH ids, a mark, and the word again. The
 * second half can only be predicted by looking back; with the attention's output
 * matrices held at zero the same model stays at chance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/model.h"
#include "train/rng.h"

enum { LENGTH = 7, T = 2 * LENGTH + 1, B = 32, V = 9, MARK = 8, STEPS = 400 };

static void draw(int32_t *tokens, int32_t *targets, uint64_t step)
{
	for (int b = 0; b < B; b++) {
		int32_t word[T + 1];

		for (int i = 0; i < LENGTH; i++) {
			uint32_t r[4];

			lh_rng_block(99, LH_RNG_SHUFFLE, step * B * LENGTH +
							 (uint64_t)(b * LENGTH + i), r);
			word[i] = word[i + LENGTH + 1] = (int32_t)(r[0] % MARK);
		}
		word[LENGTH] = MARK;
		word[T] = MARK;
		for (int i = 0; i < T; i++) {
			tokens[b * T + i] = word[i];
			targets[b * T + i] = i >= LENGTH && i + 1 < T ? word[i + 1] : -1;
		}
	}
}

/* Holds every wo at zero: what attention found does not reach the stream. */
static void silence_attention(struct lh_model *m)
{
	int count;
	const struct lh_param *p = lh_model_params(m, &count);

	for (int i = 0; i < count; i++)
		if (strstr(p[i].name, ".wo")) {
			float *zero = lh_calloc((size_t)p[i].count, 4);

			lh_model_write(m, LH_STATE_PARAM, p[i].offset, p[i].count, zero);
			lh_model_write(m, LH_STATE_GRAD, p[i].offset, p[i].count, zero);
			free(zero);
		}
	lh_model_weights_changed(m);
}

/* Nats an id of the second half, on words not seen in training. */
static double train(bool silent)
{
	struct lh_job_model c = { .vocab = V, .dim = 32, .layers = 2, .heads = 2,
				  .kv_heads = 2, .head_dim = 16, .ffn_dim = 64,
				  .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.1 };
	struct lh_adamw opt = { .lr = 4e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
				.clip = 1, .grad_scale = 1 };
	int32_t tokens[B * T], targets[B * T];
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;
	struct lh_dev *dev;
	float loss, norm;
	double sum;

	assert_int_equal(lh_ops_cpu.open(&dev, 1, &err), 0);
	assert_int_equal(lh_model_new(&m, &lh_ops_cpu, dev, NULL, &c, B, T,
				      &lh_attention_full, 1, &err), 0);
	lh_model_init(m, 2);
	for (int i = 0; i < STEPS; i++) {
		draw(tokens, targets, (uint64_t)i);
		opt.step = i + 1;
		lh_model_zero_grad(m);
		if (silent)
			silence_attention(m);
		lh_model_forward_backward(m, &lh_attention_full, B, tokens, targets,
					  NULL, 1.0f / (B * LENGTH));
		if (silent)
			silence_attention(m);
		assert_int_equal(lh_model_measure(m, &loss, &norm, &err), 0);
		lh_model_apply(m, &opt);
	}
	if (silent)
		silence_attention(m);
	draw(tokens, targets, 1000000);
	assert_int_equal(lh_model_loss(m, &lh_attention_full, B, T, tokens, targets, NULL,
				       &sum, NULL, &err), 0);
	lh_model_free(m);
	lh_ops_cpu.close(dev);
	return sum / (B * LENGTH);
}

static void attention_recalls_what_stood_before(void **state)
{
	(void)state;
	assert_true(train(false) < 0.1);
}

static void without_attention_it_stays_at_chance(void **state)
{
	double chance = log(8);

	(void)state;
	assert_true(train(true) > 0.9 * chance);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attention_recalls_what_stood_before),
		cmocka_unit_test(without_attention_it_stays_at_chance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

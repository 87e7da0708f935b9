/* test_decode.c: the decoder says what the whole model says, however its tokens
 * arrive; sampling depends on its arguments alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "train/model.h"
#include "train/sample.h"

enum { T = 48, V = 257 };

static const struct lh_job bytes = { .model.vocab = V, .data.tokenizer = "bytes" };
static const struct lh_job by_file = { .model.vocab = V, .data.tokenizer = "/t.json" };
static struct lh_dev *dev;
static struct lh_model *model;

/* `qwen`: with biases and norms that are not those of a new model, and yarn. */
static int make(struct lh_model **m, bool qwen)
{
	const struct lh_param *p;
	struct lh_job_model c = { .vocab = V, .dim = 24, .layers = 2, .heads = 4,
				  .kv_heads = 2, .head_dim = 6, .ffn_dim = 40,
				  .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.3,
				  .qkv_bias = qwen, .qk_norm = qwen };
	int count;

	if (qwen)
		c.rope_scaling = (struct lh_job_rope_scaling){
			.type = LH_ROPE_YARN, .factor = 4, .original_tokens = 16,
			.beta_fast = 2, .beta_slow = 0.5 };
	if (lh_model_new(m, &lh_ops_cpu, dev, NULL, &c, 1, T, NULL, 0, NULL))
		return -1;
	lh_model_init(*m, 9);
	p = lh_model_params(*m, &count);
	for (int i = 0; qwen && i < count; i++)
		for (int64_t k = 0; !p[i].decays && k < p[i].count; k++) {
			float x = p[i].initial + 0.3f * sinf((float)(7 * i + k));

			lh_model_write(*m, LH_STATE_PARAM, p[i].offset + k, 1, &x);
		}
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return lh_ops_cpu.open(&dev, 2, NULL) || make(&model, false) ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	lh_model_free(model);
	lh_ops_cpu.close(dev);
	return 0;
}

/* Nats of `target` under logits. */
static double nats(const float *logits, int32_t target)
{
	double sum = 0;

	for (int v = 0; v < V; v++)
		sum += exp(logits[v]);
	return log(sum) - logits[target];
}

static void check_decoder(struct lh_model *m)
{
	const int64_t chunks[] = { 1, 5, T };
	int32_t tokens[T], targets[T];
	struct lh_err err = LH_ERR_INIT;
	float rows[T], logits[V];
	double loss;

	for (int i = 0; i < T; i++) {
		tokens[i] = i * 37 % V;
		targets[i] = i * 11 % V;
	}
	assert_int_equal(lh_model_loss(m, &lh_attention_full, 1, T, tokens, targets,
				       NULL, &loss, rows, &err), 0);
	for (int c = 0; c < 3; c++) {
		struct lh_decoder *d;

		assert_int_equal(lh_decoder_new(&d, m, T, &err), 0);
		for (int64_t t = 0; t < T; t += chunks[c]) {
			int64_t n = T - t < chunks[c] ? T - t : chunks[c];

			assert_int_equal(lh_decoder_feed(d, tokens + t, n, logits, &err),
					 0);
			assert_true(fabs(nats(logits, targets[t + n - 1]) -
					 rows[t + n - 1]) < 1e-4);
		}
		assert_int_equal(lh_decoder_feed(d, tokens, 1, logits, &err), LH_ETOOBIG);
		lh_decoder_free(d);
	}
}

static void decoder_agrees_with_the_model_in_any_chunking(void **state)
{
	struct lh_model *qwen;

	(void)state;
	check_decoder(model);
	assert_int_equal(make(&qwen, true), 0);
	check_decoder(qwen);
	lh_model_free(qwen);
}

static int append(void *arg, json_t *piece)
{
	strcat(arg, json_string_value(json_object_get(piece, "text")));
	return 0;
}

static char *sample(double temperature, uint64_t seed, char *pieces)
{
	struct lh_sample_args a = { "ab\xc3\xa9", 4, 60, temperature, 0, 1, seed,
				    NULL, -1, 0 };
	struct lh_err err = LH_ERR_INIT;
	json_t *result;
	char *text;

	pieces[0] = '\0';
	assert_int_equal(lh_sample_run(model, &bytes, 3, &a, append, pieces, &result, &err), 0);
	text = lh_strdup(json_string_value(json_object_get(result, "text")));
	assert_string_equal(text, pieces);
	assert_int_equal(json_integer_value(json_object_get(result, "step")), 3);
	json_decref(result);
	return text;
}

static void sampling_repeats_for_a_seed_and_differs_between_seeds(void **state)
{
	char pieces[512], *a, *b, *c;

	(void)state;
	a = sample(1, 5, pieces);
	b = sample(1, 5, pieces);
	c = sample(1, 6, pieces);
	assert_string_equal(a, b);
	assert_string_not_equal(a, c);
	free(a);
	free(b);
	free(c);
	a = sample(0, 5, pieces);
	b = sample(0, 6, pieces);
	assert_string_equal(a, b);
	free(a);
	free(b);
}

static int append_ids(void *arg, json_t *piece)
{
	json_array_extend(arg, json_object_get(piece, "ids"));
	return 0;
}

/* All the same as text: it is the same model, whoever knows what its ids mean. */
static void ids_go_in_and_come_out(void **state)
{
	json_t *prompt = json_pack("[i, i, i, i]", 'a', 'b', 0xc3, 0xa9), *result, *ids;
	struct lh_sample_args a = { .max_tokens = 60, .temperature = 1, .top_p = 1, .seed = 5,
				    .ids = prompt, .stop = LH_BYTES_SEPARATOR, .below = V };
	char text[512] = "", want[512] = "";
	json_t *pieces = json_array(), *id;
	struct lh_utf8 decoder = { 0 };
	struct lh_err err = LH_ERR_INIT;
	size_t i;

	(void)state;
	free(sample(1, 5, want));
	assert_int_equal(lh_sample_run(model, &by_file, 3, &a, append_ids, pieces, &result, &err),
			 0);
	ids = json_object_get(result, "ids");
	assert_true(json_equal(ids, pieces));
	json_array_foreach (ids, i, id)
		lh_utf8_feed(&decoder, (unsigned char)json_integer_value(id),
			     text + strlen(text));
	lh_utf8_end(&decoder, text + strlen(text));
	assert_string_equal(text, want);
	assert_null(json_object_get(result, "text"));
	json_decref(result);
	a.below = 3;
	assert_int_equal(lh_sample_run(model, &by_file, 3, &a, NULL, NULL, &result, &err), 0);
	json_array_foreach (json_object_get(result, "ids"), i, id)
		assert_in_range(json_integer_value(id), 0, 2);
	json_decref(result);
	json_array_append_new(prompt, json_integer(V));
	assert_int_equal(lh_sample_run(model, &by_file, 3, &a, NULL, NULL, &result, &err),
			 LH_EPARAMS);
	a.ids = NULL;
	a.prompt = "";
	assert_int_equal(lh_sample_run(model, &by_file, 3, &a, NULL, NULL, &result, &err),
			 LH_EPARAMS);
	json_decref(pieces);
	json_decref(prompt);
}

/* The k likeliest of many, ties by their ids, found without sorting all. */
static void a_few_of_many_ids_are_the_likeliest(void **state)
{
	enum { MANY = 5000, K = 7 };
	float *logits = lh_calloc(MANY, sizeof(*logits));
	struct lh_sample_args a = { .temperature = 100, .top_k = K, .top_p = 1, .seed = 1 };
	int draws[MANY] = { 0 };

	(void)state;
	for (int i = 0; i < MANY; i++)
		logits[i] = (float)((i * 7919) % 499);
	for (int i = 0; i < 2000; i++)
		draws[lh_sample_draw(logits, MANY, &a, i)]++;
	for (int i = 0; i < MANY; i++) {
		int better = 0;

		for (int j = 0; j < MANY; j++)
			better += logits[j] > logits[i] || (logits[j] == logits[i] && j < i);
		assert_true(!draws[i] == (better >= K));
	}
	free(logits);
}

/* Four ids of 0.4, 0.3, 0.2 and 0.1, shuffled: how often each is drawn. */
static void count_draws(double temperature, int64_t top_k, double top_p, int draws[4])
{
	const float logits[] = { logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f) };
	struct lh_sample_args a = { "", 0, 1, temperature, top_k, top_p, 3, NULL, -1, 0 };

	memset(draws, 0, 4 * sizeof(*draws));
	for (int i = 0; i < 10000; i++)
		draws[lh_sample_draw(logits, 4, &a, i)]++;
}

static void draws_follow_temperature_and_both_limits(void **state)
{
	/* Of 10,000, with a deviation of 50 at most; want[i] < 0: never. */
	static const struct {
		double temperature;
		int64_t top_k;
		double top_p;
		int want[4];
	} cases[] = {
		{ 1, 0, 1, { 2000, 4000, 1000, 3000 } },
		{ 1, 2, 1, { -1, 5714, -1, 4286 } },
		{ 1, 0, 0.75, { 2222, 4444, -1, 3333 } },
		{ 1, 0, 0.65, { -1, 5714, -1, 4286 } },
		{ 1, 0, 0.3, { -1, 10000, -1, -1 } },
		{ 1, 0, 1e-6, { -1, 10000, -1, -1 } },
		/* The share is one of what top_k leaves. */
		{ 1, 2, 0.57, { -1, 10000, -1, -1 } },
		{ 1, 2, 0.58, { -1, 5714, -1, 4286 } },
		/* Temperature 0.5 squares what is to be shared. */
		{ 0.5, 0, 1, { 1333, 5333, 333, 3000 } },
		{ 0, 0, 1, { -1, 10000, -1, -1 } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int draws[4];

		count_draws(cases[i].temperature, cases[i].top_k, cases[i].top_p, draws);
		for (int k = 0; k < 4; k++)
			if (cases[i].want[k] < 0 ? draws[k] :
						   abs(draws[k] - cases[i].want[k]) > 200)
				fail_msg("case %zu, id %d: %d draws, not %d", i, k, draws[k],
					 cases[i].want[k]);
	}
}

static void bad_sampling_arguments_are_refused(void **state)
{
	const char *bad[] = { "{\"max_tokens\":0}", "{\"temperature\":-1}",
			      "{\"top_k\":-2}", "{\"top_p\":0}", "{\"top_p\":1.1}",
			      "{\"prompt\":7}", "{\"ids\":7}", "{\"ids\":[]}", "{\"ids\":[-1]}", "{\"stop\":-2}", "{\"ids\":[0.5]}",
			      "{\"below\":0}", "[]" };
	struct lh_sample_args a;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct lh_err err = LH_ERR_INIT;
		json_t *json = json_loads(bad[i], 0, NULL);

		assert_int_equal(lh_sample_parse(&a, json, &err), LH_EPARAMS);
		json_decref(json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decoder_agrees_with_the_model_in_any_chunking),
		cmocka_unit_test(sampling_repeats_for_a_seed_and_differs_between_seeds),
		cmocka_unit_test(ids_go_in_and_come_out),
		cmocka_unit_test(a_few_of_many_ids_are_the_likeliest),
		cmocka_unit_test(draws_follow_temperature_and_both_limits),
		cmocka_unit_test(bad_sampling_arguments_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

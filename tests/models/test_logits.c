/* test_logits.c: our logits are those of transformers, within 1e-4, for a tiny model of
 * every family that make_reference.py made and that is kept beside this file: token by
 * token, and by the whole model's losses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "logits.h"

#define MODELS "tests/models"
#define BAR 1e-4

static const char *const names[] = { "llama2", "llama3", "linear", "yarn", "mistral",
				     "qwen2", "qwen3" };
enum { NAMES = sizeof(names) / sizeof(*names) };

static char *path_of(const char *name, const char *file)
{
	return lh_asprintf(MODELS "/%s/%s", name, file);
}

/* Nats of `target` under logits, in double. */
static double nats(const float *logits, int64_t V, int32_t target)
{
	double most = logits[0], sum = 0;

	for (int64_t v = 1; v < V; v++)
		most = fmax(most, logits[v]);
	for (int64_t v = 0; v < V; v++)
		sum += exp(logits[v] - most);
	return log(sum) + most - logits[target];
}

static void check_losses(const char *name, struct logits *l, const int32_t *tokens,
			 int64_t n, const float *want)
{
	int32_t *targets = lh_calloc((size_t)n, sizeof(*targets));
	float *rows = lh_calloc((size_t)n, sizeof(*rows));
	struct lh_err err = LH_ERR_INIT;
	double loss;

	for (int64_t t = 0; t < n; t++)
		targets[t] = (int32_t)(t * 7 % l->vocab);
	assert_int_equal(lh_model_loss(l->model, &lh_attention_full, 1, n, tokens, targets,
				       NULL, &loss, rows, &err), 0);
	for (int64_t t = 0; t < n; t++) {
		double theirs = nats(want + t * l->vocab, l->vocab, targets[t]);

		if (!(fabs(rows[t] - theirs) < BAR))
			fail_msg("%s: loss %g at token %d, theirs is %g", name, rows[t],
				 (int)t, theirs);
	}
	free(rows);
	free(targets);
}

static void check_model(const char *name)
{
	char *hf = path_of(name, ""), *file = path_of(name, "reference.safetensors");
	const struct lh_tensor *tokens, *logits;
	struct lh_err err = LH_ERR_INIT;
	struct lh_safetensors st;
	struct logits l;
	float *ours;

	if (lh_safetensors_open(&st, file, &err))
		fail_msg("%s", err.text);
	tokens = lh_safetensors_find(&st, "tokens");
	logits = lh_safetensors_find(&st, "logits");
	assert_true(tokens && tokens->type == LH_TENSOR_I32 && logits &&
		    logits->type == LH_TENSOR_F32);
	if (logits_open(&l, hf, tokens->count, &err))
		fail_msg("%s", err.text);
	assert_int_equal(logits->count, tokens->count * l.vocab);
	ours = lh_calloc((size_t)logits->count, 4);
	assert_int_equal(logits_of(&l, tokens->data, tokens->count, ours, &err), 0);
	for (int64_t i = 0; i < logits->count; i++) {
		float theirs = ((const float *)logits->data)[i];

		if (!(fabsf(ours[i] - theirs) < (float)BAR))
			fail_msg("%s: logit %d at token %d is %g, theirs is %g", name,
				 (int)(i % l.vocab), (int)(i / l.vocab), ours[i], theirs);
	}
	check_losses(name, &l, tokens->data, tokens->count, logits->data);
	logits_close(&l);
	lh_safetensors_close(&st);
	free(ours);
	free(file);
	free(hf);
}

static void logits_are_those_of_transformers(void **state)
{
	(void)state;
	for (int i = 0; i < NAMES; i++)
		check_model(names[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(logits_are_those_of_transformers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

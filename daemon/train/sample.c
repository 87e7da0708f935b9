/* sample.c: see sample.h. */
#include "train/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "lighthouse/shard.h"
#include "train/rng.h"

enum { IDS = LH_BYTES_VOCAB };

int lh_sample_parse(struct lh_sample_args *a, const json_t *json, struct lh_err *err)
{
	const char *prompt = "";
	size_t prompt_bytes = 0;
	json_int_t tokens = 200, top_k = 40, seed = 1;
	double temperature = 0.8, top_p = 1;
	json_error_t e;

	if (json_unpack_ex((json_t *)json, &e, 0, "{s?s% s?I s?F s?I s?F s?I}", "prompt",
			   &prompt, &prompt_bytes, "max_tokens", &tokens, "temperature",
			   &temperature, "top_k", &top_k, "top_p", &top_p, "seed", &seed))
		return lh_err_set(err, LH_EPARAMS, "sample: %s", e.text);
	if (tokens < 1 || tokens > 65536 || temperature < 0 || top_k < 0 || top_p <= 0 ||
	    top_p > 1)
		return lh_err_set(err, LH_EPARAMS,
				  "sample: max_tokens is 1 to 65536, temperature and "
				  "top_k are not negative, top_p is above 0 and at most 1");
	*a = (struct lh_sample_args){ prompt, prompt_bytes, tokens, temperature, top_k,
				      top_p, (uint64_t)seed };
	return 0;
}

struct choice {
	float logit;
	int32_t id;
};

static int by_logit(const void *a, const void *b)
{
	const struct choice *x = a, *y = b;

	if (x->logit != y->logit)
		return x->logit > y->logit ? -1 : 1;
	return x->id - y->id;
}

int32_t lh_sample_draw(const float *logits, int ids, const struct lh_sample_args *a,
		       int64_t position)
{
	struct choice c[IDS];
	double weight[IDS], sum = 0, kept = 0, want;
	int n = ids, k = 0;

	LH_ASSERT(ids >= 1 && ids <= IDS);
	for (int i = 0; i < ids; i++)
		c[i] = (struct choice){ logits[i], i };
	qsort(c, (size_t)n, sizeof(*c), by_logit);
	if (a->temperature == 0)
		return c[0].id;
	if (a->top_k > 0 && a->top_k < n)
		n = (int)a->top_k;
	for (int i = 0; i < n; i++)
		sum += weight[i] = exp((c[i].logit - c[0].logit) / a->temperature);
	do {
		kept += weight[k++];
	} while (k < n && kept < sum * a->top_p);
	want = kept * lh_rng_uniform(a->seed, LH_RNG_SAMPLE, (uint64_t)position);
	for (int i = 0; i < k; i++) {
		want -= weight[i];
		if (want < 0)
			return c[i].id;
	}
	return c[k - 1].id;
}

/* The prompt as ids; *n of them, heap. */
static int32_t *ids_of(const struct lh_sample_args *a, int64_t *n)
{
	int32_t *ids = lh_calloc(a->prompt_bytes + 1, sizeof(*ids));

	*n = (int64_t)a->prompt_bytes;
	for (int64_t i = 0; i < *n; i++)
		ids[i] = (unsigned char)a->prompt[i];
	if (!*n)
		ids[(*n)++] = LH_BYTES_SEPARATOR;
	return ids;
}

struct text {
	char *all;        /* whole characters so far */
	size_t used;
	struct lh_utf8 decoder;
	int (*piece)(void *arg, const char *text);
	void *arg;
};

static int emit(struct text *t, const char *s)
{
	size_t n = strlen(s);

	memcpy(t->all + t->used, s, n + 1);
	t->used += n;
	return n && t->piece ? t->piece(t->arg, s) : 0;
}

int lh_sample_run(struct lh_model *model, int64_t vocab, int64_t step,
		  const struct lh_sample_args *a,
		  int (*piece)(void *arg, const char *text), void *arg, json_t **result,
		  struct lh_err *err)
{
	struct text t = { .piece = piece, .arg = arg };
	int ids = vocab < IDS ? (int)vocab : IDS;
	struct lh_decoder *d = NULL;
	float *logits = lh_calloc((size_t)vocab, sizeof(*logits));
	int64_t n, made = 0;
	int32_t *prompt = ids_of(a, &n);
	char out[LH_UTF8_OUT_BYTES];
	int rc;

	/* A byte becomes at most one U+FFFD, three bytes. */
	t.all = lh_calloc((size_t)a->max_tokens * 3 + 16, 1);
	rc = lh_decoder_new(&d, model, n + a->max_tokens, err);
	if (!rc)
		rc = lh_decoder_feed(d, prompt, n, logits, err);
	while (!rc && made < a->max_tokens) {
		int32_t id = lh_sample_draw(logits, ids, a, made);

		if (id == LH_BYTES_SEPARATOR)
			break;
		made++;
		lh_utf8_feed(&t.decoder, (unsigned char)id, out);
		if (emit(&t, out) || made == a->max_tokens)
			break;
		rc = lh_decoder_feed(d, &id, 1, logits, err);
	}
	if (!rc) {
		lh_utf8_end(&t.decoder, out);
		emit(&t, out);
		*result = json_pack("{s:s, s:I, s:I}", "text", t.all, "tokens",
				    (json_int_t)made, "step", (json_int_t)step);
	}
	lh_decoder_free(d);
	free(t.all);
	free(prompt);
	free(logits);
	return rc;
}

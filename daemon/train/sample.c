/* sample.c: see sample.h. */
#include "train/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "lighthouse/shard.h"
#include "train/rng.h"

/* Of a prompt. */
enum { IDS_MAX = 65536 };

static int check_ids(const json_t *ids, json_int_t stop, struct lh_err *err)
{
	json_t *id;
	size_t i;

	if (!json_is_array(ids) || (!json_array_size(ids) && stop < 0))
		return lh_err_set(err, LH_EPARAMS, "sample: ids is a list, and where it is "
				  "empty there is a stop to begin with");
	if (json_array_size(ids) > IDS_MAX)
		return lh_err_set(err, LH_EPARAMS, "sample: a prompt has at most %d ids",
				  IDS_MAX);
	json_array_foreach (ids, i, id)
		if (!json_is_integer(id) || json_integer_value(id) < 0 ||
		    json_integer_value(id) > INT32_MAX)
			return lh_err_set(err, LH_EPARAMS, "sample: ids are integers, and not "
					  "negative");
	return 0;
}

int lh_sample_parse(struct lh_sample_args *a, const json_t *json, struct lh_err *err)
{
	const char *prompt = "";
	size_t prompt_bytes = 0;
	json_int_t tokens = 200, top_k = 40, seed = 1, stop = -1, below = INT32_MAX;
	double temperature = 0.8, top_p = 1;
	json_t *ids = NULL;
	json_error_t e;

	if (json_unpack_ex((json_t *)json, &e, 0, "{s?s% s?I s?F s?I s?F s?I s?o s?I s?I}",
			   "prompt", &prompt, &prompt_bytes, "max_tokens", &tokens,
			   "temperature", &temperature, "top_k", &top_k, "top_p", &top_p,
			   "seed", &seed, "ids", &ids, "stop", &stop, "below", &below))
		return lh_err_set(err, LH_EPARAMS, "sample: %s", e.text);
	if (tokens < 1 || tokens > 65536 || temperature < 0 || top_k < 0 || top_p <= 0 ||
	    top_p > 1 || below < 1 || stop < -1 || stop > INT32_MAX)
		return lh_err_set(err, LH_EPARAMS,
				  "sample: max_tokens is 1 to 65536, temperature and "
				  "top_k are not negative, top_p is above 0 and at most 1, "
				  "below is positive, stop an id");
	*a = (struct lh_sample_args){ prompt, prompt_bytes, tokens, temperature, top_k,
				      top_p, (uint64_t)seed, ids, stop, below };
	return ids ? check_ids(ids, stop, err) : 0;
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

/* Moves c[at] down in a heap of n with the least at its top, to where it belongs. */
static void sink(struct choice *c, int64_t n, int64_t at)
{
	for (;;) {
		struct choice held = c[at];
		int64_t least = at;

		for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++)
			if (by_logit(&c[child], &c[least]) > 0)
				least = child;
		if (least == at)
			return;
		c[at] = c[least];
		c[least] = held;
		at = least;
	}
}

/* The k likeliest of them, in order; a vocabulary need not be sorted for a few. */
static void take_best(struct choice *c, int64_t k, const float *logits, int64_t ids)
{
	for (int64_t i = 0; i < k; i++)
		c[i] = (struct choice){ logits[i], (int32_t)i };
	for (int64_t i = k / 2; i-- > 0 && k < ids;)
		sink(c, k, i);
	for (int64_t i = k; i < ids; i++) {
		struct choice next = { logits[i], (int32_t)i };

		if (by_logit(&next, &c[0]) > 0)
			continue;
		c[0] = next;
		sink(c, k, 0);
	}
	qsort(c, (size_t)k, sizeof(*c), by_logit);
}

/* Among c (n), in order, by temperature and top_p. */
static int32_t draw(const struct choice *c, int64_t n, const struct lh_sample_args *a,
		    int64_t position)
{
	double *weight = lh_alloc((size_t)n * sizeof(*weight)), sum = 0, kept = 0, want;
	int64_t k = 0, chosen;

	for (int64_t i = 0; i < n; i++)
		sum += weight[i] = exp((c[i].logit - c[0].logit) / a->temperature);
	do {
		kept += weight[k++];
	} while (k < n && kept < sum * a->top_p);
	want = kept * lh_rng_uniform(a->seed, LH_RNG_SAMPLE, (uint64_t)position);
	for (chosen = 0; chosen < k - 1; chosen++) {
		want -= weight[chosen];
		if (want < 0)
			break;
	}
	free(weight);
	return c[chosen].id;
}

int32_t lh_sample_draw(const float *logits, int64_t ids, const struct lh_sample_args *a,
		       int64_t position)
{
	int64_t n = a->top_k > 0 && a->top_k < ids ? a->top_k : ids;
	struct choice *c;
	int32_t id;

	LH_ASSERT(ids >= 1);
	n = a->temperature == 0 ? 1 : n;
	c = lh_alloc((size_t)n * sizeof(*c));
	take_best(c, n, logits, ids);
	id = a->temperature == 0 ? c[0].id : draw(c, n, a, position);
	free(c);
	return id;
}

/* ---- what goes in and comes out -------------------------------------------- */

/* The prompt as ids, one at least; *n of them, heap. */
static int32_t *prompt_of(const struct lh_sample_args *a, int64_t *n)
{
	size_t most = a->ids ? json_array_size(a->ids) : a->prompt_bytes;
	int32_t *ids = lh_calloc(most + 1, sizeof(*ids));

	*n = (int64_t)most;
	for (size_t i = 0; i < most; i++)
		ids[i] = a->ids ? (int32_t)json_integer_value(json_array_get(a->ids, i)) :
				  (unsigned char)a->prompt[i];
	if (!*n)
		ids[(*n)++] = a->ids ? (int32_t)a->stop : LH_BYTES_SEPARATOR;
	return ids;
}

/* What is drawn so far, as text or as ids. */
struct output {
	bool is_text;
	json_t *ids;
	char *text;       /* whole characters so far */
	size_t used;
	struct lh_utf8 decoder;
	int (*piece)(void *arg, json_t *piece);
	void *arg;
};

static int tell_take(struct output *o, json_t *piece)
{
	int rc = o->piece ? o->piece(o->arg, piece) : 0;

	json_decref(piece);
	return rc;
}

static int emit_text(struct output *o, const char *s)
{
	size_t n = strlen(s);

	memcpy(o->text + o->used, s, n + 1);
	o->used += n;
	return n ? tell_take(o, json_pack("{s:s}", "text", s)) : 0;
}

static int emit(struct output *o, int32_t id)
{
	char out[LH_UTF8_OUT_BYTES];

	if (!o->is_text) {
		json_array_append_new(o->ids, json_integer(id));
		return tell_take(o, json_pack("{s:[i]}", "ids", id));
	}
	lh_utf8_feed(&o->decoder, (unsigned char)id, out);
	return emit_text(o, out);
}

static json_t *finish(struct output *o, int64_t made, int64_t step)
{
	char out[LH_UTF8_OUT_BYTES];
	json_t *result = json_pack("{s:I, s:I}", "tokens", (json_int_t)made, "step",
				   (json_int_t)step);

	if (o->is_text) {
		lh_utf8_end(&o->decoder, out);
		emit_text(o, out);
		json_object_set_new(result, "text", json_string(o->text));
	} else {
		json_object_set(result, "ids", o->ids);
	}
	return result;
}

static int check_prompt(const struct lh_job *job, const struct lh_sample_args *a,
			const int32_t *prompt, int64_t n, struct lh_err *err)
{
	if (!a->ids && lh_job_tokenizer(job) == LH_TOKENIZER_FILE) {
		lh_err_set(err, LH_EPARAMS, "the job's ids are of a tokenizer: text is none of "
			   "them");
		return lh_err_hint(err, "give ids, as 'lhctl sample' does");
	}
	for (int64_t i = 0; i < n; i++)
		if (prompt[i] < 0 || prompt[i] >= job->model.vocab)
			return lh_err_set(err, LH_EPARAMS, "the prompt has id %d, the model "
					  "those below %lld", prompt[i],
					  (long long)job->model.vocab);
	return 0;
}

static int64_t drawn_of(const struct lh_job *job, const struct lh_sample_args *a)
{
	int64_t most = a->ids ? a->below : LH_BYTES_VOCAB;

	return job->model.vocab < most ? job->model.vocab : most;
}

int lh_sample_run(struct lh_model *model, const struct lh_job *job, int64_t step,
		  const struct lh_sample_args *a,
		  int (*piece)(void *arg, json_t *piece), void *arg, json_t **result,
		  struct lh_err *err)
{
	struct output o = { .is_text = !a->ids, .ids = json_array(), .piece = piece,
			    .arg = arg };
	int64_t n, made = 0, ids = drawn_of(job, a), stop = a->ids ? a->stop : LH_BYTES_SEPARATOR;
	float *logits = lh_calloc((size_t)job->model.vocab, sizeof(*logits));
	int32_t *prompt = prompt_of(a, &n);
	struct lh_decoder *d = NULL;
	int rc = check_prompt(job, a, prompt, n, err);

	/* A byte becomes at most one U+FFFD, three bytes. */
	o.text = lh_calloc((size_t)a->max_tokens * 3 + 16, 1);
	if (!rc)
		rc = lh_decoder_new(&d, model, n + a->max_tokens, err);
	if (!rc)
		rc = lh_decoder_feed(d, prompt, n, logits, err);
	while (!rc && made < a->max_tokens) {
		int32_t id = lh_sample_draw(logits, ids, a, made);

		if (id == stop)
			break;
		made++;
		if (emit(&o, id) || made == a->max_tokens)
			break;
		rc = lh_decoder_feed(d, &id, 1, logits, err);
	}
	if (!rc)
		*result = finish(&o, made, step);
	lh_decoder_free(d);
	json_decref(o.ids);
	free(o.text);
	free(prompt);
	free(logits);
	return rc;
}

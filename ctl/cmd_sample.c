/* cmd_sample.c: text from a job's model, as it is written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "text_stream.h"

enum { PROMPT_MAX_BYTES = 65536 };

static const struct ctl_option options[] = {
	{ "prompt", 'p', "TEXT", false, "text to continue; '-' reads it from stdin" },
	{ "tokens", 'n', "N", false, "tokens to write at most (200)" },
	{ "temperature", 't', "X", false, "0 takes always the likeliest (0.8)" },
	{ "top-k", 'k', "N", false, "choose among the N likeliest, 0 = all (40)" },
	{ "top-p", 0, "X", false, "of those the fewest with this share, 1 = all (1)" },
	{ "seed", 0, "N", false, "of the draw (1)" },
	{ "step", 0, "N", false, "from the checkpoint of this step" },
	CTL_OPTION_JSON,
	{ NULL },
};

/* The prompt; heap. What the model would not see whole is refused: exits 2. */
static char *prompt_of(const struct ctl *c)
{
	const char *text = ctl_opt(c, "prompt");
	char *out = lh_calloc(PROMPT_MAX_BYTES + 2, 1);
	size_t n = 0;

	if (text && !strcmp(text, "-"))
		n = fread(out, 1, PROMPT_MAX_BYTES + 1, stdin);
	else if (text)
		n = (size_t)snprintf(out, PROMPT_MAX_BYTES + 2, "%s", text);
	if (n > PROMPT_MAX_BYTES)
		exit(ctl_usage(c->command, "the prompt has more than %d bytes",
			       PROMPT_MAX_BYTES));
	if (strlen(out) != n)
		exit(ctl_usage(c->command, "the prompt holds a NUL byte"));
	return out;
}

/* Of job.sample; what is no text is refused before anybody is asked. */
static json_t *params_of(const struct ctl *c, int64_t job, const char *prompt)
{
	json_t *step = ctl_opt(c, "step") ?
			       json_integer(ctl_opt_int(c, "step", 0, 0, INT64_MAX)) : NULL;

	return json_pack("{s:I, s:o*, s:o, s:I, s:f, s:I, s:f, s:I}", "job", (json_int_t)job,
			 "step", step, "prompt", ctl_text(c, "the prompt", prompt),
			 "max_tokens", (json_int_t)ctl_opt_int(c, "tokens", 200, 1, 65536),
			 "temperature", ctl_opt_number(c, "temperature", 0.8, 0, 100),
			 "top_k", (json_int_t)ctl_opt_int(c, "top-k", 40, 0, 1000000),
			 "top_p", ctl_opt_number(c, "top-p", 1, 1e-6, 1),
			 "seed", (json_int_t)ctl_opt_int(c, "seed", 1, 0, INT64_MAX));
}

/* ---- by the job's tokenizer ------------------------------------------------ */

/* The daemon and its workers know ids alone: they are made of the prompt here, and text
 * of those that come. */
struct speech {
	bool shown;               /* as it comes */
	struct lh_vocabulary vocabulary;
	struct ctl_tokenizer *t;  /* NULL: the job's ids are bytes */
	struct ctl_text_stream stream;
	struct lh_err err;        /* of what came; told when all has */
};

/* Text that ids make behind those before them, heap; NULL after the first error, which
 * stays in s->err. */
static char *hear(struct speech *s, const json_t *list)
{
	size_t n = json_array_size(list);
	int32_t *ids = lh_calloc(n, sizeof(*ids));
	char *text = NULL;

	for (size_t i = 0; i < n; i++)
		ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
	if (!s->err.code)
		ctl_text_stream_add(&s->stream, ids, (int64_t)n, &text, &s->err);
	free(ids);
	return text;
}

static void on_note(void *arg, const char *method, json_t *params)
{
	struct speech *s = arg;
	char *text;

	if (strcmp(method, "sample"))
		return;
	if (!s->t) {
		ctl_put_text(ctl_str(params, "text"));
		return;
	}
	text = hear(s, json_object_get(params, "ids"));
	if (text)
		ctl_put_text(text);
	free(text);
}

static int refuse_empty(const char *tokenizer, struct lh_err *err)
{
	lh_err_set(err, LH_EDATA, "an empty prompt begins with what ends a text, and of that "
		   "'%s' does not tell", tokenizer);
	return lh_err_hint(err, "give a --prompt");
}

/* The prompt in `params` becomes ids, and the stream begins behind it. */
static int say_ids(struct speech *s, const char *tokenizer, json_t *params,
		   struct lh_err *err)
{
	const char *prompt = ctl_str(params, "prompt");
	struct ctl_text text = { prompt, (int64_t)strlen(prompt) };
	struct ctl_ids ids = { 0 };
	json_t *list = json_array();
	int64_t n;
	int rc;

	rc = ctl_tokenizer_encode(s->t, &text, 1, &ids, &n, err);
	if (!rc && !n && s->vocabulary.eos < 0)
		rc = refuse_empty(tokenizer, err);
	if (!rc)
		rc = ctl_text_stream_begin(&s->stream, s->t, ids.ids, n, err);
	for (int64_t i = 0; i < ids.count; i++)
		json_array_append_new(list, json_integer(ids.ids[i]));
	json_object_del(params, "prompt");
	json_object_set_new(params, "ids", list);
	json_object_set_new(params, "stop", json_integer(s->vocabulary.eos));
	json_object_set_new(params, "below", json_integer(s->vocabulary.size));
	free(ids.ids);
	return rc;
}

static int open_tokenizer(struct speech *s, const char *tokenizer, struct lh_err *err)
{
	int rc = lh_vocabulary_read(&s->vocabulary, tokenizer, err);

	return rc ? rc : ctl_tokenizer_open(&s->t, tokenizer, &s->vocabulary, err);
}

/* The prompt in `params` takes the form that the job's model takes. */
static int say_prompt(struct speech *s, struct ctl_client *k, json_t *params,
		      struct lh_err *err)
{
	json_t *job = json_object_get(params, "job");
	json_t *shown = ctl_call(k, "job.show", json_pack("{s:O}", "job", job), err);
	json_t *data = json_object_get(json_object_get(shown, "spec"), "data");
	const char *tokenizer = ctl_str(data, "tokenizer");
	int rc = shown ? 0 : err->code;

	if (!rc && *tokenizer == '/') {
		rc = open_tokenizer(s, tokenizer, err);
		if (!rc)
			rc = say_ids(s, tokenizer, params, err);
	}
	json_decref(shown);
	return rc;
}

/* What was not shown yet: what is still held, or all, which becomes part of the result. */
static int end_speech(struct speech *s, json_t *result, struct lh_err *err)
{
	char *head = s->shown ? lh_strdup("") : hear(s, json_object_get(result, "ids"));
	char *tail = NULL, *text;

	if (!s->err.code)
		ctl_text_stream_end(&s->stream, &tail, &s->err);
	*err = s->err;
	if (!err->code) {
		text = lh_asprintf("%s%s", head, tail);
		if (s->shown)
			ctl_put_text(text);
		else
			json_object_set_new(result, "text", json_string(text));
		free(text);
	}
	free(head);
	free(tail);
	return err->code;
}

/* ---- the command ----------------------------------------------------------- */

static int sample(struct ctl_client *k, struct speech *s, const char *prompt,
		  json_t *params)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *result;
	int rc;

	if (say_prompt(s, k, params, &err))
		return ctl_fail(&err);
	if (s->shown) {
		ctl_put_text(prompt); /* so that the text reads whole */
		ctl_on_note(k, on_note, s);
	}
	result = ctl_call(k, "job.sample", json_incref(params), &err);
	rc = !result ? err.code : s->t ? end_speech(s, result, &err) : 0;
	if (s->shown && result)
		putchar('\n');
	if (rc)
		rc = ctl_fail(&err);
	else if (!s->shown)
		rc = ctl_print_json_take(json_incref(result));
	json_decref(result);
	return rc;
}

static int run(struct ctl *c)
{
	struct ctl_client *k = ctl_connect(c);
	struct speech s = { .shown = !ctl_opt(c, "json") };
	char *prompt;
	json_t *params;
	int64_t job;
	int rc;

	if (!k)
		return CTL_UNREACHABLE;
	rc = ctl_job(k, c->args[0], &job);
	prompt = prompt_of(c);
	if (rc == CTL_DONE) {
		params = params_of(c, job, prompt);
		rc = sample(k, &s, prompt, params);
		json_decref(params);
	}
	ctl_text_stream_release(&s.stream);
	ctl_tokenizer_close(s.t);
	free(prompt);
	ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_sample = {
	"sample", "JOB",
	"Let the model write.\n"
	"A running job answers between two steps, an ended one from its newest checkpoint.\n"
	"Where the job has a tokenizer (data.tokenizer) it makes tokens of the prompt, and\n"
	"text of what comes.",
	"  lhctl sample my-job --prompt 'int main(' --tokens 300\n"
	"  lhctl sample my-job --top-k 0 --top-p 0.9 --seed 7\n"
	"  lhctl sample my-job --step 5000 --temperature 0 --json\n", 1, 1, options, run };

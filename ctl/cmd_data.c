/* cmd_data.c: what training is fed with: the tokens at a place of a file, or those of a
 * sequence that a job draws. Reads the files itself. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/utf8.h"
#include "commands.h"
#include "jobs/jobfile.h"
#include "lighthouse/shard.h"
#include "tokenizer.h"
#include "train/data.h"
#include "train/settings.h"

static const struct ctl_option options[] = {
	{ "at", 0, "N", false, "position in the file, or number of the sequence (0)" },
	{ "tokens", 'n', "N", false, "tokens to show at most (200)" },
	{ "format", 0, "NAME", false, "of a file without a header: uint16 or uint32" },
	{ "tokenizer", 0, "FILE", false, "whose ids they are; of a job its own" },
	{ "ids", 0, NULL, false, "ids, also where they stand for bytes" },
	{ "json", 0, NULL, false, "as data" },
	{ NULL },
};

struct view {
	const struct ctl *c;
	int64_t at, most;
	bool as_bytes; /* ids below 256 are bytes */
	const char *tokenizer; /* borrowed; NULL: none is known */
	json_t *about; /* what comes before the ids */
};

/* Bytes as text, any other id as <|ID|>; heap. */
static char *text_of_bytes(const int32_t *ids, int64_t n)
{
	char *text = lh_calloc((size_t)n + 1, 2 * LH_UTF8_OUT_BYTES), *end = text;
	struct lh_utf8 decoder = { 0 };

	for (int64_t i = 0; i < n; i++) {
		if (ids[i] >= 0 && ids[i] < LH_BYTES_SEPARATOR) {
			lh_utf8_feed(&decoder, (unsigned char)ids[i], end);
		} else {
			lh_utf8_end(&decoder, end);
			end += strlen(end);
			end += sprintf(end, "<|%" PRId32 "|>", ids[i]);
			*end = '\0';
		}
		end += strlen(end);
	}
	lh_utf8_end(&decoder, end);
	return text;
}

static int decode(const char *tokenizer, const int32_t *ids, int64_t n, char **text,
		  struct lh_err *err)
{
	struct ctl_tokenizer *t = NULL;
	struct lh_vocabulary v;
	int rc = lh_vocabulary_read(&v, tokenizer, err);

	if (!rc)
		rc = ctl_tokenizer_open(&t, tokenizer, &v, err);
	if (!rc)
		rc = ctl_tokenizer_decode(t, ids, n, text, err);
	ctl_tokenizer_close(t);
	return rc;
}

/* *text: heap, NULL where it is not known or not wanted. */
static int text_of(const struct view *v, const int32_t *ids, int64_t n, char **text,
		   struct lh_err *err)
{
	*text = NULL;
	if (ctl_opt(v->c, "ids"))
		return 0;
	if (v->tokenizer)
		return decode(v->tokenizer, ids, n, text, err);
	if (v->as_bytes)
		*text = text_of_bytes(ids, n);
	return 0;
}

static void print_about(const json_t *about)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)about, key, value) {
		int64_t from = json_integer_value(json_array_get(value, 0));
		int64_t to = json_integer_value(json_array_get(value, 1));

		if (json_is_string(value)) /* escaped by name_of */
			printf("%s: %s\n", key, json_string_value(value));
		else if (json_is_array(value))
			printf("%s: %" PRId64 " to %" PRId64 "\n", key, from, to);
		else
			printf("%s: %" PRId64 "\n", key, (int64_t)json_integer_value(value));
	}
	putchar('\n');
}

/* Ids [from, from + n) of a shard, below what is in v->about. */
static int show(struct view *v, const struct lh_shard *s, int64_t from, int64_t n)
{
	int32_t *ids = lh_calloc((size_t)n, sizeof(*ids));
	struct lh_err err = LH_ERR_INIT;
	char *text;

	lh_shard_read(s, from, n, ids);
	if (text_of(v, ids, n, &text, &err)) {
		free(ids);
		return ctl_fail(&err);
	}
	if (ctl_opt(v->c, "json")) {
		json_t *list = json_array();

		for (int64_t i = 0; i < n; i++)
			json_array_append_new(list, json_integer(ids[i]));
		json_object_set_new(v->about, "ids", list);
		json_object_set_new(v->about, "text",
				    text ? json_string(text) : json_null());
		ctl_print_json_take(json_incref(v->about));
	} else {
		print_about(v->about);
		for (int64_t i = 0; !text && i < n; i++)
			printf("%s%" PRId32, i ? " " : "", ids[i]);
		if (text)
			ctl_put_text(text);
		putchar('\n');
	}
	free(text);
	free(ids);
	return CTL_DONE;
}

/* A name may hold any bytes, JSON holds UTF-8. */
static json_t *name_of(const char *path)
{
	char safe[1200];

	return json_string(lh_escape(safe, sizeof(safe), path));
}

static int beyond(int64_t at, const char *what, int64_t count)
{
	struct lh_err err = LH_ERR_INIT;

	lh_err_set(&err, LH_EINVAL, "there is no %s %" PRId64, what, at);
	lh_err_hint(&err, "--at is from 0 to %" PRId64, count - 1);
	return ctl_fail(&err);
}

/* Exits 2 for a name that is none. */
static enum lh_shard_format format_of(const struct ctl *c)
{
	const char *name = ctl_opt(c, "format");

	if (!name)
		return LH_SHARD_AUTO;
	if (!strcmp(name, "uint16"))
		return LH_SHARD_UINT16;
	if (!strcmp(name, "uint32"))
		return LH_SHARD_UINT32;
	exit(ctl_usage(c->command, "--format is uint16 or uint32, found '%s'", name));
}

static int inspect_file(struct view *v, const char *path)
{
	enum lh_shard_format format = format_of(v->c);
	struct lh_err err = LH_ERR_INIT;
	int64_t from, to, n;
	struct lh_shard s;
	int rc;

	if (lh_shard_open(&s, path, format, &err))
		return ctl_fail(&err);
	if (v->at >= s.count) {
		rc = beyond(v->at, "position", s.count);
		lh_shard_close(&s);
		return rc;
	}
	lh_shard_document(&s, v->at, &from, &to);
	n = s.count - v->at < v->most ? s.count - v->at : v->most;
	v->as_bytes = s.vocab == LH_BYTES_VOCAB;
	v->about = json_pack("{s:o, s:I, s:i, s:I, s:I, s:I, s:[I, I]}", "file",
			     name_of(path), "tokens", (json_int_t)s.count, "bytes_a_token",
			     s.width, "largest_id", (json_int_t)s.max_token, "documents",
			     (json_int_t)s.documents, "position", (json_int_t)v->at,
			     "document", (json_int_t)from, (json_int_t)to);
	rc = show(v, &s, v->at, n);
	lh_shard_close(&s);
	return rc;
}

static int inspect_sequence(struct view *v, const struct lh_job *job,
			    const struct lh_data *d)
{
	int64_t from, to, n;
	const struct lh_shard *s = lh_data_locate(d, v->at, &from, &to);

	n = to - from < v->most ? to - from : v->most;
	v->as_bytes = lh_job_tokenizer(job) == LH_TOKENIZER_BYTES;
	if (!v->tokenizer && lh_job_tokenizer(job) == LH_TOKENIZER_FILE)
		v->tokenizer = job->data.tokenizer;
	v->about = json_pack("{s:I, s:I, s:o, s:[I, I]}", "sequence", (json_int_t)v->at,
			     "epoch", (json_int_t)lh_data_epoch(d, v->at), "file",
			     name_of(s->path), "positions", (json_int_t)from,
			     (json_int_t)to);
	return show(v, s, from, n);
}

static int ask_spec(struct ctl_client *k, int64_t id, struct lh_job *job,
		    struct lh_err *err)
{
	json_t *shown = ctl_call(k, "job.show", json_pack("{s:I}", "job", (json_int_t)id), err);
	int rc = shown ? lh_jobfile_from_json(job, json_object_get(shown, "spec"), err) :
			 err->code;

	json_decref(shown);
	return rc;
}

/* The mixture that draw `at` was or will be of: the one that was told last of those
 * that hold from it or an earlier one on. */
static int ask_mix(struct ctl_client *k, int64_t id, const struct lh_job *job, int64_t at,
		   struct lh_mix *mix, struct lh_err *err)
{
	bool more = true;
	json_t *event;
	size_t i;

	for (json_int_t last = 0; more;) {
		json_t *told = ctl_call(k, "job.events",
					json_pack("{s:I, s:s, s:I}", "job", (json_int_t)id, "kind",
						  "job.settings", "after_id", last), err);

		if (!told)
			return err->code;
		json_array_foreach (json_object_get(told, "events"), i, event) {
			const json_t *data = json_object_get(event, "data");
			struct lh_settings s;

			last = json_integer_value(json_object_get(event, "id"));
			lh_settings_from_json(&s, json_object_get(data, "settings"));
			lh_settings_complete(&s, job);
			if (s.mix.since <= at)
				*mix = s.mix;
		}
		more = json_is_true(json_object_get(told, "more"));
		json_decref(told);
	}
	return 0;
}

static int inspect_job(struct view *v)
{
	struct ctl_client *k = ctl_connect(v->c);
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job = { 0 };
	struct lh_data d = { 0 };
	int64_t id;
	int rc;

	if (!k)
		return CTL_UNREACHABLE;
	rc = ctl_job(k, v->c->args[1], &id);
	if (!rc && (ask_spec(k, id, &job, &err) || lh_data_open(&d, &job, NULL, &err) ||
		    ask_mix(k, id, &job, v->at, &d.mix, &err)))
		rc = ctl_fail(&err);
	if (!rc)
		rc = inspect_sequence(v, &job, &d);
	lh_data_close(&d);
	lh_job_release(&job);
	ctl_disconnect(k);
	return rc;
}

static int run(struct ctl *c)
{
	struct view v = { .c = c, .at = ctl_opt_int(c, "at", 0, 0, INT64_MAX / 2),
			  .most = ctl_opt_int(c, "tokens", 200, 1, 100000000),
			  .tokenizer = ctl_opt(c, "tokenizer") };
	int rc;

	if (strcmp(c->args[0], "inspect"))
		return ctl_usage(c->command, "'%s' is nothing to do with data; inspect",
				 c->args[0]);
	rc = lh_fs_exists(c->args[1]) ? inspect_file(&v, c->args[1]) : inspect_job(&v);
	json_decref(v.about);
	return rc;
}

const struct ctl_command ctl_cmd_data = {
	"data", "inspect FILE|JOB",
	"Look at tokens.\n"
	"Of a token file those from a position on, with the document that holds it; of a job\n"
	"a sequence by its number in the run, as its worker draws it. Bytes are shown as text,\n"
	"other ids as <|ID|>; those of a tokenizer as its text where it is known (a job's, or\n"
	"--tokenizer), else as they are.",
	"  lhctl data inspect text.train.bin --at 1000000\n"
	"  lhctl data inspect corpus_text_document.idx --json\n"
	"  lhctl data inspect web.train.bin --tokenizer Llama-3.2-1B/tokenizer.json\n"
	"  lhctl data inspect my-job --at 4096 -n 1000\n", 2, 2, options, run };

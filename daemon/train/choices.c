/* choices.c: see choices.h. */
#include "train/choices.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIRST_ROOM = 1 << 16 };

struct reader {
	struct lh_choices *c;
	const struct lh_job *job;
	json_t *line;
	struct lh_err *err;
};

static int bad(const struct reader *r, const char *what, const char *hint)
{
	lh_err_set(r->err, LH_EDATA, "%s", what);
	return lh_err_hint(r->err, "%s", hint);
}

/* ---- a line ---------------------------------------------------------------- */

static int add_id(struct reader *r, json_int_t id)
{
	struct lh_choices *c = r->c;

	if (id < 0 || id >= r->job->model.vocab) {
		lh_err_set(r->err, LH_EDATA, "token id %" JSON_INTEGER_FORMAT
			   ", model.vocab is %" PRId64, id, r->job->model.vocab);
		return lh_err_hint(r->err, "use the tokenizer that the job's data have");
	}
	if (c->id_count == LH_CHOICES_IDS_MAX)
		return bad(r, "there are too many items for memory",
			   "a smaller evaluation.choices.items");
	if (c->id_count == c->id_room) {
		c->id_room = c->id_room ? 2 * c->id_room : FIRST_ROOM;
		c->ids = lh_realloc(c->ids, (size_t)c->id_room * sizeof(*c->ids));
	}
	c->ids[c->id_count++] = (int32_t)id;
	return 0;
}

static int add_bytes(struct reader *r, const char *text, size_t bytes)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < bytes; i++)
		rc = add_id(r, (unsigned char)text[i]);
	return rc;
}

static int add_ids(struct reader *r, const json_t *list)
{
	json_t *id;
	size_t i;
	int rc = 0;

	json_array_foreach (list, i, id) {
		if (!json_is_integer(id))
			return bad(r, "ids are integers", "[12, 7, 301]");
		rc = add_id(r, json_integer_value(id));
		if (rc)
			return rc;
	}
	return 0;
}

/* A number, or one as text: HellaSwag has been published with either. */
static int read_label(struct reader *r, struct lh_choice *item)
{
	const json_t *label = json_object_get(r->line, "label");
	const char *text = json_string_value(label);
	json_int_t n = json_is_integer(label) ? json_integer_value(label) : -1;

	if (text && text[0] >= '0' && text[0] <= '9' && !text[1])
		n = text[0] - '0';
	if (n < 0 || n >= item->endings)
		return bad(r, "'label' names none of the endings", "0 is the first one");
	item->label = (int)n;
	return 0;
}

/* What is asked of the model: text as bytes, or ids. */
static int read_parts(struct reader *r, const char *ctx_name, const char *endings_name,
		      json_t **ctx, json_t **endings)
{
	size_t n;

	*ctx = json_object_get(r->line, ctx_name);
	*endings = json_object_get(r->line, endings_name);
	n = json_array_size(*endings);
	if (n < LH_ENDINGS_MIN || n > LH_ENDINGS_MAX) {
		lh_err_set(r->err, LH_EDATA, "'%s' is no list of %d to %d endings",
			   endings_name, LH_ENDINGS_MIN, LH_ENDINGS_MAX);
		return lh_err_hint(r->err, "{\"%s\": ..., \"%s\": [..., ...], \"label\": 0}",
				   ctx_name, endings_name);
	}
	return 0;
}

/* How many ids a part has, from `from` to here. */
static int end_part(struct reader *r, int64_t from, const char *empty, int32_t *ids)
{
	*ids = (int32_t)(r->c->id_count - from);
	return *ids ? 0 : bad(r, empty, "an ending is what follows a context");
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n';
}

static int read_text(struct reader *r, struct lh_choice *item)
{
	json_t *ctx, *endings, *ending;
	int rc = read_parts(r, "ctx", "endings", &ctx, &endings);
	bool apart;
	size_t i;

	if (rc)
		return rc;
	rc = add_bytes(r, json_string_value(ctx), json_string_length(ctx));
	if (!rc)
		rc = end_part(r, item->from, "'ctx' is missing or empty", &item->context);
	if (rc)
		return rc;
	apart = is_blank(json_string_value(ctx)[json_string_length(ctx) - 1]);
	json_array_foreach (endings, i, ending) {
		const char *text = json_string_value(ending);
		size_t bytes = json_string_length(ending);
		int64_t from = r->c->id_count;

		if (bytes && !apart && !is_blank(*text))
			rc = add_bytes(r, " ", 1);
		if (!rc)
			rc = add_bytes(r, text, bytes);
		if (!rc)
			rc = end_part(r, from, "an ending is empty", &item->ending[i]);
		if (rc)
			return rc;
		item->length[i] = (int32_t)bytes;
	}
	item->endings = (int)json_array_size(endings);
	return 0;
}

/* Lines that tell it tell of one. */
static int read_tokenizer(struct reader *r)
{
	const char *text = json_string_value(json_object_get(r->line, "tokenizer"));
	uint64_t hash = text ? strtoull(text, NULL, 16) : 0;

	if (hash && r->c->tokenizer && hash != r->c->tokenizer)
		return bad(r, "its ids are of another tokenizer than those before",
			   "a file for each tokenizer");
	if (hash)
		r->c->tokenizer = hash;
	return 0;
}

static int read_ids(struct reader *r, struct lh_choice *item)
{
	const json_t *texts = json_object_get(r->line, "endings");
	json_t *ctx, *endings, *ending;
	int rc = read_parts(r, "ctx_ids", "endings_ids", &ctx, &endings);
	size_t i;

	if (!rc)
		rc = read_tokenizer(r);
	if (!rc)
		rc = add_ids(r, ctx);
	if (!rc)
		rc = end_part(r, item->from, "'ctx_ids' is missing or empty", &item->context);
	if (rc)
		return rc;
	json_array_foreach (endings, i, ending) {
		size_t bytes = json_string_length(json_array_get(texts, i));
		int64_t from = r->c->id_count;

		rc = add_ids(r, ending);
		if (!rc)
			rc = end_part(r, from, "an ending is empty", &item->ending[i]);
		if (rc)
			return rc;
		item->length[i] = bytes ? (int32_t)bytes : item->ending[i];
	}
	item->endings = (int)json_array_size(endings);
	return 0;
}

/* The context loses its beginning where an ending would not fit behind it. A model is
 * given all ids but the last one. */
static int fit(struct reader *r, struct lh_choice *item)
{
	int64_t most = 0, room;

	for (int e = 0; e < item->endings; e++)
		most = item->ending[e] > most ? item->ending[e] : most;
	room = r->job->data.seq_len + 1 - most;
	if (room < 1) {
		lh_err_set(r->err, LH_EDATA, "an ending of %" PRId64 " ids fits in no sequence "
			   "of %" PRId64 " behind a context", most, r->job->data.seq_len);
		return lh_err_hint(r->err, "a longer data.seq_len, or leave the item out");
	}
	if (item->context > room) {
		item->from += item->context - room;
		item->context = (int32_t)room;
		r->c->cut++;
	}
	if (item->context + most - 1 > r->c->longest)
		r->c->longest = item->context + most - 1;
	return 0;
}

static int read_item(struct reader *r, struct lh_choice *item)
{
	bool ids = json_object_get(r->line, "ctx_ids") ||
		   json_object_get(r->line, "endings_ids");
	int rc;

	if (!json_is_object(r->line))
		return bad(r, "it is no JSON object",
			   "{\"ctx\": \"...\", \"endings\": [\"...\", \"...\"], \"label\": 0}");
	if (!ids && lh_job_tokenizer(r->job) != LH_TOKENIZER_BYTES)
		return bad(r, "the job's ids are not bytes, and the item has no ids",
			   "'lhctl ids' adds them, of the job's tokenizer");
	*item = (struct lh_choice){ .from = r->c->id_count };
	rc = ids ? read_ids(r, item) : read_text(r, item);
	if (!rc)
		rc = read_label(r, item);
	return rc ? rc : fit(r, item);
}

/* ---- a file ---------------------------------------------------------------- */

static int read_line(struct reader *r, const char *text, size_t bytes)
{
	struct lh_choices *c = r->c;
	json_error_t why;
	int rc;

	r->line = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
	if (!r->line) {
		lh_err_set(r->err, LH_EDATA, "column %d: %.120s", why.column, why.text);
		return lh_err_hint(r->err, "a line holds one JSON object");
	}
	/* Rooms of powers of two. */
	if (!(c->count & (c->count - 1)))
		c->items = lh_realloc(c->items, (size_t)(c->count ? 2 * c->count : 1) *
							sizeof(*c->items));
	rc = read_item(r, &c->items[c->count]);
	json_decref(r->line);
	c->count += !rc;
	return rc;
}

static int read_lines(struct reader *r, FILE *f, const char *path)
{
	int64_t most = r->job->evaluation.choices.items, number = 0;
	char *text = lh_alloc(LH_CHOICES_LINE_BYTES + 2);
	int rc = 0;

	while (!rc && r->c->count < most && fgets(text, LH_CHOICES_LINE_BYTES + 2, f)) {
		size_t bytes = strlen(text);

		number++;
		if (bytes > LH_CHOICES_LINE_BYTES && text[bytes - 1] != '\n')
			rc = bad(r, "the line is longer than 1 MiB",
				 "a file of JSON objects, one a line");
		else if (strspn(text, " \t\r\n") < bytes)
			rc = read_line(r, text, bytes);
	}
	free(text);
	if (!rc && ferror(f))
		return lh_err_set(r->err, LH_EIO, "cannot read '%s': %s", path,
				  strerror(errno));
	if (rc)
		return lh_err_prefix(r->err, "'%s':%" PRId64, path, number);
	if (r->c->count)
		return 0;
	lh_err_set(r->err, LH_EDATA, "'%s' holds no items", path);
	return lh_err_hint(r->err, "a JSON object a line: ctx, endings, label");
}

/* A pipe of that name must not block, nor a directory be read. */
static FILE *open_file(const char *path, struct lh_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0) {
		lh_err_set(err, errno == ENOENT ? LH_ENOTFOUND : LH_EIO, "cannot open '%s': %s",
			   path, strerror(errno));
		lh_err_hint(err, "paths are relative to the job file");
		return NULL;
	}
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		return fdopen(fd, "r");
	close(fd);
	lh_err_set(err, LH_EDATA, "'%s' is no file", path);
	lh_err_hint(err, "a file of JSON objects, one a line");
	return NULL;
}

int lh_choices_read(struct lh_choices *c, const char *path, const struct lh_job *job,
		    struct lh_err *err)
{
	struct reader r = { .c = c, .job = job, .err = err };
	FILE *f = open_file(path, err);
	int rc;

	*c = (struct lh_choices){ 0 };
	if (!f)
		return err->code;
	rc = read_lines(&r, f, path);
	fclose(f);
	if (rc)
		lh_choices_release(c);
	return rc;
}

void lh_choices_release(struct lh_choices *c)
{
	free(c->ids);
	free(c->items);
	*c = (struct lh_choices){ 0 };
}

/* ---- scores ---------------------------------------------------------------- */

void lh_choices_row(const struct lh_choices *c, int64_t item, int ending, int64_t t,
		    int32_t *tokens, int32_t *targets)
{
	const struct lh_choice *it = &c->items[item];
	const int32_t *context = c->ids + it->from, *end = context + it->context;
	int64_t n = it->context + it->ending[ending];

	LH_ASSERT(n - 1 <= t);
	for (int e = 0; e < ending; e++)
		end += it->ending[e];
	for (int64_t i = 0; i < t; i++) {
		int64_t next = i + 1;

		tokens[i] = i >= n ? 0 : i < it->context ? context[i] : end[i - it->context];
		targets[i] = next < it->context || next >= n ? -1 : end[next - it->context];
	}
}

bool lh_choices_is_right(const struct lh_choice *item, const double *nats, bool by_length)
{
	int best = 0;

	for (int e = 1; e < item->endings; e++)
		if (by_length ? nats[e] / item->length[e] < nats[best] / item->length[best] :
				nats[e] < nats[best])
			best = e;
	return best == item->label;
}

double lh_choices_chance(const struct lh_choices *c)
{
	double sum = 0;

	for (int64_t i = 0; i < c->count; i++)
		sum += 1.0 / c->items[i].endings;
	return sum / (double)c->count;
}

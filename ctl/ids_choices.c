/* ids_choices.c: ids of multiple choice; see ids.h.
 *
 * Cut as EleutherAI's lm-evaluation-harness does it: blanks at the end of a context are
 * the ending's; an ending's ids are those of both together behind as many as the context
 * has alone. So that a score is of what it would be there. */
#include "ids.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/choices.h"

struct item {
	json_t *line, *endings;
	const char *ctx;
	size_t ctx_bytes;
	int count;                            /* endings */
	struct ctl_text texts[1 + LH_ENDINGS_MAX]; /* the context; and with each ending */
	char *owned[LH_ENDINGS_MAX];
};

static int bad(struct lh_err *err, const char *what)
{
	lh_err_set(err, LH_EDATA, "%s", what);
	return lh_err_hint(err, "{\"ctx\": \"...\", \"endings\": [\"...\", \"...\"], "
			   "\"label\": 0}");
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n';
}

/* ---- the texts of a line --------------------------------------------------- */

static int take_ctx(struct item *it, struct lh_err *err)
{
	const json_t *ctx = json_object_get(it->line, "ctx");
	size_t n = json_string_length(ctx);

	it->ctx = json_string_value(ctx);
	it->ctx_bytes = n;
	while (n && is_blank(it->ctx[n - 1]))
		n--;
	if (!n)
		return bad(err, "'ctx' is missing or empty");
	it->texts[0] = (struct ctl_text){ it->ctx, (int64_t)n };
	return 0;
}

static int take_ending(struct item *it, const json_t *ending, struct lh_err *err)
{
	const char *text = json_string_value(ending);
	bool apart = is_blank(it->ctx[it->ctx_bytes - 1]) || (text && is_blank(*text));
	char *both;

	if (!json_string_length(ending))
		return bad(err, "an ending is no text, or empty");
	both = lh_asprintf("%s%s%s", it->ctx, apart ? "" : " ", text);
	it->owned[it->count++] = both;
	it->texts[it->count] = (struct ctl_text){ both, (int64_t)strlen(both) };
	return 0;
}

static int take_texts(struct item *it, struct lh_err *err)
{
	size_t n, i;
	json_t *ending;
	int rc = take_ctx(it, err);

	it->endings = json_object_get(it->line, "endings");
	n = json_array_size(it->endings);
	if (!rc && (n < LH_ENDINGS_MIN || n > LH_ENDINGS_MAX)) {
		lh_err_set(err, LH_EDATA, "'endings' is no list of %d to %d", LH_ENDINGS_MIN,
			   LH_ENDINGS_MAX);
		return lh_err_hint(err, "items with one ending have nothing to choose from");
	}
	json_array_foreach (it->endings, i, ending)
		if (!rc)
			rc = take_ending(it, ending, err);
	return rc;
}

/* ---- its ids --------------------------------------------------------------- */

static json_t *list_of(const int32_t *ids, int64_t n)
{
	json_t *list = json_array();

	for (int64_t i = 0; i < n; i++)
		json_array_append_new(list, json_integer(ids[i]));
	return list;
}

static int add_ids(struct item *it, struct ctl_tokenizer *t, const char *hash,
		   struct ctl_ids *ids, struct lh_err *err)
{
	int64_t counts[1 + LH_ENDINGS_MAX], at;
	json_t *endings;
	int rc;

	ids->count = 0;
	rc = ctl_tokenizer_encode(t, it->texts, 1 + it->count, ids, counts, err);
	if (rc)
		return rc;
	endings = json_array();
	at = counts[0];
	for (int e = 1; e <= it->count; at += counts[e++]) {
		if (counts[e] <= counts[0]) {
			json_decref(endings);
			lh_err_set(err, LH_EDATA, "an ending has no id of its own behind its "
				   "context");
			return lh_err_hint(err, "leave the item out");
		}
		json_array_append_new(endings, list_of(ids->ids + at + counts[0],
						       counts[e] - counts[0]));
	}
	json_object_set_new(it->line, "ctx_ids", list_of(ids->ids, counts[0]));
	json_object_set_new(it->line, "endings_ids", endings);
	json_object_set_new(it->line, "tokenizer", json_string(hash));
	return 0;
}

static int convert(const char *text, size_t bytes, struct ctl_tokenizer *t,
		   const char *hash, struct ctl_ids *ids, struct lh_buf *out,
		   struct lh_err *err)
{
	struct item it = { .line = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL) };
	int rc = json_is_object(it.line) ? take_texts(&it, err) :
					   bad(err, "it is no JSON object");

	if (!rc)
		rc = add_ids(&it, t, hash, ids, err);
	if (!rc) {
		lh_buf_json(out, it.line);
		lh_buf_append(out, "\n", 1);
	}
	for (int e = 0; e < it.count; e++)
		free(it.owned[e]);
	json_decref(it.line);
	return rc;
}

/* ---- a file ---------------------------------------------------------------- */

static int convert_all(FILE *f, const char *path, struct ctl_tokenizer *t,
		       const char *hash, struct lh_buf *out, int64_t *items,
		       struct lh_err *err)
{
	char *line = lh_alloc(LH_CHOICES_LINE_BYTES + 2);
	struct ctl_ids ids = { 0 };
	int64_t number = 0;
	int rc = 0;

	while (!rc && fgets(line, LH_CHOICES_LINE_BYTES + 2, f)) {
		size_t bytes = strlen(line);

		number++;
		if (strspn(line, " \t\r\n") == bytes)
			continue;
		if (bytes > LH_CHOICES_LINE_BYTES && line[bytes - 1] != '\n')
			rc = bad(err, "the line is longer than 1 MiB");
		else
			rc = convert(line, bytes, t, hash, &ids, out, err);
		*items += !rc;
	}
	free(line);
	free(ids.ids);
	return rc ? lh_err_prefix(err, "'%s':%" PRId64, path, number) : 0;
}

int ids_of_choices(struct ctl_tokenizer *t, uint64_t hash, const char *path,
		   struct lh_buf *out, int64_t *items, struct lh_err *err)
{
	FILE *f = fopen(path, "re");
	char name[20];
	int rc;

	*items = 0;
	if (!f) {
		lh_err_set(err, LH_ENOTFOUND, "cannot open '%s': %s", path, strerror(errno));
		return lh_err_hint(err, "is the path right?");
	}
	snprintf(name, sizeof(name), "%016" PRIx64, hash);
	rc = convert_all(f, path, t, name, out, items, err);
	if (!rc && ferror(f)) {
		rc = lh_err_set(err, LH_EIO, "cannot read '%s': %s", path, strerror(errno));
	} else if (!rc && !*items) {
		bad(err, "it holds no items");
		rc = lh_err_prefix(err, "'%s'", path);
	}
	fclose(f);
	return rc;
}

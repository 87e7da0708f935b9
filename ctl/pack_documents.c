/* pack_documents.c: a chunk's documents, and their ids. See pack.h.
 *
 * A line's text takes the place of the line, which is never shorter. Texts go to a
 * tokenizer many at a time, as a frame costs as much as some hundred bytes of text. */
#include "pack.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "lighthouse/shard.h"

enum { BATCH_BYTES = 1 << 20 };

/* ---- documents ------------------------------------------------------------- */

static void add_document(struct pack_chunk *c, int piece, const char *text, size_t n)
{
	if (!n)
		return;
	if (c->document_count == c->document_cap) {
		c->document_cap = c->document_cap ? 2 * c->document_cap : 64;
		c->documents = lh_realloc(c->documents, (size_t)c->document_cap *
							       sizeof(*c->documents));
	}
	c->documents[c->document_count++] = (struct pack_document){
		.text = text, .bytes = (int64_t)n, .piece = piece,
		.place = (double)(XXH64(text, n, 1) >> 11) / 9007199254740992.0 };
}

static int bad_line(const char *field, const struct pack_piece *piece, int64_t line,
		    struct lh_err *err)
{
	lh_err_set(err, LH_EDATA, "'%s' line %" PRId64 ": no text in field '%s'",
		   piece->name, line, field);
	return lh_err_hint(err, "--field names the field that holds the text");
}

static bool is_blank(const char *line, int64_t n)
{
	while (n > 0 && strchr(" \t\r", line[n - 1]) && line[n - 1])
		n--;
	return !n;
}

static int add_lines(struct pack_chunk *c, int number, const char *field)
{
	const struct pack_piece *piece = &c->pieces[number];
	char *at = c->text + piece->from, *end = at + piece->bytes;

	for (int64_t line = piece->line; at < end; line++) {
		char *stop = memchr(at, '\n', (size_t)(end - at));
		int64_t n = (stop ? stop : end) - at;
		json_t *row, *value;

		if (!is_blank(at, n)) {
			row = json_loadb(at, (size_t)n, JSON_ALLOW_NUL, NULL);
			value = json_object_get(row, field);
			if (!json_is_string(value)) {
				json_decref(row);
				return bad_line(field, piece, line, &c->err);
			}
			memcpy(at, json_string_value(value), json_string_length(value));
			add_document(c, number, at, json_string_length(value));
			json_decref(row);
		}
		at += n + 1;
	}
	return 0;
}

/* Those before an error are good. */
static int find_documents(struct pack_chunk *c, const char *field)
{
	int rc = 0;

	for (int i = 0; !rc && i < c->piece_count; i++) {
		const struct pack_piece *piece = &c->pieces[i];

		if (piece->jsonl)
			rc = add_lines(c, i, field);
		else
			add_document(c, i, c->text + piece->from, (size_t)piece->bytes);
	}
	return rc;
}

/* ---- ids ------------------------------------------------------------------- */

/* Bytes are ids, and no more of them than the chunk has. */
static void take_bytes(struct pack_chunk *c)
{
	int64_t used = 0;

	if (c->bytes > c->byte_cap) {
		free(c->byte_ids);
		c->byte_cap = c->bytes > PACK_USUAL_BYTES ? c->bytes : PACK_USUAL_BYTES;
		c->byte_ids = lh_alloc((size_t)c->byte_cap * sizeof(*c->byte_ids));
	}
	for (int64_t i = 0; i < c->document_count; i++) {
		struct pack_document *d = &c->documents[i];
		uint16_t *ids = c->byte_ids + used;

		d->from = used;
		d->count = d->bytes;
		for (int64_t k = 0; k < d->bytes; k++)
			ids[k] = (unsigned char)d->text[k];
		used += d->bytes;
	}
}

/* Who is to blame for what befell documents [from, to). */
static int blame(const struct pack_chunk *c, int64_t from, int64_t to, struct lh_err *err)
{
	const char *first = c->pieces[c->documents[from].piece].name;
	const char *last = c->pieces[c->documents[to - 1].piece].name;

	return strcmp(first, last) ? lh_err_prefix(err, "'%s' to '%s'", first, last) :
				     lh_err_prefix(err, "'%s'", first);
}

/* Documents [from, to) by the tokenizer. */
static int encode_some(struct pack_chunk *c, struct ctl_tokenizer *t, int64_t from, int64_t to,
		       struct lh_err *err)
{
	size_t n = (size_t)(to - from);
	struct ctl_text *texts = lh_calloc(n, sizeof(*texts));
	int64_t *counts = lh_calloc(n, sizeof(*counts)), used = c->ids.count;
	int rc;

	for (size_t i = 0; i < n; i++)
		texts[i] = (struct ctl_text){ c->documents[from + (int64_t)i].text,
					      c->documents[from + (int64_t)i].bytes };
	rc = ctl_tokenizer_encode(t, texts, (int)n, &c->ids, counts, err);
	for (size_t i = 0; !rc && i < n; i++) {
		struct pack_document *d = &c->documents[from + (int64_t)i];

		d->from = used;
		d->count = counts[i];
		used += counts[i];
	}
	free(counts);
	free(texts);
	return rc ? blame(c, from, to, err) : 0;
}

/* All documents; those behind an error are taken away. */
static int encode(struct pack_chunk *c, struct ctl_tokenizer *t, struct lh_err *err)
{
	for (int64_t from = 0, to = 0; from < c->document_count; from = to) {
		int64_t bytes = 0;

		do {
			bytes += c->documents[to++].bytes;
		} while (to < c->document_count &&
			 bytes + c->documents[to].bytes <= BATCH_BYTES);
		if (encode_some(c, t, from, to, err)) {
			c->document_count = from;
			return err->code;
		}
	}
	return 0;
}

static int by_tokenizer(struct pack_chunk *c, const struct pack_ids *how,
			struct ctl_tokenizer **t, struct lh_err *err)
{
	if (!*t && ctl_tokenizer_open(t, how->tokenizer, &how->vocabulary, err)) {
		c->document_count = 0;
		return err->code;
	}
	return encode(c, *t, err);
}

void pack_documents_make(struct pack_chunk *c, const struct pack_ids *how,
			 struct ctl_tokenizer **t)
{
	struct lh_err err = LH_ERR_INIT;

	c->rc = find_documents(c, how->field);
	if (!how->tokenizer) {
		take_bytes(c);
	} else if (by_tokenizer(c, how, t, &err)) {
		/* It concerns what lies before a bad line. */
		c->rc = err.code;
		c->err = err;
	}
}

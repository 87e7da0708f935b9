/* pack_input.c: the files that are named, in order, cut into chunks. See pack.h.
 *
 * A directory's files come sorted by name at each level; symbolic links in it are not
 * followed. A text is one piece; of a file of JSON lines a chunk takes whole lines. */
#include "pack.h"

#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

enum { PROBE_BYTES = 8192, READ_BYTES = 1 << 20 };

struct pack_input {
	struct pack_input_options o;
	int path;               /* that comes next */
	FTS *tree;              /* of the one before it, or NULL */
	struct pack_stream *stream; /* of the file that is read, or NULL */
	char *name;             /* its */
	int64_t size;
	bool jsonl, is_stdin;
	char *rest;             /* of it, behind the last whole line of a chunk */
	int64_t rest_bytes;
	struct pack_place place;
};

struct pack_input *pack_input_new(const struct pack_input_options *o)
{
	struct pack_input *in = lh_calloc(1, sizeof(*in));

	in->o = *o;
	return in;
}

static void close_file(struct pack_input *in)
{
	pack_stream_close(in->stream);
	in->stream = NULL;
	free(in->name);
	in->name = NULL;
	free(in->rest);
	in->rest = NULL;
	in->rest_bytes = 0;
}

void pack_input_free(struct pack_input *in)
{
	if (!in)
		return;
	close_file(in);
	if (in->tree)
		fts_close(in->tree);
	free(in);
}

/* ---- which files ----------------------------------------------------------- */

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static FTS *open_tree(const char *path)
{
	char *roots[] = { (char *)path, NULL };

	return fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
}

/* One that was named is always wanted. */
static bool is_wanted(const struct pack_input_options *o, const FTSENT *e)
{
	const char *ext = o->ext;

	if (e->fts_info != FTS_F)
		return false;
	while (e->fts_level && ext && *ext) {
		size_t n = strcspn(ext, ",");

		if (pack_name_ends(e->fts_name, ext, n))
			return true;
		ext += n + (ext[n] == ',');
	}
	return !e->fts_level || !o->ext;
}

int64_t pack_input_total(const struct pack_input_options *o)
{
	int64_t total = 0;

	for (int i = 0; i < o->path_count; i++) {
		FTS *tree = open_tree(o->paths[i]);
		FTSENT *e;

		while (tree && (e = fts_read(tree)))
			total += is_wanted(o, e) ? e->fts_statp->st_size : 0;
		if (tree)
			fts_close(tree);
	}
	return total;
}

/* The next file of the tree, or NULL. */
static FTSENT *next_of_tree(struct pack_input *in, struct lh_err *err)
{
	FTSENT *e;

	while ((e = fts_read(in->tree))) {
		if (is_wanted(&in->o, e))
			return e;
		if (e->fts_info == FTS_NS && !e->fts_level) {
			lh_err_set(err, LH_ENOTFOUND, "cannot read '%s': %s", e->fts_path,
				   strerror(e->fts_errno));
			lh_err_hint(err, "is the path right?");
			return NULL;
		}
		in->place.unreadable += e->fts_info == FTS_DNR || e->fts_info == FTS_NS;
	}
	fts_close(in->tree);
	in->tree = NULL;
	return NULL;
}

static void enter_stdin(struct pack_input *in)
{
	in->name = lh_strdup("stdin");
	in->is_stdin = true;
	in->jsonl = in->o.jsonl;
}

static void enter_found(struct pack_input *in, const FTSENT *e)
{
	const struct timespec *changed = &e->fts_statp->st_mtim;
	uint64_t *seen = &in->place.seen;

	in->name = lh_strdup(e->fts_path);
	in->size = e->fts_statp->st_size;
	in->is_stdin = false;
	in->jsonl = in->o.jsonl || pack_name_ends(in->name, ".jsonl", 6);
	*seen = XXH64(in->name, strlen(in->name), *seen);
	*seen = XXH64(&in->size, sizeof(in->size), *seen);
	*seen = XXH64(changed, sizeof(*changed), *seen);
}

/* Enters the next file without opening it: 1, 0 at the end of all, or an error. */
static int enter_file(struct pack_input *in, bool *in_tree, struct lh_err *err)
{
	for (;;) {
		const char *path;
		FTSENT *e;

		if (in->tree) {
			e = next_of_tree(in, err);
			*in_tree = e && e->fts_level > 0;
			if (e)
				enter_found(in, e);
			if (e || in->tree)
				return e ? 1 : err->code;
		}
		if (in->path == in->o.path_count)
			return 0;
		path = in->o.paths[in->path++];
		if (!strcmp(path, "-")) {
			enter_stdin(in);
			*in_tree = false;
			return 1;
		}
		in->tree = open_tree(path);
		if (!in->tree)
			return lh_err_set(err, LH_EIO, "cannot read '%s': %s", path,
					  strerror(errno));
	}
}

static void leave_file(struct pack_input *in)
{
	in->place.files++;
	in->place.offset = in->place.line = 0;
	in->place.bytes += in->is_stdin ? 0 : in->size;
	close_file(in);
}

/* Opens the next file that can be: 1, 0 at the end, or an error. */
static int open_file(struct pack_input *in, struct lh_err *err)
{
	struct lh_err why = LH_ERR_INIT;
	bool in_tree;
	int rc;

	while ((rc = enter_file(in, &in_tree, err)) == 1) {
		if (!pack_stream_open(&in->stream, in->is_stdin ? NULL : in->name, in_tree,
				      &why))
			return 1;
		in->place.unreadable++;
		leave_file(in);
	}
	return rc;
}

/* ---- chunks ---------------------------------------------------------------- */

static void reserve(struct pack_chunk *c, int64_t more)
{
	if (c->bytes + more <= c->cap)
		return;
	c->cap = c->bytes + more > 2 * c->cap ? c->bytes + more : 2 * c->cap;
	c->text = lh_realloc(c->text, (size_t)c->cap);
}

static void add_piece(struct pack_input *in, struct pack_chunk *c, int64_t from)
{
	if (c->piece_count == c->piece_cap) {
		c->piece_cap = c->piece_cap ? 2 * c->piece_cap : 16;
		c->pieces = lh_realloc(c->pieces,
				       (size_t)c->piece_cap * sizeof(*c->pieces));
	}
	c->pieces[c->piece_count++] = (struct pack_piece){
		lh_strdup(in->name), from, c->bytes - from, in->place.line + 1, in->jsonl };
}

/* Appends what comes next of the file; *end: that was all. */
static int read_more(struct pack_input *in, struct pack_chunk *c, int64_t from, bool *end,
		     struct lh_err *err)
{
	int64_t got;

	if (c->bytes - from > PACK_DOCUMENT_MAX_BYTES) {
		lh_err_set(err, LH_ETOOBIG, "'%s': a document of more than %d MiB", in->name,
			   PACK_DOCUMENT_MAX_BYTES >> 20);
		return lh_err_hint(err, "documents are files, and lines of .jsonl files");
	}
	reserve(c, READ_BYTES);
	got = pack_stream_read(in->stream, c->text + c->bytes, READ_BYTES, err);
	if (got < 0)
		return (int)got;
	c->bytes += got;
	*end = got < READ_BYTES;
	return 0;
}

static bool is_binary(const struct pack_input *in, const char *text, int64_t n)
{
	return !in->is_stdin && !in->place.offset &&
	       memchr(text, 0, (size_t)(n < PROBE_BYTES ? n : PROBE_BYTES));
}

static void leave_out(struct pack_input *in, struct pack_chunk *c, int64_t from)
{
	c->bytes = from;
	in->place.binary++;
	leave_file(in);
}

static int take_text(struct pack_input *in, struct pack_chunk *c, struct lh_err *err)
{
	int64_t from = c->bytes;
	bool end = false, first = true;

	while (!end) {
		if (read_more(in, c, from, &end, err))
			return err->code;
		if (first && is_binary(in, c->text + from, c->bytes - from)) {
			leave_out(in, c, from);
			return 0;
		}
		first = false;
	}
	if (c->bytes > from)
		add_piece(in, c, from);
	leave_file(in);
	return 0;
}

static int64_t count_lines(const char *text, int64_t n)
{
	const char *end = text + n;
	int64_t lines = 0;

	while ((text = memchr(text, '\n', (size_t)(end - text)))) {
		lines++;
		text++;
	}
	return lines;
}

static void keep_rest(struct pack_input *in, struct pack_chunk *c, int64_t from)
{
	in->rest_bytes = c->bytes - from;
	free(in->rest);
	in->rest = lh_alloc((size_t)in->rest_bytes + 1);
	memcpy(in->rest, c->text + from, (size_t)in->rest_bytes);
	c->bytes = from;
}

/* Lines up to the size of a chunk, one at least. */
static int take_lines(struct pack_input *in, struct pack_chunk *c, struct lh_err *err)
{
	int64_t from = c->bytes, to = from; /* behind the last whole line */
	bool end = false;

	reserve(c, in->rest_bytes);
	if (in->rest_bytes)
		memcpy(c->text + c->bytes, in->rest, (size_t)in->rest_bytes);
	c->bytes += in->rest_bytes;
	in->rest_bytes = 0;
	while (!end && (c->bytes < PACK_CHUNK_BYTES || to == from)) {
		int64_t had = c->bytes;
		const char *last;

		if (read_more(in, c, from, &end, err))
			return err->code;
		if (had == from && is_binary(in, c->text + from, c->bytes - from)) {
			leave_out(in, c, from);
			return 0;
		}
		last = memrchr(c->text + had, '\n', (size_t)(c->bytes - had));
		to = last ? last + 1 - c->text : to;
	}
	if (!end)
		keep_rest(in, c, to);
	if (c->bytes > from)
		add_piece(in, c, from);
	if (end) {
		leave_file(in);
		return 0;
	}
	in->place.offset += to - from;
	in->place.line += count_lines(c->text + from, to - from);
	return 0;
}

int pack_input_next(struct pack_input *in, struct pack_chunk *c, struct lh_err *err)
{
	c->after = in->place;
	while (c->bytes < PACK_CHUNK_BYTES) {
		int rc = in->stream ? 1 : open_file(in, err);

		if (rc != 1)
			return rc;
		rc = in->jsonl ? take_lines(in, c, err) : take_text(in, c, err);
		if (rc)
			return rc;
		c->after = in->place;
	}
	return 0;
}

bool pack_input_seek(struct pack_input *in, const struct pack_place *place)
{
	char *skipped = lh_alloc(READ_BYTES);
	struct lh_err err = LH_ERR_INIT;
	bool in_tree, good = true;

	while (good && in->place.files < place->files) {
		good = enter_file(in, &in_tree, &err) == 1;
		leave_file(in);
	}
	if (good && place->offset)
		good = enter_file(in, &in_tree, &err) == 1 && !in->is_stdin &&
		       !pack_stream_open(&in->stream, in->name, in_tree, &err);
	for (int64_t left = place->offset; good && left > 0;) {
		int64_t n = left < READ_BYTES ? left : READ_BYTES;

		good = pack_stream_read(in->stream, skipped, n, &err) == n;
		left -= n;
	}
	free(skipped);
	good = good && in->place.seen == place->seen;
	in->place = *place;
	return good;
}

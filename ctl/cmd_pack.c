/* cmd_pack.c: text into token shards: OUT.train.bin and OUT.val.bin.
 *
 * Files are taken in sorted order; each is a document, each line of a .jsonl
 * file too. A document goes to the validation split when its hash says so, so
 * the split depends on contents alone. Ids are bytes, 256 ends a document. */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"
#include "base/log.h"
#include "commands.h"
#include "lighthouse/shard.h"
#include "ngram.h"

enum { FILE_MAX_BYTES = 1 << 30, PROBE_BYTES = 8192 };

static const struct ctl_option options[] = {
	{ "output", 'o', "PREFIX", false, "write PREFIX.train.bin and PREFIX.val.bin" },
	{ "validation", 0, "SHARE", false, "share of the documents to hold out (0.05)" },
	{ "validation-bytes", 0, "N", false, "hold out until the split has N bytes" },
	{ "max-bytes", 0, "N", false, "stop after so many bytes of text" },
	{ "ext", 0, "LIST", false, "only files that end so, as in .txt,.md" },
	{ "field", 0, "NAME", false, "text of a .jsonl line (text)" },
	{ "stats", 0, NULL, false, "byte-model losses of the validation split" },
	{ "json", 0, NULL, false, "the summary as data" },
	{ NULL },
};

struct pack {
	const struct ctl *c;
	const char *ext, *field;
	double share;
	int64_t validation_bytes, max_bytes; /* 0: no limit */
	struct lh_shard_writer *split[2];    /* train, validation */
	uint64_t documents[2];
	int64_t bytes[2], skipped, unreadable;
	struct ngram *ngram;                 /* NULL: no --stats */
	int32_t *ids;
	int64_t ids_cap;
	int64_t shown_us;
	bool full;
};

static void show_progress(struct pack *p)
{
	int64_t now = lh_clock_us();

	if (!isatty(STDERR_FILENO) || now < p->shown_us + 200000)
		return;
	p->shown_us = now;
	fprintf(stderr, "\r%" PRIu64 " documents, %.1f MB ",
		p->documents[0] + p->documents[1],
		(double)(p->bytes[0] + p->bytes[1]) / 1e6);
}

/* Which split a document belongs to: a number in [0, 1) from its contents. */
static int split_of(const struct pack *p, const char *text, size_t n)
{
	double place = (double)(XXH64(text, n, 1) >> 11) / 9007199254740992.0;

	if (p->validation_bytes && p->bytes[1] >= p->validation_bytes)
		return 0;
	return place < p->share;
}

static int add_document(struct pack *p, const char *text, size_t n, struct lh_err *err)
{
	int s = split_of(p, text, n), rc;

	if (!n || p->full)
		return 0;
	if (p->max_bytes && p->bytes[0] + p->bytes[1] + (int64_t)n > p->max_bytes) {
		p->full = true;
		n = (size_t)(p->max_bytes - p->bytes[0] - p->bytes[1]);
		if (!n)
			return 0;
	}
	if ((int64_t)n + 1 > p->ids_cap) {
		p->ids_cap = ((int64_t)n + 1) * 2;
		p->ids = lh_realloc(p->ids, (size_t)p->ids_cap * sizeof(*p->ids));
	}
	for (size_t i = 0; i < n; i++)
		p->ids[i] = (unsigned char)text[i];
	p->ids[n] = LH_BYTES_SEPARATOR;
	rc = lh_shard_writer_add(p->split[s], p->ids, (int64_t)n + 1, err);
	p->documents[s]++;
	p->bytes[s] += (int64_t)n;
	if (p->ngram && !s)
		ngram_count(p->ngram, p->ids, (int64_t)n + 1);
	show_progress(p);
	return rc;
}

/* Lines of JSON; each holds its text in a field. */
static int add_jsonl(struct pack *p, const char *name, char *text, struct lh_err *err)
{
	int64_t line = 0;
	char *next;

	for (; text && *text && !p->full; text = next) {
		json_t *row, *value;
		int rc;

		next = strchr(text, '\n');
		if (next)
			*next++ = '\0';
		line++;
		if (!text[strspn(text, " \t\r")])
			continue;
		row = json_loads(text, 0, NULL);
		value = json_object_get(row, p->field);
		if (!json_is_string(value)) {
			json_decref(row);
			lh_err_set(err, LH_EDATA, "'%s' line %" PRId64 ": no text in field "
				   "'%s'", name, line, p->field);
			return lh_err_hint(err, "--field names the field that holds the "
					   "text");
		}
		rc = add_document(p, json_string_value(value), json_string_length(value),
				  err);
		json_decref(row);
		if (rc)
			return rc;
	}
	return 0;
}

static bool ends_with(const char *name, const char *end, size_t n)
{
	size_t l = strlen(name);

	return l >= n && !strncmp(name + l - n, end, n);
}

static bool wanted(const struct pack *p, const char *name)
{
	const char *e = p->ext;

	while (e && *e) {
		size_t n = strcspn(e, ",");

		if (ends_with(name, e, n))
			return true;
		e += n + (e[n] == ',');
	}
	return !p->ext;
}

static int add_file(struct pack *p, const char *path, struct lh_err *err)
{
	size_t n;
	char *text;
	int rc = lh_fs_read(path, FILE_MAX_BYTES, &text, &n, NULL);

	if (rc) {
		p->unreadable++;
		return 0;
	}
	if (memchr(text, 0, n < PROBE_BYTES ? n : PROBE_BYTES)) {
		p->skipped++; /* binary */
		rc = 0;
	} else if (ends_with(path, ".jsonl", 6)) {
		rc = add_jsonl(p, path, text, err);
	} else {
		rc = add_document(p, text, n, err);
	}
	free(text);
	return rc;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* A file, or everything under a directory. Symbolic links are not followed. */
static int add_path(struct pack *p, const char *path, struct lh_err *err)
{
	char *roots[] = { (char *)path, NULL };
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
	FTSENT *e;
	int rc = 0;

	while (!rc && !p->full && (e = fts_read(fts))) {
		if (e->fts_info == FTS_F && (e->fts_level == 0 || wanted(p, e->fts_name)))
			rc = add_file(p, e->fts_path, err);
		else if (e->fts_info == FTS_NS && e->fts_level == 0) {
			rc = lh_err_set(err, LH_ENOTFOUND, "cannot read '%s': %s", path,
					strerror(e->fts_errno));
			lh_err_hint(err, "is the path right?");
		} else if (e->fts_info == FTS_DNR || e->fts_info == FTS_NS)
			p->unreadable++;
	}
	fts_close(fts);
	return rc;
}

static int add_stdin(struct pack *p, struct lh_err *err)
{
	size_t cap = 1 << 16, n = 0, got;
	char *text = lh_alloc(cap);
	int rc;

	while ((got = fread(text + n, 1, cap - n, stdin)) > 0) {
		n += got;
		if (n == cap)
			text = lh_realloc(text, cap *= 2);
	}
	rc = add_document(p, text, n, err);
	free(text);
	return rc;
}

static int open_splits(struct pack *p, const char *prefix, struct lh_err *err)
{
	static const char *const names[] = { "train", "val" };
	int rc = 0;

	for (int s = 0; !rc && s < 2; s++) {
		char *path = lh_asprintf("%s.%s.bin", prefix, names[s]);

		rc = lh_shard_writer_new(&p->split[s], path, LH_BYTES_VOCAB,
					 LH_BYTES_SEPARATOR, err);
		free(path);
	}
	return rc;
}

static int check_splits(const struct pack *p, struct lh_err *err)
{
	if (!p->documents[0]) {
		lh_err_set(err, LH_EDATA, "no text was found for training");
		return lh_err_hint(err, "other paths, another --ext, or a smaller "
				   "--validation");
	}
	if (p->share > 0 && !p->documents[1]) {
		lh_err_set(err, LH_EDATA, "none of the %" PRIu64 " documents fell into the "
			   "validation split", p->documents[0]);
		return lh_err_hint(err, "more documents, a larger --validation, or "
				   "--validation 0");
	}
	return 0;
}

static int commit_splits(struct pack *p, struct lh_err *err)
{
	int rc = check_splits(p, err);

	for (int s = 0; !rc && s < 2; s++) {
		struct lh_shard_writer *w = p->split[s];

		if (!p->documents[s])
			continue;
		p->split[s] = NULL;
		rc = lh_shard_writer_commit(w, p->documents[s], err);
	}
	return rc;
}

/* Losses of byte models counted on the training split, in nats a byte. */
static json_t *measure(struct pack *p, const char *prefix)
{
	char *path = lh_asprintf("%s.val.bin", prefix);
	struct lh_shard s = { 0 };
	double nats[NGRAM_ORDERS];
	int32_t *ids;

	if (!p->ngram || lh_shard_open(&s, path, LH_SHARD_AUTO, NULL)) {
		free(path);
		return json_null();
	}
	ids = lh_calloc((size_t)s.count, sizeof(*ids));
	lh_shard_read(&s, 0, s.count, ids);
	ngram_measure(p->ngram, ids, s.count, nats);
	free(ids);
	free(path);
	lh_shard_close(&s);
	return json_pack("{s:f, s:f, s:f}", "unigram", nats[0], "bigram", nats[1],
			 "trigram", nats[2]);
}

static void print_summary(const struct pack *p, const char *prefix, json_t *stats)
{
	static const char *const names[] = { "train", "val" };
	const char *model;
	json_t *nats;

	for (int s = 0; s < 2; s++)
		if (p->documents[s])
			printf("%s.%s.bin: %" PRIu64 " documents, %" PRId64 " tokens\n",
			       prefix, names[s], p->documents[s],
			       p->bytes[s] + (int64_t)p->documents[s]);
	if (p->skipped || p->unreadable)
		printf("left out: %" PRId64 " binary files, %" PRId64 " unreadable ones\n",
		       p->skipped, p->unreadable);
	json_object_foreach (stats, model, nats)
		printf("validation loss of a %s model: %.3f nats a byte\n", model,
		       json_real_value(nats));
}

static int finish(struct pack *p, const char *prefix, struct lh_err *err)
{
	int rc = commit_splits(p, err);
	json_t *stats;

	if (isatty(STDERR_FILENO))
		fputs("\r\x1b[K", stderr);
	if (rc)
		return rc;
	stats = measure(p, prefix);
	if (ctl_opt(p->c, "json"))
		ctl_print_json_take(json_pack(
			"{s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "train_documents",
			(json_int_t)p->documents[0], "train_tokens",
			(json_int_t)(p->bytes[0] + (int64_t)p->documents[0]),
			"validation_documents", (json_int_t)p->documents[1],
			"validation_tokens",
			(json_int_t)(p->bytes[1] + (int64_t)p->documents[1]), "binary_files",
			(json_int_t)p->skipped, "unreadable_files",
			(json_int_t)p->unreadable, "nats", stats));
	else
		print_summary(p, prefix, stats);
	json_decref(stats);
	return 0;
}

static int run(struct ctl *c)
{
	const char *prefix = ctl_opt(c, "output"), *field = ctl_opt(c, "field");
	struct lh_err err = LH_ERR_INIT;
	struct pack p = {
		.c = c, .ext = ctl_opt(c, "ext"), .field = field ? field : "text",
		.share = ctl_opt_number(c, "validation", 0.05, 0, 0.99),
		.validation_bytes = ctl_opt_int(c, "validation-bytes", 0, 1, INT64_MAX),
		.max_bytes = ctl_opt_int(c, "max-bytes", 0, 1, INT64_MAX) };
	int rc;

	if (!prefix)
		return ctl_usage(c->command, "--output is missing");
	p.ngram = ctl_opt(c, "stats") ? ngram_new() : NULL;
	rc = open_splits(&p, prefix, &err);
	for (int i = 0; !rc && !p.full && i < c->arg_count; i++)
		rc = strcmp(c->args[i], "-") ? add_path(&p, c->args[i], &err) :
					       add_stdin(&p, &err);
	if (!rc)
		rc = finish(&p, prefix, &err);
	for (int s = 0; s < 2; s++)
		lh_shard_writer_abort(p.split[s]);
	ngram_free(p.ngram);
	free(p.ids);
	return rc ? ctl_fail(&err) : CTL_DONE;
}

const struct ctl_command ctl_cmd_pack = {
	"pack", "PATH...",
	"Pack text into token shards.\n"
	"PATH is a file, a directory, or '-' for stdin. Bytes are the tokens; 256 separates\n"
	"documents. The same text always gives the same shards.",
	"  lhctl pack -o text ~/documents\n"
	"  lhctl pack -o code --ext .c,.h --validation 0.02 --stats /usr/include\n"
	"  zcat dump.txt.gz | lhctl pack -o dump --validation 0 -\n", 1, -1, options, run };

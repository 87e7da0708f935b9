/* cmd_pack.c: text into token shards: OUT.train.bin and OUT.val.bin. The rest of the
 * work is in pack_*.c, see pack.h.
 *
 * Files are taken in sorted order; each is a document, each line of a .jsonl
 * file too. A document goes to the validation split when its hash says so, so
 * the split depends on contents alone. Ids are bytes, or a tokenizer's; a separator
 * ends a document. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"
#include "commands.h"
#include "lighthouse/shard.h"
#include "ngram.h"
#include "pack.h"

/* One thread reads for all of them, and more than a few wait for it. */
enum { THREADS_MAX = 64, THREADS_USUAL = 16, BAR_COLUMNS = 24 };

static const struct ctl_option options[] = {
	{ "output", 'o', "PREFIX", false, "write PREFIX.train.bin and PREFIX.val.bin" },
	{ "validation", 0, "SHARE", false, "share of the documents to hold out (0.05)" },
	{ "validation-bytes", 0, "N", false, "hold out until the split has N bytes" },
	{ "max-bytes", 0, "N", false, "stop after so many bytes of text" },
	{ "ext", 0, "LIST", false, "only files that end so, as in .txt,.md" },
	{ "field", 0, "NAME", false, "text of a line of JSON (text)" },
	{ "jsonl", 0, NULL, false, "all input is lines of JSON, whatever it is called" },
	{ "tokenizer", 0, "FILE", false, "a tokenizer.json or SentencePiece .model; else bytes" },
	{ "separator", 0, "TOKEN", false, "that ends a document, or its id (as FILE says)" },
	{ "threads", 0, "N", false, "that make tokens of text (one a CPU, at most 16)" },
	{ "save-every", 0, "MB", false, "text after which the place is noted (1000)" },
	{ "stats", 0, NULL, false, "byte-model losses of the validation split" },
	{ "json", 0, NULL, false, "the summary as data" },
	{ NULL },
};

struct pack {
	const struct ctl *c;
	const char *prefix;
	double share;
	int64_t validation_bytes, max_bytes; /* 0: no limit */
	int64_t save_bytes;                  /* 0: nothing to go on from is kept */
	struct pack_ids ids;
	uint32_t vocab, separator;
	json_t *command;                     /* what the output depends on */
	struct pack_input *input;
	struct pack_pool *pool;
	struct lh_shard_writer *split[2];    /* train, validation */
	struct pack_counts counts;
	struct pack_place place;             /* up to which it is written */
	int64_t saved_bytes;                 /* of text, when the place was noted */
	bool saved, full;
	int64_t total, start_us, start_bytes, shown_us; /* of the bar */
};

static int64_t text_bytes(const struct pack *p)
{
	return p->counts.bytes[0] + p->counts.bytes[1];
}

static int64_t tokens(const struct pack *p, int split)
{
	return p->counts.ids[split] + p->counts.documents[split];
}

/* ---- progress -------------------------------------------------------------- */

/* Only a terminal sees it; its size is found out for one alone. */
static void start_bar(struct pack *p, const struct pack_input_options *o)
{
	p->start_us = lh_clock_us();
	p->start_bytes = p->place.bytes;
	if (isatty(STDERR_FILENO))
		p->total = pack_input_total(o);
}

static void show_bar(struct pack *p)
{
	int64_t now = lh_clock_us(), done = p->place.bytes + p->place.offset;
	double share = p->total ? (double)done / (double)p->total : 0, seconds, rate;
	char bar[BAR_COLUMNS + 1], left[32];
	int full;

	if (!isatty(STDERR_FILENO) || now < p->shown_us + 200000)
		return;
	p->shown_us = now;
	share = share > 1 ? 1 : share; /* unpacked bytes of a large file */
	full = (int)(share * BAR_COLUMNS);
	memset(bar, '#', (size_t)full);
	memset(bar + full, '.', (size_t)(BAR_COLUMNS - full));
	bar[BAR_COLUMNS] = '\0';
	seconds = (double)(now - p->start_us) / 1e6;
	rate = (double)(done - p->start_bytes) / seconds;
	fprintf(stderr, "\r\x1b[K[%s] %3.0f%%  %" PRId64 " documents, %.1f MB", bar,
		100 * share, p->counts.documents[0] + p->counts.documents[1],
		(double)text_bytes(p) / 1e6);
	if (seconds < 1 || rate <= 0)
		return; /* it would jump about */
	ctl_duration(left, (double)(p->total > done ? p->total - done : 0) / rate);
	fprintf(stderr, ", %.0f MB/s, %s left", rate / 1e6, left);
}

static void clear_bar(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\x1b[K", stderr);
}

/* ---- documents into splits ------------------------------------------------- */

static int split_of(const struct pack *p, const struct pack_document *d)
{
	if (p->validation_bytes && p->counts.bytes[1] >= p->validation_bytes)
		return 0;
	return d->place < p->share;
}

static int add_ids(struct pack *p, int s, const struct pack_chunk *c,
		   const struct pack_document *d, int64_t n, struct lh_err *err)
{
	int32_t separator = (int32_t)p->separator;
	int rc = p->ids.tokenizer ?
		lh_shard_writer_add(p->split[s], c->ids.ids + d->from, n, err) :
		lh_shard_writer_add_narrow(p->split[s], c->byte_ids + d->from, n, err);

	return rc ? rc : lh_shard_writer_add(p->split[s], &separator, 1, err);
}

/* One that goes beyond --max-bytes is cut, its ids in the share of its text. */
static int add_document(struct pack *p, const struct pack_chunk *c,
			const struct pack_document *d, struct lh_err *err)
{
	int64_t bytes = d->bytes, n = d->count;
	int s = split_of(p, d);

	if (p->max_bytes && text_bytes(p) + bytes > p->max_bytes) {
		p->full = true;
		bytes = p->max_bytes - text_bytes(p);
		n = (int64_t)((double)n * ((double)bytes / (double)d->bytes));
	}
	if (!n)
		return 0;
	p->counts.documents[s]++;
	p->counts.bytes[s] += bytes;
	p->counts.ids[s] += n;
	return add_ids(p, s, c, d, n, err);
}

/* Everything so far on disk, then where it ends. */
static int save_place(struct pack *p, struct lh_err *err)
{
	int rc = 0;

	if (!p->save_bytes || text_bytes(p) < p->saved_bytes + p->save_bytes)
		return 0;
	for (int s = 0; !rc && s < 2; s++)
		rc = lh_shard_writer_sync(p->split[s], err);
	if (!rc)
		rc = pack_state_save(p->prefix, p->command, &p->place, &p->counts, err);
	p->saved_bytes = text_bytes(p);
	p->saved |= !rc;
	return rc;
}

static int add_chunk(struct pack *p, const struct pack_chunk *c, struct lh_err *err)
{
	int rc = 0;

	for (int64_t i = 0; !rc && !p->full && i < c->document_count; i++)
		rc = add_document(p, c, &c->documents[i], err);
	if (rc || p->full)
		return rc;
	if (c->rc) {
		*err = c->err;
		return c->rc;
	}
	p->place = c->after;
	show_bar(p);
	return save_place(p, err);
}

/* What goes wrong with the input is told after everything before it was written, so that
 * it does not depend on the number of threads. */
static int add_all(struct pack *p, struct lh_err *err)
{
	struct lh_err why = LH_ERR_INIT;
	bool ended = false;
	int rc = 0;

	while (!rc && !p->full) {
		struct pack_chunk *c = ended ? NULL : pack_pool_empty(p->pool);

		if (c) {
			ended = pack_input_next(p->input, c, &why) || !c->piece_count;
			if (c->piece_count)
				pack_pool_submit(p->pool);
			continue;
		}
		c = pack_pool_take(p->pool);
		if (!c)
			break;
		rc = add_chunk(p, c, err);
	}
	if (rc || p->full || !why.code)
		return rc;
	*err = why;
	return why.code;
}

/* ---- shards ---------------------------------------------------------------- */

static char *split_path(const struct pack *p, int s)
{
	return lh_asprintf("%s.%s.bin", p->prefix, s ? "val" : "train");
}

/* From the place that was noted, or from the start. */
static int open_splits(struct pack *p, bool resume, struct lh_err *err)
{
	int rc = 0;

	for (int s = 0; !rc && s < 2; s++) {
		char *path = split_path(p, s);

		rc = resume ? lh_shard_writer_resume(&p->split[s], path, p->vocab,
						     p->separator, tokens(p, s), err) :
			      lh_shard_writer_new(&p->split[s], path, p->vocab,
						  p->separator, err);
		free(path);
	}
	return rc;
}

static void leave_splits(struct pack *p, bool keep)
{
	for (int s = 0; s < 2; s++) {
		if (keep)
			lh_shard_writer_leave(p->split[s]);
		else
			lh_shard_writer_abort(p->split[s]);
		p->split[s] = NULL;
	}
}

static bool go_on(struct pack *p)
{
	struct lh_err err = LH_ERR_INIT;

	if (!p->save_bytes ||
	    !pack_state_load(p->prefix, p->command, &p->place, &p->counts))
		return false;
	if (pack_input_seek(p->input, &p->place) && !open_splits(p, true, &err)) {
		p->saved = true;
		p->saved_bytes = text_bytes(p);
		fprintf(stderr, "going on behind %.1f MB of text that were packed\n",
			(double)text_bytes(p) / 1e6);
		return true;
	}
	leave_splits(p, true);
	fprintf(stderr, "starting over: what was packed of this is not there, or the files "
			"have changed\n");
	p->counts = (struct pack_counts){ 0 };
	p->place = (struct pack_place){ 0 };
	return false;
}

static int check_splits(const struct pack *p, struct lh_err *err)
{
	if (!p->counts.documents[0]) {
		lh_err_set(err, LH_EDATA, "no text was found for training");
		return lh_err_hint(err, "other paths, another --ext, or a smaller "
				   "--validation");
	}
	if (p->share > 0 && !p->counts.documents[1]) {
		lh_err_set(err, LH_EDATA, "none of the %" PRId64 " documents fell into the "
			   "validation split", p->counts.documents[0]);
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

		if (!p->counts.documents[s])
			continue;
		p->split[s] = NULL;
		rc = lh_shard_writer_commit(w, (uint64_t)p->counts.documents[s], err);
	}
	if (!rc)
		pack_state_remove(p->prefix);
	return rc;
}

/* ---- what was made --------------------------------------------------------- */

static void count_documents(struct ngram *g, const struct lh_shard *s)
{
	int64_t from, to;

	for (int64_t at = 0; at < s->count; at = to) {
		int32_t *ids;

		lh_shard_document(s, at, &from, &to);
		ids = lh_calloc((size_t)(to - from), sizeof(*ids));
		lh_shard_read(s, from, to - from, ids);
		ngram_count(g, ids, to - from);
		free(ids);
	}
}

/* Losses of byte models counted on the training split, in nats a byte. */
static json_t *measure(struct pack *p)
{
	struct lh_shard split[2] = { { 0 } };
	double nats[NGRAM_ORDERS];
	bool there = ctl_opt(p->c, "stats");
	struct ngram *g;
	int32_t *ids;

	for (int s = 0; there && s < 2; s++) {
		char *path = split_path(p, s);

		there = p->counts.documents[s] &&
			!lh_shard_open(&split[s], path, LH_SHARD_AUTO, NULL);
		free(path);
	}
	if (there) {
		g = ngram_new();
		count_documents(g, &split[0]);
		ids = lh_calloc((size_t)split[1].count, sizeof(*ids));
		lh_shard_read(&split[1], 0, split[1].count, ids);
		ngram_measure(g, ids, split[1].count, nats);
		free(ids);
		ngram_free(g);
	}
	lh_shard_close(&split[0]);
	lh_shard_close(&split[1]);
	return !there ? json_null() :
			json_pack("{s:f, s:f, s:f}", "unigram", nats[0], "bigram", nats[1],
				  "trigram", nats[2]);
}

static void print_summary(const struct pack *p, json_t *stats)
{
	const char *model;
	json_t *nats;

	for (int s = 0; s < 2; s++)
		if (p->counts.documents[s])
			printf("%s.%s.bin: %" PRId64 " documents, %" PRId64 " tokens\n",
			       p->prefix, s ? "val" : "train", p->counts.documents[s],
			       tokens(p, s));
	if (p->place.binary || p->place.unreadable)
		printf("left out: %" PRId64 " binary files, %" PRId64 " unreadable ones\n",
		       p->place.binary, p->place.unreadable);
	json_object_foreach (stats, model, nats)
		printf("validation loss of a %s model: %.3f nats a byte\n", model,
		       json_real_value(nats));
}

static void tell(struct pack *p)
{
	json_t *stats = measure(p);

	if (ctl_opt(p->c, "json"))
		ctl_print_json_take(json_pack(
			"{s:I, s:I, s:I, s:I, s:I, s:I, s:O}", "train_documents",
			(json_int_t)p->counts.documents[0], "train_tokens",
			(json_int_t)tokens(p, 0), "validation_documents",
			(json_int_t)p->counts.documents[1], "validation_tokens",
			(json_int_t)tokens(p, 1), "binary_files",
			(json_int_t)p->place.binary, "unreadable_files",
			(json_int_t)p->place.unreadable, "nats", stats));
	else
		print_summary(p, stats);
	json_decref(stats);
}

/* ---- the command ----------------------------------------------------------- */

/* What the shards depend on, so that nothing else is gone on with. Names of files may be
 * any bytes: JSON has their hash. */
static json_t *command_of(const struct pack *p, const struct pack_input_options *o)
{
	uint64_t hash = XXH64(p->ids.field, strlen(p->ids.field) + 1, 0);
	char names[20], tokenizer[20];

	if (o->ext)
		hash = XXH64(o->ext, strlen(o->ext) + 1, hash);
	for (int i = 0; i < o->path_count; i++)
		hash = XXH64(o->paths[i], strlen(o->paths[i]) + 1, hash);
	snprintf(names, sizeof(names), "%016" PRIx64, hash);
	snprintf(tokenizer, sizeof(tokenizer), "%016" PRIx64, p->ids.vocabulary.hash);
	return json_pack("{s:s, s:b, s:b, s:f, s:I, s:I, s:s, s:I}", "names", names, "ext",
			 o->ext != NULL, "jsonl", o->jsonl, "validation", p->share,
			 "validation_bytes", (json_int_t)p->validation_bytes, "max_bytes",
			 (json_int_t)p->max_bytes, "tokenizer",
			 p->ids.tokenizer ? tokenizer : "bytes", "separator",
			 (json_int_t)p->separator);
}

/* --separator, a number or the text of a token; else what the tokenizer's files say. */
static int find_separator(struct pack *p, const char *given, struct lh_err *err)
{
	const struct lh_vocabulary *v = &p->ids.vocabulary;
	int64_t id = v->eos;
	char *end;

	if (given) {
		id = strtol(given, &end, 10);
		if ((!*given || *end) &&
		    lh_vocabulary_find(p->ids.tokenizer, given, &id, err))
			return err->code;
	}
	if (id < 0 && !given) {
		lh_err_set(err, LH_EDATA, "'%s': which token ends a text is not told, there "
			   "nor beside it", p->ids.tokenizer);
		return lh_err_hint(err, "--separator names one, as '<|endoftext|>'");
	}
	if (id < 0 || id >= v->size) {
		lh_err_set(err, LH_EINVAL, "the separator %" PRId64 " is no id of '%s'", id,
			   p->ids.tokenizer);
		return lh_err_hint(err, "ids are from 0 to %" PRId64, v->size - 1);
	}
	p->separator = (uint32_t)id;
	return 0;
}

static int find_ids(struct pack *p, struct lh_err *err)
{
	const struct lh_vocabulary *v = &p->ids.vocabulary;

	p->vocab = LH_BYTES_VOCAB;
	p->separator = LH_BYTES_SEPARATOR;
	p->ids.tokenizer = ctl_opt(p->c, "tokenizer");
	if (!p->ids.tokenizer)
		return 0;
	if (lh_vocabulary_read(&p->ids.vocabulary, p->ids.tokenizer, err))
		return err->code;
	p->vocab = (uint32_t)v->size;
	return find_separator(p, ctl_opt(p->c, "separator"), err);
}

static bool reads_stdin(const struct pack_input_options *o)
{
	for (int i = 0; i < o->path_count; i++)
		if (!strcmp(o->paths[i], "-"))
			return true;
	return false;
}

static int pack(struct pack *p, const struct pack_input_options *o, struct lh_err *err)
{
	bool resume = go_on(p);
	int rc = 0;

	if (!resume) {
		pack_input_free(p->input);
		p->input = pack_input_new(o);
		rc = open_splits(p, false, err);
	}
	start_bar(p, o);
	if (!rc)
		rc = add_all(p, err);
	clear_bar();
	if (!rc)
		rc = commit_splits(p, err);
	leave_splits(p, rc && p->saved);
	if (rc && p->saved)
		fprintf(stderr, "the same command goes on behind %.1f MB of text\n",
			(double)p->saved_bytes / 1e6);
	return rc;
}

static int threads_of(const struct ctl *c)
{
	int64_t threads = ctl_opt_int(c, "threads", 0, 1, THREADS_MAX);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (threads)
		return (int)threads;
	return cpus < 1 ? 1 : cpus > THREADS_USUAL ? THREADS_USUAL : (int)cpus;
}

static int run(struct ctl *c)
{
	struct pack_input_options o = { .paths = c->args, .path_count = c->arg_count,
					.ext = ctl_opt(c, "ext"),
					.jsonl = ctl_opt(c, "jsonl") };
	struct lh_err err = LH_ERR_INIT;
	struct pack p = {
		.c = c, .prefix = ctl_opt(c, "output"),
		.share = ctl_opt_number(c, "validation", 0.05, 0, 0.99),
		.validation_bytes = ctl_opt_int(c, "validation-bytes", 0, 1, INT64_MAX),
		.max_bytes = ctl_opt_int(c, "max-bytes", 0, 1, INT64_MAX),
		.save_bytes = 1000000 * ctl_opt_int(c, "save-every", 1000, 1, 1000000),
		.ids.field = ctl_opt(c, "field") ? ctl_opt(c, "field") : "text" };
	int threads = threads_of(c), rc;

	if (!p.prefix)
		return ctl_usage(c->command, "--output is missing");
	if (ctl_opt(c, "tokenizer") && ctl_opt(c, "stats"))
		return ctl_usage(c->command, "--stats is of bytes, not of a --tokenizer");
	if (!ctl_opt(c, "tokenizer") && ctl_opt(c, "separator"))
		return ctl_usage(c->command, "--separator goes with --tokenizer: behind bytes "
				 "it is %d", LH_BYTES_SEPARATOR);
	if (reads_stdin(&o))
		p.save_bytes = 0; /* it comes but once */
	json_object_seed(0); /* before there are threads */
	if (find_ids(&p, &err))
		return ctl_fail(&err);
	p.command = command_of(&p, &o);
	p.input = pack_input_new(&o);
	p.pool = pack_pool_new(threads, &p.ids);
	rc = pack(&p, &o, &err);
	if (!rc)
		tell(&p);
	pack_pool_free(p.pool);
	pack_input_free(p.input);
	json_decref(p.command);
	return rc ? ctl_fail(&err) : CTL_DONE;
}

const struct ctl_command ctl_cmd_pack = {
	"pack", "PATH...",
	"Pack text into token shards.\n"
	"PATH is a file, a directory, or '-' for stdin; .gz and .zst are unpacked. Bytes are\n"
	"the tokens, and 256 separates documents: files, and lines of .jsonl files. With\n"
	"--tokenizer tokens are those of a tokenizer.json (by node) or a SentencePiece .model,\n"
	"and its end of a text separates. The same text always gives the same shards. Beside\n"
	"each lies an index of its documents, .documents, which spares jobs that keep\n"
	"documents apart reading all of it at their start. A pack of files that was cut short\n"
	"goes on with the same command from the place that was last noted, in PREFIX.pack.",
	"  lhctl pack -o text ~/documents\n"
	"  lhctl pack -o code --ext .c,.h --validation 0.02 --stats /usr/include\n"
	"  lhctl pack -o web --tokenizer Llama-3.2-1B/tokenizer.json crawl/*.jsonl.zst\n"
	"  xzcat dump.txt.xz | lhctl pack -o dump --validation 0 -\n", 1, -1, options, run };

/* shard_write.c: writes token shards. See lighthouse/shard.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"
#include "data/shard_int.h"

struct lh_shard_writer {
	char *path, *tmp;
	FILE *file;
	struct lh__shard_header h;
	XXH64_state_t *hash;
	struct lh__documents_writer *documents; /* NULL: there will be no index */
	int64_t document_from; /* ids before the one that has not ended */
};

static int write_failed(struct lh_shard_writer *w, struct lh_err *err)
{
	return lh_err_set(err, LH_EIO, "cannot write '%s': %s", w->tmp, strerror(errno));
}

static struct lh_shard_writer *prepare(const char *path, uint32_t vocab,
				       uint32_t separator)
{
	struct lh_shard_writer *w = lh_calloc(1, sizeof(*w));

	memcpy(w->h.magic, LH__SHARD_MAGIC, 8);
	w->h.version = LH__SHARD_VERSION;
	w->h.width = vocab <= 65536 ? 2 : 4;
	w->h.vocab = vocab;
	w->h.separator = separator;
	w->path = lh_strdup(path);
	w->tmp = lh_asprintf("%s.tmp", path);
	w->hash = XXH64_createState();
	XXH64_reset(w->hash, 0);
	if (separator != LH_SHARD_NO_SEPARATOR)
		w->documents = lh__documents_writer_new(path);
	return w;
}

int lh_shard_writer_new(struct lh_shard_writer **out, const char *path, uint32_t vocab,
			uint32_t separator, struct lh_err *err)
{
	struct lh_shard_writer *w = prepare(path, vocab, separator);

	w->file = fopen(w->tmp, "we");
	/* The header's place; its contents are known at the end. */
	if (!w->file || fwrite(&w->h, LH__SHARD_HEADER_BYTES, 1, w->file) != 1) {
		int rc = write_failed(w, err);

		lh_shard_writer_abort(w);
		return rc;
	}
	*out = w;
	return 0;
}

static void end_document(struct lh_shard_writer *w, int64_t end)
{
	if (!w->documents || lh__documents_writer_add(w->documents, end - w->document_from)) {
		w->document_from = end;
		return;
	}
	lh__documents_writer_abort(w->documents);
	w->documents = NULL;
}

/* Each separator ends one, also one that a text held. */
static void note_documents(struct lh_shard_writer *w, const void *ids, int64_t n)
{
	int64_t at = 0;

	while (w->documents &&
	       (at = lh__ids_find(ids, (int)w->h.width, at, n, w->h.separator)) < n)
		end_document(w, (int64_t)w->h.count + ++at);
}

/* What was added, in the shard's width. */
static void note(struct lh_shard_writer *w, const void *ids, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		uint32_t id = w->h.width == 2 ? ((const uint16_t *)ids)[i] :
						((const uint32_t *)ids)[i];

		w->h.max_token = id > w->h.max_token ? id : w->h.max_token;
	}
	XXH64_update(w->hash, ids, (size_t)n * w->h.width);
	note_documents(w, ids, n);
	w->h.count += (uint64_t)n;
}

/* Reads the ids that are there again, for what the header says of them. */
static bool take_up(struct lh_shard_writer *w, int64_t count)
{
	enum { IDS = 64 << 10 };
	uint32_t *ids = lh_alloc(IDS * sizeof(*ids));
	int64_t end = LH__SHARD_HEADER_BYTES + count * w->h.width;
	bool good = !fseeko(w->file, LH__SHARD_HEADER_BYTES, SEEK_SET);

	for (int64_t left = count; good && left > 0; left -= IDS) {
		size_t n = (size_t)(left < IDS ? left : IDS);

		good = fread(ids, w->h.width, n, w->file) == n;
		if (good)
			note(w, ids, (int64_t)n);
	}
	free(ids);
	return good && !fseeko(w->file, end, SEEK_SET) && !ftruncate(fileno(w->file), end);
}

int lh_shard_writer_resume(struct lh_shard_writer **out, const char *path, uint32_t vocab,
			   uint32_t separator, int64_t count, struct lh_err *err)
{
	struct lh_shard_writer *w = prepare(path, vocab, separator);
	int rc;

	w->file = fopen(w->tmp, "r+e");
	if (w->file && take_up(w, count) && w->h.max_token < vocab) {
		*out = w;
		return 0;
	}
	rc = lh_err_set(err, LH_EDATA, "'%s' does not hold the %" PRId64 " tokens that it "
			"held", w->tmp, count);
	lh_shard_writer_leave(w);
	return rc;
}

int lh_shard_writer_add(struct lh_shard_writer *w, const int32_t *ids, int64_t n,
			struct lh_err *err)
{
	uint16_t narrow[4096];

	while (n > 0) {
		int64_t k = n < 4096 ? n : 4096;
		const void *bytes = ids;

		for (int64_t i = 0; i < k; i++) {
			LH_ASSERT(ids[i] >= 0 && (uint32_t)ids[i] < w->h.vocab);
			narrow[i] = (uint16_t)ids[i];
		}
		if (w->h.width == 2)
			bytes = narrow;
		if (fwrite(bytes, w->h.width, (size_t)k, w->file) != (size_t)k)
			return write_failed(w, err);
		note(w, bytes, k);
		ids += k;
		n -= k;
	}
	return 0;
}

int lh_shard_writer_add_narrow(struct lh_shard_writer *w, const uint16_t *ids, int64_t n,
			       struct lh_err *err)
{
	LH_ASSERT(w->h.width == 2);
	if (fwrite(ids, 2, (size_t)n, w->file) != (size_t)n)
		return write_failed(w, err);
	note(w, ids, n);
	LH_ASSERT(w->h.max_token < w->h.vocab);
	return 0;
}

int lh_shard_writer_sync(struct lh_shard_writer *w, struct lh_err *err)
{
	if (fflush(w->file) || fdatasync(fileno(w->file)))
		return write_failed(w, err);
	return 0;
}

int64_t lh_shard_writer_count(const struct lh_shard_writer *w)
{
	return (int64_t)w->h.count;
}

/* Before the shard is there: an index of another one is none. */
static void commit_documents(struct lh_shard_writer *w)
{
	if (w->document_from < (int64_t)w->h.count)
		end_document(w, (int64_t)w->h.count);
	if (w->documents)
		lh__documents_writer_commit(w->documents, w->h.header_xxh64);
	w->documents = NULL;
}

static int complete(struct lh_shard_writer *w, struct lh_err *err)
{
	char *dir, *slash;
	int rc;

	w->h.ids_xxh64 = XXH64_digest(w->hash);
	w->h.header_xxh64 = XXH64(&w->h, offsetof(struct lh__shard_header, header_xxh64), 0);
	commit_documents(w);
	if (fseek(w->file, 0, SEEK_SET) ||
	    fwrite(&w->h, LH__SHARD_HEADER_BYTES, 1, w->file) != 1 || fflush(w->file) ||
	    fsync(fileno(w->file)) || rename(w->tmp, w->path))
		return write_failed(w, err);
	dir = lh_strdup(w->path);
	slash = strrchr(dir, '/');
	if (slash)
		*slash = '\0';
	rc = lh_fs_sync_dir(!slash ? "." : *dir ? dir : "/", err);
	free(dir);
	return rc;
}

int lh_shard_writer_commit(struct lh_shard_writer *w, uint64_t documents,
			   struct lh_err *err)
{
	int rc;

	w->h.documents = documents;
	rc = complete(w, err);
	lh_shard_writer_abort(w); /* after the rename there is no PATH.tmp */
	return rc;
}

void lh_shard_writer_abort(struct lh_shard_writer *w)
{
	if (w)
		unlink(w->tmp);
	lh_shard_writer_leave(w);
}

void lh_shard_writer_leave(struct lh_shard_writer *w)
{
	if (!w)
		return;
	lh__documents_writer_abort(w->documents); /* made anew of the ids by who goes on */
	if (w->file)
		fclose(w->file);
	XXH64_freeState(w->hash);
	free(w->path);
	free(w->tmp);
	free(w);
}

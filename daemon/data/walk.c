/* walk.c: see walk.h. Writing: shard_write.c, by what is at the end here. */
#include "data/walk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"
#include "data/shard_int.h"

#define MAGIC "LHDOCEND"
enum { VERSION = 1 };

struct header { /* as it lies in the file */
	char magic[8];
	uint32_t version, zero;
	uint64_t documents, shard_xxh64, lengths_xxh64, zeros[2], header_xxh64;
};
_Static_assert(sizeof(struct header) == 64, "header");

static char *path_of(const char *shard)
{
	return lh_asprintf("%s.documents", shard);
}

/* ---- reading --------------------------------------------------------------- */

/* Whether the file as a whole is of the shard; behind it lengths may be relied on. */
static bool is_of(const struct lh_walk *d)
{
	const struct lh__shard_header *shard = d->shard->map;
	const struct header *h = d->map;
	const uint32_t *lengths = (const uint32_t *)(h + 1);
	int64_t ids = 0;

	if (d->map_bytes < (int64_t)sizeof(*h) || memcmp(h->magic, MAGIC, 8) ||
	    h->version != VERSION || h->shard_xxh64 != shard->header_xxh64 ||
	    h->header_xxh64 != XXH64(h, offsetof(struct header, header_xxh64), 0) ||
	    h->documents != ((uint64_t)d->map_bytes - sizeof(*h)) / 4 ||
	    h->lengths_xxh64 != XXH64(lengths, (size_t)h->documents * 4, 0))
		return false;
	for (uint64_t i = 0; i < h->documents; i++) {
		if (!lengths[i])
			return false;
		ids += lengths[i];
	}
	return ids == d->shard->count;
}

static void close_map(struct lh_walk *d)
{
	if (d->map)
		munmap(d->map, (size_t)d->map_bytes);
	d->map = NULL;
}

void lh_walk_open(struct lh_walk *d, const struct lh_shard *s,
		       const struct lh_scan *scan)
{
	char *path;

	*d = (struct lh_walk){ .shard = s, .scan = scan, .asked_at = -LH_SCAN_IDS };
	LH_ASSERT(lh_shard_has_documents(s));
	if (s->index || memcmp(s->map, LH__SHARD_MAGIC, 8))
		return;
	path = path_of(s->path);
	if (!lh__shard_map(path, &d->map, &d->map_bytes, NULL) && is_of(d)) {
		d->lengths = (const uint32_t *)((const struct header *)d->map + 1);
		d->count = (d->map_bytes - (int64_t)sizeof(struct header)) / 4;
	} else {
		close_map(d);
	}
	free(path);
}

void lh_walk_close(struct lh_walk *d)
{
	close_map(d);
	*d = (struct lh_walk){ 0 };
}

/* At id `at`, which is looked at now. */
static bool go_on(struct lh_walk *d, int64_t at)
{
	if (!d->scan || at < d->asked_at + LH_SCAN_IDS)
		return true;
	d->asked_at = at;
	return d->scan->go_on(d->scan->arg);
}

bool lh_walk_next(struct lh_walk *d)
{
	const struct lh_shard *s = d->shard;
	int64_t from = d->at, left, limit, end;

	LH_ASSERT(from < s->count);
	if (d->lengths) {
		d->at += d->lengths[d->next++];
		return go_on(d, from);
	}
	for (;; from = limit - 1) {
		if (!go_on(d, from))
			return false;
		/* One more than is looked at: what ends there does not end before. */
		left = s->count - from;
		limit = from + (left > LH_SCAN_IDS ? LH_SCAN_IDS + 1 : left);
		end = lh_shard_document_end(s, from, limit);
		if (end < limit || limit == s->count)
			break;
	}
	d->at = end;
	return true;
}

/* ---- writing --------------------------------------------------------------- */

struct lh__documents_writer {
	char *path, *tmp;
	FILE *file;
	struct header h;
	XXH64_state_t *hash;
};

struct lh__documents_writer *lh__documents_writer_new(const char *shard)
{
	struct lh__documents_writer *w = lh_calloc(1, sizeof(*w));

	memcpy(w->h.magic, MAGIC, 8);
	w->h.version = VERSION;
	w->path = path_of(shard);
	w->tmp = lh_asprintf("%s.tmp", w->path);
	w->hash = XXH64_createState();
	XXH64_reset(w->hash, 0);
	w->file = fopen(w->tmp, "we");
	/* The header's place. */
	if (w->file && fwrite(&w->h, sizeof(w->h), 1, w->file) == 1)
		return w;
	lh__documents_writer_abort(w);
	return NULL;
}

bool lh__documents_writer_add(struct lh__documents_writer *w, int64_t length)
{
	uint32_t n = (uint32_t)length;

	XXH64_update(w->hash, &n, sizeof(n));
	w->h.documents++;
	return length <= UINT32_MAX && fwrite(&n, sizeof(n), 1, w->file) == 1;
}

void lh__documents_writer_commit(struct lh__documents_writer *w, uint64_t shard_xxh64)
{
	w->h.shard_xxh64 = shard_xxh64;
	w->h.lengths_xxh64 = XXH64_digest(w->hash);
	w->h.header_xxh64 = XXH64(&w->h, offsetof(struct header, header_xxh64), 0);
	if (!fseek(w->file, 0, SEEK_SET) && fwrite(&w->h, sizeof(w->h), 1, w->file) == 1 &&
	    !fflush(w->file) && !fsync(fileno(w->file)) && rename(w->tmp, w->path))
		unlink(w->path);
	lh__documents_writer_abort(w); /* after the rename there is no .tmp */
}

void lh__documents_writer_abort(struct lh__documents_writer *w)
{
	if (!w)
		return;
	if (w->file)
		fclose(w->file);
	unlink(w->tmp);
	XXH64_freeState(w->hash);
	free(w->path);
	free(w->tmp);
	free(w);
}

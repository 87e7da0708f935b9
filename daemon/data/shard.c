/* shard.c: see lighthouse/shard.h. Files of others: shard_foreign.c. */
#include "lighthouse/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"
#include "data/shard_int.h"

#define MAGIC "LHTOKENS"
enum { VERSION = 1, HEADER_BYTES = 64, FINGERPRINT_BYTES = 64 << 10 };

struct header { /* as it lies in the file; all fields aligned, little-endian */
	char magic[8];
	uint32_t version, width;
	uint64_t count;
	uint32_t vocab, max_token, separator, flags;
	uint64_t ids_xxh64, documents, header_xxh64;
};
_Static_assert(sizeof(struct header) == HEADER_BYTES, "header");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little-endian hosts only");

/* ---- reading --------------------------------------------------------------- */

int lh__shard_bad(const char *path, struct lh_err *err, const char *what,
		  const char *hint)
{
	lh_err_set(err, LH_EDATA, "'%s': %s", path, what);
	return lh_err_hint(err, "%s", hint);
}

static int bad(const struct lh_shard *s, struct lh_err *err, const char *what,
	       const char *hint)
{
	return lh__shard_bad(s->path, err, what, hint);
}

int lh__shard_check_size(const struct lh_shard *s, int64_t header_bytes,
			 struct lh_err *err)
{
	int64_t room = s->map_bytes - header_bytes, want;

	if (s->count <= 0)
		return bad(s, err, "the shard holds no tokens", "pack a text that is not empty");
	if (__builtin_mul_overflow(s->count, (int64_t)s->width, &want) || want != room) {
		lh_err_set(err, LH_EDATA,
			   "'%s': the header promises %" PRId64 " tokens of %d bytes, the "
			   "file holds %" PRId64 " bytes of them", s->path, s->count,
			   s->width, room);
		return lh_err_hint(err, "the file was truncated or damaged: pack it again");
	}
	return 0;
}

static int read_header(struct lh_shard *s, struct lh_err *err)
{
	const struct header *h = s->map;

	if (h->version != VERSION)
		return bad(s, err, "a shard of another format version",
			   "pack it again with this lhctl");
	if (XXH64(h, offsetof(struct header, header_xxh64), 0) != h->header_xxh64)
		return bad(s, err, "the header does not match its checksum",
			   "the file is damaged: pack it again");
	if (h->width != 2 && h->width != 4)
		return bad(s, err, "ids are neither 2 nor 4 bytes wide", "pack it again");
	s->count = (int64_t)h->count;
	s->width = (int)h->width;
	s->vocab = h->vocab;
	s->max_token = h->max_token;
	s->separator = h->separator;
	s->documents = h->documents;
	s->ids = (const char *)s->map + HEADER_BYTES;
	return lh__shard_check_size(s, HEADER_BYTES, err);
}

static int read_any(struct lh_shard *s, enum lh_shard_format format, struct lh_err *err)
{
	if (s->map_bytes >= HEADER_BYTES && !memcmp(s->map, MAGIC, 8))
		return read_header(s, err);
	return lh__shard_read_foreign(s, format, err);
}

int lh__shard_map(const char *path, void **map, int64_t *bytes, struct lh_err *err)
{
	struct stat st;
	void *at;
	int rc = 0;
	/* A pipe of that name must not block. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return lh__shard_bad(path, err, strerror(errno), "is the path right?");
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		rc = lh__shard_bad(path, err, "not a regular file", "is the path right?");
	else if (st.st_size == 0)
		rc = lh__shard_bad(path, err, "the file is empty",
				   "make one with 'lhctl pack'");
	if (rc) {
		close(fd);
		return rc;
	}
	at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		rc = lh__shard_bad(path, err, strerror(errno), "can the file be mapped?");
	close(fd);
	if (rc)
		return rc;
	*map = at;
	*bytes = st.st_size;
	return 0;
}

int lh_shard_open(struct lh_shard *s, const char *path, enum lh_shard_format format,
		  struct lh_err *err)
{
	int rc;

	memset(s, 0, sizeof(*s));
	s->path = lh_strdup(path);
	s->separator = LH_SHARD_NO_SEPARATOR;
	rc = lh__shard_map(path, &s->map, &s->map_bytes, err);
	if (!rc)
		rc = read_any(s, format, err);
	if (rc)
		lh_shard_close(s);
	return rc;
}

void lh_shard_close(struct lh_shard *s)
{
	if (s->map)
		munmap(s->map, (size_t)s->map_bytes);
	if (s->index)
		munmap(s->index, (size_t)s->index_bytes);
	free(s->path);
	memset(s, 0, sizeof(*s));
}

int lh_shard_check_vocab(const struct lh_shard *s, int64_t vocab, struct lh_err *err)
{
	if (s->max_token < vocab)
		return 0;
	lh_err_set(err, LH_EDATA, "'%s': holds token id %" PRIu32 ", model.vocab is %" PRId64,
		   s->path, s->max_token, vocab);
	return lh_err_hint(err, "model.vocab %" PRIu64 " or more",
			   (uint64_t)s->max_token + 1);
}

int lh_shard_verify(const struct lh_shard *s, struct lh_err *err)
{
	const struct header *h = s->map;

	if (!s->vocab)
		return s->index ? lh__shard_verify_index(s, err) : 0;
	if (XXH64(s->ids, (size_t)(s->count * s->width), 0) == h->ids_xxh64)
		return 0;
	return bad(s, err, "the tokens do not match their checksum",
		   "the file is damaged: pack it again");
}

uint64_t lh_shard_fingerprint(const struct lh_shard *s)
{
	const char *at = s->map;
	int64_t n = s->map_bytes < FINGERPRINT_BYTES ? s->map_bytes : FINGERPRINT_BYTES;
	XXH64_hash_t first = XXH64(at, (size_t)n, 0);

	return XXH64(at + s->map_bytes - n, (size_t)n, first);
}

void lh_shard_read(const struct lh_shard *s, int64_t from, int64_t n, int32_t *out)
{
	LH_ASSERT(from >= 0 && n >= 0 && from + n <= s->count);
	for (int64_t i = 0; i < n; i++)
		out[i] = (int32_t)lh__shard_id(s, from + i);
}

/* Scans for separators: a document's length is what it costs. */
void lh_shard_document(const struct lh_shard *s, int64_t position, int64_t *from,
		       int64_t *to)
{
	LH_ASSERT(position >= 0 && position < s->count);
	*from = 0;
	*to = s->count;
	if (s->index)
		lh__shard_document_indexed(s, position, from, to);
	if (s->separator == LH_SHARD_NO_SEPARATOR)
		return;
	for (*from = position; *from > 0; --*from)
		if (lh__shard_id(s, *from - 1) == s->separator)
			break;
	for (*to = position; lh__shard_id(s, *to) != s->separator && *to < s->count - 1;)
		++*to;
	++*to;
}

/* ---- writing --------------------------------------------------------------- */

struct lh_shard_writer {
	char *path, *tmp;
	FILE *file;
	struct header h;
	XXH64_state_t *hash;
};

static int write_failed(struct lh_shard_writer *w, struct lh_err *err)
{
	return lh_err_set(err, LH_EIO, "cannot write '%s': %s", w->tmp, strerror(errno));
}

int lh_shard_writer_new(struct lh_shard_writer **out, const char *path, uint32_t vocab,
			uint32_t separator, struct lh_err *err)
{
	struct lh_shard_writer *w = lh_calloc(1, sizeof(*w));

	memcpy(w->h.magic, MAGIC, 8);
	w->h.version = VERSION;
	w->h.width = vocab <= 65536 ? 2 : 4;
	w->h.vocab = vocab;
	w->h.separator = separator;
	w->path = lh_strdup(path);
	w->tmp = lh_asprintf("%s.tmp", path);
	w->hash = XXH64_createState();
	XXH64_reset(w->hash, 0);
	w->file = fopen(w->tmp, "we");
	/* The header's place; its contents are known at the end. */
	if (!w->file || fwrite(&w->h, HEADER_BYTES, 1, w->file) != 1) {
		int rc = write_failed(w, err);

		lh_shard_writer_abort(w);
		return rc;
	}
	*out = w;
	return 0;
}

int lh_shard_writer_add(struct lh_shard_writer *w, const int32_t *ids, int64_t n,
			struct lh_err *err)
{
	uint16_t narrow[4096];

	while (n > 0) {
		int64_t k = n < 4096 ? n : 4096;
		const void *bytes = ids;
		size_t size = (size_t)k * w->h.width;

		for (int64_t i = 0; i < k; i++) {
			LH_ASSERT(ids[i] >= 0 && (uint32_t)ids[i] < w->h.vocab);
			if ((uint32_t)ids[i] > w->h.max_token)
				w->h.max_token = (uint32_t)ids[i];
			narrow[i] = (uint16_t)ids[i];
		}
		if (w->h.width == 2)
			bytes = narrow;
		if (fwrite(bytes, 1, size, w->file) != size)
			return write_failed(w, err);
		XXH64_update(w->hash, bytes, size);
		w->h.count += (uint64_t)k;
		ids += k;
		n -= k;
	}
	return 0;
}

int64_t lh_shard_writer_count(const struct lh_shard_writer *w)
{
	return (int64_t)w->h.count;
}

static int complete(struct lh_shard_writer *w, struct lh_err *err)
{
	char *dir, *slash;
	int rc;

	w->h.ids_xxh64 = XXH64_digest(w->hash);
	w->h.header_xxh64 = XXH64(&w->h, offsetof(struct header, header_xxh64), 0);
	if (fseek(w->file, 0, SEEK_SET) ||
	    fwrite(&w->h, HEADER_BYTES, 1, w->file) != 1 || fflush(w->file) ||
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

/* shard.c: see lighthouse/shard.h. Files of others: shard_foreign.c; writing:
 * shard_write.c. */
#include "lighthouse/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"
#include "data/shard_int.h"

enum { FINGERPRINT_BYTES = 64 << 10, FIND_BLOCK = 64 };

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
	const struct lh__shard_header *h = s->map;

	if (h->version != LH__SHARD_VERSION)
		return bad(s, err, "a shard of another format version",
			   "pack it again with this lhctl");
	if (XXH64(h, offsetof(struct lh__shard_header, header_xxh64), 0) != h->header_xxh64)
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
	s->ids = (const char *)s->map + LH__SHARD_HEADER_BYTES;
	return lh__shard_check_size(s, LH__SHARD_HEADER_BYTES, err);
}

static int read_any(struct lh_shard *s, enum lh_shard_format format, struct lh_err *err)
{
	if (s->map_bytes >= LH__SHARD_HEADER_BYTES && !memcmp(s->map, LH__SHARD_MAGIC, 8))
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
	const struct lh__shard_header *h = s->map;

	if (s->index)
		return lh__shard_verify_index(s, err);
	if (memcmp(h->magic, LH__SHARD_MAGIC, 8))
		return 0;
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

int lh_shard_read_below(const struct lh_shard *s, int64_t from, int64_t n, int64_t vocab,
			int32_t *out, struct lh_err *err)
{
	lh_shard_read(s, from, n, out);
	for (int64_t i = 0; i < n; i++)
		if (out[i] < 0 || out[i] >= vocab)
			return lh_err_set(err, LH_EDATA,
					  "'%s': token id %" PRId32 " at position %" PRId64
					  ", model.vocab is %" PRId64, s->path, out[i],
					  from + i, vocab);
	return 0;
}

/* Whole blocks are compared at once, which a compiler does many ids at a time. */
#define FIND_IN_BLOCKS(type)                                                   \
	do {                                                                   \
		const type *at = ids;                                          \
		for (; to - from >= FIND_BLOCK; from += FIND_BLOCK) {          \
			unsigned any = 0;                                      \
                                                                               \
			for (int i = 0; i < FIND_BLOCK; i++)                   \
				any |= at[from + i] == id;                     \
			if (any)                                               \
				break;                                         \
		}                                                              \
		while (from < to && at[from] != id)                            \
			from++;                                                \
	} while (0)

int64_t lh__ids_find(const void *ids, int width, int64_t from, int64_t to, uint32_t id)
{
	if (width == 2)
		FIND_IN_BLOCKS(uint16_t);
	else
		FIND_IN_BLOCKS(uint32_t);
	return from;
}

bool lh_shard_has_documents(const struct lh_shard *s)
{
	return s->index || s->separator != LH_SHARD_NO_SEPARATOR;
}

int64_t lh_shard_document_end(const struct lh_shard *s, int64_t position, int64_t limit)
{
	int64_t from, to;

	LH_ASSERT(position >= 0 && position < limit && limit <= s->count);
	if (s->index) {
		lh__shard_document_indexed(s, position, &from, &to);
		return to < limit ? to : limit;
	}
	position = lh__ids_find(s->ids, s->width, position, limit, s->separator);
	return position < limit ? position + 1 : limit;
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

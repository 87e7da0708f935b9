/* shard_int.h: what shard.c (our format, and the way in), shard_foreign.c (files of
 * others), shard_write.c and walk.c share. For those only. */
#ifndef LIGHTHOUSE_SHARD_INT_H
#define LIGHTHOUSE_SHARD_INT_H

#include "lighthouse/shard.h"

#define LH__SHARD_MAGIC "LHTOKENS"
enum { LH__SHARD_VERSION = 1, LH__SHARD_HEADER_BYTES = 64 };

struct lh__shard_header { /* as it lies in the file; all fields aligned, little-endian */
	char magic[8];
	uint32_t version, width;
	uint64_t count;
	uint32_t vocab, max_token, separator, flags;
	uint64_t ids_xxh64, documents, header_xxh64;
};
_Static_assert(sizeof(struct lh__shard_header) == LH__SHARD_HEADER_BYTES, "header");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little-endian hosts only");

/* Id i of a shard; one that has no 32 bits is the largest. Places are aligned to the
 * width in every format. */
static inline uint32_t lh__shard_id(const struct lh_shard *s, int64_t i)
{
	uint64_t wide;

	switch (s->width) {
	case 1:
		return ((const uint8_t *)s->ids)[i];
	case 2:
		return ((const uint16_t *)s->ids)[i];
	case 4:
		return ((const uint32_t *)s->ids)[i];
	}
	wide = ((const uint64_t *)s->ids)[i];
	return wide < UINT32_MAX ? (uint32_t)wide : UINT32_MAX;
}

/* ---- shard.c --------------------------------------------------------------- */
/* "'PATH': WHAT", LH_EDATA. */
int lh__shard_bad(const char *path, struct lh_err *err, const char *what,
		  const char *hint);
int lh__shard_map(const char *path, void **map, int64_t *bytes, struct lh_err *err);
/* Whether `count` ids are exactly what lies behind the header. */
int lh__shard_check_size(const struct lh_shard *s, int64_t header_bytes,
			 struct lh_err *err);

/* The first place of `id` among ids [from, to), `to` if there is none. */
int64_t lh__ids_find(const void *ids, int width, int64_t from, int64_t to, uint32_t id);

/* ---- shard_foreign.c ------------------------------------------------------- */
/* A mapped file that is not of our format: fills in the rest, or says what it is not. */
int lh__shard_read_foreign(struct lh_shard *s, enum lh_shard_format format,
			   struct lh_err *err);
/* Every place in the index. */
int lh__shard_verify_index(const struct lh_shard *s, struct lh_err *err);
void lh__shard_document_indexed(const struct lh_shard *s, int64_t position, int64_t *from,
				int64_t *to);

/* ---- walk.c ---------------------------------------------------------------- */
/* The index of a shard that is being written; what goes wrong with it leaves the shard
 * without one. NULL: it cannot be written. */
struct lh__documents_writer;
struct lh__documents_writer *lh__documents_writer_new(const char *shard);
/* False: give it up. */
bool lh__documents_writer_add(struct lh__documents_writer *w, int64_t length);
/* With the checksum of the shard's complete header; frees. */
void lh__documents_writer_commit(struct lh__documents_writer *w, uint64_t shard_xxh64);
void lh__documents_writer_abort(struct lh__documents_writer *w); /* NULL is allowed */

#endif

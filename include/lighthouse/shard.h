/* shard.h: files of token ids, written by `lhctl pack`, mapped by the worker.
 *
 * Layout, little-endian, 64-byte header then `count` ids of `width` bytes:
 *   0  char[8]  magic "LHTOKENS"
 *   8  u32      version, 1
 *   12 u32      width: 2 or 4 bytes an id
 *   16 u64      count of ids
 *   24 u32      vocab: every id is below it
 *   28 u32      max_token: the largest id present
 *   32 u32      separator: id between documents, 0xffffffff = none
 *   36 u32      flags, 0
 *   40 u64      xxh64 (seed 0) of the ids' bytes
 *   48 u64      documents: how many the shard holds
 *   56 u64      xxh64 of header bytes 0..55
 * Also read: llm.c's `.bin` of uint16 ids (1,024-byte header of 256 int32:
 * 20240520, 1, count). It states no vocabulary, so opening it scans the ids.
 *
 * A shard is read-only once complete: pack writes a temporary name, fsyncs and
 * renames. Readers may be used from any thread.
 */
#ifndef LIGHTHOUSE_SHARD_H
#define LIGHTHOUSE_SHARD_H

#include <stdint.h>

#include "lighthouse/err.h"

#define LH_SHARD_NO_SEPARATOR 0xffffffffu

/* The byte tokenizer: ids 0..255 are bytes, 256 separates documents. */
#define LH_BYTES_SEPARATOR 256
#define LH_BYTES_VOCAB 257

struct lh_shard {
	char *path;
	const void *ids;      /* mapped; `count` ids of `width` bytes */
	int64_t count;
	int width;            /* 2 or 4 */
	uint32_t vocab;       /* 0 = not stated (llm.c) */
	uint32_t max_token;
	uint32_t separator;
	uint64_t documents;
	void *map;            /* private: whole mapping */
	int64_t map_bytes;
};

/* Maps a shard. LH_EDATA names the file and what is wrong with it: missing,
 * empty, not a shard, another version, truncated (bytes found and expected),
 * a header that does not match its checksum. Ids are not read, except of llm.c
 * files. */
int lh_shard_open(struct lh_shard *s, const char *path, struct lh_err *err);
void lh_shard_close(struct lh_shard *s); /* a zeroed shard is allowed */

/* LH_EDATA unless max_token < vocab; the error names file and id. */
int lh_shard_check_vocab(const struct lh_shard *s, int64_t vocab,
			 struct lh_err *err);
/* Reads every id once and compares the checksum. */
int lh_shard_verify(const struct lh_shard *s, struct lh_err *err);

/* Tells contents apart without reading them: xxh64 of the file's first and last 64
 * KiB. A packed shard's header holds a checksum of all ids, so that another packing is
 * another fingerprint; of what is written into a file in place only the ends count. */
uint64_t lh_shard_fingerprint(const struct lh_shard *s);

/* out (n) <- ids [from, from + n) as int32. The range must lie inside. */
void lh_shard_read(const struct lh_shard *s, int64_t from, int64_t n, int32_t *out);

struct lh_shard_writer;

/* Starts PATH.tmp; `width` 2 for vocab <= 65536, else 4. */
int lh_shard_writer_new(struct lh_shard_writer **w, const char *path, uint32_t vocab,
			uint32_t separator, struct lh_err *err);
int lh_shard_writer_add(struct lh_shard_writer *w, const int32_t *ids, int64_t n,
			struct lh_err *err);
int64_t lh_shard_writer_count(const struct lh_shard_writer *w);
/* Completes the header, fsyncs, renames to PATH; frees the writer either way. */
int lh_shard_writer_commit(struct lh_shard_writer *w, uint64_t documents,
			   struct lh_err *err);
/* Removes PATH.tmp and frees; NULL is allowed. */
void lh_shard_writer_abort(struct lh_shard_writer *w);

#endif

/* shard.h: files of token ids, written by `lhctl pack` or by others, mapped by the
 * worker and never copied.
 *
 * Layout of ours, little-endian, 64-byte header then `count` ids of `width` bytes:
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
 * Also read, each known by its first bytes:
 *   llm.c      `.bin`: 1,024-byte header of 256 int32, the first three 20240520, 1,
 *              count (uint16 ids, GPT-2) or 20240801, 7, count (uint32, Llama 3)
 *   Megatron   `.idx`, which is what is named; the ids are in the `.bin` beside it:
 *              34-byte header ("MMIDIDX", version 1, type, counts), then each
 *              sequence's length and place, then where documents begin
 * and, when the caller says so, files that have no header at all, as nanoGPT's of
 * uint16 ids. None of these states a vocabulary: opening one looks at its ids, at
 * pieces spread over it when it is large.
 *
 * A shard is read-only once complete: pack writes a temporary name, fsyncs and
 * renames. Readers may be used from any thread.
 */
#ifndef LIGHTHOUSE_SHARD_H
#define LIGHTHOUSE_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/err.h"

#define LH_SHARD_NO_SEPARATOR 0xffffffffu

/* The byte tokenizer: ids 0..255 are bytes, 256 separates documents. */
#define LH_BYTES_SEPARATOR 256
#define LH_BYTES_VOCAB 257

/* How a file without a known header is read. */
enum lh_shard_format { LH_SHARD_AUTO, /* it is refused */ LH_SHARD_UINT16, LH_SHARD_UINT32 };

struct lh_shard {
	char *path;
	const void *ids;      /* mapped; `count` ids of `width` bytes */
	int64_t count;
	int width;            /* 1, 2, 4 or 8 */
	uint32_t vocab;       /* 0 = not stated (others' files) */
	uint32_t max_token;   /* of others' files: of the ids that were looked at */
	uint32_t separator;
	uint64_t documents;   /* 0 = not known */
	void *map;            /* private: whole mapping of the ids' file */
	int64_t map_bytes;
	void *index;          /* private: of Megatron's .idx, or NULL */
	int64_t index_bytes;
};

/* Maps a shard. LH_EDATA names the file and what is wrong with it: missing,
 * empty, not a shard, another version, truncated (bytes found and expected),
 * a header that does not match its checksum, an index that lies. Time and memory do
 * not grow with the file. */
int lh_shard_open(struct lh_shard *s, const char *path, enum lh_shard_format format,
		  struct lh_err *err);
void lh_shard_close(struct lh_shard *s); /* a zeroed shard is allowed */

/* LH_EDATA unless max_token < vocab; the error names file and id. */
int lh_shard_check_vocab(const struct lh_shard *s, int64_t vocab,
			 struct lh_err *err);
/* Reads every id once and compares the checksum; of Megatron's, every place in the
 * index. Files of others have nothing to compare. */
int lh_shard_verify(const struct lh_shard *s, struct lh_err *err);

/* Tells contents apart without reading them: xxh64 of the file's first and last 64
 * KiB. A packed shard's header holds a checksum of all ids, so that another packing is
 * another fingerprint; of what is written into a file in place only the ends count. */
uint64_t lh_shard_fingerprint(const struct lh_shard *s);

/* The document that holds id `position`: [*from, *to), its separator included. The
 * whole file where no boundary is known. */
void lh_shard_document(const struct lh_shard *s, int64_t position, int64_t *from,
		       int64_t *to);

/* Whether the file says where documents end: by a separator, or in an index. */
bool lh_shard_has_documents(const struct lh_shard *s);
/* Past the last id of the document that holds id `position`, its separator; or `limit`,
 * if it does not end before that. position < limit <= count. */
int64_t lh_shard_document_end(const struct lh_shard *s, int64_t position, int64_t limit);

/* out (n) <- ids [from, from + n) as int32, one that does not fit as a negative number.
 * The range must lie inside. */
void lh_shard_read(const struct lh_shard *s, int64_t from, int64_t n, int32_t *out);
/* The same; LH_EDATA names file and position of the first id that is not below vocab. */
int lh_shard_read_below(const struct lh_shard *s, int64_t from, int64_t n, int64_t vocab,
			int32_t *out, struct lh_err *err);

struct lh_shard_writer;

/* Starts PATH.tmp; `width` 2 for vocab <= 65536, else 4. */
int lh_shard_writer_new(struct lh_shard_writer **w, const char *path, uint32_t vocab,
			uint32_t separator, struct lh_err *err);
int lh_shard_writer_add(struct lh_shard_writer *w, const int32_t *ids, int64_t n,
			struct lh_err *err);
/* The same of ids that are as wide as those of a vocabulary up to 65,536. */
int lh_shard_writer_add_narrow(struct lh_shard_writer *w, const uint16_t *ids, int64_t n,
			       struct lh_err *err);
/* What was added is on disk. */
int lh_shard_writer_sync(struct lh_shard_writer *w, struct lh_err *err);
/* Goes on with a PATH.tmp behind its first `count` ids, which are read once. LH_EDATA:
 * it holds fewer, or is none. */
int lh_shard_writer_resume(struct lh_shard_writer **w, const char *path, uint32_t vocab,
			   uint32_t separator, int64_t count, struct lh_err *err);
int64_t lh_shard_writer_count(const struct lh_shard_writer *w);
/* Completes the header, fsyncs, renames to PATH; frees the writer either way. Where there
 * is a separator an index comes with it, PATH.documents (data/walk.h). */
int lh_shard_writer_commit(struct lh_shard_writer *w, uint64_t documents,
			   struct lh_err *err);
/* Removes PATH.tmp and frees; NULL is allowed. */
void lh_shard_writer_abort(struct lh_shard_writer *w);
/* Frees, and leaves PATH.tmp for lh_shard_writer_resume; NULL is allowed. */
void lh_shard_writer_leave(struct lh_shard_writer *w);

#endif

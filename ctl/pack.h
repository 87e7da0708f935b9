/* pack.h: the parts of `lhctl pack`.
 *
 *   pack_stream.c     a file's bytes, unpacked
 *   pack_input.c      the files that are named, in order, cut into chunks
 *   pack_pool.c       threads that take chunks
 *   pack_documents.c  what they do: documents of ids
 *   pack_state.c      the place from which a pack that was cut short goes on
 *   cmd_pack.c        options; takes the chunks in order and writes the shards
 *
 * What comes out depends on the input alone: chunks are cut by one thread and taken in
 * the order in which they were cut, however many threads there are between. All but the
 * pool's work runs on the main thread. Memory is bounded by the largest document and
 * PACK_FLIGHT_BYTES.
 */
#ifndef LIGHTHOUSE_PACK_H
#define LIGHTHOUSE_PACK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lighthouse/err.h"
#include "tokenizer.h"

enum { PACK_CHUNK_BYTES = 4 << 20, PACK_DOCUMENT_MAX_BYTES = 1 << 30,
       PACK_FLIGHT_BYTES = 256 << 20, PACK_USUAL_BYTES = 2 * PACK_CHUNK_BYTES };

/* ---- pack_stream.c --------------------------------------------------------- */
struct pack_stream;
/* A regular file; ".gz" and ".zst" are unpacked. NULL: stdin. `in_tree`: one that was
 * found and not named, which is no symbolic link. LH_EIO. */
int pack_stream_open(struct pack_stream **s, const char *path, bool in_tree,
		     struct lh_err *err);
/* Fills `out` with n bytes, fewer at the end only. LH_EDATA: the file is damaged, or
 * grows beyond all reason when unpacked. LH_EIO. */
int64_t pack_stream_read(struct pack_stream *s, char *out, int64_t n, struct lh_err *err);
void pack_stream_close(struct pack_stream *s); /* NULL is allowed */
/* Whether a name ends in `end`, or does before ".gz" or ".zst". */
bool pack_name_ends(const char *name, const char *end, size_t n);

/* ---- chunks ---------------------------------------------------------------- */
/* How far the input was read. */
struct pack_place {
	int64_t files;          /* done with */
	int64_t offset, line;   /* unpacked bytes and lines taken of the one behind them */
	int64_t binary, unreadable; /* files that were left out */
	int64_t bytes;          /* of the files, as they lie on disk */
	uint64_t seen;          /* of the names, sizes and times of files so far */
};

/* A document, or lines that hold one each. */
struct pack_piece {
	char *name;             /* owned; of its file */
	int64_t from, bytes, line; /* of text; the number of the first line */
	bool jsonl;
};

struct pack_document {
	const char *text;       /* in the chunk */
	int64_t bytes;
	int piece;              /* that it is of */
	double place;           /* in [0, 1), from its contents */
	int64_t from, count;    /* of the chunk's ids; may be none but for bytes */
};

struct pack_chunk {
	char *text;
	int64_t bytes, cap;
	struct pack_piece *pieces;
	int piece_count, piece_cap;
	struct pack_place after; /* of the input, behind this chunk */

	/* made by the pool */
	uint16_t *byte_ids;     /* of bytes, */
	int64_t byte_cap;
	struct ctl_ids ids;     /* or of a tokenizer */
	struct pack_document *documents;
	int64_t document_count, document_cap;
	int rc;
	struct lh_err err;
	bool done;
};

void pack_chunk_clear(struct pack_chunk *c); /* keeps what memory is usual */
void pack_chunk_release(struct pack_chunk *c);

/* ---- pack_input.c ---------------------------------------------------------- */
struct pack_input;
struct pack_input_options {
	const char *const *paths; /* files, directories, "-": stdin */
	int path_count;
	const char *ext;          /* ".txt,.md" of files found; NULL: all */
	bool jsonl;               /* all are, whatever their names */
};
struct pack_input *pack_input_new(const struct pack_input_options *o);
void pack_input_free(struct pack_input *in); /* NULL is allowed */
/* Fills a cleared chunk; one without pieces: there is nothing more. The pieces before
 * an error are good. */
int pack_input_next(struct pack_input *in, struct pack_chunk *c, struct lh_err *err);
/* Goes on at a place that an equal input has been at; false if it is not equal. */
bool pack_input_seek(struct pack_input *in, const struct pack_place *place);
/* Bytes of all files, as they lie on disk. */
int64_t pack_input_total(const struct pack_input_options *o);

/* ---- pack_documents.c ------------------------------------------------------ */
/* How a text becomes ids. */
struct pack_ids {
	const char *field;      /* of a line of JSON, where its text is */
	const char *tokenizer;  /* its file; NULL: bytes are the ids */
	struct lh_vocabulary vocabulary; /* of that file */
};
/* Fills what the pool makes. `t`: the calling thread's own, NULL at first; started when
 * one is wanted. */
void pack_documents_make(struct pack_chunk *c, const struct pack_ids *how,
			 struct ctl_tokenizer **t);

/* ---- pack_pool.c ----------------------------------------------------------- */
struct pack_pool;
/* Borrows `how`. */
struct pack_pool *pack_pool_new(int threads, const struct pack_ids *how);
void pack_pool_free(struct pack_pool *p); /* ends its threads; NULL is allowed */
/* A cleared chunk to fill, or NULL: enough are under way. Then pack_pool_submit, or
 * not: it is given out again. */
struct pack_chunk *pack_pool_empty(struct pack_pool *p);
void pack_pool_submit(struct pack_pool *p);
/* Waits for the oldest chunk; NULL: none is under way. Valid until the next call. */
struct pack_chunk *pack_pool_take(struct pack_pool *p);

/* ---- pack_state.c ---------------------------------------------------------- */
struct pack_counts {
	int64_t documents[2], bytes[2], ids[2]; /* train, validation; no separators */
};
/* PREFIX.pack: with `command`, what was asked for. */
int pack_state_save(const char *prefix, const json_t *command,
		    const struct pack_place *place, const struct pack_counts *counts,
		    struct lh_err *err);
/* False: there is none of this command. */
bool pack_state_load(const char *prefix, const json_t *command, struct pack_place *place,
		     struct pack_counts *counts);
void pack_state_remove(const char *prefix);

#endif

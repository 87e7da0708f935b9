/* packing.h: the documents of a shard as sequences of rows, for training that keeps
 * documents apart (data.documents: separate).
 *
 * Documents follow each other as in the shard. Each is filled up to a multiple of
 * `window` rows, so that no pooling window of Lighthouse attention holds parts of two;
 * the filler is its last token again. Sequence i is rows [i, i+1) * seq_len of that: a
 * document that does not fit goes on in the next sequence, as one of its own. What the
 * last sequence has left is filled, too. So every token is in one row, and is predicted
 * once, but for the first of each document: the row before a document, its separator,
 * has target -1, and so has every filler.
 *
 * `window` is the least common multiple of the coarsest windows of all phases of a job:
 * phases see the same rows, and a switch changes nothing about a cursor. It divides
 * seq_len. A document costs half a window of filler, on average; steps count it among
 * their tokens.
 *
 * Where the window is one token (no phase is of Lighthouse attention), sequence i begins
 * at token i * seq_len. Otherwise a place depends on all documents before it: they are
 * gone through once, when the data are opened, by the shard's index (data/walk.h, or
 * Megatron's) or else by all of its ids, and it takes 8 bytes of memory for each sequence.
 *
 * Read-only once made; any thread.
 */
#ifndef LIGHTHOUSE_PACKING_H
#define LIGHTHOUSE_PACKING_H

#include "data/walk.h"
#include "lighthouse/job.h"
#include "lighthouse/shard.h"

struct lh_packing {
	const struct lh_shard *shard; /* borrowed */
	int64_t seq_len;
	int64_t window;
	int64_t count;  /* sequences */
	int64_t *from;  /* (count + 1) first token of each, then the shard's end; NULL
			 * where the window is 1 */
};

/* Of all phases of a job; 1 where none pools. */
int64_t lh_packing_window(const struct lh_job *job);

/* Looks for the documents of a shard that has them. False: `scan` (may be NULL) was told
 * to leave off. To be released either way. */
bool lh_packing_init(struct lh_packing *p, const struct lh_shard *s, int64_t seq_len,
		     int64_t window, const struct lh_scan *scan);
void lh_packing_release(struct lh_packing *p); /* a zeroed one is allowed */

/* The tokens that sequence i holds, [from, to). */
void lh_packing_range(const struct lh_packing *p, int64_t i, int64_t *from, int64_t *to);
/* How many of them have another one to predict. */
int64_t lh_packing_targets(const struct lh_packing *p, int64_t i);
/* tokens, targets, starts (seq_len) of sequence i; starts: the row at which each row's
 * document begins. LH_EDATA names file and position of an id that is not below vocab. */
int lh_packing_fill(const struct lh_packing *p, int64_t i, int64_t vocab, int32_t *tokens,
		    int32_t *targets, int32_t *starts, struct lh_err *err);

#endif

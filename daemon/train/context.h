/* context.h: a sequence that several ranks share, for its attention.
 *
 * W ranks have T tokens in 2 W pieces of n = T / (2 W): rank q has number q and number
 * 2 W - 1 - q. The later a token comes the more it sees, and so all have as much to do. The
 * rows of a rank are those of its two pieces, one after the other. What is done row by row
 * does not notice; attention is done a piece at a time, and needs of others
 *
 *   K, V     of all pieces before: gathered, for backward once more; and their gradients,
 *            which each has from all that saw them, and sums in float32
 *   halo     of Lighthouse attention: the last entry of a piece on each level above 0
 *            reaches into the piece that follows, and what it did there comes back
 *
 * With Lighthouse attention a piece is a sequence by itself, as long as tiles do not lie
 * across its ends: it selects of it what one rank would (lh_context_geometry).
 *
 * Calls with a comm are collective, and are made by all of its ranks alike. Training thread.
 */
#ifndef LIGHTHOUSE_CONTEXT_H
#define LIGHTHOUSE_CONTEXT_H

#include "lighthouse/comm.h"
#include "lighthouse/ops.h"

/* ---- pieces; ranks is W, and 1 has one piece, the whole ----------------------- */

/* Number of a rank's piece i: 0 or 1. */
int lh_context_piece(int ranks, int rank, int i);
/* Where a piece is in what is gathered rank by rank: 2 * rank + i. */
int lh_context_place(int ranks, int piece);
/* Of a piece, of one of the sequence. */
struct lh_lighthouse lh_context_geometry(const struct lh_lighthouse *g, int ranks);
struct lh_heads lh_context_heads(struct lh_heads h, int ranks);

/* ---- host memory ------------------------------------------------------------ */
/* whole (T) <- own (T/W) of every rank. */
void lh_context_collect_rows(const struct lh_comm *c, float *whole, const float *own,
			     int64_t tokens);
/* The choice of a layer: index (H,S) <- that of the sequence, from what every rank has of
 * its pieces at the beginning of it, (2,H,S/(2W)). */
void lh_context_collect_index(const struct lh_comm *c, const struct lh_lighthouse *g,
			      int heads, int32_t *index);

/* ---- in the midst of a layer -------------------------------------------------- */

/* Rows of keys and of values: `width` elements each, `row` from one to the next. */
struct lh_context_keys {
	lh_act *k, *v;
	int64_t row;
};

/* M rows: T of full attention, S of Lighthouse; `width` is G*D, or H*D. */
struct lh_context_scratch {
	lh_act *kv;    /* (M,2,width) of all pieces, in their order: each row's key, its value */
	lh_act *dkv;   /* (M+M/(2W),2,width) what both pieces want of what they see */
	lh_act *got;   /* (M,2,width) from each rank two pieces of them, in the place of kv */
	lh_act *halo;  /* (2W,L-1,H,D), rank by rank */
	float *dhalo;  /* (2W,L-1,H,D) */
};

struct lh_context_call {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	const struct lh_comm *comm;
	const struct lh_context_scratch *scratch;
	int64_t rows;        /* of a piece: M/(2W) */
	int64_t width;
};

/* scratch->kv <- own (2 pieces) of every rank, up to this rank's last one. Its rows, those of
 * pieces 0 .. p, are what queries of piece p see. Those of others come beside the device's
 * ops, and are there when they are awaited. */
struct lh_context_keys lh_context_begin_gather(const struct lh_context_call *x,
					       const struct lh_context_keys *own);
void lh_context_await(const struct lh_context_call *x);
/* Where gradients of what was gathered go: of what this rank's piece i, 0 or 1, sees of it. */
struct lh_context_keys lh_context_grads(const struct lh_context_call *x, int i);
/* own (2 pieces) <- the sum of these over all that see them. What was gathered is lost. */
void lh_context_reduce(const struct lh_context_call *x, const struct lh_context_keys *own);

/* all: of every piece `bytes`, rank by rank, this rank's at their place <- every rank's. */
void lh_context_share_halo(const struct lh_comm *c, void *all, int64_t bytes);

#endif

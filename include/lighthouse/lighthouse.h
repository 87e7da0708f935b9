/* lighthouse.h: the geometry of Lighthouse attention, without any tensor.
 *
 * Lighthouse attention ("Long Context Pre-Training with Lighthouse Attention",
 * arXiv:2605.06554) pools Q, K, V of N tokens into a pyramid of L levels, keeps
 * a causally ordered sub-sequence of S entries and runs ordinary causal SDPA on
 * it. Everything here follows from the settings alone: who checks a job file,
 * sizes an arena or writes a kernel asks here and nowhere else.
 *
 * Symbols, used in every comment of the tree:
 *   N tokens, L levels, p pool, k topk (budget), m tile (budget of one tile),
 *   tiles = k / m; level l = 0 is the finest, L-1 the coarsest;
 *   window c_l = p^l tokens, N_l = N / c_l entries.
 * Entry (l, i) stands for tokens [i*c_l, (i+1)*c_l - 1]; its flat pyramid index
 * is sum_{j<l} N_j + i. P = sum_l N_l is the size of the pyramid.
 * Selected length: S = N_{L-1} + (L-1)*p*k, the same for every head.
 *
 * Pure functions, any thread.
 */
#ifndef LIGHTHOUSE_LIGHTHOUSE_H
#define LIGHTHOUSE_LIGHTHOUSE_H

#include <stdint.h>

#include "lighthouse/err.h"

#define LH_LEVELS_MAX 16

enum lh_scorer {
	LH_SCORER_NORM,    /* L2 norms of Q and K rows */
	LH_SCORER_DILATED, /* norms of SDPA rows inside residue classes */
};

struct lh_lighthouse {
	int64_t tokens;        /* N */
	int levels;            /* L >= 2 */
	int pool;              /* p >= 2 */
	int64_t topk;          /* k */
	int tile;              /* m, even; 128 unless set */
	enum lh_scorer scorer;
	int dilation;          /* residue classes of LH_SCORER_DILATED */
};

/* Checks every precondition of the algorithm, each with its own sentence and a
 * hint naming values that would do: L >= 2, p >= 2, m even and > 0, m divides
 * k, p^(L-1) divides N, tiles divides N_{L-1}, N_{L-1}/tiles >= m, and for the
 * dilated scorer that dilation >= 1 divides N. 0 or LH_EINVAL. When `key` is
 * not NULL it receives the name of the job-file key to blame ("topk", "pool",
 * "levels", "tile", "dilation", "seq_len"), a string literal.
 * All other functions require a geometry that passes. */
int lh_lighthouse_check(const struct lh_lighthouse *g, const char **key,
			struct lh_err *err);

int64_t lh_lighthouse_window(const struct lh_lighthouse *g, int level);  /* c_l */
int64_t lh_lighthouse_entries(const struct lh_lighthouse *g, int level); /* N_l */
int64_t lh_lighthouse_base(const struct lh_lighthouse *g, int level);    /* flat index of (l, 0) */
int64_t lh_lighthouse_pyramid(const struct lh_lighthouse *g);            /* P */
int64_t lh_lighthouse_tiles(const struct lh_lighthouse *g);              /* k / m */
int64_t lh_lighthouse_selected(const struct lh_lighthouse *g);           /* S */

/* Documents. Each begins with an entry of the coarsest level, so that no window holds
 * parts of two. Those that meet in a tile do not compete: the first n coarsest entries
 * of a tile have lh_lighthouse_share of its budget, a document what its entries add to
 * that. Half of it, and the odd one, goes to query scores, the rest to key scores. What
 * is selected of a document so follows from the layout and its own scores alone, and
 * its rows are consecutive: those of one that begins with coarsest entry i begin with
 * row lh_lighthouse_row(i). A document alone in its tile has all of the budget. */
int64_t lh_lighthouse_share(const struct lh_lighthouse *g, int64_t n);
int64_t lh_lighthouse_row(const struct lh_lighthouse *g, int64_t entry);

/* Level and position inside it of a flat pyramid index. */
int lh_lighthouse_level_of(const struct lh_lighthouse *g, int64_t flat,
			   int64_t *position);

#endif

/* lighthouse.c: the geometry of Lighthouse attention; see lighthouse.h.
 *
 * Pure integer arithmetic, shared by the job checker and every backend. */
#include "lighthouse/lighthouse.h"

#include <inttypes.h>
#include <stdbool.h>

int64_t lh_lighthouse_window(const struct lh_lighthouse *g, int level)
{
	int64_t c = 1;

	while (level-- > 0)
		c *= g->pool;
	return c;
}

int64_t lh_lighthouse_entries(const struct lh_lighthouse *g, int level)
{
	return g->tokens / lh_lighthouse_window(g, level);
}

int64_t lh_lighthouse_base(const struct lh_lighthouse *g, int level)
{
	int64_t base = 0;

	for (int l = 0; l < level; l++)
		base += lh_lighthouse_entries(g, l);
	return base;
}

int64_t lh_lighthouse_pyramid(const struct lh_lighthouse *g)
{
	return lh_lighthouse_base(g, g->levels);
}

int64_t lh_lighthouse_tiles(const struct lh_lighthouse *g)
{
	return g->topk / g->tile;
}

int64_t lh_lighthouse_selected(const struct lh_lighthouse *g)
{
	return lh_lighthouse_entries(g, g->levels - 1) +
	       (g->levels - 1) * (int64_t)g->pool * g->topk;
}

/* Rounded down, so that no document has more than it has entries. */
int64_t lh_lighthouse_share(const struct lh_lighthouse *g, int64_t n)
{
	int64_t tile = lh_lighthouse_entries(g, g->levels - 1) / lh_lighthouse_tiles(g);

	return g->tile * n / tile;
}

int64_t lh_lighthouse_row(const struct lh_lighthouse *g, int64_t entry)
{
	int64_t tiles = lh_lighthouse_tiles(g);
	int64_t tile = lh_lighthouse_entries(g, g->levels - 1) / tiles, n = entry % tile;

	return entry / tile * (lh_lighthouse_selected(g) / tiles) + n +
	       (g->levels - 1) * g->pool * lh_lighthouse_share(g, n);
}

int lh_lighthouse_level_of(const struct lh_lighthouse *g, int64_t flat,
			   int64_t *position)
{
	for (int l = 0; l < g->levels; l++) {
		int64_t n = lh_lighthouse_entries(g, l);

		if (flat < n) {
			*position = flat;
			return l;
		}
		flat -= n;
	}
	LH_BUG("pyramid index %" PRId64 " past the last level", flat);
}

static int refuse(const char **key, const char *name)
{
	if (key)
		*key = name;
	return LH_EINVAL;
}

/* Settings that make no sense alone. */
static int check_settings(const struct lh_lighthouse *g, const char **key,
			  struct lh_err *err)
{
	if (g->levels < 2 || g->levels > LH_LEVELS_MAX) {
		lh_err_set(err, LH_EINVAL, "levels is %d, 2 to %d is allowed",
			   g->levels, LH_LEVELS_MAX);
		lh_err_hint(err, "3 is the usual choice");
		return refuse(key, "levels");
	}
	if (g->pool < 2) {
		lh_err_set(err, LH_EINVAL, "pool is %d, 2 or more is allowed", g->pool);
		lh_err_hint(err, "4 is the usual choice");
		return refuse(key, "pool");
	}
	if (g->tile < 2 || g->tile % 2) {
		lh_err_set(err, LH_EINVAL,
			   "tile is %d, an even number from 2 is allowed", g->tile);
		lh_err_hint(err, "128 is the usual choice; short contexts need less");
		return refuse(key, "tile");
	}
	if (g->topk < g->tile || g->topk % g->tile) {
		int64_t below = g->topk / g->tile * g->tile;

		lh_err_set(err, LH_EINVAL,
			   "topk is %" PRId64 ", which is no multiple of tile (%d)",
			   g->topk, g->tile);
		lh_err_hint(err, "topk %" PRId64 " or %" PRId64 " would do",
			    below ? below : g->tile,
			    (below ? below : g->tile) + g->tile);
		return refuse(key, "topk");
	}
	return 0;
}

static int check_tokens(const struct lh_lighthouse *g, const char **key,
			struct lh_err *err)
{
	int64_t window = 1, coarsest, tiles = g->topk / g->tile;

	for (int l = 1; l < g->levels; l++) {
		if (window > INT64_MAX / 4 / g->pool) {
			lh_err_set(err, LH_EINVAL,
				   "pool %d to the power %d is too large", g->pool,
				   g->levels - 1);
			lh_err_hint(err, "fewer levels or a smaller pool");
			return refuse(key, "levels");
		}
		window *= g->pool;
	}
	if (g->tokens < window || g->tokens % window) {
		int64_t up = (g->tokens / window + 1) * window;

		lh_err_set(err, LH_EINVAL,
			   "seq_len is %" PRId64 ", which pool^(levels-1) = %" PRId64
			   " does not divide", g->tokens, window);
		lh_err_hint(err, "seq_len %" PRId64 " would do, or fewer levels", up);
		return refuse(key, "seq_len");
	}
	coarsest = g->tokens / window;
	if (coarsest % tiles) {
		lh_err_set(err, LH_EINVAL,
			   "topk / tile = %" PRId64 " tiles do not divide the %" PRId64
			   " entries of the coarsest level", tiles, coarsest);
		lh_err_hint(err, "topk %d would do; so would any topk whose tiles "
			    "divide %" PRId64, g->tile, coarsest);
		return refuse(key, "topk");
	}
	if (coarsest / tiles < g->tile) {
		lh_err_set(err, LH_EINVAL,
			   "a tile owns %" PRId64 " entries of the coarsest level, "
			   "fewer than its budget tile = %d", coarsest / tiles,
			   g->tile);
		lh_err_hint(err, "a smaller topk (at most %" PRId64
			    "), a smaller tile, fewer levels or a longer seq_len",
			    coarsest);
		return refuse(key, "tile");
	}
	return 0;
}

int lh_lighthouse_check(const struct lh_lighthouse *g, const char **key,
			struct lh_err *err)
{
	int rc = check_settings(g, key, err);

	if (!rc)
		rc = check_tokens(g, key, err);
	if (rc)
		return rc;
	if (g->scorer == LH_SCORER_DILATED &&
	    (g->dilation < 1 || g->tokens % g->dilation)) {
		lh_err_set(err, LH_EINVAL,
			   "dilation is %d, which does not divide seq_len %" PRId64,
			   g->dilation, g->tokens);
		lh_err_hint(err, "4 is the usual choice");
		return refuse(key, "dilation");
	}
	return 0;
}

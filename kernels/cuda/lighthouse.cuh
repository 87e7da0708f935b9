/* lighthouse.cuh: the geometry of lighthouse.h as kernels take it, by value.
 *
 * Flat pyramid indices and rows of one head fit in int32 (lh_lighthouse tokens
 * of a head times 2 stay under 2^31); element offsets are int64. */
#ifndef LIGHTHOUSE_CUDA_LIGHTHOUSE_H
#define LIGHTHOUSE_CUDA_LIGHTHOUSE_H

#include "vec.cuh"

struct pyramid {
	int32_t N, P, S;
	int levels, pool;
	int32_t window[LH_LEVELS_MAX];  /* c_l */
	int32_t entries[LH_LEVELS_MAX]; /* N_l */
	int32_t base[LH_LEVELS_MAX];    /* flat index of (l, 0) */
};

static inline struct pyramid pyramid_of(const struct lh_lighthouse *g)
{
	struct pyramid y = { };

	LH_ASSERT(g->tokens < (int64_t)1 << 30);
	y.N = (int32_t)g->tokens;
	y.P = (int32_t)lh_lighthouse_pyramid(g);
	y.S = (int32_t)lh_lighthouse_selected(g);
	y.levels = g->levels;
	y.pool = g->pool;
	for (int l = 0; l < g->levels; l++) {
		y.window[l] = (int32_t)lh_lighthouse_window(g, l);
		y.entries[l] = (int32_t)lh_lighthouse_entries(g, l);
		y.base[l] = (int32_t)lh_lighthouse_base(g, l);
	}
	return y;
}

/* Level of a flat index; *position receives the entry. */
__device__ __forceinline__ int level_of(const struct pyramid &y, int32_t flat,
					int32_t *position)
{
	int l = 0;

	while (l + 1 < y.levels && flat >= y.base[l + 1])
		l++;
	*position = flat - y.base[l];
	return l;
}

#endif

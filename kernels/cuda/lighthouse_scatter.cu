/* lighthouse_scatter.cu: the sub-sequence's output back to tokens (paper
 * section 3.4), and its gradient.
 *
 * Row (l, i) is added to tokens [i c + c - 1, i c + 2c - 2], clipped to its
 * document. Both directions are gathers: a token takes one entry a level through the
 * map, a row sums its tokens. Forward writes sizeof(T) N H D and reads S H D (rows
 * again from cache) and the map: 0.23 GB at N = 98304, H D = 1024, limit 0.08 ms at
 * 3 TB/s. Backward reads N H D once from memory (the finer entries' tokens come
 * from cache, their rows being neighbours) and writes S H D: the same. */
#include "lighthouse_rows.cuh"

template <typename T>
void lh_cuda_lighthouse_scatter(struct lh_dev *dev, const struct lh_lighthouse *g,
				const struct lh_heads *h, lh_act *o, const lh_act *os,
				const int32_t *map)
{
	int64_t width = h->head_dim;
	struct spread_args<T> a = { };
	bool vec = width % (2 * VEC<T>) == 0 && lh_aligned<T>(o, h->o_row) &&
		   lh_aligned<T>(os, width);

	LH_ASSERT(h->tokens == g->tokens);
	a.y = pyramid_of(g);
	a.map = map;
	a.start = h->start;
	a.slots = h->heads;
	a.heads = h->heads;
	a.half = h->head_dim / 2;
	a.side[0] = { (T *)o, (const T *)os, h->o_row, h->heads, 1, false };
	launch_spread<T, true>(dev, a, h->batch, vec);
	lh_cuda_launched(dev, "lighthouse_scatter");
}

template <typename T>
void lh_cuda_lighthouse_scatter_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				    const struct lh_heads *h, lh_act *dos,
				    const lh_act *dout, const int32_t *index)
{
	int64_t width = h->head_dim;
	struct sum_args<T> a = { };
	bool vec = width % (2 * VEC<T>) == 0 && lh_aligned<T>(dout, h->o_row) &&
		   lh_aligned<T>(dos, width);

	LH_ASSERT(h->tokens == g->tokens);
	a.y = pyramid_of(g);
	a.index = index;
	a.start = h->start;
	a.sides = 1;
	a.heads = h->heads;
	a.half = h->head_dim / 2;
	a.side[0] = { (T *)dos, (const T *)dout, h->o_row, 1, false, NULL };
	launch_sum<T, true>(dev, a, h->batch, vec);
	lh_cuda_launched(dev, "lighthouse_scatter_bwd");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_lighthouse_scatter<T>(                                  \
		struct lh_dev *, const struct lh_lighthouse *,                        \
		const struct lh_heads *, lh_act *, const lh_act *, const int32_t *);  \
	template void lh_cuda_lighthouse_scatter_bwd<T>(                              \
		struct lh_dev *, const struct lh_lighthouse *,                        \
		const struct lh_heads *, lh_act *, const lh_act *, const int32_t *);
INSTANCE(bf16)
INSTANCE(float)

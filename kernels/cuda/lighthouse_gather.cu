/* lighthouse_gather.cu: rows of the sub-sequence from rows of tokens, and back.
 *
 * Forward: entry (l, i) is the mean of the rotated rows of its window. The
 * coarsest means of q and k are taken from the scorer's scratch when it left
 * them, so only v is read whole: sizeof(T) D (N G + 3 S H) bytes and the re-read
 * windows of finer entries (1/6 of q and k at p = 4, L = 3, k = N/128; v's are
 * in cache); at N = 98304, H D = 1024 about 0.36 GB, limit 0.12 ms at 3 TB/s.
 *
 * Backward, a gather too: token j collects d / c_l from the entries (l, j / c_l)
 * that were selected; then the rotation is undone. Writes sizeof(T) N (H+2G) D,
 * reads 3 S H D and the map: 0.68 GB, limit 0.23 ms. */
#include "lighthouse_rows.cuh"

template <typename T>
void lh_cuda_lighthouse_gather(struct lh_dev *dev, const struct lh_lighthouse *g,
			       const struct lh_heads *h, lh_act *qs, lh_act *ks,
			       lh_act *vs, const lh_act *q, const lh_act *k,
			       const lh_act *v, const struct lh_rope *rope,
			       const int32_t *index, const void *scored)
{
	int64_t width = h->head_dim;
	const T *means = NULL, *means_k = NULL;
	struct sum_args<T> a = { };
	bool vec = width % (2 * VEC<T>) == 0 && lh_aligned<T>(q, h->q_row) &&
		   lh_aligned<T>(k, h->kv_row) && lh_aligned<T>(v, h->kv_row) &&
		   lh_aligned<T>(qs, width) && lh_aligned<T>(ks, width) &&
		   lh_aligned<T>(vs, width);

	LH_ASSERT(h->tokens == g->tokens);
	a.y = pyramid_of(g);
	if (scored && lh_cuda_means<T>(g, h, (const T *)q, (const T *)k)) {
		means = (const T *)scored;
		means_k = means + (int64_t)h->batch * a.y.entries[a.y.levels - 1] *
					  h->heads * width;
	}
	a.index = index;
	a.cos = rope ? rope->cos : NULL;
	a.sin = rope ? rope->sin : NULL;
	a.start = h->start;
	a.sides = 3;
	a.heads = h->heads;
	a.half = h->head_dim / 2;
	a.side[0] = { (T *)qs, (const T *)q, h->q_row, 1, rope != NULL, means };
	a.side[1] = { (T *)ks, (const T *)k, h->kv_row,
		      h->heads / h->kv_heads, rope != NULL, means_k };
	a.side[2] = { (T *)vs, (const T *)v, h->kv_row,
		      h->heads / h->kv_heads, false, NULL };
	launch_sum<T, false>(dev, a, h->batch, vec);
	lh_cuda_launched(dev, "lighthouse_gather");
}

template <typename T>
void lh_cuda_lighthouse_gather_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				   const struct lh_heads *h, lh_act *dq, lh_act *dk,
				   lh_act *dv, const lh_act *dqs, const lh_act *dks,
				   const lh_act *dvs, const struct lh_rope *rope,
				   const int32_t *map)
{
	int64_t width = h->head_dim;
	struct spread_args<T> a = { };
	bool vec = width % (2 * VEC<T>) == 0 && lh_aligned<T>(dq, h->q_row) &&
		   lh_aligned<T>(dk, h->kv_row) && lh_aligned<T>(dv, h->kv_row) &&
		   lh_aligned<T>(dqs, width) && lh_aligned<T>(dks, width) &&
		   lh_aligned<T>(dvs, width);

	LH_ASSERT(h->tokens == g->tokens);
	a.y = pyramid_of(g);
	a.map = map;
	a.cos = rope ? rope->cos : NULL;
	a.sin = rope ? rope->sin : NULL;
	a.start = h->start;
	a.slots = h->heads + 2 * h->kv_heads;
	a.heads = h->heads;
	a.half = h->head_dim / 2;
	a.side[0] = { (T *)dq, (const T *)dqs, h->q_row, h->heads, 1, rope != NULL };
	a.side[1] = { (T *)dk, (const T *)dks, h->kv_row, h->kv_heads,
		      h->heads / h->kv_heads, rope != NULL };
	a.side[2] = { (T *)dv, (const T *)dvs, h->kv_row, h->kv_heads,
		      h->heads / h->kv_heads, false };
	launch_spread<T, false>(dev, a, h->batch, vec);
	lh_cuda_launched(dev, "lighthouse_gather_bwd");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_lighthouse_gather<T>(                                   \
		struct lh_dev *, const struct lh_lighthouse *,                        \
		const struct lh_heads *, lh_act *, lh_act *, lh_act *,                \
		const lh_act *, const lh_act *, const lh_act *,                       \
		const struct lh_rope *, const int32_t *, const void *);               \
	template void lh_cuda_lighthouse_gather_bwd<T>(                               \
		struct lh_dev *, const struct lh_lighthouse *,                        \
		const struct lh_heads *, lh_act *, lh_act *, lh_act *,                \
		const lh_act *, const lh_act *, const lh_act *,                       \
		const struct lh_rope *, const int32_t *);
INSTANCE(bf16)
INSTANCE(float)

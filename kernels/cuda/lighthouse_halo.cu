/* lighthouse_halo.cu: what the scatter adds across the border of two pieces of a sequence,
 * and its gradient.
 *
 * Entry (l, i) is added to tokens [i c + c - 1, i c + 2c - 2]: that of the last entry of a
 * piece to its last token, and to the first c - 1 of the next piece. All of it is a window
 * of the coarsest level and a row a level, small beside a piece: a thread has one element.
 * Of a sum over the first tokens those of the finer levels are the beginnings. */
#include "lighthouse.cuh"

enum { THREADS = 256, SUM_THREADS = 64, SUM_AHEAD = 8 };

struct place { /* of an element of a halo (L-1,H,D) */
	int64_t at;  /* of its element in the rows (S,H,D) */
	bool there;  /* its entry is selected */
};

__device__ __forceinline__ struct place place_of(const struct pyramid &y, const int32_t *map,
						 int heads, int D, int item)
{
	int slot = item / D, e = slot % heads, l = slot / heads + 1;
	int32_t row = map[(int64_t)e * y.P + y.base[l] + y.entries[l] - 1];

	return { ((int64_t)row * heads + e) * D + item % D, row >= 0 };
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
halo_kernel(const struct pyramid y, T *__restrict__ halo, const T *__restrict__ os,
	    const int32_t *__restrict__ map, int heads, int D, int items)
{
	int item = (int)(blockIdx.x * THREADS + threadIdx.x);
	struct place p;

	if (item >= items)
		return;
	p = place_of(y, map, heads, D, item);
	halo[item] = p.there ? os[p.at] : (T)0.0f;
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
halo_put_kernel(const struct pyramid y, T *dos, const float *__restrict__ dhalo,
		const int32_t *__restrict__ map, int heads, int D, int items)
{
	int item = (int)(blockIdx.x * THREADS + threadIdx.x);
	struct place p;

	if (item >= items)
		return;
	p = place_of(y, map, heads, D, item);
	if (p.there)
		dos[p.at] = (T)((float)dos[p.at] + dhalo[item]);
}

/* Tokens t of `width` elements; those before c_l - 1 take level l. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
halo_add_kernel(const struct pyramid y, T *o, int64_t row, const T *__restrict__ halo,
		int64_t items, int width)
{
	int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, t = item / width;
	int i = (int)(item - t * width);
	float sum;

	if (item >= items)
		return;
	sum = (float)o[t * row + i];
	for (int l = 1; l < y.levels; l++)
		if (t < y.window[l] - 1)
			sum += (float)halo[(int64_t)(l - 1) * width + i];
	o[t * row + i] = (T)sum;
}

/* sum + x[0] + x[row] + ..., `count` of them, in this order. */
template <typename T>
__device__ __forceinline__ float add_column(float sum, const T *__restrict__ x, int64_t row,
					    int32_t count)
{
	for (int32_t t = 0; t < count; t += SUM_AHEAD) {
		raw<T, 1> a[SUM_AHEAD];

#pragma unroll
		for (int u = 0; u < SUM_AHEAD; u++)
			if (t + u < count)
				a[u] = fetch<T, 1>(x + (t + u) * row);
#pragma unroll
		for (int u = 0; u < SUM_AHEAD; u++) {
			float v[1];

			if (t + u >= count)
				continue;
			unpack(v, a[u]);
			sum += v[0];
		}
	}
	return sum;
}

template <typename T>
__global__ void __launch_bounds__(SUM_THREADS)
halo_bwd_kernel(const struct pyramid y, float *__restrict__ dhalo,
		const T *__restrict__ dout, int64_t row, int width)
{
	int i = (int)(blockIdx.x * SUM_THREADS + threadIdx.x);
	int32_t t = 0;
	float sum = 0;

	if (i >= width)
		return;
	for (int l = 1; l < y.levels; l++) {
		sum = add_column(sum, dout + t * row + i, row, y.window[l] - 1 - t);
		t = y.window[l] - 1;
		dhalo[(int64_t)(l - 1) * width + i] = sum;
	}
}

/* Elements of a halo. */
static int items_of(const struct lh_lighthouse *g, const struct lh_heads *h)
{
	LH_ASSERT(h->batch == 1 && h->tokens == g->tokens && !h->start);
	return (g->levels - 1) * h->heads * h->head_dim;
}

template <typename T>
void lh_cuda_lighthouse_halo(struct lh_dev *dev, const struct lh_lighthouse *g,
			     const struct lh_heads *h, lh_act *halo, const lh_act *os,
			     const int32_t *map)
{
	int items = items_of(g, h);

	halo_kernel<T><<<(unsigned)lh_ceil(items, THREADS), THREADS, 0, dev->stream>>>(
		pyramid_of(g), (T *)halo, (const T *)os, map, h->heads, h->head_dim, items);
	lh_cuda_launched(dev, "lighthouse_halo");
}

template <typename T>
void lh_cuda_lighthouse_halo_add(struct lh_dev *dev, const struct lh_lighthouse *g,
				 const struct lh_heads *h, lh_act *o, const lh_act *halo)
{
	int width = items_of(g, h) / (g->levels - 1);
	int64_t items = (lh_lighthouse_window(g, g->levels - 1) - 1) * width;

	halo_add_kernel<T><<<(unsigned)lh_ceil(items, THREADS), THREADS, 0, dev->stream>>>(
		pyramid_of(g), (T *)o, h->o_row, (const T *)halo, items, width);
	lh_cuda_launched(dev, "lighthouse_halo_add");
}

template <typename T>
void lh_cuda_lighthouse_halo_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				 const struct lh_heads *h, float *dhalo,
				 const lh_act *dout)
{
	int width = items_of(g, h) / (g->levels - 1);

	halo_bwd_kernel<T><<<(unsigned)lh_ceil(width, SUM_THREADS), SUM_THREADS, 0,
			     dev->stream>>>(pyramid_of(g), dhalo, (const T *)dout, h->o_row,
					    width);
	lh_cuda_launched(dev, "lighthouse_halo_bwd");
}

template <typename T>
void lh_cuda_lighthouse_halo_put(struct lh_dev *dev, const struct lh_lighthouse *g,
				 const struct lh_heads *h, lh_act *dos,
				 const float *dhalo, const int32_t *map)
{
	int items = items_of(g, h);

	halo_put_kernel<T><<<(unsigned)lh_ceil(items, THREADS), THREADS, 0, dev->stream>>>(
		pyramid_of(g), (T *)dos, dhalo, map, h->heads, h->head_dim, items);
	lh_cuda_launched(dev, "lighthouse_halo_put");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_lighthouse_halo<T>(                                     \
		struct lh_dev *, const struct lh_lighthouse *,                        \
		const struct lh_heads *, lh_act *, const lh_act *, const int32_t *);  \
	template void lh_cuda_lighthouse_halo_add<T>(                                 \
		struct lh_dev *, const struct lh_lighthouse *,                        \
		const struct lh_heads *, lh_act *, const lh_act *);                   \
	template void lh_cuda_lighthouse_halo_bwd<T>(                                 \
		struct lh_dev *, const struct lh_lighthouse *,                        \
		const struct lh_heads *, float *, const lh_act *);                    \
	template void lh_cuda_lighthouse_halo_put<T>(                                 \
		struct lh_dev *, const struct lh_lighthouse *,                        \
		const struct lh_heads *, lh_act *, const float *, const int32_t *);
INSTANCE(bf16)
INSTANCE(float)

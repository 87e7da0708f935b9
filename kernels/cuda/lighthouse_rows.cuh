/* lighthouse_rows.cuh: rows of the sub-sequence from tokens, and tokens from rows.
 *
 * sum_kernel: row (l, i) is a sum over a window of tokens: the gather's mean
 * (window [i c, i c + c - 1]) and, SHIFTed by c - 1 and clipped to its document,
 * the scatter's gradient.
 * spread_kernel: a token is a sum over levels of at most one row each, found
 * through the inverse map: the gather's gradient, and, SHIFTed, the scatter.
 * With u = token (or token + 1 when SHIFTed) the entry of level l is u / c_l
 * (or u / c_l - 1), so K = p neighbours in u share every level but 0: their sum
 * `upper` is taken once, and only tokens selected at level 0 walk all levels.
 * Documents are of whole windows of every level: one can only begin at u, and then
 * the entries above level 0 that end before it are nothing to its first tokens.
 *
 * A thread has W dimensions of the lower half of a head and the W they pair
 * with; lanes of a row are neighbours, so accesses are whole 128-byte lines for
 * D = 128. Sums are float32, levels ascending, one rounding at the end. */
#ifndef LIGHTHOUSE_CUDA_ROWS_H
#define LIGHTHOUSE_CUDA_ROWS_H

#include "lighthouse.cuh"

enum { ROW_THREADS = 256, ROW_SIDES = 3 };

template <typename T> struct sum_side {
	T *out;        /* (B,S,H,D) */
	const T *x;    /* tokens; head e reads head e / repeat */
	int64_t row;
	int repeat;
	bool rotated;  /* by the tables of the call */
	const T *mean; /* (B,N_top,H / repeat,D) of the coarsest level, or NULL */
};

template <typename T> struct sum_args {
	struct sum_side<T> side[ROW_SIDES];
	struct pyramid y;
	const int32_t *index; /* (B,H,S) */
	const float *cos, *sin;
	const int32_t *start; /* (B,N) of documents, or NULL */
	int sides, heads, half;
};

enum { SUM_AHEAD = 4 };

/* lo, hi <- sum of rows t0 .. t0 + count - 1. */
template <typename T, int W, bool ROPE>
__device__ __forceinline__ void window_sum(float (&lo)[W], float (&hi)[W], const T *p,
					   int64_t row, int half, int32_t count,
					   const float *cos, const float *sin)
{
#pragma unroll
	for (int i = 0; i < W; i++)
		lo[i] = hi[i] = 0;
	for (int32_t t = 0; t < count; t += SUM_AHEAD) {
		raw<T, W> a[SUM_AHEAD], b[SUM_AHEAD];

#pragma unroll
		for (int u = 0; u < SUM_AHEAD; u++)
			if (t + u < count) {
				a[u] = fetch<T, W>(p + (t + u) * row);
				b[u] = fetch<T, W>(p + (t + u) * row + half);
			}
#pragma unroll
		for (int u = 0; u < SUM_AHEAD; u++) {
			float x[W], y[W];

			if (t + u >= count)
				continue;
			unpack(x, a[u]);
			unpack(y, b[u]);
			if (ROPE) {
				rotate(x, y, cos + (int64_t)(t + u) * half,
				       sin + (int64_t)(t + u) * half, 1);
				round_to<T>(x);
				round_to<T>(y);
			}
#pragma unroll
			for (int i = 0; i < W; i++) {
				lo[i] += x[i];
				hi[i] += y[i];
			}
		}
	}
}

/* blockIdx.x: rows of one (side, head), heads fastest so that the blocks that
 * run together read whole rows of tokens; blockIdx.y: sequence. */
template <typename T, int W, bool ROPE, bool SHIFT>
__global__ void __launch_bounds__(ROW_THREADS) sum_kernel(const sum_args<T> a)
{
	int parts = a.half / W, slots = a.sides * a.heads;
	int slot = (int)(blockIdx.x % slots), e = slot % a.heads;
	const sum_side<T> &s = a.side[slot / a.heads];
	uint32_t item = blockIdx.x / slots * ROW_THREADS + threadIdx.x;
	int32_t r = (int32_t)(item / parts), i, c, t0, count, place;
	int64_t b = blockIdx.y, at = item % parts * W;
	float lo[W], hi[W];
	int l;

	if (r >= a.y.S)
		return;
	l = level_of(a.y, a.index[(b * a.heads + e) * a.y.S + r], &i);
	c = a.y.window[l];
	T *out = s.out + ((b * a.y.S + r) * a.heads + e) * 2 * a.half + at;
	if (!SHIFT && s.mean && l == a.y.levels - 1) {
		const T *mean = s.mean + ((b * a.y.entries[l] + i) *
					  (a.heads / s.repeat) + e / s.repeat) *
						 2 * a.half + at;

		*(raw<T, W> *)out = fetch<T, W>(mean);
		*(raw<T, W> *)(out + a.half) = fetch<T, W>(mean + a.half);
		return;
	}
	t0 = i * c + (SHIFT ? c - 1 : 0);
	place = t0;
	count = SHIFT ? min(c, a.y.N - t0) : c;
	if (a.start) {
		int32_t begin = a.start[b * a.y.N + t0 + count - 1];

		place = t0 - begin;
		if (SHIFT && begin > i * c) /* the next document's */
			count = begin - t0;
	}
	const T *x = s.x + (b * a.y.N + t0) * s.row +
		     (int64_t)(e / s.repeat) * 2 * a.half + at;
	if (ROPE && s.rotated)
		window_sum<T, W, true>(lo, hi, x, s.row, a.half, count,
				       a.cos + (int64_t)place * a.half + at,
				       a.sin + (int64_t)place * a.half + at);
	else
		window_sum<T, W, false>(lo, hi, x, s.row, a.half, count, NULL, NULL);
	if (!SHIFT) {
		float inv = 1.0f / (float)c;

#pragma unroll
		for (int k = 0; k < W; k++) {
			lo[k] *= inv;
			hi[k] *= inv;
		}
	}
	store<T, W>(out, lo);
	store<T, W>(out + a.half, hi);
}

template <typename T> struct spread_side {
	T *out;     /* tokens; `heads` heads, head e sums rows of heads e * repeat
		     * .. e * repeat + repeat - 1 */
	const T *rows; /* (B,S,H,D) */
	int64_t row;
	int heads, repeat;
	bool rotated;  /* to be rotated back */
};

template <typename T> struct spread_args {
	struct spread_side<T> side[ROW_SIDES];
	struct pyramid y;
	const int32_t *map; /* (B,H,P) */
	const float *cos, *sin;
	const int32_t *start; /* (B,N) of documents, or NULL */
	uint32_t items;     /* a sequence's: groups of K tokens * slots * parts */
	int slots, heads, half;
};

/* lo, hi += the rows of level l, weight 1/c (SHIFT: 1), at u; 0 at level
 * `from` .. `to` - 1. SHIFT: of a document that begins at token `begin`. */
template <typename T, int W, bool SHIFT>
__device__ __forceinline__ void add_levels(float (&lo)[W], float (&hi)[W],
					   const spread_args<T> &a, const T *rows,
					   const int32_t *map, int repeat, int32_t u,
					   int from, int to, int32_t begin)
{
	for (int l = from; l < to; l++) {
		int32_t c = a.y.window[l], i = u / c - (SHIFT ? 1 : 0);
		float w = SHIFT ? 1.0f : 1.0f / (float)c;

		if (i < 0 || i >= a.y.entries[l] || (SHIFT && i * c < begin))
			continue;
		for (int k = 0; k < repeat; k++) {
			int32_t r = map[(int64_t)k * a.y.P + a.y.base[l] + i];
			const T *p = rows + ((int64_t)r * a.heads + k) * 2 * a.half;
			float x[W], y[W];

			if (r < 0)
				continue;
			load<T, W>(x, p);
			load<T, W>(y, p + a.half);
#pragma unroll
			for (int n = 0; n < W; n++) {
				lo[n] += x[n] * w;
				hi[n] += y[n] * w;
			}
		}
	}
}

/* Any row at level 0 for token t among the heads that are summed? */
__device__ __forceinline__ bool at_level0(const int32_t *map, int32_t P, int repeat,
					  int32_t t)
{
	bool any = false;

	for (int k = 0; k < repeat; k++)
		any |= map[(int64_t)k * P + t] >= 0;
	return any;
}

template <typename T, int W, int K, bool ROPE, bool SHIFT>
__global__ void __launch_bounds__(ROW_THREADS, W > 1 ? 3 : 4) spread_kernel(const spread_args<T> a)
{
	uint32_t item = blockIdx.x * ROW_THREADS + threadIdx.x;
	int64_t b = blockIdx.y;
	int parts = a.half / W, slot, e, which = 0;
	float up_lo[W] = { }, up_hi[W] = { };
	int64_t at;
	int32_t u;

	if (item >= a.items)
		return;
	at = item % parts * W;
	item /= parts;
	slot = (int)(item % a.slots);
	u = (int32_t)(item / a.slots) * K;
	while (slot >= a.side[which].heads)
		slot -= a.side[which++].heads;
	const spread_side<T> &s = a.side[which];
	e = slot * s.repeat; /* first head of the rows */
	const int32_t *map = a.map + (b * a.heads + e) * a.y.P;
	const T *rows = s.rows + (b * a.y.S * a.heads + e) * 2 * a.half + at;
	T *out = s.out + b * a.y.N * s.row + (int64_t)slot * 2 * a.half + at;

	const int32_t *start = a.start ? a.start + b * a.y.N : NULL;

	add_levels<T, W, SHIFT>(up_lo, up_hi, a, rows, map, s.repeat, u, 1, a.y.levels,
				SHIFT && start && u ? start[u - 1] : 0);
#pragma unroll
	for (int k = 0; k < K; k++) {
		int32_t t = u + k - (SHIFT ? 1 : 0), begin;
		float lo[W], hi[W];
		bool fresh;

		if (t < 0 || t >= a.y.N)
			continue;
		begin = start ? start[t] : 0;
		fresh = SHIFT && start && k && begin == u; /* `upper` is the other's */
#pragma unroll
		for (int i = 0; i < W; i++) {
			lo[i] = fresh ? 0 : up_lo[i];
			hi[i] = fresh ? 0 : up_hi[i];
		}
		if (at_level0(map, a.y.P, s.repeat, t)) {
#pragma unroll
			for (int i = 0; i < W; i++)
				lo[i] = hi[i] = 0;
			add_levels<T, W, SHIFT>(lo, hi, a, rows, map, s.repeat, u + k, 0,
						a.y.levels, begin);
		}
		if (ROPE && s.rotated)
			rotate(lo, hi, a.cos + (int64_t)(t - begin) * a.half + at,
			       a.sin + (int64_t)(t - begin) * a.half + at, -1);
		store<T, W>(out + t * s.row, lo);
		store<T, W>(out + t * s.row + a.half, hi);
	}
}

/* ---- launches -------------------------------------------------------------- */

/* vec: every pointer and stride of the sides allows 16-byte accesses. */
template <typename T, bool SHIFT>
static void launch_sum(struct lh_dev *dev, const sum_args<T> &a, int B, bool vec)
{
	int parts = a.half / (vec ? VEC<T> : 1);
	dim3 grid((unsigned)(lh_ceil((int64_t)a.y.S * parts, ROW_THREADS) * a.sides *
			     a.heads),
		  (unsigned)B);

	if (vec && a.cos && !SHIFT)
		sum_kernel<T, VEC<T>, !SHIFT, SHIFT>
			<<<grid, ROW_THREADS, 0, dev->stream>>>(a);
	else if (vec)
		sum_kernel<T, VEC<T>, false, SHIFT>
			<<<grid, ROW_THREADS, 0, dev->stream>>>(a);
	else
		sum_kernel<T, 1, !SHIFT, SHIFT><<<grid, ROW_THREADS, 0, dev->stream>>>(a);
}

template <typename T, int W, int K, bool SHIFT>
static void launch_spread_k(struct lh_dev *dev, spread_args<T> a, int B)
{
	/* SHIFTed, u runs from 0 to N: one group more. */
	int64_t groups = a.y.N / K + (SHIFT ? 1 : 0);
	int64_t items = groups * a.slots * (a.half / W);
	dim3 grid;

	LH_ASSERT(items < (int64_t)1 << 32);
	a.items = (uint32_t)items;
	grid = dim3((unsigned)lh_ceil(a.items, ROW_THREADS), (unsigned)B);
	if (a.cos && !SHIFT)
		spread_kernel<T, W, K, !SHIFT, SHIFT>
			<<<grid, ROW_THREADS, 0, dev->stream>>>(a);
	else
		spread_kernel<T, W, K, false, SHIFT>
			<<<grid, ROW_THREADS, 0, dev->stream>>>(a);
}

template <typename T, bool SHIFT>
static void launch_spread(struct lh_dev *dev, const spread_args<T> &a, int B, bool vec)
{
	if (!vec)
		launch_spread_k<T, 1, 1, SHIFT>(dev, a, B);
	else if (a.y.pool == 2)
		launch_spread_k<T, VEC<T>, 2, SHIFT>(dev, a, B);
	else if (a.y.pool == 4)
		launch_spread_k<T, VEC<T>, 4, SHIFT>(dev, a, B);
	else if (a.y.pool == 8)
		launch_spread_k<T, VEC<T>, 8, SHIFT>(dev, a, B);
	else
		launch_spread_k<T, VEC<T>, 1, SHIFT>(dev, a, B);
}

#endif

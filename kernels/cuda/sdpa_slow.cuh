/* sdpa_slow.cuh: attention in float32 arithmetic, a block a row, for any shape.
 *
 * For float32 activations (cuDNN has none), for widths cuDNN does not take, and
 * for the few queries of decoding, where a plan per length would cost more than
 * the attention. Reads every key once a query: S^2 D sizeof(T) bytes from cache.
 * Warps take every WARPS-th key (or query) and are added in warp order. */
#ifndef LIGHTHOUSE_CUDA_SDPA_SLOW_H
#define LIGHTHOUSE_CUDA_SDPA_SLOW_H

#include "vec.cuh"

enum { SLOW_WARPS = 8, SLOW_THREADS = 32 * SLOW_WARPS, SLOW_AHEAD = 4 };

struct slow_args {
	int64_t tokens, kv_tokens, q_row, kv_row, o_row;
	int heads, kv_heads, D;
	float scale;
	const int32_t *start; /* (B,tokens) of documents, or NULL */
};

/* The first key that query i of sequence b sees. */
__device__ __forceinline__ int64_t first_key(const slow_args &a, int64_t b, int64_t i)
{
	return a.start ? a.start[b * a.tokens + i] : 0;
}

/* Lane's share of a row of D: elements lane, lane + 32, ... */
template <typename T, int ND>
__device__ __forceinline__ void row_of(float (&x)[ND], const T *p, int D)
{
#pragma unroll
	for (int n = 0; n < ND; n++) {
		int d = threadIdx.x % 32 + 32 * n;
		float v[1] = { 0 };

		if (d < D)
			load<T, 1>(v, p + d);
		x[n] = v[0];
	}
}

template <int ND>
__device__ __forceinline__ float dot(const float (&a)[ND], const float (&b)[ND])
{
	float sum = 0;

#pragma unroll
	for (int n = 0; n < ND; n++)
		sum += a[n] * b[n];
	return lanes_sum<32>(sum);
}

template <int ND>
__device__ __forceinline__ void add_scaled(float (&to)[ND], const float (&x)[ND], float w)
{
#pragma unroll
	for (int n = 0; n < ND; n++)
		to[n] += x[n] * w;
}

/* to (D) <- scale * sum over warps of their rows, in order. All threads call. */
template <typename T, int ND>
__device__ __forceinline__ void join(T *to, const float (&x)[ND], int D, float (*shared)[32 * ND])
{
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

#pragma unroll
	for (int n = 0; n < ND; n++)
		shared[warp][lane + 32 * n] = x[n];
	__syncthreads();
	for (int d = threadIdx.x; d < D; d += SLOW_THREADS) {
		float sum[1] = { 0 };

		for (int w = 0; w < SLOW_WARPS; w++)
			sum[0] += shared[w][d];
		store<T, 1>(to + d, sum);
	}
	__syncthreads();
}

/* Query blockIdx.x of head blockIdx.y of sequence blockIdx.z. */
template <typename T, int ND>
__global__ void __launch_bounds__(SLOW_THREADS)
slow_fwd_kernel(const slow_args a, T *o, float *lse, const T *q, const T *k, const T *v)
{
	__shared__ float shared[SLOW_WARPS][32 * ND], part[SLOW_WARPS][2];
	int64_t i = blockIdx.x, b = blockIdx.z, h = blockIdx.y;
	int64_t kv = b * a.kv_tokens * a.kv_row + h / (a.heads / a.kv_heads) * a.D;
	int64_t n = a.kv_tokens - a.tokens + i + 1;
	int warp = threadIdx.x / 32;
	float x[ND], acc[ND] = { }, m = -INFINITY, l = 0, all_m = -INFINITY, all_l = 0;

	row_of<T, ND>(x, q + (b * a.tokens + i) * a.q_row + h * a.D, a.D);
	for (int64_t j = first_key(a, b, i) + warp * SLOW_AHEAD; j < n;
	     j += SLOW_WARPS * SLOW_AHEAD) {
		float s[SLOW_AHEAD], top = m, keep;

#pragma unroll
		for (int u = 0; u < SLOW_AHEAD; u++) {
			float y[ND];

			row_of<T, ND>(y, k + kv + min(j + u, n - 1) * a.kv_row, a.D);
			s[u] = dot<ND>(x, y) * a.scale;
			s[u] = j + u < n ? s[u] : -INFINITY;
			top = fmaxf(top, s[u]);
		}
		keep = expf(m - top); /* exp(-inf) = 0 the first time */
		l *= keep;
		m = top;
#pragma unroll
		for (int d = 0; d < ND; d++)
			acc[d] *= keep;
#pragma unroll
		for (int u = 0; u < SLOW_AHEAD; u++) {
			float y[ND], w = expf(s[u] - m);

			row_of<T, ND>(y, v + kv + min(j + u, n - 1) * a.kv_row, a.D);
			add_scaled<ND>(acc, y, w);
			l += w;
		}
	}
	if (threadIdx.x % 32 == 0) {
		part[warp][0] = m;
		part[warp][1] = l;
	}
	__syncthreads();
	for (int w = 0; w < SLOW_WARPS; w++)
		all_m = fmaxf(all_m, part[w][0]);
	for (int w = 0; w < SLOW_WARPS; w++)
		all_l += part[w][1] * expf(part[w][0] - all_m);
	m = expf(m - all_m) / all_l;
#pragma unroll
	for (int d = 0; d < ND; d++)
		acc[d] *= m;
	join<T, ND>(o + (b * a.tokens + i) * a.o_row + h * a.D, acc, a.D, shared);
	if (lse && !threadIdx.x)
		lse[(b * a.heads + h) * a.tokens + i] = all_m + logf(all_l);
}

/* delta (B,H,T) <- <dout, o>, a warp a row. */
template <typename T>
__global__ void __launch_bounds__(SLOW_THREADS)
slow_delta_kernel(const slow_args a, int64_t rows, float *delta, const T *dout,
		  const T *o)
{
	int64_t item = (int64_t)blockIdx.x * SLOW_WARPS + threadIdx.x / 32;
	int64_t i = item % a.tokens, bh = item / a.tokens;
	int64_t at = (bh / a.heads * a.tokens + i) * a.o_row + bh % a.heads * a.D;
	float sum = 0;

	if (item >= rows)
		return;
	for (int d = threadIdx.x % 32; d < a.D; d += 32) {
		float x[1], y[1];

		load<T, 1>(x, dout + at + d);
		load<T, 1>(y, o + at + d);
		sum += x[0] * y[0];
	}
	sum = lanes_sum<32>(sum);
	if (threadIdx.x % 32 == 0)
		delta[item] = sum;
}

template <typename T> struct slow_bwd {
	T *dq, *dk, *dv;
	const T *dout, *q, *k, *v;
	const float *lse, *delta;
};

template <typename T, int ND>
__global__ void __launch_bounds__(SLOW_THREADS)
slow_dq_kernel(const slow_args a, const slow_bwd<T> t)
{
	__shared__ float shared[SLOW_WARPS][32 * ND];
	int64_t i = blockIdx.x, b = blockIdx.z, h = blockIdx.y;
	int64_t kv = b * a.kv_tokens * a.kv_row + h / (a.heads / a.kv_heads) * a.D;
	int64_t n = a.kv_tokens - a.tokens + i + 1;
	int64_t at = (b * a.tokens + i) * a.q_row + h * a.D;
	int64_t stat = (b * a.heads + h) * a.tokens + i;
	float x[ND], g[ND], acc[ND] = { }, lse = t.lse[stat], delta = t.delta[stat];

	row_of<T, ND>(x, t.q + at, a.D);
	row_of<T, ND>(g, t.dout + (b * a.tokens + i) * a.o_row + h * a.D, a.D);
	for (int64_t j = first_key(a, b, i) + threadIdx.x / 32; j < n; j += SLOW_WARPS) {
		float y[ND], z[ND], p, dp;

		row_of<T, ND>(y, t.k + kv + j * a.kv_row, a.D);
		row_of<T, ND>(z, t.v + kv + j * a.kv_row, a.D);
		p = expf(dot<ND>(x, y) * a.scale - lse);
		dp = dot<ND>(g, z);
		add_scaled<ND>(acc, y, p * (dp - delta) * a.scale);
	}
	join<T, ND>(t.dq + at, acc, a.D, shared);
}

/* Key blockIdx.x of KV head blockIdx.y: its query heads ascending. */
template <typename T, int ND>
__global__ void __launch_bounds__(SLOW_THREADS)
slow_dkv_kernel(const slow_args a, const slow_bwd<T> t)
{
	__shared__ float shared[SLOW_WARPS][32 * ND];
	int64_t j = blockIdx.x, b = blockIdx.z, e = blockIdx.y;
	int group = a.heads / a.kv_heads;
	int64_t at = (b * a.kv_tokens + j) * a.kv_row + e * a.D;
	int64_t first = max(j - (a.kv_tokens - a.tokens), (int64_t)0);
	float y[ND], z[ND], dk[ND] = { }, dv[ND] = { };

	row_of<T, ND>(y, t.k + at, a.D);
	row_of<T, ND>(z, t.v + at, a.D);
	for (int64_t h = e * group; h < (e + 1) * group; h++)
		for (int64_t i = first + threadIdx.x / 32; i < a.tokens; i += SLOW_WARPS) {
			int64_t r = b * a.tokens + i, stat = (b * a.heads + h) * a.tokens + i;
			float x[ND], g[ND], p;

			if (first_key(a, b, i) > j)
				break; /* the next document */
			row_of<T, ND>(x, t.q + r * a.q_row + h * a.D, a.D);
			row_of<T, ND>(g, t.dout + r * a.o_row + h * a.D, a.D);
			p = expf(dot<ND>(x, y) * a.scale - t.lse[stat]);
			add_scaled<ND>(dv, g, p);
			add_scaled<ND>(dk, x, p * (dot<ND>(g, z) - t.delta[stat]) *
						      a.scale);
		}
	join<T, ND>(t.dk + at, dk, a.D, shared);
	join<T, ND>(t.dv + at, dv, a.D, shared);
}

#endif

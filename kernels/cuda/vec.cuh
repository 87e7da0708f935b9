/* vec.cuh: what kernels share: vectors of activations, rotation, warp sums.
 *
 * A vector is W elements, 16 bytes (W = 8 bf16, 4 float) where addresses and
 * widths allow it, else W = 1. Values live in float registers. Kernels that
 * rotate give a thread W dimensions of the lower half of a head and the W they
 * pair with in the upper half. Device code only.
 */
#ifndef LIGHTHOUSE_CUDA_VEC_H
#define LIGHTHOUSE_CUDA_VEC_H

#include "cuda.h"

template <typename T> constexpr int VEC = 16 / sizeof(T);
constexpr unsigned ALL = 0xffffffffu;

static inline int64_t lh_ceil(int64_t a, int64_t b)
{
	return (a + b - 1) / b;
}

/* Whether rows at p, `row` elements apart, allow 16-byte accesses. */
template <typename T> static inline bool lh_aligned(const void *p, int64_t row)
{
	return (uintptr_t)p % 16 == 0 && row % VEC<T> == 0;
}

__device__ __forceinline__ float low_half(uint32_t u)
{
	return __uint_as_float(u << 16);
}

__device__ __forceinline__ float high_half(uint32_t u)
{
	return __uint_as_float(u & 0xffff0000u);
}

__device__ __forceinline__ uint32_t two_bf16(float low, float high)
{
	__nv_bfloat162 v = __floats2bfloat162_rn(low, high);

	return *(uint32_t *)&v;
}

/* The memory form of W elements. */
template <typename T, int W> struct raw;
template <> struct raw<bf16, 8> {
	uint4 u;
};
template <> struct raw<float, 4> {
	uint4 u;
};
template <> struct raw<bf16, 1> {
	bf16 u;
};
template <> struct raw<float, 1> {
	float u;
};

template <typename T, int W>
__device__ __forceinline__ raw<T, W> fetch(const T *__restrict__ p)
{
	return *(const raw<T, W> *)p;
}

__device__ __forceinline__ void unpack(float (&x)[8], const raw<bf16, 8> &r)
{
	const uint32_t u[4] = { r.u.x, r.u.y, r.u.z, r.u.w };

#pragma unroll
	for (int i = 0; i < 4; i++) {
		x[2 * i] = low_half(u[i]);
		x[2 * i + 1] = high_half(u[i]);
	}
}

__device__ __forceinline__ void unpack(float (&x)[4], const raw<float, 4> &r)
{
	x[0] = __uint_as_float(r.u.x);
	x[1] = __uint_as_float(r.u.y);
	x[2] = __uint_as_float(r.u.z);
	x[3] = __uint_as_float(r.u.w);
}

__device__ __forceinline__ void unpack(float (&x)[1], const raw<bf16, 1> &r)
{
	x[0] = __bfloat162float(r.u);
}

__device__ __forceinline__ void unpack(float (&x)[1], const raw<float, 1> &r)
{
	x[0] = r.u;
}

__device__ __forceinline__ void pack(raw<bf16, 8> &r, const float (&x)[8])
{
	r.u = make_uint4(two_bf16(x[0], x[1]), two_bf16(x[2], x[3]),
			 two_bf16(x[4], x[5]), two_bf16(x[6], x[7]));
}

__device__ __forceinline__ void pack(raw<float, 4> &r, const float (&x)[4])
{
	r.u = make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]),
			 __float_as_uint(x[2]), __float_as_uint(x[3]));
}

__device__ __forceinline__ void pack(raw<bf16, 1> &r, const float (&x)[1])
{
	r.u = __float2bfloat16_rn(x[0]);
}

__device__ __forceinline__ void pack(raw<float, 1> &r, const float (&x)[1])
{
	r.u = x[0];
}

template <typename T, int W>
__device__ __forceinline__ void load(float (&x)[W], const T *__restrict__ p)
{
	unpack(x, fetch<T, W>(p));
}

template <typename T, int W>
__device__ __forceinline__ void store(T *p, const float (&x)[W])
{
	raw<T, W> r;

	pack(r, x);
	*(raw<T, W> *)p = r;
}

/* x as it would be read back after a store. */
template <typename T, int W> __device__ __forceinline__ void round_to(float (&x)[W])
{
	if (sizeof(T) == 2) {
		raw<T, W> r;

		pack(r, x);
		unpack(x, r);
	}
}

/* W floats of a table row, 16 bytes at a time where W allows. */
template <int W>
__device__ __forceinline__ void load_table(float (&x)[W], const float *__restrict__ p)
{
	if constexpr (W % 4 == 0) {
#pragma unroll
		for (int i = 0; i < W; i += 4) {
			float4 f = __ldg((const float4 *)(p + i));

			x[i] = f.x;
			x[i + 1] = f.y;
			x[i + 2] = f.z;
			x[i + 3] = f.w;
		}
	} else {
#pragma unroll
		for (int i = 0; i < W; i++)
			x[i] = __ldg(p + i);
	}
}

/* Rotates W pairs by the angles of one position; sign -1 rotates back. */
template <int W>
__device__ __forceinline__ void rotate(float (&a)[W], float (&b)[W],
				       const float *__restrict__ cos,
				       const float *__restrict__ sin, float sign)
{
	float c[W], s[W];

	load_table(c, cos);
	load_table(s, sin);
#pragma unroll
	for (int i = 0; i < W; i++) {
		float x = a[i], y = b[i], t = sign * s[i];

		a[i] = x * c[i] - y * t;
		b[i] = y * c[i] + x * t;
	}
}

/* Sum over `lanes` neighbours (a power of two), in every lane. */
template <int lanes> __device__ __forceinline__ float lanes_sum(float x)
{
#pragma unroll
	for (int o = lanes / 2; o; o /= 2)
		x += __shfl_xor_sync(ALL, x, o);
	return x;
}

__device__ __forceinline__ float lanes_max(float x)
{
#pragma unroll
	for (int o = 16; o; o /= 2)
		x = fmaxf(x, __shfl_xor_sync(ALL, x, o));
	return x;
}

#endif

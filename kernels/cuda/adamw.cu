/* adamw.cu: the update (Loshchilov & Hutter 2019, algorithm 2), the norm, sums.
 *
 *   g = grad grad_scale min(1, clip / (norm grad_scale))
 *   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
 *   p -= lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + wd p)
 * Moves 28 bytes a parameter (30 with the bf16 copy). The norm and the sum read
 * 4: one block a fixed slice, in double, then one block the slices in order. */
#include "vec.cuh"

#include <math.h>

struct adamw {
	float lr, b1, b2, c1, c2, eps, wd, clip, grad_scale;
};

__device__ __forceinline__ void update(const struct adamw &s, float scale, float &p,
				       float &m, float &v, float grad)
{
	float g = grad * scale;

	m = s.b1 * m + (1 - s.b1) * g;
	v = s.b2 * v + (1 - s.b2) * g * g;
	p -= s.lr * (m * s.c1 / (sqrtf(v * s.c2) + s.eps) + s.wd * p);
}

template <typename T, int W>
__global__ void __launch_bounds__(256)
adamw_kernel(struct adamw s, int64_t n, float *__restrict__ param, T *__restrict__ copy,
	     float *__restrict__ m, float *__restrict__ v,
	     const float *__restrict__ grad, const float *__restrict__ grad_norm)
{
	int64_t i = ((int64_t)blockIdx.x * 256 + threadIdx.x) * W;
	float norm = *grad_norm * s.grad_scale, scale = s.grad_scale;
	float p[W], pm[W], pv[W], g[W];

	if (i >= n || !isfinite(norm))
		return;
	if (s.clip > 0 && norm > s.clip)
		scale *= s.clip / norm;
	load_table(g, grad + i);
	load<float, W>(p, param + i);
	load<float, W>(pm, m + i);
	load<float, W>(pv, v + i);
#pragma unroll
	for (int k = 0; k < W; k++)
		update(s, scale, p[k], pm[k], pv[k], g[k]);
	store<float, W>(param + i, p);
	store<float, W>(m + i, pm);
	store<float, W>(v + i, pv);
	if (!copy)
		return;
	if constexpr (W == 4 && sizeof(T) == 2)
		*(uint2 *)(copy + i) = make_uint2(two_bf16(p[0], p[1]),
						  two_bf16(p[2], p[3]));
	else
		store<T, W>(copy + i, p);
}

static bool all_aligned(const float *p, const void *copy, size_t copy_bytes,
			const float *m, const float *v, const float *grad)
{
	return (uintptr_t)p % 16 == 0 && (uintptr_t)m % 16 == 0 &&
	       (uintptr_t)v % 16 == 0 && (uintptr_t)grad % 16 == 0 &&
	       (uintptr_t)copy % copy_bytes == 0;
}

template <typename T>
void lh_cuda_adamw(struct lh_dev *dev, const struct lh_adamw *a, int64_t n, float *param,
		   lh_act *copy, float *m, float *v, const float *grad,
		   const float *grad_norm)
{
	struct adamw s = { a->lr, a->beta1, a->beta2,
			   (float)(1 / (1 - pow(a->beta1, (double)a->step))),
			   (float)(1 / (1 - pow(a->beta2, (double)a->step))),
			   a->eps, a->weight_decay, a->clip, a->grad_scale };
	int64_t whole = all_aligned(param, copy, 4 * sizeof(T), m, v, grad) ? n / 4 * 4 :
									      0;
	T *c = (T *)copy;

	if (whole)
		adamw_kernel<T, 4><<<(unsigned)lh_ceil(whole / 4, 256), 256, 0,
				     dev->stream>>>(s, whole, param, c, m, v, grad,
						    grad_norm);
	if (n > whole)
		adamw_kernel<T, 1><<<(unsigned)lh_ceil(n - whole, 256), 256, 0,
				     dev->stream>>>(s, n - whole, param + whole,
						    c ? c + whole : NULL, m + whole,
						    v + whole, grad + whole, grad_norm);
	lh_cuda_launched(dev, "adamw");
}

/* ---- sums in a fixed order ------------------------------------------------- */

enum { PARTS = 1024, THREADS = 256 };

__device__ __forceinline__ double block_sum(double x)
{
	__shared__ double warps[THREADS / 32];

#pragma unroll
	for (int o = 16; o; o /= 2)
		x += __shfl_xor_sync(ALL, x, o);
	if (threadIdx.x % 32 == 0)
		warps[threadIdx.x / 32] = x;
	__syncthreads();
	x = 0;
	for (int i = 0; i < THREADS / 32; i++)
		x += warps[i];
	return x;
}

/* part (PARTS) <- sums of x or x^2 over slices of `slice` elements. */
template <bool square>
__global__ void __launch_bounds__(THREADS)
parts_kernel(double *part, const float *__restrict__ x, int64_t n, int64_t slice)
{
	int64_t from = blockIdx.x * slice, end = min(from + slice, n);
	double sum = 0;

	for (int64_t i = from + threadIdx.x; i < end; i += THREADS) {
		double v = x[i];

		sum += square ? v * v : v;
	}
	sum = block_sum(sum);
	if (!threadIdx.x)
		part[blockIdx.x] = sum;
}

/* The same for 16-byte aligned x: float4 loads, four in flight. */
__global__ void __launch_bounds__(THREADS)
squares_kernel(double *part, const float *__restrict__ x, int64_t n, int64_t slice)
{
	int64_t from = blockIdx.x * slice, end = min(from + slice, n);
	int64_t i = from + threadIdx.x * 4;
	double sum = 0;

#pragma unroll 4
	for (; i + 3 < end; i += THREADS * 4) {
		float4 f = __ldg((const float4 *)(x + i));

		sum += (double)f.x * f.x + (double)f.y * f.y +
		       ((double)f.z * f.z + (double)f.w * f.w);
	}
	for (; i < end; i++)
		sum += (double)x[i] * x[i];
	sum = block_sum(sum);
	if (!threadIdx.x)
		part[blockIdx.x] = sum;
}

/* out <- sqrt(sum), or out += scale * sum. */
__global__ void __launch_bounds__(THREADS)
finish_kernel(float *out, const double *part, int parts, bool root, float scale)
{
	double sum = 0;

	for (int i = threadIdx.x; i < parts; i += THREADS)
		sum += part[i];
	sum = block_sum(sum);
	if (threadIdx.x)
		return;
	if (root)
		*out = (float)sqrt(sum);
	else
		*out += (float)(sum * scale);
}

/* Slices are multiples of a block's stride, so only the last has a tail. */
static int64_t slice_of(int64_t n)
{
	return lh_ceil(lh_ceil(n, PARTS), 4 * THREADS) * 4 * THREADS;
}

void lh_cuda_norm(struct lh_dev *dev, float *out, const float *x, int64_t n)
{
	double *part = (double *)lh_cuda_scratch(dev, PARTS * sizeof(double));
	int64_t slice = slice_of(n);
	int parts = (int)lh_ceil(n, slice);

	if (!part)
		return;
	if (parts && (uintptr_t)x % 16 == 0)
		squares_kernel<<<parts, THREADS, 0, dev->stream>>>(part, x, n, slice);
	else if (parts)
		parts_kernel<true><<<parts, THREADS, 0, dev->stream>>>(part, x, n, slice);
	finish_kernel<<<1, THREADS, 0, dev->stream>>>(out, part, parts, true, 0);
	lh_cuda_launched(dev, "norm");
}

void lh_cuda_sum(struct lh_dev *dev, float *out, const float *x, int64_t n, float scale)
{
	double *part = (double *)lh_cuda_scratch(dev, PARTS * sizeof(double));
	int64_t slice = slice_of(n);
	int parts = (int)lh_ceil(n, slice);

	if (!part)
		return;
	if (parts)
		parts_kernel<false><<<parts, THREADS, 0, dev->stream>>>(part, x, n,
									slice);
	finish_kernel<<<1, THREADS, 0, dev->stream>>>(out, part, parts, false, scale);
	lh_cuda_launched(dev, "sum");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_adamw<T>(struct lh_dev *, const struct lh_adamw *,      \
				       int64_t, float *, lh_act *, float *, float *,  \
				       const float *, const float *);
INSTANCE(bf16)
INSTANCE(float)

/* qk_norm.cu: RMSNorm of every head of strided rows, in place, with one gain:
 *   y = x rstd w,  dx = rstd (w dy) - x rstd^3 / D <w dy, x>,  dw += sum dy x rstd.
 *
 * A warp takes a head; a lane W columns at a time, NV times at most, in registers.
 * Forward moves 2 sizeof(T) R heads D bytes, backward 3 (dx read and written, x read).
 * A block takes every gridDim.x-th WARPS heads and leaves its part of the gain's
 * gradient. */
#include "parts.cuh"

enum { WARPS = 8, THREADS = 32 * WARPS };

/* What a head has at most, over the columns of a warp. */
template <int W> constexpr int NV = LH_CUDA_SDPA_HEAD_MAX / (32 * W);

struct rows {
	int64_t count; /* R * heads */
	int heads, D;
	int64_t row;
};

/* Elements from the first row to head i. */
__device__ __forceinline__ int64_t head_at(const rows &r, int64_t i)
{
	return i / r.heads * r.row + i % r.heads * r.D;
}

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
qk_norm_kernel(T *x, const T *__restrict__ w, rows r, float eps)
{
	int64_t head = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
	int c0 = threadIdx.x % 32 * W;
	float v[NV<W>][W], gain[W], sum = 0, s;

	if (head >= r.count)
		return;
	x += head_at(r, head);
#pragma unroll
	for (int n = 0; n < NV<W>; n++) {
		if (c0 + n * 32 * W >= r.D)
			continue;
		load<T, W>(v[n], x + c0 + n * 32 * W);
#pragma unroll
		for (int i = 0; i < W; i++)
			sum += v[n][i] * v[n][i];
	}
	sum = lanes_sum<32>(sum);
	s = 1 / sqrtf(sum / (float)r.D + eps);
#pragma unroll
	for (int n = 0; n < NV<W>; n++) {
		if (c0 + n * 32 * W >= r.D)
			continue;
		load<T, W>(gain, w + c0 + n * 32 * W);
#pragma unroll
		for (int i = 0; i < W; i++)
			v[n][i] = v[n][i] * s * gain[i];
		store<T, W>(x + c0 + n * 32 * W, v[n]);
	}
}

/* One head; the gain's terms dy x rstd go to `part`. */
template <typename T, int W>
__device__ __forceinline__ void head_bwd(T *dx, float (*part)[W], const T *x, const T *w,
					 int D, float eps)
{
	int c0 = threadIdx.x % 32 * W;
	float v[NV<W>][W], d[NV<W>][W], gain[NV<W>][W], sum = 0, dot = 0, s, k;

#pragma unroll
	for (int n = 0; n < NV<W>; n++) {
		int c = c0 + n * 32 * W;

		if (c >= D)
			continue;
		load<T, W>(v[n], x + c);
		load<T, W>(d[n], dx + c);
		load<T, W>(gain[n], w + c);
#pragma unroll
		for (int i = 0; i < W; i++) {
			sum += v[n][i] * v[n][i];
			dot += d[n][i] * gain[n][i] * v[n][i];
		}
	}
	sum = lanes_sum<32>(sum);
	dot = lanes_sum<32>(dot);
	s = 1 / sqrtf(sum / (float)D + eps);
	k = dot * s * s * s / (float)D;
#pragma unroll
	for (int n = 0; n < NV<W>; n++) {
		int c = c0 + n * 32 * W;
		float out[W];

		if (c >= D)
			continue;
#pragma unroll
		for (int i = 0; i < W; i++) {
			part[n][i] += d[n][i] * v[n][i] * s;
			out[i] = d[n][i] * gain[n][i] * s - v[n][i] * k;
		}
		store<T, W>(dx + c, out);
	}
}

/* part (gridDim.x, D) <- the gain's sums over the block's heads. */
template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
qk_norm_bwd_kernel(T *dx, float *__restrict__ part, const T *__restrict__ x,
		   const T *__restrict__ w, rows r, float eps)
{
	__shared__ float shared[LH_CUDA_SDPA_HEAD_MAX]; /* (D) */
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	float sum[NV<W>][W] = { };

	for (int64_t head = (int64_t)blockIdx.x * WARPS + warp; head < r.count;
	     head += (int64_t)gridDim.x * WARPS)
		head_bwd<T, W>(dx + head_at(r, head), sum, x + head_at(r, head), w, r.D, eps);
	for (int c = threadIdx.x; c < r.D; c += THREADS)
		shared[c] = 0;
	for (int turn = 0; turn < WARPS; turn++) { /* warps in order */
		__syncthreads();
		if (turn != warp)
			continue;
#pragma unroll
		for (int n = 0; n < NV<W>; n++)
			for (int i = 0; i < W; i++) {
				int c = (n * 32 + lane) * W + i;

				if (c < r.D)
					shared[c] += sum[n][i];
			}
	}
	__syncthreads();
	for (int c = threadIdx.x; c < r.D; c += THREADS)
		part[(int64_t)blockIdx.x * r.D + c] = shared[c];
}

template <typename T> static bool is_aligned(const void *p, const rows &r)
{
	return lh_aligned<T>(p, r.row) && r.D % VEC<T> == 0;
}

template <typename T>
void lh_cuda_qk_norm(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *x, int64_t row,
		     const lh_act *w, float eps)
{
	rows r = { R * heads, heads, D, row };
	unsigned blocks = (unsigned)lh_ceil(r.count, WARPS);

	LH_ASSERT(D <= LH_CUDA_SDPA_HEAD_MAX);
	if (is_aligned<T>(x, r) && lh_aligned<T>(w, D))
		qk_norm_kernel<T, VEC<T>><<<blocks, THREADS, 0, dev->stream>>>(
			(T *)x, (const T *)w, r, eps);
	else
		qk_norm_kernel<T, 1><<<blocks, THREADS, 0, dev->stream>>>(
			(T *)x, (const T *)w, r, eps);
	lh_cuda_launched(dev, "qk_norm");
}

template <typename T>
void lh_cuda_qk_norm_bwd(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *dx,
			 float *dw, const lh_act *x, int64_t row, const lh_act *w, float eps)
{
	rows r = { R * heads, heads, D, row };
	int parts = parts_of(R, WARPS);
	float *part = (float *)lh_cuda_scratch(dev, (size_t)(parts * D) * sizeof(float));

	LH_ASSERT(D <= LH_CUDA_SDPA_HEAD_MAX);
	if (!part)
		return;
	if (is_aligned<T>(dx, r) && is_aligned<T>(x, r) && lh_aligned<T>(w, D))
		qk_norm_bwd_kernel<T, VEC<T>><<<parts, THREADS, 0, dev->stream>>>(
			(T *)dx, part, (const T *)x, (const T *)w, r, eps);
	else
		qk_norm_bwd_kernel<T, 1><<<parts, THREADS, 0, dev->stream>>>(
			(T *)dx, part, (const T *)x, (const T *)w, r, eps);
	add_parts(dev, dw, part, parts, D);
	lh_cuda_launched(dev, "qk_norm_bwd");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_qk_norm<T>(struct lh_dev *, int64_t, int, int,          \
					 lh_act *, int64_t, const lh_act *, float);   \
	template void lh_cuda_qk_norm_bwd<T>(struct lh_dev *, int64_t, int, int,      \
					     lh_act *, float *, const lh_act *,       \
					     int64_t, const lh_act *, float);
INSTANCE(bf16)
INSTANCE(float)

/* rmsnorm.cu: y = x rstd w, rstd = 1 / sqrt(mean(x^2) + eps), and its gradient
 *   dx += rstd (w dy) - x rstd^3 / C <w dy, x>,   dw += sum over rows dy x rstd.
 *
 * A warp takes a row. Forward moves 2 sizeof(T) R C bytes, backward 4 (x, dy and
 * dx read, dx written). Where a lane's columns fit in registers (C up to 2048
 * bf16) one pass does dx and the gain's partial sums, a slice of rows a block;
 * wider rows read x and dy twice. Partials are added in block order. */
#include "parts.cuh"

enum { WARPS = 8, THREADS = 32 * WARPS };

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
rmsnorm_kernel(T *__restrict__ y, float *__restrict__ rstd, const T *__restrict__ x,
	       const T *__restrict__ w, int64_t R, int64_t C, float eps)
{
	int64_t r = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
	int64_t c0 = threadIdx.x % 32 * W;
	float v[W], gain[W], sum = 0, s;

	if (r >= R)
		return;
	x += r * C;
	y += r * C;
	for (int64_t c = c0; c < C; c += 32 * W) {
		load<T, W>(v, x + c);
#pragma unroll
		for (int i = 0; i < W; i++)
			sum += v[i] * v[i];
	}
	sum = lanes_sum<32>(sum);
	s = 1 / sqrtf(sum / (float)C + eps);
	if (c0 == 0)
		rstd[r] = s;
	for (int64_t c = c0; c < C; c += 32 * W) { /* x comes from L1 now */
		load<T, W>(v, x + c);
		load<T, W>(gain, w + c);
#pragma unroll
		for (int i = 0; i < W; i++)
			v[i] = v[i] * s * gain[i];
		store<T, W>(y + c, v);
	}
}

/* One row of dx; gains' terms dy x rstd go to `part` when it is not NULL. */
template <typename T, int W, int NV>
__device__ __forceinline__ void row_bwd(T *dx, float (*part)[W], const T *dy, const T *x,
					const T *w, int64_t C, float s)
{
	int lane = threadIdx.x % 32;
	raw<T, W> rx[NV], rd[NV];
	float dot = 0, k;

#pragma unroll
	for (int n = 0; n < NV; n++) {
		int64_t c = (n * 32 + lane) * W;
		float v[W], d[W], gain[W];

		if (c >= C)
			continue;
		rx[n] = fetch<T, W>(x + c);
		rd[n] = fetch<T, W>(dy + c);
		load<T, W>(gain, w + c);
		unpack(v, rx[n]);
		unpack(d, rd[n]);
#pragma unroll
		for (int i = 0; i < W; i++) {
			dot += d[i] * gain[i] * v[i];
			part[n][i] += d[i] * v[i] * s;
		}
	}
	dot = lanes_sum<32>(dot);
	k = dot * s * s * s / (float)C;
#pragma unroll
	for (int n = 0; n < NV; n++) {
		int64_t c = (n * 32 + lane) * W;
		float v[W], d[W], gain[W], out[W];

		if (c >= C)
			continue;
		unpack(v, rx[n]);
		unpack(d, rd[n]);
		load<T, W>(gain, w + c);
		load<T, W>(out, dx + c);
#pragma unroll
		for (int i = 0; i < W; i++)
			out[i] += d[i] * gain[i] * s - v[i] * k;
		store<T, W>(dx + c, out);
	}
}

/* part (gridDim.x, C) <- gain's sums over the block's rows. */
template <typename T, int W, int NV>
__global__ void __launch_bounds__(THREADS)
fused_bwd_kernel(T *dx, float *__restrict__ part, const T *__restrict__ dy,
		 const T *__restrict__ x, const T *__restrict__ w,
		 const float *__restrict__ rstd, int64_t R, int64_t C)
{
	extern __shared__ float shared[]; /* (C) */
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	float sum[NV][W] = { };

	for (int64_t r = (int64_t)blockIdx.x * WARPS + warp; r < R;
	     r += (int64_t)gridDim.x * WARPS)
		row_bwd<T, W, NV>(dx + r * C, sum, dy + r * C, x + r * C, w, C, rstd[r]);
	for (int64_t c = threadIdx.x; c < C; c += THREADS)
		shared[c] = 0;
	for (int turn = 0; turn < WARPS; turn++) { /* warps in order */
		__syncthreads();
		if (turn != warp)
			continue;
#pragma unroll
		for (int n = 0; n < NV; n++)
			for (int i = 0; i < W; i++) {
				int64_t c = (n * 32 + lane) * W + i;

				if (c < C)
					shared[c] += sum[n][i];
			}
	}
	__syncthreads();
	for (int64_t c = threadIdx.x; c < C; c += THREADS)
		part[blockIdx.x * C + c] = shared[c];
}

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
wide_dx_kernel(T *dx, const T *__restrict__ dy, const T *__restrict__ x,
	       const T *__restrict__ w, const float *__restrict__ rstd, int64_t R,
	       int64_t C)
{
	int64_t r = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
	int64_t c0 = threadIdx.x % 32 * W;
	float v[W], d[W], gain[W], out[W], dot = 0, s, k;

	if (r >= R)
		return;
	s = rstd[r];
	for (int64_t c = c0; c < C; c += 32 * W) {
		load<T, W>(v, x + r * C + c);
		load<T, W>(d, dy + r * C + c);
		load<T, W>(gain, w + c);
#pragma unroll
		for (int i = 0; i < W; i++)
			dot += d[i] * gain[i] * v[i];
	}
	dot = lanes_sum<32>(dot);
	k = dot * s * s * s / (float)C;
	for (int64_t c = c0; c < C; c += 32 * W) {
		load<T, W>(v, x + r * C + c);
		load<T, W>(d, dy + r * C + c);
		load<T, W>(gain, w + c);
		load<T, W>(out, dx + r * C + c);
#pragma unroll
		for (int i = 0; i < W; i++)
			out[i] += d[i] * gain[i] * s - v[i] * k;
		store<T, W>(dx + r * C + c, out);
	}
}

/* part (gridDim.y, C) <- gain's sums over rows y, y + gridDim.y, ... */
template <typename T>
__global__ void __launch_bounds__(THREADS)
wide_dw_kernel(float *part, const T *__restrict__ dy, const T *__restrict__ x,
	       const float *__restrict__ rstd, int64_t R, int64_t C)
{
	int64_t c = (int64_t)blockIdx.x * THREADS + threadIdx.x;
	float sum = 0;

	if (c >= C)
		return;
	for (int64_t r = blockIdx.y; r < R; r += gridDim.y) {
		float d[1], v[1];

		load<T, 1>(d, dy + r * C + c);
		load<T, 1>(v, x + r * C + c);
		sum += d[0] * v[0] * rstd[r];
	}
	part[blockIdx.y * C + c] = sum;
}

template <typename T>
void lh_cuda_rmsnorm(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y, float *rstd,
		     const lh_act *x, const lh_act *w, float eps)
{
	unsigned blocks = (unsigned)lh_ceil(R, WARPS);

	if (lh_aligned<T>(y, C) && lh_aligned<T>(x, C) && lh_aligned<T>(w, C))
		rmsnorm_kernel<T, VEC<T>><<<blocks, THREADS, 0, dev->stream>>>(
			(T *)y, rstd, (const T *)x, (const T *)w, R, C, eps);
	else
		rmsnorm_kernel<T, 1><<<blocks, THREADS, 0, dev->stream>>>(
			(T *)y, rstd, (const T *)x, (const T *)w, R, C, eps);
	lh_cuda_launched(dev, "rmsnorm");
}

struct bwd {
	int64_t R, C;
	void *dx;
	float *part;
	const void *dy, *x, *w;
	const float *rstd;
	int blocks;
};

template <typename T, int NV> static void fused(struct lh_dev *dev, const struct bwd *b)
{
	fused_bwd_kernel<T, VEC<T>, NV>
		<<<b->blocks, THREADS, (size_t)b->C * sizeof(float), dev->stream>>>(
			(T *)b->dx, b->part, (const T *)b->dy, (const T *)b->x,
			(const T *)b->w, b->rstd, b->R, b->C);
}

template <typename T> static void wide(struct lh_dev *dev, const struct bwd *b, bool vec)
{
	unsigned rows = (unsigned)lh_ceil(b->R, WARPS);
	dim3 grid((unsigned)lh_ceil(b->C, THREADS), (unsigned)b->blocks);

	if (vec)
		wide_dx_kernel<T, VEC<T>><<<rows, THREADS, 0, dev->stream>>>(
			(T *)b->dx, (const T *)b->dy, (const T *)b->x, (const T *)b->w,
			b->rstd, b->R, b->C);
	else
		wide_dx_kernel<T, 1><<<rows, THREADS, 0, dev->stream>>>(
			(T *)b->dx, (const T *)b->dy, (const T *)b->x, (const T *)b->w,
			b->rstd, b->R, b->C);
	wide_dw_kernel<T><<<grid, THREADS, 0, dev->stream>>>(
		b->part, (const T *)b->dy, (const T *)b->x, b->rstd, b->R, b->C);
}

template <typename T>
void lh_cuda_rmsnorm_bwd(struct lh_dev *dev, int64_t R, int64_t C, lh_act *dx, float *dw,
			 const lh_act *dy, const lh_act *x, const lh_act *w,
			 const float *rstd)
{
	bool vec = lh_aligned<T>(dx, C) && lh_aligned<T>(dy, C) && lh_aligned<T>(x, C) &&
		   lh_aligned<T>(w, C);
	int blocks = parts_of(R, WARPS);
	struct bwd b = { R, C, dx, NULL, dy, x, w, rstd, blocks };
	int64_t nv = lh_ceil(C, 32 * VEC<T>);

	b.part = (float *)lh_cuda_scratch(dev, (size_t)(blocks * C) * sizeof(float));
	if (!b.part)
		return;
	if (!vec || nv > 8)
		wide<T>(dev, &b, vec);
	else if (nv <= 2)
		fused<T, 2>(dev, &b);
	else if (nv <= 4)
		fused<T, 4>(dev, &b);
	else
		fused<T, 8>(dev, &b);
	add_parts(dev, dw, b.part, blocks, C);
	lh_cuda_launched(dev, "rmsnorm_bwd");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_rmsnorm<T>(struct lh_dev *, int64_t, int64_t, lh_act *, \
					 float *, const lh_act *, const lh_act *,     \
					 float);                                      \
	template void lh_cuda_rmsnorm_bwd<T>(struct lh_dev *, int64_t, int64_t,       \
					     lh_act *, float *, const lh_act *,       \
					     const lh_act *, const lh_act *,          \
					     const float *);
INSTANCE(bf16)
INSTANCE(float)

/* swiglu.cu: y = silu(g) u with silu(g) = g s, s = 1 / (1 + exp(-g)), and its
 * gradient du = dy silu(g), dg = dy u s (1 + g (1 - s)).
 *
 * Backward may be in place: a thread writes what it alone has read.
 * Moves 3 sizeof(T) R F bytes forward, 5 backward. */
#include "vec.cuh"

__device__ __forceinline__ float sigmoid(float g)
{
	return 1 / (1 + __expf(-g));
}

template <typename T, int W>
__global__ void __launch_bounds__(256)
swiglu_kernel(T *__restrict__ y, const T *__restrict__ gu, int64_t F)
{
	int64_t f = ((int64_t)blockIdx.x * 256 + threadIdx.x) * W;
	const T *in = gu + (int64_t)blockIdx.y * 2 * F + f;
	float g[W], u[W];

	if (f >= F)
		return;
	load<T, W>(g, in);
	load<T, W>(u, in + F);
#pragma unroll
	for (int i = 0; i < W; i++)
		g[i] = g[i] * sigmoid(g[i]) * u[i];
	store<T, W>(y + (int64_t)blockIdx.y * F + f, g);
}

template <typename T, int W>
__global__ void __launch_bounds__(256)
swiglu_bwd_kernel(T *dgu, const T *__restrict__ dy, const T *gu, int64_t F)
{
	int64_t f = ((int64_t)blockIdx.x * 256 + threadIdx.x) * W;
	int64_t at = (int64_t)blockIdx.y * 2 * F + f;
	float g[W], u[W], d[W];

	if (f >= F)
		return;
	load<T, W>(g, gu + at);
	load<T, W>(u, gu + at + F);
	load<T, W>(d, dy + (int64_t)blockIdx.y * F + f);
#pragma unroll
	for (int i = 0; i < W; i++) {
		float s = sigmoid(g[i]), gi = g[i];

		g[i] = d[i] * u[i] * s * (1 + gi * (1 - s));
		u[i] = d[i] * gi * s;
	}
	store<T, W>(dgu + at, g);
	store<T, W>(dgu + at + F, u);
}

/* Rows are blockIdx.y, at most 65535 a launch. */
static const int64_t ROWS = 65535;

template <typename T, int W>
static void forward(struct lh_dev *dev, int64_t R, int64_t F, T *y, const T *gu)
{
	for (int64_t r = 0; r < R; r += ROWS) {
		dim3 grid((unsigned)lh_ceil(F / W, 256),
			  (unsigned)(R - r < ROWS ? R - r : ROWS));

		swiglu_kernel<T, W><<<grid, 256, 0, dev->stream>>>(y + r * F,
								   gu + r * 2 * F, F);
	}
}

template <typename T, int W>
static void backward(struct lh_dev *dev, int64_t R, int64_t F, T *dgu, const T *dy,
		     const T *gu)
{
	for (int64_t r = 0; r < R; r += ROWS) {
		dim3 grid((unsigned)lh_ceil(F / W, 256),
			  (unsigned)(R - r < ROWS ? R - r : ROWS));

		swiglu_bwd_kernel<T, W><<<grid, 256, 0, dev->stream>>>(
			dgu + r * 2 * F, dy + r * F, gu + r * 2 * F, F);
	}
}

template <typename T>
void lh_cuda_swiglu(struct lh_dev *dev, int64_t R, int64_t F, lh_act *y, const lh_act *gu)
{
	if (lh_aligned<T>(y, F) && lh_aligned<T>(gu, F))
		forward<T, VEC<T>>(dev, R, F, (T *)y, (const T *)gu);
	else
		forward<T, 1>(dev, R, F, (T *)y, (const T *)gu);
	lh_cuda_launched(dev, "swiglu");
}

template <typename T>
void lh_cuda_swiglu_bwd(struct lh_dev *dev, int64_t R, int64_t F, lh_act *dgu,
			const lh_act *dy, const lh_act *gu)
{
	if (lh_aligned<T>(dgu, F) && lh_aligned<T>(dy, F) && lh_aligned<T>(gu, F))
		backward<T, VEC<T>>(dev, R, F, (T *)dgu, (const T *)dy, (const T *)gu);
	else
		backward<T, 1>(dev, R, F, (T *)dgu, (const T *)dy, (const T *)gu);
	lh_cuda_launched(dev, "swiglu_bwd");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_swiglu<T>(struct lh_dev *, int64_t, int64_t, lh_act *,  \
					const lh_act *);                              \
	template void lh_cuda_swiglu_bwd<T>(struct lh_dev *, int64_t, int64_t,        \
					    lh_act *, const lh_act *, const lh_act *);
INSTANCE(bf16)
INSTANCE(float)

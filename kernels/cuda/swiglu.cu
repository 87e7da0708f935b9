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

enum { THREADS = 256 };

/* Item i of R rows of F / W: where its gate lies; its up is F elements further. */
__device__ __forceinline__ int64_t gate_at(uint32_t i, uint32_t per_row, int W)
{
	uint32_t r = i / per_row;

	return ((int64_t)r * per_row + i) * W;
}

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
swiglu_kernel(T *__restrict__ y, const T *__restrict__ gu, uint32_t items,
	      uint32_t per_row)
{
	uint32_t i = blockIdx.x * THREADS + threadIdx.x;
	const T *in = gu + gate_at(i, per_row, W);
	float g[W], u[W];

	if (i >= items)
		return;
	load<T, W>(g, in);
	load<T, W>(u, in + per_row * W);
#pragma unroll
	for (int k = 0; k < W; k++)
		g[k] = g[k] * sigmoid(g[k]) * u[k];
	store<T, W>(y + (int64_t)i * W, g);
}

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
swiglu_bwd_kernel(T *dgu, const T *__restrict__ dy, const T *gu, uint32_t items,
		  uint32_t per_row)
{
	uint32_t i = blockIdx.x * THREADS + threadIdx.x;
	int64_t at = gate_at(i, per_row, W);
	float g[W], u[W], d[W];

	if (i >= items)
		return;
	load<T, W>(g, gu + at);
	load<T, W>(u, gu + at + per_row * W);
	load<T, W>(d, dy + (int64_t)i * W);
#pragma unroll
	for (int k = 0; k < W; k++) {
		float s = sigmoid(g[k]), gk = g[k];

		g[k] = d[k] * u[k] * s * (1 + gk * (1 - s));
		u[k] = d[k] * gk * s;
	}
	store<T, W>(dgu + at, g);
	store<T, W>(dgu + at + per_row * W, u);
}

/* Rows a launch, so that items fit 32 bits with room for a last block. */
static int64_t rows_a_launch(int64_t R, int64_t per_row)
{
	int64_t most = ((int64_t)1 << 31) / per_row;

	LH_ASSERT(most >= 1);
	return R < most ? R : most;
}

template <typename T, int W>
static void forward(struct lh_dev *dev, int64_t R, int64_t F, T *y, const T *gu)
{
	int64_t step = rows_a_launch(R, F / W);

	for (int64_t r = 0; r < R; r += step) {
		int64_t items = (R - r < step ? R - r : step) * (F / W);

		swiglu_kernel<T, W>
			<<<(unsigned)lh_ceil(items, THREADS), THREADS, 0, dev->stream>>>(
				y + r * F, gu + r * 2 * F, (uint32_t)items,
				(uint32_t)(F / W));
	}
}

template <typename T, int W>
static void backward(struct lh_dev *dev, int64_t R, int64_t F, T *dgu, const T *dy,
		     const T *gu)
{
	int64_t step = rows_a_launch(R, F / W);

	for (int64_t r = 0; r < R; r += step) {
		int64_t items = (R - r < step ? R - r : step) * (F / W);

		swiglu_bwd_kernel<T, W>
			<<<(unsigned)lh_ceil(items, THREADS), THREADS, 0, dev->stream>>>(
				dgu + r * 2 * F, dy + r * F, gu + r * 2 * F,
				(uint32_t)items, (uint32_t)(F / W));
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

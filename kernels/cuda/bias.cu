/* bias.cu: a vector added to every row, and its gradient: sums by column.
 *
 * Moves 2 sizeof(T) R N bytes forward, sizeof(T) R N backward. A thread takes W
 * neighbouring columns; backward, those of every gridDim.y-th row. */
#include "parts.cuh"

enum { THREADS = 256, ROWS = 8 };

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
bias_kernel(T *x, const T *__restrict__ b, int64_t items, int64_t N)
{
	int64_t item = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * W;
	float v[W], add[W];

	if (item >= items)
		return;
	load<T, W>(v, x + item);
	load<T, W>(add, b + item % N);
#pragma unroll
	for (int i = 0; i < W; i++)
		v[i] += add[i];
	store<T, W>(x + item, v);
}

/* part (gridDim.y, N) <- sums over rows y, y + gridDim.y, ... */
template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
bias_bwd_kernel(float *__restrict__ part, const T *__restrict__ dy, int64_t R, int64_t N)
{
	int64_t c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * W;
	float d[W], sum[W] = { };

	if (c >= N)
		return;
	for (int64_t r = blockIdx.y; r < R; r += gridDim.y) {
		load<T, W>(d, dy + r * N + c);
#pragma unroll
		for (int i = 0; i < W; i++)
			sum[i] += d[i];
	}
#pragma unroll
	for (int i = 0; i < W; i++)
		part[blockIdx.y * N + c + i] = sum[i];
}

template <typename T, int W>
static void add(struct lh_dev *dev, int64_t R, int64_t N, T *x, const T *b)
{
	bias_kernel<T, W><<<(unsigned)lh_ceil(R * N, THREADS * W), THREADS, 0, dev->stream>>>(
		x, b, R * N, N);
}

template <typename T>
void lh_cuda_bias(struct lh_dev *dev, int64_t R, int64_t N, lh_act *x, const lh_act *b)
{
	if (lh_aligned<T>(x, N) && lh_aligned<T>(b, N))
		add<T, VEC<T>>(dev, R, N, (T *)x, (const T *)b);
	else
		add<T, 1>(dev, R, N, (T *)x, (const T *)b);
	lh_cuda_launched(dev, "bias");
}

template <typename T, int W>
static void sum(struct lh_dev *dev, int64_t R, int64_t N, float *part, int parts, const T *dy)
{
	dim3 grid((unsigned)lh_ceil(N, THREADS * W), (unsigned)parts);

	bias_bwd_kernel<T, W><<<grid, THREADS, 0, dev->stream>>>(part, dy, R, N);
}

template <typename T>
void lh_cuda_bias_bwd(struct lh_dev *dev, int64_t R, int64_t N, float *db, const lh_act *dy)
{
	int parts = parts_of(R, ROWS);
	float *part = (float *)lh_cuda_scratch(dev, (size_t)(parts * N) * sizeof(float));

	if (!part)
		return;
	if (lh_aligned<T>(dy, N))
		sum<T, VEC<T>>(dev, R, N, part, parts, (const T *)dy);
	else
		sum<T, 1>(dev, R, N, part, parts, (const T *)dy);
	add_parts(dev, db, part, parts, N);
	lh_cuda_launched(dev, "bias_bwd");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_bias<T>(struct lh_dev *, int64_t, int64_t, lh_act *,    \
				      const lh_act *);                                \
	template void lh_cuda_bias_bwd<T>(struct lh_dev *, int64_t, int64_t, float *, \
					  const lh_act *);
INSTANCE(bf16)
INSTANCE(float)

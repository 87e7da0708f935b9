/* embed.cu: rows of the embedding, and their gradient.
 *
 * Forward reads and writes sizeof(T) R C bytes each. Backward: a byte vocabulary
 * sends hundreds of rows to one id, so the rows are sorted by id first (radix
 * sort, stable: rows of an id stay ascending), then a block owns one id and 32 W
 * columns: its warps take every WARPS-th row and are added in order. Reads
 * sizeof(T) R C bytes, plus the sort of 8 R; touches only the ids present. */
#include "vec.cuh"

#include <cub/device/device_radix_sort.cuh>

enum { WARPS = 8, THREADS = 32 * WARPS };

template <typename T, int W>
__global__ void __launch_bounds__(256)
embed_kernel(T *__restrict__ y, const int32_t *__restrict__ tokens,
	     const T *__restrict__ w, int64_t R, int64_t C)
{
	int64_t item = (int64_t)blockIdx.x * 256 + threadIdx.x;
	int64_t parts = C / W, r = item / parts, c = item % parts * W;
	float v[W];

	if (r >= R)
		return;
	load<T, W>(v, w + tokens[r] * C + c);
	store<T, W>(y + r * C + c, v);
}

__global__ void __launch_bounds__(256) count_kernel(int32_t *rows, int64_t R)
{
	int64_t r = (int64_t)blockIdx.x * 256 + threadIdx.x;

	if (r < R)
		rows[r] = (int32_t)r;
}

/* First position of ids (R, ascending) that is not below id. */
__device__ static int64_t lower_bound(const int32_t *__restrict__ ids, int64_t R, int id)
{
	int64_t low = 0, high = R;

	while (low < high) {
		int64_t mid = (low + high) / 2;

		if (ids[mid] < id)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* dw[id] += its rows of dy, for id = blockIdx.x and the columns of blockIdx.y. */
template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
embed_bwd_kernel(float *dw, const T *__restrict__ dy, const int32_t *__restrict__ ids,
		 const int32_t *__restrict__ rows, int64_t R, int64_t C)
{
	__shared__ float part[WARPS][32 * W];
	__shared__ int64_t range[2];
	int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	int64_t c = ((int64_t)blockIdx.y * 32 + lane) * W;
	float sum[W] = { };

	if (threadIdx.x < 2)
		range[threadIdx.x] = lower_bound(ids, R, (int)(blockIdx.x + threadIdx.x));
	__syncthreads();
	if (range[0] == range[1])
		return;
	if (c < C) {
#pragma unroll 4
		for (int64_t i = range[0] + warp; i < range[1]; i += WARPS) {
			float v[W];

			load<T, W>(v, dy + rows[i] * C + c);
#pragma unroll
			for (int k = 0; k < W; k++)
				sum[k] += v[k];
		}
	}
#pragma unroll
	for (int k = 0; k < W; k++)
		part[warp][k * 32 + lane] = sum[k];
	__syncthreads();
	for (int i = threadIdx.x; i < 32 * W; i += THREADS) {
		int64_t to = (int64_t)blockIdx.y * 32 * W + i;
		float all = 0;

		for (int p = 0; p < WARPS; p++)
			all += part[p][i % W * 32 + i / W];
		if (to < C)
			dw[blockIdx.x * C + to] += all;
	}
}

template <typename T>
void lh_cuda_embed(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y,
		   const int32_t *tokens, const lh_act *w)
{
	constexpr int W = VEC<T>;

	if (lh_aligned<T>(y, C) && lh_aligned<T>(w, C))
		embed_kernel<T, W><<<(unsigned)lh_ceil(R * (C / W), 256), 256, 0,
				     dev->stream>>>((T *)y, tokens, (const T *)w, R, C);
	else
		embed_kernel<T, 1><<<(unsigned)lh_ceil(R * C, 256), 256, 0,
				     dev->stream>>>((T *)y, tokens, (const T *)w, R, C);
	lh_cuda_launched(dev, "embed");
}

struct sorted {
	int32_t *rows, *ids_out, *rows_out;
	void *temp;
	size_t temp_bytes;
};

/* Sorts rows by token id in scratch. */
static int sort_rows(struct lh_dev *dev, struct sorted *s, const int32_t *tokens,
		     int64_t R, int64_t V)
{
	size_t each = ((size_t)R * sizeof(int32_t) + 255) / 256 * 256;
	int bits = 1;
	cudaError_t rc;
	char *base;

	while (bits < 31 && (int64_t)1 << bits < V)
		bits++;
	rc = cub::DeviceRadixSort::SortPairs(NULL, s->temp_bytes, tokens, (int32_t *)NULL,
					     (const int32_t *)NULL, (int32_t *)NULL,
					     (int)R, 0, bits, dev->stream);
	base = (char *)lh_cuda_scratch(dev, 3 * each + s->temp_bytes);
	if (rc != cudaSuccess || !base)
		return -1;
	s->rows = (int32_t *)base;
	s->ids_out = (int32_t *)(base + each);
	s->rows_out = (int32_t *)(base + 2 * each);
	s->temp = base + 3 * each;
	count_kernel<<<(unsigned)lh_ceil(R, 256), 256, 0, dev->stream>>>(s->rows, R);
	rc = cub::DeviceRadixSort::SortPairs(s->temp, s->temp_bytes, tokens, s->ids_out,
					     s->rows, s->rows_out, (int)R, 0, bits,
					     dev->stream);
	return rc == cudaSuccess ? 0 : -1;
}

template <typename T>
void lh_cuda_embed_bwd(struct lh_dev *dev, int64_t R, int64_t C, int64_t V, float *dw,
		       const lh_act *dy, const int32_t *tokens)
{
	constexpr int W = VEC<T>;
	struct sorted s;

	if (sort_rows(dev, &s, tokens, R, V)) {
		lh_cuda_fail(dev, "embed_bwd", "the rows could not be sorted");
		return;
	}
	if (lh_aligned<T>(dy, C))
		embed_bwd_kernel<T, W>
			<<<dim3((unsigned)V, (unsigned)lh_ceil(C, 32 * W)), THREADS, 0,
			   dev->stream>>>(dw, (const T *)dy, s.ids_out, s.rows_out, R, C);
	else
		embed_bwd_kernel<T, 1>
			<<<dim3((unsigned)V, (unsigned)lh_ceil(C, 32)), THREADS, 0,
			   dev->stream>>>(dw, (const T *)dy, s.ids_out, s.rows_out, R, C);
	lh_cuda_launched(dev, "embed_bwd");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_embed<T>(struct lh_dev *, int64_t, int64_t, lh_act *,   \
				       const int32_t *, const lh_act *);              \
	template void lh_cuda_embed_bwd<T>(struct lh_dev *, int64_t, int64_t,         \
					   int64_t, float *, const lh_act *,          \
					   const int32_t *);
INSTANCE(bf16)
INSTANCE(float)

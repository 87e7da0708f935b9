/* rows.cu: strided rows copied, and summed: what ranks that share a sequence hand each
 * other.
 *
 * A thread has W elements of a row, neighbours the next ones. Copied 2 sizeof(T) bytes an
 * element move; of n summed n + 1 times sizeof(T). */
#include "vec.cuh"

enum { THREADS = 256 };

/* to <- from, its bits, whatever they are. parts: W elements each, of a row. */
template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
copy_kernel(T *to, int64_t to_row, const T *__restrict__ from, int64_t from_row,
	    int64_t items, int64_t parts)
{
	int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = item / parts;
	int64_t i = (item - r * parts) * W;

	if (item < items)
		*(raw<T, W> *)(to + r * to_row + i) = fetch<T, W>(from + r * from_row + i);
}

template <typename T> struct sources {
	const T *x[LH_SUM_MAX];
	int64_t row;
	int count;
};

template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
sum_kernel(T *to, int64_t to_row, const __grid_constant__ sources<T> from, int64_t items,
	   int64_t parts)
{
	int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = item / parts;
	int64_t i = (item - r * parts) * W;
	float x[W], sum[W] = { };

	if (item >= items)
		return;
	for (int k = 0; k < from.count; k++) {
		load<T, W>(x, from.x[k] + r * from.row + i);
#pragma unroll
		for (int j = 0; j < W; j++)
			sum[j] += x[j];
	}
	store<T, W>(to + r * to_row + i, sum);
}

static unsigned blocks_of(int64_t items)
{
	int64_t blocks = lh_ceil(items, THREADS);

	LH_ASSERT(blocks > 0 && blocks < (int64_t)1 << 31);
	return (unsigned)blocks;
}

template <typename T, int W>
static void copy(struct lh_dev *dev, int64_t rows, int64_t width, T *to, int64_t to_row,
		 const T *from, int64_t from_row)
{
	int64_t items = rows * (width / W);

	copy_kernel<T, W><<<blocks_of(items), THREADS, 0, dev->stream>>>(
		to, to_row, from, from_row, items, width / W);
	lh_cuda_launched(dev, "copy_rows");
}

template <typename T>
void lh_cuda_copy_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		       int64_t to_row, const lh_act *from, int64_t from_row)
{
	LH_ASSERT(to_row >= width && from_row >= width);
	if (width % VEC<T> == 0 && lh_aligned<T>(to, to_row) && lh_aligned<T>(from, from_row))
		copy<T, VEC<T>>(dev, rows, width, (T *)to, to_row, (const T *)from, from_row);
	else
		copy<T, 1>(dev, rows, width, (T *)to, to_row, (const T *)from, from_row);
}

template <typename T, int W>
static void sum(struct lh_dev *dev, int64_t rows, int64_t width, T *to, int64_t to_row,
		const sources<T> &from)
{
	int64_t items = rows * (width / W);

	sum_kernel<T, W><<<blocks_of(items), THREADS, 0, dev->stream>>>(to, to_row, from, items,
									width / W);
	lh_cuda_launched(dev, "sum_rows");
}

template <typename T>
void lh_cuda_sum_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		      int64_t to_row, const lh_act *const *from, int64_t from_row,
		      int count)
{
	bool aligned = width % VEC<T> == 0 && lh_aligned<T>(to, to_row);
	sources<T> all = { };

	LH_ASSERT(to_row >= width && from_row >= width);
	LH_ASSERT(count >= 1 && count <= LH_SUM_MAX);
	for (int k = 0; k < count; k++) {
		all.x[k] = (const T *)from[k];
		aligned &= lh_aligned<T>(from[k], from_row);
	}
	all.row = from_row;
	all.count = count;
	if (aligned)
		sum<T, VEC<T>>(dev, rows, width, (T *)to, to_row, all);
	else
		sum<T, 1>(dev, rows, width, (T *)to, to_row, all);
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_copy_rows<T>(struct lh_dev *, int64_t, int64_t,         \
					   lh_act *, int64_t, const lh_act *,         \
					   int64_t);                                  \
	template void lh_cuda_sum_rows<T>(struct lh_dev *, int64_t, int64_t,          \
					  lh_act *, int64_t, const lh_act *const *,   \
					  int64_t, int);
INSTANCE(bf16)
INSTANCE(float)

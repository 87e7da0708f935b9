/* rows.cu: strided rows copied, added up in float32, and rounded back: what ranks that
 * share a sequence hand each other.
 *
 * A thread has W elements of a row, neighbours the next ones. Copied 2 sizeof(T) bytes an
 * element move; added sizeof(T) + 8, rounded sizeof(T) + 4. */
#include "vec.cuh"

#include <type_traits>

enum { THREADS = 256 };

/* W elements, in as many accesses as their type takes. */
template <typename U, int W>
__device__ __forceinline__ void load_part(float (&x)[W], const U *p)
{
	constexpr int V = W < VEC<U> ? W : VEC<U>;

#pragma unroll
	for (int i = 0; i < W; i += V) {
		float part[V];

		load<U, V>(part, p + i);
#pragma unroll
		for (int k = 0; k < V; k++)
			x[i + k] = part[k];
	}
}

template <typename U, int W>
__device__ __forceinline__ void store_part(U *p, const float (&x)[W])
{
	constexpr int V = W < VEC<U> ? W : VEC<U>;

#pragma unroll
	for (int i = 0; i < W; i += V) {
		float part[V];

#pragma unroll
		for (int k = 0; k < V; k++)
			part[k] = x[i + k];
		store<U, V>(p + i, part);
	}
}

/* to <- from, or ADD: to += from. parts: W elements each, of a row. */
template <typename To, typename From, int W, bool ADD>
__global__ void __launch_bounds__(THREADS)
rows_kernel(To *to, int64_t to_row, const From *__restrict__ from, int64_t from_row,
	    int64_t items, int64_t parts)
{
	int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = item / parts;
	int64_t i = (item - r * parts) * W;
	float x[W], sum[W];

	if (item >= items)
		return;
	to += r * to_row + i;
	from += r * from_row + i;
	if constexpr (std::is_same_v<To, From> && !ADD) { /* its bits, whatever they are */
		*(raw<To, W> *)to = fetch<From, W>(from);
		return;
	}
	load_part<From, W>(x, from);
	if (ADD) {
		load_part<To, W>(sum, to);
#pragma unroll
		for (int k = 0; k < W; k++)
			x[k] = sum[k] + x[k];
	}
	store_part<To, W>(to, x);
}

template <typename To, typename From, int W, bool ADD>
static void launch_parts(struct lh_dev *dev, int64_t rows, int64_t width, To *to,
			 int64_t to_row, const From *from, int64_t from_row)
{
	int64_t parts = width / W, blocks = lh_ceil(rows * parts, THREADS);

	LH_ASSERT(blocks > 0 && blocks < (int64_t)1 << 31);
	rows_kernel<To, From, W, ADD><<<(unsigned)blocks, THREADS, 0, dev->stream>>>(
		to, to_row, from, from_row, rows * parts, parts);
}

/* W: a vector of the narrower type. */
template <typename To, typename From, int W, bool ADD>
static void launch(struct lh_dev *dev, int64_t rows, int64_t width, To *to, int64_t to_row,
		   const From *from, int64_t from_row, const char *what)
{
	LH_ASSERT(to_row >= width && from_row >= width);
	if (width % W == 0 && lh_aligned<To>(to, to_row) && lh_aligned<From>(from, from_row))
		launch_parts<To, From, W, ADD>(dev, rows, width, to, to_row, from, from_row);
	else
		launch_parts<To, From, 1, ADD>(dev, rows, width, to, to_row, from, from_row);
	lh_cuda_launched(dev, what);
}

template <typename T>
void lh_cuda_copy_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		       int64_t to_row, const lh_act *from, int64_t from_row)
{
	launch<T, T, VEC<T>, false>(dev, rows, width, (T *)to, to_row, (const T *)from,
				    from_row, "copy_rows");
}

template <typename T>
void lh_cuda_add_rows(struct lh_dev *dev, int64_t rows, int64_t width, float *to,
		      int64_t to_row, const lh_act *from, int64_t from_row)
{
	launch<float, T, VEC<T>, true>(dev, rows, width, to, to_row, (const T *)from,
				       from_row, "add_rows");
}

template <typename T>
void lh_cuda_round_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
			int64_t to_row, const float *from, int64_t from_row)
{
	launch<T, float, VEC<T>, false>(dev, rows, width, (T *)to, to_row, from, from_row,
					"round_rows");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_copy_rows<T>(struct lh_dev *, int64_t, int64_t,         \
					   lh_act *, int64_t, const lh_act *,         \
					   int64_t);                                  \
	template void lh_cuda_add_rows<T>(struct lh_dev *, int64_t, int64_t, float *, \
					  int64_t, const lh_act *, int64_t);          \
	template void lh_cuda_round_rows<T>(struct lh_dev *, int64_t, int64_t,        \
					    lh_act *, int64_t, const float *, int64_t);
INSTANCE(bf16)
INSTANCE(float)

/* rope.cu: rotary positions, half-split order, in place.
 *
 * Moves 2 sizeof(T) B T heads D bytes, plus the tables (T D floats) from cache:
 * a thread rotates W pairs of one head, heads of a row are neighbours. */
#include "vec.cuh"

template <typename T, int W>
__global__ void __launch_bounds__(256)
rope_kernel(T *x, uint32_t items, int64_t tokens, int heads, int half, int64_t row,
	    const float *__restrict__ cos, const float *__restrict__ sin,
	    const int32_t *__restrict__ start, float sign)
{
	uint32_t item = blockIdx.x * 256 + threadIdx.x;
	int parts = half / W;
	int64_t r, t;
	float a[W], b[W];
	int j, h;
	T *p;

	if (item >= items)
		return;
	j = (int)(item % parts) * W;
	item /= parts;
	h = (int)(item % heads);
	r = item / heads;
	t = (r % tokens - (start ? start[r] : 0)) * half;
	p = x + r * row + (int64_t)h * 2 * half + j;
	load<T, W>(a, p);
	load<T, W>(b, p + half);
	rotate(a, b, cos + t + j, sin + t + j, sign);
	store<T, W>(p, a);
	store<T, W>(p + half, b);
}

template <typename T, int W>
static void launch(struct lh_dev *dev, int64_t rows, int64_t tokens, int heads, int D,
		   T *x, int64_t row, const struct lh_rope *rope, const int32_t *start,
		   float sign)
{
	int64_t items = rows * heads * (D / 2 / W);

	LH_ASSERT(items < (int64_t)1 << 32);
	rope_kernel<T, W><<<(unsigned)lh_ceil(items, 256), 256, 0, dev->stream>>>(
		x, (uint32_t)items, tokens, heads, D / 2, row, rope->cos, rope->sin, start,
		sign);
}

template <typename T>
void lh_cuda_rope(struct lh_dev *dev, int B, int64_t tokens, int heads, int D, lh_act *x,
		  int64_t row, const struct lh_rope *rope, const int32_t *start,
		  bool inverse)
{
	T *p = (T *)x;
	float sign = inverse ? -1 : 1;

	if (lh_aligned<T>(x, row) && D % (2 * VEC<T>) == 0)
		launch<T, VEC<T>>(dev, B * tokens, tokens, heads, D, p, row, rope, start,
				  sign);
	else
		launch<T, 1>(dev, B * tokens, tokens, heads, D, p, row, rope, start, sign);
	lh_cuda_launched(dev, "rope");
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_rope<T>(struct lh_dev *, int, int64_t, int, int,        \
				      lh_act *, int64_t, const struct lh_rope *,      \
				      const int32_t *, bool);
INSTANCE(bf16)
INSTANCE(float)

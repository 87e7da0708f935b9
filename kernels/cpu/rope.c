/* rope.c: rotary positions, half-split order, in place. */
#include "cpu.h"
#include "math.h"

void lh_cpu_rope(struct lh_dev *dev, int B, int64_t T, int heads, int D, lh_act *x,
		 int64_t row, const struct lh_rope *rope, const int32_t *start,
		 bool inverse)
{
	float *xs = x;
	int half = D / 2;

	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < B * T; r++) {
		int64_t t = lh_cpu_place(start, r, T);

		for (int h = 0; h < heads; h++) {
			float *p = xs + r * row + (int64_t)h * D;

			lh_rotate(p, p, D, rope->cos + t * half,
				  rope->sin + t * half, inverse ? -1 : 1);
		}
	}
}

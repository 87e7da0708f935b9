/* rows.c: strided rows copied, and summed: what ranks that share a sequence hand each
 * other. */
#include "cpu.h"

#include <string.h>

void lh_cpu_copy_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		      int64_t to_row, const lh_act *from, int64_t from_row)
{
	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < rows; r++)
		memcpy((float *)to + r * to_row, (const float *)from + r * from_row,
		       (size_t)width * sizeof(float));
}

void lh_cpu_sum_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		     int64_t to_row, const lh_act *const *from, int64_t from_row,
		     int count)
{
	(void)dev;
	LH_ASSERT(count >= 1 && count <= LH_SUM_MAX);
#pragma omp parallel for
	for (int64_t r = 0; r < rows; r++)
		for (int64_t i = 0; i < width; i++) {
			float sum = 0;

			for (int k = 0; k < count; k++)
				sum += ((const float *)from[k])[r * from_row + i];
			((float *)to)[r * to_row + i] = sum;
		}
}

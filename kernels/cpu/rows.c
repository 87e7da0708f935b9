/* rows.c: strided rows copied, added up in float32, and rounded back: what ranks that
 * share a sequence hand each other. */
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

void lh_cpu_add_rows(struct lh_dev *dev, int64_t rows, int64_t width, float *to,
		     int64_t to_row, const lh_act *from, int64_t from_row)
{
	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < rows; r++) {
		const float *x = (const float *)from + r * from_row;

		for (int64_t i = 0; i < width; i++)
			to[r * to_row + i] += x[i];
	}
}

/* Activations are float32: nothing is lost. */
void lh_cpu_round_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		       int64_t to_row, const float *from, int64_t from_row)
{
	lh_cpu_copy_rows(dev, rows, width, to, to_row, from, from_row);
}

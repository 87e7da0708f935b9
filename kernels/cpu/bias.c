/* bias.c: a vector added to every row, and its gradient: sums by columns, rows
 * ascending, so that they do not depend on the number of threads. */
#include "cpu.h"

enum { COLUMNS = 32 }; /* of one work item in the gradient */

void lh_cpu_bias(struct lh_dev *dev, int64_t R, int64_t N, lh_act *x, const lh_act *b)
{
	const float *add = b;
	float *xs = x;

	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < R; r++)
		for (int64_t i = 0; i < N; i++)
			xs[r * N + i] += add[i];
}

static void sum_columns(int64_t R, int64_t N, int64_t i0, int64_t n, float *db,
			const float *dy)
{
	float sum[COLUMNS] = { 0 };

	for (int64_t r = 0; r < R; r++)
		for (int64_t i = 0; i < n; i++)
			sum[i] += dy[r * N + i0 + i];
	for (int64_t i = 0; i < n; i++)
		db[i0 + i] += sum[i];
}

void lh_cpu_bias_bwd(struct lh_dev *dev, int64_t R, int64_t N, float *db,
		     const lh_act *dy)
{
	(void)dev;
#pragma omp parallel for
	for (int64_t i = 0; i < N; i += COLUMNS)
		sum_columns(R, N, i, N - i < COLUMNS ? N - i : COLUMNS, db, dy);
}

/* qk_norm.c: RMSNorm of every head of strided rows, in place, with one gain:
 *   y = x rstd w,  dx = rstd (w dy) - x rstd^3 / D <w dy, x>,  dw += sum dy x rstd.
 * The gain's gradient is summed by column, rows and heads ascending. */
#include "cpu.h"

#include <math.h>
#include <stdlib.h>

static float rstd_of(const float *x, int D, float eps)
{
	float sum = 0;

#pragma omp simd reduction(+ : sum)
	for (int d = 0; d < D; d++)
		sum += x[d] * x[d];
	return 1 / sqrtf(sum / (float)D + eps);
}

void lh_cpu_qk_norm(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *x,
		    int64_t row, const lh_act *w, float eps)
{
	const float *gain = w;
	float *xs = x;

	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < R; r++)
		for (int h = 0; h < heads; h++) {
			float *p = xs + r * row + (int64_t)h * D, s = rstd_of(p, D, eps);

			for (int d = 0; d < D; d++)
				p[d] *= s * gain[d];
		}
}

/* One head of one row: dx from the gradient of its result to that of x. */
static void head_bwd(int D, float *dx, const float *x, const float *gain, float s)
{
	float dot = 0, k;

#pragma omp simd reduction(+ : dot)
	for (int d = 0; d < D; d++)
		dot += dx[d] * gain[d] * x[d];
	k = dot * s * s * s / (float)D;
	for (int d = 0; d < D; d++)
		dx[d] = dx[d] * gain[d] * s - x[d] * k;
}

/* rstd (R,heads) of x. */
static void gain_gradient(int64_t R, int heads, int D, int d, float *dw, const float *dy,
			  const float *x, int64_t row, const float *rstd)
{
	float sum = 0;

	for (int64_t r = 0; r < R; r++)
		for (int h = 0; h < heads; h++) {
			int64_t i = r * row + (int64_t)h * D + d;

			sum += dy[i] * x[i] * rstd[r * heads + h];
		}
	dw[d] += sum;
}

void lh_cpu_qk_norm_bwd(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *dx,
			float *dw, const lh_act *x, int64_t row, const lh_act *w,
			float eps)
{
	float *rstd = lh_alloc((size_t)(R * heads) * sizeof(*rstd)), *dxs = dx;
	const float *xs = x;

	(void)dev;
#pragma omp parallel
	{
#pragma omp for collapse(2)
		for (int64_t r = 0; r < R; r++)
			for (int h = 0; h < heads; h++)
				rstd[r * heads + h] =
					rstd_of(xs + r * row + (int64_t)h * D, D, eps);
#pragma omp for
		for (int d = 0; d < D; d++)
			gain_gradient(R, heads, D, d, dw, dxs, xs, row, rstd);
#pragma omp for collapse(2)
		for (int64_t r = 0; r < R; r++)
			for (int h = 0; h < heads; h++) {
				int64_t i = r * row + (int64_t)h * D;

				head_bwd(D, dxs + i, xs + i, w, rstd[r * heads + h]);
			}
	}
	free(rstd);
}

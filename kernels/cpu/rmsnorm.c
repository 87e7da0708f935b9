/* rmsnorm.c: y = x rstd w, rstd = 1 / sqrt(mean(x^2) + eps), and its gradient
 *   dx += rstd (w dy) - x rstd^3 / C <w dy, x>,   dw += sum over rows dy x rstd.
 * The gain's gradient is summed by columns, rows ascending, so it does not
 * depend on the number of threads. */
#include "cpu.h"

#include <math.h>

enum { COLUMNS = 32 }; /* of one work item in the gain's gradient */

void lh_cpu_rmsnorm(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y, float *rstd,
		    const lh_act *x, const lh_act *w, float eps)
{
	const float *xs = x, *gain = w;
	float *ys = y;

	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < R; r++) {
		const float *in = xs + r * C;
		float *out = ys + r * C, sum = 0, s;

#pragma omp simd reduction(+ : sum)
		for (int64_t c = 0; c < C; c++)
			sum += in[c] * in[c];
		s = 1 / sqrtf(sum / (float)C + eps);
		rstd[r] = s;
		for (int64_t c = 0; c < C; c++)
			out[c] = in[c] * s * gain[c];
	}
}

static void gain_gradient(int64_t R, int64_t C, int64_t c0, int64_t n, float *dw,
			  const float *dy, const float *x, const float *rstd)
{
	float sum[COLUMNS] = { 0 };

	for (int64_t r = 0; r < R; r++)
		for (int64_t c = 0; c < n; c++)
			sum[c] += dy[r * C + c0 + c] * x[r * C + c0 + c] * rstd[r];
	for (int64_t c = 0; c < n; c++)
		dw[c0 + c] += sum[c];
}

void lh_cpu_rmsnorm_bwd(struct lh_dev *dev, int64_t R, int64_t C, lh_act *dx, float *dw,
			const lh_act *dy, const lh_act *x, const lh_act *w,
			const float *rstd)
{
	const float *dys = dy, *xs = x, *gain = w;
	float *dxs = dx;

	(void)dev;
#pragma omp parallel
	{
#pragma omp for
		for (int64_t r = 0; r < R; r++) {
			const float *d = dys + r * C, *in = xs + r * C;
			float *out = dxs + r * C, dot = 0, s = rstd[r], k;

#pragma omp simd reduction(+ : dot)
			for (int64_t c = 0; c < C; c++)
				dot += d[c] * gain[c] * in[c];
			k = dot * s * s * s / (float)C;
			for (int64_t c = 0; c < C; c++)
				out[c] += d[c] * gain[c] * s - in[c] * k;
		}
#pragma omp for
		for (int64_t c = 0; c < C; c += COLUMNS)
			gain_gradient(R, C, c, C - c < COLUMNS ? C - c : COLUMNS, dw,
				      dys, xs, rstd);
	}
}

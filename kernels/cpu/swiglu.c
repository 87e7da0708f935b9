/* swiglu.c: y = silu(g) u with silu(g) = g / (1 + exp(-g)), and its gradient
 *   du = dy silu(g),   dg = dy u s (1 + g (1 - s)),   s = 1 / (1 + exp(-g)). */
#include "cpu.h"
#include "math.h"

void lh_cpu_swiglu(struct lh_dev *dev, int64_t R, int64_t F, lh_act *y,
		   const lh_act *gu)
{
	const float *in = gu;
	float *out = y;

	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < R; r++) {
		const float *g = in + r * 2 * F, *u = g + F;
		float *o = out + r * F;

#pragma omp simd
		for (int64_t f = 0; f < F; f++)
			o[f] = g[f] / (1 + lh_expf(-g[f])) * u[f];
	}
}

void lh_cpu_swiglu_bwd(struct lh_dev *dev, int64_t R, int64_t F, lh_act *dgu,
		       const lh_act *dy, const lh_act *gu)
{
	const float *in = gu, *dys = dy;
	float *out = dgu;

	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < R; r++) {
		const float *g = in + r * 2 * F, *u = g + F, *d = dys + r * F;
		float *dg = out + r * 2 * F, *du = dg + F;

#pragma omp simd
		for (int64_t f = 0; f < F; f++) {
			float s = 1 / (1 + lh_expf(-g[f])), gf = g[f];

			dg[f] = d[f] * u[f] * s * (1 + gf * (1 - s));
			du[f] = d[f] * gf * s;
		}
	}
}

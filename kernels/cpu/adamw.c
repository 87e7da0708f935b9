/* adamw.c: the update (Loshchilov & Hutter 2019, algorithm 2) and the norm.
 *
 *   g = grad grad_scale min(1, clip / (norm grad_scale))
 *   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
 *   p -= lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + wd p)
 * The norm sums blocks of fixed size in double, then the blocks in order. */
#include "cpu.h"

#include <math.h>
#include <stdlib.h>

enum { BLOCK = 8192 };

void lh_cpu_norm(struct lh_dev *dev, float *out, const float *x, int64_t n)
{
	int64_t blocks = (n + BLOCK - 1) / BLOCK;
	double *part = lh_calloc((size_t)blocks, sizeof(*part)), sum = 0;

	(void)dev;
#pragma omp parallel for
	for (int64_t b = 0; b < blocks; b++) {
		int64_t end = (b + 1) * BLOCK < n ? (b + 1) * BLOCK : n;
		double s = 0;

#pragma omp simd reduction(+ : s)
		for (int64_t i = b * BLOCK; i < end; i++)
			s += (double)x[i] * x[i];
		part[b] = s;
	}
	for (int64_t b = 0; b < blocks; b++)
		sum += part[b];
	free(part);
	*out = (float)sqrt(sum);
}

void lh_cpu_adamw(struct lh_dev *dev, const struct lh_adamw *s, int64_t n, float *param,
		  lh_act *copy, float *m, float *v, const float *grad,
		  const float *grad_norm)
{
	float norm = *grad_norm * s->grad_scale, scale = s->grad_scale;
	float c1 = (float)(1 / (1 - pow(s->beta1, (double)s->step)));
	float c2 = (float)(1 / (1 - pow(s->beta2, (double)s->step)));
	float b1 = s->beta1, b2 = s->beta2, lr = s->lr, eps = s->eps;
	float wd = s->weight_decay;

	(void)dev;
	LH_ASSERT(!copy);
	if (!isfinite(norm))
		return;
	if (s->clip > 0 && norm > s->clip)
		scale *= s->clip / norm;
#pragma omp parallel for simd
	for (int64_t i = 0; i < n; i++) {
		float g = grad[i] * scale;

		m[i] = b1 * m[i] + (1 - b1) * g;
		v[i] = b2 * v[i] + (1 - b2) * g * g;
		param[i] -= lr * (m[i] * c1 / (sqrtf(v[i] * c2) + eps) +
				  wd * param[i]);
	}
}

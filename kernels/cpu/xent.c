/* xent.c: output projection and cross-entropy in chunks of rows.
 *
 * For a chunk: logits = x w^T; per row, nats = log sum exp - logit of the
 * target, and the logits become scale (softmax - onehot) in place; then
 * dx = that . w and dw += that^T . x. Only one chunk of logits ever exists.
 * Scratch (sizes.c): chunk x V logits, then one float a row. */
#include "cpu.h"
#include "math.h"

#include <cblas.h>

/* Nats of one row; z (V) becomes scale * (softmax - onehot). */
static float row_xent(float *z, int64_t V, int32_t target, float scale)
{
	float max = z[0], sum = 0, nats, k;

#pragma omp simd reduction(max : max)
	for (int64_t v = 0; v < V; v++)
		max = z[v] > max ? z[v] : max;
	nats = max - z[target];
#pragma omp simd reduction(+ : sum)
	for (int64_t v = 0; v < V; v++) {
		float e = lh_expf(z[v] - max);

		z[v] = e;
		sum += e;
	}
	k = scale / sum;
	for (int64_t v = 0; v < V; v++)
		z[v] *= k;
	z[target] -= scale;
	return nats + logf(sum);
}

void lh_cpu_xent(struct lh_dev *dev, int64_t R, int64_t C, int64_t V, float *loss,
		 float *row_loss, lh_act *dx, float *dw, const lh_act *x,
		 const lh_act *w, const int32_t *targets, float scale, void *scratch,
		 size_t scratch_bytes)
{
	int64_t chunk = (int64_t)(scratch_bytes / sizeof(float)) / (V + 1);
	float *z = scratch, *nats = z + chunk * V;
	const float *xs = x;
	double sum = 0;

	(void)dev;
	LH_ASSERT(chunk >= 1 && !dx == !dw);
	for (int64_t r0 = 0; r0 < R; r0 += chunk) {
		int64_t n = R - r0 < chunk ? R - r0 : chunk;

		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, V, C, 1,
			    xs + r0 * C, C, w, C, 0, z, V);
#pragma omp parallel for
		for (int64_t r = 0; r < n; r++) {
			int32_t target = targets[r0 + r];

			if (target >= 0) {
				nats[r] = row_xent(z + r * V, V, target, scale);
				continue;
			}
			nats[r] = 0;
			for (int64_t v = 0; v < V; v++)
				z[r * V + v] = 0;
		}
		for (int64_t r = 0; r < n; r++) {
			sum += nats[r];
			if (row_loss)
				row_loss[r0 + r] = nats[r];
		}
		if (!dx)
			continue;
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, C, V, 1, z, V,
			    w, C, 0, (float *)dx + r0 * C, C);
		cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, V, C, n, 1, z, V,
			    xs + r0 * C, C, 1, dw, C);
	}
	*loss += (float)(sum * scale);
}

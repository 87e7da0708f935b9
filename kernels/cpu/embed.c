/* embed.c: rows of the embedding, and their gradient.
 *
 * The gradient is split by columns, each work item going through the rows in
 * order: rows that share an id (a byte vocabulary has hundreds) add up the same
 * way whatever the number of threads. */
#include "cpu.h"

#include <string.h>

enum { COLUMNS = 64 };

void lh_cpu_embed(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y,
		  const int32_t *tokens, const lh_act *w)
{
	const float *rows = w;
	float *out = y;

	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < R; r++)
		memcpy(out + r * C, rows + tokens[r] * C, (size_t)C * sizeof(float));
}

void lh_cpu_embed_bwd(struct lh_dev *dev, int64_t R, int64_t C, int64_t V, float *dw,
		      const lh_act *dy, const int32_t *tokens)
{
	const float *dys = dy;

	(void)dev, (void)V;
#pragma omp parallel for
	for (int64_t c0 = 0; c0 < C; c0 += COLUMNS) {
		int64_t n = C - c0 < COLUMNS ? C - c0 : COLUMNS;

		for (int64_t r = 0; r < R; r++) {
			float *out = dw + tokens[r] * C + c0;
			const float *in = dys + r * C + c0;

			for (int64_t c = 0; c < n; c++)
				out[c] += in[c];
		}
	}
}

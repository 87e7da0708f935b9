/* lighthouse_scatter.c: the sub-sequence's output back to tokens (paper
 * section 3.4), and its gradient.
 *
 * Row (l, i) is added to tokens [i c + c - 1, i c + 2c - 2], clipped to its document:
 * the shift by c - 1 keeps it causal. So token j takes, from each level, the one entry
 * floor((j - c + 1) / c), if its place in the document is c - 1 or more and the entry
 * was selected. */
#include "cpu.h"

#include <string.h>

void lh_cpu_lighthouse_scatter(struct lh_dev *dev, const struct lh_lighthouse *g,
			       const struct lh_heads *h, lh_act *o, const lh_act *os,
			       const int32_t *map)
{
	int64_t S = lh_lighthouse_selected(g), P = lh_lighthouse_pyramid(g);
	int64_t N = g->tokens;
	int D = h->head_dim, H = h->heads;

	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < h->batch * N; r++)
		for (int e = 0; e < H; e++) {
			float *out = (float *)o + r * h->o_row + (int64_t)e * D;
			int64_t b = r / N, t = r % N, c = 1, base = 0;
			int64_t place = lh_cpu_place(h->start, r, N);
			const int32_t *m = map + (b * H + e) * P;

			memset(out, 0, (size_t)D * sizeof(float));
			for (int l = 0; l < g->levels && place >= c - 1; l++) {
				int32_t row = m[base + (t - c + 1) / c];
				const float *from = (const float *)os +
						    ((b * S + row) * H + e) * D;

				for (int d = 0; row >= 0 && d < D; d++)
					out[d] += from[d];
				base += N / c;
				c *= g->pool;
			}
		}
}

/* Past the last token that an entry of `c` tokens from t0 on is added to. Documents are
 * of whole windows: the next one can only begin with the next entry. */
static int64_t end_of(const int32_t *start, int64_t N, int64_t t0, int64_t c)
{
	int64_t end = t0 + 2 * c - 1 < N ? t0 + 2 * c - 1 : N;

	return start && start[end - 1] > t0 ? start[end - 1] : end;
}

void lh_cpu_lighthouse_scatter_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				   const struct lh_heads *h, lh_act *dos,
				   const lh_act *dout, const int32_t *index)
{
	int64_t S = lh_lighthouse_selected(g), N = g->tokens;
	int D = h->head_dim, H = h->heads;

	(void)dev;
#pragma omp parallel for collapse(2)
	for (int b = 0; b < h->batch; b++)
		for (int64_t r = 0; r < S; r++)
			for (int e = 0; e < H; e++) {
				float *out = (float *)dos + ((b * S + r) * H + e) * D;
				int64_t i, c, end;
				int l = lh_lighthouse_level_of(
					g, index[((int64_t)b * H + e) * S + r], &i);

				c = lh_lighthouse_window(g, l);
				end = end_of(h->start ? h->start + b * N : NULL, N,
					     i * c, c);
				memset(out, 0, (size_t)D * sizeof(float));
				for (int64_t t = i * c + c - 1; t < end; t++) {
					const float *from = (const float *)dout +
						(b * N + t) * h->o_row +
						(int64_t)e * D;

					for (int d = 0; d < D; d++)
						out[d] += from[d];
				}
			}
}

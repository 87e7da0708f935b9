/* lighthouse_halo.c: what the scatter adds across the border of two pieces of a sequence,
 * and its gradient.
 *
 * Entry (l, i) is added to tokens [i c + c - 1, i c + 2c - 2]: that of the last entry of a
 * piece to its last token, and to the first c - 1 of the next piece. Those take from the
 * levels before l what is in their own piece, so that levels still come in ascending
 * order: the sums are those of the whole sequence, to the bit. */
#include "cpu.h"

#include <string.h>

/* The row of the last entry of level l in head e; -1 if it is not selected. */
static int32_t last_row(const struct lh_lighthouse *g, const int32_t *map, int l, int e)
{
	return map[e * lh_lighthouse_pyramid(g) + lh_lighthouse_base(g, l) +
		   lh_lighthouse_entries(g, l) - 1];
}

static void check(const struct lh_lighthouse *g, const struct lh_heads *h)
{
	LH_ASSERT(h->batch == 1 && h->tokens == g->tokens && !h->start);
}

void lh_cpu_lighthouse_halo(struct lh_dev *dev, const struct lh_lighthouse *g,
			    const struct lh_heads *h, lh_act *halo, const lh_act *os,
			    const int32_t *map)
{
	int D = h->head_dim, H = h->heads;

	(void)dev;
	check(g, h);
	for (int l = 1; l < g->levels; l++)
		for (int e = 0; e < H; e++) {
			float *to = (float *)halo + ((int64_t)(l - 1) * H + e) * D;
			int32_t row = last_row(g, map, l, e);

			memset(to, 0, (size_t)D * sizeof(float));
			if (row >= 0)
				memcpy(to, (const float *)os + ((int64_t)row * H + e) * D,
				       (size_t)D * sizeof(float));
		}
}

void lh_cpu_lighthouse_halo_add(struct lh_dev *dev, const struct lh_lighthouse *g,
				const struct lh_heads *h, lh_act *o, const lh_act *halo)
{
	int64_t width = (int64_t)h->heads * h->head_dim;
	int64_t tokens = lh_lighthouse_window(g, g->levels - 1) - 1;

	(void)dev;
	check(g, h);
#pragma omp parallel for
	for (int64_t t = 0; t < tokens; t++) {
		float *out = (float *)o + t * h->o_row;

		for (int l = 1; l < g->levels; l++) {
			const float *from = (const float *)halo + (l - 1) * width;

			if (t >= lh_lighthouse_window(g, l) - 1)
				continue;
			for (int64_t i = 0; i < width; i++)
				out[i] += from[i];
		}
	}
}

/* The sum of a finer level is the beginning of the next one's. */
static void sum_head(const struct lh_lighthouse *g, const struct lh_heads *h, float *dhalo,
		     const float *dout)
{
	int64_t width = (int64_t)h->heads * h->head_dim, t = 0;
	size_t bytes = (size_t)h->head_dim * sizeof(float);

	memset(dhalo, 0, bytes);
	for (int l = 1;; l++) {
		for (; t < lh_lighthouse_window(g, l) - 1; t++)
			for (int d = 0; d < h->head_dim; d++)
				dhalo[d] += dout[t * h->o_row + d];
		if (l == g->levels - 1)
			return;
		memcpy(dhalo + width, dhalo, bytes);
		dhalo += width;
	}
}

void lh_cpu_lighthouse_halo_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				const struct lh_heads *h, float *dhalo,
				const lh_act *dout)
{
	(void)dev;
	check(g, h);
#pragma omp parallel for
	for (int e = 0; e < h->heads; e++)
		sum_head(g, h, dhalo + (int64_t)e * h->head_dim,
			 (const float *)dout + (int64_t)e * h->head_dim);
}

void lh_cpu_lighthouse_halo_put(struct lh_dev *dev, const struct lh_lighthouse *g,
				const struct lh_heads *h, lh_act *dos,
				const float *dhalo, const int32_t *map)
{
	int D = h->head_dim, H = h->heads;

	(void)dev;
	check(g, h);
	for (int l = 1; l < g->levels; l++)
		for (int e = 0; e < H; e++) {
			const float *from = dhalo + ((int64_t)(l - 1) * H + e) * D;
			int32_t row = last_row(g, map, l, e);
			float *to = (float *)dos + ((int64_t)row * H + e) * D;

			for (int d = 0; row >= 0 && d < D; d++)
				to[d] += from[d];
		}
}

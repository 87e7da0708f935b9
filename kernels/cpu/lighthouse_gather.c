/* lighthouse_gather.c: rows of the sub-sequence from rows of tokens, and back.
 *
 * Forward: entry (l, i) is the mean of the rotated rows of its window. Backward,
 * a gather too: token j collects d / c_l from the entries (l, floor(j / c_l))
 * that were selected, levels ascending, a KV head's query heads ascending
 * inside a level; then the rotation is undone. */
#include "cpu.h"
#include "math.h"

#include <string.h>

enum { D_MAX = 1024 };

/* out (D) <- mean of `count` rows from token t0 on, rotated if rope; `place`: of the
 * first one. */
static void window_mean(float *out, const float *x, int64_t row, int D, int64_t t0,
			int64_t count, const struct lh_rope *rope, int64_t place)
{
	float buf[D_MAX], inv = 1.0f / (float)count;

	memset(out, 0, (size_t)D * sizeof(float));
	for (int64_t t = t0; t < t0 + count; t++, place++) {
		const float *from = x + t * row;

		if (rope) {
			lh_rotate(buf, from, D, rope->cos + place * (D / 2),
				  rope->sin + place * (D / 2), 1);
			from = buf;
		}
		for (int d = 0; d < D; d++)
			out[d] += from[d];
	}
	for (int d = 0; d < D; d++)
		out[d] *= inv;
}

void lh_cpu_lighthouse_gather(struct lh_dev *dev, const struct lh_lighthouse *g,
			      const struct lh_heads *h, lh_act *qs, lh_act *ks,
			      lh_act *vs, const lh_act *q, const lh_act *k,
			      const lh_act *v, const struct lh_rope *rope,
			      const int32_t *index, const void *scored)
{
	int64_t S = lh_lighthouse_selected(g), N = g->tokens;
	int D = h->head_dim, H = h->heads, group = H / h->kv_heads;

	(void)dev, (void)scored;
	LH_ASSERT(D <= D_MAX && h->tokens == N);
#pragma omp parallel for collapse(2)
	for (int b = 0; b < h->batch; b++)
		for (int64_t r = 0; r < S; r++)
			for (int e = 0; e < H; e++) {
				int64_t to = ((b * S + r) * H + e) * D, i;
				int l = lh_lighthouse_level_of(
					g, index[((int64_t)b * H + e) * S + r], &i);
				int64_t c = lh_lighthouse_window(g, l);
				int64_t place = lh_cpu_place(h->start, b * N + i * c, N);
				int64_t qo = b * N * h->q_row + (int64_t)e * D;
				int64_t ko = b * N * h->kv_row +
					     (int64_t)(e / group) * D;

				window_mean((float *)qs + to, (const float *)q + qo,
					    h->q_row, D, i * c, c, rope, place);
				window_mean((float *)ks + to, (const float *)k + ko,
					    h->kv_row, D, i * c, c, rope, place);
				window_mean((float *)vs + to, (const float *)v + ko,
					    h->kv_row, D, i * c, c, NULL, 0);
			}
}

struct spread { /* one token of one sequence */
	const struct lh_lighthouse *g;
	const int32_t *map;  /* (H, P) of the sequence */
	int64_t P;
	int64_t token;
	int H, D;
};

/* out (D) <- sum over levels, then heads h0 .. h0+heads-1, of ds / c_l. */
static void collect(const struct spread *s, float *out, const float *ds, int h0,
		    int heads)
{
	int64_t c = 1, base = 0;

	memset(out, 0, (size_t)s->D * sizeof(float));
	for (int l = 0; l < s->g->levels; l++) {
		int64_t flat = base + s->token / c;
		float inv = 1.0f / (float)c;

		for (int e = h0; e < h0 + heads; e++) {
			int32_t r = s->map[e * s->P + flat];
			const float *from = ds + ((int64_t)r * s->H + e) * s->D;

			for (int d = 0; r >= 0 && d < s->D; d++)
				out[d] += from[d] * inv;
		}
		base += s->g->tokens / c;
		c *= s->g->pool;
	}
}

void lh_cpu_lighthouse_gather_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				  const struct lh_heads *h, lh_act *dq, lh_act *dk,
				  lh_act *dv, const lh_act *dqs, const lh_act *dks,
				  const lh_act *dvs, const struct lh_rope *rope,
				  const int32_t *map)
{
	int64_t S = lh_lighthouse_selected(g), P = lh_lighthouse_pyramid(g);
	int64_t N = g->tokens;
	int D = h->head_dim, H = h->heads, G = h->kv_heads, group = H / G;

	(void)dev;
#pragma omp parallel for
	for (int64_t r = 0; r < h->batch * N; r++) {
		int64_t b = r / N, t = r % N, rows = b * S * H * D;
		struct spread s = { g, map + b * H * P, P, t, H, D };
		int64_t place = lh_cpu_place(h->start, r, N);
		const float *cos = rope ? rope->cos + place * (D / 2) : NULL;
		const float *sin = rope ? rope->sin + place * (D / 2) : NULL;

		for (int e = 0; e < H; e++) {
			float *out = (float *)dq + r * h->q_row + (int64_t)e * D;

			collect(&s, out, (const float *)dqs + rows, e, 1);
			if (rope)
				lh_rotate(out, out, D, cos, sin, -1);
		}
		for (int e = 0; e < G; e++) {
			int64_t to = r * h->kv_row + (int64_t)e * D;
			float *outk = (float *)dk + to, *outv = (float *)dv + to;

			collect(&s, outk, (const float *)dks + rows, e * group, group);
			collect(&s, outv, (const float *)dvs + rows, e * group, group);
			if (rope)
				lh_rotate(outk, outk, D, cos, sin, -1);
		}
	}
}

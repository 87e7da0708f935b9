/* lighthouse_score.c: the scores that selection ranks by (paper section 3.1).
 *
 * Level 0 is the norm of each rotated row (norm scorer), or the norm of a row
 * of attention inside its residue class (dilated scorer); level l is the
 * maximum over the window. A NaN counts as +inf from level 1 on; selection
 * ranks it so at level 0 too. */
#include "cpu.h"
#include "math.h"

#include <string.h>

/* L2 norm of x (D). */
static float row_norm(const float *x, int D)
{
	float sum = 0;

#pragma omp simd reduction(+ : sum)
	for (int d = 0; d < D; d++)
		sum += x[d] * x[d];
	return sqrtf(sum);
}

/* Row of a head, rotated by its place into `buf` unless it already is. */
static const float *rotated(float *buf, const float *x, int D, int64_t place,
			    const struct lh_rope *rope)
{
	if (!rope)
		return x;
	lh_rotate(buf, x, D, rope->cos + place * (D / 2), rope->sin + place * (D / 2), 1);
	return buf;
}

/* Levels 1 .. L-1 of one head from its level 0. */
static void max_pyramid(const struct lh_lighthouse *g, float *score)
{
	for (int l = 1; l < g->levels; l++) {
		const float *fine = score + lh_lighthouse_base(g, l - 1);
		float *coarse = score + lh_lighthouse_base(g, l);

		for (int64_t i = 0; i < lh_lighthouse_entries(g, l); i++) {
			float m = 0;

			for (int c = 0; c < g->pool; c++) {
				float s = fine[i * g->pool + c];

				s = isnan(s) ? INFINITY : s;
				m = s > m ? s : m;
			}
			coarse[i] = m;
		}
	}
}

static void score_norm(const struct lh_lighthouse *g, const struct lh_heads *h,
		       float *score_q, float *score_k, const float *q, const float *k,
		       const struct lh_rope *rope)
{
	int64_t P = lh_lighthouse_pyramid(g);
	int D = h->head_dim, group = h->heads / h->kv_heads;

#pragma omp parallel for collapse(2)
	for (int b = 0; b < h->batch; b++)
		for (int e = 0; e < h->heads; e++) {
			float *sq = score_q + ((int64_t)b * h->heads + e) * P;
			float *sk = score_k + ((int64_t)b * h->heads + e) * P;
			float buf[1024];

			for (int64_t t = 0; t < g->tokens; t++) {
				int64_t r = b * g->tokens + t;
				int64_t place = lh_cpu_place(h->start, r, g->tokens);
				const float *qr = q + r * h->q_row + (int64_t)e * D;
				const float *kr = k + r * h->kv_row +
						  (int64_t)(e / group) * D;

				sq[t] = row_norm(rotated(buf, qr, D, place, rope), D);
				sk[t] = row_norm(rotated(buf, kr, D, place, rope), D);
			}
			max_pyramid(g, sq);
			max_pyramid(g, sk);
		}
}

/* out (B,N,H,D) <- rows of `heads` heads, each repeated for its group. */
static void expand(const struct lh_heads *h, float *out, const float *x, int64_t row,
		   int heads, const struct lh_rope *rope)
{
	int D = h->head_dim, group = h->heads / heads;

#pragma omp parallel for
	for (int64_t r = 0; r < h->batch * h->tokens; r++)
		for (int e = 0; e < h->heads; e++) {
			float *to = out + (r * h->heads + e) * D;
			const float *from = x + r * row + (int64_t)(e / group) * D;

			if (rope)
				rotated(to, from, D, r % h->tokens, rope);
			else
				memcpy(to, from, (size_t)D * sizeof(float));
		}
}

/* score (B,H,P) level 0 <- norms of attention rows inside residue classes. */
static void class_norms(struct lh_dev *dev, const struct lh_lighthouse *g,
			const struct lh_heads *h, float *score, float *o,
			const float *q, const float *k, const float *v)
{
	int64_t P = lh_lighthouse_pyramid(g), row = (int64_t)h->heads * h->head_dim;
	int D = h->head_dim;
	/* A class is a strided view of the whole: rows r, r + dilation, ... */
	struct lh_sdpa s = {
		.heads = { .batch = h->batch, .tokens = g->tokens / g->dilation,
			   .heads = h->heads, .kv_heads = h->heads, .head_dim = D,
			   .q_row = row * g->dilation, .kv_row = row * g->dilation,
			   .o_row = row * g->dilation },
		.kv_tokens = g->tokens / g->dilation,
		.scale = 1 / sqrtf((float)D),
	};

	for (int c = 0; c < g->dilation; c++)
		lh_cpu_sdpa(dev, &s, o + c * row, NULL, q + c * row, k + c * row,
			    v + c * row);
#pragma omp parallel for collapse(2)
	for (int b = 0; b < h->batch; b++)
		for (int e = 0; e < h->heads; e++) {
			float *out = score + ((int64_t)b * h->heads + e) * P;

			for (int64_t t = 0; t < g->tokens; t++)
				out[t] = row_norm(o + (b * g->tokens + t) * row +
							  (int64_t)e * D, D);
			max_pyramid(g, out);
		}
}

void lh_cpu_lighthouse_score(struct lh_dev *dev, const struct lh_lighthouse *g,
			     const struct lh_heads *h, float *score_q, float *score_k,
			     const lh_act *q, const lh_act *k, const lh_act *v,
			     const struct lh_rope *rope, void *scratch)
{
	int64_t size = h->batch * g->tokens * h->heads * h->head_dim;
	float *qr = scratch, *kr, *vr, *o;

	LH_ASSERT(h->head_dim <= 1024 && h->tokens == g->tokens);
	if (g->scorer == LH_SCORER_NORM) {
		score_norm(g, h, score_q, score_k, q, k, rope);
		return;
	}
	LH_ASSERT(!h->start); /* refused when the job is checked */
	kr = qr + size;
	vr = kr + size;
	o = vr + size;
	expand(h, qr, q, h->q_row, h->heads, rope);
	expand(h, kr, k, h->kv_row, h->kv_heads, rope);
	expand(h, vr, v, h->kv_row, h->kv_heads, NULL);
	class_norms(dev, g, h, score_q, o, qr, kr, vr);
	class_norms(dev, g, h, score_k, o, kr, qr, vr);
}

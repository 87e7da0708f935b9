/* sdpa.c: causal scaled-dot-product attention in blocks, by small GEMMs.
 *
 * Forward: for QB queries, walk the keys in blocks of KB and keep a running
 * maximum m, sum l and output acc (Dao et al. 2022, algorithm 1), so the square
 * of scores never exists. Blocks above the diagonal are not visited; inside the
 * one it crosses, scores past it become zero weight. Nor are blocks before the first
 * query's document; of the other queries, keys of earlier documents weigh zero.
 *
 * Backward: per KV block and query block, P = exp(scale q k^T - lse), then
 *   dv += P^T do,  ds = P (do v^T - delta) scale,  dq += ds k,  dk += ds^T q,
 * delta = <do, o>. A work item is a KV head of a sequence: its query heads and
 * blocks follow each other, which fixes every order of summation.
 *
 * GEMMs run on one thread inside the parallel loops. */
#include "cpu.h"
#include "math.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

enum { QB = 128, KB = 256 };

struct view { /* one head of one sequence */
	const float *q, *k, *v;
	int64_t q_row, kv_row, o_row;
	int D;
	int64_t tokens, kv_tokens;
	float scale;
	const int32_t *start; /* (tokens) or NULL */
};

static struct view view_of(const struct lh_sdpa *s, int b, int h, const float *q,
			   const float *k, const float *v)
{
	const struct lh_heads *e = &s->heads;
	int64_t g = h / (e->heads / e->kv_heads) * e->head_dim;

	return (struct view){
		.q = q + b * e->tokens * e->q_row + (int64_t)h * e->head_dim,
		.k = k + b * s->kv_tokens * e->kv_row + g,
		.v = v + b * s->kv_tokens * e->kv_row + g,
		.q_row = e->q_row, .kv_row = e->kv_row, .o_row = e->o_row,
		.D = e->head_dim, .tokens = e->tokens, .kv_tokens = s->kv_tokens,
		.scale = s->scale,
		.start = e->start ? e->start + b * e->tokens : NULL,
	};
}

/* Keys that query i sees: 0 .. visible - 1. */
static int64_t visible(const struct view *w, int64_t i)
{
	return w->kv_tokens - w->tokens + i + 1;
}

/* The first key that query i sees. */
static int64_t first(const struct view *w, int64_t i)
{
	return w->start ? w->start[i] : 0;
}

/* s (nq, nk; stride KB) <- scale q k^T of one block pair. */
static void scores(const struct view *w, float *s, int64_t i0, int64_t nq, int64_t j0,
		   int64_t nk)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, nq, nk, w->D, w->scale,
		    w->q + i0 * w->q_row, w->q_row, w->k + j0 * w->kv_row, w->kv_row, 0,
		    s, KB);
}

/* Of the nk keys from j0 on, query i sees [from, to). */
struct span {
	int64_t from, to;
};

static int64_t clip(int64_t n, int64_t nk)
{
	return n < 0 ? 0 : n > nk ? nk : n;
}

static struct span span_of(const struct view *w, int64_t i, int64_t j0, int64_t nk)
{
	return (struct span){ clip(first(w, i) - j0, nk), clip(visible(w, i) - j0, nk) };
}

/* One row of scores becomes weights exp(s - m); returns their sum. Columns outside of
 * the span are hidden and become 0. */
static float weigh(float *s, struct span n, int64_t nk, float m)
{
	float sum = 0;

	for (int64_t j = 0; j < n.from; j++)
		s[j] = 0;
#pragma omp simd reduction(+ : sum)
	for (int64_t j = n.from; j < n.to; j++) {
		s[j] = lh_expf(s[j] - m);
		sum += s[j];
	}
	for (int64_t j = n.to; j < nk; j++)
		s[j] = 0;
	return sum;
}

static float row_max(const float *s, struct span n, float m)
{
#pragma omp simd reduction(max : m)
	for (int64_t j = n.from; j < n.to; j++)
		m = s[j] > m ? s[j] : m;
	return m;
}

struct fwd_scratch {
	float s[QB * KB];
	float m[QB], l[QB];
	float acc[]; /* (QB, D) */
};

/* o (nq, D), lse (nq) of the queries from i0 on. */
static void forward_block(const struct view *w, struct fwd_scratch *x, int64_t i0,
			  int64_t nq, float *o, float *lse)
{
	int64_t end = visible(w, i0 + nq - 1);
	int D = w->D;

	for (int64_t i = 0; i < nq; i++) {
		x->m[i] = -INFINITY;
		x->l[i] = 0;
	}
	memset(x->acc, 0, (size_t)(nq * D) * sizeof(float));
	for (int64_t j0 = first(w, i0); j0 < end; j0 += KB) {
		int64_t nk = end - j0 < KB ? end - j0 : KB;

		scores(w, x->s, i0, nq, j0, nk);
		for (int64_t i = 0; i < nq; i++) {
			float *s = x->s + i * KB, *acc = x->acc + i * D, m, keep;
			struct span n = span_of(w, i0 + i, j0, nk);

			/* Its maximum may be -inf still. */
			if (n.from >= n.to) {
				memset(s, 0, (size_t)nk * sizeof(float));
				continue;
			}
			m = row_max(s, n, x->m[i]);
			keep = lh_expf(x->m[i] - m);
			x->l[i] = x->l[i] * keep + weigh(s, n, nk, m);
			x->m[i] = m;
			for (int d = 0; d < D; d++)
				acc[d] *= keep;
		}
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, nq, D, nk, 1,
			    x->s, KB, w->v + j0 * w->kv_row, w->kv_row, 1, x->acc, D);
	}
	for (int64_t i = 0; i < nq; i++) {
		for (int d = 0; d < D; d++)
			o[i * w->o_row + d] = x->acc[i * D + d] / x->l[i];
		if (lse)
			lse[i] = x->m[i] + logf(x->l[i]);
	}
}

void lh_cpu_sdpa(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *o, float *lse,
		 const lh_act *q, const lh_act *k, const lh_act *v)
{
	const struct lh_heads *e = &s->heads;
	int64_t blocks = (e->tokens + QB - 1) / QB;
	int64_t items = (int64_t)e->batch * e->heads * blocks;

	(void)dev;
	LH_ASSERT(s->kv_tokens >= e->tokens && e->heads % e->kv_heads == 0);
	LH_ASSERT(!e->start || s->kv_tokens == e->tokens);
	lh_sdpa_await_before(s);
#pragma omp parallel if (items > 1)
	{
		struct fwd_scratch *x = lh_alloc(
			sizeof(*x) + (size_t)(QB * e->head_dim) * sizeof(float));

		/* The longest blocks first, so that none is left to the end. */
#pragma omp for schedule(dynamic)
		for (int64_t item = items - 1; item >= 0; item--) {
			int64_t block = item / (e->batch * e->heads), i0 = block * QB;
			int bh = (int)(item % (e->batch * e->heads));
			int b = bh / e->heads, h = bh % e->heads;
			int64_t nq = e->tokens - i0 < QB ? e->tokens - i0 : QB;
			struct view w = view_of(s, b, h, q, k, v);

			forward_block(&w, x, i0, nq,
				      (float *)o + (b * e->tokens + i0) * e->o_row +
					      (int64_t)h * e->head_dim,
				      lse ? lse + bh * e->tokens + i0 : NULL);
		}
		free(x);
	}
}

struct bwd_head {
	struct view w;
	const float *dout;  /* (tokens, D), stride o_row */
	const float *lse;   /* (tokens) */
	const float *delta; /* (tokens) */
	float *dq, *dk, *dv;
};

struct bwd_scratch {
	float p[QB * KB];
	float dp[QB * KB];
};

/* Adds the part of one query block and one KV block to dq, dk and dv. */
static void backward_block(const struct bwd_head *a, struct bwd_scratch *x, int64_t i0,
			   int64_t nq, int64_t j0, int64_t nk)
{
	const struct view *w = &a->w;
	const float *dout = a->dout + i0 * w->o_row;
	int D = w->D;

	scores(w, x->p, i0, nq, j0, nk);
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, nq, nk, D, 1, dout,
		    w->o_row, w->v + j0 * w->kv_row, w->kv_row, 0, x->dp, KB);
	for (int64_t i = 0; i < nq; i++) {
		float *p = x->p + i * KB, *dp = x->dp + i * KB;
		float delta = a->delta[i0 + i];

		weigh(p, span_of(w, i0 + i, j0, nk), nk, a->lse[i0 + i]);
		for (int64_t j = 0; j < nk; j++)
			dp[j] = p[j] * (dp[j] - delta) * w->scale;
	}
	cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, nk, D, nq, 1, x->p, KB,
		    dout, w->o_row, 1, a->dv + j0 * w->kv_row, w->kv_row);
	cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, nk, D, nq, 1, x->dp, KB,
		    w->q + i0 * w->q_row, w->q_row, 1, a->dk + j0 * w->kv_row,
		    w->kv_row);
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, nq, D, nk, 1, x->dp, KB,
		    w->k + j0 * w->kv_row, w->kv_row, 1, a->dq + i0 * w->q_row,
		    w->q_row);
}

static void backward_head(const struct bwd_head *a, struct bwd_scratch *x)
{
	const struct view *w = &a->w;

	for (int64_t i0 = 0; i0 < w->tokens; i0 += QB) {
		int64_t nq = w->tokens - i0 < QB ? w->tokens - i0 : QB;
		int64_t end = visible(w, i0 + nq - 1);

		for (int64_t j0 = first(w, i0); j0 < end; j0 += KB)
			backward_block(a, x, i0, nq, j0,
				       end - j0 < KB ? end - j0 : KB);
	}
}

static void clear_rows(float *p, int64_t rows, int64_t row, int64_t n)
{
	for (int64_t r = 0; r < rows; r++)
		memset(p + r * row, 0, (size_t)n * sizeof(float));
}

/* delta (tokens) <- <do, o> of each query. */
static void row_dots(float *delta, const float *dout, const float *o, int64_t tokens,
		     int64_t row, int D)
{
	for (int64_t i = 0; i < tokens; i++) {
		const float *a = dout + i * row, *b = o + i * row;
		float sum = 0;

#pragma omp simd reduction(+ : sum)
		for (int d = 0; d < D; d++)
			sum += a[d] * b[d];
		delta[i] = sum;
	}
}

void lh_cpu_sdpa_bwd(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *dq,
		     lh_act *dk, lh_act *dv, const lh_act *dout, const lh_act *q,
		     const lh_act *k, const lh_act *v, const lh_act *o,
		     const float *lse)
{
	const struct lh_heads *e = &s->heads;
	int64_t items = (int64_t)e->batch * e->kv_heads;
	int group = e->heads / e->kv_heads, D = e->head_dim;

	(void)dev;
	lh_sdpa_await_before(s);
#pragma omp parallel if (items > 1)
	{
		struct bwd_scratch *x = lh_alloc(sizeof(*x));
		float *delta = lh_alloc((size_t)e->tokens * sizeof(float));

#pragma omp for schedule(dynamic)
		for (int64_t item = 0; item < items; item++) {
			int b = (int)(item / e->kv_heads), g = (int)(item % e->kv_heads);
			int64_t kv = b * s->kv_tokens * e->kv_row + (int64_t)g * D;

			clear_rows((float *)dk + kv, s->kv_tokens, e->kv_row, D);
			clear_rows((float *)dv + kv, s->kv_tokens, e->kv_row, D);
			for (int h = g * group; h < (g + 1) * group; h++) {
				int64_t off = b * e->tokens * e->o_row + (int64_t)h * D;
				struct bwd_head a = {
					.w = view_of(s, b, h, q, k, v),
					.dout = (const float *)dout + off,
					.lse = lse + ((int64_t)b * e->heads + h) * e->tokens,
					.delta = delta,
					.dq = (float *)dq + b * e->tokens * e->q_row +
					      (int64_t)h * D,
					.dk = (float *)dk + kv,
					.dv = (float *)dv + kv,
				};

				clear_rows(a.dq, e->tokens, e->q_row, D);
				row_dots(delta, a.dout, (const float *)o + off,
					 e->tokens, e->o_row, D);
				backward_head(&a, x);
			}
		}
		free(delta);
		free(x);
	}
}

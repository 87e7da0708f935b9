/* decode.c: token after token, with a cache of rotated keys and values.
 *
 * A layer's cache is its packed qkv rows themselves: the projection writes new
 * rows behind the old ones, the rotation works in place, and attention is SDPA
 * of the last rows against all of them. Nothing is copied. */
#include "train/model_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct lh_decoder {
	struct lh_model *m;
	int64_t max_tokens, used;
	lh_act **cache;   /* a layer: (max_tokens, (H+2G)*D) */
	lh_act *x, *n, *o, *gu, *h; /* (max_tokens, C | C | H*D | 2F | F) */
	float *rstd;      /* (max_tokens) */
	float *cos, *sin; /* (max_tokens, D/2) */
	int32_t *tokens;  /* (max_tokens) */
	lh_act *logits;   /* (V) */
	void *arena;
};

static int64_t span(int64_t bytes)
{
	return (bytes + 255) / 256 * 256;
}

int lh_decoder_new(struct lh_decoder **out, struct lh_model *m, int64_t max_tokens,
		   struct lh_err *err)
{
	struct lh_decoder *d = lh_calloc(1, sizeof(*d));
	const struct lh_job_model *c = &m->c;
	int64_t n = max_tokens, e = (int64_t)lh_dtype_bytes(m->ops->sizes->act_type);
	int64_t hd = (int64_t)c->heads * c->head_dim;
	struct { void *view; int64_t bytes; } rows[] = {
		{ &d->x, n * c->dim * e },	 { &d->n, n * c->dim * e },
		{ &d->o, n * hd * e },		 { &d->gu, n * 2 * c->ffn_dim * e },
		{ &d->h, n * c->ffn_dim * e },	 { &d->rstd, n * 4 },
		{ &d->cos, n * c->head_dim * 2 }, { &d->sin, n * c->head_dim * 2 },
		{ &d->tokens, n * 4 },		 { &d->logits, c->vocab * e },
	};
	size_t views = sizeof(rows) / sizeof(rows[0]);
	int64_t layer = span(n * lh_qkv_width(c) * e), total = layer * c->layers;
	char *at;
	int rc;

	d->m = m;
	d->max_tokens = n;
	d->cache = lh_calloc((size_t)c->layers, sizeof(*d->cache));
	for (size_t i = 0; i < views; i++)
		total += span(rows[i].bytes);
	rc = m->ops->alloc(m->dev, &d->arena, (size_t)total, err);
	if (rc) {
		lh_decoder_free(d);
		return rc;
	}
	at = d->arena;
	for (int i = 0; i < c->layers; i++, at += layer)
		d->cache[i] = at;
	for (size_t i = 0; i < views; at += span(rows[i].bytes), i++)
		memcpy(rows[i].view, &at, sizeof(at));
	lh_model_fill_rope(m, &(struct lh_rope){ d->cos, d->sin }, n);
	*out = d;
	return 0;
}

void lh_decoder_free(struct lh_decoder *d)
{
	if (!d)
		return;
	d->m->ops->free(d->m->dev, d->arena);
	free(d->cache);
	free(d);
}

static void linear(struct lh_decoder *d, int64_t rows, lh_act *y, const lh_act *x,
		   int64_t weight, int64_t out, int64_t in, const lh_act *add)
{
	struct lh_linear s = { rows, in, out };

	d->m->ops->linear(d->m->dev, &s, y, x, weight_at(d->m, weight), add);
}

/* The q and k heads of n fresh rows. */
static void normalize(struct lh_decoder *d, int i, int64_t n, char *fresh)
{
	struct lh_model *m = d->m;
	const struct lh_job_model *c = &m->c;
	struct lh_attention_norm norm = lh_model_norm_of(m, i);
	size_t e = lh_dtype_bytes(m->ops->sizes->act_type);
	char *keys = fresh + e * (size_t)(c->heads * c->head_dim);

	m->ops->qk_norm(m->dev, n, c->heads, c->head_dim, fresh, lh_qkv_width(c), norm.q_gain,
			norm.eps);
	m->ops->qk_norm(m->dev, n, c->kv_heads, c->head_dim, keys, lh_qkv_width(c),
			norm.k_gain, norm.eps);
}

/* The residual stream d->x (n,C) through layer i; rows follow `used` others. */
static void decode_layer(struct lh_decoder *d, int i, int64_t n)
{
	struct lh_model *m = d->m;
	const struct lh_job_model *c = &m->c;
	const struct lh_layer_params *w = &m->params.layers[i];
	size_t e = lh_dtype_bytes(m->ops->sizes->act_type);
	int64_t row = lh_qkv_width(c), C = c->dim, F = c->ffn_dim, half = c->head_dim / 2;
	char *keys = (char *)d->cache[i] + e * (size_t)(c->heads * c->head_dim);
	char *values = keys + e * (size_t)(c->kv_heads * c->head_dim);
	char *fresh = (char *)d->cache[i] + e * (size_t)(d->used * row);
	struct lh_rope rope = { d->cos + d->used * half, d->sin + d->used * half };
	struct lh_sdpa s = {
		.heads = { .batch = 1, .tokens = n, .heads = c->heads,
			   .kv_heads = c->kv_heads, .head_dim = c->head_dim,
			   .q_row = row, .kv_row = row,
			   .o_row = (int64_t)c->heads * c->head_dim },
		.kv_tokens = d->used + n,
		.scale = 1 / sqrtf((float)c->head_dim) };

	m->ops->rmsnorm(m->dev, n, C, d->n, d->rstd, d->x, weight_at(m, w->norm1),
			(float)c->norm_eps);
	linear(d, n, fresh, d->n, w->wqkv, row, C, NULL);
	if (c->qkv_bias)
		m->ops->bias(m->dev, n, row, fresh, weight_at(m, w->bqkv));
	if (c->qk_norm)
		normalize(d, i, n, fresh);
	/* q and k heads of a row are neighbours: one rotation does both. */
	m->ops->rope(m->dev, 1, n, c->heads + c->kv_heads, c->head_dim, fresh, row,
		     &rope, NULL, false);
	m->ops->sdpa(m->dev, &s, d->o, NULL, fresh, keys, values);
	linear(d, n, d->x, d->o, w->wo, C, s.heads.o_row, d->x);
	m->ops->rmsnorm(m->dev, n, C, d->n, d->rstd, d->x, weight_at(m, w->norm2),
			(float)c->norm_eps);
	linear(d, n, d->gu, d->n, w->wgu, 2 * F, C, NULL);
	m->ops->swiglu(m->dev, n, F, d->h, d->gu);
	linear(d, n, d->x, d->h, w->wdown, C, F, d->x);
}

int lh_decoder_feed(struct lh_decoder *d, const int32_t *tokens, int64_t n,
		    float *logits, struct lh_err *err)
{
	struct lh_model *m = d->m;
	size_t e = lh_dtype_bytes(m->ops->sizes->act_type);

	if (n < 1 || d->used + n > d->max_tokens)
		return lh_err_set(err, LH_ETOOBIG,
				  "%lld tokens do not fit a context of %lld",
				  (long long)(d->used + n), (long long)d->max_tokens);
	m->ops->put(m->dev, d->tokens, tokens, (size_t)n * 4);
	lh_model_use_embedding(m);
	m->ops->embed(m->dev, n, m->c.dim, d->x, d->tokens, weight_at(m, m->params.embed));
	for (int i = 0; i < m->c.layers; i++) {
		lh_model_use_layer(m, i, i + 1);
		decode_layer(d, i, n);
	}
	lh_model_use_output(m);
	d->used += n;
	m->ops->rmsnorm(m->dev, 1, m->c.dim, d->n, d->rstd,
			(char *)d->x + e * (size_t)((n - 1) * m->c.dim),
			weight_at(m, m->params.final_norm), (float)m->c.norm_eps);
	linear(d, 1, d->logits, d->n, m->params.output, m->c.vocab, m->c.dim, NULL);
	return lh_model_fetch(m, logits, d->logits, m->c.vocab, err);
}

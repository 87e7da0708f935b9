/* attention.c: see attention.h. */
#include "train/attention.h"

#include <math.h>

struct packed { /* q, k, v inside packed rows */
	lh_act *q, *k, *v;
};

static struct packed unpack(const struct lh_attention_call *a, lh_act *qkv)
{
	size_t size = lh_dtype_bytes(a->ops->sizes->act_type) * (size_t)a->heads.head_dim;
	char *p = qkv;

	return (struct packed){
		p, p + size * (size_t)a->heads.heads,
		p + size * (size_t)(a->heads.heads + a->heads.kv_heads) };
}

/* Rotates the q and k parts of packed rows. */
static void rotate(const struct lh_attention_call *a, const struct packed *x, bool inverse)
{
	const struct lh_heads *h = &a->heads;

	a->ops->rope(a->dev, h->batch, h->tokens, h->heads, h->head_dim, x->q, h->q_row,
		     a->rope, h->start, inverse);
	a->ops->rope(a->dev, h->batch, h->tokens, h->kv_heads, h->head_dim, x->k,
		     h->kv_row, a->rope, h->start, inverse);
}

/* The q and k parts of packed rows, where there are norms. */
static void normalize(const struct lh_attention_call *a, const struct packed *x)
{
	const struct lh_heads *h = &a->heads;
	const struct lh_attention_norm *n = a->norm;
	int64_t R = h->batch * h->tokens;

	if (!n)
		return;
	a->ops->qk_norm(a->dev, R, h->heads, h->head_dim, x->q, h->q_row, n->q_gain, n->eps);
	a->ops->qk_norm(a->dev, R, h->kv_heads, h->head_dim, x->k, h->kv_row, n->k_gain,
			n->eps);
}

/* Their gradients, from those of normalized rows to those of `raw`. */
static void normalize_bwd(const struct lh_attention_call *a, const struct packed *d,
			  lh_act *raw)
{
	const struct lh_heads *h = &a->heads;
	const struct lh_attention_norm *n = a->norm;
	int64_t R = h->batch * h->tokens;
	struct packed x;

	if (!n)
		return;
	x = unpack(a, raw);
	a->ops->qk_norm_bwd(a->dev, R, h->heads, h->head_dim, d->q, n->dq_gain, x.q, h->q_row,
			    n->q_gain, n->eps);
	a->ops->qk_norm_bwd(a->dev, R, h->kv_heads, h->head_dim, d->k, n->dk_gain, x.k,
			    h->kv_row, n->k_gain, n->eps);
}

struct lh_sdpa lh_attention_sdpa(const struct lh_lighthouse *g, struct lh_heads heads)
{
	struct lh_sdpa s = { .heads = heads, .kv_tokens = heads.tokens,
			     .scale = 1 / sqrtf((float)heads.head_dim) };

	if (!g)
		return s;
	s.heads.tokens = s.kv_tokens = lh_lighthouse_selected(g);
	s.heads.kv_heads = heads.heads;
	s.heads.start = s.heads.start_host = NULL;
	s.heads.q_row = s.heads.kv_row = s.heads.o_row =
		(int64_t)heads.heads * heads.head_dim;
	return s;
}

static struct lh_sdpa sdpa_of(const struct lh_attention_call *a)
{
	struct lh_sdpa s = lh_attention_sdpa(a->lighthouse, a->heads);

	if (!a->lighthouse)
		return s;
	s.heads.start = a->sub_start;
	s.heads.start_host = a->sub_start_host;
	return s;
}

static void gather(const struct lh_attention_call *a,
		   const struct lh_attention_saved *saved, const void *scored)
{
	struct packed x = unpack(a, saved->qkv);

	a->ops->lighthouse_gather(a->dev, a->lighthouse, &a->heads, saved->qs, saved->ks,
				  saved->vs, x.q, x.k, x.v, a->rope, saved->index,
				  scored);
}

void lh_attention_forward(const struct lh_attention_call *a,
			  const struct lh_attention_saved *saved,
			  const struct lh_attention_scratch *scratch)
{
	const struct lh_lighthouse *g = a->lighthouse;
	const struct lh_ops *ops = a->ops;
	struct packed x = unpack(a, saved->qkv);
	struct lh_sdpa s = sdpa_of(a);

	if (!g) {
		normalize(a, &x);
		rotate(a, &x, false);
		ops->sdpa(a->dev, &s, saved->o, saved->lse, x.q, x.k, x.v);
		return;
	}
	ops->lighthouse_score(a->dev, g, &a->heads, scratch->score_q, scratch->score_k,
			      x.q, x.k, x.v, a->rope, scratch->score);
	ops->lighthouse_select(a->dev, g, &a->heads, saved->index, scratch->score_q,
			       scratch->score_k);
	normalize(a, &x);
	/* What the scorer left is of rows that are not normalized. */
	gather(a, saved, a->norm ? NULL : scratch->score);
	ops->sdpa(a->dev, &s, saved->os, saved->lse, saved->qs, saved->ks, saved->vs);
	lh_attention_redo_output(a, saved, scratch);
}

void lh_attention_redo_inputs(const struct lh_attention_call *a,
			      const struct lh_attention_saved *saved)
{
	struct packed x = unpack(a, saved->qkv);

	normalize(a, &x);
	if (a->lighthouse)
		gather(a, saved, NULL);
	else
		rotate(a, &x, false);
}

void lh_attention_redo_output(const struct lh_attention_call *a,
			      const struct lh_attention_saved *saved,
			      const struct lh_attention_scratch *scratch)
{
	int64_t BH = (int64_t)a->heads.batch * a->heads.heads;

	a->ops->lighthouse_map(a->dev, a->lighthouse, BH, scratch->map, saved->index);
	a->ops->lighthouse_scatter(a->dev, a->lighthouse, &a->heads, saved->o, saved->os,
				   scratch->map);
}

void lh_attention_backward(const struct lh_attention_call *a,
			   const struct lh_attention_saved *saved,
			   const struct lh_attention_scratch *scratch, lh_act *dqkv,
			   const lh_act *dout, lh_act *raw)
{
	const struct lh_lighthouse *g = a->lighthouse;
	const struct lh_ops *ops = a->ops;
	struct packed d = unpack(a, dqkv), x = unpack(a, saved->qkv);
	int64_t BH = (int64_t)a->heads.batch * a->heads.heads;
	struct lh_sdpa s = sdpa_of(a);

	if (!g) {
		ops->sdpa_bwd(a->dev, &s, d.q, d.k, d.v, dout, x.q, x.k, x.v, saved->o,
			      saved->lse);
		rotate(a, &d, true);
		normalize_bwd(a, &d, raw);
		return;
	}
	ops->lighthouse_map(a->dev, g, BH, scratch->map, saved->index);
	ops->lighthouse_scatter_bwd(a->dev, g, &a->heads, scratch->dos, dout,
				    saved->index);
	ops->sdpa_bwd(a->dev, &s, scratch->dqs, scratch->dks, scratch->dvs, scratch->dos,
		      saved->qs, saved->ks, saved->vs, saved->os, saved->lse);
	ops->lighthouse_gather_bwd(a->dev, g, &a->heads, d.q, d.k, d.v, scratch->dqs,
				   scratch->dks, scratch->dvs, a->rope, scratch->map);
	normalize_bwd(a, &d, raw);
}

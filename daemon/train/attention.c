/* attention.c: see attention.h. */
#include "train/attention.h"

#include <math.h>

struct packed { /* q, k, v inside packed rows */
	lh_act *q, *k, *v;
};

/* What ops take at a time: all rows of this rank, or one of its pieces of a shared
 * sequence. Tensors are those of the call, from its first row on. */
struct part {
	int piece;                /* its number in the sequence; of whole ones 0 */
	struct lh_heads heads;
	struct lh_lighthouse g;   /* if there is one */
	struct lh_rope rope;
	int64_t row, sub;         /* where its rows begin, and those of the sub-sequence */
	struct lh_attention_saved saved;
	lh_act *q, *out;          /* queries, and what they get */
	int32_t *map;
};

/* ---- parts ------------------------------------------------------------------- */

static lh_act *elements(const struct lh_attention_call *a, const lh_act *base, int64_t n)
{
	int64_t e = (int64_t)lh_dtype_bytes(a->ops->sizes->act_type);

	return base ? (char *)base + e * n : NULL;
}

static int64_t sub_row(const struct lh_attention_call *a)
{
	return (int64_t)a->heads.heads * a->heads.head_dim;
}

static int parts(const struct lh_attention_call *a)
{
	return a->context ? 2 : 1;
}

/* Its tensors begin where its first rows, in `p` already, have theirs. */
static void find_tensors(const struct lh_attention_call *a, struct part *p,
			 const struct lh_attention_saved *all,
			 const struct lh_attention_scratch *scratch)
{
	int64_t H = a->heads.heads, sub = p->sub * sub_row(a);

	p->saved.qkv = elements(a, all->qkv, p->row * a->heads.q_row);
	p->saved.o = elements(a, all->o, p->row * a->heads.o_row);
	if (all->lse)
		p->saved.lse = all->lse + H * (a->lighthouse ? p->sub : p->row);
	p->q = p->saved.qkv;
	p->out = p->saved.o;
	if (!a->lighthouse)
		return;
	p->saved.index = all->index + H * p->sub;
	p->q = p->saved.qs = elements(a, all->qs, sub);
	p->saved.ks = elements(a, all->ks, sub);
	p->saved.vs = elements(a, all->vs, sub);
	p->out = p->saved.os = elements(a, all->os, sub);
	if (scratch)
		p->map = scratch->map + (p->row ? H * lh_lighthouse_pyramid(&p->g) : 0);
}

/* scratch: NULL where it is not needed. */
static struct part part_of(const struct lh_attention_call *a, int i,
			   const struct lh_attention_saved *saved,
			   const struct lh_attention_scratch *scratch)
{
	struct part p = { .heads = a->heads, .rope = *a->rope };

	if (a->lighthouse)
		p.g = *a->lighthouse;
	if (a->context) {
		int W = a->context->size;
		int64_t n = a->heads.tokens / 2, half = a->heads.head_dim / 2;

		p.piece = lh_context_piece(W, a->context->rank, i);
		p.heads.tokens = n;
		p.row = i * n;
		p.rope.cos += p.piece * n * half;
		p.rope.sin += p.piece * n * half;
		if (a->lighthouse) {
			p.g = lh_context_geometry(a->lighthouse, W);
			p.sub = i * lh_lighthouse_selected(&p.g);
		}
	}
	find_tensors(a, &p, saved, scratch);
	return p;
}

/* ---- rows -------------------------------------------------------------------- */

static struct packed unpack(const struct lh_attention_call *a, lh_act *qkv)
{
	int64_t D = a->heads.head_dim, H = a->heads.heads, G = a->heads.kv_heads;

	return (struct packed){ qkv, elements(a, qkv, H * D),
				elements(a, qkv, (H + G) * D) };
}

/* Rotates the q and k parts of packed rows. */
static void rotate(const struct lh_attention_call *a, const struct part *p,
		   const struct packed *x, bool inverse)
{
	const struct lh_heads *h = &p->heads;

	a->ops->rope(a->dev, h->batch, h->tokens, h->heads, h->head_dim, x->q, h->q_row,
		     &p->rope, h->start, inverse);
	a->ops->rope(a->dev, h->batch, h->tokens, h->kv_heads, h->head_dim, x->k,
		     h->kv_row, &p->rope, h->start, inverse);
}

/* The q and k parts of packed rows, where there are norms. */
static void normalize(const struct lh_attention_call *a, const struct part *p,
		      const struct packed *x)
{
	const struct lh_heads *h = &p->heads;
	const struct lh_attention_norm *n = a->norm;
	int64_t R = h->batch * h->tokens;

	if (!n)
		return;
	a->ops->qk_norm(a->dev, R, h->heads, h->head_dim, x->q, h->q_row, n->q_gain, n->eps);
	a->ops->qk_norm(a->dev, R, h->kv_heads, h->head_dim, x->k, h->kv_row, n->k_gain,
			n->eps);
}

/* Their gradients, from those of normalized rows to those of `raw`, this part's. */
static void normalize_bwd(const struct lh_attention_call *a, const struct part *p,
			  const struct packed *d, lh_act *raw)
{
	const struct lh_heads *h = &p->heads;
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

/* ---- queries, keys, values ---------------------------------------------------- */

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

struct lh_sdpa lh_attention_piece_sdpa(const struct lh_lighthouse *g, struct lh_heads heads,
				       int piece)
{
	struct lh_sdpa s = lh_attention_sdpa(g, heads);

	s.kv_tokens = (piece + 1) * s.heads.tokens;
	s.heads.kv_row = (int64_t)2 * s.heads.kv_heads * s.heads.head_dim;
	return s;
}

/* Of this rank's rows: those that attention sees, or their gradients. */
static struct lh_context_keys own_keys(const struct lh_attention_call *a, lh_act *qkv,
				       lh_act *ks, lh_act *vs)
{
	struct packed x;

	if (a->lighthouse)
		return (struct lh_context_keys){ ks, vs, sub_row(a) };
	x = unpack(a, qkv);
	return (struct lh_context_keys){ x.k, x.v, a->heads.kv_row };
}

/* Of a shared sequence. */
static struct lh_context_call exchange_of(const struct lh_attention_call *a,
					  const struct lh_attention_scratch *scratch)
{
	struct lh_context_call x = { .ops = a->ops, .dev = a->dev, .comm = a->context,
				     .scratch = &scratch->context,
				     .rows = a->heads.tokens / 2 };

	x.width = (int64_t)a->heads.kv_heads * a->heads.head_dim;
	if (a->lighthouse) {
		struct lh_lighthouse g = lh_context_geometry(a->lighthouse,
							     a->context->size);

		x.rows = lh_lighthouse_selected(&g);
		x.width = sub_row(a);
	}
	return x;
}

/* What queries see: this rank's rows; or those of all ranks, and others' may be on their way. */
struct seen {
	struct lh_context_keys keys;
	struct lh_context_call exchange;
	bool under_way;
};

static struct seen find_keys(const struct lh_attention_call *a,
			     const struct lh_attention_saved *saved,
			     const struct lh_attention_scratch *scratch)
{
	struct seen seen = { .keys = own_keys(a, saved->qkv, saved->ks, saved->vs) };

	if (!a->context)
		return seen;
	seen.exchange = exchange_of(a, scratch);
	seen.keys = lh_context_begin_gather(&seen.exchange, &seen.keys);
	seen.under_way = true;
	return seen;
}

/* The second piece of every rank has some before it: it is called in each attention. */
static void await_keys(void *arg)
{
	struct seen *seen = arg;

	if (seen->under_way)
		lh_context_await(&seen->exchange);
	seen->under_way = false;
}

static struct lh_sdpa sdpa_of(const struct lh_attention_call *a, const struct part *p,
			      struct seen *seen)
{
	const struct lh_lighthouse *g = a->lighthouse ? &p->g : NULL;
	struct lh_sdpa s;

	if (a->context) {
		s = lh_attention_piece_sdpa(g, p->heads, p->piece);
		s.await_before = await_keys;
		s.arg = seen;
		return s;
	}
	s = lh_attention_sdpa(g, p->heads);
	if (g) {
		s.heads.start = a->sub_start;
		s.heads.start_host = a->sub_start_host;
	}
	return s;
}

/* ---- forward ----------------------------------------------------------------- */

/* The choice of a part, of rows that are not normalized. */
static void choose(const struct lh_attention_call *a, const struct part *p,
		   const struct lh_attention_scratch *scratch)
{
	struct packed x = unpack(a, p->saved.qkv);

	a->ops->lighthouse_score(a->dev, &p->g, &p->heads, scratch->score_q,
				 scratch->score_k, x.q, x.k, x.v, &p->rope, scratch->score);
	a->ops->lighthouse_select(a->dev, &p->g, &p->heads, p->saved.index,
				  scratch->score_q, scratch->score_k);
}

/* From fresh packed rows to what attention sees: rotated, or chosen. */
static void prepare(const struct lh_attention_call *a, const struct part *p,
		    const void *scored)
{
	struct packed x = unpack(a, p->saved.qkv);

	normalize(a, p, &x);
	if (a->lighthouse)
		a->ops->lighthouse_gather(a->dev, &p->g, &p->heads, p->saved.qs,
					  p->saved.ks, p->saved.vs, x.q, x.k, x.v,
					  &p->rope, p->saved.index, scored);
	else
		rotate(a, p, &x, false);
}

static void attend(const struct lh_attention_call *a,
		   const struct lh_attention_saved *saved,
		   const struct lh_attention_scratch *scratch)
{
	struct seen seen = find_keys(a, saved, scratch);

	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, scratch);
		struct lh_sdpa s = sdpa_of(a, &p, &seen);

		a->ops->sdpa(a->dev, &s, p.out, p.saved.lse, p.q, seen.keys.k, seen.keys.v);
	}
	LH_ASSERT(!seen.under_way);
}

void lh_attention_forward(const struct lh_attention_call *a,
			  const struct lh_attention_saved *saved,
			  const struct lh_attention_scratch *scratch)
{
	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, scratch);

		if (a->lighthouse)
			choose(a, &p, scratch);
		/* What the scorer left is of rows that are not normalized. */
		prepare(a, &p, a->norm ? NULL : scratch->score);
	}
	attend(a, saved, scratch);
	if (a->lighthouse)
		lh_attention_redo_output(a, saved, scratch);
}

void lh_attention_redo_inputs(const struct lh_attention_call *a,
			      const struct lh_attention_saved *saved)
{
	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, NULL);

		prepare(a, &p, NULL);
	}
}

/* Elements of a piece's halo, and where that of a piece is among all. */
static int64_t halo_size(const struct lh_attention_call *a)
{
	return (a->lighthouse->levels - 1) * sub_row(a);
}

static int64_t halo_at(const struct lh_attention_call *a, int piece)
{
	return lh_context_place(a->context->size, piece) * halo_size(a);
}

/* The last entries of a piece reach into the next one, whose o has the rest. */
static void add_halos(const struct lh_attention_call *a,
		      const struct lh_attention_saved *saved,
		      const struct lh_attention_scratch *scratch)
{
	lh_act *halo = scratch->context.halo;
	int64_t e = (int64_t)lh_dtype_bytes(a->ops->sizes->act_type);

	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, scratch);

		a->ops->lighthouse_halo(a->dev, &p.g, &p.heads,
					elements(a, halo, halo_at(a, p.piece)), p.saved.os,
					p.map);
	}
	lh_context_share_halo(a->context, halo, halo_size(a) * e);
	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, scratch);

		if (p.piece)
			a->ops->lighthouse_halo_add(
				a->dev, &p.g, &p.heads, p.saved.o,
				elements(a, halo, halo_at(a, p.piece - 1)));
	}
}

void lh_attention_redo_output(const struct lh_attention_call *a,
			      const struct lh_attention_saved *saved,
			      const struct lh_attention_scratch *scratch)
{
	int64_t BH = (int64_t)a->heads.batch * a->heads.heads;

	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, scratch);

		a->ops->lighthouse_map(a->dev, &p.g, BH, p.map, p.saved.index);
		a->ops->lighthouse_scatter(a->dev, &p.g, &p.heads, p.saved.o, p.saved.os,
					   p.map);
	}
	if (a->context)
		add_halos(a, saved, scratch);
}

/* ---- backward ---------------------------------------------------------------- */

/* scratch->context.dhalo <- what the halo of every piece did in the next one. */
static void share_dhalos(const struct lh_attention_call *a,
			 const struct lh_attention_saved *saved,
			 const struct lh_attention_scratch *scratch, const lh_act *dout)
{
	float *dhalo = scratch->context.dhalo;

	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, scratch);

		a->ops->lighthouse_halo_bwd(a->dev, &p.g, &p.heads,
					    dhalo + halo_at(a, p.piece),
					    elements(a, dout, p.row * a->heads.o_row));
	}
	lh_context_share_halo(a->context, dhalo, halo_size(a) * (int64_t)sizeof(*dhalo));
}

/* Maps, and dos, of all parts. */
static void scatter_bwd(const struct lh_attention_call *a,
			const struct lh_attention_saved *saved,
			const struct lh_attention_scratch *scratch, const lh_act *dout)
{
	int64_t BH = (int64_t)a->heads.batch * a->heads.heads;

	if (a->context)
		share_dhalos(a, saved, scratch, dout);
	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, scratch);
		lh_act *dos = elements(a, scratch->dos, p.sub * sub_row(a));

		a->ops->lighthouse_map(a->dev, &p.g, BH, p.map, p.saved.index);
		a->ops->lighthouse_scatter_bwd(a->dev, &p.g, &p.heads, dos,
					       elements(a, dout, p.row * a->heads.o_row),
					       p.saved.index);
		if (a->context && p.piece + 1 < 2 * a->context->size)
			a->ops->lighthouse_halo_put(a->dev, &p.g, &p.heads, dos,
						    scratch->context.dhalo +
							    halo_at(a, p.piece + 1),
						    p.map);
	}
}

/* Gradients of what `attend` saw: dqs, dks, dvs, or in dqkv. dout: of os, or o. */
static void attend_bwd(const struct lh_attention_call *a,
		       const struct lh_attention_saved *saved,
		       const struct lh_attention_scratch *scratch, lh_act *dqkv,
		       const lh_act *dout)
{
	struct lh_context_keys own = own_keys(a, dqkv, scratch->dks, scratch->dvs), d = own;
	struct seen seen = find_keys(a, saved, scratch);

	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, scratch);
		struct lh_sdpa s = sdpa_of(a, &p, &seen);
		int64_t first = a->lighthouse ? p.sub : p.row;
		lh_act *dq = a->lighthouse ? scratch->dqs : dqkv;

		if (a->context)
			d = lh_context_grads(&seen.exchange, i);
		a->ops->sdpa_bwd(a->dev, &s, elements(a, dq, first * s.heads.q_row), d.k, d.v,
				 elements(a, dout, first * s.heads.o_row), p.q, seen.keys.k,
				 seen.keys.v, p.out, p.saved.lse);
	}
	LH_ASSERT(!seen.under_way);
	if (a->context)
		lh_context_reduce(&seen.exchange, &own);
}

/* From what attention saw back to packed rows as they were projected. */
static void prepare_bwd(const struct lh_attention_call *a, const struct part *p,
			const struct lh_attention_scratch *scratch, lh_act *dqkv,
			lh_act *raw)
{
	struct packed d = unpack(a, elements(a, dqkv, p->row * a->heads.q_row));
	int64_t sub = p->sub * sub_row(a);

	if (a->lighthouse)
		a->ops->lighthouse_gather_bwd(a->dev, &p->g, &p->heads, d.q, d.k, d.v,
					      elements(a, scratch->dqs, sub),
					      elements(a, scratch->dks, sub),
					      elements(a, scratch->dvs, sub), &p->rope,
					      p->map);
	else
		rotate(a, p, &d, true);
	normalize_bwd(a, p, &d, elements(a, raw, p->row * a->heads.q_row));
}

void lh_attention_backward(const struct lh_attention_call *a,
			   const struct lh_attention_saved *saved,
			   const struct lh_attention_scratch *scratch, lh_act *dqkv,
			   const lh_act *dout, lh_act *raw)
{
	if (a->lighthouse)
		scatter_bwd(a, saved, scratch, dout);
	attend_bwd(a, saved, scratch, dqkv, a->lighthouse ? scratch->dos : dout);
	for (int i = 0; i < parts(a); i++) {
		struct part p = part_of(a, i, saved, scratch);

		prepare_bwd(a, &p, scratch, dqkv, raw);
	}
}

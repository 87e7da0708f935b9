/* forward.c: from tokens to the loss, and its gradient, layer by layer.
 *
 * The GEMM that ends a sub-layer adds the residual stream; the stream's gradient
 * lives in one buffer that norms add to on the way back. A layer's backward first
 * computes again what the mode does not keep (layout.h), each tensor just before
 * its use: it may share memory with the gradients that come after it. */
#include "train/model_int.h"

#include <stdlib.h>
#include <string.h>

struct look { /* at what layers choose */
	void (*seen)(void *arg, int layer, const int32_t *index);
	void *arg;
	int32_t *index; /* host */
	int rc;
	struct lh_err *err;
};

struct pass { /* one forward or backward over (b, t) */
	struct lh_model *m;
	const struct lh_attention_mode *mode;
	int b;
	int64_t t, R;
	bool shared; /* the sequence is, one: R rows of it are this rank's (context.h) */
	const int32_t *start, *sub_start; /* of documents, on the device; or NULL */
	const int32_t *start_host;
	int32_t *sub_start_host;          /* owned */
	struct look *look;                /* NULL: nobody does */
};

static void linear(const struct pass *p, lh_act *y, const lh_act *x, int64_t weight,
		   int64_t out, int64_t in, const lh_act *add)
{
	struct lh_linear s = { p->R, in, out };

	p->m->ops->linear(p->m->dev, &s, y, x, weight_at(p->m, weight), add);
}

/* dx and the weight's gradient of one linear map. */
static void linear_bwd(const struct pass *p, lh_act *dx, const lh_act *dy,
		       const lh_act *x, int64_t weight, int64_t out, int64_t in)
{
	struct lh_linear s = { p->R, in, out };
	struct lh_model *m = p->m;

	m->ops->linear_dw(m->dev, &s, lh_model_grad_at(m, weight), dy, x);
	m->ops->linear_dx(m->dev, &s, dx, dy, weight_at(m, weight));
}

static void norm(const struct pass *p, lh_act *y, float *rstd, const lh_act *x,
		 int64_t gain)
{
	struct lh_model *m = p->m;

	m->ops->rmsnorm(m->dev, p->R, m->c.dim, y, rstd, x, weight_at(m, gain),
			(float)m->c.norm_eps);
}

/* The residual stream's gradient takes what comes back through a norm. */
static void norm_bwd(const struct pass *p, const lh_act *dy, const lh_act *x,
		     const float *rstd, int64_t gain)
{
	struct lh_model *m = p->m;

	m->ops->rmsnorm_bwd(m->dev, p->R, m->c.dim, m->acts.dx, lh_model_grad_at(m, gain), dy,
			    x, weight_at(m, gain), rstd);
}

struct lh_attention_norm lh_model_norm_of(const struct lh_model *m, int layer)
{
	const struct lh_layer_params *w = &m->params.layers[layer];

	return (struct lh_attention_norm){
		.q_gain = weight_at(m, w->q_norm), .k_gain = weight_at(m, w->k_norm),
		.dq_gain = lh_model_grad_at(m, w->q_norm),
		.dk_gain = lh_model_grad_at(m, w->k_norm),
		.eps = (float)m->c.norm_eps };
}

/* `norm`: room for what the call may need. */
static struct lh_attention_call attention_of(const struct pass *p, int layer,
					     struct lh_attention_norm *norm)
{
	const struct lh_model *m = p->m;
	const struct lh_lighthouse *g = lh_layout_lighthouse(p->mode, layer);
	struct lh_attention_call a = {
		.ops = m->ops, .dev = m->dev, .rope = &m->acts.rope, .lighthouse = g,
		.norm = m->c.qk_norm ? norm : NULL,
		.heads = lh_layout_heads(&m->c, p->b, p->R / p->b),
		.sub_start = p->sub_start, .sub_start_host = p->sub_start_host,
		.context = p->shared ? &m->context : NULL };

	LH_ASSERT(!g || p->t == g->tokens);
	if (m->c.qk_norm)
		*norm = lh_model_norm_of(m, layer);
	a.heads.start = p->start;
	a.heads.start_host = p->start_host;
	return a;
}

/* qkv <- n1 */
static void project_norm(const struct pass *p, int i, lh_act *qkv)
{
	struct lh_model *m = p->m;
	const struct lh_layer_params *w = &m->params.layers[i];
	int64_t width = lh_qkv_width(&m->c);

	linear(p, qkv, m->acts.layer[i].n1, w->wqkv, width, m->c.dim, NULL);
	if (m->c.qkv_bias)
		m->ops->bias(m->dev, p->R, width, qkv, weight_at(m, w->bqkv));
}

/* n1, qkv <- x */
static void project(const struct pass *p, int i)
{
	struct lh_layer_acts *a = &p->m->acts.layer[i];

	norm(p, a->n1, a->rstd1, a->x, p->m->params.layers[i].norm1);
	project_norm(p, i, a->attention.qkv);
}

/* mid <- x + o wo */
static void join(const struct pass *p, int i)
{
	struct lh_layer_acts *a = &p->m->acts.layer[i];
	const struct lh_job_model *c = &p->m->c;

	linear(p, a->mid, a->attention.o, p->m->params.layers[i].wo, c->dim,
	       (int64_t)c->heads * c->head_dim, a->x);
}

/* n2, gu <- mid */
static void gate(const struct pass *p, int i)
{
	struct lh_layer_acts *a = &p->m->acts.layer[i];
	const struct lh_layer_params *w = &p->m->params.layers[i];

	norm(p, a->n2, a->rstd2, a->mid, w->norm2);
	linear(p, a->gu, a->n2, w->wgu, 2 * p->m->c.ffn_dim, p->m->c.dim, NULL);
}

static void layer_forward(const struct pass *p, int i, lh_act *out)
{
	struct lh_model *m = p->m;
	struct lh_layer_acts *a = &m->acts.layer[i];
	struct lh_attention_norm qk;
	struct lh_attention_call att = attention_of(p, i, &qk);

	project(p, i);
	lh_attention_forward(&att, &a->attention, &m->acts.attention);
	join(p, i);
	gate(p, i);
	m->ops->swiglu(m->dev, p->R, m->c.ffn_dim, a->h, a->gu);
	linear(p, out, a->h, m->params.layers[i].wdown, m->c.dim, m->c.ffn_dim, a->mid);
}

static void mlp_backward(const struct pass *p, int i)
{
	struct lh_model *m = p->m;
	const struct lh_layer_params *w = &m->params.layers[i];
	struct lh_acts *s = &m->acts;
	struct lh_layer_acts *a = &s->layer[i];
	enum lh_recompute again = p->mode->recompute;
	int64_t C = m->c.dim, F = m->c.ffn_dim;

	if (again >= LH_RECOMPUTE_MLP)
		gate(p, i);
	if (again >= LH_RECOMPUTE_CHEAP)
		m->ops->swiglu(m->dev, p->R, F, a->h, a->gu);
	linear_bwd(p, s->half, s->dx, a->h, w->wdown, C, F);
	m->ops->swiglu_bwd(m->dev, p->R, F, s->wide, s->half, a->gu);
	if (again == LH_RECOMPUTE_CHEAP)
		norm(p, a->n2, a->rstd2, a->mid, w->norm2);
	linear_bwd(p, s->dn, s->wide, a->n2, w->wgu, 2 * F, C);
	norm_bwd(p, s->dn, a->mid, a->rstd2, w->norm2);
}

static void attention_backward(const struct pass *p, int i)
{
	struct lh_model *m = p->m;
	const struct lh_layer_params *w = &m->params.layers[i];
	struct lh_acts *s = &m->acts;
	struct lh_layer_acts *a = &s->layer[i];
	enum lh_recompute again = p->mode->recompute;
	struct lh_attention_norm qk;
	struct lh_attention_call att = attention_of(p, i, &qk);

	if (again >= LH_RECOMPUTE_CHEAP && att.lighthouse)
		lh_attention_redo_output(&att, &a->attention, &s->attention);
	linear_bwd(p, s->half, s->dx, a->attention.o, w->wo, m->c.dim, att.heads.o_row);
	if (again >= LH_RECOMPUTE_CHEAP)
		norm(p, a->n1, a->rstd1, a->x, w->norm1);
	if (m->c.qk_norm) /* it was normalized in place */
		project_norm(p, i, s->raw);
	lh_attention_backward(&att, &a->attention, &s->attention, s->wide, s->half, s->raw);
	if (m->c.qkv_bias)
		m->ops->bias_bwd(m->dev, p->R, lh_qkv_width(&m->c),
				 lh_model_grad_at(m, w->bqkv), s->wide);
	linear_bwd(p, s->dn, s->wide, a->n1, w->wqkv, lh_qkv_width(&m->c), m->c.dim);
	norm_bwd(p, s->dn, a->x, a->rstd1, w->norm1);
}

static void layer_backward(const struct pass *p, int i)
{
	struct lh_model *m = p->m;
	struct lh_attention_saved *t = &m->acts.layer[i].attention;
	struct lh_attention_norm qk;
	struct lh_attention_call att = attention_of(p, i, &qk);

	if (p->mode->recompute == LH_RECOMPUTE_LAYER) {
		project(p, i);
		lh_attention_redo_inputs(&att, t);
		if (att.lighthouse)
			lh_attention_redo_output(&att, t, &m->acts.attention);
		join(p, i);
	}
	mlp_backward(p, i);
	attention_backward(p, i);
}

/* index (H,S) <- of the first sequence. */
static int fetch_index(const struct pass *p, int layer, int32_t *index, struct lh_err *err)
{
	struct lh_model *m = p->m;
	const struct lh_lighthouse *g = &p->mode->geometry;
	int64_t n = m->c.heads * lh_lighthouse_selected(g) / (p->shared ? m->context.size : 1);
	int rc = m->ops->fetch(m->dev, index, m->acts.layer[layer].attention.index,
			       (size_t)n * sizeof(*index), err);

	if (!p->shared)
		return rc;
	if (rc) /* others have theirs; any entry will do */
		memset(index, 0, (size_t)n * sizeof(*index));
	lh_context_collect_index(&m->context, g, m->c.heads, index);
	return rc;
}

/* The choice of layer i, of the first sequence. After an error nobody sees the rest. */
static void look_at(const struct pass *p, int i)
{
	struct look *l = p->look;
	int rc = fetch_index(p, i, l->index, l->rc ? NULL : l->err);

	l->rc = l->rc ? l->rc : rc;
	if (!l->rc)
		l->seen(l->arg, i, l->index);
}

static void forward(const struct pass *p)
{
	struct lh_model *m = p->m;
	struct lh_acts *a = &m->acts;
	int L = m->c.layers;

	lh_model_use_embedding(m);
	m->ops->embed(m->dev, p->R, m->c.dim, a->layer[0].x, a->tokens,
		      weight_at(m, m->params.embed));
	for (int i = 0; i < L; i++) {
		lh_model_use_layer(m, i, i + 1);
		layer_forward(p, i, i + 1 < L ? a->layer[i + 1].x : a->last);
		if (p->look && lh_layout_lighthouse(p->mode, i))
			look_at(p, i);
	}
	lh_model_use_output(m);
	norm(p, a->nf, a->rstdf, a->last, m->params.final_norm);
}

/* Gradients are made from the last parameters to the first: where they are divided a window
 * is open while its are made. The output's weights are there since the forward pass. */
static void backward(const struct pass *p, float scale)
{
	struct lh_model *m = p->m;
	struct lh_acts *a = &m->acts;
	const struct lh_params *w = &m->params;
	struct lh_params_parts n = lh_params_parts(w, &m->c);
	size_t bytes = (size_t)(p->R * m->c.dim) * lh_dtype_bytes(m->ops->sizes->act_type);

	lh_model_open_window(m, &m->grads.gains, w->decay_floats, n.gains);
	lh_model_open_window(m, &m->grads.ends, w->output, n.ends);
	m->ops->xent(m->dev, p->R, m->c.dim, m->c.vocab, m->loss, NULL, a->dn,
		     lh_model_grad_at(m, w->output), a->nf, weight_at(m, w->output),
		     a->targets, scale, a->xent, a->xent_bytes);
	if (w->output != w->embed)
		lh_model_close_window(m, &m->grads.ends);
	m->ops->zero(m->dev, a->dx, bytes);
	norm_bwd(p, a->dn, a->last, a->rstdf, w->final_norm);
	for (int i = m->c.layers - 1; i >= 0; i--) {
		struct lh_window *made = lh_layer_window(&m->grads, i);

		lh_model_use_layer(m, i, i - 1);
		lh_model_open_window(m, made, w->layers[i].wqkv, n.layer);
		layer_backward(p, i);
		lh_model_close_window(m, made);
	}
	if (w->output != w->embed)
		lh_model_open_window(m, &m->grads.ends, w->embed, n.ends);
	m->ops->embed_bwd(m->dev, p->R, m->c.dim, m->c.vocab,
			  lh_model_grad_at(m, w->embed), a->dx, a->tokens);
	lh_model_close_window(m, &m->grads.ends);
	lh_model_close_window(m, &m->grads.gains);
	lh_model_await_windows(m);
}

/* sub (S) <- the row of the sub-sequence at which each row's document begins, of a
 * sequence where they begin at starts (N). */
static void find_sub_starts(const struct lh_lighthouse *g, const int32_t *starts,
			    int32_t *sub)
{
	int64_t c = lh_lighthouse_window(g, g->levels - 1), end = lh_lighthouse_selected(g);

	for (int64_t i = lh_lighthouse_entries(g, g->levels - 1) - 1; i >= 0; i--) {
		int64_t row = lh_lighthouse_row(g, i);

		if (starts[i * c] < i * c)
			continue;
		while (end > row)
			sub[--end] = (int32_t)row;
	}
	LH_ASSERT(!end);
}

static void put_starts(struct pass *p, const int32_t *starts)
{
	struct lh_model *m = p->m;
	const struct lh_lighthouse *g = &p->mode->geometry;
	size_t bytes;
	int64_t S;

	m->ops->put(m->dev, m->acts.starts, starts, (size_t)p->R * sizeof(*starts));
	p->start = m->acts.starts;
	p->start_host = starts;
	if (!m->acts.sub_starts) /* no layer of the mode has one */
		return;
	S = lh_lighthouse_selected(g);
	bytes = (size_t)(p->b * S) * sizeof(*p->sub_start_host);
	p->sub_start_host = lh_alloc(bytes);
	for (int b = 0; b < p->b; b++)
		find_sub_starts(g, starts + b * p->t, p->sub_start_host + b * S);
	m->ops->put(m->dev, m->acts.sub_starts, p->sub_start_host, bytes);
	p->sub_start = m->acts.sub_starts;
}

/* This rank's rows of all (b,t). */
static void put_rows(const struct pass *p, int32_t *to, const int32_t *all)
{
	const struct lh_comm *c = &p->m->context;
	int count = p->shared ? 2 : 1;
	int64_t n = p->R / count;

	for (int i = 0; i < count; i++) {
		int64_t from = p->shared ? lh_context_piece(c->size, c->rank, i) * n : 0;

		p->m->ops->put(p->m->dev, to + i * n, all + from, (size_t)n * sizeof(*to));
	}
}

/* starts (b,t) or NULL. To be released. */
static struct pass pass_of(struct lh_model *m, const struct lh_attention_mode *mode,
			   bool train, int b, int64_t t, const int32_t *tokens,
			   const int32_t *targets, const int32_t *starts)
{
	struct pass p = { .m = m, .mode = mode, .b = b, .t = t, .R = b * t,
			  .shared = m->context.size > 1 && t == m->T };

	LH_ASSERT(b >= 1 && b <= m->B && t >= 1 && t <= m->T);
	if (p.shared)
		p.R = t / m->context.size;
	LH_ASSERT(p.R <= m->B * m->T / m->context.size && !(p.shared && starts));
	lh_model_lay_out(m, mode, train);
	put_rows(&p, m->acts.tokens, tokens);
	put_rows(&p, m->acts.targets, targets);
	if (starts)
		put_starts(&p, starts);
	return p;
}

static void pass_release(struct pass *p)
{
	free(p->sub_start_host);
}

void lh_model_zero_grad(struct lh_model *m)
{
	int64_t n = m->divided_grads ? m->shard : m->params.floats;

	m->ops->zero(m->dev, m->grad, (size_t)n * 4);
	m->ops->zero(m->dev, m->loss, 4);
}

void lh_model_forward_backward(struct lh_model *m, const struct lh_attention_mode *mode,
			       int b, const int32_t *tokens, const int32_t *targets,
			       const int32_t *starts, float scale)
{
	struct pass p = pass_of(m, mode, true, b, m->T, tokens, targets, starts);

	forward(&p);
	backward(&p, scale);
	pass_release(&p);
}

/* Of this rank's rows; row_loss (R) or NULL. */
static int fetch_loss(const struct pass *p, double *loss, float *row_loss,
		      struct lh_err *err)
{
	struct lh_model *m = p->m;
	float sum = 0;
	int rc = m->ops->fetch(m->dev, &sum, m->eval_loss, 4, err);

	*loss = sum;
	if (!rc && row_loss)
		rc = m->ops->fetch(m->dev, row_loss, m->acts.row_loss, (size_t)p->R * 4, err);
	return rc;
}

/* Of a shared sequence, whole. The others are asked whatever comes of one's own. */
static int collect_loss(const struct pass *p, double *loss, float *row_loss,
			struct lh_err *err)
{
	const struct lh_comm *c = &p->m->context;
	double *all = lh_calloc((size_t)c->size, sizeof(*all));
	float *rows = row_loss ? lh_calloc((size_t)p->R, sizeof(*rows)) : NULL;
	int rc = fetch_loss(p, &all[c->rank], rows, err);

	lh_comm_collect(c, "a loss", all, sizeof(*all));
	if (row_loss)
		lh_context_collect_rows(c, row_loss, rows, p->t);
	*loss = 0;
	for (int r = 0; r < c->size; r++)
		*loss += all[r];
	free(rows);
	free(all);
	return rc;
}

int lh_model_loss(struct lh_model *m, const struct lh_attention_mode *mode, int b,
		  int64_t t, const int32_t *tokens, const int32_t *targets,
		  const int32_t *starts, double *loss, float *row_loss, struct lh_err *err)
{
	struct pass p = pass_of(m, mode, false, b, t, tokens, targets, starts);
	int rc;

	forward(&p);
	m->ops->zero(m->dev, m->eval_loss, 4);
	m->ops->xent(m->dev, p.R, m->c.dim, m->c.vocab, m->eval_loss, m->acts.row_loss,
		     NULL, NULL, m->acts.nf, weight_at(m, m->params.output), m->acts.targets, 1,
		     m->acts.xent, m->acts.xent_bytes);
	rc = p.shared ? collect_loss(&p, loss, row_loss, err) :
			fetch_loss(&p, loss, row_loss, err);
	pass_release(&p);
	return rc;
}

/* Of one row: its norm once more, by itself, where a device wants its inputs to begin. */
static int read_logits(const struct pass *p, int64_t row, float *logits, struct lh_err *err)
{
	struct lh_model *m = p->m;
	size_t e = lh_dtype_bytes(m->ops->sizes->act_type);
	struct pass one = { .m = m, .mode = p->mode, .b = 1, .t = 1, .R = 1 };

	norm(&one, m->acts.nf, m->acts.rstdf,
	     (char *)m->acts.last + e * (size_t)(row * m->c.dim), m->params.final_norm);
	linear(&one, m->acts.xent, m->acts.nf, m->params.output, m->c.vocab, m->c.dim, NULL);
	return lh_model_fetch(m, logits, m->acts.xent, m->c.vocab, err);
}

/* Of row `at` of a shared sequence, which one rank has: all have one like it, whose logits
 * are read as well, as in a rehearsal. */
static int collect_logits(const struct pass *p, int64_t at, float *logits, struct lh_err *err)
{
	const struct lh_comm *c = &p->m->context;
	int64_t n = p->R / 2, V = p->m->c.vocab;
	int place = lh_context_place(c->size, (int)(at / n)), owner = place / 2;
	float *all = lh_calloc((size_t)(c->size * V), sizeof(*all));
	int rc = read_logits(p, place % 2 * n + at % n, all + c->rank * V, err);

	lh_comm_collect(c, "logits", all, (size_t)V * sizeof(*all));
	memcpy(logits, all + owner * V, (size_t)V * sizeof(*logits));
	free(all);
	return rc;
}

int lh_model_logits(struct lh_model *m, const struct lh_attention_mode *mode, int b,
		    int64_t t, const int32_t *tokens, int64_t at, float *logits,
		    struct lh_err *err)
{
	struct pass p = pass_of(m, mode, false, b, t, tokens, tokens, NULL);
	int rc = 0;

	LH_ASSERT(at >= 0 && at < t);
	forward(&p);
	if (p.shared)
		rc = collect_logits(&p, at, logits, err);
	for (int i = 0; !p.shared && !rc && i < b; i++)
		rc = read_logits(&p, i * t + at, logits + i * m->c.vocab, err);
	pass_release(&p);
	return rc;
}

int lh_model_selection(struct lh_model *m, const struct lh_attention_mode *mode, int b,
		       const int32_t *tokens, const int32_t *starts,
		       void (*seen)(void *arg, int layer, const int32_t *index), void *arg,
		       struct lh_err *err)
{
	struct pass p = pass_of(m, mode, false, b, m->T, tokens, tokens, starts);
	struct look look = { .seen = seen, .arg = arg, .err = err };

	look.index = lh_alloc((size_t)(m->c.heads * lh_lighthouse_selected(&mode->geometry)) * 4);
	p.look = &look;
	forward(&p);
	pass_release(&p);
	free(look.index);
	return look.rc;
}

/* Sizes of the micro-batches that n sequences come in; at most two differ. */
static int batches_of(const struct lh_model *m, int64_t n, int *b)
{
	int count = 0;

	if (n >= m->B)
		b[count++] = m->B;
	if (n % m->B)
		b[count++] = (int)(n % m->B);
	return count;
}

struct rehearsal {
	struct lh_model *m;
	const int32_t *ids, *starts; /* zeros: of one document, too */
	int b[2], sizes;
	int rc;                      /* of the first that failed: the others go on */
	struct lh_err *err;
};

static void rehearse_steps(const struct rehearsal *r, const struct lh_attention_mode *mode)
{
	for (int i = 0; i < r->sizes; i++)
		lh_model_forward_backward(r->m, mode, r->b[i], r->ids, r->ids, r->starts, 1);
}

static void rehearse_loss(struct rehearsal *r, const struct lh_attention_mode *mode)
{
	double loss;

	for (int i = 0; i < r->sizes; i++) {
		int rc = lh_model_loss(r->m, mode, r->b[i], r->m->T, r->ids, r->ids, r->starts,
				       &loss, NULL, r->rc ? NULL : r->err);

		r->rc = r->rc ? r->rc : rc;
	}
}

static void rehearse_logits(struct rehearsal *r, const struct lh_attention_mode *mode)
{
	struct lh_model *m = r->m;
	float *logits = lh_calloc((size_t)(m->B * m->c.vocab), sizeof(*logits));
	int rc = lh_model_logits(m, mode, r->b[0], m->T, r->ids, 0, logits,
				 r->rc ? NULL : r->err);

	r->rc = r->rc ? r->rc : rc;
	free(logits);
}

/* Ranks stay in step, whatever fails on one: passes are collective where weights are
 * divided, and so is what ends it. */
int lh_model_prepare(struct lh_model *m, const struct lh_attention_mode *modes, int count,
		     int64_t sequences, int64_t evaluated, bool documents,
		     struct lh_err *err)
{
	struct rehearsal r = { .m = m, .err = err };
	float sum, norm;
	int32_t *ids;
	int rc;

	if (!m->ops->rehearse)
		return 0;
	r.ids = ids = lh_calloc((size_t)(m->B * m->T), sizeof(*ids));
	r.starts = documents ? ids : NULL;
	m->ops->rehearse(m->dev, true);
	r.sizes = batches_of(m, sequences, r.b);
	for (int i = 0; i < count; i++)
		rehearse_steps(&r, &modes[i]);
	r.sizes = batches_of(m, evaluated, r.b);
	rehearse_loss(&r, &lh_attention_full);
	if (r.sizes)
		rehearse_logits(&r, &lh_attention_full);
	for (int i = 0; i < count; i++) {
		if (modes[i].attention != LH_ATTENTION_LIGHTHOUSE)
			continue;
		rehearse_loss(&r, &modes[i]);
		if (r.sizes && documents)
			rehearse_logits(&r, &modes[i]);
	}
	rc = lh_model_measure(m, &sum, &norm, r.rc ? NULL : err);
	m->ops->rehearse(m->dev, false);
	lh_model_zero_grad(m);
	free(ids);
	return r.rc ? r.rc : rc;
}

int lh_model_prepare_short(struct lh_model *m, int b, int64_t t, struct lh_err *err)
{
	int32_t *ids;
	double loss;
	int rc;

	if (!m->ops->rehearse)
		return 0;
	ids = lh_calloc((size_t)(b * t), sizeof(*ids));
	m->ops->rehearse(m->dev, true);
	rc = lh_model_loss(m, &lh_attention_full, b, t, ids, ids, NULL, &loss, NULL,
			   err);
	m->ops->rehearse(m->dev, false);
	free(ids);
	return rc;
}

/* model.c: construction, parameters and memory of the model; see model.h.
 *
 * Memory is planned by one walk over every tensor, done twice: first with no
 * base address, to count, then with one, to hand out views. */
#include "train/model_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/rng.h"

const struct lh_attention_mode lh_attention_full = { .attention = LH_ATTENTION_FULL };

void lh_attention_mode_of(struct lh_attention_mode *mode,
			  const struct lh_job_phase *phase, int64_t seq_len)
{
	memset(mode, 0, sizeof(*mode));
	mode->attention = phase->attention;
	mode->geometry = phase->lighthouse;
	mode->geometry.tokens = seq_len;
	for (int i = 0; i < phase->dense_count; i++)
		mode->dense[phase->dense_layers[i]] = true;
}

/* ---- parameters ------------------------------------------------------------ */

static int64_t add_param(struct lh_model *m, int64_t rows, int64_t cols, bool decays,
			 const char *name)
{
	struct lh_param *p = &m->table[m->table_count++];

	p->rows = rows;
	p->cols = cols;
	p->count = rows * cols;
	p->offset = m->count;
	p->decays = decays;
	snprintf(p->name, sizeof(p->name), "%s", name);
	m->count += p->count;
	return p->offset;
}

static int64_t add_layer_param(struct lh_model *m, int layer, int64_t rows, int64_t cols,
			       bool decays, const char *what)
{
	char name[64];

	snprintf(name, sizeof(name), "layers.%d.%s", layer, what);
	return add_param(m, rows, cols, decays, name);
}

/* Tensors that decay first, gains after them. */
static void build_table(struct lh_model *m)
{
	const struct lh_job_model *c = &m->c;
	int64_t C = c->dim, hd = (int64_t)c->heads * c->head_dim;

	m->table = lh_calloc((size_t)c->layers * 6 + 3, sizeof(*m->table));
	m->layers = lh_calloc((size_t)c->layers, sizeof(*m->layers));
	m->embed = add_param(m, c->vocab, C, true, "embed");
	for (int i = 0; i < c->layers; i++) {
		struct layer_params *l = &m->layers[i];

		l->wqkv = add_layer_param(m, i, qkv_width(c), C, true, "wqkv");
		l->wo = add_layer_param(m, i, C, hd, true, "wo");
		l->wgu = add_layer_param(m, i, 2 * c->ffn_dim, C, true, "wgu");
		l->wdown = add_layer_param(m, i, C, c->ffn_dim, true, "wdown");
	}
	m->output = c->tied ? m->embed : add_param(m, c->vocab, C, true, "output");
	m->decay_count = m->count;
	for (int i = 0; i < c->layers; i++) {
		m->layers[i].norm1 = add_layer_param(m, i, C, 1, false, "norm1");
		m->layers[i].norm2 = add_layer_param(m, i, C, 1, false, "norm2");
	}
	m->final_norm = add_param(m, C, 1, false, "final_norm");
}

const struct lh_param *lh_model_params(const struct lh_model *m, int *count)
{
	*count = m->table_count;
	return m->table;
}

int64_t lh_model_param_count(const struct lh_model *m)
{
	return m->count;
}

int64_t lh_model_arena_bytes(const struct lh_model *m)
{
	return m->arena_bytes;
}

/* ---- memory ---------------------------------------------------------------- */

struct plan {
	char *base; /* NULL while counting */
	size_t used;
};

/* Next `bytes` of the arena, 256-byte aligned. */
static void *take(struct plan *p, int64_t bytes)
{
	char *at = p->base ? p->base + p->used : NULL;

	p->used += ((size_t)bytes + 255) / 256 * 256;
	return at;
}

static void plan_state(struct lh_model *m, struct plan *p)
{
	int64_t n = m->count;

	m->param = take(p, n * 4);
	m->grad = take(p, n * 4);
	m->m = take(p, n * 4);
	m->v = take(p, n * 4);
	m->weight = m->ops->act_type == LH_F32 ?
			    (lh_act *)m->param :
			    take(p, n * (int64_t)lh_dtype_bytes(m->ops->act_type));
	m->loss = take(p, 4);
	m->eval_loss = take(p, 4);
	m->grad_norm = take(p, 4);
}

struct sizes { /* largest over the modes, in elements */
	int64_t selected; /* B*S*H*D */
	int64_t rows;     /* B*H*max(T, S): lse */
	int64_t index;    /* B*H*S */
	int64_t pyramid;  /* B*H*P */
	size_t score;     /* bytes */
};

static void grow(int64_t *to, int64_t n)
{
	if (n > *to)
		*to = n;
}

static struct lh_heads heads_of(const struct lh_model *m, int b, int64_t t)
{
	const struct lh_job_model *c = &m->c;

	return (struct lh_heads){
		.batch = b, .tokens = t, .heads = c->heads, .kv_heads = c->kv_heads,
		.head_dim = c->head_dim, .q_row = qkv_width(c), .kv_row = qkv_width(c),
		.o_row = (int64_t)c->heads * c->head_dim };
}

static struct sizes sizes_of(const struct lh_model *m,
			     const struct lh_attention_mode *modes, int count)
{
	int64_t BH = (int64_t)m->B * m->c.heads;
	struct sizes z = { .rows = BH * m->T };

	for (int i = 0; i < count; i++) {
		const struct lh_lighthouse *g = &modes[i].geometry;
		struct lh_heads h = heads_of(m, m->B, m->T);
		int64_t S;
		size_t score;

		if (modes[i].attention != LH_ATTENTION_LIGHTHOUSE)
			continue;
		S = lh_lighthouse_selected(g);
		score = m->ops->lighthouse_score_scratch_bytes(g, &h);
		grow(&z.selected, BH * S * m->c.head_dim);
		grow(&z.rows, BH * S);
		grow(&z.index, BH * S);
		grow(&z.pyramid, BH * lh_lighthouse_pyramid(g));
		z.score = score > z.score ? score : z.score;
	}
	return z;
}

static void plan_layer(struct lh_model *m, struct plan *p, struct layer_acts *a,
		       const struct sizes *z)
{
	int64_t R = m->B * m->T, e = (int64_t)lh_dtype_bytes(m->ops->act_type);
	const struct lh_job_model *c = &m->c;

	a->x = take(p, R * c->dim * e);
	a->n1 = take(p, R * c->dim * e);
	a->rstd1 = take(p, R * 4);
	a->attention.qkv = take(p, R * qkv_width(c) * e);
	a->attention.o = take(p, R * c->heads * c->head_dim * e);
	a->attention.lse = take(p, z->rows * 4);
	a->attention.index = take(p, z->index * 4);
	a->attention.qs = take(p, z->selected * e);
	a->attention.ks = take(p, z->selected * e);
	a->attention.vs = take(p, z->selected * e);
	a->attention.os = take(p, z->selected * e);
	a->mid = take(p, R * c->dim * e);
	a->n2 = take(p, R * c->dim * e);
	a->rstd2 = take(p, R * 4);
	a->gu = take(p, R * 2 * c->ffn_dim * e);
	a->h = take(p, R * c->ffn_dim * e);
}

static void plan_scratch(struct lh_model *m, struct plan *p, const struct sizes *z)
{
	int64_t R = m->B * m->T, e = (int64_t)lh_dtype_bytes(m->ops->act_type);
	const struct lh_job_model *c = &m->c;
	int64_t hd = (int64_t)c->heads * c->head_dim, wide = 2 * c->ffn_dim;
	struct scratch *s = &m->s;

	grow(&wide, qkv_width(c));
	s->dx = take(p, R * c->dim * e);
	s->dn = take(p, R * c->dim * e);
	s->wide = take(p, R * wide * e);
	s->half = take(p, R * (c->ffn_dim > hd ? c->ffn_dim : hd) * e);
	s->attention.score_q = take(p, z->pyramid * 4);
	s->attention.score_k = take(p, z->pyramid * 4);
	s->attention.score = take(p, (int64_t)z->score);
	s->attention.map = take(p, z->pyramid * 4);
	s->attention.dqs = take(p, z->selected * e);
	s->attention.dks = take(p, z->selected * e);
	s->attention.dvs = take(p, z->selected * e);
	s->attention.dos = take(p, z->selected * e);
	s->xent_bytes = m->ops->xent_scratch_bytes(R, c->dim, c->vocab);
	s->xent = take(p, (int64_t)s->xent_bytes);
}

static void plan_acts(struct lh_model *m, struct plan *p, const struct sizes *z)
{
	int64_t R = m->B * m->T, e = (int64_t)lh_dtype_bytes(m->ops->act_type);
	int64_t half = m->c.head_dim / 2;

	m->rope.cos = take(p, m->T * half * 4);
	m->rope.sin = take(p, m->T * half * 4);
	m->tokens = take(p, R * 4);
	m->targets = take(p, R * 4);
	m->row_loss = take(p, R * 4);
	for (int i = 0; i < m->c.layers; i++)
		plan_layer(m, p, &m->acts[i], z);
	m->last = take(p, R * m->c.dim * e);
	m->nf = take(p, R * m->c.dim * e);
	m->rstdf = take(p, R * 4);
	plan_scratch(m, p, z);
}

/* Angles t * theta^(-2d/D), d < D/2, in double so that long positions keep their
 * precision. */
static void fill_rope(struct lh_model *m)
{
	int half = m->c.head_dim / 2;
	size_t n = (size_t)m->T * (size_t)half;
	float *cosines = lh_calloc(n, 4), *sines = lh_calloc(n, 4);

	for (int64_t t = 0; t < m->T; t++)
		for (int d = 0; d < half; d++) {
			double a = (double)t * pow(m->c.rope_theta, -(double)d / half);

			cosines[t * half + d] = (float)cos(a);
			sines[t * half + d] = (float)sin(a);
		}
	m->ops->put(m->dev, (float *)m->rope.cos, cosines, n * 4);
	m->ops->put(m->dev, (float *)m->rope.sin, sines, n * 4);
	free(cosines);
	free(sines);
}

int lh_model_new(struct lh_model **out, const struct lh_ops *ops, struct lh_dev *dev,
		 const struct lh_job_model *config, int B, int64_t T,
		 const struct lh_attention_mode *modes, int mode_count,
		 struct lh_err *err)
{
	struct lh_model *m = lh_calloc(1, sizeof(*m));
	struct plan state = { 0 }, acts = { 0 };
	struct sizes z;
	int rc;

	m->ops = ops;
	m->dev = dev;
	m->c = *config;
	m->c.preset = NULL;
	m->B = B;
	m->T = T;
	m->acts = lh_calloc((size_t)config->layers, sizeof(*m->acts));
	build_table(m);
	z = sizes_of(m, modes, mode_count);
	plan_state(m, &state);
	plan_acts(m, &acts, &z);
	m->arena_bytes = (int64_t)(state.used + acts.used);
	rc = ops->alloc(dev, &m->state_arena, state.used, err);
	if (!rc)
		rc = ops->alloc(dev, &m->act_arena, acts.used, err);
	if (rc) {
		lh_err_prefix(err, "the model needs %lld MiB",
			      (long long)(m->arena_bytes >> 20));
		lh_model_free(m);
		return rc;
	}
	ops->zero(dev, m->state_arena, state.used);
	state = (struct plan){ .base = m->state_arena };
	acts = (struct plan){ .base = m->act_arena };
	plan_state(m, &state);
	plan_acts(m, &acts, &z);
	fill_rope(m);
	*out = m;
	return 0;
}

void lh_model_free(struct lh_model *m)
{
	if (!m)
		return;
	m->ops->free(m->dev, m->state_arena);
	m->ops->free(m->dev, m->act_arena);
	free(m->acts);
	free(m->layers);
	free(m->table);
	free(m);
}

/* ---- state ----------------------------------------------------------------- */

static float *state_of(struct lh_model *m, enum lh_model_state which)
{
	switch (which) {
	case LH_STATE_PARAM:
		return m->param;
	case LH_STATE_MOMENT1:
		return m->m;
	case LH_STATE_MOMENT2:
		return m->v;
	case LH_STATE_GRAD:
		return m->grad;
	}
	LH_BUG("no such state %d", (int)which);
}

int lh_model_read(struct lh_model *m, enum lh_model_state which, int64_t offset,
		  int64_t count, float *host, struct lh_err *err)
{
	LH_ASSERT(offset >= 0 && offset + count <= m->count);
	return m->ops->fetch(m->dev, host, state_of(m, which) + offset,
			     (size_t)count * 4, err);
}

void lh_model_write(struct lh_model *m, enum lh_model_state which, int64_t offset,
		    int64_t count, const float *host)
{
	LH_ASSERT(offset >= 0 && offset + count <= m->count);
	m->ops->put(m->dev, state_of(m, which) + offset, host, (size_t)count * 4);
}

void lh_model_weights_changed(struct lh_model *m)
{
	if ((void *)m->weight != (void *)m->param)
		m->ops->cast(m->dev, m->weight, m->param, m->count);
}

/* Projections into the residual stream start smaller: their sums over layers
 * would grow its variance with depth. */
static double std_of(const struct lh_model *m, const struct lh_param *p)
{
	const char *dot = strrchr(p->name, '.');

	if (dot && (!strcmp(dot, ".wo") || !strcmp(dot, ".wdown")))
		return m->c.init_std / sqrt(2.0 * m->c.layers);
	return m->c.init_std;
}

void lh_model_init(struct lh_model *m, uint64_t seed)
{
	for (int i = 0; i < m->table_count; i++) {
		const struct lh_param *p = &m->table[i];
		float *host = lh_calloc((size_t)p->count + 3, 4);

		for (int64_t j = 0; j < p->count; j += 4) {
			if (p->decays)
				lh_rng_normal(seed, LH_RNG_INIT,
					      (uint64_t)(p->offset + j), host + j);
			for (int64_t k = j; k < j + 4; k++)
				host[k] = p->decays ?
						  (float)(host[k] * std_of(m, p)) : 1;
		}
		lh_model_write(m, LH_STATE_PARAM, p->offset, p->count, host);
		free(host);
	}
	m->ops->zero(m->dev, m->m, (size_t)m->count * 4);
	m->ops->zero(m->dev, m->v, (size_t)m->count * 4);
	lh_model_weights_changed(m);
}

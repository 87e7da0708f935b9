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
#include "train/rope.h"

/* ---- parameters ------------------------------------------------------------ */

const struct lh_param *lh_model_params(const struct lh_model *m, int *count)
{
	*count = m->params.count;
	return m->params.table;
}

int64_t lh_model_param_count(const struct lh_model *m)
{
	return m->params.floats;
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

/* `slot`: the first of as many as there are windows. */
static void plan_windows(const struct lh_model *m, struct lh_windows *w, struct plan *p,
			 int64_t bytes, int slot)
{
	struct lh_params_parts parts = lh_params_parts(&m->params, &m->c);

	for (int i = 0; i < 2; i++)
		w->layer[i] = (struct lh_window){ .at = take(p, parts.layer * bytes),
						  .slot = slot++ };
	w->ends = (struct lh_window){ .at = take(p, parts.ends * bytes), .slot = slot++ };
	w->gains = (struct lh_window){ m->params.decay_floats, parts.gains,
				       take(p, parts.gains * bytes), .slot = slot };
}

static void plan_state(struct lh_model *m, struct plan *p)
{
	int64_t e = (int64_t)lh_dtype_bytes(m->ops->sizes->act_type);
	int64_t n = m->comm.size * m->shard;

	m->param = take(p, (m->divided_weights ? m->shard : n) * 4);
	m->grad = take(p, (m->divided_grads ? m->shard : n) * 4);
	m->m = take(p, m->shard * 4);
	m->v = take(p, m->shard * 4);
	m->weight = m->ops->sizes->act_type == LH_F32 ? (lh_act *)m->param :
							take(p, held_count(m) * e);
	if (m->divided_grads)
		plan_windows(m, &m->grads, p, 4, 0);
	if (m->divided_weights)
		plan_windows(m, &m->weights, p, e, LH_WINDOWS);
	m->loss = take(p, 4);
	m->eval_loss = take(p, 4);
	m->grad_norm = take(p, 4);
}

void lh_model_fill_rope(struct lh_model *m, const struct lh_rope *rope, int64_t tokens)
{
	int half = m->c.head_dim / 2;
	size_t n = (size_t)tokens * (size_t)half;
	float *cosines = lh_calloc(n, 4), *sines = lh_calloc(n, 4);
	double *turn = lh_calloc((size_t)half, sizeof(*turn));
	double length = lh_rope_length(&m->c);

	lh_rope_turns(&m->c, turn);
#pragma omp parallel for
	for (int64_t t = 0; t < tokens; t++)
		for (int d = 0; d < half; d++) {
			double a = (double)t * turn[d];

			cosines[t * half + d] = (float)(length * cos(a));
			sines[t * half + d] = (float)(length * sin(a));
		}
	m->ops->put(m->dev, (float *)rope->cos, cosines, n * 4);
	m->ops->put(m->dev, (float *)rope->sin, sines, n * 4);
	free(cosines);
	free(sines);
	free(turn);
}

/* Bytes of activations for whatever the model may be asked to do. */
static int64_t most_bytes(struct lh_layout l, const struct lh_attention_mode *modes,
			  int count)
{
	int64_t most, bytes;

	l.mode = &lh_attention_full;
	l.train = false;
	most = lh_layout_measure(&l, NULL);
	for (int i = 0; i < 2 * count; i++) {
		l.mode = &modes[i / 2];
		l.train = i % 2;
		bytes = lh_layout_measure(&l, NULL);
		most = bytes > most ? bytes : most;
	}
	return most;
}

void lh_model_lay_out(struct lh_model *m, const struct lh_attention_mode *mode, bool train)
{
	m->layout.mode = mode;
	m->layout.train = train;
	LH_ASSERT(lh_layout_measure(&m->layout, NULL) <= m->act_bytes);
	lh_layout_place(&m->layout, m->act_arena, &m->acts);
}

int lh_model_new(struct lh_model **out, const struct lh_ops *ops, struct lh_dev *dev,
		 const struct lh_division *division, const struct lh_job_model *config, int B,
		 int64_t T, const struct lh_attention_mode *modes, int mode_count,
		 struct lh_err *err)
{
	struct lh_model *m = lh_calloc(1, sizeof(*m));
	struct plan state = { 0 };
	int rc;

	m->ops = ops;
	m->dev = dev;
	m->comm = division ? division->comm : LH_COMM_ALONE;
	m->context = division && division->context.size > 1 ? division->context :
							     LH_COMM_ALONE;
	if (m->comm.size > 1) {
		m->divided_grads = division->divide >= LH_DIVIDE_GRADIENTS;
		m->divided_weights = division->divide >= LH_DIVIDE_WEIGHTS;
	}
	m->c = *config;
	m->c.preset = m->c.from = NULL;
	m->B = B;
	m->T = T;
	m->layout = (struct lh_layout){ .model = &m->c, .sizes = ops->sizes, .B = B,
					.T = T, .context = m->context.size };
	lh_params_init(&m->params, &m->c);
	m->shard = lh_layout_shard(m->params.floats, m->comm.size);
	m->first = m->comm.rank * m->shard;
	plan_state(m, &state);
	m->act_bytes = most_bytes(m->layout, modes, mode_count);
	rc = ops->alloc(dev, &m->state_arena, state.used, err);
	if (!rc)
		rc = ops->alloc(dev, &m->act_arena, (size_t)m->act_bytes, err);
	if (rc) {
		lh_err_prefix(err, "the model needs %lld MiB",
			      (long long)(((int64_t)state.used + m->act_bytes) >> 20));
		lh_model_free(m);
		return rc;
	}
	ops->zero(dev, m->state_arena, state.used);
	state = (struct plan){ .base = m->state_arena };
	plan_state(m, &state);
	lh_model_lay_out(m, &lh_attention_full, false);
	lh_model_fill_rope(m, &m->acts.rope, T);
	*out = m;
	return 0;
}

void lh_model_free(struct lh_model *m)
{
	if (!m)
		return;
	m->ops->free(m->dev, m->state_arena);
	m->ops->free(m->dev, m->act_arena);
	lh_params_release(&m->params);
	free(m);
}

/* ---- state ----------------------------------------------------------------- */

struct lh_held lh_model_held(const struct lh_model *m, enum lh_model_state which)
{
	switch (which) {
	case LH_STATE_PARAM:
		return (struct lh_held){ m->param, held_first(m), held_count(m) };
	case LH_STATE_MOMENT1:
		return (struct lh_held){ m->m, m->first, shard_count(m) };
	case LH_STATE_MOMENT2:
		return (struct lh_held){ m->v, m->first, shard_count(m) };
	case LH_STATE_GRAD:
		if (m->divided_grads)
			return (struct lh_held){ m->grad, m->first, shard_count(m) };
		return (struct lh_held){ m->grad, 0, m->params.floats };
	}
	LH_BUG("no such state %d", (int)which);
}

int lh_model_read(struct lh_model *m, enum lh_model_state which, int64_t offset,
		  int64_t count, float *host, struct lh_err *err)
{
	struct lh_held h = lh_model_held(m, which);

	LH_ASSERT(offset >= h.first && offset + count <= h.first + h.count);
	return m->ops->fetch(m->dev, host, h.at + (offset - h.first), (size_t)count * 4,
			     err);
}

int lh_model_fetch(struct lh_model *m, float *host, const lh_act *src, int64_t n,
		   struct lh_err *err)
{
	uint16_t *half;
	uint32_t bits;
	int rc;

	if (m->ops->sizes->act_type == LH_F32)
		return m->ops->fetch(m->dev, host, src, (size_t)n * 4, err);
	half = lh_calloc((size_t)n, sizeof(*half));
	rc = m->ops->fetch(m->dev, half, src, (size_t)n * 2, err);
	for (int64_t i = 0; i < n; i++) {
		bits = (uint32_t)half[i] << 16; /* bf16 is the upper half of a float32 */
		memcpy(host + i, &bits, 4);
	}
	free(half);
	return rc;
}

void lh_model_write(struct lh_model *m, enum lh_model_state which, int64_t offset,
		    int64_t count, const float *host)
{
	struct lh_held h = lh_model_held(m, which);
	int64_t from = offset > h.first ? offset : h.first;
	int64_t to = offset + count < h.first + h.count ? offset + count :
							  h.first + h.count;

	LH_ASSERT(offset >= 0 && offset + count <= m->params.floats);
	if (from < to)
		m->ops->put(m->dev, h.at + (from - h.first), host + (from - offset),
			    (size_t)(to - from) * 4);
}

void lh_model_weights_changed(struct lh_model *m)
{
	int64_t n = held_count(m);

	if ((void *)m->weight != (void *)m->param && n)
		m->ops->cast(m->dev, m->weight, m->param, n);
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
	for (int i = 0; i < m->params.count; i++) {
		const struct lh_param *p = &m->params.table[i];
		double std = std_of(m, p);
		float *host;

		if (p->offset >= held_first(m) + held_count(m) ||
		    p->offset + p->count <= held_first(m))
			continue; /* another rank's */
		host = lh_calloc((size_t)p->count + 3, 4);
#pragma omp parallel for
		for (int64_t j = 0; j < p->count; j += 4) {
			if (p->decays)
				lh_rng_normal(seed, LH_RNG_INIT,
					      (uint64_t)(p->offset + j), host + j);
			for (int64_t k = j; k < j + 4; k++)
				host[k] = p->decays ? (float)(host[k] * std) : p->initial;
		}
		lh_model_write(m, LH_STATE_PARAM, p->offset, p->count, host);
		free(host);
	}
	m->ops->zero(m->dev, m->m, (size_t)m->shard * 4);
	m->ops->zero(m->dev, m->v, (size_t)m->shard * 4);
	lh_model_weights_changed(m);
}

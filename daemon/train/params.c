/* params.c: see params.h. */
#include "train/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/err.h"

enum { PER_LAYER = 9, OTHERS = 3 };

static int64_t add(struct lh_params *t, int64_t rows, int64_t cols, bool decays,
		   const char *name)
{
	struct lh_param *p = &t->table[t->count++];

	p->rows = rows;
	p->cols = cols;
	p->count = rows * cols;
	p->offset = t->floats;
	p->decays = decays;
	snprintf(p->name, sizeof(p->name), "%s", name);
	t->floats += p->count;
	return p->offset;
}

static int64_t add_matrix(struct lh_params *t, int layer, int64_t rows, int64_t cols,
			  const char *what)
{
	char name[64];

	snprintf(name, sizeof(name), "layers.%d.%s", layer, what);
	return add(t, rows, cols, true, name);
}

static int64_t add_vector(struct lh_params *t, int layer, int64_t rows, float initial,
			  const char *what)
{
	char name[64];
	int64_t offset;

	snprintf(name, sizeof(name), "layers.%d.%s", layer, what);
	offset = add(t, rows, 1, false, name);
	t->table[t->count - 1].initial = initial;
	return offset;
}

void lh_params_init(struct lh_params *t, const struct lh_job_model *c)
{
	int64_t C = c->dim, hd = (int64_t)c->heads * c->head_dim;

	memset(t, 0, sizeof(*t));
	t->table = lh_calloc((size_t)c->layers * PER_LAYER + OTHERS, sizeof(*t->table));
	t->layers = lh_calloc((size_t)c->layers, sizeof(*t->layers));
	t->embed = add(t, c->vocab, C, true, "embed");
	for (int i = 0; i < c->layers; i++) {
		struct lh_layer_params *l = &t->layers[i];

		l->wqkv = add_matrix(t, i, lh_qkv_width(c), C, "wqkv");
		l->wo = add_matrix(t, i, C, hd, "wo");
		l->wgu = add_matrix(t, i, 2 * c->ffn_dim, C, "wgu");
		l->wdown = add_matrix(t, i, C, c->ffn_dim, "wdown");
	}
	t->output = c->tied ? t->embed : add(t, c->vocab, C, true, "output");
	t->decay_floats = t->floats;
	for (int i = 0; i < c->layers; i++) {
		struct lh_layer_params *l = &t->layers[i];

		l->norm1 = add_vector(t, i, C, 1, "norm1");
		l->norm2 = add_vector(t, i, C, 1, "norm2");
		if (c->qkv_bias)
			l->bqkv = add_vector(t, i, lh_qkv_width(c), 0, "bqkv");
		if (!c->qk_norm)
			continue;
		l->q_norm = add_vector(t, i, c->head_dim, 1, "q_norm");
		l->k_norm = add_vector(t, i, c->head_dim, 1, "k_norm");
	}
	t->final_norm = add(t, C, 1, false, "final_norm");
	t->table[t->count - 1].initial = 1;
}

struct lh_params_parts lh_params_parts(const struct lh_params *p,
				       const struct lh_job_model *c)
{
	int64_t end = p->output == p->embed ? p->decay_floats : p->output;

	return (struct lh_params_parts){ .layer = (end - p->layers[0].wqkv) / c->layers,
					 .ends = (int64_t)c->vocab * c->dim,
					 .gains = p->floats - p->decay_floats };
}

void lh_params_release(struct lh_params *t)
{
	free(t->table);
	free(t->layers);
	memset(t, 0, sizeof(*t));
}

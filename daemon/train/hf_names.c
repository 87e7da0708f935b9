/* hf_names.c: which of their tensors make up each of ours; see hf_int.h. */
#include "train/hf_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/err.h"

enum split { WHOLE, QKV, GATE_UP };

static const struct name {
	const char *ours; /* after "layers.N." */
	enum split split;
	const char *theirs[LH_HF_PIECES_MAX]; /* after "model.layers.N." */
} layer_names[] = {
	{ "wqkv", QKV, { "self_attn.q_proj.weight", "self_attn.k_proj.weight",
			 "self_attn.v_proj.weight" } },
	{ "wo", WHOLE, { "self_attn.o_proj.weight" } },
	{ "wgu", GATE_UP, { "mlp.gate_proj.weight", "mlp.up_proj.weight" } },
	{ "wdown", WHOLE, { "mlp.down_proj.weight" } },
	{ "bqkv", QKV, { "self_attn.q_proj.bias", "self_attn.k_proj.bias",
			 "self_attn.v_proj.bias" } },
	{ "q_norm", WHOLE, { "self_attn.q_norm.weight" } },
	{ "k_norm", WHOLE, { "self_attn.k_norm.weight" } },
	{ "norm1", WHOLE, { "input_layernorm.weight" } },
	{ "norm2", WHOLE, { "post_attention_layernorm.weight" } },
}, other_names[] = {
	{ "embed", WHOLE, { "model.embed_tokens.weight" } },
	{ "output", WHOLE, { "lm_head.weight" } },
	{ "final_norm", WHOLE, { "model.norm.weight" } },
};

static const struct name *find(const struct name *names, size_t n, const char *ours)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(names[i].ours, ours))
			return &names[i];
	LH_BUG("no name for '%s'", ours);
}

/* Rows of piece i; 0: there is no such piece. */
static int64_t rows_of(const struct name *n, int i, const struct lh_param *p,
		       const struct lh_job_model *c)
{
	if (!n->theirs[i])
		return 0;
	switch (n->split) {
	case WHOLE:
		return p->rows;
	case QKV:
		return (int64_t)(i ? c->kv_heads : c->heads) * c->head_dim;
	case GATE_UP:
		return c->ffn_dim;
	}
	LH_BUG("no such split %d", (int)n->split);
}

int lh_hf_pieces(struct lh_hf_piece piece[LH_HF_PIECES_MAX], const struct lh_param *p,
		 const struct lh_job_model *c)
{
	bool in_layer = !strncmp(p->name, "layers.", 7);
	const char *dot = in_layer ? strchr(p->name + 7, '.') : NULL;
	const struct name *name = in_layer ?
		find(layer_names, sizeof(layer_names) / sizeof(*layer_names), dot + 1) :
		find(other_names, sizeof(other_names) / sizeof(*other_names), p->name);
	int64_t from = 0;
	int n = 0;

	for (int64_t rows; n < LH_HF_PIECES_MAX && (rows = rows_of(name, n, p, c)); n++) {
		struct lh_hf_piece *o = &piece[n];

		/* A matrix may have one column; what does not decay is a vector. */
		*o = (struct lh_hf_piece){ .dims = p->decays ? 2 : 1,
					   .shape = { rows, p->cols }, .from = from,
					   .count = rows * p->cols };
		from += o->count;
		if (in_layer)
			snprintf(o->name, sizeof(o->name), "model.layers.%d.%s",
				 atoi(p->name + 7), name->theirs[n]);
		else
			snprintf(o->name, sizeof(o->name), "%s", name->theirs[n]);
	}
	LH_ASSERT(from == p->count);
	return n;
}

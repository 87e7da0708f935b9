/* layout.c: see layout.h. One walk serves both: with no arena it counts. */
#include "train/layout.h"

#include <string.h>

const struct lh_attention_mode lh_attention_full = { .attention = LH_ATTENTION_FULL,
						     .recompute = LH_RECOMPUTE_NONE };

void lh_attention_mode_of(struct lh_attention_mode *mode, const struct lh_job *job,
			  int phase)
{
	const struct lh_job_phase *p = &job->phases[phase];

	memset(mode, 0, sizeof(*mode));
	mode->attention = p->attention;
	mode->recompute = job->recompute;
	mode->geometry = p->lighthouse;
	mode->geometry.tokens = job->data.seq_len;
	for (int i = 0; i < p->dense_count; i++)
		mode->dense[p->dense_layers[i]] = true;
}

enum purpose { KEPT, SCRATCH, LOSS, PURPOSES };

struct walk {
	const struct lh_layout *l;
	char *base; /* NULL while counting */
	int64_t used[PURPOSES];
	int64_t at;
	int64_t R, e;
	int64_t S;   /* rows of sub-sequences, of all that a rank has */
	int ranks;   /* that share a sequence */
	enum lh_recompute recompute;
};

/* Next `bytes` of the arena, 256-byte aligned. */
static void *take(struct walk *w, enum purpose purpose, int64_t bytes)
{
	char *p = w->base ? w->base + w->at : NULL;

	bytes = (bytes + 255) / 256 * 256;
	w->used[purpose] += bytes;
	w->at += bytes;
	return p;
}

/* (R,cols) of activations. */
static void *rows(struct walk *w, enum purpose purpose, int64_t cols)
{
	return take(w, purpose, w->R * cols * w->e);
}

static int64_t max(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

const struct lh_lighthouse *lh_layout_lighthouse(const struct lh_attention_mode *mode,
						 int layer)
{
	bool full = mode->attention == LH_ATTENTION_FULL || mode->dense[layer];

	return full ? NULL : &mode->geometry;
}

struct lh_heads lh_layout_heads(const struct lh_job_model *c, int B, int64_t T)
{
	return (struct lh_heads){
		.batch = B, .tokens = T, .heads = c->heads, .kv_heads = c->kv_heads,
		.head_dim = c->head_dim, .q_row = lh_qkv_width(c), .kv_row = lh_qkv_width(c),
		.o_row = (int64_t)c->heads * c->head_dim };
}

/* What every layer shares. */
struct shared {
	lh_act *x, *mid, *qkv, *qs, *ks, *vs, *os;
	float *rstd;
	int32_t *index;
};

static bool has(const struct lh_layout *l, bool lighthouse)
{
	for (int i = 0; i < l->model->layers; i++)
		if (!lh_layout_lighthouse(l->mode, i) != lighthouse)
			return true;
	return false;
}

/* Tensors that are not kept and have no gradient to share memory with. */
static void place_shared(struct walk *w, struct shared *s, struct lh_acts *a)
{
	const struct lh_job_model *c = w->l->model;
	bool again = w->recompute == LH_RECOMPUTE_LAYER || !w->l->train;

	memset(s, 0, sizeof(*s));
	if (again)
		s->mid = rows(w, SCRATCH, c->dim);
	if (!w->l->train) {
		s->x = rows(w, SCRATCH, c->dim);
		s->rstd = take(w, SCRATCH, w->R * 4);
	}
	/* Without a backward pass nothing else is in `wide` when qkv is. */
	s->qkv = again && w->l->train && has(w->l, false) ?
			 rows(w, SCRATCH, lh_qkv_width(c)) : a->wide;
	if (!has(w->l, true))
		return;
	if (again) {
		int64_t n = w->S * c->heads;

		s->qs = take(w, SCRATCH, n * c->head_dim * w->e);
		s->ks = take(w, SCRATCH, n * c->head_dim * w->e);
		s->vs = take(w, SCRATCH, n * c->head_dim * w->e);
		if (!w->l->train) {
			s->os = take(w, SCRATCH, n * c->head_dim * w->e);
			s->index = take(w, SCRATCH, n * 4);
		}
	}
}

static void place_attention(struct walk *w, struct lh_attention_saved *t,
			    const struct shared *s, const struct lh_acts *a,
			    const struct lh_lighthouse *g)
{
	const struct lh_job_model *c = w->l->model;
	int64_t D = c->head_dim, n = c->heads * (g ? w->S : w->R);
	bool train = w->l->train, rare = train && w->recompute < LH_RECOMPUTE_LAYER;

	t->lse = train ? take(w, KEPT, n * 4) : NULL;
	if (!g) {
		t->qkv = rare ? rows(w, KEPT, lh_qkv_width(c)) : s->qkv;
		t->o = train ? rows(w, KEPT, c->heads * D) : a->half;
		return;
	}
	t->qkv = a->wide; /* dead after the gather */
	t->o = train && w->recompute == LH_RECOMPUTE_NONE ? rows(w, KEPT, c->heads * D) :
							    a->half;
	t->index = train ? take(w, KEPT, n * 4) : s->index;
	t->qs = rare ? take(w, KEPT, n * D * w->e) : s->qs;
	t->ks = rare ? take(w, KEPT, n * D * w->e) : s->ks;
	t->vs = rare ? take(w, KEPT, n * D * w->e) : s->vs;
	t->os = train ? take(w, KEPT, n * D * w->e) : s->os;
}

static void place_layer(struct walk *w, int i, const struct shared *s, struct lh_acts *a)
{
	const struct lh_job_model *c = w->l->model;
	struct lh_layer_acts *y = &a->layer[i];
	bool train = w->l->train;
	/* The least recomputation at which a tensor goes. */
	bool norms = train && w->recompute < LH_RECOMPUTE_CHEAP;
	bool mlp = train && w->recompute < LH_RECOMPUTE_MLP;
	bool mid = train && w->recompute < LH_RECOMPUTE_LAYER;

	memset(y, 0, sizeof(*y));
	y->x = train ? rows(w, KEPT, c->dim) : s->x;
	y->rstd1 = train ? take(w, KEPT, w->R * 4) : s->rstd;
	y->rstd2 = train ? take(w, KEPT, w->R * 4) : s->rstd;
	y->n1 = norms ? rows(w, KEPT, c->dim) : a->dn;
	place_attention(w, &y->attention, s, a, lh_layout_lighthouse(w->l->mode, i));
	y->mid = mid ? rows(w, KEPT, c->dim) : s->mid;
	y->n2 = norms ? rows(w, KEPT, c->dim) : a->dn;
	y->gu = mlp ? rows(w, KEPT, 2 * c->ffn_dim) : a->wide;
	y->h = norms ? rows(w, KEPT, c->ffn_dim) : a->half;
}

static int64_t halo_elements(const struct walk *w)
{
	const struct lh_job_model *c = w->l->model;

	return (int64_t)2 * w->ranks * (w->l->mode->geometry.levels - 1) * c->heads *
	       c->head_dim;
}

/* Keys and values of all pieces, of the layers that have most of them. */
static void place_context(struct walk *w, struct lh_context_scratch *s)
{
	const struct lh_job_model *c = w->l->model;
	int64_t n = 0, halo = has(w->l, true) ? halo_elements(w) : 0;
	int64_t piece;

	if (w->ranks == 1)
		return;
	if (has(w->l, false))
		n = w->l->T * c->kv_heads * c->head_dim;
	if (has(w->l, true))
		n = max(n, w->ranks * w->S * c->heads * c->head_dim);
	piece = n / (2 * w->ranks);
	s->kv = take(w, SCRATCH, 2 * n * w->e);
	s->halo = take(w, SCRATCH, halo * w->e);
	if (!w->l->train)
		return;
	s->dkv = take(w, SCRATCH, 2 * (n + piece) * w->e);
	s->got = s->kv; /* which nobody reads when gradients are there */
	s->dhalo = take(w, SCRATCH, halo * 4);
}

static void place_attention_scratch(struct walk *w, struct lh_attention_scratch *s)
{
	const struct lh_layout *l = w->l;
	struct lh_lighthouse g;
	struct lh_heads h;
	int64_t P, n;

	place_context(w, &s->context);
	if (!has(l, true))
		return;
	g = lh_context_geometry(&l->mode->geometry, w->ranks);
	h = lh_context_heads(lh_layout_heads(l->model, l->B, l->T), w->ranks);
	P = (int64_t)l->B * l->model->heads * lh_lighthouse_pyramid(&g) * 4;
	n = w->S * l->model->heads * l->model->head_dim * w->e;
	s->score_q = take(w, SCRATCH, P);
	s->score_k = take(w, SCRATCH, P);
	s->score = take(w, SCRATCH, (int64_t)l->sizes->score_bytes(&g, &h));
	s->map = take(w, SCRATCH, w->ranks > 1 ? 2 * P : P);
	if (!l->train)
		return;
	s->dqs = take(w, SCRATCH, n);
	s->dks = take(w, SCRATCH, n);
	s->dvs = take(w, SCRATCH, n);
	s->dos = take(w, SCRATCH, n);
}

static void place(struct walk *w, struct lh_acts *a)
{
	const struct lh_layout *l = w->l;
	const struct lh_job_model *c = l->model;
	int64_t hd = (int64_t)c->heads * c->head_dim, table = l->T * c->head_dim / 2 * 4;
	struct shared s;

	a->rope.cos = take(w, KEPT, table);
	a->rope.sin = take(w, KEPT, table);
	a->tokens = take(w, KEPT, w->R * 4);
	a->targets = take(w, KEPT, w->R * 4);
	a->starts = take(w, KEPT, w->R * 4);
	a->row_loss = take(w, KEPT, w->R * 4);
	a->dx = l->train ? rows(w, SCRATCH, c->dim) : NULL;
	a->dn = rows(w, SCRATCH, c->dim);
	a->wide = rows(w, SCRATCH, max(2 * c->ffn_dim, lh_qkv_width(c)));
	a->half = rows(w, SCRATCH, max(max(c->ffn_dim, hd), c->dim));
	if (l->train && c->qk_norm)
		a->raw = rows(w, SCRATCH, lh_qkv_width(c));
	a->sub_starts = NULL;
	if (has(l, true))
		a->sub_starts = take(w, KEPT, w->S * 4);
	place_shared(w, &s, a);
	for (int i = 0; i < c->layers; i++)
		place_layer(w, i, &s, a);
	/* Layers write into the next one's x, which may be their own. */
	a->last = l->train ? rows(w, KEPT, c->dim) : s.x;
	a->nf = a->half;
	a->rstdf = take(w, KEPT, w->R * 4);
	place_attention_scratch(w, &a->attention);
	a->xent_bytes = l->sizes->xent_bytes(w->R, c->dim, c->vocab);
	a->xent = take(w, LOSS, (int64_t)a->xent_bytes);
}

static int context_of(const struct lh_layout *l)
{
	return l->context ? l->context : 1;
}

static struct walk walk_of(const struct lh_layout *l, void *arena)
{
	struct walk w = { .l = l, .base = arena, .ranks = context_of(l),
			  .e = (int64_t)lh_dtype_bytes(l->sizes->act_type),
			  .recompute = l->mode->recompute };

	LH_ASSERT(l->mode->recompute != LH_RECOMPUTE_AUTO);
	LH_ASSERT(w.ranks == 1 || l->B == 1);
	w.R = l->B * l->T / w.ranks;
	if (has(l, true))
		w.S = l->B * lh_lighthouse_selected(&l->mode->geometry) / w.ranks;
	return w;
}

const char *lh_recompute_name(enum lh_recompute r)
{
	static const char *const names[] = { "auto", "none", "cheap", "mlp", "layer" };

	return names[r];
}

/* Parameters that a pass has windows for, of two layers (model_int.h). */
static int64_t window_count(const struct lh_job_model *model)
{
	struct lh_params p;
	struct lh_params_parts parts;

	lh_params_init(&p, model);
	parts = lh_params_parts(&p, model);
	lh_params_release(&p);
	return 2 * parts.layer + parts.ends + parts.gains;
}

/* Master weights, gradients, two moments of a shard, and the compute copy if it is one.
 * Of what is divided a shard, and windows: of weights as compute copies. */
static int64_t state_bytes(const struct lh_layout *l)
{
	int64_t e = (int64_t)lh_dtype_bytes(l->sizes->act_type);
	int64_t copy = l->sizes->act_type == LH_F32 ? 0 : e;
	int64_t count = lh_job_model_params(l->model), windows = window_count(l->model);
	int ranks = l->ranks ? l->ranks : 1;
	int64_t shard = lh_layout_shard(count, ranks), all = ranks * shard;
	bool grads = ranks > 1 && l->divide >= LH_DIVIDE_GRADIENTS;
	bool weights = ranks > 1 && l->divide >= LH_DIVIDE_WEIGHTS;
	int64_t bytes = 2 * 4 * shard;

	bytes += grads ? 4 * (shard + windows) : 4 * all;
	return bytes + (weights ? (4 + copy) * shard + e * windows : 4 * all + copy * count);
}

struct lh_sdpa lh_layout_sdpa(const struct lh_layout *l, int B, const struct lh_lighthouse *g)
{
	int ranks = context_of(l);
	struct lh_heads h = lh_context_heads(lh_layout_heads(l->model, B, l->T), ranks);
	struct lh_lighthouse piece;

	if (g)
		piece = lh_context_geometry(g, ranks);
	return ranks > 1 ? lh_attention_piece_sdpa(g ? &piece : NULL, h, 2 * ranks - 1) :
			   lh_attention_sdpa(g, h);
}

/* The most scratch of one layer's attention. */
static int64_t attention_bytes(const struct lh_layout *l, int B,
			       const struct lh_lighthouse *g)
{
	static const int32_t some; /* sizes depend on whether there are documents alone */
	struct lh_heads h = lh_layout_heads(l->model, B, l->T);
	struct lh_sdpa s = lh_layout_sdpa(l, B, g);
	struct lh_lighthouse piece;
	int64_t most;

	s.heads.start = l->documents ? &some : NULL;
	most = (int64_t)l->sizes->sdpa_bytes(&s, false, l->deterministic);
	if (l->train)
		most = max(most, (int64_t)l->sizes->sdpa_bytes(&s, true, l->deterministic));
	if (!g)
		return most;
	piece = lh_context_geometry(g, context_of(l));
	h = lh_context_heads(h, context_of(l));
	return max(most, (int64_t)l->sizes->lighthouse_bytes(&piece, &h));
}

/* The most scratch that an op of a pass over B sequences takes. */
static int64_t op_bytes(const struct lh_layout *l, int B)
{
	const struct lh_job_model *c = l->model;
	int64_t R = B * l->T / context_of(l);
	int64_t most = (int64_t)l->sizes->rows_bytes(R, c->dim);

	if (c->qkv_bias)
		most = max(most, (int64_t)l->sizes->rows_bytes(R, lh_qkv_width(c)));
	if (c->qk_norm)
		most = max(most, (int64_t)l->sizes->rows_bytes(R, c->head_dim));
	for (int i = 0; i < c->layers; i++)
		most = max(most, attention_bytes(l, B, lh_layout_lighthouse(l->mode, i)));
	return most;
}

/* A smaller batch may take more: one too large for a library goes in pieces. */
static int64_t device_bytes(const struct lh_layout *l)
{
	int64_t most = op_bytes(l, l->B);

	if (l->rest)
		most = max(most, op_bytes(l, l->rest));
	return most + (int64_t)l->sizes->open_bytes(l->ranks, context_of(l));
}

int64_t lh_layout_measure(const struct lh_layout *l, struct lh_layout_bytes *bytes)
{
	struct walk w = walk_of(l, NULL);
	struct lh_acts acts = { 0 };

	place(&w, &acts);
	if (!bytes)
		return w.at;
	*bytes = (struct lh_layout_bytes){
		.state = state_bytes(l),
		.kept = w.used[KEPT], .scratch = w.used[SCRATCH], .loss = w.used[LOSS],
		.device = device_bytes(l) };
	bytes->total = bytes->state + w.at + bytes->device;
	return w.at;
}

void lh_layout_place(const struct lh_layout *l, void *arena, struct lh_acts *acts)
{
	struct walk w = walk_of(l, arena);

	memset(acts, 0, sizeof(*acts));
	place(&w, acts);
}

/* An error about memory, which is set, says what determinism has to do with it. */
static void blame_determinism(const struct lh_layout *l, int64_t total, struct lh_err *err)
{
	struct lh_layout free_order = *l;
	struct lh_layout_bytes without;

	free_order.deterministic = false;
	lh_layout_measure(&free_order, &without);
	if (without.total >= total)
		return;
	lh_err_prefix(err, "deterministic: true takes %.2f GiB",
		      (double)(total - without.total) / (1 << 30));
	lh_err_hint(err, "attention with bits that repeat writes 2 bytes for each query and "
		    "key of a head; without it %.2f GiB are needed: deterministic: false, a "
		    "shorter seq_len, or Lighthouse without dense_layers",
		    (double)without.total / (1 << 30));
}

int lh_layout_choose(struct lh_layout *l, struct lh_attention_mode *mode,
		     int64_t memory_bytes, struct lh_err *err)
{
	bool free_choice = mode->recompute == LH_RECOMPUTE_AUTO;
	struct lh_layout_bytes b;

	if (free_choice)
		mode->recompute = LH_RECOMPUTE_NONE;
	l->mode = mode;
	for (;; mode->recompute++) {
		lh_layout_measure(l, &b);
		if (b.total <= memory_bytes)
			return 0;
		if (!free_choice || mode->recompute == LH_RECOMPUTE_LAYER)
			break;
	}
	lh_err_set(err, LH_ETOOBIG, "%.2f GiB are needed with recompute: %s, the device has "
		   "%.2f", (double)b.total / (1 << 30), lh_recompute_name(mode->recompute),
		   (double)memory_bytes / (1 << 30));
	if (!free_choice && mode->recompute < LH_RECOMPUTE_LAYER)
		lh_err_hint(err, "recompute: auto takes what fits");
	else if (l->ranks > 1 && l->divide < LH_DIVIDE_WEIGHTS)
		lh_err_hint(err, "divide: %s keeps less of the model on each device; or a "
			    "smaller model, seq_len or micro_sequences",
			    l->divide < LH_DIVIDE_GRADIENTS ? "gradients or weights" : "weights");
	else
		lh_err_hint(err, "a smaller model, seq_len or micro_sequences");
	if (l->deterministic)
		blame_determinism(l, b.total, err);
	return err->code;
}

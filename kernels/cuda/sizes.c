/* sizes.c: see sizes.h. */
#include "sizes.h"

#include <inttypes.h>
#include <math.h>

/* Logits that exist at once. Larger chunks gain nothing: their GEMMs fill the
 * chip long before. */
static const int64_t LOGIT_BYTES = 1 << 30;

static int64_t ceil_to(int64_t n, int64_t to)
{
	return (n + to - 1) / to * to;
}

int64_t lh_cuda_xent_stride(int64_t V)
{
	return ceil_to(V, 8);
}

size_t lh_cuda_xent_nats_bytes(int64_t R)
{
	return (size_t)ceil_to(R * 4, 256);
}

/* Rows whose logits take LOGIT_BYTES, whole tiles of the GEMMs. */
static size_t xent_bytes(int64_t R, int64_t V, int64_t e)
{
	int64_t row = lh_cuda_xent_stride(V) * e, rows = LOGIT_BYTES / row;

	rows = rows > 256 ? rows / 256 * 256 : rows < 1 ? 1 : rows;
	return lh_cuda_xent_nats_bytes(R) + (size_t)((rows > R ? R : rows) * row);
}

static size_t score_bytes(const struct lh_lighthouse *g, const struct lh_heads *h,
			  int64_t e)
{
	int64_t rows = h->batch * g->tokens, D = h->head_dim;
	int64_t window = lh_lighthouse_window(g, g->levels - 1);

	if (g->scorer == LH_SCORER_DILATED) /* rotated q, k, v and the result */
		return (size_t)(4 * rows * h->heads * D * e);
	if (window > LH_CUDA_MEAN_WINDOW)
		return 0;
	return (size_t)(rows / window * (h->heads + h->kv_heads) * D * e);
}

int lh_cuda_select_candidates(const struct lh_lighthouse *g)
{
	int64_t first = lh_lighthouse_entries(g, g->levels - 1) / lh_lighthouse_tiles(g);
	int64_t later = (int64_t)g->pool * g->tile;

	return (int)(first > later ? first : later);
}

/* A key and a mark of each candidate, two lists of winners a level. */
size_t lh_cuda_select_tile_bytes(const struct lh_lighthouse *g)
{
	int64_t lists = 2 * (int64_t)(g->levels - 1) * g->tile * 4;

	return (size_t)ceil_to((int64_t)lh_cuda_select_candidates(g) * 5 + lists + 16, 256);
}

static size_t select_bytes(const struct lh_lighthouse *g, int64_t BH)
{
	size_t tile = lh_cuda_select_tile_bytes(g);

	return tile <= LH_CUDA_SELECT_SHARED_BYTES ?
		       0 : tile * (size_t)(BH * lh_lighthouse_tiles(g));
}

bool lh_cuda_sdpa_fused_width(int head_dim)
{
	return head_dim % 8 == 0 && head_dim >= LH_CUDA_SDPA_HEAD_MIN &&
	       head_dim <= LH_CUDA_SDPA_HEAD_MAX;
}

static const int64_t WIDE = (int64_t)1 << 31;

static int64_t max(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

bool lh_cuda_sdpa_is_wide(const struct lh_sdpa *s)
{
	const struct lh_heads *h = &s->heads;

	return h->batch * max(h->tokens * max(h->q_row, h->o_row),
			      s->kv_tokens * h->kv_row) >= WIDE;
}

/* Of padded lengths; dk and dv have all query heads before they are summed. */
int64_t lh_cuda_sdpa_elements(const struct lh_sdpa *p)
{
	int64_t longest = ceil_to(max(p->heads.tokens, p->kv_tokens), LH_CUDA_SDPA_TILE);

	return p->heads.batch * longest * p->heads.heads * p->heads.head_dim;
}

/* A float for each query of each head. */
static int64_t stat_bytes(const struct lh_heads *h)
{
	return (int64_t)h->batch * h->heads * ceil_to(h->tokens, LH_CUDA_SDPA_TILE) * 4;
}

/* The gradients of a piece's scores, in bf16. */
static int64_t square_bytes(const struct lh_sdpa *p)
{
	return 2 * (int64_t)p->heads.batch * p->heads.heads *
	       ceil_to(p->heads.tokens, LH_CUDA_SDPA_TILE) *
	       ceil_to(p->kv_tokens, LH_CUDA_SDPA_TILE);
}

/* For cuDNN at once. */
static bool is_too_much(const struct lh_sdpa *p, bool deterministic)
{
	return lh_cuda_sdpa_elements(p) >= WIDE ||
	       (deterministic && square_bytes(p) > LH_CUDA_SDPA_SQUARE_BYTES);
}

struct lh_sdpa lh_cuda_sdpa_piece(const struct lh_sdpa *s, bool deterministic)
{
	int groups = s->heads.kv_heads, group = s->heads.heads / groups;
	struct lh_sdpa p = *s;

	if (!is_too_much(&p, deterministic))
		return p;
	p.heads.batch = 1;
	for (int n = groups; n >= 1; n--) {
		if (groups % n)
			continue;
		p.heads.kv_heads = n;
		p.heads.heads = n * group;
		if (!is_too_much(&p, deterministic))
			return p;
	}
	p.heads.heads = 1;
	return p;
}

bool lh_cuda_sdpa_splits_groups(const struct lh_sdpa *s, const struct lh_sdpa *piece)
{
	return piece->heads.heads * s->heads.kv_heads <
	       s->heads.heads * piece->heads.kv_heads;
}

bool lh_cuda_sdpa_is_tail(const struct lh_sdpa *s)
{
	int64_t before = s->kv_tokens - s->heads.tokens;

	return s->heads.batch == 1 && before > 0 && before % LH_CUDA_SDPA_TILE == 0;
}

struct lh_sdpa lh_cuda_tail_own(const struct lh_sdpa *s)
{
	struct lh_sdpa p = *s;

	p.kv_tokens = s->heads.tokens;
	return p;
}

struct lh_sdpa lh_cuda_tail_before(const struct lh_sdpa *s)
{
	struct lh_sdpa p = *s;

	p.kv_tokens = s->kv_tokens - s->heads.tokens;
	return p;
}

size_t lh_cuda_tail_bytes(const struct lh_sdpa *s, bool backward)
{
	int64_t rows = s->heads.tokens * s->heads.heads;

	return (size_t)(rows * (2 * s->heads.head_dim + (backward ? 0 : 2 * 4)));
}

bool lh_cuda_bucket(const struct lh_heads *h, int k, struct lh_cuda_bucket *b)
{
	int64_t longest = ceil_to(h->tokens, LH_CUDA_SDPA_TILE), tokens = LH_CUDA_SDPA_TILE;
	int64_t most;

	for (; k > 0 && tokens < longest; k--)
		tokens *= 2;
	if (k)
		return false;
	b->tokens = tokens < longest ? tokens : longest;
	b->documents = (int)max(LH_CUDA_BUCKET_ROWS / b->tokens, 1);
	most = h->batch * h->tokens / b->tokens + 1; /* a short sequence has fewer */
	if (b->documents > most)
		b->documents = (int)most;
	return true;
}

struct lh_sdpa lh_cuda_bucket_sdpa(const struct lh_sdpa *s, const struct lh_cuda_bucket *b)
{
	struct lh_sdpa p = *s;

	p.heads.batch = b->documents;
	p.heads.tokens = p.kv_tokens = b->tokens;
	p.heads.q_row = p.heads.o_row = (int64_t)s->heads.heads * s->heads.head_dim;
	p.heads.kv_row = (int64_t)s->heads.kv_heads * s->heads.head_dim;
	p.heads.start = p.heads.start_host = NULL;
	return p;
}

/* Rows of q and o, of k and v, and of their gradients; statistics. */
size_t lh_cuda_documents_bytes(const struct lh_sdpa *s, bool backward)
{
	const struct lh_heads *h = &s->heads;
	int tensors = backward ? 4 : 2;
	struct lh_cuda_bucket b;
	int64_t most = 0;

	for (int k = 0; lh_cuda_bucket(h, k, &b); k++)
		most = max(most, b.tokens * b.documents);
	return (size_t)(tensors * 2 * (ceil_to(most * h->heads * h->head_dim, 128) +
				       ceil_to(most * h->kv_heads * h->head_dim, 128)) +
			ceil_to(most * h->heads * 4, 256));
}

/* Of the fused attention: cuDNN's own workspace (its query heads' dk and dv
 * before they are summed; the gradients of all scores), statistics, the float32
 * sums of dq and of a split group's dk and dv, and padded copies where the lengths
 * are not whole tiles or a piece needs them. */
static size_t whole_bytes(const struct lh_sdpa *s, bool backward, bool deterministic)
{
	bool fused = lh_cuda_sdpa_fused_width(s->heads.head_dim) &&
		     s->heads.tokens >= LH_CUDA_SDPA_TILE;
	struct lh_sdpa piece = backward ? lh_cuda_sdpa_piece(s, deterministic) : *s;
	bool split = lh_cuda_sdpa_splits_groups(s, &piece);
	bool copies = split || (backward && lh_cuda_sdpa_is_wide(s));
	const struct lh_heads *h = &piece.heads;
	int64_t T = ceil_to(h->tokens, LH_CUDA_SDPA_TILE);
	int64_t S = ceil_to(s->kv_tokens, LH_CUDA_SDPA_TILE);
	int64_t stats = stat_bytes(h);
	int64_t q = stats / 2 * h->head_dim;
	int64_t kv = (int64_t)h->batch * h->kv_heads * S * h->head_dim * 2;
	int64_t bytes = 4096 + stats;

	if (!fused)
		return (size_t)stat_bytes(&s->heads);
	if (backward && h->kv_heads != h->heads)
		bytes += 2 * kv / h->kv_heads * h->heads;
	if (backward)
		bytes += deterministic ? square_bytes(&piece) : stats * h->head_dim;
	if (split)
		bytes += 4 * kv;
	if (T != h->tokens || S != s->kv_tokens || copies)
		bytes += backward ? stats + 4 * q + 4 * kv : 2 * q + 2 * kv;
	return (size_t)bytes;
}

static size_t tail_bytes(const struct lh_sdpa *s, bool backward, bool deterministic)
{
	struct lh_sdpa own = lh_cuda_tail_own(s), before = lh_cuda_tail_before(s);
	size_t of_own = whole_bytes(&own, backward, deterministic);
	size_t of_before = whole_bytes(&before, backward, deterministic);

	return (of_own > of_before ? of_own : of_before) + lh_cuda_tail_bytes(s, backward);
}

/* Of documents, the bucket that takes most. */
static size_t sdpa_bytes(const struct lh_sdpa *s, bool backward, bool deterministic)
{
	struct lh_cuda_bucket b;
	size_t most = 0;

	if (!lh_cuda_sdpa_fused_width(s->heads.head_dim) || s->heads.tokens < LH_CUDA_SDPA_TILE)
		return whole_bytes(s, backward, deterministic);
	if (lh_cuda_sdpa_is_tail(s))
		return tail_bytes(s, backward, deterministic);
	if (!s->heads.start)
		return whole_bytes(s, backward, deterministic);
	for (int k = 0; lh_cuda_bucket(&s->heads, k, &b); k++) {
		struct lh_sdpa p = lh_cuda_bucket_sdpa(s, &b);
		size_t bytes = whole_bytes(&p, backward, deterministic);

		most = bytes > most ? bytes : most;
	}
	return most + lh_cuda_documents_bytes(s, backward);
}

struct lh_sdpa lh_cuda_class_sdpa(const struct lh_lighthouse *g, const struct lh_heads *h)
{
	struct lh_sdpa s = { .heads = *h, .kv_tokens = g->tokens / g->dilation,
			     .scale = 1 / sqrtf((float)h->head_dim) };

	s.heads.tokens = s.kv_tokens;
	s.heads.kv_heads = h->heads;
	s.heads.q_row = s.heads.kv_row = s.heads.o_row =
		(int64_t)h->heads * h->head_dim * g->dilation;
	return s;
}

static size_t lighthouse_bytes(const struct lh_lighthouse *g, const struct lh_heads *h)
{
	size_t select = select_bytes(g, (int64_t)h->batch * h->heads), class = 0;

	if (g->scorer == LH_SCORER_DILATED) {
		struct lh_sdpa s = lh_cuda_class_sdpa(g, h);

		class = sdpa_bytes(&s, false, false);
	}
	return select > class ? select : class;
}

/* The gain's partial sums; the rows sorted by token: ids and rows in and out, the
 * sort's own copy of both, and its counts. */
static size_t rows_bytes(int64_t R, int64_t C)
{
	int64_t blocks = (R + 7) / 8;

	if (blocks > LH_CUDA_NORM_PARTS)
		blocks = LH_CUDA_NORM_PARTS;
	return (size_t)max(blocks * C * 4, 24 * R + (1 << 20));
}

static const int64_t ITEMS = (int64_t)1 << 32; /* threads that kernels count */

/* Threads of the widest kernel of a layer: q, k and v of all tokens, 8 elements
 * each where the width allows it, else one (two with their pairs). */
static int64_t items_of(const struct lh_heads *h)
{
	int parts = h->head_dim % 16 ? h->head_dim / 2 : h->head_dim / 16;

	return h->batch * (h->tokens + 1) * (h->heads + 2 * h->kv_heads) * parts;
}

static int refuse_size(const struct lh_sdpa *s, int64_t have, int64_t limit,
		       const char *what, const char *hint, struct lh_err *err)
{
	lh_err_set(err, LH_EUNSUPPORTED, "%d heads of %d over %d x %" PRId64 " tokens are %"
		   PRId64 " %s, a GPU takes %" PRId64, s->heads.heads, s->heads.head_dim,
		   s->heads.batch, s->heads.tokens, have, what, limit);
	return lh_err_hint(err, "%s", hint);
}

/* 32-bit counts and the grids of our kernels, and of cuDNN's. */
static int check_sizes(const struct lh_sdpa *s, struct lh_err *err)
{
	const struct lh_heads *h = &s->heads;
	struct lh_sdpa piece = lh_cuda_sdpa_piece(s, false);
	int64_t BH = (int64_t)h->batch * h->heads;

	if (BH > LH_CUDA_GRID_Y)
		return refuse_size(s, BH, LH_CUDA_GRID_Y, "heads at once",
				   "fewer micro_sequences", err);
	if (items_of(h) >= ITEMS)
		return refuse_size(s, items_of(h), ITEMS - 1, "threads of a kernel",
				   h->head_dim % 16 ?
					   "fewer micro_sequences, or a head_dim that 16 "
					   "divides" : "fewer micro_sequences", err);
	if (lh_cuda_sdpa_elements(&piece) >= WIDE)
		return refuse_size(&piece, lh_cuda_sdpa_elements(&piece), WIDE - 1,
				   "elements of one head", "a shorter seq_len", err);
	return 0;
}

static int supports(const struct lh_sdpa *s, struct lh_err *err)
{
	if (lh_cuda_sdpa_fused_width(s->heads.head_dim))
		return check_sizes(s, err);
	lh_err_set(err, LH_EUNSUPPORTED, "head_dim is %d, a GPU takes multiples of 8 from %d to "
		   "%d", s->heads.head_dim, LH_CUDA_SDPA_HEAD_MIN, LH_CUDA_SDPA_HEAD_MAX);
	return lh_err_hint(err, "64 and 128 are the fastest; 'device: cpu' takes any");
}

/* Its attention is slow and takes any width up to that. */
static int supports_f32(const struct lh_sdpa *s, struct lh_err *err)
{
	if (s->heads.head_dim <= LH_CUDA_SDPA_HEAD_MAX)
		return check_sizes(s, err);
	lh_err_set(err, LH_EUNSUPPORTED, "head_dim is %d, a GPU takes %d at most",
		   s->heads.head_dim, LH_CUDA_SDPA_HEAD_MAX);
	return lh_err_hint(err, "'device: cpu' takes any");
}

/* The driver's and cuBLAS's; and NCCL's buffers as they were measured with two and four GPUs
 * (tests/bench/results/ranks.md): rings of all ranks, in which each has two neighbours, and a
 * line to each of those that share. */
static size_t open_bytes(int ranks, int context)
{
	size_t mib = 600;

	if (ranks > 1)
		mib += 1000;
	if (context > 1)
		mib += 280 + 620 * (size_t)context;
	return mib << 20;
}

static size_t xent_bytes_bf16(int64_t R, int64_t C, int64_t V)
{
	(void)C;
	return xent_bytes(R, V, 2);
}

static size_t xent_bytes_f32(int64_t R, int64_t C, int64_t V)
{
	(void)C;
	return xent_bytes(R, V, 4);
}

static size_t score_bytes_bf16(const struct lh_lighthouse *g, const struct lh_heads *h)
{
	return score_bytes(g, h, 2);
}

static size_t score_bytes_f32(const struct lh_lighthouse *g, const struct lh_heads *h)
{
	return score_bytes(g, h, 4);
}

const struct lh_ops_sizes lh_sizes_cuda = {
	.act_type = LH_BF16,
	.xent_bytes = xent_bytes_bf16,
	.score_bytes = score_bytes_bf16,
	.sdpa_bytes = sdpa_bytes,
	.lighthouse_bytes = lighthouse_bytes,
	.rows_bytes = rows_bytes,
	.has_bias = true,
	.has_qk_norm = true,
	.has_documents = true,
	.supports = supports,
	.open_bytes = open_bytes,
};

const struct lh_ops_sizes lh_sizes_cuda_f32 = {
	.act_type = LH_F32,
	.xent_bytes = xent_bytes_f32,
	.score_bytes = score_bytes_f32,
	.sdpa_bytes = sdpa_bytes,
	.lighthouse_bytes = lighthouse_bytes,
	.rows_bytes = rows_bytes,
	.has_bias = true,
	.has_qk_norm = true,
	.has_documents = true,
	.supports = supports_f32,
	.open_bytes = open_bytes,
};

/* sizes.c: see sizes.h. */
#include "sizes.h"

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

bool lh_cuda_sdpa_fused_width(int head_dim)
{
	return head_dim % 8 == 0 && head_dim >= 32 && head_dim <= 256;
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

struct lh_sdpa lh_cuda_sdpa_piece(const struct lh_sdpa *s)
{
	struct lh_sdpa p = *s;
	struct lh_heads *h = &p.heads;

	while (h->batch * max(h->tokens * h->heads, p.kv_tokens * h->kv_heads) *
		       h->head_dim >= WIDE) {
		if (h->batch > 1) {
			h->batch = 1;
			continue;
		}
		if (h->kv_heads % 2)
			break;
		h->heads /= 2;
		h->kv_heads /= 2;
	}
	return p;
}

/* Of the fused attention: cuDNN's own workspace (its query heads' dk and dv
 * before they are summed), statistics, the float32 sum of dq, and padded copies
 * where the lengths are not whole tiles. */
static size_t sdpa_bytes(const struct lh_sdpa *s, bool backward)
{
	bool wide = backward && lh_cuda_sdpa_is_wide(s);
	struct lh_sdpa piece = wide ? lh_cuda_sdpa_piece(s) : *s;
	const struct lh_heads *h = &piece.heads;
	int64_t T = ceil_to(h->tokens, LH_CUDA_SDPA_TILE);
	int64_t S = ceil_to(s->kv_tokens, LH_CUDA_SDPA_TILE);
	int64_t stats = (int64_t)h->batch * h->heads * T * 4;
	int64_t q = stats / 2 * h->head_dim;
	int64_t kv = (int64_t)h->batch * h->kv_heads * S * h->head_dim * 2;
	int64_t bytes = 4096 + stats;

	if (!lh_cuda_sdpa_fused_width(h->head_dim) || h->tokens < LH_CUDA_SDPA_TILE)
		return (size_t)stats;
	if (backward && h->kv_heads != h->heads)
		bytes += 2 * kv / h->kv_heads * h->heads;
	if (backward)
		bytes += stats * h->head_dim;
	if (T != h->tokens || S != s->kv_tokens || wide)
		bytes += backward ? stats + 4 * q + 4 * kv : 2 * q + 2 * kv;
	return (size_t)bytes;
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
	.open_bytes = (size_t)600 << 20,
};

const struct lh_ops_sizes lh_sizes_cuda_f32 = {
	.act_type = LH_F32,
	.xent_bytes = xent_bytes_f32,
	.score_bytes = score_bytes_f32,
	.sdpa_bytes = sdpa_bytes,
	.open_bytes = (size_t)600 << 20,
};

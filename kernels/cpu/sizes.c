/* sizes.c: bytes that the CPU's ops need besides their tensors. Without OpenBLAS,
 * for programs that only count. */
#include "lighthouse/ops.h"

static const int64_t LOGIT_FLOATS = 1 << 22; /* 16 MiB exist at once */

/* Chunk x V logits, then one float a row. */
static size_t xent_bytes(int64_t R, int64_t C, int64_t V)
{
	int64_t rows = LOGIT_FLOATS / V;

	(void)C;
	rows = rows < 1 ? 1 : rows > R ? R : rows;
	return (size_t)(rows * (V + 1)) * sizeof(float);
}

/* Of the dilated scorer: rotated q and k, v, all of H heads, and the output:
 * 4 x (B,N,H,D). */
static size_t score_bytes(const struct lh_lighthouse *g, const struct lh_heads *h)
{
	if (g->scorer == LH_SCORER_NORM)
		return 0;
	return 4 * (size_t)(h->batch * g->tokens) * (size_t)h->heads *
	       (size_t)h->head_dim * sizeof(float);
}

/* Scores live on the stack, and nothing is held from call to call. */
static size_t sdpa_bytes(const struct lh_sdpa *s, bool backward, bool deterministic)
{
	(void)s, (void)backward, (void)deterministic;
	return 0;
}

static size_t lighthouse_bytes(const struct lh_lighthouse *g, const struct lh_heads *h)
{
	(void)g, (void)h;
	return 0;
}

static size_t rows_bytes(int64_t R, int64_t C)
{
	(void)R, (void)C;
	return 0;
}

static size_t open_bytes(int ranks, int context)
{
	(void)ranks, (void)context;
	return 0;
}

/* Whatever a job file may ask for. */
static int supports(const struct lh_sdpa *s, struct lh_err *err)
{
	(void)s, (void)err;
	return 0;
}

const struct lh_ops_sizes lh_sizes_cpu = {
	.act_type = LH_F32,
	.xent_bytes = xent_bytes,
	.score_bytes = score_bytes,
	.sdpa_bytes = sdpa_bytes,
	.lighthouse_bytes = lighthouse_bytes,
	.rows_bytes = rows_bytes,
	.open_bytes = open_bytes,
	.has_bias = true,
	.has_qk_norm = true,
	.has_documents = true,
	.supports = supports,
};

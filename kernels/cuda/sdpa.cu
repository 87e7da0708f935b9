/* sdpa.cu: causal scaled-dot-product attention.
 *
 * bf16 goes to cuDNN's fused kernels: 2 S^2 H D operations forward at about 600
 * TFLOP/s on an H100 that has settled on its clock, 5 S^2 H D backward at about
 * 540 (half of the square is skipped). Tokens and keys are padded to multiples of
 * 128 with zero rows at the end, through copies in scratch, where they are not
 * already; so are rows that do not start at 16 bytes. Zero rows are exact: no real
 * query sees the padded keys, and padded queries have zero gradients.
 *
 * Everything else (float32, fewer than 128 queries, widths cuDNN does not take)
 * goes to sdpa_slow.cuh; documents through sdpa_documents.cu, queries at the end
 * of longer keys through sdpa_tail.cu. cuDNN adds dq by tiles in no fixed order: its
 * backward repeats only up to rounding. A deterministic device uses its other graph,
 * which writes the gradient of every score out, 2 bytes each, in pieces of few heads:
 * that square is written and read besides (sdpa_graph.c, sizes.h). */
#include "cuda.h"

#include <string.h>

#include "sdpa_slow.cuh"

enum { TILE = LH_CUDA_SDPA_TILE };

/* ---- the slow path --------------------------------------------------------- */

static struct slow_args slow_args_of(const struct lh_sdpa *s)
{
	const struct lh_heads *h = &s->heads;

	return { h->tokens, s->kv_tokens, h->q_row, h->kv_row, h->o_row,
		 h->heads, h->kv_heads, h->head_dim, s->scale, h->start };
}

template <typename T, int ND>
static void slow_forward_nd(struct lh_dev *dev, const struct lh_sdpa *s, T *o, float *lse,
			    const T *q, const T *k, const T *v)
{
	dim3 grid((unsigned)s->heads.tokens, (unsigned)s->heads.heads,
		  (unsigned)s->heads.batch);

	slow_fwd_kernel<T, ND><<<grid, SLOW_THREADS, 0, dev->stream>>>(slow_args_of(s), o,
								      lse, q, k, v);
}

template <typename T>
static void slow_forward(struct lh_dev *dev, const struct lh_sdpa *s, T *o, float *lse,
			 const T *q, const T *k, const T *v)
{
	int D = s->heads.head_dim;

	LH_ASSERT(D <= 256);
	if (D <= 32)
		slow_forward_nd<T, 1>(dev, s, o, lse, q, k, v);
	else if (D <= 64)
		slow_forward_nd<T, 2>(dev, s, o, lse, q, k, v);
	else if (D <= 128)
		slow_forward_nd<T, 4>(dev, s, o, lse, q, k, v);
	else
		slow_forward_nd<T, 8>(dev, s, o, lse, q, k, v);
	lh_cuda_launched(dev, "sdpa");
}

template <typename T, int ND>
static void slow_backward_nd(struct lh_dev *dev, const struct lh_sdpa *s,
			     const slow_bwd<T> &t)
{
	const struct lh_heads *h = &s->heads;
	dim3 q_grid((unsigned)h->tokens, (unsigned)h->heads, (unsigned)h->batch);
	dim3 k_grid((unsigned)s->kv_tokens, (unsigned)h->kv_heads, (unsigned)h->batch);
	struct slow_args a = slow_args_of(s);

	slow_dq_kernel<T, ND><<<q_grid, SLOW_THREADS, 0, dev->stream>>>(a, t);
	slow_dkv_kernel<T, ND><<<k_grid, SLOW_THREADS, 0, dev->stream>>>(a, t);
}

template <typename T>
static void slow_backward(struct lh_dev *dev, const struct lh_sdpa *s, slow_bwd<T> t,
			  const T *o)
{
	int D = s->heads.head_dim;
	int64_t rows = s->heads.batch * s->heads.heads * s->heads.tokens;
	float *delta = (float *)lh_cuda_scratch(dev, (size_t)rows * sizeof(float));

	LH_ASSERT(D <= 256);
	if (!delta)
		return;
	t.delta = delta;
	slow_delta_kernel<T><<<(unsigned)lh_ceil(rows, SLOW_WARPS), SLOW_THREADS, 0,
			       dev->stream>>>(slow_args_of(s), rows, delta, t.dout, o);
	if (D <= 32)
		slow_backward_nd<T, 1>(dev, s, t);
	else if (D <= 64)
		slow_backward_nd<T, 2>(dev, s, t);
	else if (D <= 128)
		slow_backward_nd<T, 4>(dev, s, t);
	else
		slow_backward_nd<T, 8>(dev, s, t);
	lh_cuda_launched(dev, "sdpa_bwd");
}

/* ---- cuDNN ----------------------------------------------------------------- */

template <typename T> static bool is_fast(const struct lh_dev *dev, const struct lh_sdpa *s)
{
	return sizeof(T) == 2 && dev->plans && s->heads.tokens >= TILE &&
	       lh_cuda_sdpa_fused_width(s->heads.head_dim);
}

static int64_t pad(int64_t tokens)
{
	return lh_ceil(tokens, TILE) * TILE;
}

struct fast { /* one call */
	const struct lh_sdpa *s;
	struct lh_sdpa_shape shape;
	const struct lh_sdpa_plan *plan;
	bool copies; /* operands go through padded copies */
	char *scratch; /* NULL while it is measured */
	size_t used;
	float *dk_sum, *dv_sum; /* (S,D) of a split group, else NULL */
};

static void *take(struct fast *f, size_t bytes)
{
	char *p = f->scratch ? f->scratch + f->used : NULL;

	f->used += (bytes + 255) / 256 * 256;
	return p;
}

static size_t rows_bytes(const struct fast *f, int64_t tokens, int64_t row)
{
	return (size_t)(f->s->heads.batch * tokens * row) * sizeof(bf16);
}

static size_t stat_bytes(const struct fast *f)
{
	return (size_t)(f->shape.batch * f->shape.heads * f->shape.tokens) *
	       sizeof(float);
}

/* Of a shape that is filled but for it. Padded keys of `all` would be seen. */
static enum lh_sdpa_mask mask_of(const struct lh_sdpa *s, const struct lh_sdpa_shape *p, bool all)
{
	LH_ASSERT(!all || p->kv_tokens == s->kv_tokens);
	if (all)
		return LH_SDPA_ALL;
	if (s->heads.tokens == s->kv_tokens)
		return LH_SDPA_TOP_LEFT;
	return p->kv_tokens - p->tokens == s->kv_tokens - s->heads.tokens ?
		       LH_SDPA_BOTTOM_RIGHT : LH_SDPA_SHIFTED;
}

/* dq_row: 0 forward. */
static int prepare(struct lh_dev *dev, struct fast *f, const struct lh_sdpa *s, bool all,
		   int64_t dq_row, bool aligned, struct lh_err *err)
{
	const struct lh_heads *h = &s->heads;
	struct lh_sdpa_shape *p = &f->shape;

	memset(f, 0, sizeof(*f)); /* shapes are compared as bytes */
	f->s = s;
	f->copies = h->tokens % TILE || s->kv_tokens % TILE || !aligned;
	p->batch = h->batch, p->heads = h->heads, p->kv_heads = h->kv_heads;
	p->head_dim = h->head_dim;
	p->tokens = pad(h->tokens), p->kv_tokens = pad(s->kv_tokens);
	p->q_row = f->copies ? h->heads * h->head_dim : h->q_row;
	p->kv_row = f->copies ? h->kv_heads * h->head_dim : h->kv_row;
	p->o_row = f->copies ? h->heads * h->head_dim : h->o_row;
	p->dq_row = dq_row && f->copies ? p->q_row : dq_row;
	p->backward = dq_row > 0;
	p->deterministic = p->backward && dev->deterministic;
	p->mask = mask_of(s, p, all);
	return lh_sdpa_plans_get(dev->plans, p, &f->plan, err);
}

struct rows { /* heads of tokens, strided outside, contiguous and padded inside */
	int64_t tokens, padded, width, row;
};

static void copy_rows(struct lh_dev *dev, const struct fast *f, const struct rows *r,
		      void *to, const void *from, bool in)
{
	size_t e = sizeof(bf16), width = (size_t)r->width * e, row = (size_t)r->row * e;

	for (int b = 0; b < f->shape.batch; b++) {
		char *inside = (char *)(in ? to : from) + b * r->padded * r->width * e;
		char *outside = (char *)(in ? from : to) + b * r->tokens * r->row * e;
		size_t real = (size_t)r->tokens * width;

		if (in)
			cudaMemcpy2DAsync(inside, width, outside, row, width, r->tokens,
					  cudaMemcpyDeviceToDevice, dev->stream);
		else
			cudaMemcpy2DAsync(outside, row, inside, width, width, r->tokens,
					  cudaMemcpyDeviceToDevice, dev->stream);
		if (in && r->padded > r->tokens)
			cudaMemsetAsync(inside + real, 0,
					(size_t)(r->padded - r->tokens) * width,
					dev->stream);
	}
	lh_cuda_launched(dev, "sdpa copies");
}

/* lse (B,H,T) <-> (B,H,padded); in: the rest is zero. */
static void copy_stats(struct lh_dev *dev, const struct fast *f, float *to,
		       const float *from, bool in)
{
	size_t real = (size_t)f->s->heads.tokens * sizeof(float);
	size_t padded = (size_t)f->shape.tokens * sizeof(float);

	if (in)
		cudaMemsetAsync(to, 0, stat_bytes(f), dev->stream);
	cudaMemcpy2DAsync(to, in ? padded : real, from, in ? real : padded, real,
			  (size_t)(f->shape.batch * f->shape.heads),
			  cudaMemcpyDeviceToDevice, dev->stream);
	lh_cuda_launched(dev, "sdpa copies");
}

static struct rows q_rows(const struct fast *f, int64_t row)
{
	return { f->s->heads.tokens, f->shape.tokens,
		 (int64_t)f->shape.heads * f->shape.head_dim, row };
}

static struct rows kv_rows(const struct fast *f)
{
	return { f->s->kv_tokens, f->shape.kv_tokens,
		 (int64_t)f->shape.kv_heads * f->shape.head_dim, f->s->heads.kv_row };
}

/* A contiguous, zero-padded copy in scratch. */
static void *copy_in(struct lh_dev *dev, struct fast *f, struct rows r, const void *from)
{
	void *p = take(f, rows_bytes(f, r.padded, r.width));

	if (p)
		copy_rows(dev, f, &r, p, from, true);
	return p;
}

static void run(struct lh_dev *dev, const struct fast *f, struct lh_sdpa_tensors *t)
{
	struct lh_err err = LH_ERR_INIT;

	if (dev->rehearsing) /* the plan and its memory are there */
		return;
	t->scale = f->s->scale;
	t->shift = (int32_t)(f->s->kv_tokens - f->s->heads.tokens);
	if (lh_sdpa_plan_run(dev->plans, f->plan, t, &err))
		lh_cuda_fail(dev, "sdpa", err.text);
}

/* Places the forward's scratch; copies when `scratch` is set. */
static void place_forward(struct lh_dev *dev, struct fast *f, struct lh_sdpa_tensors *t,
			  void *o, float *lse, const void *q, const void *k,
			  const void *v)
{
	const struct lh_heads *h = &f->s->heads;

	f->used = 0;
	t->workspace = take(f, lh_sdpa_plan_workspace_bytes(f->plan));
	t->q = f->copies ? copy_in(dev, f, q_rows(f, h->q_row), q) : q;
	t->k = f->copies ? copy_in(dev, f, kv_rows(f), k) : k;
	t->v = f->copies ? copy_in(dev, f, kv_rows(f), v) : v;
	t->o = f->copies ? take(f, rows_bytes(f, f->shape.tokens, f->shape.o_row)) : o;
	t->lse = f->copies || !lse ? take(f, stat_bytes(f)) : lse;
}

void lh_cuda_sdpa_fused(struct lh_dev *dev, const struct lh_sdpa *s, bool all, void *o,
			float *lse, const void *q, const void *k, const void *v, bool aligned)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_sdpa_tensors t = { };
	struct fast f;
	struct rows r;

	if (prepare(dev, &f, s, all, 0, aligned, &err)) {
		lh_cuda_refuse(dev, &err);
		return;
	}
	place_forward(dev, &f, &t, o, lse, q, k, v);
	f.scratch = (char *)lh_cuda_scratch(dev, f.used);
	if (!f.scratch)
		return;
	place_forward(dev, &f, &t, o, lse, q, k, v);
	run(dev, &f, &t);
	if (!f.copies)
		return;
	r = q_rows(&f, s->heads.o_row);
	copy_rows(dev, &f, &r, o, t.o, false);
	if (lse)
		copy_stats(dev, &f, lse, (const float *)t.lse, false);
}

static void place_backward(struct lh_dev *dev, struct fast *f, struct lh_sdpa_tensors *t,
			   const struct lh_cuda_sdpa_grads *c, bool split)
{
	const struct lh_heads *h = &f->s->heads;
	struct rows rq = q_rows(f, h->q_row), ro = q_rows(f, h->o_row), rk = kv_rows(f);
	size_t q_bytes = rows_bytes(f, f->shape.tokens, f->shape.dq_row);
	size_t kv_bytes = rows_bytes(f, f->shape.kv_tokens, f->shape.kv_row);

	f->used = 0;
	f->dk_sum = split ? (float *)take(f, 2 * kv_bytes) : NULL;
	f->dv_sum = split ? (float *)take(f, 2 * kv_bytes) : NULL;
	t->workspace = take(f, lh_sdpa_plan_workspace_bytes(f->plan));
	t->delta = take(f, stat_bytes(f));
	if (!f->shape.deterministic)
		t->dq_sum = take(f, stat_bytes(f) * (size_t)f->shape.head_dim);
	t->lse = f->copies ? take(f, stat_bytes(f)) : (void *)c->lse;
	if (f->copies && f->scratch)
		copy_stats(dev, f, (float *)t->lse, c->lse, true);
	t->q = f->copies ? copy_in(dev, f, rq, c->q) : c->q;
	t->k = f->copies ? copy_in(dev, f, rk, c->k) : c->k;
	t->v = f->copies ? copy_in(dev, f, rk, c->v) : c->v;
	t->o = f->copies ? copy_in(dev, f, ro, c->o) : (void *)c->o;
	t->dout = f->copies ? copy_in(dev, f, ro, c->dout) : c->dout;
	t->dq = f->copies ? take(f, q_bytes) : c->dq;
	t->dk = f->copies ? take(f, kv_bytes) : c->dk;
	t->dv = f->copies ? take(f, kv_bytes) : c->dv;
}

/* The pieces of a backward: see sizes.h. */
struct pieces {
	struct lh_sdpa piece;
	bool split; /* parts of KV groups: their dk and dv are added up here */
	bool copies;
};

static struct pieces pieces_of(const struct lh_dev *dev, const struct lh_sdpa *s)
{
	struct pieces p;

	p.piece = lh_cuda_sdpa_piece(s, dev->deterministic);
	p.split = lh_cuda_sdpa_splits_groups(s, &p.piece);
	p.copies = p.split || lh_cuda_sdpa_is_wide(s);
	return p;
}

/* Where the piece begins whose first sequence and query head are b and head. */
static struct lh_cuda_sdpa_grads piece_at(const struct lh_sdpa *s,
					  const struct lh_cuda_sdpa_grads *c, int64_t b,
					  int64_t head)
{
	const struct lh_heads *h = &s->heads;
	int64_t kv_head = head / (h->heads / h->kv_heads);
	int64_t q = b * h->tokens * h->q_row + head * h->head_dim;
	int64_t dq = b * h->tokens * c->dq_row + head * h->head_dim;
	int64_t o = b * h->tokens * h->o_row + head * h->head_dim;
	int64_t k = b * s->kv_tokens * h->kv_row + kv_head * h->head_dim;

	return { (bf16 *)c->dq + dq, c->dq_row, (bf16 *)c->dk + k, (bf16 *)c->dv + k,
		 (const bf16 *)c->dout + o, (const bf16 *)c->q + q, (const bf16 *)c->k + k,
		 (const bf16 *)c->v + k, (const bf16 *)c->o + o,
		 c->lse + (b * h->heads + head) * h->tokens };
}

/* One head's share of a KV head's gradient: sum (n) <- part (n), or += of a later
 * head; the last one's is rounded to `out`, D elements a row. Reads 2 n to 6 n bytes,
 * writes 2 n or 4 n. */
__global__ void add_head_kernel(float *sum, bf16 *out, const bf16 *part, int64_t n, int D,
				int64_t row, bool first)
{
	int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
	float x;

	if (i >= n)
		return;
	x = first ? __bfloat162float(part[i]) : sum[i] + __bfloat162float(part[i]);
	if (out)
		out[i / D * row + i % D] = __float2bfloat16(x);
	else
		sum[i] = x;
}

static void add_head(struct lh_dev *dev, const struct fast *f, float *sum, void *out,
		     const void *part, int at, int of)
{
	int D = f->shape.head_dim;
	int64_t n = f->s->kv_tokens * D;

	add_head_kernel<<<(unsigned)lh_ceil(n, 256), 256, 0, dev->stream>>>(
		sum, at + 1 == of ? (bf16 *)out : NULL, (const bf16 *)part, n, D,
		f->s->heads.kv_row, at == 0);
	lh_cuda_launched(dev, "sdpa_bwd");
}

/* One piece, whose first query head is number `at` of the `of` of its KV group. */
static void run_piece(struct lh_dev *dev, struct fast *f, const struct lh_cuda_sdpa_grads *c,
		      bool split, int at, int of)
{
	struct lh_sdpa_tensors t = { };
	struct rows rq = q_rows(f, c->dq_row), rk = kv_rows(f);

	place_backward(dev, f, &t, c, split);
	run(dev, f, &t);
	if (!f->copies)
		return;
	copy_rows(dev, f, &rq, c->dq, t.dq, false);
	if (split) {
		add_head(dev, f, f->dk_sum, c->dk, t.dk, at, of);
		add_head(dev, f, f->dv_sum, c->dv, t.dv, at, of);
		return;
	}
	copy_rows(dev, f, &rk, c->dk, t.dk, false);
	copy_rows(dev, f, &rk, c->dv, t.dv, false);
}

void lh_cuda_sdpa_fused_bwd(struct lh_dev *dev, const struct lh_sdpa *s, bool all,
			    const struct lh_cuda_sdpa_grads *c, bool aligned)
{
	struct pieces p = pieces_of(dev, s);
	int group = s->heads.heads / s->heads.kv_heads;
	struct lh_err err = LH_ERR_INIT;
	struct lh_sdpa_tensors t = { };
	struct fast f;

	if (prepare(dev, &f, &p.piece, all, c->dq_row, aligned && !p.copies, &err)) {
		lh_cuda_refuse(dev, &err);
		return;
	}
	place_backward(dev, &f, &t, c, p.split);
	f.scratch = (char *)lh_cuda_scratch(dev, f.used);
	if (!f.scratch)
		return;
	for (int64_t b = 0; b < s->heads.batch; b += p.piece.heads.batch)
		for (int head = 0; head < s->heads.heads; head += p.piece.heads.heads) {
			struct lh_cuda_sdpa_grads part = piece_at(s, c, b, head);

			run_piece(dev, &f, &part, p.split, head % group, group);
		}
}

/* ---- entries --------------------------------------------------------------- */

template <typename T>
void lh_cuda_sdpa(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *o, float *lse,
		  const lh_act *q, const lh_act *k, const lh_act *v)
{
	const struct lh_heads *h = &s->heads;
	bool aligned = lh_aligned<T>(q, h->q_row) && lh_aligned<T>(k, h->kv_row) &&
		       lh_aligned<T>(v, h->kv_row) && lh_aligned<T>(o, h->o_row);

	LH_ASSERT(s->kv_tokens >= h->tokens && h->heads % h->kv_heads == 0);
	LH_ASSERT(!h->start || s->kv_tokens == h->tokens);
	if (is_fast<T>(dev, s) && lh_cuda_sdpa_is_tail(s)) {
		lh_cuda_sdpa_tail(dev, s, o, lse, q, k, v, aligned);
		return;
	}
	lh_sdpa_await_before(s);
	if (is_fast<T>(dev, s) && h->start)
		lh_cuda_sdpa_documents(dev, s, o, lse, q, k, v, aligned);
	else if (is_fast<T>(dev, s))
		lh_cuda_sdpa_fused(dev, s, false, o, lse, q, k, v, aligned);
	else
		slow_forward<T>(dev, s, (T *)o, lse, (const T *)q, (const T *)k,
				(const T *)v);
}

template <typename T>
void lh_cuda_sdpa_bwd(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *dq,
		      lh_act *dk, lh_act *dv, const lh_act *dout, const lh_act *q,
		      const lh_act *k, const lh_act *v, const lh_act *o,
		      const float *lse)
{
	const struct lh_heads *h = &s->heads;
	struct lh_cuda_sdpa_grads c = { dq, h->q_row, dk, dv, dout, q, k, v, o, lse };
	slow_bwd<T> t = { (T *)dq, (T *)dk, (T *)dv, (const T *)dout, (const T *)q,
			  (const T *)k, (const T *)v, lse, NULL };
	bool aligned = lh_aligned<T>(q, h->q_row) && lh_aligned<T>(k, h->kv_row) &&
		       lh_aligned<T>(v, h->kv_row) && lh_aligned<T>(o, h->o_row) &&
		       lh_aligned<T>(dq, h->q_row) && lh_aligned<T>(dk, h->kv_row) &&
		       lh_aligned<T>(dv, h->kv_row) && lh_aligned<T>(dout, h->o_row);

	LH_ASSERT(s->kv_tokens >= h->tokens && h->heads % h->kv_heads == 0);
	LH_ASSERT(!h->start || s->kv_tokens == h->tokens);
	if (is_fast<T>(dev, s) && lh_cuda_sdpa_is_tail(s)) {
		lh_cuda_sdpa_tail_bwd(dev, s, &c, aligned);
		return;
	}
	lh_sdpa_await_before(s);
	if (is_fast<T>(dev, s) && h->start)
		lh_cuda_sdpa_documents_bwd(dev, s, dq, dk, dv, dout, q, k, v, o, lse, aligned);
	else if (is_fast<T>(dev, s))
		lh_cuda_sdpa_fused_bwd(dev, s, false, &c, aligned);
	else
		slow_backward<T>(dev, s, t, (const T *)o);
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_sdpa<T>(struct lh_dev *, const struct lh_sdpa *,        \
				      lh_act *, float *, const lh_act *,              \
				      const lh_act *, const lh_act *);                \
	template void lh_cuda_sdpa_bwd<T>(struct lh_dev *, const struct lh_sdpa *,    \
					  lh_act *, lh_act *, lh_act *,               \
					  const lh_act *, const lh_act *,             \
					  const lh_act *, const lh_act *,             \
					  const lh_act *, const float *);
INSTANCE(bf16)
INSTANCE(float)

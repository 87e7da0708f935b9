/* sdpa_tail.cu: attention of queries that are the last rows of longer keys: a piece of a
 * sequence that ranks share.
 *
 * Where cuDNN's mask begins behind the first key, its kernels compute what it drops all the
 * same: T queries at the end of S keys take S T scores each way, not (S - T/2) T. So such a
 * call is two, of the queries' own keys, the causal square, and of the S - T keys before
 * them, all of which they see, and which may come as late as that (lh_sdpa.await_before).
 *
 * Forward each gives an o and its log-sum-exp, the whole's are made of both: reads 4 T H D + 8
 * T H bytes, writes half. Backward each is given those of the whole, so that its weights
 * and gradients are what they are in one call; only dq is in both: reads 4 T H D bytes, writes
 * half. o and dq are rounded to bf16 before they are joined. */
#include "vec.cuh"

enum { THREADS = 256 };

struct halves { /* of the keys before, contiguous in packed memory, and of the own ones */
	bf16 *before; /* (T,H,D) o or dq */
	float *lse_before, *lse_own; /* (H,T) */
};

struct row_shape {
	int64_t tokens, row; /* of the result */
	int heads, head_dim;
};

static __device__ void find(const row_shape &s, int64_t item, int W, int64_t *t, int *head,
			    int *at)
{
	int parts = s.head_dim / W;
	int64_t of = item / parts;

	*at = (int)(item - of * parts) * W;
	*head = (int)(of % s.heads);
	*t = of / s.heads;
}

/* o and lse of all keys <- o of the own ones, in its place, and the halves. */
template <int W>
__global__ void __launch_bounds__(THREADS)
join_kernel(bf16 *o, float *lse, const row_shape s, const halves x, int64_t items)
{
	int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, t;
	float own[W], before[W], most, sum, a, b;
	int head, at;
	bf16 *to;

	if (item >= items)
		return;
	find(s, item, W, &t, &head, &at);
	to = o + t * s.row + head * s.head_dim + at;
	a = x.lse_own[head * s.tokens + t];
	b = x.lse_before[head * s.tokens + t];
	most = fmaxf(a, b);
	a = expf(a - most);
	b = expf(b - most);
	sum = a + b;
	load<bf16, W>(own, to);
	load<bf16, W>(before, x.before + item * W);
#pragma unroll
	for (int i = 0; i < W; i++)
		own[i] = (a * own[i] + b * before[i]) / sum;
	store<bf16, W>(to, own);
	if (lse && !at)
		lse[head * s.tokens + t] = most + logf(sum);
}

/* dq += that of the keys before. */
template <int W>
__global__ void __launch_bounds__(THREADS)
add_kernel(bf16 *dq, const row_shape s, const bf16 *before, int64_t items)
{
	int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, t;
	float x[W], y[W];
	int head, at;
	bf16 *to;

	if (item >= items)
		return;
	find(s, item, W, &t, &head, &at);
	to = dq + t * s.row + head * s.head_dim + at;
	load<bf16, W>(x, to);
	load<bf16, W>(y, before + item * W);
#pragma unroll
	for (int i = 0; i < W; i++)
		x[i] += y[i];
	store<bf16, W>(to, x);
}

static struct row_shape shape_of(const struct lh_heads *h, int64_t row)
{
	return { h->tokens, row, h->heads, h->head_dim };
}

static int64_t elements(const struct lh_heads *h)
{
	return h->tokens * h->heads * h->head_dim;
}

static unsigned blocks_of(int64_t items)
{
	return (unsigned)lh_ceil(items, THREADS);
}

/* False after remembering that there is no memory. */
static bool take(struct lh_dev *dev, const struct lh_sdpa *s, bool backward, struct halves *x)
{
	const struct lh_heads *h = &s->heads;
	char *p = (char *)lh_cuda_packed(dev, lh_cuda_tail_bytes(s, backward));

	x->before = (bf16 *)p;
	x->lse_before = (float *)(p + elements(h) * (int64_t)sizeof(bf16));
	x->lse_own = x->lse_before + h->heads * h->tokens;
	return p;
}

static const void *own_keys(const struct lh_sdpa *s, const void *k)
{
	return (const bf16 *)k + (s->kv_tokens - s->heads.tokens) * s->heads.kv_row;
}

void lh_cuda_sdpa_tail(struct lh_dev *dev, const struct lh_sdpa *s, void *o, float *lse,
		       const void *q, const void *k, const void *v, bool aligned)
{
	struct lh_sdpa own = lh_cuda_tail_own(s), before = lh_cuda_tail_before(s);
	struct row_shape shape = shape_of(&s->heads, s->heads.o_row);
	int64_t n = elements(&s->heads);
	struct halves x;

	before.heads.o_row = (int64_t)s->heads.heads * s->heads.head_dim;
	if (!take(dev, s, false, &x)) {
		lh_sdpa_await_before(s);
		return;
	}
	lh_cuda_sdpa_fused(dev, &own, false, o, x.lse_own, q, own_keys(s, k), own_keys(s, v),
			   aligned);
	lh_sdpa_await_before(s);
	lh_cuda_sdpa_fused(dev, &before, true, x.before, x.lse_before, q, k, v, aligned);
	if (aligned)
		join_kernel<VEC<bf16>><<<blocks_of(n / VEC<bf16>), THREADS, 0, dev->stream>>>(
			(bf16 *)o, lse, shape, x, n / VEC<bf16>);
	else
		join_kernel<1><<<blocks_of(n), THREADS, 0, dev->stream>>>((bf16 *)o, lse,
									  shape, x, n);
	lh_cuda_launched(dev, "sdpa");
}

void lh_cuda_sdpa_tail_bwd(struct lh_dev *dev, const struct lh_sdpa *s,
			   const struct lh_cuda_sdpa_grads *c, bool aligned)
{
	struct lh_sdpa own = lh_cuda_tail_own(s), before = lh_cuda_tail_before(s);
	struct row_shape shape = shape_of(&s->heads, c->dq_row);
	struct lh_cuda_sdpa_grads of_own = *c, of_before = *c;
	int64_t n = elements(&s->heads);
	struct halves x;

	if (!take(dev, s, true, &x)) {
		lh_sdpa_await_before(s);
		return;
	}
	of_own.k = own_keys(s, c->k);
	of_own.v = own_keys(s, c->v);
	of_own.dk = (void *)own_keys(s, c->dk);
	of_own.dv = (void *)own_keys(s, c->dv);
	of_before.dq = x.before;
	of_before.dq_row = (int64_t)s->heads.heads * s->heads.head_dim;
	lh_cuda_sdpa_fused_bwd(dev, &own, false, &of_own, aligned);
	lh_sdpa_await_before(s);
	lh_cuda_sdpa_fused_bwd(dev, &before, true, &of_before, aligned);
	if (aligned)
		add_kernel<VEC<bf16>><<<blocks_of(n / VEC<bf16>), THREADS, 0, dev->stream>>>(
			(bf16 *)c->dq, shape, x.before, n / VEC<bf16>);
	else
		add_kernel<1><<<blocks_of(n), THREADS, 0, dev->stream>>>((bf16 *)c->dq, shape,
									 x.before, n);
	lh_cuda_launched(dev, "sdpa_bwd");
}

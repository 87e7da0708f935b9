/* sdpa_documents.cu: attention inside documents, by cuDNN's fused kernels.
 *
 * cuDNN's plans are of one length, and documents have any. They go by length into
 * buckets of 128, 256, 512 ... tokens (sizes.h), a few at a time through copies whose
 * rows behind a document are zero: no real query sees padded keys, and padded queries
 * have zero gradients. A plan a bucket serves every sequence.
 *
 * Operations are those of the buckets' squares, 4 times a document's own at most, and
 * never more than attention across documents would take by much; bytes, two copies of
 * all rows each way. The last call of a bucket may be mostly empty. */
#include <stdlib.h>
#include <string.h>

#include "vec.cuh"

enum { THREADS = 256, DOCUMENTS = LH_CUDA_BUCKET_DOCUMENTS };

struct places { /* of the documents of a call */
	int32_t from[DOCUMENTS];   /* row of B*T */
	int32_t tokens[DOCUMENTS]; /* 0: none is there */
};

/* Rows of documents, strided outside, contiguous and padded inside. */
template <int W>
__global__ void __launch_bounds__(THREADS)
pack_kernel(bf16 *inside, bf16 *outside, const places p, int64_t items, int64_t tokens,
	    int parts, int64_t row, bool in)
{
	int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = item / parts;
	int64_t d = r / tokens, t = r % tokens, at = item % parts * W;
	raw<bf16, W> x = { };
	bool real;

	if (item >= items)
		return;
	real = t < p.tokens[d];
	inside += r * parts * W + at;
	outside += (p.from[d] + t) * row + at;
	if (in && real)
		x = fetch<bf16, W>(outside);
	if (in)
		*(raw<bf16, W> *)inside = x;
	else if (real)
		*(raw<bf16, W> *)outside = fetch<bf16, W>(inside);
}

/* Statistics (documents,H,tokens) inside, (B,H,T) outside. */
__global__ void __launch_bounds__(THREADS)
stats_kernel(float *inside, float *outside, const places p, int64_t items, int heads,
	     int64_t tokens, int64_t T, bool in)
{
	int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x;
	int64_t t = item % tokens, h = item / tokens % heads, d = item / tokens / heads, r;
	float *out;

	if (item >= items)
		return;
	r = p.from[d] + t;
	out = outside + (r / T * heads + h) * T + r % T;
	if (in)
		inside[item] = t < p.tokens[d] ? *out : 0;
	else if (t < p.tokens[d])
		*out = inside[item];
}

/* ---- one call -------------------------------------------------------------- */

struct operands { /* the caller's; of a forward the first five */
	bf16 *q, *k, *v, *o;
	float *lse;
	bf16 *dout, *dq, *dk, *dv; /* NULL: a forward */
};

struct call {
	struct lh_dev *dev;
	const struct lh_sdpa *s;
	struct operands t;
	struct lh_cuda_bucket bucket;
	struct places p;
	int count;      /* documents so far */
	bool vec;
	char *memory;
	size_t used;
};

static void *take(struct call *c, int64_t bytes)
{
	char *at = c->memory + c->used;

	c->used += ((size_t)bytes + 255) / 256 * 256;
	return at;
}

static int64_t rows_of(const struct call *c)
{
	return c->bucket.tokens * c->bucket.documents;
}

static void copy_rows(const struct call *c, bf16 *inside, bf16 *outside, int heads,
		      int64_t row, bool in)
{
	int parts = heads * c->s->heads.head_dim / (c->vec ? VEC<bf16> : 1);
	int64_t items = rows_of(c) * parts;
	unsigned blocks = (unsigned)lh_ceil(items, THREADS);

	if (c->vec)
		pack_kernel<VEC<bf16>><<<blocks, THREADS, 0, c->dev->stream>>>(
			inside, outside, c->p, items, c->bucket.tokens, parts, row, in);
	else
		pack_kernel<1><<<blocks, THREADS, 0, c->dev->stream>>>(
			inside, outside, c->p, items, c->bucket.tokens, parts, row, in);
}

static void copy_stats(const struct call *c, float *inside, bool in)
{
	int64_t items = rows_of(c) * c->s->heads.heads;

	stats_kernel<<<(unsigned)lh_ceil(items, THREADS), THREADS, 0, c->dev->stream>>>(
		inside, c->t.lse, c->p, items, c->s->heads.heads, c->bucket.tokens,
		c->s->heads.tokens, in);
}

static bf16 *room(struct call *c, int heads)
{
	return (bf16 *)take(c, rows_of(c) * heads * c->s->heads.head_dim *
				       (int64_t)sizeof(bf16));
}

static bf16 *packed(struct call *c, bf16 *outside, int heads, int64_t row)
{
	bf16 *inside = room(c, heads);

	copy_rows(c, inside, outside, heads, row, true);
	return inside;
}

static void forward(struct call *c)
{
	const struct lh_heads *h = &c->s->heads;
	struct lh_sdpa s = lh_cuda_bucket_sdpa(c->s, &c->bucket);
	bf16 *q = packed(c, c->t.q, h->heads, h->q_row);
	bf16 *k = packed(c, c->t.k, h->kv_heads, h->kv_row);
	bf16 *v = packed(c, c->t.v, h->kv_heads, h->kv_row);
	bf16 *o = room(c, h->heads);
	float *lse = (float *)take(c, rows_of(c) * h->heads * 4);

	lh_cuda_sdpa<bf16>(c->dev, &s, o, c->t.lse ? lse : NULL, q, k, v);
	copy_rows(c, o, c->t.o, h->heads, h->o_row, false);
	if (c->t.lse)
		copy_stats(c, lse, false);
}

static void backward(struct call *c)
{
	const struct lh_heads *h = &c->s->heads;
	struct lh_sdpa s = lh_cuda_bucket_sdpa(c->s, &c->bucket);
	bf16 *q = packed(c, c->t.q, h->heads, h->q_row);
	bf16 *k = packed(c, c->t.k, h->kv_heads, h->kv_row);
	bf16 *v = packed(c, c->t.v, h->kv_heads, h->kv_row);
	bf16 *o = packed(c, c->t.o, h->heads, h->o_row);
	bf16 *dout = packed(c, c->t.dout, h->heads, h->o_row);
	bf16 *dq = room(c, h->heads), *dk = room(c, h->kv_heads);
	bf16 *dv = room(c, h->kv_heads);
	float *lse = (float *)take(c, rows_of(c) * h->heads * 4);

	copy_stats(c, lse, true);
	lh_cuda_sdpa_bwd<bf16>(c->dev, &s, dq, dk, dv, dout, q, k, v, o, lse);
	copy_rows(c, dq, c->t.dq, h->heads, h->q_row, false);
	copy_rows(c, dk, c->t.dk, h->kv_heads, h->kv_row, false);
	copy_rows(c, dv, c->t.dv, h->kv_heads, h->kv_row, false);
}

/* Does what has been collected, and begins anew. */
static void flush(struct call *c)
{
	c->used = 0;
	if (c->t.dq)
		backward(c);
	else
		forward(c);
	lh_cuda_launched(c->dev, "sdpa of documents");
	memset(&c->p, 0, sizeof(c->p));
	c->count = 0;
}

/* ---- all of them ----------------------------------------------------------- */

struct documents { /* of all sequences; heap */
	int32_t *from, *tokens;
	int64_t count;
};

static struct documents documents_of(const struct lh_heads *h)
{
	int64_t rows = h->batch * h->tokens;
	struct documents d = { };

	d.from = (int32_t *)lh_alloc((size_t)rows * sizeof(*d.from));
	d.tokens = (int32_t *)lh_calloc((size_t)rows, sizeof(*d.tokens));
	for (int64_t r = 0; r < rows; r++) {
		if (h->start_host[r] == r % h->tokens)
			d.from[d.count++] = (int32_t)r;
		d.tokens[d.count - 1]++;
	}
	return d;
}

/* Those that are longer than `above`, up to the bucket's length. */
static void run_bucket(struct call *c, const struct documents *d, int64_t above)
{
	for (int64_t i = 0; i < d->count; i++) {
		if (d->tokens[i] <= above || d->tokens[i] > c->bucket.tokens)
			continue;
		c->p.from[c->count] = d->from[i];
		c->p.tokens[c->count++] = d->tokens[i];
		if (c->count == c->bucket.documents)
			flush(c);
	}
	/* A rehearsal is of every bucket: any may come. */
	if (c->count || c->dev->rehearsing)
		flush(c);
}

static void run(struct lh_dev *dev, const struct lh_sdpa *s, const struct operands *t,
		bool vec)
{
	struct call c = { };
	struct documents d;
	int64_t above = 0;

	c.dev = dev;
	c.s = s;
	c.t = *t;
	c.vec = vec;
	c.memory = (char *)lh_cuda_packed(dev, lh_cuda_documents_bytes(s, t->dq != NULL));
	if (!c.memory)
		return;
	d = documents_of(&s->heads);
	for (int k = 0; lh_cuda_bucket(&s->heads, k, &c.bucket); k++) {
		run_bucket(&c, &d, above);
		above = c.bucket.tokens;
	}
	free(d.from);
	free(d.tokens);
}

void lh_cuda_sdpa_documents(struct lh_dev *dev, const struct lh_sdpa *s, void *o, float *lse,
			    const void *q, const void *k, const void *v, bool aligned)
{
	struct operands t = { };

	t.q = (bf16 *)q, t.k = (bf16 *)k, t.v = (bf16 *)v, t.o = (bf16 *)o, t.lse = lse;
	run(dev, s, &t, aligned);
}

void lh_cuda_sdpa_documents_bwd(struct lh_dev *dev, const struct lh_sdpa *s, void *dq,
				void *dk, void *dv, const void *dout, const void *q,
				const void *k, const void *v, const void *o,
				const float *lse, bool aligned)
{
	struct operands t = { (bf16 *)q, (bf16 *)k, (bf16 *)v, (bf16 *)o, (float *)lse,
			      (bf16 *)dout, (bf16 *)dq, (bf16 *)dk, (bf16 *)dv };

	run(dev, s, &t, aligned);
}

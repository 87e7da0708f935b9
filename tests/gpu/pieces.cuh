/* pieces.cuh: the ops of a backend that add up in another order: in pieces of rows.
 *
 * Attention takes the queries of a sequence in so many pieces, each with the keys up to its
 * own end; what each wants of keys and values is rounded as the backend rounds it, and added
 * up in float32, the last piece first. Linear maps take their rows in as many pieces: of
 * other shapes a library sums in other orders. One device does it all, and nothing is sent.
 * A single piece is the backend's own op.
 *
 * One of them a program, for an op has no argument for it, and one thread. The statistics
 * that attention leaves for its gradient lie in another order, too: both passes of a step
 * have the same pieces. No documents. */
#ifndef LIGHTHOUSE_TESTS_PIECES_CUH
#define LIGHTHOUSE_TESTS_PIECES_CUH

#include "ranks.cuh"

enum { PIECES_MAX = 4 };

static struct {
	struct lh_ops ops; /* of models; what it is changes between their steps */
	const struct lh_ops *base;
	int count;
	int64_t tokens, row; /* the most keys of a sequence, and elements between them */
	lh_act *dk, *dv;     /* what piece 0 of a sequence wants, piece 1, ... */
} pieces;

static inline lh_act *pieces_at(const lh_act *base, int64_t elements)
{
	return (char *)base +
	       elements * (int64_t)lh_dtype_bytes(pieces.base->sizes->act_type);
}

/* ---- linear maps ------------------------------------------------------------------ */

static inline struct lh_linear pieces_linear_of(const struct lh_linear *s)
{
	LH_ASSERT(s->rows % pieces.count == 0);
	return { s->rows / pieces.count, s->in, s->out };
}

static inline void pieces_linear(struct lh_dev *dev, const struct lh_linear *s, lh_act *y,
				 const lh_act *x, const lh_act *w, const lh_act *add)
{
	struct lh_linear p = pieces_linear_of(s);

	for (int64_t row = 0; row < s->rows; row += p.rows)
		pieces.base->linear(dev, &p, pieces_at(y, row * s->out),
				    pieces_at(x, row * s->in), w,
				    add ? pieces_at(add, row * s->out) : NULL);
}

static inline void pieces_linear_dx(struct lh_dev *dev, const struct lh_linear *s, lh_act *dx,
				    const lh_act *dy, const lh_act *w)
{
	struct lh_linear p = pieces_linear_of(s);

	for (int64_t row = 0; row < s->rows; row += p.rows)
		pieces.base->linear_dx(dev, &p, pieces_at(dx, row * s->in),
				       pieces_at(dy, row * s->out), w);
}

static inline void pieces_linear_dw(struct lh_dev *dev, const struct lh_linear *s, float *dw,
				    const lh_act *dy, const lh_act *x)
{
	struct lh_linear p = pieces_linear_of(s);

	for (int64_t row = 0; row < s->rows; row += p.rows)
		pieces.base->linear_dw(dev, &p, dw, pieces_at(dy, row * s->out),
				       pieces_at(x, row * s->in));
}

/* ---- attention -------------------------------------------------------------------- */

/* Piece i, of one sequence. */
static inline struct lh_sdpa pieces_sdpa_of(const struct lh_sdpa *s, int i)
{
	struct lh_sdpa p = *s;

	LH_ASSERT(!s->heads.start && s->kv_tokens == s->heads.tokens);
	LH_ASSERT(s->heads.tokens % pieces.count == 0);
	p.heads.batch = 1;
	p.heads.tokens = s->heads.tokens / pieces.count;
	p.kv_tokens = (i + 1) * p.heads.tokens;
	return p;
}

static inline void pieces_sdpa(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *o,
			       float *lse, const lh_act *q, const lh_act *k, const lh_act *v)
{
	const struct lh_heads *h = &s->heads;

	LH_ASSERT(lse);
	for (int b = 0; b < h->batch; b++)
		for (int i = 0; i < pieces.count; i++) {
			struct lh_sdpa p = pieces_sdpa_of(s, i);
			int64_t first = b * h->tokens, row = first + i * p.heads.tokens;

			pieces.base->sdpa(dev, &p, pieces_at(o, row * h->o_row),
					  lse + row * h->heads, pieces_at(q, row * h->q_row),
					  pieces_at(k, first * h->kv_row),
					  pieces_at(v, first * h->kv_row));
		}
}

/* Rows of keys that the pieces before i have. */
static inline int64_t pieces_before(int64_t rows, int i)
{
	return rows * i * (i + 1) / 2;
}

/* to <- the sum of what all pieces want of the keys, or values, of one sequence. */
static inline void pieces_add(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *to,
			      const lh_act *grads)
{
	int64_t rows = s->heads.tokens / pieces.count, row = s->heads.kv_row;
	const lh_act *from[PIECES_MAX];

	for (int j = 0; j < pieces.count; j++) {
		int count = 0;

		for (int i = pieces.count - 1; i >= j; i--)
			from[count++] = pieces_at(
				grads, (pieces_before(rows, i) + j * rows) * row);
		pieces.base->sum_rows(dev, rows, s->heads.kv_heads * s->heads.head_dim,
				      pieces_at(to, j * rows * row), row, from, row, count);
	}
}

static inline void pieces_sdpa_bwd(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *dq,
				   lh_act *dk, lh_act *dv, const lh_act *dout,
				   const lh_act *q, const lh_act *k, const lh_act *v,
				   const lh_act *o, const float *lse)
{
	const struct lh_heads *h = &s->heads;

	LH_ASSERT(h->tokens <= pieces.tokens && h->kv_row <= pieces.row);
	for (int b = 0; b < h->batch; b++) {
		int64_t first = b * h->tokens, keys = first * h->kv_row;

		for (int i = 0; i < pieces.count; i++) {
			struct lh_sdpa p = pieces_sdpa_of(s, i);
			int64_t row = first + i * p.heads.tokens;
			int64_t grads = pieces_before(p.heads.tokens, i) * h->kv_row;

			pieces.base->sdpa_bwd(
				dev, &p, pieces_at(dq, row * h->q_row),
				pieces_at(pieces.dk, grads), pieces_at(pieces.dv, grads),
				pieces_at(dout, row * h->o_row), pieces_at(q, row * h->q_row),
				pieces_at(k, keys), pieces_at(v, keys),
				pieces_at(o, row * h->o_row), lse + row * h->heads);
		}
		pieces_add(dev, s, pieces_at(dk, keys), pieces.dk);
		pieces_add(dev, s, pieces_at(dv, keys), pieces.dv);
	}
}

/* ---- all of it -------------------------------------------------------------------- */

/* From here on so many pieces, 1 to PIECES_MAX. */
static inline void pieces_divide(int count)
{
	LH_ASSERT(count >= 1 && count <= PIECES_MAX);
	pieces.count = count;
	pieces.ops = *pieces.base;
	if (count == 1)
		return;
	pieces.ops.linear = pieces_linear;
	pieces.ops.linear_dx = pieces_linear_dx;
	pieces.ops.linear_dw = pieces_linear_dw;
	pieces.ops.sdpa = pieces_sdpa;
	pieces.ops.sdpa_bwd = pieces_sdpa_bwd;
}

/* For sequences of so many tokens at most, and keys no more than `row` elements apart. */
static inline void pieces_open(struct ranks *r, int64_t tokens, int64_t row)
{
	size_t all = (size_t)(tokens * row) * lh_dtype_bytes(r->ops->sizes->act_type);

	/* The pieces see half of all keys, and half a piece each. */
	all = all * (PIECES_MAX + 1) / 2;
	pieces.base = r->ops;
	pieces.tokens = tokens;
	pieces.row = row;
	pieces_divide(1);
	pieces.dk = ranks_alloc(r, all);
	pieces.dv = ranks_alloc(r, all);
}

static inline void pieces_close(struct ranks *r)
{
	r->ops->free(r->dev, pieces.dk);
	r->ops->free(r->dev, pieces.dv);
	pieces = { };
}

#endif

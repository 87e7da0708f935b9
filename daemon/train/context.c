/* context.c: see context.h. */
#include "train/context.h"

#include <stdlib.h>
#include <string.h>

/* ---- pieces ------------------------------------------------------------------ */

static int pieces(int ranks)
{
	return ranks > 1 ? 2 * ranks : 1;
}

int lh_context_piece(int ranks, int rank, int i)
{
	return i ? 2 * ranks - 1 - rank : rank;
}

int lh_context_place(int ranks, int piece)
{
	return piece < ranks ? 2 * piece : 2 * (2 * ranks - 1 - piece) + 1;
}

struct lh_lighthouse lh_context_geometry(const struct lh_lighthouse *g, int ranks)
{
	struct lh_lighthouse piece = *g;

	piece.tokens /= pieces(ranks);
	piece.topk /= pieces(ranks);
	return piece;
}

struct lh_heads lh_context_heads(struct lh_heads h, int ranks)
{
	h.tokens /= pieces(ranks);
	return h;
}

/* ---- host memory ------------------------------------------------------------ */

void lh_context_collect_rows(const struct lh_comm *c, float *whole, const float *own,
			     int64_t tokens)
{
	int64_t n = tokens / pieces(c->size);
	float *all = lh_alloc((size_t)tokens * sizeof(*all));

	memcpy(all + 2 * n * c->rank, own, (size_t)(2 * n) * sizeof(*all));
	lh_comm_collect(c, "losses of tokens", all, (size_t)(2 * n) * sizeof(*all));
	for (int p = 0; p < pieces(c->size); p++)
		memcpy(whole + p * n, all + lh_context_place(c->size, p) * n,
		       (size_t)n * sizeof(*all));
	free(all);
}

/* Entries of a piece as the sequence counts them: to (S/(2W)) <- from. */
static void renumber(const struct lh_lighthouse *g, const struct lh_lighthouse *of_piece,
		     int piece, int32_t *to, const int32_t *from)
{
	for (int64_t i = 0; i < lh_lighthouse_selected(of_piece); i++) {
		int64_t at;
		int level = lh_lighthouse_level_of(of_piece, from[i], &at);

		to[i] = (int32_t)(lh_lighthouse_base(g, level) + at +
				  piece * lh_lighthouse_entries(of_piece, level));
	}
}

void lh_context_collect_index(const struct lh_comm *c, const struct lh_lighthouse *g,
			      int heads, int32_t *index)
{
	struct lh_lighthouse of_piece = lh_context_geometry(g, c->size);
	int64_t S = lh_lighthouse_selected(&of_piece), one = heads * S;
	int count = pieces(c->size);
	int32_t *all = lh_alloc((size_t)(count * one) * sizeof(*all));

	memcpy(all + 2 * one * c->rank, index, (size_t)(2 * one) * sizeof(*all));
	lh_comm_collect(c, "the choice", all, (size_t)(2 * one) * sizeof(*all));
	for (int p = 0; p < count; p++)
		for (int h = 0; h < heads; h++)
			renumber(g, &of_piece, p, index + (h * count + p) * S,
				 all + lh_context_place(c->size, p) * one + h * S);
	free(all);
}

/* ---- in the midst of a layer -------------------------------------------------- */

static lh_act *elements(const struct lh_context_call *x, lh_act *base, int64_t n)
{
	return (char *)base + (int64_t)lh_dtype_bytes(x->ops->sizes->act_type) * n;
}

/* Elements of a piece's rows, of keys and values. */
static int64_t piece_size(const struct lh_context_call *x)
{
	return x->rows * 2 * x->width;
}

static struct lh_context_keys side_by_side(const struct lh_context_call *x, lh_act *base)
{
	return (struct lh_context_keys){ base, elements(x, base, x->width), 2 * x->width };
}

static void copy(const struct lh_context_call *x, lh_act *to, int64_t to_row,
		 const lh_act *from, int64_t from_row)
{
	x->ops->copy_rows(x->dev, x->rows, x->width, to, to_row, from, from_row);
}

/* Half of all pieces, the i-th of every rank, from own rows: they come in the order of
 * ranks. */
static void gather_half(const struct lh_context_call *x, int i,
			const struct lh_context_keys *own)
{
	int W = x->comm->size;
	lh_act *half = elements(x, x->scratch->kv, i * W * piece_size(x));
	lh_act *place = elements(x, half, x->comm->rank * piece_size(x));
	struct lh_context_keys to = side_by_side(x, place);
	int64_t *at = lh_calloc((size_t)W + 1, sizeof(*at)), first = i * x->rows * own->row;

	for (int r = 0; r <= W; r++)
		at[r] = r * piece_size(x) *
			(int64_t)lh_dtype_bytes(x->ops->sizes->act_type);
	copy(x, to.k, to.row, elements(x, own->k, first), own->row);
	copy(x, to.v, to.row, elements(x, own->v, first), own->row);
	lh_comm_gather(x->comm, "keys and values", half, at, place);
	free(at);
}

/* Pieces a and b change places. */
static void swap(const struct lh_context_call *x, int a, int b)
{
	lh_act *p = elements(x, x->scratch->kv, a * piece_size(x));
	lh_act *q = elements(x, x->scratch->kv, b * piece_size(x));
	lh_act *spare = x->scratch->spare;
	int64_t row = 2 * x->width;

	x->ops->copy_rows(x->dev, x->rows, row, spare, row, p, row);
	x->ops->copy_rows(x->dev, x->rows, row, p, row, q, row);
	x->ops->copy_rows(x->dev, x->rows, row, q, row, spare, row);
}

struct lh_context_keys lh_context_gather(const struct lh_context_call *x,
					 const struct lh_context_keys *own)
{
	int W = x->comm->size;

	gather_half(x, 0, own);
	gather_half(x, 1, own);
	/* Second pieces are the later the earlier their rank. */
	for (int i = 0; i < W / 2; i++)
		swap(x, W + i, 2 * W - 1 - i);
	return side_by_side(x, x->scratch->kv);
}

struct lh_context_keys lh_context_begin_sum(const struct lh_context_call *x)
{
	int64_t n = 2 * x->comm->size * piece_size(x);

	x->ops->zero(x->dev, x->scratch->sum, (size_t)n * sizeof(float));
	return side_by_side(x, x->scratch->dkv);
}

void lh_context_add(const struct lh_context_call *x, int piece)
{
	int64_t row = 2 * x->width;

	for (int p = 0; p <= piece; p++)
		x->ops->add_rows(x->dev, x->rows, row,
				 x->scratch->sum +
					 lh_context_place(x->comm->size, p) * piece_size(x),
				 row, elements(x, x->scratch->dkv, p * piece_size(x)), row);
}

void lh_context_reduce(const struct lh_context_call *x, const struct lh_context_keys *own)
{
	int W = x->comm->size;
	int64_t *at = lh_calloc((size_t)W + 1, sizeof(*at)), row = 2 * x->width;
	float *sum = x->scratch->sum + x->comm->rank * 2 * piece_size(x);

	for (int r = 0; r <= W; r++)
		at[r] = r * 2 * piece_size(x);
	lh_comm_reduce_scatter(x->comm, "gradients of keys and values", x->scratch->sum, at,
			       sum, false);
	x->ops->round_rows(x->dev, 2 * x->rows, x->width, own->k, own->row, sum, row);
	x->ops->round_rows(x->dev, 2 * x->rows, x->width, own->v, own->row, sum + x->width,
			   row);
	free(at);
}

void lh_context_share_halo(const struct lh_comm *c, void *all, int64_t bytes)
{
	int64_t *at = lh_calloc((size_t)c->size + 1, sizeof(*at));

	for (int r = 0; r <= c->size; r++)
		at[r] = r * 2 * bytes;
	lh_comm_gather(c, "halos", all, at, (char *)all + at[c->rank]);
	free(at);
}

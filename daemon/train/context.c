/* context.c: see context.h. */
#include "train/context.h"

#include <stdlib.h>
#include <string.h>

enum { KEYS_SLOT = 0 }; /* of the context's comm, which has nothing else beside the ops */

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

static lh_act *elements(const struct lh_context_call *x, const lh_act *base, int64_t n)
{
	return (char *)base + (int64_t)lh_dtype_bytes(x->ops->sizes->act_type) * n;
}

/* A row holds its key, and then its value. */
static int64_t row_of(const struct lh_context_call *x)
{
	return 2 * x->width;
}

/* Elements of a piece's rows. */
static int64_t piece_size(const struct lh_context_call *x)
{
	return x->rows * row_of(x);
}

static int64_t piece_bytes(const struct lh_context_call *x)
{
	return piece_size(x) * (int64_t)lh_dtype_bytes(x->ops->sizes->act_type);
}

static lh_act *values_of(const struct lh_context_call *x, const lh_act *rows)
{
	return elements(x, rows, x->width);
}

static struct lh_context_keys keys_of(const struct lh_context_call *x, lh_act *rows)
{
	return (struct lh_context_keys){ rows, values_of(x, rows), row_of(x) };
}

/* Piece i of a rank, among all. */
static lh_act *piece_at(const struct lh_context_call *x, int rank, int i)
{
	return elements(x, x->scratch->kv,
			lh_context_piece(x->comm->size, rank, i) * piece_size(x));
}

/* Of own keys, or of values: where those of piece i begin. */
static lh_act *own_at(const struct lh_context_call *x, const struct lh_context_keys *own,
		      lh_act *of, int i)
{
	return elements(x, of, i * x->rows * own->row);
}

static void copy_own(const struct lh_context_call *x, const struct lh_context_keys *own, int i)
{
	lh_act *to = piece_at(x, x->comm->rank, i);

	x->ops->copy_rows(x->dev, x->rows, x->width, to, row_of(x), own_at(x, own, own->k, i),
			  own->row);
	x->ops->copy_rows(x->dev, x->rows, x->width, values_of(x, to), row_of(x),
			  own_at(x, own, own->v, i), own->row);
}

/* m <- the messages by which rank `to` has what it sees of rank `of`'s pieces: both where
 * that is the later one, else the first; returns how many. The last rank's pieces are
 * neighbours, and go as one. */
static int name_pieces(const struct lh_context_call *x, struct lh_comm_message *m, int of,
		       int to)
{
	bool comes = to == x->comm->rank;
	int seen = to < of ? 2 : 1, count = of == x->comm->size - 1 ? 1 : seen;

	for (int i = 0; i < count; i++)
		m[i] = (struct lh_comm_message){ comes ? of : to, comes, piece_at(x, of, i),
						 seen / count * piece_bytes(x) };
	return count;
}

struct lh_context_keys lh_context_begin_gather(const struct lh_context_call *x,
					       const struct lh_context_keys *own)
{
	int W = x->comm->size, rank = x->comm->rank, count = 0;
	struct lh_comm_message *m = lh_calloc(4 * (size_t)W, sizeof(*m));

	for (int i = 0; i < 2; i++)
		copy_own(x, own, i);
	for (int r = 0; r < W; r++) {
		if (r == rank)
			continue;
		count += name_pieces(x, m + count, rank, r);
		count += name_pieces(x, m + count, r, rank);
	}
	lh_comm_begin_exchange(x->comm, "keys and values", m, count, KEYS_SLOT);
	free(m);
	return keys_of(x, x->scratch->kv);
}

void lh_context_await(const struct lh_context_call *x)
{
	lh_comm_await(x->comm, KEYS_SLOT);
}

/* What own piece i wants of piece p, which it sees. What piece 1 wants begins behind what
 * piece 0 does: together both see all pieces, and one more. */
static lh_act *grad_of(const struct lh_context_call *x, int i, int p)
{
	return elements(x, x->scratch->dkv, ((i ? x->comm->rank + 1 : 0) + p) * piece_size(x));
}

struct lh_context_keys lh_context_grads(const struct lh_context_call *x, int i)
{
	return keys_of(x, grad_of(x, i, 0));
}

/* The k-th of two that come from a rank. */
static lh_act *got_from(const struct lh_context_call *x, int rank, int k)
{
	return elements(x, x->scratch->got, (2 * rank + k) * piece_size(x));
}

/* Two pieces go to each rank, and two come. Of ranks a < b: what both pieces of b want of a's
 * first; what a's second one wants of both pieces of b. */
static void exchange_grads(const struct lh_context_call *x)
{
	int W = x->comm->size, own = x->comm->rank, count = 0;
	struct lh_comm_message *m = lh_calloc(4 * (size_t)W, sizeof(*m));

	for (int r = 0; r < W; r++) {
		if (r == own)
			continue;
		for (int k = 0; k < 2; k++) {
			lh_act *to = r < own ? grad_of(x, k, r) :
					       grad_of(x, 1, lh_context_piece(W, r, k));

			m[count++] = (struct lh_comm_message){ r, false, to, piece_bytes(x) };
			m[count++] = (struct lh_comm_message){ r, true, got_from(x, r, k),
							       piece_bytes(x) };
		}
	}
	lh_comm_exchange(x->comm, "gradients of keys and values", m, count);
	free(m);
}

/* from <- what is to be summed for own piece i, rank by rank; returns how many. */
static int find_parts(const struct lh_context_call *x, int i, const lh_act **from)
{
	int W = x->comm->size, own = x->comm->rank, count = 0;
	int piece = lh_context_piece(W, own, i);

	for (int r = 0; r < W; r++) {
		if (r < own) {
			from[count++] = got_from(x, r, i);
		} else if (r == own) {
			if (!i)
				from[count++] = grad_of(x, 0, piece);
			from[count++] = grad_of(x, 1, piece);
		} else if (!i) {
			from[count++] = got_from(x, r, 0);
			from[count++] = got_from(x, r, 1);
		}
	}
	return count;
}

/* Own piece i <- what all that see it want of it. */
static void sum_own(const struct lh_context_call *x, const struct lh_context_keys *own, int i)
{
	const lh_act *from[LH_SUM_MAX];
	int count = find_parts(x, i, from);

	x->ops->sum_rows(x->dev, x->rows, x->width, own_at(x, own, own->k, i), own->row, from,
			 row_of(x), count);
	for (int k = 0; k < count; k++)
		from[k] = values_of(x, from[k]);
	x->ops->sum_rows(x->dev, x->rows, x->width, own_at(x, own, own->v, i), own->row, from,
			 row_of(x), count);
}

void lh_context_reduce(const struct lh_context_call *x, const struct lh_context_keys *own)
{
	LH_ASSERT(pieces(x->comm->size) <= LH_SUM_MAX);
	exchange_grads(x);
	for (int i = 0; i < 2; i++)
		sum_own(x, own, i);
}

void lh_context_share_halo(const struct lh_comm *c, void *all, int64_t bytes)
{
	int64_t *at = lh_calloc((size_t)c->size + 1, sizeof(*at));

	for (int r = 0; r <= c->size; r++)
		at[r] = r * 2 * bytes;
	lh_comm_gather(c, "halos", all, at, (char *)all + at[c->rank]);
	free(at);
}

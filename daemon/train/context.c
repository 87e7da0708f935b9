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

static lh_act *elements(const struct lh_context_call *x, const lh_act *base, int64_t n)
{
	return (char *)base + (int64_t)lh_dtype_bytes(x->ops->sizes->act_type) * n;
}

/* Elements of a piece's rows, of keys or of values. */
static int64_t piece_size(const struct lh_context_call *x)
{
	return x->rows * x->width;
}

static int64_t piece_bytes(const struct lh_context_call *x)
{
	return piece_size(x) * (int64_t)lh_dtype_bytes(x->ops->sizes->act_type);
}

/* One after the other, of so many pieces. */
static struct lh_context_keys keys_of(const struct lh_context_call *x, lh_act *base,
				      int64_t count)
{
	return (struct lh_context_keys){ base, elements(x, base, count * piece_size(x)),
					 x->width };
}

/* Of keys, or of values: piece i of a rank among all. */
static lh_act *piece_at(const struct lh_context_call *x, lh_act *all, int rank, int i)
{
	return elements(x, all, lh_context_piece(x->comm->size, rank, i) * piece_size(x));
}

static void copy_own(const struct lh_context_call *x, int i, lh_act *all, const lh_act *own,
		     int64_t own_row)
{
	x->ops->copy_rows(x->dev, x->rows, x->width, piece_at(x, all, x->comm->rank, i),
			  x->width, elements(x, own, i * x->rows * own_row), own_row);
}

struct lh_context_keys lh_context_gather(const struct lh_context_call *x,
					 const struct lh_context_keys *own)
{
	struct lh_context_keys all = keys_of(x, x->scratch->kv, pieces(x->comm->size));
	int W = x->comm->size, rank = x->comm->rank, count = 0;
	struct lh_comm_message *m = lh_calloc(8 * (size_t)W, sizeof(*m));

	for (int i = 0; i < 2; i++) {
		copy_own(x, i, all.k, own->k, own->row);
		copy_own(x, i, all.v, own->v, own->row);
	}
	for (int k = 0; k < 4 * W; k++) {
		lh_act *of = k & 1 ? all.v : all.k;
		int r = k / 4, i = k >> 1 & 1;

		if (r == rank)
			continue;
		m[count++] = (struct lh_comm_message){ r, false, piece_at(x, of, rank, i),
						       piece_bytes(x) };
		m[count++] = (struct lh_comm_message){ r, true, piece_at(x, of, r, i),
						       piece_bytes(x) };
	}
	lh_comm_exchange(x->comm, "keys and values", m, count);
	free(m);
	return all;
}

/* Of all gradients of keys, or of values: what piece i sees begins behind what piece 0 does. */
static int64_t grads_at(const struct lh_context_call *x, int i)
{
	return i ? (x->comm->rank + 1) * piece_size(x) : 0;
}

/* Together both see all pieces, and one more. */
static struct lh_context_keys all_grads(const struct lh_context_call *x)
{
	return keys_of(x, x->scratch->dkv, pieces(x->comm->size) + 1);
}

struct lh_context_keys lh_context_grads(const struct lh_context_call *x, int i)
{
	struct lh_context_keys d = all_grads(x);

	d.k = elements(x, d.k, grads_at(x, i));
	d.v = elements(x, d.v, grads_at(x, i));
	return d;
}

/* What own piece i wants of piece p, which it sees. */
static lh_act *grad_of(const struct lh_context_call *x, lh_act *grads, int i, int p)
{
	return elements(x, grads, grads_at(x, i) + p * piece_size(x));
}

/* The k-th of two that come from a rank. */
static lh_act *got_from(const struct lh_context_call *x, int rank, int k)
{
	return elements(x, x->scratch->got, (2 * rank + k) * piece_size(x));
}

/* Two pieces go to each rank, and two come. Of ranks a < b: what both pieces of b want of a's
 * first; what a's second one wants of both pieces of b. */
static void exchange(const struct lh_context_call *x, lh_act *grads)
{
	int W = x->comm->size, own = x->comm->rank, count = 0;
	struct lh_comm_message *m = lh_calloc(4 * (size_t)W, sizeof(*m));

	for (int r = 0; r < W; r++) {
		if (r == own)
			continue;
		for (int k = 0; k < 2; k++) {
			lh_act *to = r < own ? grad_of(x, grads, k, r) :
					       grad_of(x, grads, 1, lh_context_piece(W, r, k));

			m[count++] = (struct lh_comm_message){ r, false, to, piece_bytes(x) };
			m[count++] = (struct lh_comm_message){ r, true, got_from(x, r, k),
							       piece_bytes(x) };
		}
	}
	lh_comm_exchange(x->comm, "gradients of keys and values", m, count);
	free(m);
}

/* from <- what is to be summed for own piece i, rank by rank; returns how many. */
static int find_parts(const struct lh_context_call *x, int i, lh_act *grads,
		      const lh_act **from)
{
	int W = x->comm->size, own = x->comm->rank, count = 0;
	int piece = lh_context_piece(W, own, i);

	for (int r = 0; r < W; r++) {
		if (r < own) {
			from[count++] = got_from(x, r, i);
		} else if (r == own) {
			if (!i)
				from[count++] = grad_of(x, grads, 0, piece);
			from[count++] = grad_of(x, grads, 1, piece);
		} else if (!i) {
			from[count++] = got_from(x, r, 0);
			from[count++] = got_from(x, r, 1);
		}
	}
	return count;
}

/* own <- what all that see them want of this rank's pieces. */
static void reduce(const struct lh_context_call *x, lh_act *own, int64_t own_row,
		   lh_act *grads)
{
	const lh_act *from[LH_SUM_MAX];

	LH_ASSERT(pieces(x->comm->size) <= LH_SUM_MAX);
	exchange(x, grads);
	for (int i = 0; i < 2; i++) {
		int count = find_parts(x, i, grads, from);

		x->ops->sum_rows(x->dev, x->rows, x->width,
				 elements(x, own, i * x->rows * own_row), own_row, from,
				 x->width, count);
	}
}

void lh_context_reduce(const struct lh_context_call *x, const struct lh_context_keys *own)
{
	struct lh_context_keys d = all_grads(x);

	reduce(x, own->k, own->row, d.k);
	reduce(x, own->v, own->row, d.v);
}

void lh_context_share_halo(const struct lh_comm *c, void *all, int64_t bytes)
{
	int64_t *at = lh_calloc((size_t)c->size + 1, sizeof(*at));

	for (int r = 0; r <= c->size; r++)
		at[r] = r * 2 * bytes;
	lh_comm_gather(c, "halos", all, at, (char *)all + at[c->rank]);
	free(at);
}

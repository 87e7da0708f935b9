/* windows.c: what ranks have of each other's shards: a pass, of weights and gradients while it
 * is at them; and who reads a state.
 *
 * A window is as large as the largest part that it is for: a layer's matrices, the embedding
 * or the output, all gains and biases. Shards do not end where parts do, so a part comes from
 * the ranks, and its gradient goes to them, in pieces of any length, mostly from one.
 *
 * A forward pass comes to the same places whatever it is for, and gathers the same in the
 * same order: a rank that has none to make goes along with it by that alone. */
#include "train/model_int.h"

#include <stdlib.h>

enum { PIECE_FLOATS = 4 << 20 }; /* of a state that is gathered at once */

/* at (size + 1) <- where in parameters first .. first + count - 1 each rank's piece begins,
 * in units of `bytes`. Heap. */
static int64_t *pieces(const struct lh_model *m, int64_t first, int64_t count, int64_t bytes)
{
	int64_t *at = lh_calloc((size_t)m->comm.size + 1, sizeof(*at));

	for (int r = 0; r <= m->comm.size; r++) {
		int64_t place = r * m->shard - first;

		at[r] = (place < 0 ? 0 : place < count ? place : count) * bytes;
	}
	return at;
}

/* Where this rank's piece of parameters from `first` on begins in its shard; some place of it
 * where there is none. */
static int64_t place_of(const struct lh_model *m, int64_t first)
{
	int64_t place = first > m->first ? first - m->first : 0;

	return place < m->shard ? place : 0;
}

/* NULL: none holds it. */
static void *find(const struct lh_windows *w, int64_t offset, size_t bytes)
{
	const struct lh_window *all[] = { &w->layer, &w->ends, &w->gains };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (offset >= all[i]->first && offset < all[i]->first + all[i]->count)
			return (char *)all[i]->at + (size_t)(offset - all[i]->first) * bytes;
	return NULL;
}

/* ---- weights ---------------------------------------------------------------- */

static void gather(struct lh_model *m, struct lh_window *w, int64_t first, int64_t count)
{
	int64_t e = (int64_t)lh_dtype_bytes(m->ops->sizes->act_type), *at;

	if (w->count && w->first == first) /* the last layer, as its backward begins */
		return;
	w->first = first;
	w->count = count;
	at = pieces(m, first, count, e);
	lh_comm_gather(&m->comm, "weights", w->at, at,
		       (char *)m->weight + place_of(m, first) * e);
	free(at);
}

/* Every pass begins here: an update may have changed what was gathered. */
void lh_model_use_embedding(struct lh_model *m)
{
	struct lh_params_parts n = lh_params_parts(&m->params, &m->c);
	struct lh_windows *w = &m->weights;
	bool more = true;

	if (!m->divided_weights)
		return;
	if (m->leads)
		lh_comm_share(&m->comm, "whether there is a pass", &more, sizeof(more));
	w->layer.count = w->ends.count = w->gains.count = 0;
	gather(m, &w->gains, m->params.decay_floats, n.gains);
	gather(m, &w->ends, m->params.embed, n.ends);
}

void lh_model_use_layer(struct lh_model *m, int layer)
{
	if (m->divided_weights)
		gather(m, &m->weights.layer, m->params.layers[layer].wqkv,
		       lh_params_parts(&m->params, &m->c).layer);
}

void lh_model_use_output(struct lh_model *m)
{
	if (m->divided_weights)
		gather(m, &m->weights.ends, m->params.output,
		       lh_params_parts(&m->params, &m->c).ends);
}

lh_act *weight_at(const struct lh_model *m, int64_t offset)
{
	size_t bytes = lh_dtype_bytes(m->ops->sizes->act_type);
	lh_act *at = m->divided_weights ? find(&m->weights, offset, bytes) :
					  (char *)m->weight + (size_t)offset * bytes;

	if (!at)
		LH_BUG("parameter %lld was not gathered", (long long)offset);
	return at;
}

void lh_model_go_along(struct lh_model *m)
{
	lh_model_use_embedding(m);
	for (int i = 0; i < m->c.layers; i++)
		lh_model_use_layer(m, i);
	lh_model_use_output(m);
}

void lh_model_lead(struct lh_model *m, bool on)
{
	bool more = false;

	if (m->divided_weights && !on)
		lh_comm_share(&m->comm, "whether there is a pass", &more, sizeof(more));
	m->leads = on;
}

void lh_model_follow(struct lh_model *m)
{
	bool more = m->divided_weights;

	while (more) {
		lh_comm_share(&m->comm, "whether there is a pass", &more, sizeof(more));
		if (more)
			lh_model_go_along(m);
	}
}

/* ---- gradients -------------------------------------------------------------- */

void lh_model_sum(struct lh_model *m, float *x, int64_t first, int64_t count, float *into,
		  bool add)
{
	int64_t *at = pieces(m, first, count, 1);

	lh_comm_reduce_scatter(&m->comm, "the gradient", x, at, into, add);
	free(at);
}

void lh_model_open_window(struct lh_model *m, struct lh_window *w, int64_t first,
			  int64_t count)
{
	if (!m->divided_grads)
		return;
	w->first = first;
	w->count = count;
	m->ops->zero(m->dev, w->at, (size_t)count * 4);
}

void lh_model_close_window(struct lh_model *m, struct lh_window *w)
{
	if (m->divided_grads)
		lh_model_sum(m, w->at, w->first, w->count, m->grad + place_of(m, w->first),
			     true);
}

float *lh_model_grad_at(const struct lh_model *m, int64_t offset)
{
	float *at = m->divided_grads ? find(&m->grads, offset, 4) : m->grad + offset;

	if (!at)
		LH_BUG("no window is open for the gradient of parameter %lld",
		       (long long)offset);
	return at;
}

/* ---- states ----------------------------------------------------------------- */

/* Parameters from number `first` on. */
struct range {
	int64_t first, count;
};

static struct range common(struct range a, struct range b)
{
	int64_t first = a.first > b.first ? a.first : b.first;
	int64_t a_end = a.first + a.count, b_end = b.first + b.count;
	int64_t end = a_end < b_end ? a_end : b_end;

	return (struct range){ first, first < end ? end - first : 0 };
}

/* Whether a rank wants what another has of these. */
static bool is_wanted(const struct lh_model *m, const struct range *want, struct range piece)
{
	for (int r = 0; r < m->comm.size; r++) {
		struct range held = { r * m->shard, m->shard }, of = common(want[r], piece);

		if (common(of, held).count < of.count)
			return true;
	}
	return false;
}

struct reading {
	struct lh_model *m;
	struct lh_held held;
	struct range own; /* what is wanted here */
	float *host;
	struct lh_err err;
};

/* What is wanted of parameters that lie `at` there. After an error nothing. */
static void take(struct reading *r, const float *at, struct range piece)
{
	struct range part = common(r->own, piece);

	if (part.count && !r->err.code)
		r->m->ops->fetch(r->m->dev, r->host + (part.first - r->own.first),
				 at + (part.first - piece.first), (size_t)part.count * 4,
				 &r->err);
}

/* By way of the memory of activations: of one layout, which is that of all ranks. */
static void take_from_others(struct reading *r, const struct range *want)
{
	struct lh_model *m = r->m;
	struct range piece = { 0 };
	int64_t room, *at;
	float *scratch;

	lh_model_lay_out(m, &lh_attention_full, false);
	scratch = (float *)m->acts.dn; /* what is before it stays */
	room = ((char *)m->act_arena + m->act_bytes - (char *)scratch) / 4;
	piece.count = room < PIECE_FLOATS ? room : PIECE_FLOATS;
	for (; piece.first < m->params.floats; piece.first += piece.count) {
		if (!is_wanted(m, want, piece))
			continue;
		at = pieces(m, piece.first, piece.count, 4);
		lh_comm_gather(&m->comm, "a state", scratch, at,
			       r->held.at + place_of(m, piece.first));
		free(at);
		take(r, scratch, piece);
	}
}

static bool is_divided(const struct lh_model *m, enum lh_model_state which)
{
	if (which == LH_STATE_PARAM)
		return m->divided_weights;
	return which == LH_STATE_GRAD ? m->divided_grads : m->comm.size > 1;
}

int lh_model_read_any(struct lh_model *m, enum lh_model_state which, int64_t offset,
		      int64_t count, float *host, struct lh_err *err)
{
	struct reading r = { .m = m, .held = lh_model_held(m, which),
			     .own = { offset, count }, .host = host, .err = LH_ERR_INIT };
	struct range *want;

	LH_ASSERT(offset >= 0 && offset + count <= m->params.floats);
	take(&r, r.held.at, (struct range){ r.held.first, r.held.count });
	if (is_divided(m, which)) {
		want = lh_calloc((size_t)m->comm.size, sizeof(*want));
		want[m->comm.rank] = r.own;
		lh_comm_collect(&m->comm, "what is wanted of a state", want, sizeof(*want));
		take_from_others(&r, want);
		free(want);
	}
	return lh_comm_agree(&m->comm, "whether there is a state", &r.err, err);
}

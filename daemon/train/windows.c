/* windows.c: what ranks have of each other's shards: a pass, of weights and gradients while it
 * is at them; and who reads a state.
 *
 * A window is as large as the largest part that it is for: a layer's matrices, the embedding
 * or the output, all gains and biases. Shards do not end where parts do, so a part comes from
 * the ranks, and its gradient goes to them, in pieces of any length, mostly from one.
 *
 * Layers have two windows in turn, so that what travels does so beside the computation of
 * another layer (comm.h): when a pass is at one, the weights of the next are on their way to
 * the other window, or the gradient of the one before on its way out of it. A window that is
 * under way is nobody's until it is awaited; after a pass none is.
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
static void *find(const struct lh_windows *windows, int64_t offset, size_t bytes)
{
	const struct lh_window *all[] = { &windows->layer[0], &windows->layer[1],
					  &windows->ends, &windows->gains };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		const struct lh_window *w = all[i];

		if (!w->under_way && offset >= w->first && offset < w->first + w->count)
			return (char *)w->at + (size_t)(offset - w->first) * bytes;
	}
	return NULL;
}

static void await(struct lh_model *m, struct lh_window *w)
{
	if (w->under_way)
		lh_comm_await(&m->comm, w->slot);
	w->under_way = false;
}

/* ---- weights ---------------------------------------------------------------- */

static void begin_gather(struct lh_model *m, struct lh_window *w, int64_t first,
			 int64_t count)
{
	int64_t e = (int64_t)lh_dtype_bytes(m->ops->sizes->act_type), *at;

	/* The last two layers, as backward begins; an output that is the embedding. */
	if (w->count && w->first == first)
		return;
	LH_ASSERT(!w->under_way);
	w->first = first;
	w->count = count;
	w->under_way = true;
	at = pieces(m, first, count, e);
	lh_comm_begin_gather(&m->comm, "weights", w->at, at,
			     (char *)m->weight + place_of(m, first) * e, w->slot);
	free(at);
}

static void begin_ends(struct lh_model *m, int64_t first)
{
	begin_gather(m, &m->weights.ends, first, lh_params_parts(&m->params, &m->c).ends);
}

static void begin_layer(struct lh_model *m, int layer)
{
	begin_gather(m, lh_layer_window(&m->weights, layer), m->params.layers[layer].wqkv,
		     lh_params_parts(&m->params, &m->c).layer);
}

/* Every pass begins here: an update may have changed what was gathered. */
void lh_model_use_embedding(struct lh_model *m)
{
	struct lh_windows *w = &m->weights;
	bool more = true;

	if (!m->divided_weights)
		return;
	if (m->leads)
		lh_comm_share(&m->comm, "whether there is a pass", &more, sizeof(more));
	w->layer[0].count = w->layer[1].count = w->ends.count = w->gains.count = 0;
	begin_gather(m, &w->gains, m->params.decay_floats,
		     lh_params_parts(&m->params, &m->c).gains);
	begin_ends(m, m->params.embed);
	begin_layer(m, 0);
	await(m, &w->gains);
	await(m, &w->ends);
}

void lh_model_use_layer(struct lh_model *m, int layer, int next)
{
	if (!m->divided_weights)
		return;
	await(m, lh_layer_window(&m->weights, layer));
	if (next == m->c.layers)
		begin_ends(m, m->params.output);
	else if (next >= 0)
		begin_layer(m, next);
}

void lh_model_use_output(struct lh_model *m)
{
	if (m->divided_weights)
		await(m, &m->weights.ends);
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
		lh_model_use_layer(m, i, i + 1);
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

void lh_model_sum(struct lh_model *m)
{
	int64_t *at = pieces(m, 0, m->comm.size * m->shard, 1);

	lh_comm_reduce_scatter(&m->comm, "the gradient", m->grad, at, own_grad(m), false);
	free(at);
}

void lh_model_open_window(struct lh_model *m, struct lh_window *w, int64_t first,
			  int64_t count)
{
	if (!m->divided_grads)
		return;
	await(m, w); /* the sum of what was in it */
	w->first = first;
	w->count = count;
	m->ops->zero(m->dev, w->at, (size_t)count * 4);
}

void lh_model_close_window(struct lh_model *m, struct lh_window *w)
{
	int64_t *at;

	if (!m->divided_grads)
		return;
	w->under_way = true;
	at = pieces(m, w->first, w->count, 1);
	lh_comm_begin_reduce_scatter(&m->comm, "the gradient", w->at, at,
				     m->grad + place_of(m, w->first), true, w->slot);
	free(at);
}

void lh_model_await_windows(struct lh_model *m)
{
	struct lh_windows *w = &m->grads;

	await(m, &w->layer[0]);
	await(m, &w->layer[1]);
	await(m, &w->ends);
	await(m, &w->gains);
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

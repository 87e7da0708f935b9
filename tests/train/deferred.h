/* deferred.h: collectives beside the ops, done as late as may be: those that are begun in a
 * slot of deferred_comm(c) over MPI happen when they are awaited. Until then all that they
 * read or write is nothing but NaN, and has to stay so: who forgets to await one computes
 * with NaN, and who touches a buffer too early is told. Included after ranks.h. */
#ifndef LIGHTHOUSE_TEST_DEFERRED_H
#define LIGHTHOUSE_TEST_DEFERRED_H

#include "../ranks.h"

/* A buffer of `bytes`, and what was in it. */
struct deferred_buffer {
	void *x, *was;
	size_t bytes;
};

/* What has begun in a slot. */
struct deferred_call {
	bool begun, gathers, add;
	int64_t at[9];               /* of all ranks' pieces */
	struct deferred_buffer x;
	struct deferred_buffer into; /* of a sum */
	struct deferred_buffer own;  /* of a gathering: read, and as it was */
};

/* Messages that have begun, of one line and slot at a time. */
struct deferred_messages {
	struct lh_comm_line *line; /* NULL: none */
	int count, slot;
	struct lh_comm_message of[32];
	struct deferred_buffer x[32]; /* what goes is as it was, what comes is spoiled */
};

static struct deferred_call deferred_calls[LH_COMM_SLOTS];
static struct deferred_messages deferred_messages;
static struct lh_comm deferred_of; /* MPI's */
static int64_t deferred_count;     /* of all slots so far */

static inline struct deferred_buffer deferred_keep(void *x, int64_t bytes)
{
	struct deferred_buffer b = { x, lh_alloc((size_t)bytes + 1), (size_t)bytes };

	memcpy(b.was, x, b.bytes);
	return b;
}

/* All ones are NaN, in float32 and in bf16. */
static inline struct deferred_buffer deferred_spoil(void *x, int64_t bytes)
{
	struct deferred_buffer b = deferred_keep(x, bytes);

	memset(x, 0xff, b.bytes);
	return b;
}

static inline void deferred_restore(struct deferred_buffer *b)
{
	const struct lh_comm *c = &deferred_of;

	for (size_t i = 0; i < b->bytes; i++)
		RANKS_CHECK(((unsigned char *)b->x)[i] == 0xff); /* nobody was there */
	memcpy(b->x, b->was, b->bytes);
	free(b->was);
}

static inline struct deferred_call *deferred_begin(const int64_t *at, int slot)
{
	const struct lh_comm *c = &deferred_of;
	struct deferred_call *d = &deferred_calls[slot];

	RANKS_CHECK(!d->begun && c->size < 9);
	*d = (struct deferred_call){ .begun = true };
	memcpy(d->at, at, ((size_t)c->size + 1) * sizeof(*at));
	deferred_count++;
	return d;
}

static inline void deferred_reduce_scatter(struct lh_comm_line *l, float *x,
					   const int64_t *at, float *into, bool add, int slot)
{
	int rank = deferred_of.rank;
	struct deferred_call *d;

	if (slot == LH_COMM_IN_ORDER) {
		lh_comm_mpi.reduce_scatter(l, x, at, into, add, slot);
		return;
	}
	d = deferred_begin(at, slot);
	d->add = add;
	d->x = deferred_spoil(x, 4 * at[deferred_of.size]);
	d->into = deferred_spoil(into, 4 * (at[rank + 1] - at[rank]));
}

static inline void deferred_gather(struct lh_comm_line *l, void *x, const int64_t *at,
				   const void *own, int slot)
{
	int rank = deferred_of.rank;
	struct deferred_call *d;

	if (slot == LH_COMM_IN_ORDER) {
		lh_comm_mpi.gather(l, x, at, own, slot);
		return;
	}
	d = deferred_begin(at, slot);
	d->gathers = true;
	d->own = deferred_keep((void *)own, at[rank + 1] - at[rank]);
	d->x = deferred_spoil(x, at[deferred_of.size]);
}

static inline void deferred_exchange(struct lh_comm_line *l,
				     const struct lh_comm_message *messages, int count,
				     int slot)
{
	const struct lh_comm *c = &deferred_of;
	struct deferred_messages *d = &deferred_messages;

	if (slot == LH_COMM_IN_ORDER) {
		lh_comm_mpi.exchange(l, messages, count, slot);
		return;
	}
	RANKS_CHECK(!d->line && count <= 32);
	*d = (struct deferred_messages){ .line = l, .count = count, .slot = slot };
	deferred_count++;
	for (int i = 0; i < count; i++) {
		const struct lh_comm_message *m = &messages[i];

		d->of[i] = *m;
		d->x[i] = m->comes ? deferred_spoil(m->x, m->bytes) :
				     deferred_keep(m->x, m->bytes);
	}
}

static inline void deferred_end_exchange(void)
{
	const struct lh_comm *c = &deferred_of;
	struct deferred_messages *d = &deferred_messages;

	for (int i = 0; i < d->count; i++) {
		if (d->of[i].comes) {
			deferred_restore(&d->x[i]);
			continue;
		}
		RANKS_CHECK(!memcmp(d->x[i].x, d->x[i].was, d->x[i].bytes));
		free(d->x[i].was);
	}
	lh_comm_mpi.exchange(d->line, d->of, d->count, LH_COMM_IN_ORDER);
	d->line = NULL;
}

static inline void deferred_await(struct lh_comm_line *l, int slot)
{
	const struct lh_comm *c = &deferred_of;
	struct deferred_call *d = &deferred_calls[slot];

	if (l == deferred_messages.line && slot == deferred_messages.slot) {
		deferred_end_exchange();
		return;
	}
	RANKS_CHECK(d->begun);
	deferred_restore(&d->x);
	if (d->gathers) {
		RANKS_CHECK(!memcmp(d->own.x, d->own.was, d->own.bytes));
		free(d->own.was);
		lh_comm_mpi.gather(l, d->x.x, d->at, d->own.x, LH_COMM_IN_ORDER);
	} else {
		deferred_restore(&d->into);
		lh_comm_mpi.reduce_scatter(l, d->x.x, d->at, d->into.x, d->add,
					   LH_COMM_IN_ORDER);
	}
	d->begun = false;
}

/* c, whose line it is; alone it is c. One in a process. */
static inline struct lh_comm deferred_comm(const struct lh_comm *c)
{
	static struct lh_comm_ops ops;
	struct lh_comm late = *c;

	if (c->size == 1)
		return late;
	ops = lh_comm_mpi;
	ops.reduce_scatter = deferred_reduce_scatter;
	ops.gather = deferred_gather;
	ops.exchange = deferred_exchange;
	ops.await = deferred_await;
	deferred_of = *c;
	deferred_count = 0;
	late.ops = &ops;
	return late;
}

/* After passes: some have begun, and all were awaited. */
static inline void deferred_check(const struct lh_comm *c)
{
	RANKS_CHECK(c->size == 1 || deferred_count);
	RANKS_CHECK(!deferred_messages.line);
	for (int i = 0; i < LH_COMM_SLOTS; i++)
		RANKS_CHECK(!deferred_calls[i].begun);
}

#endif

/* comm.c: what all backends' collectives have around them; see lighthouse/comm.h. */
#include "lighthouse/comm.h"

#include <stdlib.h>

static bool begin(const struct lh_comm *c, const char *what)
{
	if (c->size == 1)
		return false;
	if (c->note)
		c->note(c->note_arg, what, true);
	return true;
}

static void end(const struct lh_comm *c, const char *what)
{
	if (c->note)
		c->note(c->note_arg, what, false);
}

void lh_comm_share(const struct lh_comm *c, const char *what, void *host, size_t bytes)
{
	if (!begin(c, what))
		return;
	c->ops->share(c->line, host, bytes);
	end(c, what);
}

void lh_comm_collect(const struct lh_comm *c, const char *what, void *host, size_t bytes)
{
	if (!begin(c, what))
		return;
	c->ops->collect(c->line, host, bytes);
	end(c, what);
}

int lh_comm_agree(const struct lh_comm *c, const char *what, const struct lh_err *own,
		  struct lh_err *err)
{
	struct lh_err *all = lh_calloc((size_t)c->size, sizeof(*all));
	int rc = 0;

	all[c->rank] = *own;
	lh_comm_collect(c, what, all, sizeof(*all));
	for (int r = 0; r < c->size && !rc; r++) {
		rc = all[r].code;
		if (rc && c->size > 1)
			lh_err_prefix(&all[r], "rank %d", r);
		if (rc && err)
			*err = all[r];
	}
	free(all);
	return rc;
}

static void reduce_scatter(const struct lh_comm *c, const char *what, float *x,
			   const int64_t *at, float *into, bool add, int slot)
{
	if (!begin(c, what))
		return;
	c->ops->reduce_scatter(c->line, x, at, into, add, slot);
	end(c, what);
}

static void gather(const struct lh_comm *c, const char *what, void *x,
		   const int64_t *at_bytes, const void *own, int slot)
{
	if (!begin(c, what))
		return;
	c->ops->gather(c->line, x, at_bytes, own, slot);
	end(c, what);
}

static void exchange(const struct lh_comm *c, const char *what,
		     const struct lh_comm_message *messages, int count, int slot)
{
	if (!begin(c, what))
		return;
	c->ops->exchange(c->line, messages, count, slot);
	end(c, what);
}

void lh_comm_reduce_scatter(const struct lh_comm *c, const char *what, float *x,
			    const int64_t *at, float *into, bool add)
{
	reduce_scatter(c, what, x, at, into, add, LH_COMM_IN_ORDER);
}

void lh_comm_gather(const struct lh_comm *c, const char *what, void *x,
		    const int64_t *at_bytes, const void *own)
{
	gather(c, what, x, at_bytes, own, LH_COMM_IN_ORDER);
}

void lh_comm_begin_reduce_scatter(const struct lh_comm *c, const char *what, float *x,
				  const int64_t *at, float *into, bool add, int slot)
{
	LH_ASSERT(slot >= 0 && slot < LH_COMM_SLOTS);
	reduce_scatter(c, what, x, at, into, add, slot);
}

void lh_comm_begin_gather(const struct lh_comm *c, const char *what, void *x,
			  const int64_t *at_bytes, const void *own, int slot)
{
	LH_ASSERT(slot >= 0 && slot < LH_COMM_SLOTS);
	gather(c, what, x, at_bytes, own, slot);
}

void lh_comm_begin_exchange(const struct lh_comm *c, const char *what,
			    const struct lh_comm_message *messages, int count, int slot)
{
	LH_ASSERT(slot >= 0 && slot < LH_COMM_SLOTS);
	exchange(c, what, messages, count, slot);
}

void lh_comm_await(const struct lh_comm *c, int slot)
{
	LH_ASSERT(slot >= 0 && slot < LH_COMM_SLOTS);
	if (c->size > 1 && c->ops->await)
		c->ops->await(c->line, slot);
}

void lh_comm_exchange(const struct lh_comm *c, const char *what,
		      const struct lh_comm_message *messages, int count)
{
	exchange(c, what, messages, count, LH_COMM_IN_ORDER);
}

/* ranks (c->size) <- those of this one's group; *own: its number among them. */
static int find_group(const struct lh_comm *c, const int32_t *groups, int *ranks, int *own)
{
	int size = 0;

	for (int r = 0; r < c->size; r++) {
		if (groups[r] != groups[c->rank])
			continue;
		if (r == c->rank)
			*own = size;
		ranks[size++] = r;
	}
	return size;
}

int lh_comm_split(const struct lh_comm *c, const char *what, int group, struct lh_comm *part,
		  struct lh_err *err)
{
	int32_t *groups = lh_calloc((size_t)c->size, sizeof(*groups));
	int *ranks = lh_calloc((size_t)c->size, sizeof(*ranks)), rc = 0;

	*part = *c;
	part->line = NULL;
	groups[c->rank] = group;
	lh_comm_collect(c, what, groups, sizeof(*groups));
	part->size = find_group(c, groups, ranks, &part->rank);
	if (begin(c, what)) {
		rc = c->ops->split(c->line, ranks, part->rank, part->size, &part->line, err);
		end(c, what);
	}
	if (rc)
		*part = LH_COMM_ALONE;
	free(groups);
	free(ranks);
	return rc;
}

void lh_comm_close(struct lh_comm *c)
{
	if (c->line && begin(c, "the end")) {
		c->ops->close(c->line);
		end(c, "the end");
	}
	*c = LH_COMM_ALONE;
}

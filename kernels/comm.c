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

void lh_comm_reduce_scatter(const struct lh_comm *c, const char *what, float *x,
			    const int64_t *at, float *into, bool add)
{
	if (!begin(c, what))
		return;
	c->ops->reduce_scatter(c->line, x, at, into, add);
	end(c, what);
}

void lh_comm_all_gather(const struct lh_comm *c, const char *what, float *x,
			const float *own, int64_t count)
{
	if (!begin(c, what))
		return;
	c->ops->all_gather(c->line, x, own, count);
	end(c, what);
}

void lh_comm_close(struct lh_comm *c)
{
	if (c->line && begin(c, "the end")) {
		c->ops->close(c->line);
		end(c, "the end");
	}
	*c = LH_COMM_ALONE;
}

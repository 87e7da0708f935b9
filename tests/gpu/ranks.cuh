/* ranks.cuh: a program as one of the ranks that MPI's launcher has started, each with a
 * GPU of its own; or alone. ARGS of all: [--cpu], where there is no GPU. */
#ifndef LIGHTHOUSE_TESTS_RANKS_CUH
#define LIGHTHOUSE_TESTS_RANKS_CUH

#include <algorithm>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vector>

#include "cuda.h"

extern "C" {
#include "base/fs.h"
#include "lighthouse/comm.h"
}

struct ranks {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	struct lh_comm comm;
};

static inline void ranks_die(const struct lh_err *err)
{
	fprintf(stderr, "error: %s\nhint: %s\n", err->text, err->hint);
	exit(2);
}

static inline void ranks_must(bool so, const char *what)
{
	if (so)
		return;
	fprintf(stderr, "error: '%s' failed\n", what);
	exit(2);
}

static inline int ranks_number(const char *name, int otherwise)
{
	const char *text = getenv(name);

	return text ? atoi(text) : otherwise;
}

static inline void ranks_open(struct ranks *r, const struct lh_ops *ops)
{
	struct lh_comm *c = &r->comm;
	struct lh_err err = LH_ERR_INIT;

	*r = { };
	r->ops = ops;
	c->ops = ops->comm;
	c->rank = ranks_number("PMI_RANK", 0);
	c->size = ranks_number("PMI_SIZE", 1);
	if (c->size > 1)
		ops->choose(c->rank, c->size);
	if (c->size > 1 && c->ops->open(&c->line, c->rank, c->size, &err))
		ranks_die(&err);
	if (ops->open(&r->dev, 0, &err) ||
	    (c->size > 1 && c->ops->attach(c->line, r->dev, &err)))
		ranks_die(&err);
	if (!c->rank)
		printf("%d ranks: %s\n", c->size, ops->describe(r->dev));
}

static inline void ranks_close(struct ranks *r)
{
	lh_comm_close(&r->comm);
	r->ops->close(r->dev);
}

static inline void ranks_sync(struct ranks *r)
{
	struct lh_err err = LH_ERR_INIT;

	if (r->ops->sync(r->dev, &err))
		ranks_die(&err);
}

/* All of them have come here. */
static inline void ranks_meet(struct ranks *r)
{
	std::vector<int> here((size_t)r->comm.size);

	ranks_sync(r);
	lh_comm_collect(&r->comm, "a meeting", here.data(), sizeof(int));
}

/* The greatest and the least of all ranks' values. */
static inline double ranks_most(struct ranks *r, double x)
{
	std::vector<double> all((size_t)r->comm.size, x);

	lh_comm_collect(&r->comm, "a value", all.data(), sizeof(x));
	return *std::max_element(all.begin(), all.end());
}

static inline double ranks_least(struct ranks *r, double x)
{
	return -ranks_most(r, -x);
}

static inline double ranks_median(std::vector<double> all)
{
	std::nth_element(all.begin(), all.begin() + (ptrdiff_t)(all.size() / 2), all.end());
	return all[all.size() / 2];
}

static inline void *ranks_alloc(struct ranks *r, size_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	void *p;

	if (r->ops->alloc(r->dev, &p, bytes, &err))
		ranks_die(&err);
	return p;
}

static inline bool ranks_has(int argc, char **argv, const char *what)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], what))
			return true;
	return false;
}

/* The same on all of them; rank 0 tells. */
static inline bool ranks_check(const struct ranks *r, bool good, const char *what, double value,
			       double most)
{
	if (!r->comm.rank)
		printf("%s: %s: %.3g, bar %.3g\n", good ? "ok" : "FAILED", what, value, most);
	fflush(stdout);
	return good;
}

#endif

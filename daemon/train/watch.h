/* watch.h: whether a step is sane, judged before it is applied.
 *
 * The loss and the gradient norm of a step are compared with the last accepted
 * ones: how many (robust) standard deviations above their median they lie. The
 * spread is taken from the median of distances, so a spike does not widen it, and
 * a step that is not accepted never enters the window. Armed after LH_WATCH_ARMED
 * accepted steps; forgotten when a phase is entered, whose losses are of another
 * kind.
 *
 * Plain data: it is in every checkpoint, so that a resumed run judges alike.
 */
#ifndef LIGHTHOUSE_WATCH_H
#define LIGHTHOUSE_WATCH_H

#include <jansson.h>

#include "lighthouse/job.h"

enum { LH_WATCH_WINDOW = 64, LH_WATCH_ARMED = 8 };

enum lh_cause { LH_CAUSE_NONE, LH_CAUSE_NONFINITE, LH_CAUSE_LOSS_SPIKE,
		LH_CAUSE_GRADIENT_SPIKE, LH_CAUSES };

struct lh_watch {
	double loss[LH_WATCH_WINDOW], norm[LH_WATCH_WINDOW]; /* a ring */
	int count;                 /* in the window */
	int next;
	int64_t times[LH_CAUSES];  /* since the job began */
	double lr_scale;           /* 1, halved by lower_lr */
};

void lh_watch_init(struct lh_watch *w);
/* Forgets the window; counters stay. */
void lh_watch_forget(struct lh_watch *w);
/* *z <- deviations above the median, of the cause. */
enum lh_cause lh_watch_judge(const struct lh_watch *w, const struct lh_job_instability *c,
			     double loss, double norm, double *z);
void lh_watch_accept(struct lh_watch *w, double loss, double norm);
const char *lh_cause_name(enum lh_cause cause); /* "loss spike" */

json_t *lh_watch_to_json(const struct lh_watch *w);
/* NULL or a strange one: as at the start. */
void lh_watch_from_json(struct lh_watch *w, const json_t *j);

#endif

/* watch.h: whether a step is sane, judged before it is applied.
 *
 * nan             A loss or gradient norm that is not finite.
 * loss_spike      A loss so many (robust) standard deviations above the median of
 *                 the last ones. The spread is the median of distances, so spikes
 *                 do not widen it. Before there are LH_WATCH_ARMED to compare with,
 *                 a loss above LH_WATCH_GUARD times what a model that knows nothing
 *                 has, ln(vocab) or the job's first loss if that was more: no run
 *                 that learns comes there, however its losses fall or jump at first.
 * gradient_spike  The same of the norm; with nothing to compare with, none.
 *
 * A spike is rare. Where more than 1 of LH_WATCH_RARE in the window lay half as far
 * above the median, that is what these data are like, and it passes; for that, spikes
 * enter the window too, once there is one. So a run whose data hold a hard kind, or
 * change for good, loses a few steps and goes on, and spikes of one kind alone never
 * bring a default `max` about.
 * The window is forgotten when a phase is entered, whose losses are of another kind:
 * the guard and the trial of the switch (trial.h) are what watches then.
 *
 * Each cause has a count of its own, against on_instability.max: one is forgiven for
 * every LH_WATCH_FORGIVE steps by which the job got further since. Weeks may pass with
 * a spike a day; a job that comes no further stops, also when it goes back each time.
 *
 * Plain data: it is in every checkpoint, so that a resumed run judges alike.
 */
#ifndef LIGHTHOUSE_WATCH_H
#define LIGHTHOUSE_WATCH_H

#include <jansson.h>

#include "lighthouse/job.h"

enum { LH_WATCH_WINDOW = 64, LH_WATCH_ARMED = 8, LH_WATCH_GUARD = 3,
       LH_WATCH_RARE = 10, LH_WATCH_FORGIVE = 8 };

enum lh_cause { LH_CAUSE_NONE, LH_CAUSE_NAN, LH_CAUSE_LOSS_SPIKE,
		LH_CAUSE_GRADIENT_SPIKE, LH_CAUSES };

struct lh_watch_count {
	int64_t times;     /* since the job began */
	int64_t recent;    /* that are not forgiven */
	int64_t last_step; /* the furthest at which there was one */
};

struct lh_watch {
	double loss[LH_WATCH_WINDOW], norm[LH_WATCH_WINDOW]; /* a ring */
	int count;                 /* in the window */
	int next;
	double first_loss;         /* of the job; 0: there is none yet */
	struct lh_watch_count of[LH_CAUSES];
	double lr_scale;           /* 1, halved by lower_lr */
};

void lh_watch_init(struct lh_watch *w);
/* Forgets the window; counts stay. */
void lh_watch_forget(struct lh_watch *w);
bool lh_watch_is_armed(const struct lh_watch *w);
/* *z <- deviations above the median, of the cause; 0 where that is not what told. */
enum lh_cause lh_watch_judge(const struct lh_watch *w, const struct lh_job_instability *c,
			     int64_t vocab, double loss, double norm, double *z);
/* After either verdict, with what was judged. */
void lh_watch_accept(struct lh_watch *w, double loss, double norm);
void lh_watch_refuse(struct lh_watch *w, enum lh_cause cause, int64_t step, double loss,
		     double norm);
/* What was learnt outlives steps that are undone: counts and learning rate. */
void lh_watch_carry(struct lh_watch *to, const struct lh_watch *from);

const char *lh_cause_name(enum lh_cause cause);   /* "loss_spike" */
const char *lh_cause_phrase(enum lh_cause cause); /* "a loss spike" */
enum lh_instability_action lh_cause_action(const struct lh_job_instability *c,
					   enum lh_cause cause);

json_t *lh_watch_to_json(const struct lh_watch *w);
/* NULL or a strange one: as at the start. */
void lh_watch_from_json(struct lh_watch *w, const json_t *j);

#endif

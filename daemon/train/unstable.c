/* unstable.c: what on_instability says about a step that is not sane; see loop_int.h
 * and watch.h. Nothing of the step is applied, whatever is done about it. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* By enum lh_instability_action: as in a job file, and in a sentence. */
static const struct {
	const char *name, *done;
} actions[] = {
	[LH_INSTABILITY_STOP] = { "stop", "the job fails" },
	[LH_INSTABILITY_SKIP] = { "skip", "its data are passed over" },
	[LH_INSTABILITY_LOWER_LR] = { "lower_lr", "its data are passed over and the learning "
					"rate is halved" },
	[LH_INSTABILITY_PAUSE] = { "pause", "its data are passed over; paused" },
	[LH_INSTABILITY_ROLLBACK] = { "rollback", "its data are passed over from the newest "
					"checkpoint on" },
};

bool lh_loop_may_roll_back(const struct lh_job *job)
{
	for (int cause = LH_CAUSE_NAN; cause < LH_CAUSES; cause++)
		if (lh_cause_action(&job->instability, (enum lh_cause)cause) ==
		    LH_INSTABILITY_ROLLBACK)
			return true;
	return false;
}

static json_t *real_or_null(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static void post(struct lh_loop *l, enum lh_cause cause, const char *action, double loss,
		 double norm, double z, const char *text)
{
	const struct lh_watch_count *c = &l->p.watch.of[cause];

	lh_loop_post_take(l, "instability",
			  json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:f, s:s}", "cause",
				    lh_cause_name(cause), "action", action, "count",
				    (json_int_t)c->times, "recent", (json_int_t)c->recent,
				    "loss", real_or_null(loss), "grad_norm",
				    real_or_null(norm), "z", z, "text", text));
}

/* The first steps of a phase decide about its switch. */
static bool fails_trial(const struct lh_loop *l, enum lh_cause cause,
			enum lh_instability_action action)
{
	bool runaway = cause == LH_CAUSE_LOSS_SPIKE && !lh_watch_is_armed(&l->p.watch);

	return l->p.trial &&
	       (cause == LH_CAUSE_NAN || runaway || action == LH_INSTABILITY_ROLLBACK);
}

static int stop(struct lh_loop *l, enum lh_cause cause, const char *what,
		struct lh_err *err)
{
	lh_err_set(err, cause == LH_CAUSE_NAN ? LH_ENONFINITE : LH_EUNSTABLE,
		   "%s, %" PRId64 " times: nothing was applied", what,
		   l->p.watch.of[cause].recent);
	return lh_err_hint(err, "a lower lr, a longer warm-up, clip, or another "
			   "on_instability.%s", lh_cause_name(cause));
}

int lh_loop_refuse_step(struct lh_loop *l, enum lh_cause cause, double loss, double norm,
			double z, struct lh_err *err)
{
	const struct lh_job_instability *c = &l->job->instability;
	enum lh_instability_action action = lh_cause_action(c, cause);
	bool trial = fails_trial(l, cause, action);
	char what[160], text[400];

	snprintf(what, sizeof(what), "step %" PRId64 " met %s (loss %g, gradient norm %g, "
		 "%.1f deviations)", l->p.step + 1, lh_cause_phrase(cause), loss, norm, z);
	lh_watch_refuse(&l->p.watch, cause, l->p.step, loss, norm);
	if (trial) {
		post(l, cause, "revert", loss, norm, z, what);
		return lh_rewind_switch(l, what, err);
	}
	if (l->p.watch.of[cause].recent > c->max)
		action = LH_INSTABILITY_STOP;
	snprintf(text, sizeof(text), "%s, %" PRId64 " of %" PRId64 " times: nothing was "
		 "applied, %s", what, l->p.watch.of[cause].recent, c->max,
		 actions[action].done);
	post(l, cause, actions[action].name, loss, norm, z, text);
	if (action == LH_INSTABILITY_STOP)
		return stop(l, cause, what, err);
	if (action == LH_INSTABILITY_LOWER_LR)
		l->p.watch.lr_scale /= 2;
	if (action == LH_INSTABILITY_ROLLBACK)
		return lh_rewind_instability(l, text, err);
	l->p.cursor += l->job->batch.sequences;
	l->saved_step = -1; /* a checkpoint of this step has not passed over them */
	if (action == LH_INSTABILITY_PAUSE)
		lh_loop_pause(l, lh_cause_phrase(cause), 0);
	return 0;
}

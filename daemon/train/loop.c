/* loop.c: see loop.h.
 *
 *   open -> [evaluation] -> boundary -> step -> [evaluation] -> boundary -> ... -> end
 *
 * The loop's state is struct lh_progress plus the model; both are in every
 * checkpoint. Outcomes: done, cancelled, stopped, failed, rewound. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "lighthouse/proto.h"

static const char *const ending_names[] = { "", "done", "cancelled", "stopped",
					    "failed", "rewound", "held" };
enum { PAUSE_POLL_MS = 200 };

/* ---- phases ---------------------------------------------------------------- */

int64_t lh_loop_plan_total(const struct lh_loop *l)
{
	int64_t total = l->p.phase_step;

	for (int i = l->p.phase; i < l->job->phase_count; i++) {
		int64_t n = lh_settings_phase_steps(&l->p.settings, l->job, i);

		if (n < 0)
			return -1;
		total += n;
	}
	return total;
}

bool lh_loop_phase_is_over(const struct lh_loop *l)
{
	struct lh_job_until u = lh_settings_until(&l->p.settings, l->job, l->p.phase);

	if (l->p.held) /* its switch was taken back */
		return false;
	return (u.steps && l->p.step - l->p.phase_step >= u.steps) ||
	       (u.tokens && l->p.phase_tokens >= u.tokens) ||
	       (u.minutes > 0 && l->p.phase_ms >= u.minutes * 60000);
}

/* ---- boundaries ------------------------------------------------------------ */

bool lh_loop_is_told(const struct lh_loop *l)
{
	return *l->c->stop || lh_link_is_ending(l->link);
}

/* A phase has come to its own end. If the next one cannot be entered somebody is to
 * see to it: the job pauses, and tries again when it is resumed. */
static void enter_next(struct lh_loop *l)
{
	const struct lh_switch s = { .phase = l->p.phase + 1,
				     .reason = "the phase's own limit" };
	struct lh_err no = LH_ERR_INIT;
	char text[sizeof(no.text) + sizeof(no.hint) + 16];

	if (!lh_loop_switch(l, &s, &no))
		return;
	snprintf(text, sizeof(text), "%s%s%s%s", no.text, *no.hint ? " (hint: " : "", no.hint,
		 *no.hint ? ")" : "");
	lh_loop_tell(l, "warn", "%s", text);
	lh_loop_pause(l, text, 0);
}

/* Everything between two steps; see loop.h for the order. */
static int boundary(struct lh_loop *l, struct lh_err *err)
{
	int64_t every = l->p.settings.checkpoint_every_steps;
	struct lh_err why;
	json_t *m;
	int rc = 0;

	if (every && l->p.step % every == 0 && l->p.step && l->saved_step != l->p.step)
		lh_loop_begin_save(l, "interval", &why);
	lh_loop_take_save(l, false, &why);
	lh_loop_replay(l);
	while (!rc && !l->ending &&
	       ((m = lh_loop_next_message(l, l->paused ? PAUSE_POLL_MS : 0)) || l->paused)) {
		if (m)
			rc = lh_loop_on_message(l, m, err);
		json_decref(m);
		if (*l->c->stop)
			break;
		lh_loop_status(l, l->paused ? "paused" : "training");
	}
	if (*l->c->stop && !l->ending)
		l->ending = LH_END_STOPPED;
	if (rc || l->ending || !lh_loop_phase_is_over(l))
		return rc;
	if (l->p.phase + 1 == l->job->phase_count)
		l->ending = LH_END_DONE;
	else
		enter_next(l);
	return 0;
}

/* ---- start and end --------------------------------------------------------- */

static int begin(struct lh_loop *l, struct lh_err *err)
{
	bool resumed = l->saved_step >= 0;
	struct lh_err no;

	lh_loop_post_settings(l);
	lh_loop_post_state(l, l->paused ? "paused" : "running",
			   resumed ? "resumed from a checkpoint" : "started", 0);
	if (l->data_changed && !l->paused)
		lh_loop_pause(l, "the data are not those of its checkpoint", 0);
	/* Somewhere to go back to, from the first step on. */
	if (lh_loop_may_roll_back(l->job) && !resumed)
		lh_loop_begin_save(l, "start", &no);
	return resumed && !l->p.owed ? 0 : lh_loop_evaluate_step(l, err);
}

/* The last checkpoint of a job that did not fail. One that is done is nothing
 * without it and waits, paused; one that was told to end has those before. */
static bool save_the_end(struct lh_loop *l)
{
	struct lh_err why;

	if (!lh_loop_save(l, "end", &why) || l->ending != LH_END_DONE)
		return true;
	l->ending = LH_END_NOT;
	l->paused = true;
	lh_loop_post_state(l, "paused", "the last checkpoint cannot be written; resume tries "
		   "again", 0);
	return false;
}

static int finish(struct lh_loop *l, struct lh_err *err)
{
	int rc;

	lh_loop_post_state(l, "stopping", ending_names[l->ending], 0);
	LH_FAILPOINT("end.saved");
	if (l->ending != LH_END_DONE)
		return 0;
	rc = lh_loop_evaluate(l, "end", err);
	if (l->abandoned) /* the next attempt comes to this end again */
		l->ending = LH_END_STOPPED;
	return rc;
}

/* From the state that lh_loop_open left to the end. */
static int train(struct lh_loop *l, struct lh_err *err)
{
	int64_t step;
	int rc = begin(l, err);

	while (!rc && l->ending != LH_END_REWOUND) {
		rc = boundary(l, err);
		if (rc || (l->ending && save_the_end(l)))
			break;
		if (l->paused)
			continue;
		lh_loop_status(l, "training");
		step = l->p.step;
		rc = lh_loop_step(l, err);
		if (rc)
			lh_err_prefix(err, "step %" PRId64, step + 1);
		else if (l->p.step > step)
			rc = lh_loop_evaluate_step(l, err);
	}
	lh_rewind_end(l);
	return rc ? rc : finish(l, err);
}

int lh_loop_run(const struct lh_loop_config *config, struct lh_err *err)
{
	struct lh_loop l = { .c = config, .job = config->job, .link = config->link,
			  .saved_step = -1, .paused = config->paused,
			  .waiting = json_array(),
			  .team_config = { .job = config->job, .ops = config->ops,
					   .peers = config->peers,
					   .host_ranks = config->host_ranks,
					   .size = config->job->devices },
			  .trial_path = lh_asprintf("%s/../" LH_JOB_TRIAL,
						    config->checkpoints) };
	int rc = lh_loop_open(&l, err);

	if (!rc && !l.ending)
		rc = train(&l, err);
	else
		lh_rewind_end(&l);
	if (rc) {
		l.ending = l.ending == LH_END_HELD ? LH_END_HELD : LH_END_FAILED;
		lh_log_err(LH_LOG_ERROR, l.ending == LH_END_HELD ? "the job is held" :
								   "the job failed", err);
	}
	lh_loop_post_take(&l, "end", json_pack("{s:s, s:i, s:s, s:o, s:o}", "outcome",
				  ending_names[l.ending], "phase", l.p.phase, "code",
				  rc ? lh_err_name(rc) : "", "text",
				  lh_loop_text_json(rc ? err->text : l.why), "hint",
				  lh_loop_text_json(rc ? err->hint : "")));
	*config->done = !rc && l.ending == LH_END_DONE;
	LH_FAILPOINT("end.posted");
	lh_loop_close(&l);
	return rc;
}

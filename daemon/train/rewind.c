/* rewind.c: going back to a checkpoint; see loop_int.h.
 *
 * A switch is a transaction: checkpoint (written while training goes on), switch,
 * then its phase's first switch.watch_steps steps are a trial. If one of them fails (an error, a loss or
 * gradient that is not finite, a loss above switch.loss_ceiling), or two workers are
 * lost in them, training goes back to that checkpoint and stays in the phase before:
 * the command is void, or the phase's own end is ignored (`held`) until somebody
 * switches by hand.
 *
 *   enter -> lh_rewind_begin: trial.json -> steps -> lh_rewind_watch: it is kept
 *                                             |
 *        lh_rewind_switch: the verdict into trial.json, end as "rewound"
 *                                             v
 *        the next attempt: lh_rewind_is_due -> loads what was there before the switch
 *             -> lh_rewind_take_back: that checkpoint anew, later ones and trial.json
 *                removed
 *
 * So a worker lost at any moment leaves either a trial or a verdict. What a rewound
 * job is to do differently is in the checkpoint itself; those of the line that was
 * left are removed only once it is on disk. Steps come again, and within an attempt
 * they never do: hence another one. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"

static bool is_voided(const struct lh_progress *p, int64_t command)
{
	for (int i = 0; i < p->voided_count; i++)
		if (p->voided[i] == command)
			return true;
	return false;
}

static void make_void(struct lh_progress *p, int64_t command)
{
	if (!command || is_voided(p, command))
		return;
	if (p->voided_count == LH_VOIDED_MAX) { /* the oldest is long past */
		for (int i = 1; i < LH_VOIDED_MAX; i++)
			p->voided[i - 1] = p->voided[i];
		p->voided_count--;
	}
	p->voided[p->voided_count++] = command;
}

bool lh_rewind_is_void(const struct lh_loop *l, int64_t command)
{
	return is_voided(&l->p, command);
}

/* What is now in the model and l->p: on disk, then nothing after it. Without room for
 * that, nothing is lost: the old line is still there. */
static int save_line(struct lh_loop *l, struct lh_err *err)
{
	l->p.attempt = l->c->attempt;
	l->p.total_steps = lh_loop_plan_total(l);
	if (lh_loop_begin_save(l, "rewind", err) || lh_loop_take_save(l, true, err)) {
		l->ending = LH_END_HELD;
		return lh_err_prefix(err, "going back to step %" PRId64, l->p.step);
	}
	LH_FAILPOINT("rewind.saved");
	if (lh_checkpoint_remove_after(l->c->checkpoints, l->p.step, err))
		return lh_err_prefix(err, "going back to step %" PRId64, l->p.step);
	LH_FAILPOINT("rewind.removed");
	return 0;
}

static void post_verdict(struct lh_loop *l, const char *verdict, const struct lh_trial *t,
			 int64_t steps, const char *why)
{
	lh_loop_post_take(l, "switch",
			  json_pack("{s:s, s:I, s:i, s:i, s:I, s:I, s:o}", "verdict",
				    verdict, "command", (json_int_t)t->command, "phase",
				    t->phase, "from_phase", t->from, "from_step",
				    (json_int_t)t->step, "steps", (json_int_t)steps, "text",
				    lh_loop_text_json(why)));
}

/* ---- a trial --------------------------------------------------------------- */

static struct lh_trial trial_of(const struct lh_progress *p)
{
	return (struct lh_trial){ .step = p->phase_step, .phase = p->phase,
				  .command = p->phase_command };
}

/* Of no use without its record: then the switch is kept, whatever comes. */
static void note_attempt(struct lh_loop *l, int by)
{
	struct lh_err why = LH_ERR_INIT;

	l->trial.attempts += by;
	if (!lh_trial_write(l->trial_path, &l->trial, &why))
		return;
	l->p.trial = false;
	lh_loop_tell(l, "warn", "the switch to '%s' is not on trial: %s",
		     l->job->phases[l->p.phase].name, why.text);
}

static void forget_trial(struct lh_loop *l)
{
	char *dir = lh_asprintf("%s/..", l->c->checkpoints);

	/* Synced: a verdict that came back would undo what was trained since. */
	if (!unlink(l->trial_path))
		lh_fs_sync_dir(dir, NULL);
	free(dir);
}

void lh_rewind_begin(struct lh_loop *l, int from, bool held)
{
	struct lh_trial now = trial_of(&l->p), old;

	now.from = from;
	now.held = held || !now.command;
	now.watch = l->p.watch;
	if (lh_trial_read(l->trial_path, &old) && lh_trial_is_again(&old, &now))
		now.attempts = old.attempts;
	l->trial = now;
	note_attempt(l, 1);
	LH_FAILPOINT("trial.written");
}

void lh_rewind_forgo(struct lh_loop *l)
{
	l->p.trial = false;
	forget_trial(l);
	lh_loop_tell(l, "warn", "the switch to '%s' is not on trial: what was there before "
		     "it could not be saved", l->job->phases[l->p.phase].name);
}

void lh_rewind_go_on(struct lh_loop *l)
{
	struct lh_trial now = trial_of(&l->p);

	if (!l->p.trial)
		return;
	if (lh_trial_read(l->trial_path, &l->trial) && lh_trial_is_same(&l->trial, &now)) {
		note_attempt(l, 1);
		return;
	}
	l->p.trial = false;
	lh_loop_tell(l, "warn", "the record of the switch to '%s' is gone: it is kept",
		     l->job->phases[l->p.phase].name);
}

void lh_rewind_end(struct lh_loop *l)
{
	if (l->ending == LH_END_DONE || l->ending == LH_END_CANCELLED)
		forget_trial(l);
	else if (l->p.trial && l->ending == LH_END_STOPPED)
		note_attempt(l, -1);
}

void lh_rewind_watch(struct lh_loop *l, double loss)
{
	int64_t steps = l->p.step - l->p.phase_step;
	char text[200];

	if (!l->p.trial || (steps < l->job->switching.watch_steps &&
			    !lh_loop_phase_is_over(l)))
		return;
	l->p.trial = false;
	forget_trial(l);
	snprintf(text, sizeof(text), "%" PRId64 " steps went well, loss %.4f", steps, loss);
	post_verdict(l, "committed", &l->trial, steps, text);
}

int lh_rewind_switch(struct lh_loop *l, const char *why, struct lh_err *err)
{
	struct lh_trial *t = &l->trial;
	struct lh_err no;

	/* If it failed, the checkpoint before is the way back. */
	lh_loop_take_save(l, true, &no);
	snprintf(t->why, sizeof(t->why), "%s", why);
	t->watch = l->p.watch;
	if (lh_trial_write(l->trial_path, t, err)) {
		l->ending = LH_END_HELD;
		return lh_err_prefix(err, "the switch to '%s' failed (%s)",
				     l->job->phases[t->phase].name, why);
	}
	LH_FAILPOINT("rewind.judged");
	snprintf(l->why, sizeof(l->why), "the switch to '%s' at step %" PRId64 " is taken "
		 "back (%.200s); '%s' goes on%s", l->job->phases[t->phase].name, t->step,
		 t->why, l->job->phases[t->from].name,
		 t->held ? " until it is switched by hand" : "");
	lh_log(LH_LOG_WARN, "%s", l->why);
	l->p.step = t->step;
	l->p.phase = t->from;
	l->ending = LH_END_REWOUND;
	return 0;
}

bool lh_rewind_is_due(struct lh_loop *l)
{
	return lh_trial_read(l->trial_path, &l->trial) && lh_trial_has_failed(&l->trial) &&
	       l->trial.phase < l->job->phase_count && l->trial.from < l->job->phase_count;
}

int lh_rewind_take_back(struct lh_loop *l, struct lh_err *err)
{
	const struct lh_trial *t = &l->trial;
	int rc;

	lh_watch_carry(&l->p.watch, &t->watch);
	l->p.trial = false;
	l->p.held = l->p.held || t->held;
	make_void(&l->p, t->command);
	rc = save_line(l, err);
	if (rc)
		return rc;
	forget_trial(l);
	post_verdict(l, "reverted", t, 0, t->why);
	return 0;
}

/* ---- instability ----------------------------------------------------------- */

/* The switch that `now` was in and `q` is not may be what was wrong. */
static void void_switch(struct lh_loop *l, struct lh_progress *q,
			const struct lh_progress *now, const char *why)
{
	struct lh_trial t = trial_of(now);

	if (!t.command || (now->phase == q->phase && now->phase_step == q->phase_step))
		return;
	t.from = q->phase;
	make_void(q, t.command);
	post_verdict(l, "reverted", &t, now->step - now->phase_step, why);
}

void lh_rewind_note_set(struct lh_loop *l, int64_t command)
{
	if (l->set_count == LH_VOIDED_MAX) {
		memmove(l->sets, l->sets + 1, sizeof(l->sets) - sizeof(*l->sets));
		l->set_count--;
	}
	l->sets[l->set_count++] = (struct lh_set){ command, l->p.step };
}

void lh_rewind_tell_void(struct lh_loop *l, int64_t command, const char *why)
{
	lh_loop_post_take(l, "command",
			  json_pack("{s:I, s:s, s:o, s:s}", "command", (json_int_t)command,
				    "outcome", "reverted", "text", lh_loop_text_json(why),
				    "hint", ""));
}

/* What was set since the checkpoint that l->p is now of may be, too. */
static void void_sets(struct lh_loop *l, const char *why)
{
	for (int i = 0; i < l->set_count; i++) {
		const struct lh_set *s = &l->sets[i];

		if (s->step < l->p.step ||
		    (s->step == l->p.step && s->id <= l->p.command))
			continue;
		make_void(&l->p, s->id);
		lh_rewind_tell_void(l, s->id, why);
	}
}

int lh_rewind_instability(struct lh_loop *l, const char *why, struct lh_err *err)
{
	const struct lh_progress now = l->p;
	struct lh_progress q;
	struct lh_mix mix;
	struct lh_err no;
	char *path;
	int rc;

	lh_loop_take_save(l, true, &no);
	rc = lh_loop_load(l, INT64_MAX, &q, &path, err);
	if (rc)
		return lh_err_prefix(err, "%s; no way back", why);
	free(path);
	lh_watch_carry(&q.watch, &now.watch);
	q.cursor = now.cursor + l->job->batch.sequences;
	/* The weights are those of then, what was drawn from each source is not. */
	mix = now.settings.mix;
	lh_mix_set(&mix, q.settings.mix.weight, q.cursor);
	q.settings.mix = mix;
	l->p = q;
	void_switch(l, &l->p, &now, why);
	void_sets(l, why);
	rc = save_line(l, err);
	if (rc)
		return rc;
	l->ending = LH_END_REWOUND;
	snprintf(l->why, sizeof(l->why), "%s", why);
	lh_log(LH_LOG_WARN, "back to step %" PRId64 ": %s", q.step, why);
	return 0;
}

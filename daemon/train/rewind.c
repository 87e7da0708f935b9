/* rewind.c: going back to a checkpoint; see loop_int.h.
 *
 * A switch is a transaction: checkpoint, switch, then its phase's first
 * switch.watch_steps steps are a trial. If one of them fails (an error, a loss or
 * gradient that is not finite, a loss above switch.loss_ceiling), training goes
 * back to that checkpoint and stays in the phase before: the command is void, or
 * the phase's own end is ignored (`held`) until somebody switches by hand.
 *
 * What a rewound job is to do differently is written into the checkpoint itself,
 * so a worker lost at any moment either finds the old line and comes to the same
 * verdict, or goes on from the new one. Later checkpoints, of the line that was
 * left, are removed only once the new one is on disk. Steps come again, and within
 * an attempt they never do: so the worker ends and lhd begins another attempt. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/failpoint.h"

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

/* Goes on as `q`, whose weights are in the model: on disk, then nothing after it. */
static int commit(struct lh_loop *l, const struct lh_progress *q, const char *why,
		  struct lh_err *err)
{
	l->p = *q;
	l->p.attempt = l->c->attempt;
	l->p.total_steps = lh_loop_plan_total(l);
	if (lh_loop_begin_save(l, "rewind", err) || lh_loop_take_save(l, true, err))
		return lh_err_prefix(err, "going back to step %" PRId64, q->step);
	LH_FAILPOINT("rewind.saved");
	lh_checkpoint_remove_after(l->c->checkpoints, q->step);
	LH_FAILPOINT("rewind.removed");
	l->ending = LH_END_REWOUND;
	snprintf(l->why, sizeof(l->why), "%s", why);
	lh_loop_tell(l, "warn", "back to step %" PRId64 ": %s", q->step, why);
	return 0;
}

int lh_rewind_switch(struct lh_loop *l, const char *why, struct lh_err *err)
{
	char *path = lh_checkpoint_path(l->c->checkpoints, l->p.phase_step), text[400];
	const struct lh_progress now = l->p;
	struct lh_progress q;
	struct lh_err no;
	int rc;

	lh_loop_take_save(l, true, &no);
	rc = lh_checkpoint_load(path, l->model, &q, true, err);
	free(path);
	if (!rc && q.phase == now.phase)
		rc = lh_err_set(err, LH_ECORRUPT, "the checkpoint of step %" PRId64
				" is in phase '%s' too", q.step,
				l->job->phases[q.phase].name);
	if (rc)
		return lh_err_prefix(err, "the switch to '%s' failed (%s) and cannot be "
				     "taken back", l->job->phases[now.phase].name, why);
	lh_watch_carry(&q.watch, &now.watch);
	q.held = q.held || !now.phase_command;
	make_void(&q, now.phase_command);
	snprintf(text, sizeof(text), "the switch to '%s' at step %" PRId64 " is taken back "
		 "(%.200s); '%s' goes on%s", l->job->phases[now.phase].name, now.phase_step,
		 why, l->job->phases[q.phase].name,
		 q.held ? " until it is switched by hand" : "");
	return commit(l, &q, text, err);
}

int lh_rewind_instability(struct lh_loop *l, const char *why, struct lh_err *err)
{
	const struct lh_progress now = l->p;
	struct lh_progress q;
	struct lh_err no;
	char *path;
	int rc;

	lh_loop_take_save(l, true, &no);
	rc = lh_checkpoint_load_newest(l->c->checkpoints, INT64_MAX, l->model, &q, &path,
				       lh_loop_on_damaged, l, err);
	if (rc)
		return lh_err_prefix(err, "%s; no way back", why);
	free(path);
	lh_watch_carry(&q.watch, &now.watch);
	q.cursor = now.cursor + l->job->batch.sequences;
	/* A switch since then may be what was wrong: it is not repeated. */
	if (now.phase != q.phase || now.phase_step != q.phase_step)
		make_void(&q, now.phase_command);
	return commit(l, &q, why, err);
}

void lh_rewind_watch(struct lh_loop *l, double loss)
{
	int64_t steps = l->p.step - l->p.phase_step;

	if (!l->p.trial || (steps < l->job->switching.watch_steps &&
			    !lh_loop_phase_is_over(l)))
		return;
	l->p.trial = false;
	lh_loop_tell(l, "info", "the switch to '%s' at step %" PRId64 " is kept: %" PRId64
		     " steps, loss %.4f", l->job->phases[l->p.phase].name, l->p.phase_step,
		     steps, loss);
}

bool lh_rewind_is_void(const struct lh_loop *l, int64_t command)
{
	return is_voided(&l->p, command);
}

/* loop_save.c: checkpoints and evaluations of the training loop; see loop_int.h. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/version.h"

#include "base/failpoint.h"
#include "base/fs.h"

enum { PACE_AT_STEP = 3 };

/* Training goes on without it: the checkpoint before is still there. */
static int tell_failed_save(struct lh_loop *l, int64_t step, const struct lh_err *why,
			    struct lh_err *err)
{
	lh_loop_tell(l, "warn", "no checkpoint of step %" PRId64 ": %s%s%s%s", step,
		     why->text, *why->hint ? " (hint: " : "", why->hint,
		     *why->hint ? ")" : "");
	l->saved_step = -1;
	if (l->p.trial && l->trial.step == step)
		lh_rewind_forgo(l);
	*err = *why;
	return why->code;
}

/* Tells of a save that has ended; `wait`: of the one under way. What it returns
 * is how the save went: no reason to end the job. */
int lh_loop_take_save(struct lh_loop *l, bool wait, struct lh_err *err)
{
	struct lh_saved s;
	json_t *record;

	if (wait && lh_team_is_saving(&l->team))
		lh_loop_status(l, "saving");
	if (!lh_team_take_save(&l->team, wait, &s))
		return 0;
	if (s.rc)
		return tell_failed_save(l, s.step, &s.err, err);
	record = json_pack("{s:s, s:I, s:o, s:I, s:f, s:f, s:s}", "t", "checkpoint", "step",
			   (json_int_t)s.step, "path", lh_loop_text_json(s.path), "bytes",
			   (json_int_t)s.bytes, "duration_ms", s.duration_ms, "stall_ms",
			   s.stall_ms, "reason", s.reason);
	LH_ASSERT(record);
	lh_link_post_take(l->link, record);
	free(s.path);
	return 0;
}

/* The state of this boundary; written while training goes on. */
int lh_loop_begin_save(struct lh_loop *l, const char *reason, struct lh_err *err)
{
	struct lh_err why = LH_ERR_INIT;

	lh_loop_status(l, "saving");
	lh_loop_take_save(l, true, err);
	if (lh_team_begin_save(&l->team, &l->p, reason, &why))
		return tell_failed_save(l, l->p.step, &why, err);
	l->saved_step = l->p.step;
	return 0;
}

/* This boundary's state safe on disk before anything else happens. */
int lh_loop_save(struct lh_loop *l, const char *reason, struct lh_err *err)
{
	int rc = l->saved_step == l->p.step ? 0 : lh_loop_begin_save(l, reason, err);

	return rc ? rc : lh_loop_take_save(l, true, err);
}

void lh_loop_compare_origin(struct lh_loop *l, const json_t *manifest)
{
	const json_t *origin = json_object_get(manifest, "origin");
	const char *build = json_string_value(json_object_get(manifest, "written_by"));
	char why[600];

	if (!lh_origin_same_device(origin, l->origin, why, sizeof(why)))
		lh_loop_tell(l, "warn", "the checkpoint of step %" PRId64 " differs: %s: from "
			     "here on the run is the same in exact arithmetic, not bit for "
			     "bit", l->p.step, why);
	if (build && strcmp(build, lh_build))
		lh_loop_tell(l, "info", "the checkpoint of step %" PRId64 " was written by "
			     "version %.60s, this is %s", l->p.step, build, lh_build);
	l->data_changed = !lh_origin_same_data(origin, l->origin, why, sizeof(why));
	if (l->data_changed)
		lh_loop_tell(l, "warn", "these are not the data that the checkpoint of step "
			     "%" PRId64 " was trained on: %s; its place in them means other "
			     "tokens now (hint: put the old files back, then pause --release "
			     "and resume; or resume to go on with these)", l->p.step, why);
}

/* Of all sequences of a set. An abandoned one sets l->abandoned. */
static int sum_losses(struct lh_loop *l, int set, const struct lh_attention_mode *mode,
		      struct lh_losses *sum, struct lh_err *err)
{
	int64_t n = l->job->evaluation.sequences;

	memset(sum, 0, sizeof(*sum));
	lh_positions_init(&sum->by_place, l->job->data.seq_len);
	for (int64_t i = 0; i < n; i += lh_team_round(&l->team)) {
		int rc;

		LH_FAILPOINT("eval.batch");
		if (lh_loop_is_told(l)) {
			l->abandoned = true;
			return 0;
		}
		rc = lh_team_evaluate(&l->team, set, mode, i, sum, err);
		if (rc)
			return rc;
		lh_link_beat(l->link);
	}
	return 0;
}

/* Adds what is to be told of one set. */
static int evaluate(struct lh_loop *l, int set, const struct lh_attention_mode *mode,
		    const char *reason, json_t *told, struct lh_err *err)
{
	const char *name = l->job->data.validation[set].name;
	int64_t start_us = lh_clock_us();
	struct lh_losses sum;
	json_t *places;
	double ms;
	int rc;

	if (LH_SPOILS("evaluation"))
		return lh_err_set(err, LH_EDATA, "validation data cannot be read, says a "
				  "test");
	lh_loop_status(l, "evaluating");
	rc = sum_losses(l, set, mode, &sum, err);
	if (rc || l->abandoned)
		return rc;
	ms = (double)(lh_clock_us() - start_us) / 1000;
	lh_told_add_take(told, "eval", json_pack(
		"{s:i, s:s, s:i, s:s, s:o, s:I, s:f, s:o, s:s}", "phase", l->p.phase,
		"attention", lh_look_attention(mode), "set_no", set, "set_name", name, "loss",
		isfinite(sum.nats) && sum.tokens ? json_real(sum.nats / (double)sum.tokens) :
						   json_null(),
		"tokens", (json_int_t)sum.tokens, "duration_ms", ms, "cost",
		lh_loop_cost(l, LH_LOOK_LOSS, ms), "reason", reason));
	if (!l->job->evaluation.positions)
		return 0;
	places = lh_positions_json(&sum.by_place);
	json_object_set_new(places, "set_name", json_string(name));
	lh_look_add_take(l, told, LH_LOOK_POSITIONS, mode, reason,
			 (double)sum.by_place_us / 1000, places);
	return 0;
}

/* Every set with each of the two, where it is not NULL. */
static int evaluate_sets(struct lh_loop *l, const struct lh_attention_mode *full,
			 const struct lh_attention_mode *own, const char *reason,
			 json_t *told, struct lh_err *err)
{
	int sets = l->job->evaluation.sequences ? l->team.data.validation_count : 0, rc = 0;

	for (int i = 0; !rc && !l->abandoned && i < sets; i++) {
		if (full)
			rc = evaluate(l, i, full, reason, told, err);
		if (!rc && !l->abandoned && own)
			rc = evaluate(l, i, own, reason, told, err);
	}
	return rc;
}

int lh_loop_evaluate(struct lh_loop *l, const char *reason, struct lh_err *err)
{
	json_t *told = json_array();
	int rc = evaluate_sets(l, &lh_attention_full, NULL, reason, told, err);

	lh_told_post_take(l, told, rc);
	return rc;
}

int lh_loop_evaluate_own(struct lh_loop *l, const char *reason, struct lh_err *err)
{
	json_t *told = json_array();
	int rc = evaluate_sets(l, NULL, &l->team.modes[l->p.phase], reason, told, err);

	lh_told_post_take(l, told, rc);
	return rc;
}

/* The evaluation that comes with the step just done, or NULL. */
static const char *due_evaluation(const struct lh_loop *l)
{
	int64_t every = l->p.settings.eval_every_steps;

	if (!l->p.step)
		return "start";
	/* The first step of a phase that was switched to. */
	if (l->p.step == l->p.phase_step + 1 && (l->p.phase_step || l->p.phase))
		return "after_switch";
	return every && l->p.step % every == 0 ? "interval" : NULL;
}

static bool is_due(const struct lh_loop *l, int64_t every)
{
	return every && l->p.step && l->p.step % every == 0;
}

/* That the loss after a switch cannot be had is no reason to end a job. */
static int without_evaluation(struct lh_loop *l, const char *reason,
			      const struct lh_err *why, struct lh_err *err)
{
	if (!reason || strcmp(reason, "after_switch")) {
		*err = *why;
		return why->code;
	}
	if (l->p.trial)
		return lh_rewind_switch(l, why->text, err);
	lh_loop_tell(l, "warn", "no evaluation after the switch: %s", why->text);
	return 0;
}

int lh_loop_evaluate_step(struct lh_loop *l, struct lh_err *err)
{
	const struct lh_job_evaluation *looks = &l->job->evaluation;
	const char *reason = due_evaluation(l);
	bool interval = reason && !strcmp(reason, "interval"), gap = looks->gap;
	const struct lh_attention_mode *own = &l->team.modes[l->p.phase];
	struct lh_err why = LH_ERR_INIT;
	json_t *told = json_array();
	int rc = 0;

	if (!interval || !gap || own->attention == LH_ATTENTION_FULL)
		own = NULL;
	if (reason)
		rc = evaluate_sets(l, &lh_attention_full, own, reason, told, &why);
	if (!rc && !l->abandoned && interval && looks->selection)
		rc = lh_loop_look_selection(l, reason, told, &why);
	if (!rc && !l->abandoned && is_due(l, looks->passkey.every_steps))
		rc = lh_loop_look_passkey(l, &lh_attention_full, "interval", told, &why);
	if (!rc && !l->abandoned && is_due(l, looks->choices.every_steps))
		rc = lh_loop_look_choices(l, &lh_attention_full, "interval", told, &why);
	lh_told_post_take(l, told, rc);
	l->p.owed = l->abandoned;
	if (l->p.owed)
		l->saved_step = -1; /* one of this step does not say so */
	if (rc)
		return without_evaluation(l, reason, &why, err);
	if (gap && (interval || l->p.step - l->p.phase_step == PACE_AT_STEP) &&
	    !lh_loop_is_told(l))
		lh_loop_pace(l);
	return 0;
}

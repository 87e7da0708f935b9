/* steer.c: what the training loop is told between two steps; see loop_int.h. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "jobs/jobfile.h"
#include "train/sample.h"

/* ---- phases ---------------------------------------------------------------- */

int lh_loop_enter_phase(struct lh_loop *l, int phase, const char *reason, int64_t command,
		       struct lh_err *err)
{
	struct lh_err why;
	int rc;

	lh_loop_post_state(l, "switching", reason, command);
	if (l->saved_step != l->p.step)
		lh_loop_begin_save(l, "switch", &why);
	rc = lh_loop_evaluate(l, "before_switch", err);
	if (rc)
		return rc;
	LH_FAILPOINT("switch.saved");
	l->p.phase = phase;
	l->p.phase_step = l->p.step;
	l->p.phase_tokens = 0;
	l->p.phase_ms = 0;
	l->p.phase_command = command;
	l->p.held = false;
	/* Without a checkpoint there is no way back. */
	l->p.trial = l->job->switching.watch_steps > 0 && l->saved_step == l->p.step;
	l->p.total_steps = lh_loop_plan_total(l);
	lh_watch_forget(&l->p.watch);
	lh_loop_post_take(l, "phase", json_pack("{s:i, s:s, s:s, s:I}", "phase", phase, "name",
				   l->job->phases[phase].name, "reason", reason,
				   "command", (json_int_t)command));
	lh_loop_post_state(l, l->paused ? "paused" : "running", reason, command);
	LH_FAILPOINT("switch.done");
	return 0;
}

/* ---- commands -------------------------------------------------------------- */

static void resolve(struct lh_loop *l, int64_t id, const struct lh_err *err,
		    const char *text)
{
	lh_loop_post_take(l, "command",
	     json_pack("{s:I, s:s, s:o, s:o}", "command", (json_int_t)id, "outcome",
		       err->code ? "refused" : "applied", "text",
		       lh_loop_text_json(err->code ? err->text : text), "hint",
		       lh_loop_text_json(err->code ? err->hint : "")));
}

/* A failure of `rc` is the job's; a refusal is in `no`. */
static int do_switch(struct lh_loop *l, int64_t id, const json_t *args, char *text,
		     size_t text_bytes, struct lh_err *no, struct lh_err *err)
{
	const char *name = json_string_value(json_object_get(args, "phase"));
	const struct lh_estimate_phase *plan;
	int phase = l->p.phase + 1, rc;

	if (name && lh_jobfile_find_phase(l->job, name, &phase, no))
		return 0;
	if (phase >= l->job->phase_count) {
		lh_err_set(no, LH_ESTATE, "phase '%s' is the last one",
			   l->job->phases[l->p.phase].name);
		lh_err_hint(no, "name the phase to go back to");
		return 0;
	}
	if (phase == l->p.phase) {
		lh_err_set(no, LH_ESTATE, "the job is in phase '%s' already",
			   l->job->phases[phase].name);
		return 0;
	}
	rc = lh_loop_enter_phase(l, phase, "by command", id, err);
	plan = &l->plan.phase[phase];
	snprintf(text, text_bytes, "in phase '%s' from step %" PRId64, l->job->phases[phase].name,
		 l->p.step + 1);
	if (plan->step_s > 0)
		snprintf(text + strlen(text), text_bytes - strlen(text),
			 "; planned: %.2f GiB, %.2f s a step",
			 (double)plan->bytes.total / (1 << 30), plan->step_s);
	return rc;
}

void lh_loop_pause(struct lh_loop *l, const char *reason, int64_t command)
{
	struct lh_err why;

	/* It may last, and the machine may not. */
	lh_loop_save(l, "pause", &why);
	l->paused = true;
	lh_loop_post_state(l, "paused", reason, command);
}

static void set_paused(struct lh_loop *l, bool paused, int64_t id, struct lh_err *no)
{
	if (l->paused == paused) {
		lh_err_set(no, LH_ESTATE, "the job is %s",
			   paused ? "paused already" : "not paused");
	} else if (paused) {
		lh_loop_pause(l, "by command", id);
	} else {
		l->paused = false;
		lh_loop_post_state(l, "running", "by command", id);
	}
}

/* Ends the worker, which is paused or not; on disk is all that another needs. */
static void release(struct lh_loop *l, struct lh_err *no)
{
	if (!lh_loop_save(l, "pause", no))
		l->ending = LH_END_STOPPED;
}

/* Not where there is one already: a switch that was entered here must be able to
 * go back to what was saved before it. */
static void save_by_command(struct lh_loop *l, bool pin, struct lh_err *no)
{
	char *path = lh_checkpoint_path(l->c->checkpoints, l->p.step);

	if (!lh_loop_save(l, "by command", no) && pin)
		lh_checkpoint_pin(path, no);
	free(path);
}

static bool is_set(const json_t *args, const char *key)
{
	return json_is_true(json_object_get(args, key));
}

/* Applies a command here; 0, or the error that fails the job. */
static int apply(struct lh_loop *l, int64_t id, const char *verb, const json_t *args,
		 bool replay, struct lh_err *err)
{
	struct lh_err no = LH_ERR_INIT;
	char text[256] = "";
	int rc = 0;

	LH_FAILPOINT("command.begin");
	if (!strcmp(verb, "switch")) {
		rc = do_switch(l, id, args, text, sizeof(text), &no, err);
	} else if (!strcmp(verb, "pause") && is_set(args, "release")) {
		release(l, &no);
		snprintf(text, sizeof(text), "paused after step %" PRId64 " and released",
			 l->p.step);
	} else if (!strcmp(verb, "pause")) {
		set_paused(l, true, id, &no);
		snprintf(text, sizeof(text), "paused after step %" PRId64, l->p.step);
	} else if (!strcmp(verb, "resume")) {
		set_paused(l, false, id, &no);
		snprintf(text, sizeof(text), "going on after step %" PRId64, l->p.step);
	} else if (!strcmp(verb, "checkpoint")) {
		save_by_command(l, is_set(args, "pin"), &no);
		snprintf(text, sizeof(text), "saved at step %" PRId64 "%s", l->p.step,
			 is_set(args, "pin") ? " and pinned" : "");
	} else if (!strcmp(verb, "cancel") || !strcmp(verb, "stop")) {
		l->ending = *verb == 'c' ? LH_END_CANCELLED : LH_END_STOPPED;
		snprintf(text, sizeof(text), "ended after step %" PRId64, l->p.step);
	} else {
		lh_err_set(&no, LH_EUNSUPPORTED, "this worker has no command '%s'", verb);
		lh_err_hint(&no, "it was started by another version of lighthouse");
	}
	LH_FAILPOINT("command.done");
	if (!rc && !no.code)
		l->p.command = id;
	if (!rc && !replay)
		resolve(l, id, &no, text);
	return rc;
}

struct caller {
	struct lh_loop *l;
	const json_t *call;
};

static int on_piece(void *arg, const char *text)
{
	const struct caller *c = arg;

	lh_link_beat(c->l->link);
	return !lh_link_answer_take(c->l->link, c->call,
				    json_pack("{s:s, s:s}", "m", "piece", "text", text));
}

static void answer_call(struct lh_loop *l, const json_t *m)
{
	const char *method = json_string_value(json_object_get(m, "method"));
	struct caller c = { l, m };
	struct lh_err err = LH_ERR_INIT;
	struct lh_sample_args args;
	json_t *reply, *result = NULL;
	int rc;

	lh_loop_status(l, "sampling");
	if (!method || strcmp(method, "sample"))
		rc = lh_err_set(&err, LH_EUNSUPPORTED, "this worker has no such call");
	else
		rc = lh_sample_parse(&args, json_object_get(m, "args"), &err);
	if (!rc)
		rc = lh_sample_run(l->model, l->job->model.vocab, l->p.step, &args,
				   on_piece, &c, &result, &err);
	if (!rc)
		reply = json_pack("{s:s, s:o}", "m", "reply", "result", result);
	else
		reply = json_pack("{s:s, s:{s:s, s:o, s:o}}", "m", "reply", "error", "code",
				  lh_err_name(rc), "text", lh_loop_text_json(err.text), "hint",
				  lh_loop_text_json(err.hint));
	lh_link_answer_take(l->link, m, reply);
}

int lh_loop_on_message(struct lh_loop *l, const json_t *m, struct lh_err *err)
{
	const char *name = json_string_value(json_object_get(m, "m"));
	const char *verb = json_string_value(json_object_get(m, "verb"));
	const char *text = json_string_value(json_object_get(m, "text"));

	if (!strcmp(name, "call"))
		answer_call(l, m);
	else if (!strcmp(name, "refuse"))
		return lh_err_set(err, LH_EPROTO, "lhd does not want this worker: %s",
				  text ? text : "it does not say why");
	else if (verb)
		return apply(l, json_integer_value(json_object_get(m, "id")), verb,
			     json_object_get(m, "args"), false, err);
	return 0;
}

/* Commands that earlier attempts applied at this step, less those that this
 * checkpoint has in it. Only what steers training: pauses are over, and an end
 * that was reached would not have been resumed. The list is in the order of ids,
 * not of steps: a later command may have come to an earlier step of a run that
 * had gone back. */
int lh_loop_replay(struct lh_loop *l, struct lh_err *err)
{
	const json_t *r;
	size_t i;
	int rc = 0;

	json_array_foreach (l->c->replay, i, r) {
		int64_t id = json_integer_value(json_object_get(r, "id"));
		int64_t step = json_integer_value(json_object_get(r, "step"));
		const char *verb = json_string_value(json_object_get(r, "verb"));

		if (!rc && step == l->p.step && id > l->p.command && verb &&
		    !strcmp(verb, "switch") && !lh_rewind_is_void(l, id))
			rc = apply(l, id, verb, json_object_get(r, "args"), true, err);
	}
	return rc;
}

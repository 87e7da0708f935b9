/* steer.c: what the training loop is told between two steps; see loop_int.h. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "jobs/jobfile.h"
#include "lighthouse/proto.h"
#include "train/sample.h"

/* ---- phases ---------------------------------------------------------------- */

double lh_loop_predict_s(const struct lh_loop *l, int phase)
{
	const struct lh_estimate_phase *plan = l->plan.phase;
	int64_t steps = l->p.step - l->p.phase_step;
	double counted = plan[l->p.phase].step_s;

	/* What was measured of this phase corrects what was counted of the other. */
	if (steps < 1 || counted <= 0)
		return 0;
	return plan[phase].step_s / counted * l->p.phase_ms / 1000 / (double)steps;
}

/* Other programs may have taken memory since this one took its own. */
static int64_t memory_to_have(struct lh_loop *l)
{
	if (LH_SPOILS("switch.memory"))
		return 0;
	return l->c->ops->free_bytes(l->team.dev) + l->plan.bytes;
}

static int check_memory(struct lh_loop *l, int phase, struct lh_err *no)
{
	int64_t need = l->plan.phase[phase].bytes.total, have = memory_to_have(l);

	if (need <= have)
		return 0;
	lh_err_set(no, LH_ETOOBIG, "phase '%s' needs %.2f GiB; %.2f are free or this job's, "
		   "and a step would take %.2f s", l->job->phases[phase].name,
		   (double)need / (1 << 30), (double)have / (1 << 30),
		   lh_loop_predict_s(l, phase));
	return lh_err_hint(no, "see what else uses the device, then ask again");
}

/* 0 with everything ready for the switch. The way back is a copy in memory that is
 * being written: training does not wait for it. A worker lost before it is on disk
 * leaves the checkpoint before, from where the next comes to this switch again. */
static int prepare(struct lh_loop *l, const struct lh_switch *s, struct lh_err *no)
{
	struct lh_err why;
	int rc = check_memory(l, s->phase, no);

	if (rc)
		return rc;
	if (l->saved_step != l->p.step)
		lh_loop_begin_save(l, "switch", &why);
	if (!s->now)
		rc = lh_loop_evaluate(l, "before_switch", no);
	lh_loop_take_save(l, false, &why);
	return rc;
}

static void enter(struct lh_loop *l, const struct lh_switch *s)
{
	int from = l->p.phase;
	bool held = l->p.held;

	l->p.phase = s->phase;
	l->p.phase_step = l->p.step;
	l->p.phase_tokens = 0;
	l->p.phase_ms = 0;
	l->p.phase_command = s->command;
	l->p.held = false;
	/* Without a checkpoint there is no way back. */
	l->p.trial = l->job->switching.watch_steps > 0 && l->saved_step == l->p.step;
	l->p.total_steps = lh_loop_plan_total(l);
	lh_watch_forget(&l->p.watch);
	if (l->p.trial)
		lh_rewind_begin(l, from, held);
}

int lh_loop_switch(struct lh_loop *l, const struct lh_switch *s, struct lh_err *no)
{
	double step_s = lh_loop_predict_s(l, s->phase);
	int rc;

	lh_loop_post_state(l, "switching", s->reason, s->command);
	rc = prepare(l, s, no);
	if (rc && s->again)
		lh_loop_tell(l, "warn", "%s; it was entered before, so it is again", no->text);
	if (rc && !s->again) {
		lh_loop_post_state(l, l->paused ? "paused" : "running", "the switch was "
				   "refused", s->command);
		return rc;
	}
	if (l->abandoned)
		return 0;
	LH_FAILPOINT("switch.saved");
	enter(l, s);
	lh_loop_post_take(l, "phase", json_pack("{s:i, s:s, s:s, s:I, s:b, s:f}", "phase",
				   s->phase, "name", l->job->phases[s->phase].name,
				   "reason", s->reason, "command", (json_int_t)s->command,
				   "trial", l->p.trial, "step_s", step_s));
	lh_loop_post_state(l, l->paused ? "paused" : "running", s->reason, s->command);
	LH_FAILPOINT("switch.done");
	return 0;
}

/* ---- messages -------------------------------------------------------------- */

static bool is_set(const json_t *args, const char *key)
{
	return json_is_true(json_object_get(args, key));
}

/* What is for a later step waits for it; what is for one that is past is refused. */
static bool is_due(const struct lh_loop *l, const json_t *m)
{
	const json_t *at = json_object_get(json_object_get(m, "args"), "at_step");

	return !at || l->p.step >= json_integer_value(at);
}

/* Those that waited come first: their ids are lower, and a replay goes by ids. */
json_t *lh_loop_next_message(struct lh_loop *l, int wait_ms)
{
	json_t *m;
	size_t i;

	json_array_foreach (l->waiting, i, m)
		if (is_due(l, m)) {
			json_incref(m);
			json_array_remove(l->waiting, i);
			return m;
		}
	while ((m = lh_link_take(l->link, wait_ms)) && !is_due(l, m))
		json_array_append_new(l->waiting, m);
	return m;
}

bool lh_loop_is_called_off(struct lh_loop *l)
{
	bool now = false;
	json_t *m;

	while ((m = lh_link_take(l->link, 0))) {
		now |= is_set(json_object_get(m, "args"), "now");
		json_array_append_new(l->waiting, m);
	}
	return now;
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

/* The phase that a switch with these arguments enters. */
static int phase_of(const struct lh_loop *l, const json_t *args, int *phase,
		    struct lh_err *no)
{
	const char *name = json_string_value(json_object_get(args, "phase"));

	*phase = l->p.phase + 1;
	if (name && lh_jobfile_find_phase(l->job, name, phase, no))
		return no->code;
	if (*phase >= l->job->phase_count) {
		lh_err_set(no, LH_ESTATE, "phase '%s' is the last one",
			   l->job->phases[l->p.phase].name);
		return lh_err_hint(no, "name the phase to go back to");
	}
	if (*phase == l->p.phase)
		return lh_err_set(no, LH_ESTATE, "the job is in phase '%s' already",
				  l->job->phases[*phase].name);
	return 0;
}

static int check_step(const struct lh_loop *l, const json_t *args, struct lh_err *no)
{
	int64_t at = json_integer_value(json_object_get(args, "at_step"));

	if (!json_object_get(args, "at_step") || at >= l->p.step)
		return 0;
	lh_err_set(no, LH_ESTATE, "step %" PRId64 " is past: %" PRId64 " are done", at,
		   l->p.step);
	return lh_err_hint(no, "name a step to come");
}

/* Neither refused nor the phase entered: left, because the worker is to end. */
static void do_switch(struct lh_loop *l, int64_t id, const json_t *args, bool again,
		      char *text, size_t text_bytes, struct lh_err *no)
{
	struct lh_switch s = { .reason = "by command", .command = id, .again = again,
			       .now = is_set(args, "now") };
	double step_s;

	if (check_step(l, args, no) || phase_of(l, args, &s.phase, no))
		return;
	step_s = lh_loop_predict_s(l, s.phase);
	if (lh_loop_switch(l, &s, no))
		return;
	snprintf(text, text_bytes, "in phase '%s' from step %" PRId64 "; planned: %.2f GiB",
		 l->job->phases[s.phase].name, l->p.step + 1,
		 (double)l->plan.phase[s.phase].bytes.total / (1 << 30));
	if (step_s > 0)
		snprintf(text + strlen(text), text_bytes - strlen(text),
			 ", %.3g s a step", step_s);
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

static void look_by_command(struct lh_loop *l, bool passkey,
			    const struct lh_attention_mode *mode, struct lh_err *no)
{
	int rc = passkey ? lh_loop_may_passkey(l, no) : lh_loop_may_choose(l, no);
	json_t *told = json_array();

	if (!rc)
		rc = passkey ? lh_loop_look_passkey(l, mode, "command", told, no) :
			       lh_loop_look_choices(l, mode, "command", told, no);
	lh_told_post_take(l, told, rc);
}

static void eval_by_command(struct lh_loop *l, const json_t *args, struct lh_err *no)
{
	const char *name = json_string_value(json_object_get(args, "attention"));
	const struct lh_attention_mode *phase = &l->team.modes[l->p.phase];
	bool own = name && !strcmp(name, "lighthouse");

	if (own && phase->attention == LH_ATTENTION_FULL) {
		lh_err_set(no, LH_ESTATE, "phase '%s' has full attention",
			   l->job->phases[l->p.phase].name);
		lh_err_hint(no, "leave the attention out");
	} else if (is_set(args, "passkey") || is_set(args, "choices")) {
		look_by_command(l, is_set(args, "passkey"), own ? phase : &lh_attention_full,
				no);
	} else if (!l->team.data.validation_count || !l->job->evaluation.sequences) {
		lh_err_set(no, LH_ESTATE, "the job has nothing to be evaluated with");
		lh_err_hint(no, "data.validation and evaluation.sequences, in the job file");
	} else if (own) {
		lh_loop_evaluate_own(l, "command", no);
	} else {
		lh_loop_evaluate(l, "command", no);
	}
}

/* Of the phase that it was asked in, and of no other. `again`: an earlier attempt did
 * it, so it is done. */
static void change_settings(struct lh_loop *l, int64_t id, const json_t *args, bool again,
			    char *text, size_t text_bytes, struct lh_err *no)
{
	const char *name = json_string_value(json_object_get(args, "phase"));
	int phase = l->p.phase;

	if (name && lh_jobfile_find_phase(l->job, name, &phase, no))
		return;
	if (phase != l->p.phase && !again) {
		lh_err_set(no, LH_ESTATE, "phase '%s' is over", name);
		lh_err_hint(no, "ask again: it is about phase '%s' then",
			    l->job->phases[l->p.phase].name);
		return;
	}
	if (lh_settings_apply(&l->p.settings, l->job, args, phase, l->p.cursor, no))
		return;
	l->team.data.mix = l->p.settings.mix;
	l->p.total_steps = lh_loop_plan_total(l);
	lh_rewind_note_set(l, id);
	lh_loop_post_settings(l);
	lh_settings_describe(args, text, text_bytes);
}

/* Applies a command here, or refuses it. */
static void apply(struct lh_loop *l, int64_t id, const char *verb, const json_t *args,
		  bool replay)
{
	struct lh_err no = LH_ERR_INIT;
	char text[256] = "";

	LH_FAILPOINT("command.begin");
	if (!strcmp(verb, "switch")) {
		do_switch(l, id, args, replay, text, sizeof(text), &no);
		if (!no.code && l->p.phase_command != id)
			return; /* it has no outcome: the next attempt gets it */
	} else if (!strcmp(verb, "set")) {
		change_settings(l, id, args, replay, text, sizeof(text), &no);
	} else if (!strcmp(verb, "eval")) {
		eval_by_command(l, args, &no);
		if (!no.code && l->abandoned)
			return; /* nor has this */
		snprintf(text, sizeof(text), "evaluated after step %" PRId64, l->p.step);
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
	if (id == LH_PROTO_UNANSWERED)
		return;
	if (!no.code)
		l->p.command = id;
	if (!replay)
		resolve(l, id, &no, text);
}

/* It has come again: who did it was lost before that was told, and since then it was
 * taken back. Both are told; it is not done once more. */
static void tell_void(struct lh_loop *l, int64_t id)
{
	const struct lh_err none = LH_ERR_INIT;

	resolve(l, id, &none, "done by a worker that was lost");
	lh_rewind_tell_void(l, id, "what came of it failed");
}

struct caller {
	struct lh_loop *l;
	const json_t *call;
};

static int on_piece(void *arg, json_t *piece)
{
	const struct caller *c = arg;

	lh_link_beat(c->l->link);
	json_object_set_new(piece, "m", json_string("piece"));
	return !lh_link_answer_take(c->l->link, c->call, json_incref(piece)) ||
	       lh_loop_is_told(c->l);
}

static int sample(struct lh_loop *l, const json_t *m, json_t **result,
		  struct lh_err *err)
{
	struct caller c = { l, m };
	struct lh_sample_args args;
	int rc = lh_sample_parse(&args, json_object_get(m, "args"), err);

	lh_loop_status(l, "sampling");
	if (rc)
		return rc;
	lh_team_lead(&l->team, true);
	rc = lh_sample_run(l->team.model, l->job, l->p.step, &args, on_piece, &c, result, err);
	lh_team_lead(&l->team, false);
	return rc;
}

static int preflight(struct lh_loop *l, const json_t *m, json_t **result,
		     struct lh_err *err)
{
	int64_t need, have = memory_to_have(l);
	double step_s;
	int phase;

	if (phase_of(l, json_object_get(m, "args"), &phase, err))
		return err->code;
	need = l->plan.phase[phase].bytes.total;
	step_s = lh_loop_predict_s(l, phase);
	*result = json_pack("{s:s, s:I, s:I, s:b, s:o}", "phase", l->job->phases[phase].name,
			    "need_bytes", (json_int_t)need, "have_bytes", (json_int_t)have,
			    "fits", need <= have, "step_s",
			    step_s > 0 ? json_real(step_s) : json_null());
	return 0;
}

static void answer_call(struct lh_loop *l, const json_t *m)
{
	const char *method = json_string_value(json_object_get(m, "method"));
	struct lh_err err = LH_ERR_INIT;
	json_t *reply, *result = NULL;
	int rc;

	if (method && !strcmp(method, "sample"))
		rc = sample(l, m, &result, &err);
	else if (method && !strcmp(method, "preflight"))
		rc = preflight(l, m, &result, &err);
	else
		rc = lh_err_set(&err, LH_EUNSUPPORTED, "this worker has no such call");
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
	int64_t id = json_integer_value(json_object_get(m, "id"));

	if (!strcmp(name, "call"))
		answer_call(l, m);
	else if (!strcmp(name, "refuse"))
		return lh_err_set(err, LH_EPROTO, "lhd does not want this worker: %s",
				  text ? text : "it does not say why");
	else if (verb && lh_rewind_is_void(l, id))
		tell_void(l, id);
	else if (verb)
		apply(l, id, verb, json_object_get(m, "args"), false);
	return 0;
}

static bool shapes_training(const char *verb)
{
#define IS(name) || !strcmp(verb, name)
	return false LH_PROTO_SHAPING_VERBS(IS);
#undef IS
}

/* Commands that earlier attempts applied at this step, less those that this
 * checkpoint has in it. Only what shapes training: pauses are over, and an end
 * that was reached would not have been resumed. The list is in the order of ids,
 * not of steps: a later command may have come to an earlier step of a run that
 * had gone back. */
void lh_loop_replay(struct lh_loop *l)
{
	const json_t *r;
	size_t i;

	json_array_foreach (l->c->replay, i, r) {
		int64_t id = json_integer_value(json_object_get(r, "id"));
		int64_t step = json_integer_value(json_object_get(r, "step"));
		const char *verb = json_string_value(json_object_get(r, "verb"));

		if (step == l->p.step && id > l->p.command && verb &&
		    shapes_training(verb) && !lh_rewind_is_void(l, id))
			apply(l, id, verb, json_object_get(r, "args"), true);
	}
}

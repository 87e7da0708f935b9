/* rule_fire.c: what a rule does when it fires; see rule.h.
 *
 * A command goes the way of anybody's (command.c), which journals the firing in the
 * same transaction: both are there after a crash, or neither. A script is journalled
 * before it starts, without an outcome, and begins again if lhd ends before it. */
#include "jobs/rule_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "jobs/rule_action.h"

/* ---- firing ---------------------------------------------------------------- */

static struct lh_firing *firing_new(struct lh_rule *r, json_t *values, int64_t event)
{
	struct lh_firing *f = lh_calloc(1, sizeof(*f));

	f->jobs = r->run->jobs;
	f->rule = r->id;
	f->n = r->fired + 1;
	f->values = json_incref(values);
	f->event = event;
	r->busy = true;
	return f;
}

void lh_firing_free(struct lh_firing *f)
{
	if (!f)
		return;
	json_decref(f->values);
	free(f);
}

/* The firing's row, the rule's, and the event. */
static void journal(struct lh_rule *r, const struct lh_firing *f, struct lh_batch *b,
		    int64_t command, const char *outcome, const char *text)
{
	char *values = json_dumps(f->values, JSON_COMPACT);
	struct lh_job_run *run = r->run;

	r->fired = f->n;
	r->held = true;
	r->armed = r->repeat || *r->on;
	r->fired_ms = (int64_t)uv_now(run->jobs->loop);
	lh_batch_add(b, LH_STMT_FIRING_INSERT,
		     (struct lh_bind[]){ LH_INT(r->id), LH_INT(f->n),
					 command ? LH_INT(command) : LH_NULL,
					 f->event ? LH_INT(f->event) : LH_NULL,
					 LH_INT(run->step), LH_INT(lh_time_ms()),
					 LH_TEXT(values),
					 outcome ? LH_TEXT(outcome) : LH_NULL,
					 LH_TEXT(text) },
		     9);
	free(values);
	lh_rule_store(r, b);
	lh_batch_event_take(b, run->id, run->attempt, run->step, "rule.fired",
			    json_pack("{s:s, s:I, s:s, s:I, s:O}", "rule", r->name, "firing",
				      (json_int_t)f->n, "do", r->action, "command",
				      (json_int_t)command, "values", f->values),
			    "rule '%s' fired: %s%s%s", r->name, r->action,
			    *text ? ": " : "", text);
}

void lh_rules_journal(struct lh_request *request, struct lh_batch *b)
{
	struct lh_firing *f = request->firing;
	struct lh_rule *r = lh_rule_find(f->jobs, f->rule);

	LH_FAILPOINT("rule.command");
	f->stored = true;
	if (r)
		journal(r, f, b, request->command, "done", "");
}

/* The command was accepted, or refused: then it fired in vain. The request frees
 * the firing. */
static void on_answer(void *arg, json_t *result, const struct lh_err *err)
{
	struct lh_firing *f = arg;
	struct lh_rule *r = f->jobs->closing ? NULL : lh_rule_find(f->jobs, f->rule);
	struct lh_batch *b;

	(void)result;
	LH_FAILPOINT("rule.answered");
	if (r)
		r->busy = false;
	/* The command could not be stored, so nor could the firing. */
	if (r && f->stored && err) {
		r->fired = f->n - 1;
		r->armed = true;
		r->held = false;
	} else if (r && err) {
		b = lh_batch_new(r->run->journal);
		journal(r, f, b, 0, "refused", err->text);
		lh_batch_commit(b, false, NULL, NULL);
	}
}

static void give_command(struct lh_rule *r, const struct lh_rule_action *a, json_t *values)
{
	struct lh_firing *f = firing_new(r, values, 0);
	char *id = lh_asprintf("rule-%" PRId64 "-%" PRId64, r->id, f->n);
	char *message = lh_asprintf("rule '%s': %.400s", r->name, r->when);
	struct lh_caller who = { .uid = r->uid, .pid = r->pid, .program = "lhd",
				 .request_id = id, .message = message };

	lh_command_ask(r->run->jobs, r->run->id, a->verb, a->args, &who, f, on_answer, f);
	free(message);
	free(id);
}

/* ---- scripts --------------------------------------------------------------- */

static void on_script_end(void *arg, bool ok, const char *text)
{
	struct lh_rule *r = arg;
	struct lh_firing *f = r->running;
	struct lh_batch *b = lh_batch_new(r->run->journal);

	LH_FAILPOINT("rule.script");
	r->exec = NULL;
	r->running = NULL;
	r->busy = false;
	if (f->event > r->cursor)
		r->cursor = f->event;
	lh_batch_add(b, LH_STMT_FIRING_OUTCOME,
		     (struct lh_bind[]){ LH_INT(r->id), LH_INT(f->n),
					 LH_TEXT(ok ? "done" : "refused"), LH_TEXT(text) },
		     4);
	lh_rule_store(r, b);
	lh_batch_event_take(b, r->run->id, r->run->attempt, r->run->step,
			    ok ? "rule.done" : "rule.failed",
			    json_pack("{s:s, s:I}", "rule", r->name, "firing",
				      (json_int_t)f->n),
			    "rule '%s': %s %s", r->name, r->action, text);
	lh_batch_commit(b, false, NULL, NULL);
	lh_firing_free(f);
	lh_rules_touch(r->run->jobs);
}

static void run_script(struct lh_rule *r, struct lh_firing *f)
{
	struct lh_rule_action a = { 0 };
	struct lh_err err = LH_ERR_INIT;

	r->running = f;
	if (!lh_rule_action_parse(&a, r->action, &err))
		r->exec = lh_rule_exec_start(r->run->jobs, json_string_value(json_object_get(a.args, "file")),
					     f->values, on_script_end, r, &err);
	lh_rule_action_release(&a);
	if (!r->exec)
		on_script_end(r, false, err.text);
}

static void on_firing_stored(void *arg, int rc, const struct lh_err *err)
{
	struct lh_firing *f = arg;
	struct lh_rule *r = f->jobs->closing ? NULL : lh_rule_find(f->jobs, f->rule);

	(void)err;
	if (!r || rc) {
		if (r)
			r->busy = false;
		lh_firing_free(f);
		return;
	}
	run_script(r, f);
}

/* What a script is told: everything it needs, so that it need not ask. */
static json_t *script_input(const struct lh_rule *r, json_t *values, int64_t event)
{
	json_t *job = lh_jobs_get(r->run->jobs, r->run->id);

	return json_pack("{s:s, s:I, s:I, s:o, s:O}", "rule", r->name, "firing",
			 (json_int_t)r->fired + 1, "rule_id", (json_int_t)r->id, "job", job,
			 event ? "event" : "values", values);
}

static void give_script(struct lh_rule *r, json_t *values, int64_t event)
{
	json_t *input = script_input(r, values, event);
	struct lh_firing *f = firing_new(r, input, event);
	struct lh_batch *b = lh_batch_new(r->run->journal);

	json_decref(input);
	journal(r, f, b, 0, NULL, "");
	lh_batch_commit(b, true, on_firing_stored, f);
}

void lh_rule_fire(struct lh_rule *r, json_t *values, int64_t event)
{
	struct lh_rule_action a = { 0 };

	if (lh_rule_action_parse(&a, r->action, NULL))
		LH_BUG("rule %" PRId64 " does '%s'", r->id, r->action);
	if (!strcmp(a.verb, "exec"))
		give_script(r, values, event);
	else
		give_command(r, &a, values);
	lh_rule_action_release(&a);
}

void lh_rule_refire(struct lh_rule *r, json_t *input, int64_t event, int64_t n)
{
	struct lh_firing *f = firing_new(r, input, event);

	f->n = n;
	run_script(r, f);
}

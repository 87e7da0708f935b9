/* command.c: steering a job: refused at once, or journalled, answered, done.
 *
 *   lh_jobs_command -> go: does the state allow it?  -> answer: refused
 *        -> row durable -> answer: accepted -> act: here, or by the worker
 *        -> outcome: row, event, gone from run->commands
 *
 * A pending command outlives its worker: the next attempt gets it, but a pause or
 * resume of a job that is back in the queue is done there. One that is still pending
 * when the job ends is refused then. What a pause or resume asks is `wanted` only once
 * it was applied; a cancel is wanted from the start, so that a worker lost on the way is
 * not replaced.
 *
 * lhd's own stop is another matter: it must come through while the store takes
 * nothing. So the worker is told first, without the id of a row that may never be
 * written; row, state and event follow, and the end of the attempt is its outcome. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"
#include "jobs/rule.h"
#include "lighthouse/proto.h"

static const char *const methods[] = { "job.switch", "job.set", "job.pause",
				       "job.resume", "job.checkpoint",
				       "job.eval", "job.cancel",
				       "job.priority", "job.annotate" };

static const char *verb_of(const struct lh_request *r)
{
	return r->method + strlen("job.");
}

static bool is(const char *verb, const char *name)
{
	return !strcmp(verb, name);
}

/* ---- pending commands ------------------------------------------------------ */

void lh_command_add(struct lh_job_run *run, int64_t id, const char *verb, json_t *args)
{
	struct lh_command *c = lh_calloc(1, sizeof(*c)), **p = &run->commands;

	c->id = id;
	snprintf(c->verb, sizeof(c->verb), "%s", verb);
	c->args = args;
	while (*p && (*p)->id < id)
		p = &(*p)->next;
	c->next = *p;
	*p = c;
}

static void free_command(struct lh_command *c)
{
	json_decref(c->args);
	free(c);
}

void lh_command_free_all(struct lh_job_run *run)
{
	struct lh_command *c;

	while ((c = run->commands)) {
		run->commands = c->next;
		free_command(c);
	}
}

json_t *lh_command_worker_args(const json_t *stored)
{
	json_t *args = json_copy((json_t *)stored);

	json_object_del(args, "asked");
	return args ? args : json_object();
}

static void deliver_stop(struct lh_worker *w)
{
	if (!w || !w->wire || !w->stop_asked || w->stop_sent)
		return;
	w->stop_sent = true;
	lh_wire_send_take(w->wire, json_pack("{s:s, s:i, s:s, s:{}}", "m", "command", "id",
					     LH_PROTO_UNANSWERED, "verb", "stop", "args"));
}

bool lh_command_is_too_old(const struct lh_worker *w, const json_t *args)
{
	return w->proto && w->proto < LH_PROTO_AT_STEP && json_object_get(args, "at_step");
}

static void refuse_too_old(struct lh_job_run *run)
{
	struct lh_command *c = run->commands, *next;
	struct lh_batch *b = NULL;

	for (; c; c = next) {
		next = c->next;
		if (!lh_command_is_too_old(run->worker, c->args))
			continue;
		if (!b)
			b = lh_batch_new(run->journal);
		lh_command_outcome(run, b, c->id, false, run->step, LH_TOO_OLD, LH_TOO_OLD_HINT);
	}
	if (b)
		lh_batch_commit(b, false, NULL, NULL);
}

void lh_command_deliver(struct lh_job_run *run)
{
	struct lh_wire *wire;

	deliver_stop(run->worker);
	wire = run->worker ? run->worker->wire : NULL;
	if (wire)
		refuse_too_old(run);
	for (struct lh_command *c = run->commands; wire && c; c = c->next) {
		/* A resume of one that stops is for the queue, or the next worker. */
		if (c->sent || is(c->verb, "stop") ||
		    (run->state == LH_JOB_STOPPING && is(c->verb, "resume")))
			continue;
		c->sent = true;
		lh_wire_send_take(wire, json_pack("{s:s, s:I, s:s, s:O}", "m", "command",
						  "id", (json_int_t)c->id, "verb", c->verb,
						  "args", c->args));
		wire = run->worker->wire; /* sending may have closed it */
	}
}

void lh_command_resend(struct lh_job_run *run)
{
	for (struct lh_command *c = run->commands; c; c = c->next)
		c->sent = false;
	run->worker->stop_sent = false;
	lh_command_deliver(run);
}

json_t *lh_command_held(const struct lh_job_run *run)
{
	json_t *held = json_array();

	for (const struct lh_command *c = run->commands; c; c = c->next)
		if (json_object_get(c->args, "at_step"))
			json_array_append_new(held, json_pack("{s:I, s:s, s:O}", "id",
							      (json_int_t)c->id, "verb",
							      c->verb, "args", c->args));
	return held;
}

void lh_command_add_outcome(const struct lh_job_run *run, struct lh_batch *batch, int64_t id,
			    const char *verb, const char *outcome, int64_t step,
			    const char *text, const char *hint)
{
	char kind[32];

	lh_batch_add(batch, LH_STMT_COMMAND_OUTCOME,
		     (struct lh_bind[]){ LH_INT(id), LH_TEXT(outcome), LH_INT(lh_time_ms()),
					 LH_INT(step), LH_TEXT(text) },
		     5);
	snprintf(kind, sizeof(kind), "command.%s", outcome);
	lh_batch_event_take(batch, run->id, run->attempt, step, kind,
			    json_pack("{s:I, s:s, s:s, s:s, s:s}", "command",
				      (json_int_t)id, "verb", verb, "outcome", outcome,
				      "text", text, "hint", hint),
			    "%s %s at step %" PRId64 "%s%s", verb, outcome, step,
			    *text ? ": " : "", text);
}

bool lh_command_outcome(struct lh_job_run *run, struct lh_batch *batch, int64_t id,
			bool applied, int64_t step, const char *text, const char *hint)
{
	struct lh_command **p = &run->commands, *c;

	while (*p && (*p)->id != id)
		p = &(*p)->next;
	c = *p;
	if (!c)
		return false;
	LH_FAILPOINT("command.outcome");
	*p = c->next;
	if (applied && is(c->verb, "pause"))
		run->wanted = LH_WANT_PAUSE;
	else if (applied && is(c->verb, "resume"))
		run->wanted = LH_WANT_RUN;
	lh_command_add_outcome(run, batch, id, c->verb, applied ? "applied" : "refused", step,
			       text, hint);
	free_command(c);
	return true;
}

void lh_command_end_all(struct lh_job_run *run, struct lh_batch *batch)
{
	while (run->commands) {
		struct lh_command *c = run->commands;

		if (run->state == LH_JOB_CANCELLED && is(c->verb, "cancel"))
			lh_command_outcome(run, batch, c->id, true, run->step,
					   run->reason, "");
		else
			lh_command_outcome(run, batch, c->id, false, run->step,
					   "the job ended before it was applied", "");
	}
}

/* ---- doing it -------------------------------------------------------------- */

/* "verb by uid 1000 (lhctl): message" */
static char *who_asked(const struct lh_request *r)
{
	return lh_asprintf("%s by uid %" PRId64 "%s%s%s%s%s", verb_of(r), r->uid,
			   *r->program ? " (" : "", r->program, *r->program ? ")" : "",
			   *r->message ? ": " : "", r->message);
}

static void cancel_worker(struct lh_job_run *run, struct lh_batch *b, const char *why)
{
	run->wanted = LH_WANT_CANCEL;
	if (run->state != LH_JOB_STOPPING)
		lh_job_set_state(run, b, LH_JOB_STOPPING, "%s", why);
	else
		lh_job_store(run, b);
	lh_worker_arm_kill(run->worker);
}

/* The next worker reads it; in the store with the outcome. */
static void set_micro(struct lh_job_run *run, struct lh_batch *b, int64_t n)
{
	json_t *spec = json_deep_copy(run->spec_json); /* answers may hold the old one */
	char *text;

	run->spec.batch.micro_sequences = n;
	json_object_set_new(json_object_get(spec, "batch"), "micro_sequences",
			    json_integer(n));
	json_decref(run->spec_json);
	run->spec_json = spec;
	text = json_dumps(spec, JSON_COMPACT);
	lh_batch_add(b, LH_STMT_JOB_SPEC, (struct lh_bind[]){ LH_INT(run->id), LH_TEXT(text) },
		     2);
	free(text);
}

/* There is no worker to ask: a pause holds the job, a resume lets it go, or one that is
 * not held no longer wait. */
static void do_queued(struct lh_job_run *run, struct lh_batch *b, const struct lh_command *c)
{
	const json_t *micro = json_object_get(c->args, "micro_sequences");
	const char *text = is(c->verb, "pause") ? "held in the queue" : "free to start";

	if (micro)
		set_micro(run, b, json_integer_value(micro));
	if (is(c->verb, "resume") && run->wanted != LH_WANT_PAUSE && lh_wait_end(run, b))
		text = "free to start, waits no longer";
	lh_command_outcome(run, b, c->id, true, run->step, text, "");
	lh_job_store(run, b);
}

void lh_command_do_queued(struct lh_job_run *run)
{
	struct lh_command *c = run->commands, *next;
	struct lh_batch *b = NULL;

	for (; c; c = next) {
		next = c->next;
		if (!is(c->verb, "pause") && !is(c->verb, "resume"))
			continue;
		if (!b)
			b = lh_batch_new(run->journal);
		do_queued(run, b, c);
	}
	if (b)
		lh_batch_commit(b, false, NULL, NULL);
}

/* What needs no worker is done here, in `b`. */
static void act(struct lh_request *r, struct lh_job_run *run, struct lh_batch *b,
		const char *why)
{
	bool cancel = is(verb_of(r), "cancel");

	if (lh_job_has_ended(run->state)) {
		lh_command_end_all(run, b);
	} else if (cancel && !run->worker) {
		run->wanted = LH_WANT_CANCEL;
		lh_job_set_state(run, b, LH_JOB_CANCELLED, "%s", why);
		lh_command_end_all(run, b);
	} else if (cancel) {
		cancel_worker(run, b, why);
	}
}

static void begin(struct lh_request *r, struct lh_job_run *run)
{
	struct lh_batch *b = lh_batch_new(run->journal);
	char *why = who_asked(r);

	lh_command_add(run, r->command, verb_of(r), lh_command_worker_args(r->stored));
	act(r, run, b, why);
	lh_batch_commit(b, false, NULL, NULL);
	free(why);
	lh_command_deliver(run);
}

static void on_journalled(void *arg, int rc, const struct lh_err *err)
{
	struct lh_request *r = arg;
	struct lh_jobs *jobs = r->jobs;
	struct lh_job_run *run = lh_jobs_find(jobs, r->job);

	if (rc) {
		lh_request_answer_take(r, NULL, err);
		return;
	}
	LH_FAILPOINT("command.journalled");
	if (lh_command_is_own(r))
		lh_command_own_done(r, run);
	else
		begin(r, run);
	LH_FAILPOINT("command.delivered");
	lh_request_answer_take(r, json_pack("{s:I, s:I, s:s}", "command",
					    (json_int_t)r->command, "job",
					    (json_int_t)r->job, "state", "accepted"),
			       NULL);
	lh_queue_run(jobs);
	lh_jobs_settle(jobs);
}

/* Its row and event. */
static void add_accepted(struct lh_request *r, struct lh_job_run *run, struct lh_batch *b)
{
	char *why = who_asked(r);

	r->accepted_ms = lh_time_ms();
	lh_request_journal(r, b, r->stored);
	lh_batch_event_take(b, run->id, run->attempt, run->step, "command.accepted",
			    json_pack("{s:I, s:s}", "command", (json_int_t)r->command,
				      "verb", verb_of(r)),
			    "%s", why);
	free(why);
}

static void go(struct lh_request *r)
{
	struct lh_job_run *run = lh_jobs_find(r->jobs, r->job);
	struct lh_err err = LH_ERR_INIT;
	struct lh_batch *b;

	if (lh_command_check(run, verb_of(r), r->args, &r->stored, &err)) {
		lh_request_answer_take(r, NULL, &err);
		return;
	}
	b = lh_batch_new(r->jobs->journal);
	add_accepted(r, run, b);
	if (r->firing)
		lh_rules_journal(r, b);
	if (lh_command_is_own(r))
		lh_command_own_add(r, run, b);
	lh_batch_may_fail(b);
	lh_batch_commit(b, true, on_journalled, r);
}

void lh_jobs_command(struct lh_jobs *jobs, int64_t job, const char *verb,
		     const json_t *args, const struct lh_caller *who, lh_jobs_reply reply,
		     void *arg)
{
	lh_command_ask(jobs, job, verb, args, who, NULL, reply, arg);
}

void lh_command_ask(struct lh_jobs *jobs, int64_t job, const char *verb,
		    const json_t *args, const struct lh_caller *who,
		    struct lh_firing *firing, lh_jobs_reply reply, void *arg)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_request *r;
	const char *method = NULL;

	for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
		if (is(methods[i] + strlen("job."), verb))
			method = methods[i];
	LH_ASSERT(method);
	r = lh_request_new(jobs, method, job, who, reply, arg);
	r->args = args ? json_deep_copy(args) : json_object();
	r->firing = firing;
	r->go = go;
	if (!lh_jobs_find(jobs, job)) {
		lh_err_set(&err, LH_ENOTFOUND, "there is no job %" PRId64, job);
		lh_err_hint(&err, "job.list names all");
	} else if (jobs->draining) {
		lh_err_set(&err, LH_ESTATE, "lhd is stopping and takes no commands");
		lh_err_hint(&err, "ask again once lhd was started again");
	}
	if (err.code)
		lh_request_answer_take(r, NULL, &err);
	else
		lh_request_begin(r);
}

void lh_jobs_note_denied(struct lh_jobs *jobs, const struct lh_caller *who,
			 const char *method, int untold)
{
	struct lh_request *r = lh_request_new(jobs, method, 0, who, NULL, NULL);
	struct lh_batch *b = lh_batch_new(jobs->journal);
	char more[64] = "";

	if (untold)
		snprintf(more, sizeof(more), ", and %d calls before", untold);
	r->accepted_ms = lh_time_ms();
	r->args = json_object();
	lh_request_journal_done(r, b, "denied", -1, more + 2 * !!*more);
	lh_batch_event_take(b, 0, 0, -1, "access.denied",
			    json_pack("{s:I, s:I, s:s, s:i}", "uid", (json_int_t)who->uid,
				      "pid", (json_int_t)who->pid, "method", method,
				      "untold", untold),
			    "uid %" PRId64 " was denied %s%s", who->uid, method, more);
	lh_warn("uid %" PRId64 " (process %" PRId64 ") was denied %s%s", who->uid, who->pid,
		method, more);
	lh_batch_commit(b, false, NULL, NULL);
	lh_request_free(r);
}

void lh_command_stop(struct lh_job_run *run, const char *why)
{
	struct lh_caller lhd = { .uid = getuid(), .pid = getpid(), .program = "lhd",
				 .message = why };
	struct lh_worker *w = run->worker;
	struct lh_request *r;
	struct lh_batch *b;

	lh_worker_arm_kill(w);
	if (w->stop_asked)
		return;
	w->stop_asked = true;
	deliver_stop(w);
	r = lh_request_new(run->jobs, "job.stop", run->id, &lhd, NULL, NULL);
	r->stored = json_object();
	b = lh_batch_new(run->journal);
	add_accepted(r, run, b);
	lh_command_add(run, r->command, "stop", json_object());
	if (run->state != LH_JOB_STOPPING)
		lh_job_set_state(run, b, LH_JOB_STOPPING, "%s", why);
	lh_batch_commit(b, true, NULL, NULL);
	lh_request_free(r);
}

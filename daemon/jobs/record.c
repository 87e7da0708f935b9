/* record.c: a worker's records into the store, the job and the events.
 *
 * What one message (or one part of a spool) brings is one write: rows, the
 * attempt's last seq, the job's row and the events are committed together, so a
 * record is stored once whatever crashes. Memory runs ahead of the store by the
 * spans in w->spans.
 *
 * The worker is told (ack) of what a power cut cannot take back: of a durable
 * commit, which makes those before it durable too. A batch with an event is, and the
 * last one; one of steps alone is once a second, and those between wait in the worker's
 * spool, which is synced before a checkpoint of its steps becomes visible. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"
#include "jobs/rule.h"

/* Past it a number is not exact everywhere; up to it there is room to add. */
static const int64_t STEP_MAX = INT64_C(1) << 53;

static int64_t integer(const json_t *r, const char *key)
{
	return json_integer_value(json_object_get(r, key));
}

static const char *text(const json_t *r, const char *key)
{
	const char *s = json_string_value(json_object_get(r, key));

	return s ? s : "";
}

/* NaN when it is null or missing: the loss of a step that diverged. */
static double number(const json_t *r, const char *key)
{
	const json_t *v = json_object_get(r, key);

	return json_is_number(v) ? json_number_value(v) : NAN;
}

/* For columns that are never NULL. */
static double finite_number(const json_t *r, const char *key)
{
	double v = number(r, key);

	return isfinite(v) ? v : 0;
}

static json_t *real_or_null(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

/* The phase a record names, or the job's when it names none that exists. */
static int phase_of(const struct lh_job_run *run, const json_t *r)
{
	int64_t phase = integer(r, "phase");

	return phase >= 0 && phase < run->spec.phase_count ? (int)phase : run->phase;
}

/* ---- kinds ----------------------------------------------------------------- */

static void set_first_step(struct lh_worker *w, struct lh_batch *b, int64_t step)
{
	if (w->first_step == step)
		return;
	w->first_step = step;
	lh_batch_add(b, LH_STMT_ATTEMPT_WORKER,
		     (struct lh_bind[]){ LH_INT(w->run->id), LH_INT(w->attempt),
					 LH_INT(w->pid), LH_INT((int64_t)w->start_time),
					 LH_INT(step) },
		     5);
}

static void enter_phase(struct lh_worker *w, struct lh_batch *b, int phase, int64_t step,
			const char *reason, bool trial)
{
	struct lh_job_run *run = w->run;
	const char *name = run->spec.phases[phase].name;

	run->phase = phase;
	run->first_step[phase] = step;
	run->pace_ms = 0;
	lh_batch_event_take(b, run->id, w->attempt, step, "job.phase",
			    json_pack("{s:i, s:s, s:s, s:b}", "phase", phase, "name", name,
				      "reason", reason, "trial", trial),
			    "phase '%s' from step %" PRId64 "%s%s", name, step + 1,
			    *reason ? ": " : "", reason);
}

static void push_step(const struct lh_worker *w, const json_t *r, int phase)
{
	json_t *step = json_pack(
		"{s:I, s:I, s:I, s:i, s:I, s:o, s:o, s:f, s:I, s:f, s:f, s:I}", "job",
		(json_int_t)w->run->id, "attempt", (json_int_t)w->attempt, "step",
		(json_int_t)integer(r, "step"), "phase", phase, "time_ms",
		(json_int_t)integer(r, "time_ms"), "loss", real_or_null(number(r, "loss")),
		"grad_norm", real_or_null(number(r, "grad_norm")), "lr",
		finite_number(r, "lr"), "tokens", (json_int_t)integer(r, "tokens"), "step_ms",
		finite_number(r, "step_ms"), "tokens_per_s",
		finite_number(r, "tokens_per_s"), "data_epoch",
		(json_int_t)integer(r, "data_epoch"));

	LH_ASSERT(step);
	lh_journal_push_step_take(w->run->journal, w->run->id, step);
}

static void on_step(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	struct lh_job_run *run = w->run;
	int64_t step = integer(r, "step");
	int phase = phase_of(run, r);
	double ms = finite_number(r, "step_ms");

	lh_batch_add(b, LH_STMT_STEP_INSERT,
		     (struct lh_bind[]){ LH_INT(run->id), LH_INT(w->attempt), LH_INT(step),
					 LH_INT(phase), LH_INT(integer(r, "time_ms")),
					 LH_REAL(number(r, "loss")),
					 LH_REAL(number(r, "grad_norm")),
					 LH_REAL(finite_number(r, "lr")),
					 LH_INT(integer(r, "tokens")), LH_REAL(ms),
					 LH_REAL(finite_number(r, "tokens_per_s")),
					 LH_INT(integer(r, "data_epoch")) },
		     12);
	if (!w->stepped)
		set_first_step(w, b, step - 1);
	w->stepped = true;
	if (run->first_step[phase] < 0)
		enter_phase(w, b, phase, step - 1, "", false);
	run->step = step;
	run->phase = phase;
	run->loss = number(r, "loss");
	run->tokens_per_s = number(r, "tokens_per_s");
	run->pace_ms = run->pace_ms > 0 ? 0.9 * run->pace_ms + 0.1 * ms : ms;
	push_step(w, r, phase);
}

static void on_eval(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	const char *reason = text(r, "reason"), *attention = text(r, "attention");
	int phase = phase_of(w->run, r);
	int64_t step = integer(r, "step");
	int64_t set = integer(r, "set_no");
	const char *set_name = *text(r, "set_name") ? text(r, "set_name") : LH_SET_NAME;
	double loss = number(r, "loss");

	lh_batch_add(b, LH_STMT_EVAL_INSERT,
		     (struct lh_bind[]){ LH_INT(w->run->id), LH_INT(w->attempt),
					 LH_INT(integer(r, "seq")), LH_INT(step),
					 LH_INT(phase), LH_INT(integer(r, "time_ms")),
					 LH_TEXT(attention), LH_TEXT(reason), LH_REAL(loss),
					 LH_INT(integer(r, "tokens")),
					 LH_REAL(number(r, "duration_ms")), LH_INT(set),
					 LH_TEXT(set_name), LH_REAL(number(r, "cost")) },
		     14);
	lh_batch_event_take(b, w->run->id, w->attempt, step, "job.eval",
			    json_pack("{s:i, s:s, s:s, s:o, s:I, s:I, s:s, s:o, s:o}",
				      "phase", phase, "attention", attention, "reason",
				      reason, "loss", real_or_null(loss), "tokens",
				      (json_int_t)integer(r, "tokens"), "set_no",
				      (json_int_t)set, "set_name", set_name,
				      "duration_ms", real_or_null(number(r, "duration_ms")),
				      "cost", real_or_null(number(r, "cost"))),
			    "%s loss %.4f%s (%s)", set_name, loss,
			    strcmp(attention, "full") ? " with Lighthouse attention" : "",
			    reason);
}

/* "web 41.0 % right (43.0 % by length), code ..." */
static void describe_choices(const json_t *data, char *out, size_t bytes)
{
	json_t *set;
	size_t i;

	json_array_foreach (json_object_get(data, "sets"), i, set)
		snprintf(out + strlen(out), bytes - strlen(out),
			 "%s%.64s %.1f %% right (%.1f %% by length)", i ? ", " : "",
			 text(set, "set_name"), 100 * number(set, "acc"),
			 100 * number(set, "acc_norm"));
}

static void describe_look(const char *kind, const json_t *data, char *out, size_t bytes)
{
	*out = '\0';
	if (!strcmp(kind, "choices"))
		describe_choices(data, out, bytes);
	else if (!strcmp(kind, "passkey"))
		snprintf(out, bytes, "passkeys: %.1f %% found", 100 * number(data, "right"));
	else
		snprintf(out, bytes, "selection: %.1f %% of tokens starved",
			 100 * number(data, "never"));
}

/* A sentence on what was seen; where the page and scripts find it, it is whole. */
static void tell_of_look(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	const char *kind = text(r, "kind");
	bool selection = !strcmp(kind, "selection");
	double cost = number(r, "cost");
	char costs[64] = "", seen[512];

	describe_look(kind, json_object_get(r, "data"), seen, sizeof(seen));
	if (isfinite(cost))
		snprintf(costs, sizeof(costs), "; such looks take %.2g %% of training's time",
			 100 * cost);
	lh_batch_event_take(b, w->run->id, w->attempt, integer(r, "step"), "job.look",
			    json_pack("{s:s, s:s, s:s, s:o, s:o}", "kind", kind, "attention",
				      text(r, "attention"), "reason", text(r, "reason"),
				      "duration_ms", real_or_null(number(r, "duration_ms")),
				      "cost", real_or_null(cost)),
			    "%s%s%s", seen,
			    !selection && strcmp(text(r, "attention"), "full") ?
				    " with Lighthouse attention" : "", costs);
}

/* The loss by place comes with each evaluation, whose event tells of it. */
static void on_look(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	json_t *data = json_object_get(r, "data");
	char *dump = data ? json_dumps(data, JSON_COMPACT) : NULL;

	if (!dump) {
		lh_warn("job %" PRId64 ": a look without data is passed over", w->run->id);
		return;
	}
	lh_batch_add(b, LH_STMT_LOOK_INSERT,
		     (struct lh_bind[]){ LH_INT(w->run->id), LH_INT(w->attempt),
					 LH_INT(integer(r, "seq")), LH_INT(integer(r, "step")),
					 LH_INT(phase_of(w->run, r)),
					 LH_INT(integer(r, "time_ms")),
					 LH_TEXT(text(r, "kind")), LH_TEXT(text(r, "attention")),
					 LH_TEXT(text(r, "reason")),
					 LH_REAL(number(r, "duration_ms")),
					 LH_REAL(number(r, "cost")), LH_TEXT(dump) },
		     12);
	free(dump);
	if (strcmp(text(r, "kind"), "positions"))
		tell_of_look(w, b, r);
}

static void on_pace(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	lh_batch_add(b, LH_STMT_PACE_INSERT,
		     (struct lh_bind[]){ LH_INT(w->run->id), LH_INT(w->attempt),
					 LH_INT(integer(r, "seq")), LH_INT(integer(r, "step")),
					 LH_INT(phase_of(w->run, r)),
					 LH_REAL(finite_number(r, "step_ms")),
					 LH_INT(integer(r, "time_ms")) },
		     7);
}

static void on_checkpoint(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	int64_t step = integer(r, "step"), bytes = integer(r, "bytes");
	double ms = finite_number(r, "duration_ms");
	const char *path = text(r, "path"), *reason = text(r, "reason");

	lh_batch_add(b, LH_STMT_CHECKPOINT_INSERT,
		     (struct lh_bind[]){ LH_INT(w->run->id), LH_INT(w->attempt),
					 LH_INT(integer(r, "seq")), LH_INT(step),
					 LH_INT(integer(r, "time_ms")), LH_TEXT(path),
					 LH_INT(bytes), LH_REAL(ms), LH_TEXT(reason) },
		     9);
	lh_batch_event_take(b, w->run->id, w->attempt, step, "job.checkpoint",
			    json_pack("{s:s, s:I, s:f, s:f, s:s}", "path", path, "bytes",
				      (json_int_t)bytes, "duration_ms", ms, "stall_ms",
				      finite_number(r, "stall_ms"), "reason", reason),
			    "checkpoint of step %" PRId64 " (%s)", step, reason);
	lh_loss_forgive(w, b, step);
}

/* It is not at any step yet. What it waits for is why the job is still STARTING. */
static void on_starting(struct lh_job_run *run, const char *reason)
{
	if (run->state == LH_JOB_STARTING)
		lh_escape(run->reason, sizeof(run->reason), reason);
}

static void on_state(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	static const struct {
		const char *name;
		enum lh_job_state state;
	} states[] = { { "running", LH_JOB_RUNNING }, { "paused", LH_JOB_PAUSED },
		       { "switching", LH_JOB_SWITCHING }, { "stopping", LH_JOB_STOPPING } };
	struct lh_job_run *run = w->run;
	size_t i = 0, n = sizeof(states) / sizeof(*states);

	while (i < n && strcmp(states[i].name, text(r, "state")))
		i++;
	if (!strcmp(text(r, "state"), "starting")) {
		on_starting(run, text(r, "reason"));
		return;
	}
	run->step = integer(r, "step");
	if (!w->stepped)
		set_first_step(w, b, run->step);
	/* Once a job is STOPPING here, what the worker was still doing then no
	 * longer counts. */
	if (i < n && run->state != states[i].state && run->state != LH_JOB_STOPPING &&
	    lh_job_may(run->state, states[i].state))
		lh_job_set_state(run, b, states[i].state, "%s", text(r, "reason"));
}

/* A rollback takes it back. */
static void revert(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	int64_t command = integer(r, "command");

	lh_batch_add(b, LH_STMT_COMMAND_REVERTED,
		     (struct lh_bind[]){ LH_INT(command), LH_TEXT(text(r, "text")) }, 2);
	lh_batch_event_take(b, w->run->id, w->attempt, integer(r, "step"),
			    "command.reverted",
			    json_pack("{s:I, s:s}", "command", (json_int_t)command, "text",
				      text(r, "text")),
			    "command %" PRId64 " is taken back: %s", command,
			    text(r, "text"));
}

static void on_command(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	if (!strcmp(text(r, "outcome"), "reverted")) {
		revert(w, b, r);
		return;
	}
	lh_command_outcome(w->run, b, integer(r, "command"),
			   !strcmp(text(r, "outcome"), "applied"), integer(r, "step"),
			   text(r, "text"), text(r, "hint"));
}

static void on_event(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	const char *level = text(r, "level");
	bool known = !strcmp(level, "warn") || !strcmp(level, "error");
	char kind[32];

	snprintf(kind, sizeof(kind), "worker.%s", known ? level : "info");
	lh_log(known ? LH_LOG_WARN : LH_LOG_INFO, "job %" PRId64 ": %s", w->run->id,
	       text(r, "text"));
	lh_batch_event_take(b, w->run->id, w->attempt, integer(r, "step"), kind, NULL, "%s",
			    text(r, "text"));
}

static void on_instability(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	int64_t step = integer(r, "step");

	lh_warn("job %" PRId64 ": %s", w->run->id, text(r, "text"));
	lh_batch_event_take(b, w->run->id, w->attempt, step, "job.instability",
			    json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:f, s:I}", "cause",
				      text(r, "cause"), "action", text(r, "action"), "count",
				      (json_int_t)integer(r, "count"), "recent",
				      (json_int_t)integer(r, "recent"), "loss",
				      real_or_null(number(r, "loss")), "grad_norm",
				      real_or_null(number(r, "grad_norm")), "z",
				      finite_number(r, "z"), "step", (json_int_t)step + 1),
			    "%s", text(r, "text"));
}

/* Back to an earlier step and its phase: another attempt goes on from there. */
static void go_back(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	struct lh_job_run *run = w->run;

	run->step = integer(r, "step");
	run->phase = phase_of(run, r);
	run->pace_ms = 0;
	lh_job_forget_phases(run, run->phase, run->step);
	lh_batch_event_take(b, run->id, w->attempt, run->step, "job.rewind",
			    json_pack("{s:i}", "phase", run->phase), "%s",
			    text(r, "text"));
}

/* The verdict on a switch: of its trial, or of a rollback. */
static void on_switch(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	struct lh_job_run *run = w->run;
	int64_t command = integer(r, "command"), step = integer(r, "from_step");
	int64_t from = integer(r, "from_phase");
	bool back = !strcmp(text(r, "verdict"), "reverted");
	int phase = phase_of(run, r);

	if (from < 0 || from >= run->spec.phase_count)
		from = run->phase;
	if (back) {
		run->phase = (int)from;
		lh_job_forget_phases(run, run->phase, step);
	}
	if (back && command)
		lh_batch_add(b, LH_STMT_COMMAND_REVERTED,
			     (struct lh_bind[]){ LH_INT(command), LH_TEXT(text(r, "text")) },
			     2);
	lh_batch_event_take(b, run->id, w->attempt, integer(r, "step"),
			    back ? "switch.reverted" : "switch.committed",
			    json_pack("{s:o, s:i, s:I, s:I, s:I, s:s}", "command",
				      command ? json_integer(command) : json_null(), "phase",
				      phase, "from_phase", (json_int_t)from, "from_step",
				      (json_int_t)step, "steps",
				      (json_int_t)integer(r, "steps"), "why", text(r, "text")),
			    "the switch to '%s' at step %" PRId64 " is %s: %s",
			    run->spec.phases[phase].name, step,
			    back ? "taken back" : "kept", text(r, "text"));
}

static void on_end(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	struct lh_job_run *run = w->run;
	const char *outcome = text(r, "outcome"), *hint = text(r, "hint");
	char why[sizeof(w->end_text)];

	/* The job has not failed, this process has: another one may do better. */
	if (!strcmp(outcome, "failed") &&
	    lh_err_is_transient(lh_err_from_name(text(r, "code"))))
		outcome = "lost";
	snprintf(why, sizeof(why), "%.230s%s%.150s%s",
		 *text(r, "text") ? text(r, "text") : "the worker gave no reason",
		 *hint ? " (hint: " : "", hint, *hint ? ")" : "");
	/* What is cut to size may end inside a character, which JSON does not take. */
	lh_escape(w->outcome, sizeof(w->outcome), outcome);
	lh_escape(w->end_text, sizeof(w->end_text), why);
	lh_batch_add(b, LH_STMT_ATTEMPT_END,
		     (struct lh_bind[]){ LH_INT(run->id), LH_INT(w->attempt), LH_NULL,
					 LH_NULL, LH_NULL, LH_TEXT(w->outcome) },
		     6);
	if (!strcmp(outcome, "rewound"))
		go_back(w, b, r);
	/* Its reason is what the verdict needs, should another lhd give it. */
	if (run->state != LH_JOB_STOPPING)
		lh_job_set_state(run, b, LH_JOB_STOPPING, "%s",
				 *text(r, "text") ? w->end_text : outcome);
	else if (*text(r, "text"))
		snprintf(run->reason, sizeof(run->reason), "%s", w->end_text);
	if (!w->kill_stage)
		lh_worker_arm_kill(w);
}

static void on_phase(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	enter_phase(w, b, phase_of(w->run, r), integer(r, "step"), text(r, "reason"),
		    json_is_true(json_object_get(r, "trial")));
}

static void on_settings(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	lh_set_told(w, b, integer(r, "step"), json_object_get(r, "settings"));
}

static const struct {
	const char *name;
	void (*apply)(struct lh_worker *w, struct lh_batch *b, const json_t *r);
} kinds[] = {
	{ "step", on_step },       { "eval", on_eval },   { "checkpoint", on_checkpoint },
	{ "state", on_state },     { "event", on_event }, { "command", on_command },
	{ "phase", on_phase },     { "end", on_end },     { "instability", on_instability },
	{ "switch", on_switch },   { "settings", on_settings },
	{ "pace", on_pace },       { "look", on_look },
};

static void apply(struct lh_worker *w, struct lh_batch *b, const json_t *r)
{
	const char *t = text(r, "t");

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!strcmp(kinds[i].name, t)) {
			kinds[i].apply(w, b, r);
			return;
		}
	lh_warn("job %" PRId64 ": a record of unknown kind '%s' is passed over", w->run->id,
		t);
}

/* 0, or LH_EPROTO: it cannot be the next record. */
static int check(const struct lh_worker *w, const json_t *r, struct lh_err *err)
{
	int64_t seq = integer(r, "seq"), step = integer(r, "step");

	if (seq != w->received_seq + 1)
		return lh_err_set(err, LH_EPROTO,
				  "record %" PRId64 " comes after record %" PRId64, seq,
				  w->received_seq);
	if (step < 0 || step > STEP_MAX)
		return lh_err_set(err, LH_EPROTO, "record %" PRId64 " is of step %" PRId64,
				  seq, step);
	return 0;
}

/* ---- batches --------------------------------------------------------------- */

static void acknowledge(struct lh_worker *w)
{
	w->safe_seq = w->stored_seq;
	if (w->wire)
		lh_wire_send_take(w->wire, json_pack("{s:s, s:I}", "m", "ack", "seq",
						     (json_int_t)w->safe_seq));
}

static void on_stored(void *arg, int rc, const struct lh_err *err)
{
	struct lh_worker *w = arg;
	struct lh_span *span = w->spans;

	w->spans = span->next;
	if (!w->spans)
		w->spans_end = &w->spans;
	/* The database will not have them however often they are sent: better to
	 * lose these than to stand still. */
	if (rc)
		lh_error("job %" PRId64 ": records %" PRId64 " to %" PRId64
			 " are lost: %s", w->run->id, span->first, span->last, err->text);
	LH_FAILPOINT("records.stored");
	w->stored_seq = span->last;
	if (span->durable)
		acknowledge(w);
	free(span);
	if (w->wire && w->received_seq - w->stored_seq < LH_UNCOMMITTED_MAX / 2)
		lh_wire_throttle(w->wire, false);
	lh_rules_touch(w->jobs);
	lh_worker_drain(w);
}

static void commit(struct lh_worker *w, struct lh_batch *b, int64_t first)
{
	struct lh_span *span = lh_calloc(1, sizeof(*span));
	int64_t now_ms = (int64_t)uv_now(w->jobs->loop);

	span->first = first;
	span->last = w->received_seq;
	/* After the end nothing comes: the worker lingers until it is acknowledged. */
	span->durable = lh_batch_has_event(b) || *w->outcome ||
			now_ms - w->safe_at_ms >= LH_SAFE_MS;
	if (span->durable)
		w->safe_at_ms = now_ms;
	*w->spans_end = span;
	w->spans_end = &span->next;
	lh_batch_add(b, LH_STMT_ATTEMPT_SEQ,
		     (struct lh_bind[]){ LH_INT(w->run->id), LH_INT(w->attempt),
					 LH_INT(span->last) },
		     3);
	lh_job_store(w->run, b);
	lh_batch_commit(b, span->durable, on_stored, w);
	LH_FAILPOINT("records.taken");
	if (w->wire && w->received_seq - w->stored_seq > LH_UNCOMMITTED_MAX)
		lh_wire_throttle(w->wire, true);
}

int lh_record_take_all(struct lh_worker *w, const json_t *records, struct lh_err *err)
{
	struct lh_batch *b = NULL;
	int64_t first = w->received_seq + 1;
	const json_t *r;
	size_t i;
	int rc = 0;

	json_array_foreach (records, i, r) {
		int64_t seq = integer(r, "seq");

		if (seq > 0 && seq <= w->received_seq)
			continue; /* sent again after a reconnect */
		rc = check(w, r, err);
		if (rc)
			break;
		w->received_seq = seq;
		if (!b)
			b = lh_batch_new(w->run->journal);
		if (!LH_PLANTED("lost_record") || seq % 7)
			apply(w, b, r);
	}
	if (b) {
		commit(w, b, first);
		lh_hang_alive(w);
	}
	return rc;
}

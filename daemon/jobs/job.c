/* job.c: the life of one training job.
 *
 * Owns lh_job_run.state; nothing else writes it. Every change goes through
 * lh_job_set_state(), which checks the table below, logs "job 7: A -> B (why)"
 * and puts the row and an event 'job.state' into the store. Loop thread only.
 *
 *                +----------------------------------------------+
 *                |            +--> SWITCHING <--+               |
 *                v            v                 v               |
 *   QUEUED --> STARTING --> RUNNING <-------> PAUSED            |
 *    | ^         |            |                 |   any with a  |
 *    | |         +------------+--------+--------+   worker,     |
 *    | |                               |            lost ---> RESTARTING
 *    | +---------------------------- STOPPING                   |
 *    v                                 v                        v
 *   CANCELLED              DONE | FAILED | CANCELLED   FAILED | CANCELLED | QUEUED
 *
 *   QUEUED   -> STARTING    start (queue.c)         a slot is free
 *   QUEUED   -> CANCELLED   act (commands.c)        nothing was started
 *   STARTING -> RUNNING     on_state (records.c)    the worker trains
 *   STARTING -> PAUSED      on_state                it was paused when it was lost
 *   RUNNING <-> PAUSED      on_state                the worker obeyed a command
 *   RUNNING, PAUSED <-> SWITCHING  on_state         between two phases
 *   STARTING, RUNNING, PAUSED, SWITCHING
 *            -> STOPPING    act: cancel; lh_command_stop: lhd ends, or another
 *                           job takes its place; on_state, on_end: the worker
 *                           ends by itself
 *   any with a worker -> RESTARTING  decide (finish.c)  the process is gone and
 *                           nobody asked for that, or it met a transient error
 *   RESTARTING -> STARTING  start                   after a pause that grows
 *   RESTARTING -> FAILED    decide                  job.restarts used up
 *   RESTARTING -> CANCELLED act                     there is no worker to ask
 *   RESTARTING -> QUEUED    lh_jobs_drain, take_place (queue.c)  likewise
 *   STOPPING -> DONE, FAILED, CANCELLED
 *                           decide                  as the end record said; the
 *                           process is gone and its records are stored
 *   STOPPING -> RESTARTING  decide                  it went back to a checkpoint
 *                           (rewind.c), besides a loss: at once, and not counted
 *   STOPPING -> QUEUED      decide                  it was stopped, not ended: by
 *                           lhd, or somebody sent the worker SIGTERM. The next
 *                           start resumes from its checkpoint. Or it said that it
 *                           cannot go on (held): it is paused then
 *
 * QUEUED, RESTARTING: no worker. A QUEUED job whose `wanted` is pause is held; one
 * that waits for a time or another job (wait.c) is not started either.
 * STARTING .. STOPPING: run->worker is the one attempt that is not ended; its
 * process may be about to come, alive, or gone with records to be read.
 * PAUSED: the worker holds everything in memory.
 * DONE, FAILED, CANCELLED: no worker, reason and ended_ms set, final. */
#include "jobs/job.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"

static const char *const state_names[] = { LH_JOB_STATE_NAMES };
_Static_assert(sizeof(state_names) / sizeof(*state_names) == LH_JOB_STATES, "a name a state");

static const char *const wanted_names[] = { "run", "pause", "cancel" };
_Static_assert(sizeof(wanted_names) / sizeof(*wanted_names) == LH_WANTS, "a name a wish");

#define TO(state) (1u << LH_JOB_##state)
static const unsigned allowed[LH_JOB_STATES] = {
	[LH_JOB_QUEUED] = TO(STARTING) | TO(CANCELLED),
	[LH_JOB_STARTING] = TO(RUNNING) | TO(PAUSED) | TO(STOPPING) | TO(RESTARTING),
	[LH_JOB_RUNNING] = TO(PAUSED) | TO(SWITCHING) | TO(STOPPING) | TO(RESTARTING),
	[LH_JOB_PAUSED] = TO(RUNNING) | TO(SWITCHING) | TO(STOPPING) | TO(RESTARTING),
	[LH_JOB_SWITCHING] = TO(RUNNING) | TO(PAUSED) | TO(STOPPING) | TO(RESTARTING),
	[LH_JOB_STOPPING] = TO(DONE) | TO(FAILED) | TO(CANCELLED) | TO(QUEUED) |
			    TO(RESTARTING),
	[LH_JOB_RESTARTING] = TO(STARTING) | TO(FAILED) | TO(CANCELLED) | TO(QUEUED),
};

bool lh_job_may(enum lh_job_state from, enum lh_job_state to)
{
	LH_ASSERT(from >= 0 && from < LH_JOB_STATES && to >= 0 && to < LH_JOB_STATES);
	return allowed[from] & (1u << to);
}

bool lh_job_has_ended(enum lh_job_state s)
{
	return s >= LH_JOB_DONE;
}

bool lh_job_has_worker(enum lh_job_state s)
{
	return s >= LH_JOB_STARTING && s <= LH_JOB_STOPPING;
}

bool lh_job_is_live(enum lh_job_state s)
{
	return s >= LH_JOB_STARTING && s <= LH_JOB_RESTARTING;
}

const char *lh_job_state_name(enum lh_job_state s)
{
	LH_ASSERT(s >= 0 && s < LH_JOB_STATES);
	return state_names[s];
}

const char *lh_job_wanted_name(enum lh_job_wanted w)
{
	LH_ASSERT(w >= 0 && w < LH_WANTS);
	return wanted_names[w];
}

static int index_of(const char *const *names, int count, const char *name)
{
	for (int i = 0; name && i < count; i++)
		if (!strcmp(names[i], name))
			return i;
	return -1;
}

int lh_job_state_of(const char *name)
{
	return index_of(state_names, LH_JOB_STATES, name);
}

int lh_job_wanted_of(const char *name)
{
	return index_of(wanted_names, LH_WANTS, name);
}

struct lh_job_run *lh_job_run_new(struct lh_journal *journal, int64_t id,
				  struct lh_job *spec, json_t *spec_json)
{
	struct lh_job_run *run = lh_calloc(1, sizeof(*run));

	run->id = id;
	run->journal = journal;
	run->spec = *spec;
	memset(spec, 0, sizeof(*spec));
	run->spec_json = json_incref(spec_json);
	run->tokens = json_object();
	run->loss = run->tokens_per_s = NAN;
	lh_settings_of_job(&run->settings, &run->spec);
	for (int i = 0; i < LH_PHASES_MAX; i++)
		run->first_step[i] = -1;
	return run;
}

void lh_job_run_free(struct lh_job_run *run)
{
	if (!run)
		return;
	lh_job_release(&run->spec);
	json_decref(run->spec_json);
	json_decref(run->tokens);
	free(run);
}

void lh_job_add_token(struct lh_job_run *run, int64_t attempt, const char *token)
{
	char key[24];

	snprintf(key, sizeof(key), "%" PRId64, attempt);
	json_object_set_new(run->tokens, key, json_string(token));
}

const char *lh_job_token(const struct lh_job_run *run, int64_t attempt)
{
	char key[24];

	snprintf(key, sizeof(key), "%" PRId64, attempt);
	return json_string_value(json_object_get(run->tokens, key));
}

static struct lh_bind time_or_null(int64_t ms)
{
	return ms ? LH_INT(ms) : LH_NULL;
}

void lh_job_store(struct lh_job_run *run, struct lh_batch *batch)
{
	lh_batch_add(batch, LH_STMT_JOB_STATE,
		     (struct lh_bind[]){ LH_INT(run->id),
					 LH_TEXT(lh_job_state_name(run->state)),
					 LH_TEXT(lh_job_wanted_name(run->wanted)),
					 LH_TEXT(run->reason), LH_INT(run->phase),
					 LH_INT(run->step), LH_INT(run->attempt),
					 LH_INT(run->restarts),
					 time_or_null(run->started_ms),
					 time_or_null(run->ended_ms),
					 LH_INT(run->lost_step) },
		     11);
}

/* What is true of every state, just after it was entered. */
static void assert_state(const struct lh_job_run *run)
{
	LH_ASSERT(lh_job_has_worker(run->state) == (run->worker != NULL));
	LH_ASSERT(lh_job_has_ended(run->state) == (run->ended_ms != 0));
	LH_ASSERT(!lh_job_has_ended(run->state) || *run->reason);
	LH_ASSERT(!lh_job_is_live(run->state) || (run->attempt && run->started_ms));
}

static void set_reason(struct lh_job_run *run, const char *fmt, va_list ap)
{
	char why[sizeof(run->reason)];

	vsnprintf(why, sizeof(why), fmt, ap);
	lh_escape(run->reason, sizeof(run->reason), why);
}

void lh_job_set_reason(struct lh_job_run *run, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	set_reason(run, fmt, ap);
	va_end(ap);
}

void lh_job_set_state(struct lh_job_run *run, struct lh_batch *batch,
		      enum lh_job_state to, const char *fmt, ...)
{
	struct lh_batch *b = batch ? batch : lh_batch_new(run->journal);
	const char *from = lh_job_state_name(run->state), *name = lh_job_state_name(to);
	va_list ap;

	if (!lh_job_may(run->state, to))
		LH_BUG("job %" PRId64 ": no transition %s -> %s", run->id, from, name);
	va_start(ap, fmt);
	set_reason(run, fmt, ap);
	va_end(ap);
	lh_info("job %" PRId64 ": %s -> %s (%s)", run->id, from, name, run->reason);
	LH_FAILPOINT("job.state");
	run->state = to;
	if (to == LH_JOB_STARTING && !run->started_ms)
		run->started_ms = lh_time_ms();
	if (lh_job_has_ended(to))
		run->ended_ms = lh_time_ms();
	assert_state(run);
	lh_job_store(run, b);
	lh_batch_event_take(b, run->id, run->attempt, run->step, "job.state",
			    json_pack("{s:s, s:s, s:s}", "from", from, "to", name,
				      "reason", run->reason),
			    "%s -> %s (%s)", from, name, run->reason);
	if (!batch)
		lh_batch_commit(b, false, NULL, NULL);
}

void lh_job_forget_phases(struct lh_job_run *run, int phase, int64_t step)
{
	for (int i = 0; i < run->spec.phase_count; i++)
		if (i != phase && run->first_step[i] >= step)
			run->first_step[i] = -1;
}

int64_t lh_job_total_steps(const struct lh_job_run *run)
{
	int64_t total = run->first_step[run->phase] > 0 ? run->first_step[run->phase] : 0;

	for (int i = run->phase; i < run->spec.phase_count; i++) {
		int64_t steps = lh_settings_phase_steps(&run->settings, &run->spec, i);

		if (steps < 0)
			return -1;
		total += steps;
	}
	/* Held in its phase beyond that phase's end (train/rewind.c). */
	return total < run->step ? -1 : total;
}

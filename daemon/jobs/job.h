/* job.h: one job's life: its row of the store, its state machine, its progress.
 *
 * job.c opens with the diagram. Three things are kept apart: `state`, where the
 * job is; `wanted`, what people asked of it; `reason`, why it is in this state.
 * Loop thread only; the manager (jobs.h) owns the structs.
 */
#ifndef LIGHTHOUSE_JOB_RUN_H
#define LIGHTHOUSE_JOB_RUN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "jobs/journal.h"
#include "lighthouse/job.h"
#include "train/settings.h"

enum lh_job_state {
	LH_JOB_QUEUED,
	LH_JOB_STARTING,
	LH_JOB_RUNNING,
	LH_JOB_PAUSED,
	LH_JOB_SWITCHING,
	LH_JOB_STOPPING,
	LH_JOB_RESTARTING,
	LH_JOB_DONE,
	LH_JOB_FAILED,
	LH_JOB_CANCELLED,
	LH_JOB_STATES
};

enum lh_job_wanted { LH_WANT_RUN, LH_WANT_PAUSE, LH_WANT_CANCEL, LH_WANTS };

struct lh_worker;
struct lh_command;

struct lh_job_run {
	/* set at creation */
	int64_t id;
	struct lh_job spec;
	json_t *spec_json;
	int priority;
	int64_t submitted_ms;
	struct lh_journal *journal;  /* borrowed */
	struct lh_jobs *jobs;        /* borrowed; NULL in tests of the machine */

	/* the row */
	enum lh_job_state state;     /* lh_job_set_state alone writes it */
	enum lh_job_wanted wanted;
	char reason[512];
	int phase;
	int64_t step;
	int64_t attempt;             /* newest, 0 = none yet */
	int restarts;                /* workers lost and not forgiven (loss.c) */
	int64_t lost_step;           /* furthest step at which one of them was */
	int64_t started_ms, ended_ms; /* 0 = not yet */
	int64_t not_before_ms;       /* waits for that time; 0 = no, or it has come */
	int64_t after_job;           /* waits for that job's end; likewise */

	/* progress, in memory */
	double loss, tokens_per_s;   /* NaN = not known */
	double pace_ms;              /* of a step, smoothed; 0 = not known */
	int64_t first_step[LH_PHASES_MAX]; /* steps done when entered, -1 not yet */
	struct lh_settings settings; /* as the worker last told them */

	json_t *tokens;              /* of all attempts: {"1": token, ...} */
	int64_t taken_attempt;       /* highest number a foreign worker has, or 0 */

	/* the manager's */
	struct lh_worker *worker;    /* of the attempt that lives, or NULL */
	struct lh_command *commands; /* accepted, no outcome yet, oldest first */
	int64_t restart_at_ms;       /* RESTARTING: on the loop's clock */
};

/* Takes the contents of `spec`. QUEUED, nothing stored. */
struct lh_job_run *lh_job_run_new(struct lh_journal *journal, int64_t id,
				  struct lh_job *spec, json_t *spec_json);
void lh_job_run_free(struct lh_job_run *run);

/* The one setter: checks the table (LH_BUG on a transition that is not in it),
 * logs, adds row and event to `batch` (NULL: commits them by itself). */
void lh_job_set_state(struct lh_job_run *run, struct lh_batch *batch,
		      enum lh_job_state to, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Another reason for the state that it is in. Nothing is stored. */
void lh_job_set_reason(struct lh_job_run *run, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Row without a change of state: step, phase, wanted. */
void lh_job_store(struct lh_job_run *run, struct lh_batch *batch);

/* The token of an attempt; NULL: this lhd never started it. */
void lh_job_add_token(struct lh_job_run *run, int64_t attempt, const char *token);
const char *lh_job_token(const struct lh_job_run *run, int64_t attempt);

bool lh_job_may(enum lh_job_state from, enum lh_job_state to);
bool lh_job_has_ended(enum lh_job_state state);   /* DONE, FAILED, CANCELLED */
bool lh_job_has_worker(enum lh_job_state state);  /* STARTING .. STOPPING */
/* Holds a slot: has a worker or is between two. */
bool lh_job_is_live(enum lh_job_state state);

const char *lh_job_state_name(enum lh_job_state state);
const char *lh_job_wanted_name(enum lh_job_wanted wanted);
/* The inverse; -1 for a word that is none. */
int lh_job_state_of(const char *name);
int lh_job_wanted_of(const char *name);

/* Training went back to `step` in `phase`: those entered since then were not. */
void lh_job_forget_phases(struct lh_job_run *run, int phase, int64_t step);

/* Steps planned over all phases, given where phases were entered; -1: open,
 * or passed already. */
int64_t lh_job_total_steps(const struct lh_job_run *run);

#endif

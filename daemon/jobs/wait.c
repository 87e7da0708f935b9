/* wait.c: what a job in the queue waits for: a time, the end of another job.
 *
 * Both are in its row until they have come, so nothing is missed that happened while
 * no lhd ran: the first look finds it. A job whose forerunner did not end well is held
 * as by a pause, and its reason says so; a resume starts it all the same, and so does one
 * of a job that still waits. */
#include "jobs/jobs_int.h"

#include <inttypes.h>

#include "base/fs.h"

enum { LOOK_MS = 60000 }; /* the clock may be set meanwhile */

bool lh_wait_is_over(const struct lh_job_run *run)
{
	return !run->not_before_ms && !run->after_job;
}

static void store(const struct lh_job_run *run, struct lh_batch *b)
{
	lh_batch_add(b, LH_STMT_JOB_WAIT,
		     (struct lh_bind[]){ LH_INT(run->id),
					 run->not_before_ms ? LH_INT(run->not_before_ms) :
							      LH_NULL,
					 run->after_job ? LH_INT(run->after_job) : LH_NULL },
		     3);
}

/* The row, and an event of `kind` with the reason that the job has now. */
static void tell(struct lh_job_run *run, struct lh_batch *b, const char *kind)
{
	store(run, b);
	lh_job_store(run, b);
	lh_batch_event_take(b, run->id, run->attempt, run->step, kind, NULL, "%s",
			    run->reason);
	lh_batch_commit(b, false, NULL, NULL);
}

static void look_at_clock(struct lh_job_run *run)
{
	if (!run->not_before_ms || lh_time_ms() < run->not_before_ms)
		return;
	run->not_before_ms = 0;
	lh_job_set_reason(run, "its time has come");
	tell(run, lh_batch_new(run->journal), "job.due");
}

static void hold(struct lh_job_run *run, const struct lh_job_run *other)
{
	run->wanted = LH_WANT_PAUSE;
	lh_job_set_reason(run, "held: job %" PRId64 " '%s', which it was to come after, ended "
			  "as %s (hint: 'lhctl resume %" PRId64 "' starts it all the same, "
			  "'lhctl cancel %" PRId64 "' gives it up)", other->id,
			  other->spec.name, lh_job_state_name(other->state), run->id, run->id);
	tell(run, lh_batch_new(run->journal), "job.held");
}

static void look_at_forerunner(struct lh_job_run *run)
{
	const struct lh_job_run *other = lh_jobs_find(run->jobs, run->after_job);

	if (!other || !lh_job_has_ended(other->state))
		return;
	run->after_job = 0;
	if (other->state != LH_JOB_DONE) {
		hold(run, other);
		return;
	}
	lh_job_set_reason(run, "job %" PRId64 " '%s' is done", other->id, other->spec.name);
	tell(run, lh_batch_new(run->journal), "job.due");
}

int64_t lh_wait_look(struct lh_jobs *jobs)
{
	int64_t next_ms = -1, now_ms = lh_time_ms(), left_ms;

	for (int i = 0; i < jobs->count; i++) {
		struct lh_job_run *run = jobs->run[i];

		if (run->state != LH_JOB_QUEUED || lh_wait_is_over(run))
			continue;
		look_at_clock(run);
		look_at_forerunner(run);
		left_ms = run->not_before_ms - now_ms;
		if (run->not_before_ms && (next_ms < 0 || left_ms < next_ms))
			next_ms = left_ms;
	}
	return next_ms < LOOK_MS ? next_ms : LOOK_MS;
}

bool lh_wait_end(struct lh_job_run *run, struct lh_batch *b)
{
	if (lh_wait_is_over(run))
		return false;
	run->not_before_ms = run->after_job = 0;
	lh_job_set_reason(run, "resumed before what it waited for");
	store(run, b);
	return true;
}

int lh_wait_check(struct lh_jobs *jobs, int64_t after_job, struct lh_err *err)
{
	const struct lh_job_run *other = lh_jobs_find(jobs, after_job);

	if (!after_job)
		return 0;
	if (!other) {
		lh_err_set(err, LH_ENOTFOUND, "there is no job %" PRId64 " to come after",
			   after_job);
		return lh_err_hint(err, "job.list names all");
	}
	if (!lh_job_has_ended(other->state) || other->state == LH_JOB_DONE)
		return 0;
	lh_err_set(err, LH_ESTATE, "job %" PRId64 " '%s' ended as %s: what comes after it "
		   "would never start", other->id, other->spec.name,
		   lh_job_state_name(other->state));
	return lh_err_hint(err, "name another job to come after, or none");
}

void lh_wait_describe(struct lh_jobs *jobs, const struct lh_submission *how, char *text,
		      size_t text_bytes)
{
	const struct lh_job_run *other = lh_jobs_find(jobs, how->after_job);

	if (other)
		snprintf(text, text_bytes, "waits for job %" PRId64 " '%s' to be done%s",
			 other->id, other->spec.name,
			 how->not_before_ms ? ", and for its time" : "");
	else
		snprintf(text, text_bytes, "%s",
			 how->not_before_ms ? "waits for its time" : "submitted");
}

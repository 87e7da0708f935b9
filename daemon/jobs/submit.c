/* submit.c: a new job: its directory and files, its rows, its place in the queue.
 *
 * The files are there before the rows are, so a job that exists can always be
 * started; files of a submit that never got its rows are written over by the next
 * job of that number. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "jobs/jobfile.h"
#include "jobs/rule.h"
#include "join/joinfile.h"
#include "lighthouse/proto.h"

json_t *lh_submit_result(struct lh_job_run *run, int64_t command)
{
	return json_pack("{s:I, s:s, s:s, s:I, s:O, s:I}", "job", (json_int_t)run->id,
			 "name", run->spec.name, "state", "QUEUED", "command",
			 (json_int_t)command, "spec", run->spec_json, "params",
			 (json_int_t)lh_job_model_params(&run->spec.model));
}

/* ---- files, on the pool ---------------------------------------------------- */

static int write_file(const char *dir, const char *name, const char *text,
		      struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", dir, name);
	int rc = lh_fs_write_atomic(path, text, strlen(text), err);

	free(path);
	return rc;
}

static int write_join(const char *dir, struct lh_request *r)
{
	char *path = lh_asprintf("%s/" LH_JOB_JOIN, dir);
	int rc = lh_joinfile_write(path, r->job, r->spec, &r->err);

	free(path);
	return rc;
}

static void write_files(void *arg)
{
	struct lh_request *r = arg;
	char *dir = lh_jobs_path(r->jobs, r->job, "");
	char *spec = json_dumps(r->spec_json, JSON_INDENT(1));
	int rc = lh_fs_mkdirs(dir, &r->err);

	if (!rc)
		rc = write_file(dir, LH_JOB_SPEC, spec, &r->err);
	if (!rc)
		rc = write_file(dir, LH_JOB_FILE, r->yaml, &r->err);
	if (!rc && *r->spec->join)
		rc = write_join(dir, r);
	r->err.code = rc;
	free(spec);
	free(dir);
}

/* ---- rows ------------------------------------------------------------------ */

/* Why it is in the queue. */
static void describe(const struct lh_request *r, char *text, size_t text_bytes)
{
	if (r->past)
		lh_replay_describe(r, text, text_bytes);
	else
		lh_wait_describe(r->jobs, &r->how, text, text_bytes);
}

static void on_stored(void *arg, int rc, const struct lh_err *err)
{
	struct lh_request *r = arg;
	struct lh_jobs *jobs = r->jobs;
	struct lh_job_run *run;

	LH_FAILPOINT("submit.stored");
	if (rc) {
		lh_request_answer_take(r, NULL, err);
		return;
	}
	run = lh_job_run_new(jobs->journal, r->job, r->spec, r->spec_json);
	run->priority = r->how.priority;
	run->not_before_ms = r->how.not_before_ms;
	run->after_job = r->how.after_job;
	run->submitted_ms = r->accepted_ms;
	describe(r, run->reason, sizeof(run->reason));
	lh_jobs_add(jobs, run);
	lh_replay_begin(r, run);
	lh_rules_submitted(r);
	lh_request_answer_take(r, lh_submit_result(run, r->command), NULL);
	lh_queue_run(jobs);
}

static struct lh_bind int_or_null(int64_t value)
{
	return value ? LH_INT(value) : LH_NULL;
}

static void add_rows(struct lh_request *r, struct lh_batch *b)
{
	char *spec = json_dumps(r->spec_json, JSON_COMPACT), reason[160];
	const struct lh_submission *how = &r->how;
	bool special = how->not_before_ms || how->after_job || r->past;

	describe(r, reason, sizeof(reason));
	lh_batch_add(b, LH_STMT_JOB_INSERT,
		     (struct lh_bind[]){ LH_INT(r->job), LH_TEXT(r->spec->name),
					 LH_TEXT(spec), LH_TEXT(r->yaml),
					 LH_INT(how->priority), LH_TEXT("QUEUED"),
					 LH_TEXT(reason), LH_INT(r->accepted_ms),
					 int_or_null(how->not_before_ms),
					 int_or_null(how->after_job) },
		     10);
	free(spec);
	for (int i = 0; i < r->spec->phase_count; i++) {
		const struct lh_job_phase *p = &r->spec->phases[i];

		lh_batch_add(b, LH_STMT_PHASE_INSERT,
			     (struct lh_bind[]){
				     LH_INT(r->job), LH_INT(i), LH_TEXT(p->name),
				     LH_TEXT(p->attention == LH_ATTENTION_FULL ?
						     "full" : "lighthouse") },
			     4);
	}
	lh_rules_submit(r, b);
	lh_request_journal_done(r, b, "applied", 0, "queued");
	lh_batch_event_take(b, r->job, 0, -1, "job.submitted",
			    json_pack("{s:s, s:i, s:I}", "name", r->spec->name, "priority",
				      how->priority, "command", (json_int_t)r->command),
			    "job '%s' was queued%s%s", r->spec->name,
			    special ? ": " : "", special ? reason : "");
	lh_replay_add(r, b);
}

static void files_written(void *arg)
{
	struct lh_request *r = arg;
	struct lh_batch *b;

	LH_FAILPOINT("submit.written");
	if (r->jobs->closing)
		return;
	if (r->err.code) {
		lh_request_answer_take(r, NULL, &r->err);
		return;
	}
	b = lh_batch_new(r->jobs->journal);
	r->accepted_ms = lh_time_ms();
	add_rows(r, b);
	lh_batch_may_fail(b);
	lh_batch_commit(b, true, on_stored, r);
}

void lh_submit_go(struct lh_request *r)
{
	struct lh_err err = LH_ERR_INIT;

	if (lh_wait_check(r->jobs, r->how.after_job, &err)) {
		lh_request_answer_take(r, NULL, &err);
		return;
	}
	r->job = ++r->jobs->last_job;
	lh_jobs_task(r->jobs, write_files, files_written, r);
}

/* ---- the call -------------------------------------------------------------- */

static json_t *integer_or_none(int64_t value)
{
	return value ? json_integer(value) : NULL;
}

/* Tells whether a retry means the same job. */
static json_t *digest_args(const struct lh_request *r)
{
	char *spec = json_dumps(r->spec_json, JSON_COMPACT | JSON_SORT_KEYS), hex[33];
	XXH64_hash_t a = XXH64(spec, strlen(spec), 0), b = XXH64(r->yaml, strlen(r->yaml), 0);

	free(spec);
	snprintf(hex, sizeof(hex), "%016" PRIx64 "%016" PRIx64, (uint64_t)a, (uint64_t)b);
	return json_pack("{s:s, s:i, s:o*, s:o*, s:s}", "name", r->spec->name, "priority",
			 r->how.priority, "not_before_ms",
			 integer_or_none(r->how.not_before_ms), "after",
			 integer_or_none(r->how.after_job), "digest", hex);
}

static int count_queued(const struct lh_jobs *jobs)
{
	int n = 0;

	for (int i = 0; i < jobs->count; i++)
		n += jobs->run[i]->state == LH_JOB_QUEUED;
	return n;
}

int lh_submit_check(const struct lh_jobs *jobs, struct lh_err *err)
{
	if (jobs->draining) {
		lh_err_set(err, LH_ESTATE, "lhd is stopping and takes no new job");
		return lh_err_hint(err, "submit it again once lhd was started again");
	}
	if (count_queued(jobs) < LH_QUEUED_MAX)
		return 0;
	lh_err_set(err, LH_ETOOBIG, "%d jobs wait already", LH_QUEUED_MAX);
	return lh_err_hint(err, "cancel some, or submit it when some have ended");
}

void lh_jobs_submit_take(struct lh_jobs *jobs, struct lh_job *job, const char *yaml,
			 const struct lh_submission *how, const struct lh_caller *who,
			 lh_jobs_reply reply, void *arg)
{
	struct lh_request *r = lh_request_new(jobs, "job.submit", 0, who, reply, arg);
	struct lh_err err = LH_ERR_INIT;

	r->spec = lh_alloc(sizeof(*r->spec));
	*r->spec = *job;
	memset(job, 0, sizeof(*job));
	r->spec_json = lh_jobfile_to_json(r->spec);
	r->yaml = lh_strdup(yaml);
	r->how = *how;
	r->args = digest_args(r);
	r->go = lh_submit_go;
	if (lh_submit_check(jobs, &err))
		lh_request_answer_take(r, NULL, &err);
	else
		lh_request_begin(r);
}

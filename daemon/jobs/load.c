/* load.c: what the last lhd knew, out of the store. Blocking, at start.
 *
 * A job whose state has a worker comes back with a struct lh_worker that is
 * marked adopted; whether its process lives is found out afterwards. */
#include "jobs/jobs_int.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "jobs/jobfile.h"
#include "lighthouse/proto.h"

struct loaded {
	json_t *jobs, *attempts, *tokens, *commands, *events, *last;
};

static int64_t integer(const json_t *row, const char *key)
{
	return json_integer_value(json_object_get(row, key));
}

static const char *text(const json_t *row, const char *key)
{
	const char *s = json_string_value(json_object_get(row, key));

	return s ? s : "";
}

static double number(const json_t *row, const char *key)
{
	const json_t *v = json_object_get(row, key);

	return json_is_number(v) ? json_number_value(v) : NAN;
}

static int query(sqlite3 *db, const char *sql, json_t **rows, struct lh_err *err)
{
	bool more;

	*rows = lh_store_rows(db, sql, NULL, 0, INT64_MAX, &more, err);
	return *rows ? 0 : LH_ESTORE;
}

static int load_rows(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct loaded *l = arg;
	int rc = query(db,
		       "SELECT id, name, spec_json, priority, state, wanted, reason, phase, "
		       "step, attempt, restarts, lost_step, submitted_ms, started_ms, "
		       "ended_ms, not_before_ms, after_job, "
		       "(SELECT json_array(loss, tokens_per_s, step_ms) FROM steps s "
		       " WHERE s.job = jobs.id AND s.attempt = jobs.attempt "
		       " ORDER BY s.step DESC LIMIT 1) AS newest_json, "
		       "(SELECT ended_ms FROM attempts a WHERE a.job = jobs.id AND "
		       " a.attempt = jobs.attempt AND a.outcome = 'lost') AS lost_ms "
		       "FROM jobs ORDER BY id", &l->jobs, err);

	if (!rc)
		rc = query(db, "SELECT a.*, EXISTS (SELECT 1 FROM steps s WHERE s.job = a.job "
			   "AND s.attempt = a.attempt) AS stepped FROM attempts a "
			   "WHERE ended_ms IS NULL", &l->attempts, err);
	if (!rc)
		rc = query(db, "SELECT job, attempt, token FROM attempts", &l->tokens, err);
	if (!rc)
		rc = query(db, "SELECT id, job, method, args_json FROM commands "
			   "WHERE outcome IS NULL ORDER BY id", &l->commands, err);
	if (!rc)
		rc = query(db, "SELECT job, kind, step, data_json FROM events "
			   "WHERE kind IN ('job.phase', 'job.rewind', 'switch.reverted', "
			   "'job.settings') "
			   "ORDER BY id",
			   &l->events, err);
	if (!rc)
		rc = query(db, "SELECT (SELECT coalesce(max(id), 0) FROM events) AS event, "
			   "(SELECT coalesce(max(id), 0) FROM commands) AS command",
			   &l->last, err);
	return rc;
}

/* What is left of the pause after a loss: all of it at most, whatever was done to
 * the clock meanwhile. */
static int64_t restart_at_ms(const struct lh_job_run *run, int64_t now_ms, int64_t lost_ms)
{
	int64_t pause_ms = lh_loss_pause_ms(run), past_ms = lh_time_ms() - lost_ms;

	if (run->state != LH_JOB_RESTARTING || !lost_ms || past_ms >= pause_ms)
		return 0;
	return now_ms + (past_ms > 0 ? pause_ms - past_ms : pause_ms);
}

static int load_job(struct lh_jobs *jobs, const json_t *row, struct lh_err *err)
{
	json_t *spec_json = json_object_get(row, "spec");
	const json_t *newest = json_object_get(row, "newest");
	struct lh_job spec = { 0 };
	struct lh_job_run *run;
	int state = lh_job_state_of(text(row, "state"));
	int wanted = lh_job_wanted_of(text(row, "wanted"));

	if (state < 0 || wanted < 0)
		return lh_err_set(err, LH_ESTORE, "job %" PRId64 " has state '%s', wanted '%s'",
				  integer(row, "id"), text(row, "state"),
				  text(row, "wanted"));
	if (lh_jobfile_from_json(&spec, spec_json, err))
		return lh_err_prefix(err, "job %" PRId64, integer(row, "id"));
	run = lh_job_run_new(NULL, integer(row, "id"), &spec, spec_json);
	run->state = (enum lh_job_state)state;
	run->wanted = (enum lh_job_wanted)wanted;
	snprintf(run->reason, sizeof(run->reason), "%s", text(row, "reason"));
	run->priority = (int)integer(row, "priority");
	run->phase = (int)integer(row, "phase");
	run->step = integer(row, "step");
	run->attempt = integer(row, "attempt");
	run->restarts = (int)integer(row, "restarts");
	run->lost_step = integer(row, "lost_step");
	run->restart_at_ms = restart_at_ms(run, (int64_t)uv_now(jobs->loop),
					   integer(row, "lost_ms"));
	run->submitted_ms = integer(row, "submitted_ms");
	run->started_ms = integer(row, "started_ms");
	run->ended_ms = integer(row, "ended_ms");
	run->not_before_ms = integer(row, "not_before_ms");
	run->after_job = integer(row, "after_job");
	if (run->phase < 0 || run->phase >= run->spec.phase_count)
		run->phase = 0;
	if (json_is_array(newest)) {
		const json_t *ms = json_array_get(newest, 2);

		run->loss = json_is_number(json_array_get(newest, 0)) ?
				    json_number_value(json_array_get(newest, 0)) : NAN;
		run->tokens_per_s = json_number_value(json_array_get(newest, 1));
		run->pace_ms = json_number_value(ms);
	}
	lh_jobs_add(jobs, run);
	return 0;
}

static void load_attempt(struct lh_jobs *jobs, const json_t *row)
{
	struct lh_job_run *run = lh_jobs_find(jobs, integer(row, "job"));
	struct lh_worker *w;

	if (!run || run->attempt != integer(row, "attempt") ||
	    !lh_job_has_worker(run->state))
		return;
	w = lh_worker_new(run, run->attempt, text(row, "token"));
	w->adopted = true;
	w->pid = (int)integer(row, "pid");
	w->start_time = (uint64_t)integer(row, "start_time");
	w->stepped = integer(row, "stepped");
	w->first_step = isnan(number(row, "first_step")) ? -1 : integer(row, "first_step");
	w->received_seq = w->stored_seq = integer(row, "last_seq");
	snprintf(w->outcome, sizeof(w->outcome), "%s", text(row, "outcome"));
	/* The reason of STOPPING is what the end record said. */
	if (*w->outcome)
		snprintf(w->end_text, sizeof(w->end_text), "%.399s", run->reason);
}

static void load_token(struct lh_jobs *jobs, const json_t *row)
{
	struct lh_job_run *run = lh_jobs_find(jobs, integer(row, "job"));

	if (run)
		lh_job_add_token(run, integer(row, "attempt"), text(row, "token"));
}

static void load_command(struct lh_jobs *jobs, const json_t *row)
{
	struct lh_job_run *run = lh_jobs_find(jobs, integer(row, "job"));
	const char *verb = text(row, "method") + strlen("job.");

	if (!run)
		return;
	lh_command_add(run, integer(row, "id"), verb,
		       lh_command_worker_args(json_object_get(row, "args")));
	if (run->worker && !strcmp(verb, "stop"))
		run->worker->stop_asked = true;
}

/* Events of which the newest counts. */
static void load_event(struct lh_jobs *jobs, const json_t *row)
{
	struct lh_job_run *run = lh_jobs_find(jobs, integer(row, "job"));
	const json_t *data = json_object_get(row, "data");
	bool reverted = !strcmp(text(row, "kind"), "switch.reverted");
	int64_t phase = integer(data, reverted ? "from_phase" : "phase");

	if (run && !strcmp(text(row, "kind"), "job.settings"))
		lh_set_load(run, json_object_get(data, "settings"));
	else if (!run || phase < 0 || phase >= run->spec.phase_count)
		return;
	else if (reverted)
		lh_job_forget_phases(run, (int)phase, integer(data, "from_step"));
	else if (!strcmp(text(row, "kind"), "job.rewind"))
		lh_job_forget_phases(run, (int)phase, integer(row, "step"));
	else
		run->first_step[phase] = integer(row, "step");
}

/* A state with a worker and no attempt that lives would be a lost row. */
static int check(const struct lh_jobs *jobs, struct lh_err *err)
{
	for (int i = 0; i < jobs->count; i++)
		if (lh_job_has_worker(jobs->run[i]->state) && !jobs->run[i]->worker)
			return lh_err_set(err, LH_ESTORE,
					  "job %" PRId64 " is %s and has no open attempt",
					  jobs->run[i]->id,
					  lh_job_state_name(jobs->run[i]->state));
	return 0;
}

/* The highest number a job's directory has: where the database was restored from
 * a backup, another job's files may lie under the next number. */
static int64_t highest_directory(struct lh_jobs *jobs)
{
	char *path = lh_asprintf("%s/%s", jobs->state_dir, LH_STATE_JOBS), *end;
	DIR *dir = opendir(path);
	struct dirent *e;
	int64_t highest = 0;

	free(path);
	while (dir && (e = readdir(dir))) {
		long long id = strtoll(e->d_name, &end, 10);

		if (!*end && id > highest)
			highest = id;
	}
	if (dir)
		closedir(dir);
	return highest;
}

int lh_jobs_load(struct lh_jobs *jobs, int64_t *last_event, struct lh_err *err)
{
	struct loaded l = { 0 };
	const json_t *row;
	size_t i;
	int rc = lh_store_read_now(jobs->store, load_rows, &l, err);

	if (!rc)
		json_array_foreach (l.jobs, i, row)
			if (!rc)
				rc = load_job(jobs, row, err);
	if (rc)
		goto done;
	json_array_foreach (l.attempts, i, row)
		load_attempt(jobs, row);
	json_array_foreach (l.tokens, i, row)
		load_token(jobs, row);
	json_array_foreach (l.commands, i, row)
		load_command(jobs, row);
	json_array_foreach (l.events, i, row)
		load_event(jobs, row);
	row = json_array_get(l.last, 0);
	*last_event = integer(row, "event");
	jobs->last_command = integer(row, "command");
	jobs->last_job = highest_directory(jobs);
	if (jobs->count && jobs->run[jobs->count - 1]->id > jobs->last_job)
		jobs->last_job = jobs->run[jobs->count - 1]->id;
	rc = check(jobs, err);
done:
	json_decref(l.jobs);
	json_decref(l.attempts);
	json_decref(l.tokens);
	json_decref(l.commands);
	json_decref(l.events);
	json_decref(l.last);
	return rc;
}

/* view.c: what is asked about jobs, answered from memory. */
#include "jobs/jobs_int.h"

#include <math.h>
#include <string.h>


static json_t *integer_or_null(int64_t v, bool known)
{
	return known ? json_integer(v) : json_null();
}

static json_t *real_or_null(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static double eta_s(const struct lh_job_run *run, int64_t total)
{
	if (total < 0 || run->pace_ms <= 0 || !lh_job_is_live(run->state))
		return NAN;
	return total > run->step ? (double)(total - run->step) * run->pace_ms / 1000 : 0;
}

static json_t *summary(const struct lh_job_run *run)
{
	int64_t total = lh_job_total_steps(run);
	json_t *s = json_pack("{s:I, s:s, s:s, s:s, s:i, s:i, s:s, s:I, s:I, s:i, s:I}", "job",
			      (json_int_t)run->id, "name", run->spec.name, "state",
			      lh_job_state_name(run->state), "reason", run->reason,
			      "priority", run->priority, "phase", run->phase, "phase_name",
			      run->spec.phases[run->phase].name, "step",
			      (json_int_t)run->step, "attempt", (json_int_t)run->attempt,
			      "restarts", run->restarts, "submitted_ms",
			      (json_int_t)run->submitted_ms);

	LH_ASSERT(s);
	json_object_set_new(s, "total_steps", integer_or_null(total, total >= 0));
	json_object_set_new(s, "loss", real_or_null(run->loss));
	json_object_set_new(s, "tokens_per_s", real_or_null(run->tokens_per_s));
	json_object_set_new(s, "eta_s", real_or_null(eta_s(run, total)));
	json_object_set_new(s, "not_before_ms",
			    integer_or_null(run->not_before_ms, run->not_before_ms));
	json_object_set_new(s, "after", integer_or_null(run->after_job, run->after_job));
	json_object_set_new(s, "started_ms",
			    integer_or_null(run->started_ms, run->started_ms));
	json_object_set_new(s, "ended_ms", integer_or_null(run->ended_ms, run->ended_ms));
	return s;
}

json_t *lh_jobs_get(struct lh_jobs *jobs, int64_t job)
{
	struct lh_job_run *run = lh_jobs_find(jobs, job);

	return run ? summary(run) : NULL;
}

json_t *lh_jobs_list(struct lh_jobs *jobs, const char *state)
{
	json_t *list = json_array();

	for (int i = 0; i < jobs->count; i++)
		if (!state || !strcmp(state, lh_job_state_name(jobs->run[i]->state)))
			json_array_append_new(list, summary(jobs->run[i]));
	return list;
}

json_t *lh_jobs_phases(struct lh_jobs *jobs, int64_t job)
{
	struct lh_job_run *run = lh_jobs_find(jobs, job);
	json_t *list = run ? json_array() : NULL;

	for (int i = 0; run && i < run->spec.phase_count; i++) {
		const struct lh_job_phase *p = &run->spec.phases[i];
		int64_t steps = lh_settings_phase_steps(&run->settings, &run->spec, i);

		json_array_append_new(
			list, json_pack("{s:s, s:s, s:o, s:o}", "name", p->name, "attention",
					p->attention == LH_ATTENTION_FULL ? "full" :
									    "lighthouse",
					"steps", integer_or_null(steps, steps >= 0),
					"first_step",
					integer_or_null(run->first_step[i],
							run->first_step[i] >= 0)));
	}
	return list;
}

json_t *lh_jobs_settings(struct lh_jobs *jobs, int64_t job)
{
	struct lh_job_run *run = lh_jobs_find(jobs, job);

	return run ? lh_settings_changed(&run->settings, &run->spec) : NULL;
}

json_t *lh_jobs_spec(struct lh_jobs *jobs, int64_t job)
{
	struct lh_job_run *run = lh_jobs_find(jobs, job);

	return run ? json_incref(run->spec_json) : NULL;
}

char *lh_jobs_dir(struct lh_jobs *jobs, int64_t job)
{
	return lh_jobs_find(jobs, job) ? lh_jobs_path(jobs, job, "") : NULL;
}

bool lh_jobs_exists(struct lh_jobs *jobs, int64_t job)
{
	return lh_jobs_find(jobs, job) != NULL;
}

int lh_jobs_count(const struct lh_jobs *jobs)
{
	return jobs->count;
}

int lh_jobs_workers(const struct lh_jobs *jobs)
{
	int n = 0;

	for (int i = 0; i < jobs->count; i++)
		n += jobs->run[i]->worker && jobs->run[i]->worker->wire;
	return n;
}

json_t *lh_jobs_processes(const struct lh_jobs *jobs)
{
	json_t *list = json_array();

	for (int i = 0; i < jobs->count; i++) {
		const struct lh_job_run *run = jobs->run[i];

		if (run->worker && run->worker->wire && run->worker->pid)
			json_array_append_new(list, json_pack("{s:I, s:s, s:i}", "job",
							      (json_int_t)run->id, "name",
							      run->spec.name, "pid",
							      run->worker->pid));
	}
	return list;
}

int64_t lh_jobs_last_event(const struct lh_jobs *jobs)
{
	return lh_journal_last_event(jobs->journal);
}

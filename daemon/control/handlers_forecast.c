/* handlers_forecast.c: job.forecast: when a job would end, switched now or as planned.
 *
 * Memory knows how many steps each phase has left; the store, what one takes: the last
 * ones of the phase that runs, what was measured beside training (train/pace.c) of those
 * to come. What is not known makes null of what depends on it. */
#include "base/fs.h"
#include "control/control.h"
#include "control/reading.h"
#include "rpc_table.h"

static const char paces_sql[] =
	"SELECT p.phase, coalesce((SELECT avg(step_ms) FROM (SELECT phase, step_ms FROM steps"
	"  WHERE job = ?1 ORDER BY attempt DESC, step DESC LIMIT 20) s WHERE s.phase = p.phase),"
	" (SELECT step_ms FROM paces q WHERE q.job = ?1 AND q.phase = p.phase"
	"  ORDER BY q.attempt DESC, q.seq DESC LIMIT 1)) / 1000 AS step_s"
	" FROM phases p WHERE p.job = ?1 ORDER BY p.phase";

/* The newest pair of one step, of the first validation set. */
static const char gap_sql[] =
	"SELECT f.step, f.loss AS val_loss, l.loss AS val_loss_lighthouse,"
	" f.loss - l.loss AS gap FROM evaluations l JOIN evaluations f ON f.job = l.job"
	" AND f.attempt = l.attempt AND f.step = l.step AND f.attention = 'full'"
	" AND f.set_no = 0 WHERE l.job = ?1 AND l.set_no = 0 AND l.attention = 'lighthouse'"
	" ORDER BY l.attempt DESC, l.seq DESC, f.seq DESC LIMIT 1";

/* Steps of phase i that are left, null when it is open. */
static json_t *steps_left(const json_t *phase, bool is_now, int64_t step)
{
	const json_t *steps = json_object_get(phase, "steps");
	int64_t first = json_integer_value(json_object_get(phase, "first_step"));
	int64_t left = json_integer_value(steps) - (is_now ? step - first : 0);

	if (!json_is_integer(steps))
		return json_null();
	return json_integer(left > 0 ? left : 0);
}

/* In place of the phases as memory has them: {name, steps_left, step_s, seconds} of the
 * one that runs and those to come. */
static json_t *phases_left(const json_t *phases, const json_t *paces, int64_t now,
			   int64_t step)
{
	json_t *list = json_array();

	for (size_t i = (size_t)now; i < json_array_size(phases); i++) {
		const json_t *phase = json_array_get(phases, i);
		json_t *pace = json_object_get(json_array_get(paces, i), "step_s");
		json_t *left = steps_left(phase, (int64_t)i == now, step), *seconds;

		seconds = json_is_integer(left) && json_is_number(pace) ?
				  json_real((double)json_integer_value(left) *
					    json_number_value(pace)) : json_null();
		json_array_append_new(list, json_pack("{s:O, s:o, s:O?, s:o}", "name",
						      json_object_get(phase, "name"),
						      "steps_left", left, "step_s", pace,
						      "seconds", seconds));
	}
	return list;
}

/* All phases from the given one on. */
static json_t *end_of(const json_t *phases, size_t from)
{
	double seconds = 0;

	for (size_t i = from; i < json_array_size(phases); i++) {
		const json_t *s = json_object_get(json_array_get(phases, i), "seconds");

		if (!json_is_number(s))
			return json_pack("{s:n, s:n}", "seconds", "end_ms");
		seconds += json_number_value(s);
	}
	return json_pack("{s:f, s:I}", "seconds", seconds, "end_ms",
			 (json_int_t)(lh_time_ms() + (int64_t)(seconds * 1000)));
}

static void reckon(json_t *result)
{
	int64_t now = json_integer_value(json_object_get(result, "phase"));
	int64_t step = json_integer_value(json_object_get(result, "step"));
	json_t *phases = phases_left(json_object_get(result, "phases"),
				     json_object_get(result, "paces"), now, step);

	json_object_del(result, "paces");
	json_object_set_new(result, "as_planned", end_of(phases, 0));
	json_object_set_new(result, "switched_now", json_array_size(phases) > 1 ?
							    end_of(phases, 1) : json_null());
	json_object_set_new(result, "phases", phases);
}

void rpc_job_forecast(struct lh_call *call)
{
	struct lh_jobs *jobs = lh_control_of(call)->jobs;
	struct lh_reading *r;
	struct lh_query *q;
	json_t *result, *summary;
	int64_t job;

	if (!lh_control_find_job(call, &job))
		return;
	r = lh_reading_new(call);
	result = lh_reading_result(r);
	summary = lh_jobs_get(jobs, job);
	json_object_set_new(result, "job", json_integer(job));
	json_object_set(result, "step", json_object_get(summary, "step"));
	json_object_set(result, "phase", json_object_get(summary, "phase"));
	json_decref(summary);
	json_object_set_new(result, "phases", lh_jobs_phases(jobs, job));
	q = lh_reading_query(r, "paces", paces_sql, INT64_MAX);
	lh_query_bind(q, LH_INT(job));
	q = lh_reading_query(r, "gap", gap_sql, 1);
	lh_query_bind(q, LH_INT(job));
	lh_query_single(q);
	lh_reading_finish(r, reckon);
	lh_reading_start(r);
}

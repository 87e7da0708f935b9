/* handlers_read.c: methods that look something up, but for the numbers of training
 * (handlers_metrics.c) and logs (handlers_logs.c).
 *
 * job.get and job.list come from memory and cost no disk: they are what programs
 * poll. The others are readings of the store. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "control/control.h"
#include "control/reading.h"
#include "rpc_table.h"
#include "train/manifest.h"

void rpc_job_get(struct lh_call *call)
{
	int64_t job;

	if (lh_control_find_job(call, &job))
		lh_reply_ok(call, lh_jobs_get(lh_control_of(call)->jobs, job));
}

void rpc_job_list(struct lh_call *call)
{
	json_t *jobs = lh_jobs_list(lh_control_of(call)->jobs,
				    lh_call_str(call, "state", NULL));

	lh_reply_ok(call, json_pack("{s:o}", "jobs", jobs));
}

/* ---- job.show, job.checkpoints --------------------------------------------- */

/* Of the logs only that of the attempt that ended last. */
static const char attempts_sql[] =
	"SELECT attempt, pid, first_step, last_step, started_ms, ended_ms,"
	" exit_code, exit_signal, outcome, doing, why, hint,"
	" iif(attempt = (SELECT max(attempt) FROM attempts"
	"  WHERE job = ?1 AND ended_ms IS NOT NULL), log_json, NULL) AS log_json"
	" FROM attempts WHERE job = ?1 ORDER BY attempt";

/* The newest of them, in order. */
static const char evaluations_sql[] =
	"SELECT step, attempt, phase, attention, reason, loss, tokens, duration_ms,"
	" time_ms, set_no, set_name, cost FROM"
	" (SELECT * FROM evaluations WHERE job = ?1"
	"  ORDER BY attempt DESC, seq DESC LIMIT ?2) ORDER BY attempt, seq";

/* The newest of each kind. */
static const char looks_sql[] =
	"SELECT l.kind, l.step, l.attempt, l.phase, l.attention, l.reason, l.duration_ms,"
	" l.cost, l.time_ms, l.data_json"
	" FROM (VALUES ('selection'), ('positions'), ('passkey'), ('choices')) k JOIN looks l"
	" ON l.job = ?1 AND l.kind = k.column1 AND (l.attempt, l.seq) ="
	" (SELECT attempt, seq FROM looks WHERE job = ?1 AND kind = k.column1"
	"  ORDER BY attempt DESC, seq DESC LIMIT 1)";

static const char checkpoints_sql[] =
	"SELECT step, attempt, path, bytes, duration_ms, reason, time_ms FROM"
	" (SELECT * FROM checkpoints WHERE job = ?1"
	"  ORDER BY attempt DESC, seq DESC LIMIT ?2) ORDER BY attempt, seq";

/* A list of a job's rows, the newest of them. */
static void add_list(struct lh_reading *r, const char *key, const char *sql, int64_t job)
{
	struct lh_query *q = lh_reading_query(r, key, sql, LH_READING_MAX_ROWS);

	lh_query_bind(q, LH_INT(job));
	lh_query_bind(q, LH_INT(LH_READING_MAX_ROWS));
}

/* Bare columns beside max() are those of its row. */
static const char instability_sql[] =
	"SELECT cause, count, recent, step, action FROM (SELECT max(id),"
	" json_extract(data_json, '$.cause') AS cause,"
	" json_extract(data_json, '$.count') AS count,"
	" json_extract(data_json, '$.recent') AS recent,"
	" json_extract(data_json, '$.step') AS step,"
	" json_extract(data_json, '$.action') AS action"
	" FROM events WHERE job = ?1 AND kind = 'job.instability' GROUP BY cause)";

/* By kind: a job without one may have any number of other events. */
#define NEWEST_SWITCH_EVENT(kinds, also)                                      \
	" e.id = (SELECT max(id) FROM events INDEXED BY events_by_kind"       \
	" WHERE job = ?1 AND kind IN ('switch.committed', 'switch.reverted'"  \
	kinds ")" also ")"

/* The newest is an entry on trial, and no verdict. */
static const char trial_sql[] =
	"SELECT json_extract(e.data_json, '$.phase') AS phase, e.step AS from_step,"
	" max(j.step - e.step, 0) AS steps,"
	" json_extract(j.spec_json, '$.switch.watch_steps') AS \"of\","
	" nullif(json_extract(j.spec_json, '$.switch.loss_ceiling'), 0.0)"
	"  AS loss_ceiling"
	" FROM jobs j JOIN events e ON"
	NEWEST_SWITCH_EVENT(", 'job.phase'", " AND (kind <> 'job.phase' OR"
			    " json_extract(data_json, '$.trial'))")
	" WHERE j.id = ?1 AND j.ended_ms IS NULL AND e.kind = 'job.phase'";

static const char last_switch_sql[] =
	"SELECT substr(kind, 8) AS verdict,"
	" json_extract(data_json, '$.command') AS command,"
	" json_extract(data_json, '$.phase') AS phase,"
	" json_extract(data_json, '$.from_phase') AS from_phase,"
	" json_extract(data_json, '$.from_step') AS from_step,"
	" json_extract(data_json, '$.why') AS why"
	" FROM events e WHERE" NEWEST_SWITCH_EVENT("", "");

/* A query about the one job, to the object under its key. */
static void add_single(struct lh_reading *r, const char *key, const char *sql, int64_t job)
{
	struct lh_query *q = lh_reading_query(r, key, sql, 1);

	lh_query_single(q);
	lh_query_bind(q, LH_INT(job));
}

void rpc_job_show(struct lh_call *call)
{
	struct lh_jobs *jobs = lh_control_of(call)->jobs;
	struct lh_reading *r;
	struct lh_query *q;
	json_t *result;
	int64_t job;
	char *dir;

	if (!lh_control_find_job(call, &job))
		return;
	r = lh_reading_new(call);
	result = lh_reading_result(r);
	json_object_set_new(result, "summary", lh_jobs_get(jobs, job));
	json_object_set_new(result, "phases", lh_jobs_phases(jobs, job));
	json_object_set_new(result, "settings", lh_jobs_settings(jobs, job));
	json_object_set_new(result, "spec", lh_jobs_spec(jobs, job));
	dir = lh_jobs_dir(jobs, job);
	json_object_set_new(result, "directory", json_string(dir));
	free(dir);
	q = lh_reading_query(r, "attempts", attempts_sql, INT64_MAX);
	lh_query_bind(q, LH_INT(job));
	add_list(r, "evaluations", evaluations_sql, job);
	add_list(r, "checkpoints", checkpoints_sql, job);
	add_single(r, "trial", trial_sql, job);
	add_single(r, "last_switch", last_switch_sql, job);
	q = lh_reading_query(r, "instability", instability_sql, INT64_MAX);
	lh_query_bind(q, LH_INT(job));
	q = lh_reading_query(r, "looks", looks_sql, INT64_MAX);
	lh_query_bind(q, LH_INT(job));
	lh_reading_start(r);
}

/* The store knows what was written; what remains of it, only the disk. */
static void look_at_disk(json_t *result)
{
	json_t *one;
	size_t i;

	json_array_foreach (json_object_get(result, "checkpoints"), i, one) {
		const char *path = json_string_value(json_object_get(one, "path"));
		char *mark = lh_asprintf("%s/" LH_MANIFEST_PINNED, path);

		json_object_set_new(one, "removed", json_boolean(!lh_fs_exists(path)));
		json_object_set_new(one, "pinned", json_boolean(lh_fs_exists(mark)));
		free(mark);
	}
}

void rpc_job_checkpoints(struct lh_call *call)
{
	struct lh_reading *r;
	int64_t job;

	if (!lh_control_find_job(call, &job))
		return;
	r = lh_reading_new(call);
	add_list(r, "checkpoints", checkpoints_sql, job);
	lh_reading_finish(r, look_at_disk);
	lh_reading_start(r);
}

/* ---- job.events, job.journal ---------------------------------------------- */

#define EVENTS(job, order)                                                    \
	"SELECT id, job, attempt, step, time_ms, kind, text, data_json FROM"  \
	" (SELECT * FROM events WHERE id > ?1 AND time_ms >= ?2"              \
	"  AND kind GLOB ?3" job " ORDER BY id" order " LIMIT ?4) ORDER BY id"

static const char *const events_sql[2][2] = { /* [of a job][newest] */
	{ EVENTS("", ""), EVENTS("", " DESC") },
	{ EVENTS(" AND job = ?5", ""), EVENTS(" AND job = ?5", " DESC") },
};

void rpc_job_events(struct lh_call *call)
{
	int64_t limit = lh_call_int(call, "limit", LH_READING_DEFAULT_ROWS), job;
	bool newest = lh_call_bool(call, "newest", false);
	struct lh_reading *r;
	struct lh_query *q;

	if (!lh_control_find_job(call, &job))
		return;
	r = lh_reading_new(call);
	q = lh_reading_query(r, "events", events_sql[job > 0][newest], limit);
	lh_query_bind(q, LH_INT(lh_call_int(call, "after_id", 0)));
	lh_query_bind(q, LH_INT(lh_call_int(call, "since_ms", 0)));
	lh_query_bind(q, LH_TEXT(lh_call_str(call, "kind", "*")));
	lh_query_bind(q, LH_INT(limit + 1));
	if (job)
		lh_query_bind(q, LH_INT(job));
	if (newest)
		lh_query_newest(q);
	lh_query_tell_more(q);
	lh_reading_start(r);
}

#define COMMANDS(job)                                                         \
	"SELECT id AS command, job, method, args_json, uid, pid, program,"    \
	" message, accepted_ms, outcome, outcome_ms, step, text FROM"         \
	" (SELECT * FROM commands WHERE accepted_ms >= ?1 AND method GLOB ?2" \
	"  AND (?3 IS NULL OR ifnull(outcome, 'pending') = ?3)"               \
	"  AND (?4 IS NULL OR uid = ?4)" job                                  \
	"  ORDER BY id DESC LIMIT ?5) ORDER BY id"

static const char *const commands_sql[2] = { COMMANDS(""), COMMANDS(" AND job = ?6") };

void rpc_job_journal(struct lh_call *call)
{
	int64_t limit = lh_call_int(call, "limit", LH_READING_DEFAULT_ROWS), job;
	const char *outcome = lh_call_str(call, "outcome", NULL);
	int64_t uid = lh_call_int(call, "uid", -1);
	struct lh_reading *r;
	struct lh_query *q;

	if (!lh_control_find_job(call, &job))
		return;
	r = lh_reading_new(call);
	q = lh_reading_query(r, "commands", commands_sql[job > 0], limit);
	lh_query_bind(q, LH_INT(lh_call_int(call, "since_ms", 0)));
	lh_query_bind(q, LH_TEXT(lh_call_str(call, "method", "*")));
	lh_query_bind(q, outcome ? LH_TEXT(outcome) : LH_NULL);
	lh_query_bind(q, uid >= 0 ? LH_INT(uid) : LH_NULL);
	lh_query_bind(q, LH_INT(limit + 1));
	if (job)
		lh_query_bind(q, LH_INT(job));
	lh_query_newest(q);
	lh_query_tell_more(q);
	lh_reading_start(r);
}

/* handlers_read.c: methods that look something up.
 *
 * job.get and job.list come from memory and cost no disk: they are what programs
 * poll. The others read the store on the thread pool, all their queries in one
 * view of it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/control.h"
#include "rpc_table.h"

#define DEFAULT_ROWS 1000
#define MAX_ROWS 10000   /* of the lists inside job.show */

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

/* ---- reading the store ---------------------------------------------------- */

/* One list of an answer: rows of a query under a key. */
struct query {
	const char *key;
	const char *sql;
	struct lh_bind binds[4];
	int bind_count;
	int64_t limit;
};

#define MAX_QUERIES 3

struct reading {
	struct lh_call *call;
	struct query queries[MAX_QUERIES];
	int query_count;
	bool tell_more;   /* the answer has "more" */
	json_t *result;   /* an object that the rows are added to */
};

static struct reading *reading_new(struct lh_call *call)
{
	struct reading *r = lh_calloc(1, sizeof(*r));

	r->call = call;
	r->result = json_object();
	return r;
}

static struct query *add_query(struct reading *r, const char *key, const char *sql,
			       int64_t limit)
{
	struct query *q = &r->queries[r->query_count++];

	LH_ASSERT(r->query_count <= MAX_QUERIES);
	q->key = key;
	q->sql = sql;
	q->limit = limit;
	return q;
}

static void put(struct query *q, struct lh_bind value)
{
	q->binds[q->bind_count++] = value;
}

/* On a pool thread. */
static int run_queries(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct reading *r = arg;
	bool more;
	int i;

	for (i = 0; i < r->query_count; i++) {
		struct query *q = &r->queries[i];
		json_t *rows = lh_store_rows(db, q->sql, q->binds, q->bind_count,
					     q->limit, &more, err);

		if (!rows)
			return err->code;
		json_object_set_new(r->result, q->key, rows);
		if (r->tell_more)
			json_object_set_new(r->result, "more", json_boolean(more));
	}
	return 0;
}

static void on_read(void *arg, int rc, const struct lh_err *err)
{
	struct reading *r = arg;

	if (rc)
		lh_reply_err(r->call, err);
	else
		lh_reply_ok(r->call, json_incref(r->result));
	json_decref(r->result);
	free(r);
}

static void start(struct reading *r)
{
	lh_store_read(lh_control_of(r->call)->store, run_queries, on_read, r);
}

/* ---- job.show ------------------------------------------------------------- */

static const char attempts_sql[] =
	"SELECT attempt, pid, first_step, started_ms, ended_ms, exit_code,"
	" exit_signal, outcome FROM attempts WHERE job = ?1 ORDER BY attempt";

/* The newest of them, in order. */
static const char evaluations_sql[] =
	"SELECT step, attempt, phase, attention, reason, loss, tokens, time_ms FROM"
	" (SELECT * FROM evaluations WHERE job = ?1"
	"  ORDER BY attempt DESC, seq DESC LIMIT ?2) ORDER BY attempt, seq";

static const char checkpoints_sql[] =
	"SELECT step, attempt, path, bytes, duration_ms, reason, time_ms FROM"
	" (SELECT * FROM checkpoints WHERE job = ?1"
	"  ORDER BY attempt DESC, seq DESC LIMIT ?2) ORDER BY attempt, seq";

void rpc_job_show(struct lh_call *call)
{
	struct lh_jobs *jobs = lh_control_of(call)->jobs;
	struct reading *r;
	struct query *q;
	int64_t job;
	char *dir;

	if (!lh_control_find_job(call, &job))
		return;
	r = reading_new(call);
	json_object_set_new(r->result, "summary", lh_jobs_get(jobs, job));
	json_object_set_new(r->result, "phases", lh_jobs_phases(jobs, job));
	json_object_set_new(r->result, "spec", lh_jobs_spec(jobs, job));
	dir = lh_jobs_dir(jobs, job);
	json_object_set_new(r->result, "directory", json_string(dir));
	free(dir);
	q = add_query(r, "attempts", attempts_sql, INT64_MAX);
	put(q, LH_INT(job));
	q = add_query(r, "evaluations", evaluations_sql, MAX_ROWS);
	put(q, LH_INT(job));
	put(q, LH_INT(MAX_ROWS));
	q = add_query(r, "checkpoints", checkpoints_sql, MAX_ROWS);
	put(q, LH_INT(job));
	put(q, LH_INT(MAX_ROWS));
	start(r);
}

/* ---- job.steps ------------------------------------------------------------ */

#define STEP_COLUMNS                                                          \
	"s.attempt, s.step, s.phase, s.time_ms, s.loss, s.grad_norm, s.lr,"   \
	" s.tokens, s.step_ms, s.tokens_per_s, s.data_epoch"

/* A step belongs to the newest attempt that reached it, and what older attempts
 * did past the step a newer one resumed from is abandoned, though the newer one
 * may not have come as far yet. So an attempt's rows count up to the smallest
 * first_step of the attempts after it; then no two attempts share a step, and by
 * attempt is by step: the order of the primary key, without a sort. */
static const char final_steps_sql[] =
	"SELECT " STEP_COLUMNS " FROM attempts a CROSS JOIN steps s"
	" ON s.job = a.job AND s.attempt = a.attempt"
	" AND s.step BETWEEN ?2 AND min(?3, ifnull((SELECT min(n.first_step)"
	"   FROM attempts n WHERE n.job = a.job AND n.attempt > a.attempt), ?3))"
	" WHERE a.job = ?1 ORDER BY a.attempt, s.step LIMIT ?4";

static const char all_steps_sql[] =
	"SELECT " STEP_COLUMNS " FROM steps s"
	" WHERE s.job = ?1 AND s.step BETWEEN ?2 AND ?3"
	" ORDER BY s.step, s.attempt LIMIT ?4";

void rpc_job_steps(struct lh_call *call)
{
	bool all = !strcmp(lh_call_str(call, "attempts", "final"), "all");
	int64_t limit = lh_call_int(call, "limit", DEFAULT_ROWS), job;
	struct reading *r;
	struct query *q;

	if (!lh_control_find_job(call, &job))
		return;
	r = reading_new(call);
	r->tell_more = true;
	q = add_query(r, "steps", all ? all_steps_sql : final_steps_sql, limit);
	put(q, LH_INT(job));
	put(q, LH_INT(lh_call_int(call, "from_step", 1)));
	put(q, LH_INT(lh_call_int(call, "to_step", INT64_MAX)));
	put(q, LH_INT(limit + 1));
	start(r);
}

/* ---- job.events, job.journal ---------------------------------------------- */

#define EVENT_COLUMNS "id, job, attempt, step, time_ms, kind, text, data_json"

static const char job_events_sql[] =
	"SELECT " EVENT_COLUMNS " FROM events WHERE id > ?1 AND job = ?2"
	" ORDER BY id";

static const char all_events_sql[] =
	"SELECT " EVENT_COLUMNS " FROM events WHERE id > ?1 ORDER BY id";

void rpc_job_events(struct lh_call *call)
{
	struct reading *r;
	struct query *q;
	int64_t job;

	if (!lh_control_find_job(call, &job))
		return;
	r = reading_new(call);
	r->tell_more = true;
	q = add_query(r, "events", job ? job_events_sql : all_events_sql,
		      lh_call_int(call, "limit", DEFAULT_ROWS));
	put(q, LH_INT(lh_call_int(call, "after_id", 0)));
	if (job)
		put(q, LH_INT(job));
	start(r);
}

#define COMMAND_COLUMNS                                                       \
	"id AS command, job, method, args_json, uid, pid, program, message,"  \
	" accepted_ms, outcome, outcome_ms, step, text"

static const char job_journal_sql[] =
	"SELECT " COMMAND_COLUMNS " FROM (SELECT * FROM commands WHERE job = ?2"
	"  ORDER BY id DESC LIMIT ?1) ORDER BY id";

static const char all_journal_sql[] =
	"SELECT " COMMAND_COLUMNS " FROM (SELECT * FROM commands"
	"  ORDER BY id DESC LIMIT ?1) ORDER BY id";

void rpc_job_journal(struct lh_call *call)
{
	int64_t limit = lh_call_int(call, "limit", DEFAULT_ROWS), job;
	struct reading *r;
	struct query *q;

	if (!lh_control_find_job(call, &job))
		return;
	r = reading_new(call);
	q = add_query(r, "commands", job ? job_journal_sql : all_journal_sql, limit);
	put(q, LH_INT(limit));
	if (job)
		put(q, LH_INT(job));
	start(r);
}

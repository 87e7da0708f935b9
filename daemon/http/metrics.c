/* metrics.c: GET /metrics: what memory knows is taken at once, then devices are asked,
 * then the rest is read and written out on the thread pool; the form is prom.c's. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "http/http_int.h"
#include "http/prom.h"
#include "lighthouse/job.h"
#include "lighthouse/version.h"

struct scrape {
	struct lh_request *request;
	json_t *daemon, *devices, *jobs;
	int64_t ended_after_ms;
	struct lh_buf text;
};

static bool is_recent(const json_t *job, int64_t ended_after_ms)
{
	const json_t *ended = json_object_get(job, "ended_ms");

	return json_is_null(ended) || json_integer_value(ended) >= ended_after_ms;
}

/* Takes the list of all; gives that of those to tell of. */
static json_t *recent_take(json_t *all, int64_t ended_after_ms)
{
	json_t *recent = json_array(), *job;
	size_t i;

	json_array_foreach (all, i, job)
		if (is_recent(job, ended_after_ms))
			json_array_append(recent, job);
	json_decref(all);
	return recent;
}

static json_t *ask_memory(const struct lh_http *h)
{
	const struct lh_http_config *c = &h->config;
	json_t *queued = lh_jobs_list(c->jobs, "QUEUED");
	json_t *d = json_pack("{s:s, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "version",
			      LH_VERSION, "started_ms", (json_int_t)h->started_ms, "queued",
			      (int)json_array_size(queued), "workers",
			      lh_jobs_workers(c->jobs), "clients",
			      lh_server_clients(c->server), "connections",
			      lh_http_connections(h),
			      "streams", h->stream_count, "database_up",
			      !*lh_store_trouble(c->store), "backlog",
			      (int)lh_store_backlog(c->store));

	json_decref(queued);
	LH_ASSERT(d);
	return d;
}

/* Of each job, by its primary keys: however long it has run. */
static const char jobs_sql[] =
	"SELECT id AS job,"
	" (SELECT time_ms FROM steps WHERE job = id ORDER BY attempt DESC, step DESC LIMIT 1)"
	"  AS last_step_ms,"
	" (SELECT max(time_ms) FROM checkpoints WHERE job = id) AS last_checkpoint_ms,"
	" (SELECT count(*) FROM checkpoints WHERE job = id) AS checkpoints,"
	" (SELECT max(count(*) - 1, 0) FROM attempts WHERE job = id) AS later_attempts"
	" FROM jobs WHERE ended_ms IS NULL OR ended_ms >= ?1";

/* The newest of each set, by the index of sets. */
static const char validation_sql[] =
	"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 15)"
	" SELECT j.id AS job, e.set_name, e.loss FROM jobs j CROSS JOIN n"
	" JOIN evaluations e ON e.job = j.id AND e.set_no = n.i AND e.attention = 'full'"
	" AND (e.attempt, e.seq) = (SELECT attempt, seq FROM evaluations WHERE job = j.id"
	"  AND set_no = n.i AND attention = 'full' ORDER BY attempt DESC, seq DESC LIMIT 1)"
	" WHERE j.ended_ms IS NULL OR j.ended_ms >= ?1 ORDER BY j.id, n.i";
static_assert(LH_SETS_MAX == 16, "validation_sql counts them");

static const char size_sql[] = "SELECT page_count * page_size AS bytes"
			       " FROM pragma_page_count(), pragma_page_size()";

static json_t *job_of(const json_t *jobs, const json_t *id)
{
	json_t *job;
	size_t i;

	json_array_foreach (jobs, i, job)
		if (json_equal(json_object_get(job, "job"), id))
			return job;
	return NULL;
}

static void update_jobs(json_t *jobs, const json_t *rows)
{
	json_t *row, *job;
	size_t i;

	json_array_foreach (rows, i, row) {
		job = job_of(jobs, json_object_get(row, "job"));
		if (job)
			json_object_update(job, row);
	}
}

/* Each set to its job, under "validation". */
static void add_validation(json_t *jobs, const json_t *rows)
{
	json_t *row, *job, *sets;
	size_t i;

	json_array_foreach (rows, i, row) {
		job = job_of(jobs, json_object_get(row, "job"));
		sets = json_object_get(job, "validation");
		if (job && !sets) {
			sets = json_array();
			json_object_set_new(job, "validation", sets);
		}
		json_array_append(sets, row);
	}
}

/* On a pool thread. */
static int work(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct scrape *s = arg;
	struct lh_bind after = LH_INT(s->ended_after_ms);
	bool more;
	json_t *rows = lh_store_rows(db, jobs_sql, &after, 1, INT64_MAX, &more, err);
	json_t *sets = rows ? lh_store_rows(db, validation_sql, &after, 1, INT64_MAX, &more,
					    err) : NULL;
	json_t *size = sets ? lh_store_rows(db, size_sql, NULL, 0, 1, &more, err) : NULL;

	update_jobs(s->jobs, rows);
	update_jobs(s->jobs, json_object_get(s->devices, "workers"));
	if (size) {
		add_validation(s->jobs, sets);
		json_object_set(s->daemon, "database_bytes",
				json_object_get(json_array_get(size, 0), "bytes"));
		lh_prom_write(&s->text, s->daemon, s->devices, s->jobs);
	}
	json_decref(rows);
	json_decref(sets);
	json_decref(size);
	return size ? 0 : err->code;
}

static void on_done(void *arg, int rc, const struct lh_err *err)
{
	struct scrape *s = arg;
	struct lh_request *r = s->request;

	if (rc) {
		lh__request_refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, err);
	} else {
		r->answer = s->text;
		s->text = (struct lh_buf){ 0 };
		lh__request_answer(r, MHD_HTTP_OK, LH_PROM_TYPE);
	}
	json_decref(s->daemon);
	json_decref(s->devices);
	json_decref(s->jobs);
	lh_buf_release(&s->text);
	free(s);
	r->pending--;
	lh__request_settle(r);
}

static void on_devices(void *arg, json_t *devices)
{
	struct scrape *s = arg;

	s->devices = json_deep_copy(devices); /* others read the same one, here */
	lh_store_read(s->request->http->config.store, work, on_done, s);
}

void lh__metrics_start(struct lh_request *r)
{
	struct scrape *s = lh_calloc(1, sizeof(*s));
	struct lh_http *h = r->http;

	s->request = r;
	s->ended_after_ms = lh_time_ms() - LH_PROM_ENDED_MS;
	s->daemon = ask_memory(h);
	s->jobs = recent_take(lh_jobs_list(h->config.jobs, NULL), s->ended_after_ms);
	r->pending++;
	lh_devices_ask(h->config.devices, on_devices, s);
}

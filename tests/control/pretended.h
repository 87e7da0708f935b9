/* pretended.h: the methods' tests: a real store, and jobs that are pretended.
 *
 * The functions of jobs.h below stand in for the job manager: they keep what they were
 * asked, in `jobs`, and answer when the case says so. Included after cmocka.h. */
#ifndef LIGHTHOUSE_TEST_PRETENDED_H
#define LIGHTHOUSE_TEST_PRETENDED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "control/control.h"
#include "jobs/rule.h"
#include "rpc_table.h"

#define DEADLINE_US (30 * 1000000LL)
#define JOB 7

static uv_loop_t loop;
static struct lh_store *store;
static struct lh_hub hub;
static struct lh_feed feed;
static struct lh_control control;
static struct lh_peer peer;
static json_t *sent;
static char dir[64], db_path[128], job_dir[96];
static int stops, restarts;

/* ---- the job manager ------------------------------------------------------ */

static struct {
	char verb[32], program[32], request_id[32], message[32], yaml[64];
	json_t *args;
	int64_t job, uid, pid;
	struct lh_submission how;
	int abandoned;
	int attempt; /* newest; 0: none is told */
	bool ended;
	lh_jobs_reply reply;
	lh_jobs_piece piece;
	void *arg;
	bool answer_at_once;
} jobs;

static inline void keep_caller(const struct lh_caller *who)
{
	jobs.uid = who->uid;
	jobs.pid = who->pid;
	strcpy(jobs.program, who->program);
	strcpy(jobs.request_id, who->request_id ? who->request_id : "none");
	strcpy(jobs.message, who->message);
}

static inline void answer(const char *result)
{
	json_t *r = json_loads(result, 0, NULL);

	assert_non_null(r);
	jobs.reply(jobs.arg, r, NULL);
	json_decref(r);
}

void lh_jobs_submit_take(struct lh_jobs *j, struct lh_job *job, const char *yaml,
			 const struct lh_submission *how, const struct lh_caller *who,
			 lh_jobs_reply reply, void *arg)
{
	(void)j;
	snprintf(jobs.yaml, sizeof(jobs.yaml), "%.16s|%s", yaml, job->name);
	jobs.how = *how;
	keep_caller(who);
	jobs.reply = reply;
	jobs.arg = arg;
	lh_job_release(job);
	answer("{\"job\":8}");
}

void lh_jobs_command(struct lh_jobs *j, int64_t job, const char *verb,
		     const json_t *args, const struct lh_caller *who,
		     lh_jobs_reply reply, void *arg)
{
	(void)j;
	jobs.job = job;
	strcpy(jobs.verb, verb);
	json_decref(jobs.args);
	jobs.args = json_deep_copy(args);
	keep_caller(who);
	jobs.reply = reply;
	jobs.arg = arg;
}

void lh_jobs_replay(struct lh_jobs *j, int64_t job, int priority,
		    const struct lh_caller *who, lh_jobs_reply reply, void *arg)
{
	(void)j;
	jobs.job = job;
	jobs.how.priority = priority;
	keep_caller(who);
	jobs.reply = reply;
	jobs.arg = arg;
	answer("{\"job\":8}");
}

void lh_jobs_restart(struct lh_jobs *j, const struct lh_caller *who, lh_jobs_reply reply,
		     void *arg)
{
	(void)j;
	keep_caller(who);
	jobs.reply = reply;
	jobs.arg = arg;
}

int64_t lh_jobs_sample(struct lh_jobs *j, int64_t job, const json_t *args,
		       lh_jobs_piece piece, lh_jobs_reply reply, void *arg)
{
	(void)j;
	jobs.job = job;
	json_decref(jobs.args);
	jobs.args = json_deep_copy(args);
	jobs.piece = piece;
	jobs.reply = reply;
	jobs.arg = arg;
	if (jobs.answer_at_once)
		answer("{\"text\":\"now\"}");
	return 42;
}

void lh_jobs_sample_abandon(struct lh_jobs *j, int64_t handle)
{
	(void)j;
	assert_int_equal(handle, 42);
	jobs.abandoned++;
}

int lh_rules_check(const struct lh_job *job, struct lh_err *err)
{
	(void)job, (void)err;
	return 0;
}

void lh_rules_add(struct lh_jobs *j, int64_t job, const json_t *args,
		  const struct lh_caller *who, lh_jobs_reply reply, void *arg)
{
	lh_jobs_command(j, job, "rule.add", args, who, reply, arg);
}

void lh_rules_remove(struct lh_jobs *j, int64_t job, const json_t *args,
		     const struct lh_caller *who, lh_jobs_reply reply, void *arg)
{
	lh_jobs_command(j, job, "rule.remove", args, who, reply, arg);
}

json_t *lh_rules_list(struct lh_jobs *j, int64_t job)
{
	(void)j;
	return json_pack("[{s:I}]", "job", (json_int_t)job);
}

void lh_jobs_note_denied(struct lh_jobs *j, const struct lh_caller *who,
			 const char *method, int untold)
{
	(void)j, (void)who, (void)method, (void)untold;
}

json_t *lh_jobs_get(struct lh_jobs *j, int64_t job)
{
	json_t *r = json_pack("{s:I}", "job", (json_int_t)job);

	(void)j;
	if (jobs.attempt)
		json_object_set_new(r, "attempt", json_integer(jobs.attempt));
	if (jobs.ended)
		json_object_set_new(r, "ended_ms", json_integer(9));
	return r;
}

json_t *lh_jobs_list(struct lh_jobs *j, const char *state)
{
	(void)j;
	return json_pack("[s]", state ? state : "any");
}

json_t *lh_jobs_phases(struct lh_jobs *j, int64_t job)
{
	(void)j, (void)job;
	return json_array();
}

int64_t lh_jobs_preflight(struct lh_jobs *j, int64_t job, const json_t *args,
			  lh_jobs_reply reply, void *arg)
{
	return lh_jobs_sample(j, job, args, NULL, reply, arg);
}

json_t *lh_jobs_settings(struct lh_jobs *j, int64_t job)
{
	(void)j, (void)job;
	return json_array();
}

json_t *lh_jobs_spec(struct lh_jobs *j, int64_t job)
{
	(void)j, (void)job;
	return json_object();
}

char *lh_jobs_dir(struct lh_jobs *j, int64_t job)
{
	(void)j, (void)job;
	return lh_strdup(job_dir);
}

bool lh_jobs_exists(struct lh_jobs *j, int64_t job)
{
	(void)j;
	return job == JOB;
}

int lh_jobs_count(const struct lh_jobs *j)
{
	(void)j;
	return 3;
}

const struct lh_gpu *lh_jobs_gpu(const struct lh_jobs *j)
{
	static const struct lh_gpu none = { .why = { .text = "no GPU in this test" } };

	(void)j;
	return &none;
}

const char *lh_jobs_bin_dir(const struct lh_jobs *j)
{
	(void)j;
	return dir;
}

int lh_jobs_workers(const struct lh_jobs *j)
{
	(void)j;
	return 2;
}

json_t *lh_jobs_foreign_workers(const struct lh_jobs *j)
{
	(void)j;
	return json_array();
}

json_t *lh_jobs_processes(const struct lh_jobs *j)
{
	(void)j;
	return json_array();
}

int64_t lh_jobs_last_event(const struct lh_jobs *j)
{
	(void)j;
	return 99;
}

/* ---- fixture -------------------------------------------------------------- */

static inline void on_send(struct lh_peer *p, const struct lh_buf *message, bool piece)
{
	(void)p;
	(void)piece;
	json_array_append_new(sent, json_loadb(message->data, message->used_bytes, 0, NULL));
}

static inline void on_wake(struct lh_feed *f)
{
	(void)f;
}

static inline void on_stop(void *arg)
{
	(void)arg;
	stops++;
}

static inline void on_restart(void *arg)
{
	(void)arg;
	restarts++;
}

static inline int setup(void **state)
{
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	strcpy(dir, "/tmp/lighthouse-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(db_path, sizeof(db_path), "%s/test.db", dir);
	snprintf(job_dir, sizeof(job_dir), "%s/7", dir);
	assert_int_equal(uv_loop_init(&loop), 0);
	if (lh_store_open(&store, &loop, db_path, &err))
		fail_msg("%s", err.text);
	memset(&jobs, 0, sizeof(jobs));
	stops = restarts = 0;
	control = (struct lh_control){
		.config = { .state_dir = dir, .generation = 5, .stop = on_stop,
			    .restart = on_restart },
		.loop = &loop,
		.store = store,
		.started_ms = 1000,
		.rpc = { .methods = lh_rpc_methods, .method_count = lh_rpc_method_count,
			 .ctx = &control },
	};
	hub = (struct lh_hub){ 0 };
	lh_feed_init(&feed, &hub, 0, on_wake);
	peer = (struct lh_peer){ .send = on_send, .feed = &feed, .uid = 11,
				 .pid = 12, .role = LH_ROLE_SUBMIT };
	sent = json_array();
	return 0;
}

static inline void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static inline int teardown(void **state)
{
	bool closed = false;

	(void)state;
	assert_int_equal(peer.call_count, 0);
	json_decref(sent);
	json_decref(jobs.args);
	lh_feed_release(&feed);
	lh_store_close(store, on_closed, &closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(closed);
	assert_int_equal(uv_loop_close(&loop), 0);
	return lh_fs_remove_tree(dir, NULL);
}

/* Rows come from outside, as from a daemon of yesterday. */
static inline void sql(const char *text)
{
	sqlite3 *db;
	char *why = NULL;

	assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
	sqlite3_busy_timeout(db, 10000);
	if (sqlite3_exec(db, text, NULL, NULL, &why))
		fail_msg("%s", why);
	sqlite3_close(db);
}

/* Begins a call; its answer may come later. */
static inline void begin(const char *method, const char *params)
{
	char line[2048];
	int n = snprintf(line, sizeof(line),
			 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\","
			 "\"params\":%s}", method, params);

	json_array_clear(sent);
	lh_rpc_line(&control.rpc, &peer, line, (size_t)n);
}

/* The answer's result or error; borrowed. */
static inline json_t *ask(const char *method, const char *params)
{
	int64_t deadline = lh_clock_us() + DEADLINE_US;
	json_t *m, *r;

	begin(method, params);
	while (!json_array_size(sent) && lh_clock_us() < deadline)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(json_array_size(sent), 1);
	m = json_array_get(sent, 0);
	r = json_object_get(m, "result");
	return r ? r : json_object_get(m, "error");
}

static inline void expect(const json_t *got, const char *want_text)
{
	json_t *want = json_loads(want_text, JSON_DECODE_ANY, NULL);
	char *text;

	assert_non_null(want);
	if (!json_equal(got, want)) {
		text = json_dumps(got, JSON_ENCODE_ANY | JSON_SORT_KEYS);
		fail_msg("got %s, want %s", text ? text : "nothing", want_text);
	}
	json_decref(want);
}

static inline void expect_error(const json_t *got, int code, const char *part)
{
	const char *message = json_string_value(json_object_get(got, "message"));

	assert_int_equal(json_integer_value(json_object_get(got, "code")),
			 lh_err_rpc_code(code));
	assert_non_null(message);
	if (!strstr(message, part))
		fail_msg("'%s' lacks '%s'", message, part);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif

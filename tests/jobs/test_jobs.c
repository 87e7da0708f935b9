/* test_jobs.c: the manager against real processes that train nothing
 * (fake_worker.h), a real store, and itself closed and opened again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/log.h"
#include "fake_worker.h"
#include "jobs/jobfile.h"
#include "jobs/jobs.h"

enum { LIMIT_MS = 30000 };

struct answer {
	int count, code;
	int64_t command, job;
	char text[512], hint[256];
	char sample[64], pieces[64];
};

static struct fixture {
	uv_loop_t loop;
	char dir[64], state[96], bin[96], ctl[128], db[128];
	struct lh_store *store;
	struct lh_jobs *jobs;
	struct lh_jobs_config config;
	int closed;
	int steps_pushed, events_pushed;
	int64_t last_event;
} f;

/* Runs the loop until `cond`, at most LIMIT_MS. */
#define RUN_UNTIL(cond)                                                        \
	do {                                                                   \
		int64_t end_ms_ = lh_time_ms() + LIMIT_MS;                     \
		while (!(cond)) {                                              \
			if (lh_time_ms() > end_ms_)                            \
				fail_msg("did not happen: %s", #cond);         \
			uv_run(&f.loop, UV_RUN_NOWAIT);                        \
			usleep(500);                                           \
		}                                                              \
	} while (0)

/* ---- fixture --------------------------------------------------------------- */

static void on_event(void *arg, const struct lh_event *ev)
{
	assert_ptr_equal(arg, &f);
	assert_true(json_is_object(ev->json));
	if (ev->is_step) {
		f.steps_pushed++;
		return;
	}
	assert_true(ev->id > f.last_event);
	f.last_event = ev->id;
	f.events_pushed++;
}

static void open_all(void)
{
	struct lh_err err = LH_ERR_INIT;

	if (lh_store_open(&f.store, &f.loop, f.db, &err) ||
	    lh_jobs_open(&f.jobs, &f.loop, f.store, &f.config, on_event, &f, &err))
		fail_msg("%s", err.text);
}

static void on_closed(void *arg)
{
	(void)arg;
	f.closed++;
}

static void close_all(void)
{
	f.closed = 0;
	lh_jobs_close(f.jobs, on_closed, NULL);
	RUN_UNTIL(f.closed == 1);
	lh_store_close(f.store, on_closed, NULL);
	RUN_UNTIL(f.closed == 2);
	f.jobs = NULL;
}

static void link_program(const char *name)
{
	char self[512], path[256];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(n > 0);
	self[n] = '\0';
	snprintf(path, sizeof(path), "%s/%s", f.bin, name);
	assert_int_equal(symlink(self, path), 0);
}

static int setup(void **state)
{
	(void)state;
	memset(&f, 0, sizeof(f));
	lh_log_set_level(getenv("LH_TEST_LOG") ? LH_LOG_DEBUG : LH_LOG_ERROR + 1);
	strcpy(f.dir, "/tmp/lh-jobs-XXXXXX");
	assert_non_null(mkdtemp(f.dir));
	snprintf(f.state, sizeof(f.state), "%s/s", f.dir);
	snprintf(f.bin, sizeof(f.bin), "%s/bin", f.dir);
	snprintf(f.ctl, sizeof(f.ctl), "%s/ctl", f.state);
	snprintf(f.db, sizeof(f.db), "%s/lighthouse.db", f.state);
	assert_int_equal(lh_fs_mkdirs(f.ctl, NULL), 0);
	assert_int_equal(lh_fs_mkdirs(f.bin, NULL), 0);
	link_program("lhkeeper");
	link_program("lhworker-cpu");
	f.config = (struct lh_jobs_config){ .state_dir = f.state, .bin_dir = f.bin,
					    .slots = 1, .stop_grace_ms = 20000,
					    .kill_grace_ms = 20000, .generation = 1 };
	uv_loop_init(&f.loop);
	open_all();
	return 0;
}

/* Processes of this test that are left: those whose command line names its
 * directory. Sends each the signal, if it is not 0. */
static int processes(int sig)
{
	int count = 0;
	FILE *p;
	char line[64], command[160];

	snprintf(command, sizeof(command), "grep -lsa '%s' /proc/[0-9]*/cmdline", f.dir);
	p = popen(command, "r");
	while (fgets(line, sizeof(line), p)) {
		int pid = atoi(line + strlen("/proc/"));
		char path[64], name[64] = "";
		FILE *comm;

		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		comm = fopen(path, "r");
		if (!comm || !fgets(name, sizeof(name), comm))
			name[0] = '\0';
		if (comm)
			fclose(comm);
		if (strncmp(name, "lh", 2) || !lh_proc_start_time(pid))
			continue;
		count++;
		if (sig)
			kill(pid, sig);
	}
	pclose(p);
	return count;
}

static int teardown(void **state)
{
	(void)state;
	if (f.jobs)
		close_all();
	RUN_UNTIL(processes(SIGKILL) == 0);
	uv_run(&f.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f.loop), 0);
	lh_fs_remove_tree(f.dir, NULL);
	return 0;
}

/* ---- asking ---------------------------------------------------------------- */

static void on_reply(void *arg, json_t *result, const struct lh_err *err)
{
	struct answer *a = arg;

	a->count++;
	assert_int_equal(!result, err != NULL);
	if (err) {
		a->code = err->code;
		snprintf(a->text, sizeof(a->text), "%s", err->text);
		snprintf(a->hint, sizeof(a->hint), "%s", err->hint);
		return;
	}
	a->job = json_integer_value(json_object_get(result, "job"));
	a->command = json_integer_value(json_object_get(result, "command"));
	snprintf(a->text, sizeof(a->text), "%s",
		 json_string_value(json_object_get(result, "state")) ?: "");
	snprintf(a->sample, sizeof(a->sample), "%s",
		 json_string_value(json_object_get(result, "text")) ?: "");
}

static struct lh_caller caller(const char *request_id)
{
	return (struct lh_caller){ .uid = 12, .pid = 34, .program = "test",
				   .request_id = request_id, .message = "because" };
}

static void ask_submit(struct answer *a, const char *name, int restarts, int priority,
		       const char *request_id)
{
	struct lh_caller who = caller(request_id);
	struct lh_job job = { 0 };
	struct lh_err err = LH_ERR_INIT;
	json_t *spec = json_pack(
		"{s:s, s:i, s:{s:i, s:i, s:i, s:i, s:i}, s:{s:[s], s:i}, s:{s:i}, s:{s:f}, "
		"s:[{s:s, s:s, s:{s:i}}, {s:s, s:s, s:{s:i}}]}",
		"name", name, "restarts", restarts, "model", "vocab", 257, "dim", 16, "layers",
		1, "heads", 1, "ffn_dim", 16, "data", "train", "/nowhere.bin", "seq_len", 16,
		"batch", "sequences", 1, "optimizer", "lr", 0.1, "phases", "name", "p0",
		"attention", "full", "until", "steps", 30, "name", "p1", "attention", "full",
		"until", "steps", 20);

	memset(a, 0, sizeof(*a));
	assert_non_null(spec);
	if (lh_jobfile_from_json(&job, spec, &err))
		fail_msg("%s", err.text);
	json_decref(spec);
	lh_jobs_submit_take(f.jobs, &job, "name: x\n", priority, &who, on_reply, a);
}

static int64_t submit_with(const char *name, int restarts, int priority)
{
	struct answer a;

	ask_submit(&a, name, restarts, priority, NULL);
	RUN_UNTIL(a.count);
	if (a.code)
		fail_msg("%s", a.text);
	assert_string_equal(a.text, "QUEUED");
	return a.job;
}

static int64_t submit(void)
{
	return submit_with("t", 2, 0);
}

static void ask(struct answer *a, int64_t job, const char *verb, const char *phase,
		const char *request_id)
{
	struct lh_caller who = caller(request_id);
	json_t *args = phase ? json_pack("{s:s}", "phase", phase) : json_object();

	memset(a, 0, sizeof(*a));
	lh_jobs_command(f.jobs, job, verb, args, &who, on_reply, a);
	json_decref(args);
}

/* The command's id. */
static int64_t command_phase(int64_t job, const char *verb, const char *phase)
{
	struct answer a;

	ask(&a, job, verb, phase, NULL);
	RUN_UNTIL(a.count);
	if (a.code)
		fail_msg("%s: %s", verb, a.text);
	assert_string_equal(a.text, "accepted");
	assert_int_equal(a.job, job);
	return a.command;
}

static int64_t command(int64_t job, const char *verb)
{
	return command_phase(job, verb, NULL);
}

static void refused_phase(int64_t job, const char *verb, const char *phase, int code,
			  const char *word)
{
	struct answer a;

	ask(&a, job, verb, phase, NULL);
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, code);
	if (!strstr(a.text, word) && !strstr(a.hint, word))
		fail_msg("%s: no '%s' in: %s (%s)", verb, word, a.text, a.hint);
	assert_true(*a.hint);
}

static void refused(int64_t job, const char *verb, const char *word)
{
	refused_phase(job, verb, NULL, LH_ESTATE, word);
}

/* ---- looking --------------------------------------------------------------- */

static bool is_in(int64_t job, const char *state)
{
	json_t *j = lh_jobs_get(f.jobs, job);
	bool yes = !strcmp(json_string_value(json_object_get(j, "state")), state);

	json_decref(j);
	return yes;
}

static int64_t number(int64_t job, const char *key)
{
	json_t *j = lh_jobs_get(f.jobs, job);
	int64_t v = json_integer_value(json_object_get(j, key));

	json_decref(j);
	return v;
}

static bool reason_has(int64_t job, const char *word)
{
	json_t *j = lh_jobs_get(f.jobs, job);
	bool yes = strstr(json_string_value(json_object_get(j, "reason")), word) != NULL;

	json_decref(j);
	return yes;
}

static int64_t query_db(const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *st = NULL;
	int64_t v = -1;

	assert_int_equal(sqlite3_open_v2(f.db, &db, SQLITE_OPEN_READONLY, NULL), 0);
	sqlite3_busy_timeout(db, 1000);
	if (sqlite3_prepare_v2(db, sql, -1, &st, NULL))
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	if (sqlite3_step(st) == SQLITE_ROW && sqlite3_column_type(st, 0) != SQLITE_NULL)
		v = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return v;
}

static void set_ctl(const char *name, const char *text)
{
	fake_write(f.ctl, name, text);
}

static void unset_ctl(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", f.ctl, name);
	assert_int_equal(unlink(path), 0);
}

static char *attempt_dir(int64_t job, int64_t attempt)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/jobs/%lld/attempt-%lld", f.state, (long long)job,
		 (long long)attempt);
	return path;
}

/* The worker's pid once pid.json tells it, 0 before. */
static int pid_of(int64_t job, int64_t attempt, const char *key)
{
	char *text = fake_text(attempt_dir(job, attempt), LH_ATTEMPT_PID);
	json_t *pids = text ? json_loads(text, 0, NULL) : NULL;
	int pid = (int)json_integer_value(json_object_get(pids, key));

	free(text);
	json_decref(pids);
	return pid;
}

static void kill_worker(int64_t job, int64_t attempt)
{
	int pid;

	RUN_UNTIL((pid = pid_of(job, attempt, "pid")));
	assert_int_equal(kill(pid, SIGKILL), 0);
}

static void run_to_step(int64_t job, const char *step)
{
	set_ctl("steps", step);
	RUN_UNTIL(number(job, "step") == atoll(step));
}

/* Steps 1 .. n are in the store, each once over all attempts that count. */
static bool has_steps(int64_t n)
{
	return query_db("SELECT count(DISTINCT step) FROM steps") == n &&
	       query_db("SELECT max(step) FROM steps") == n;
}

static int64_t start_running(void)
{
	int64_t job = submit();

	RUN_UNTIL(is_in(job, "RUNNING"));
	return job;
}

/* ---- a life without trouble ------------------------------------------------ */

static void a_job_runs_to_its_end_and_leaves_its_rows(void **state)
{
	int64_t job;
	json_t *phases;
	char path[256];

	(void)state;
	set_ctl("steps", "12");
	set_ctl("end", "done");
	job = submit();
	snprintf(path, sizeof(path), "%s/jobs/1", f.state);
	assert_true(fake_has(path, LH_JOB_SPEC) && fake_has(path, LH_JOB_FILE));
	RUN_UNTIL(is_in(job, "DONE"));
	RUN_UNTIL(query_db("SELECT count(*) FROM jobs WHERE state = 'DONE'") == 1);
	assert_true(has_steps(12));
	assert_int_equal(f.steps_pushed, 12);
	assert_int_equal(query_db("SELECT count(*) FROM steps WHERE grad_norm IS NULL AND "
				  "loss = 1.0 / step"), 12);
	assert_int_equal(query_db("SELECT count(*) FROM checkpoints"), 1);
	assert_int_equal(query_db("SELECT count(*) FROM attempts WHERE outcome = 'done' AND "
				  "exit_code = 0 AND exit_signal IS NULL AND first_step = 0 "
				  "AND pid > 0 AND ended_ms > 0"), 1);
	assert_int_equal(query_db("SELECT group_concat(text, '|') LIKE "
				  "'QUEUED -> STARTING (%|STARTING -> RUNNING (%|"
				  "RUNNING -> STOPPING (%|STOPPING -> DONE (%' FROM events "
				  "WHERE kind = 'job.state'"), 1);
	RUN_UNTIL(query_db("SELECT count(*) FROM events") == f.events_pushed);
	assert_int_equal(lh_jobs_last_event(f.jobs), f.last_event);
	phases = lh_jobs_phases(f.jobs, job);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(phases, 0),
							    "first_step")), 0);
	assert_true(json_is_null(json_object_get(json_array_get(phases, 1), "first_step")));
	json_decref(phases);
	assert_int_equal(number(job, "total_steps"), 50);
	assert_int_equal(lh_jobs_workers(f.jobs), 0);
	refused(job, "cancel", "DONE");
	refused(job, "switch", "DONE");
}

static void the_total_follows_a_switch(void **state)
{
	int64_t job = start_running(), id;

	(void)state;
	run_to_step(job, "7");
	refused_phase(job, "switch", "p9", LH_ENOTFOUND, "p0, p1");
	refused_phase(job, "switch", "p0", LH_ESTATE, "already");
	id = command(job, "switch");
	RUN_UNTIL(number(job, "phase") == 1 && is_in(job, "RUNNING"));
	assert_int_equal(number(job, "total_steps"), 7 + 20);
	refused(job, "switch", "last phase");
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome = 'applied' AND "
			   "method = 'job.switch' AND step = 7 AND uid = 12 AND pid = 34 AND "
			   "program = 'test' AND message = 'because'") == 1);
	assert_int_equal(query_db("SELECT json_extract(data_json, '$.command') FROM events "
				  "WHERE kind = 'command.applied'"), id);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'job.state' AND "
				  "(text LIKE 'RUNNING -> SWITCHING%' OR "
				  "text LIKE 'SWITCHING -> RUNNING%')"), 2);
	/* The names of phases work as well as their absence. */
	command_phase(job, "switch", "p0");
	RUN_UNTIL(number(job, "phase") == 0);
}

static void a_job_that_says_it_failed_fails_and_is_not_restarted(void **state)
{
	int64_t job;

	(void)state;
	set_ctl("steps", "3");
	set_ctl("end", "failed");
	job = submit();
	RUN_UNTIL(is_in(job, "FAILED"));
	assert_true(reason_has(job, "the loss is not finite"));
	assert_int_equal(number(job, "attempt"), 1);
	assert_int_equal(number(job, "restarts"), 0);
}

static void the_queue_starts_by_priority_then_age(void **state)
{
	int64_t first = start_running(), low, high, older;

	(void)state;
	low = submit_with("low", 0, 0);
	older = submit_with("older", 0, 5);
	high = submit_with("high", 0, 5);
	assert_true(is_in(low, "QUEUED") && is_in(high, "QUEUED") && is_in(older, "QUEUED"));
	command(first, "cancel");
	RUN_UNTIL(is_in(older, "RUNNING"));
	assert_true(is_in(first, "CANCELLED") && is_in(high, "QUEUED"));
	command(older, "cancel");
	RUN_UNTIL(is_in(high, "RUNNING"));
	assert_true(is_in(low, "QUEUED"));
	command(high, "cancel");
	RUN_UNTIL(is_in(low, "RUNNING"));
}

static void a_queued_job_can_be_held_freed_and_cancelled(void **state)
{
	int64_t first = start_running(), second = submit(), third = submit();

	(void)state;
	refused(second, "switch", "queue");
	refused(second, "checkpoint", "queue");
	refused(second, "resume", "not paused");
	command(second, "pause");
	refused(second, "pause", "paused");
	command(third, "cancel");
	assert_true(is_in(third, "CANCELLED")); /* with the answer, not later */
	command(first, "cancel");
	RUN_UNTIL(is_in(first, "CANCELLED"));
	assert_true(is_in(second, "QUEUED"));
	close_all(); /* and it is still held after a restart */
	open_all();
	assert_true(is_in(second, "QUEUED"));
	command(second, "resume");
	RUN_UNTIL(is_in(second, "RUNNING"));
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome IS NULL") == 0);
}

/* ---- records --------------------------------------------------------------- */

static void records_are_stored_once_across_reconnects(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "10");
	for (int i = 2; i <= 4; i++) {
		char steps[8];

		set_ctl("redial", "");
		RUN_UNTIL(!fake_has(f.ctl, "redial"));
		snprintf(steps, sizeof(steps), "%d", 10 * i);
		run_to_step(job, steps);
	}
	RUN_UNTIL(has_steps(40));
	assert_int_equal(query_db("SELECT count(*) FROM steps"), 40);
	assert_int_equal(f.steps_pushed, 40);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'job.state'"), 2);
}

static void a_record_is_acknowledged_only_once_committed(void **state)
{
	int64_t job = start_running(), before;
	char *dir = attempt_dir(job, 1);
	sqlite3 *other;

	(void)state;
	RUN_UNTIL(fake_number(dir, "acked", 0) == 1); /* the state record */
	assert_int_equal(sqlite3_open(f.db, &other), 0);
	sqlite3_busy_timeout(other, 5000);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), 0);
	before = fake_number(dir, "acked", 0);
	run_to_step(job, "20"); /* they are all here, in memory */
	RUN_UNTIL(*lh_store_trouble(f.store));
	assert_int_equal(fake_number(dir, "acked", 0), before);
	assert_int_equal(query_db("SELECT count(*) FROM steps"), 0);
	assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), 0);
	sqlite3_close(other);
	RUN_UNTIL(fake_number(dir, "acked", 0) == before + 20);
	assert_true(has_steps(20));
}

static void what_a_dead_worker_had_not_sent_is_read_from_its_spool(void **state)
{
	int64_t job = start_running();
	char *dir, *spool;
	FILE *file;

	(void)state;
	run_to_step(job, "5");
	set_ctl("mute", "");
	set_ctl("steps", "600"); /* more than one batch */
	dir = attempt_dir(job, 1);
	for (int found = 0; !found;) {
		spool = fake_text(dir, LH_ATTEMPT_SPOOL);
		found = strstr(spool, "\"step\":600") != NULL ||
			strstr(spool, "\"step\": 600") != NULL;
		free(spool);
		uv_run(&f.loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(number(job, "step"), 5);
	kill_worker(job, 1);
	/* A line cut short, as by a machine that stopped, is no record. */
	{
		char path[300];

		snprintf(path, sizeof(path), "%s/%s", dir, LH_ATTEMPT_SPOOL);
		file = fopen(path, "a");
		fputs("{\"seq\":602,\"t\":\"step\",\"step\":601", file);
		fclose(file);
	}
	unset_ctl("mute");
	set_ctl("steps", "0");
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	assert_true(has_steps(600));
	assert_int_equal(query_db("SELECT count(*) FROM steps WHERE attempt = 1"), 600);
}

/* ---- losing workers -------------------------------------------------------- */

static void a_killed_worker_is_replaced_from_its_checkpoint(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "8");
	command(job, "checkpoint");
	RUN_UNTIL(query_db("SELECT count(*) FROM checkpoints WHERE step = 8") == 1);
	run_to_step(job, "11");
	kill_worker(job, 1);
	set_ctl("steps", "14");
	RUN_UNTIL(number(job, "attempt") == 2 && number(job, "step") == 14);
	assert_int_equal(number(job, "restarts"), 1);
	RUN_UNTIL(query_db("SELECT count(*) FROM steps WHERE attempt = 2") == 6);
	assert_int_equal(query_db("SELECT count(*) FROM steps WHERE attempt = 1"), 11);
	assert_int_equal(query_db("SELECT first_step FROM attempts WHERE attempt = 2"), 8);
	assert_int_equal(query_db("SELECT exit_signal FROM attempts WHERE attempt = 1 AND "
				  "outcome = 'lost'"), 9);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'attempt.lost' "
				  "AND text LIKE '%signal 9%'"), 1);
	set_ctl("end", "done");
	RUN_UNTIL(is_in(job, "DONE"));
}

static void restarts_run_out_and_the_reason_says_of_what(void **state)
{
	int64_t job = submit_with("t", 1, 0);

	(void)state;
	for (int attempt = 1; attempt <= 2; attempt++) {
		RUN_UNTIL(number(job, "attempt") == attempt && is_in(job, "RUNNING"));
		kill_worker(job, attempt);
		RUN_UNTIL(!is_in(job, "RUNNING"));
	}
	RUN_UNTIL(is_in(job, "FAILED"));
	assert_true(reason_has(job, "signal 9"));
	assert_int_equal(number(job, "restarts"), 2);
	assert_true(number(job, "ended_ms") > 0);
}

static void a_worker_that_cannot_be_started_fails_the_job(void **state)
{
	char path[128];
	int64_t job;

	(void)state;
	snprintf(path, sizeof(path), "%s/lhkeeper", f.bin);
	assert_int_equal(unlink(path), 0);
	job = submit_with("t", 1, 0);
	RUN_UNTIL(is_in(job, "FAILED"));
	assert_true(reason_has(job, "lhkeeper"));
	assert_int_equal(number(job, "attempt"), 2);
}

static void what_was_pending_goes_to_the_next_attempt(void **state)
{
	int64_t job = start_running(), id;

	(void)state;
	set_ctl("deaf", "");
	run_to_step(job, "4");
	id = command(job, "switch");
	refused(job, "switch", "last phase"); /* it counts as done */
	kill_worker(job, 1);
	RUN_UNTIL(is_in(job, "RESTARTING"));
	unset_ctl("deaf");
	set_ctl("steps", "0");
	RUN_UNTIL(number(job, "attempt") == 2 && number(job, "phase") == 1);
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome = 'applied' AND "
			   "method = 'job.switch'") == 1);
	assert_int_equal(query_db("SELECT max(id) FROM commands"), id);
}

static void the_next_attempt_is_told_what_to_repeat(void **state)
{
	int64_t job = start_running();
	json_t *start, *replay;
	char *text;

	(void)state;
	run_to_step(job, "6");
	command_phase(job, "switch", "1");
	command(job, "pause");
	RUN_UNTIL(is_in(job, "PAUSED"));
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome IS NULL") == 0);
	kill_worker(job, 1);
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "PAUSED"));
	text = fake_text(attempt_dir(job, 2), LH_ATTEMPT_START);
	start = json_loads(text, 0, NULL);
	replay = json_object_get(start, "replay");
	assert_int_equal(json_array_size(replay), 1);
	replay = json_array_get(replay, 0);
	assert_string_equal(json_string_value(json_object_get(replay, "verb")), "switch");
	assert_int_equal(json_integer_value(json_object_get(replay, "step")), 6);
	assert_string_equal(json_string_value(json_object_get(
				    json_object_get(replay, "args"), "phase")), "p1");
	assert_true(json_is_true(json_object_get(start, "paused")));
	json_decref(start);
	free(text);
	refused(job, "pause", "paused");
	command(job, "resume");
	RUN_UNTIL(is_in(job, "RUNNING"));
}

/* ---- another lhd ----------------------------------------------------------- */

static void a_live_worker_is_adopted_and_no_record_is_lost(void **state)
{
	int64_t job = start_running();
	int pid;
	char *spool;

	(void)state;
	run_to_step(job, "10");
	pid = pid_of(job, 1, "pid");
	close_all();
	set_ctl("steps", "50");
	do {
		spool = fake_text(attempt_dir(job, 1), LH_ATTEMPT_SPOOL);
		if (strstr(spool, "\"step\":40,"))
			break;
		free(spool);
	} while (usleep(1000) == 0);
	free(spool);
	f.config.generation = 2;
	open_all();
	assert_true(is_in(job, "RUNNING"));
	RUN_UNTIL(number(job, "step") == 50);
	RUN_UNTIL(has_steps(50));
	assert_int_equal(query_db("SELECT count(*) FROM steps"), 50);
	assert_int_equal(query_db("SELECT count(*) FROM attempts"), 1);
	assert_int_equal(query_db("SELECT pid FROM attempts"), pid);
	assert_int_equal(lh_jobs_workers(f.jobs), 1);
	command(job, "pause");
	RUN_UNTIL(is_in(job, "PAUSED"));
	/* Its end is noticed, though it is nobody's child here any more. */
	kill_worker(job, 1);
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "PAUSED"));
	RUN_UNTIL(query_db("SELECT exit_signal FROM attempts WHERE attempt = 1") == 9);
}

static void a_job_that_ended_while_nobody_watched_is_found_done(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "5");
	close_all();
	set_ctl("steps", "700");
	set_ctl("end", "done");
	while (processes(0))
		usleep(10000);
	open_all();
	RUN_UNTIL(is_in(job, "DONE"));
	assert_int_equal(number(job, "step"), 700);
	assert_true(has_steps(700));
	assert_int_equal(query_db("SELECT count(*) FROM steps"), 700);
}

static void a_pid_that_is_somebody_elses_now_is_left_alone(void **state)
{
	int64_t job = start_running();
	char text[160], *dir = attempt_dir(job, 1);

	(void)state;
	run_to_step(job, "5");
	close_all();
	while (processes(SIGKILL))
		usleep(1000);
	/* This very process, as if it had got the worker's number. */
	snprintf(text, sizeof(text), "{\"pid\": %d, \"start_time\": 1, \"keeper_pid\": %d, "
		 "\"keeper_start_time\": 1}", (int)getpid(), (int)getpid());
	fake_write(dir, LH_ATTEMPT_PID, text);
	open_all();
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	assert_int_equal(number(job, "restarts"), 1);
}

static void an_attempt_that_was_never_spawned_is_no_loss(void **state)
{
	int64_t job;

	(void)state;
	set_ctl("proto", "99"); /* so that not one record comes */
	job = submit();
	RUN_UNTIL(pid_of(job, 1, "pid"));
	close_all();
	while (processes(SIGKILL))
		usleep(1000);
	assert_int_equal(lh_fs_remove_tree(attempt_dir(job, 1), NULL), 0);
	unset_ctl("proto");
	open_all();
	assert_true(is_in(job, "STARTING"));
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	assert_int_equal(number(job, "restarts"), 0);
}

static void a_state_directory_too_deep_for_a_socket_is_refused(void **state)
{
	struct lh_jobs_config deep = f.config;
	struct lh_err err = LH_ERR_INIT;
	struct lh_jobs *none;
	char path[256];

	(void)state;
	snprintf(path, sizeof(path), "%s/%0150d", f.state, 0);
	deep.state_dir = path;
	assert_int_equal(lh_jobs_open(&none, &f.loop, f.store, &deep, NULL, NULL, &err),
			 LH_EINVAL);
	assert_true(*err.hint);
	run_to_step(start_running(), "2"); /* the one that is open works on */
}

static void a_keeper_that_was_killed_does_not_end_its_worker(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "5");
	assert_int_equal(kill(pid_of(job, 1, "keeper_pid"), SIGKILL), 0);
	run_to_step(job, "9");
	assert_int_equal(number(job, "attempt"), 1);
	kill_worker(job, 1);
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	RUN_UNTIL(query_db("SELECT count(*) FROM events WHERE kind = 'attempt.lost' AND "
			   "text LIKE '%nothing tells how%'") == 1);
}

static void pending_commands_survive_a_restart(void **state)
{
	int64_t job = start_running();

	(void)state;
	set_ctl("deaf", "");
	command(job, "pause");
	close_all();
	unset_ctl("deaf");
	open_all();
	RUN_UNTIL(is_in(job, "PAUSED"));
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome = 'applied' AND "
			   "method = 'job.pause'") == 1);
}

static void draining_puts_jobs_back_and_the_next_lhd_goes_on(void **state)
{
	int64_t job = start_running(), queued = submit();
	struct answer a;

	(void)state;
	run_to_step(job, "6");
	f.closed = 0;
	lh_jobs_drain(f.jobs, on_closed, NULL);
	assert_int_equal(f.closed, 0);
	RUN_UNTIL(f.closed);
	assert_true(is_in(job, "QUEUED") && is_in(queued, "QUEUED"));
	assert_true(reason_has(job, "step 6"));
	assert_int_equal(processes(0), 0);
	ask_submit(&a, "late", 0, 0, NULL);
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, LH_ESTATE);
	refused(job, "cancel", "stopping");
	close_all();
	open_all();
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	assert_int_equal(number(job, "restarts"), 0);
	RUN_UNTIL(query_db("SELECT first_step FROM attempts WHERE attempt = 2") == 6);
	assert_int_equal(query_db("SELECT count(*) FROM attempts WHERE outcome = 'stopped'"), 1);
	assert_int_equal(query_db("SELECT count(*) FROM commands WHERE method = 'job.stop' AND "
				  "outcome = 'applied' AND program = 'lhd'"), 1);
}

/* ---- who may dial in ------------------------------------------------------- */

static int dial(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct stat st;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", f.state, LH_STATE_WORKER_SOCKET);
	assert_int_equal(stat(a.sun_path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* What lhd says to `text` before it hangs up, in buf. */
static void converse(const char *text, char *buf, size_t bytes)
{
	int fd = dial();
	size_t used = 0;
	ssize_t n = -1;

	assert_int_equal(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
	while (n) {
		RUN_UNTIL((n = recv(fd, buf + used, bytes - used - 1, MSG_DONTWAIT)) >= 0);
		used += (size_t)n;
	}
	buf[used] = '\0';
	close(fd);
}

static void unknown_workers_are_refused(void **state)
{
	int64_t job = start_running();
	char buf[512], hello[256];
	static const struct {
		const char *job, *attempt, *code;
	} cases[] = { { "77", "1", "LH_ENOTFOUND" }, { "1", "2", "LH_ESTATE" },
		      { "1", "1", "LH_EDENIED" } };

	(void)state;
	assert_int_equal(job, 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		snprintf(hello, sizeof(hello), "{\"m\":\"hello\",\"proto\":%d,\"job\":%s,"
			 "\"attempt\":%s,\"token\":\"guess\",\"pid\":1,\"start_time\":1}\n",
			 LH_PROTO_VERSION, cases[i].job, cases[i].attempt);
		converse(hello, buf, sizeof(buf));
		if (!strstr(buf, "\"refuse\"") || !strstr(buf, cases[i].code))
			fail_msg("case %zu: %s", i, buf);
	}
	converse("what?\n", buf, sizeof(buf));
	assert_string_equal(buf, "");
	converse("{\"m\":\"records\",\"records\":[]}\n", buf, sizeof(buf));
	assert_string_equal(buf, "");
	run_to_step(job, "3"); /* the real one was not disturbed */
	assert_int_equal(lh_jobs_workers(f.jobs), 1);
}

static void a_worker_of_another_version_is_left_alone_and_told_of_once(void **state)
{
	int64_t job;

	(void)state;
	set_ctl("proto", "99");
	job = submit();
	RUN_UNTIL(query_db("SELECT count(*) FROM events WHERE kind = 'worker.foreign'") == 1);
	assert_true(is_in(job, "STARTING"));
	unset_ctl("proto");
	RUN_UNTIL(is_in(job, "RUNNING"));
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'worker.foreign'"), 1);
	assert_int_equal(number(job, "attempt"), 1);
}

/* ---- requests -------------------------------------------------------------- */

static void a_request_id_makes_a_retry_harmless(void **state)
{
	struct answer a, b, c, d;
	int64_t job;

	(void)state;
	ask_submit(&a, "one", 2, 0, "id-1");
	ask_submit(&b, "one", 2, 0, "id-1");   /* while the first is under way */
	ask_submit(&c, "other", 2, 0, "id-1");
	RUN_UNTIL(a.count && b.count && c.count);
	ask_submit(&d, "one", 2, 0, "id-1");   /* and after it */
	RUN_UNTIL(d.count);
	job = a.job;
	assert_true(job && b.job == job && d.job == job);
	assert_true(a.command && b.command == a.command && d.command == a.command);
	assert_int_equal(c.code, LH_ECONFLICT);
	assert_int_equal(lh_jobs_count(f.jobs), 1);
	RUN_UNTIL(is_in(job, "RUNNING"));
	ask(&a, job, "switch", NULL, "id-2");
	RUN_UNTIL(a.count);
	RUN_UNTIL(number(job, "phase") == 1);
	ask(&b, job, "switch", NULL, "id-2");  /* now refused, were it new */
	ask(&c, job, "switch", "p1", "id-2");
	ask(&d, job, "pause", NULL, "id-2");
	RUN_UNTIL(b.count && c.count && d.count);
	assert_int_equal(b.code, 0);
	assert_int_equal(b.command, a.command);
	assert_int_equal(c.code, LH_ECONFLICT);
	assert_int_equal(d.code, LH_ECONFLICT);
	/* A refused request leaves no trace. */
	ask(&a, job, "resume", NULL, "id-3");
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, LH_ESTATE);
	command(job, "pause");
	RUN_UNTIL(is_in(job, "PAUSED"));
	ask(&a, job, "resume", NULL, "id-3");
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, 0);
}

static void an_accepted_command_is_in_the_journal_before_the_answer(void **state)
{
	int64_t job = start_running();
	sqlite3 *other;
	struct answer a;
	char sql[128];

	(void)state;
	assert_int_equal(sqlite3_open(f.db, &other), 0);
	sqlite3_busy_timeout(other, 5000);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), 0);
	ask(&a, job, "pause", NULL, NULL);
	RUN_UNTIL(*lh_store_trouble(f.store));
	assert_int_equal(a.count, 0);
	assert_true(is_in(job, "RUNNING"));
	assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), 0);
	sqlite3_close(other);
	RUN_UNTIL(a.count);
	snprintf(sql, sizeof(sql), "SELECT count(*) FROM commands WHERE id = %lld",
		 (long long)a.command);
	assert_int_equal(query_db(sql), 1);
	RUN_UNTIL(is_in(job, "PAUSED"));
}

static void commands_of_a_job_that_ended_are_refused_with_an_event(void **state)
{
	int64_t job = start_running();

	(void)state;
	set_ctl("deaf", "");
	command(job, "pause");
	set_ctl("end", "done");
	RUN_UNTIL(is_in(job, "DONE"));
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome = 'refused' AND "
			   "text LIKE '%ended%'") == 1);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'command.refused'"), 1);
}

/* ---- cancelling ------------------------------------------------------------ */

static void is_cancelled(int64_t job)
{
	command(job, "cancel");
	RUN_UNTIL(is_in(job, "CANCELLED"));
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome IS NULL") == 0);
	assert_int_equal(query_db("SELECT count(*) FROM commands WHERE method = 'job.cancel' "
				  "AND outcome = 'applied'"), 1);
	assert_true(reason_has(job, "uid 12 (test): because"));
	assert_int_equal(processes(0), 0);
}

static void cancel_works_while_running(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "2");
	is_cancelled(job);
	assert_int_equal(query_db("SELECT count(*) FROM attempts WHERE outcome = "
				  "'cancelled'"), 1);
	refused(job, "cancel", "CANCELLED");
}

static void cancel_works_while_paused(void **state)
{
	int64_t job = start_running();

	(void)state;
	command(job, "pause");
	RUN_UNTIL(is_in(job, "PAUSED"));
	is_cancelled(job);
}

static void cancel_works_while_starting(void **state)
{
	int64_t job;

	(void)state;
	job = submit();
	assert_true(is_in(job, "STARTING"));
	is_cancelled(job);
}

static void cancel_works_while_restarting(void **state)
{
	int64_t job = start_running();

	(void)state;
	kill_worker(job, 1);
	RUN_UNTIL(is_in(job, "RESTARTING"));
	is_cancelled(job);
	assert_int_equal(number(job, "attempt"), 1);
}

static void cancel_of_a_worker_that_does_not_listen_ends_in_sigterm(void **state)
{
	int64_t job;

	(void)state;
	close_all();
	f.config.stop_grace_ms = 30;
	open_all();
	set_ctl("deaf", "");
	job = start_running();
	is_cancelled(job);
	assert_int_equal(query_db("SELECT count(*) FROM attempts WHERE outcome = 'stopped'"), 1);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'worker.kill'"), 1);
}

static void cancel_of_a_worker_that_hangs_ends_in_sigkill(void **state)
{
	int64_t job;

	(void)state;
	close_all();
	f.config.stop_grace_ms = 30;
	f.config.kill_grace_ms = 30;
	open_all();
	set_ctl("deaf", "");
	set_ctl("stubborn", "");
	job = start_running();
	is_cancelled(job);
	assert_int_equal(query_db("SELECT count(*) FROM attempts WHERE outcome = 'lost' AND "
				  "exit_signal = 9"), 1);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'worker.kill'"), 2);
	assert_int_equal(number(job, "restarts"), 0);
}

/* ---- sampling -------------------------------------------------------------- */

static void on_piece(void *arg, json_t *piece)
{
	struct answer *a = arg;

	strncat(a->pieces, json_string_value(json_object_get(piece, "text")),
		sizeof(a->pieces) - strlen(a->pieces) - 1);
}

static int64_t ask_sample(struct answer *a, int64_t job, const char *prompt)
{
	json_t *args = json_pack("{s:s}", "prompt", prompt);
	int64_t handle;

	memset(a, 0, sizeof(*a));
	handle = lh_jobs_sample(f.jobs, job, args, on_piece, on_reply, a);
	json_decref(args);
	return handle;
}

static void a_sample_comes_from_the_worker_that_runs(void **state)
{
	int64_t job = start_running();
	struct answer a, b;

	(void)state;
	ask_sample(&a, job, "x");
	RUN_UNTIL(a.count);
	assert_string_equal(a.sample, "ab");
	assert_string_equal(a.pieces, "ab");
	set_ctl("deaf", ""); /* it never answers, and is lost */
	ask_sample(&a, job, "x");
	lh_jobs_sample_abandon(f.jobs, ask_sample(&b, job, "x"));
	kill_worker(job, 1);
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, LH_EWORKER);
	assert_int_equal(b.count, 0);
}

static void a_sample_without_a_worker_comes_from_the_newest_checkpoint(void **state)
{
	int64_t job = start_running();
	struct answer a, b, c;
	int64_t handle;
	char path[256];

	(void)state;
	command(job, "cancel");
	RUN_UNTIL(is_in(job, "CANCELLED"));
	ask_sample(&a, 99, "x");
	assert_int_equal(a.code, LH_ENOTFOUND);
	ask_sample(&a, job, "x");
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, LH_ESTATE);
	assert_true(*a.hint);
	for (int step = 9; step <= 11; step++) {
		snprintf(path, sizeof(path), "%s/jobs/1/checkpoints/step-%010d", f.state, step);
		assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	}
	snprintf(path, sizeof(path), "%s/jobs/1/checkpoints/step-0000000012.tmp", f.state);
	assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	ask_sample(&a, job, "tower");
	RUN_UNTIL(a.count);
	assert_string_equal(a.text, "");
	assert_string_equal(a.sample, "tower");
	assert_string_equal(a.pieces, "tower");
	/* Two at a time; the third is told so; abandoning ends the process. */
	handle = ask_sample(&a, job, "hang");
	RUN_UNTIL(processes(0) == 1);
	ask_sample(&b, job, "hang");
	RUN_UNTIL(processes(0) == 2);
	ask_sample(&c, job, "x");
	RUN_UNTIL(c.count);
	assert_int_equal(c.code, LH_EBUSY);
	lh_jobs_sample_abandon(f.jobs, handle);
	RUN_UNTIL(processes(0) == 1);
	assert_int_equal(a.count, 0);
	processes(SIGKILL);
	RUN_UNTIL(b.count);
	assert_int_equal(b.code, LH_EWORKER);
}

static void closing_ends_samples_and_leaves_workers(void **state)
{
	int64_t job = start_running();
	struct answer a, b;
	char path[256];

	(void)state;
	ask_sample(&a, job, "x");
	command(job, "cancel");
	RUN_UNTIL(is_in(job, "CANCELLED"));
	snprintf(path, sizeof(path), "%s/jobs/1/checkpoints/step-0000000003", f.state);
	assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	ask_sample(&b, job, "hang");
	RUN_UNTIL(processes(0) == 1);
	start_running();
	close_all();
	assert_int_equal(b.count, 0);
	while (processes(0) != 2) /* keeper and worker of the second job */
		usleep(1000);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(a_job_runs_to_its_end_and_leaves_its_rows),
		T(the_total_follows_a_switch),
		T(a_job_that_says_it_failed_fails_and_is_not_restarted),
		T(the_queue_starts_by_priority_then_age),
		T(a_queued_job_can_be_held_freed_and_cancelled),
		T(records_are_stored_once_across_reconnects),
		T(a_record_is_acknowledged_only_once_committed),
		T(what_a_dead_worker_had_not_sent_is_read_from_its_spool),
		T(a_killed_worker_is_replaced_from_its_checkpoint),
		T(restarts_run_out_and_the_reason_says_of_what),
		T(a_worker_that_cannot_be_started_fails_the_job),
		T(what_was_pending_goes_to_the_next_attempt),
		T(the_next_attempt_is_told_what_to_repeat),
		T(a_live_worker_is_adopted_and_no_record_is_lost),
		T(a_job_that_ended_while_nobody_watched_is_found_done),
		T(a_pid_that_is_somebody_elses_now_is_left_alone),
		T(an_attempt_that_was_never_spawned_is_no_loss),
		T(a_state_directory_too_deep_for_a_socket_is_refused),
		T(a_keeper_that_was_killed_does_not_end_its_worker),
		T(pending_commands_survive_a_restart),
		T(draining_puts_jobs_back_and_the_next_lhd_goes_on),
		T(unknown_workers_are_refused),
		T(a_worker_of_another_version_is_left_alone_and_told_of_once),
		T(a_request_id_makes_a_retry_harmless),
		T(an_accepted_command_is_in_the_journal_before_the_answer),
		T(commands_of_a_job_that_ended_are_refused_with_an_event),
		T(cancel_works_while_running),
		T(cancel_works_while_paused),
		T(cancel_works_while_starting),
		T(cancel_works_while_restarting),
		T(cancel_of_a_worker_that_does_not_listen_ends_in_sigterm),
		T(cancel_of_a_worker_that_hangs_ends_in_sigkill),
		T(a_sample_comes_from_the_worker_that_runs),
		T(a_sample_without_a_worker_comes_from_the_newest_checkpoint),
		T(closing_ends_samples_and_leaves_workers),
	};
	int status;

	if (fake_main(argc, argv, &status))
		return status;
	signal(SIGPIPE, SIG_IGN);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* manager.h: the manager of jobs for its tests: opened on a scratch directory with
 * a real store, its programs replaced by fake_worker.h's. Included after cmocka.h;
 * MANAGER_TESTS(T(name), ...) at the end is the program. */
#ifndef LIGHTHOUSE_TEST_MANAGER_H
#define LIGHTHOUSE_TEST_MANAGER_H

#include <sys/stat.h>

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
	json_t *more;  /* keys for the specs of jobs to come; NULL: none */
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

static inline void on_event(void *arg, const struct lh_event *ev)
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

static inline void open_all(void)
{
	struct lh_err err = LH_ERR_INIT;

	if (lh_store_open(&f.store, &f.loop, f.db, &err) ||
	    lh_jobs_open(&f.jobs, &f.loop, f.store, &f.config, on_event, &f, &err))
		fail_msg("%s", err.text);
}

static inline void on_closed(void *arg)
{
	(void)arg;
	f.closed++;
}

static inline void close_all(void)
{
	f.closed = 0;
	lh_jobs_close(f.jobs, on_closed, NULL);
	RUN_UNTIL(f.closed == 1);
	lh_store_close(f.store, on_closed, NULL);
	RUN_UNTIL(f.closed == 2);
	f.jobs = NULL;
}

static inline void link_program(const char *name)
{
	char self[512], path[256];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(n > 0);
	self[n] = '\0';
	snprintf(path, sizeof(path), "%s/%s", f.bin, name);
	assert_int_equal(symlink(self, path), 0);
}

static inline int setup(void **state)
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
	link_program("lhworker-cuda");
	f.config = (struct lh_jobs_config){ .state_dir = f.state, .bin_dir = f.bin,
					    .slots = 1, .stop_grace_ms = 20000,
					    .kill_grace_ms = 20000, .generation = 1,
					    .proto = LH_PROTO_VERSION };
	uv_loop_init(&f.loop);
	open_all();
	return 0;
}

/* Processes of this test that are left: those whose command line names its
 * directory. Sends each the signal, if it is not 0. */
static inline int processes(int sig)
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

static inline int teardown(void **state)
{
	(void)state;
	if (f.jobs)
		close_all();
	RUN_UNTIL(processes(SIGKILL) == 0);
	uv_run(&f.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f.loop), 0);
	lh_fs_remove_tree(f.dir, NULL);
	json_decref(f.more);
	return 0;
}

/* ---- asking ---------------------------------------------------------------- */

static inline void on_reply(void *arg, json_t *result, const struct lh_err *err)
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

static inline struct lh_caller caller(const char *request_id)
{
	return (struct lh_caller){ .uid = 12, .pid = 34, .program = "test",
				   .request_id = request_id, .message = "because" };
}

static inline void ask_submit_how(struct answer *a, const char *name, int restarts,
		       struct lh_submission how, const char *request_id)
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
	json_object_update(spec, f.more);
	if (lh_jobfile_from_json(&job, spec, &err))
		fail_msg("%s", err.text);
	json_decref(spec);
	lh_jobs_submit_take(f.jobs, &job, "name: x\n", &how, &who, on_reply, a);
}

static inline void ask_submit(struct answer *a, const char *name, int restarts, int priority,
		       const char *request_id)
{
	ask_submit_how(a, name, restarts, (struct lh_submission){ .priority = priority },
		       request_id);
}

static inline int64_t submit_with(const char *name, int restarts, int priority)
{
	struct answer a;

	ask_submit(&a, name, restarts, priority, NULL);
	RUN_UNTIL(a.count);
	if (a.code)
		fail_msg("%s", a.text);
	assert_string_equal(a.text, "QUEUED");
	return a.job;
}

static inline int64_t submit(void)
{
	return submit_with("t", 2, 0);
}

static inline void ask(struct answer *a, int64_t job, const char *verb, const char *phase,
		const char *request_id)
{
	struct lh_caller who = caller(request_id);
	json_t *args = phase ? json_pack("{s:s}", "phase", phase) : json_object();

	memset(a, 0, sizeof(*a));
	lh_jobs_command(f.jobs, job, verb, args, &who, on_reply, a);
	json_decref(args);
}

/* The command's id. */
static inline int64_t command_phase(int64_t job, const char *verb, const char *phase)
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

static inline int64_t command(int64_t job, const char *verb)
{
	return command_phase(job, verb, NULL);
}

static inline void refused_phase(int64_t job, const char *verb, const char *phase, int code,
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

static inline void refused(int64_t job, const char *verb, const char *word)
{
	refused_phase(job, verb, NULL, LH_ESTATE, word);
}

/* ---- looking --------------------------------------------------------------- */

static inline bool is_in(int64_t job, const char *state)
{
	json_t *j = lh_jobs_get(f.jobs, job);
	bool yes = !strcmp(json_string_value(json_object_get(j, "state")), state);

	json_decref(j);
	return yes;
}

static inline int64_t number(int64_t job, const char *key)
{
	json_t *j = lh_jobs_get(f.jobs, job);
	int64_t v = json_integer_value(json_object_get(j, key));

	json_decref(j);
	return v;
}

static inline bool reason_has(int64_t job, const char *word)
{
	json_t *j = lh_jobs_get(f.jobs, job);
	bool yes = strstr(json_string_value(json_object_get(j, "reason")), word) != NULL;

	json_decref(j);
	return yes;
}

static inline int64_t query_db(const char *sql)
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

/* As a person with sqlite3 could; lhd is closed. */
static inline void alter_db(const char *fmt, ...)
{
	char sql[256];
	va_list ap;
	sqlite3 *db;

	va_start(ap, fmt);
	vsnprintf(sql, sizeof(sql), fmt, ap);
	va_end(ap);
	assert_int_equal(sqlite3_open(f.db, &db), 0);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), 0);
	sqlite3_close(db);
}

static inline void set_ctl(const char *name, const char *text)
{
	fake_write(f.ctl, name, text);
}

static inline void unset_ctl(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", f.ctl, name);
	assert_int_equal(unlink(path), 0);
}

static inline char *attempt_dir(int64_t job, int64_t attempt)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/jobs/%lld/attempt-%lld", f.state, (long long)job,
		 (long long)attempt);
	return path;
}

/* The worker's pid once pid.json tells it, 0 before. */
static inline int pid_of(int64_t job, int64_t attempt, const char *key)
{
	char *text = fake_text(attempt_dir(job, attempt), LH_ATTEMPT_PID);
	json_t *pids = text ? json_loads(text, 0, NULL) : NULL;
	int pid = (int)json_integer_value(json_object_get(pids, key));

	free(text);
	json_decref(pids);
	return pid;
}

static inline void kill_worker(int64_t job, int64_t attempt)
{
	int pid;

	RUN_UNTIL((pid = pid_of(job, attempt, "pid")));
	assert_int_equal(kill(pid, SIGKILL), 0);
}

static inline void run_to_step(int64_t job, const char *step)
{
	set_ctl("steps", step);
	RUN_UNTIL(number(job, "step") == atoll(step));
}

/* Steps 1 .. n are in the store, each once over all attempts that count. */
static inline bool has_steps(int64_t n)
{
	return query_db("SELECT count(DISTINCT step) FROM steps") == n &&
	       query_db("SELECT max(step) FROM steps") == n;
}

static inline int64_t start_running(void)
{
	int64_t job = submit();

	RUN_UNTIL(is_in(job, "RUNNING"));
	return job;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define MANAGER_TESTS(...)                                                     \
	int main(int argc, char **argv)                                        \
	{                                                                      \
		const struct CMUnitTest tests[] = { __VA_ARGS__ };             \
		int status;                                                    \
                                                                               \
		if (fake_main(argc, argv, &status))                            \
			return status;                                         \
		signal(SIGPIPE, SIG_IGN);                                      \
		if (argc > 1)                                                  \
			cmocka_set_test_filter(argv[1]);                       \
		return cmocka_run_group_tests(tests, NULL, NULL);              \
	}

#endif

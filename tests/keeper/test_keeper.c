/* test_keeper.c: lhkeeper as lhd uses it: what it starts, writes and forwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>

#include "../built.h"
#include "../scratch.h"
#include "lighthouse/proto.h"

enum { LIMIT_MS = 30000 };

static int setup(void **state)
{
	signal(SIGPIPE, SIG_IGN);
	return scratch_setup(state);
}

/* Starts lhkeeper on a shell script. */
static int keep(const char *script)
{
	char *keeper = built_program("lhkeeper");
	int pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		execl(keeper, keeper, scratch_dir, "--", "/bin/sh", "-c", script, NULL);
		_exit(99);
	}
	free(keeper);
	return pid;
}

static json_t *read_json(const char *name)
{
	size_t bytes;
	char *text = scratch_read(name, &bytes);
	json_t *json = json_loadb(text, bytes, 0, NULL);

	assert_non_null(json);
	free(text);
	return json;
}

static int64_t number(const json_t *m, const char *key)
{
	assert_true(json_is_integer(json_object_get(m, key)));
	return json_integer_value(json_object_get(m, key));
}

static void check_exit(int keeper, int code, int sig)
{
	int status = built_wait(keeper, LIMIT_MS);
	json_t *m;

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	m = read_json(LH_ATTEMPT_EXIT);
	assert_int_equal(number(m, "code"), code);
	assert_int_equal(number(m, "signal"), sig);
	assert_true(number(m, "ended_ms") >= number(m, "started_ms"));
	assert_true(number(m, "started_ms") > lh_time_ms() - LIMIT_MS);
	json_decref(m);
}

static void wait_for(const char *name)
{
	char *path = scratch_path(name);
	int64_t end = lh_clock_us() + LIMIT_MS * 1000;

	while (!lh_fs_exists(path)) {
		if (lh_clock_us() > end)
			fail_msg("no '%s'", name);
		usleep(2000);
	}
	free(path);
}

static void code_and_output_are_kept(void **state)
{
	size_t bytes;
	char *log;

	(void)state;
	scratch_write(LH_ATTEMPT_LOG, "before\n", 7);
	check_exit(keep("echo out; echo err >&2; cat; exit 7"), 7, 0);
	log = scratch_read(LH_ATTEMPT_LOG, &bytes);
	assert_string_equal(log, "before\nout\nerr\n");
	free(log);
}

static void a_signal_is_told_from_a_code(void **state)
{
	(void)state;
	check_exit(keep("kill -9 $$"), 0, 9);
	check_exit(keep("exit 9"), 9, 0);
}

static void a_program_that_is_not_there_is_reported(void **state)
{
	char *keeper = built_program("lhkeeper"), *log;
	size_t bytes;
	int pid = fork();

	(void)state;
	if (!pid) {
		execl(keeper, keeper, scratch_dir, "--", "/no/such/program", NULL);
		_exit(99);
	}
	free(keeper);
	check_exit(pid, 127, 0);
	log = scratch_read(LH_ATTEMPT_LOG, &bytes);
	assert_non_null(strstr(log, "cannot run '/no/such/program'"));
	free(log);
}

/* The script waits until it may end, so that it can be looked at alive; it ends
 * with the directory too. */
static const char waiting[] = "while [ ! -e go ] && [ -e worker.log ]; do sleep 0.01; done";

static int keep_waiting(json_t **pids)
{
	char *script = lh_asprintf("cd %s; %s", scratch_dir, waiting);
	int keeper = keep(script);

	wait_for(LH_ATTEMPT_PID);
	*pids = read_json(LH_ATTEMPT_PID);
	free(script);
	return keeper;
}

static void both_processes_are_named_with_their_start(void **state)
{
	json_t *pids;
	int keeper = keep_waiting(&pids), child = (int)number(pids, "pid");

	(void)state;
	assert_int_equal(number(pids, "keeper_pid"), keeper);
	assert_int_equal(number(pids, "keeper_start_time"), lh_proc_start_time(keeper));
	assert_int_equal(number(pids, "start_time"), lh_proc_start_time(child));
	assert_true(number(pids, "start_time") > 0);
	/* A session of their own: no terminal and no group of ours reaches them. */
	assert_int_equal(getsid(child), keeper);
	assert_int_not_equal(getsid(child), getsid(0));
	scratch_write("go", "", 0);
	check_exit(keeper, 0, 0);
	assert_int_equal(lh_proc_start_time(child), 0);
	json_decref(pids);
}

static void sigterm_reaches_the_program(void **state)
{
	json_t *pids;
	int keeper = keep_waiting(&pids);

	(void)state;
	kill(keeper, SIGTERM);
	check_exit(keeper, 0, SIGTERM);
	json_decref(pids);
}

static void a_terminal_cannot_end_it(void **state)
{
	json_t *pids;
	int keeper = keep_waiting(&pids);

	(void)state;
	kill(keeper, SIGINT);
	kill(keeper, SIGHUP);
	kill((int)number(pids, "pid"), SIGINT);
	kill((int)number(pids, "pid"), SIGHUP);
	scratch_write("go", "", 0);
	check_exit(keeper, 0, 0);
	json_decref(pids);
}

/* Whatever lhd had open, its sockets above all, is not open in the worker. */
static void nothing_is_inherited(void **state)
{
	char *log, *secret = scratch_path("secret");
	int fd = open(secret, O_RDWR | O_CREAT, 0600), high;
	size_t bytes;

	(void)state;
	assert_true(fd >= 0);
	high = fcntl(fd, F_DUPFD, 200); /* both without close-on-exec */
	check_exit(keep("ls -l /proc/$$/fd"), 0, 0);
	close(fd);
	close(high);
	log = scratch_read(LH_ATTEMPT_LOG, &bytes);
	assert_non_null(strstr(log, "0 -> /dev/null"));
	assert_null(strstr(log, "secret"));
	assert_null(strstr(log, " 200 -> "));
	free(log);
	free(secret);
}

/* Whatever killed it: a launcher's ranks are in sessions of their own. */
static void what_the_program_leaves_is_ended(void **state)
{
	char *script = lh_asprintf("cd %s; setsid sh -c 'sleep 1000 & echo $! $$ >new; mv new "
				   "left; wait' & while [ ! -e left ]; do sleep 0.01; done; "
				   "kill -9 $$", scratch_dir);
	char *text;
	int pids[2];
	size_t bytes;

	(void)state;
	check_exit(keep(script), 0, SIGKILL);
	text = scratch_read("left", &bytes);
	assert_int_equal(sscanf(text, "%d %d", &pids[0], &pids[1]), 2);
	for (int i = 0; i < 2; i++)
		assert_int_equal(lh_proc_start_time(pids[i]), 0);
	free(text);
	free(script);
}

static void wrong_arguments_are_a_usage_error(void **state)
{
	char *keeper = built_program("lhkeeper");
	int pid = fork();

	(void)state;
	if (!pid) {
		dup2(open("/dev/null", O_WRONLY), 2);
		execl(keeper, keeper, scratch_dir, "/bin/true", NULL);
		_exit(99);
	}
	assert_int_equal(WEXITSTATUS(built_wait(pid, LIMIT_MS)), 2);
	free(keeper);
}

#define KEEPER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		KEEPER_TEST(code_and_output_are_kept),
		KEEPER_TEST(a_signal_is_told_from_a_code),
		KEEPER_TEST(a_program_that_is_not_there_is_reported),
		KEEPER_TEST(both_processes_are_named_with_their_start),
		KEEPER_TEST(sigterm_reaches_the_program),
		KEEPER_TEST(a_terminal_cannot_end_it),
		KEEPER_TEST(nothing_is_inherited),
		KEEPER_TEST(what_the_program_leaves_is_ended),
		KEEPER_TEST(wrong_arguments_are_a_usage_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

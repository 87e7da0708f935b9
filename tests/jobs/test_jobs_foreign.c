/* test_jobs_foreign.c: who may dial in, and who is left alone; see manager.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "manager.h"

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

static int dial_and_say(const char *text)
{
	int fd = dial();

	assert_int_equal(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
	return fd;
}

/* What lhd says to `text` before it hangs up, in buf. */
static void converse(const char *text, char *buf, size_t bytes)
{
	int fd = dial_and_say(text);
	size_t used = 0;
	ssize_t n = -1;

	while (n) {
		RUN_UNTIL((n = recv(fd, buf + used, bytes - used - 1, MSG_DONTWAIT)) >= 0);
		used += (size_t)n;
	}
	buf[used] = '\0';
	close(fd);
}

static char *hello(int64_t job, int64_t attempt, const char *token, int64_t generation)
{
	static char text[512];

	snprintf(text, sizeof(text), "{\"m\":\"hello\",\"proto\":%d,\"job\":%lld,"
		 "\"attempt\":%lld,\"token\":\"%s\",\"pid\":1,\"start_time\":%lld,"
		 "\"generation\":%lld,\"step\":5}\n", LH_PROTO_VERSION, (long long)job,
		 (long long)attempt, token, (long long)(10 * job + attempt + generation),
		 (long long)generation);
	return text;
}

/* The token that lhd gave to an attempt of job 1. */
static const char *token_of(int64_t attempt)
{
	static char token[64];
	char *text = fake_text(attempt_dir(1, attempt), LH_ATTEMPT_START);
	json_t *start = json_loads(text, 0, NULL);

	snprintf(token, sizeof(token), "%s",
		 json_string_value(json_object_get(start, "token")));
	json_decref(start);
	free(text);
	return token;
}

static size_t foreigners(void)
{
	json_t *list = lh_jobs_foreign_workers(f.jobs);
	size_t n = json_array_size(list);

	json_decref(list);
	return n;
}

static bool is_listed(int pid, int64_t job, const char *word)
{
	json_t *list = lh_jobs_foreign_workers(f.jobs), *w = json_array_get(list, 0);
	bool yes = json_array_size(list) == 1 &&
		   json_integer_value(json_object_get(w, "pid")) == pid &&
		   json_integer_value(json_object_get(w, "job")) == job &&
		   json_integer_value(json_object_get(w, "step")) == 5 &&
		   strstr(json_string_value(json_object_get(w, "why")), word);

	json_decref(list);
	return yes;
}

static void run_for_ms(int64_t ms)
{
	int64_t end_us = lh_clock_us() + 1000 * ms;

	RUN_UNTIL(lh_clock_us() > end_us);
}

/* ---- of another lhd -------------------------------------------------------- */

static void unknown_workers_are_listed_and_left_alone(void **state)
{
	char buf[64];
	int64_t job = start_running();
	const struct {
		int64_t job, attempt;
		const char *token;
		int64_t generation;
		const char *why;
	} cases[] = { { 77, 1, "x", 1, "no job 77" }, { 1, 2, "x", 1, "no attempt 2" },
		      { 1, 1, "guess", 1, "another lhd started it" },
		      { 1, 1, token_of(1), 9, "generation 9; this one is 1" } };

	(void)state;
	assert_int_equal(job, 1);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int fd = dial_and_say(hello(cases[i].job, cases[i].attempt, cases[i].token,
					    cases[i].generation));

		RUN_UNTIL(foreigners() == 1);
		if (!is_listed(getpid(), cases[i].job, cases[i].why))
			fail_msg("case %zu is listed otherwise", i);
		/* What else it says is not listened to. */
		assert_int_equal(send(fd, "{\"m\":\"progress\"}\n", 17, 0), 17);
		run_to_step(job, (const char *[]){ "2", "3", "4", "5" }[i]);
		assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), -1);
		close(fd);
		RUN_UNTIL(foreigners() == 0);
	}
	/* Told of once each, however often they dial. */
	close(dial_and_say(hello(77, 1, "x", 1)));
	run_to_step(job, "6");
	RUN_UNTIL(query_db("SELECT max(step) FROM steps") == 6);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'worker.foreign'"), 4);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'worker.foreign' "
				  "AND job IS NULL AND text LIKE '%left alone%no job 77%'"), 1);
	assert_int_equal(lh_jobs_workers(f.jobs), 1);
}

static void a_worker_whose_attempt_is_over_is_sent_away(void **state)
{
	int64_t job = start_running();
	char buf[512];

	(void)state;
	run_to_step(job, "3");
	kill_worker(job, 1);
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	converse(hello(1, 1, token_of(1), 1), buf, sizeof(buf));
	assert_non_null(strstr(buf, "\"refuse\""));
	assert_non_null(strstr(buf, "LH_ESTATE"));
	assert_non_null(strstr(buf, "attempt 1 of job 1 is over"));
	assert_int_equal(foreigners(), 0);
}

static void what_is_no_hello_closes_the_line(void **state)
{
	int64_t job = start_running();
	char buf[512];

	(void)state;
	converse("what?\n", buf, sizeof(buf));
	assert_string_equal(buf, "");
	converse("{\"m\":\"records\",\"records\":[]}\n", buf, sizeof(buf));
	assert_string_equal(buf, "");
	run_to_step(job, "3"); /* the real one was not disturbed */
	assert_int_equal(lh_jobs_workers(f.jobs), 1);
}

static void a_job_that_a_foreign_worker_trains_waits_for_it(void **state)
{
	int64_t job = start_running();
	int fd;

	(void)state;
	run_to_step(job, "3");
	fd = dial_and_say(hello(1, 5, "x", 1));
	RUN_UNTIL(foreigners() == 1);
	kill_worker(job, 1);
	RUN_UNTIL(is_in(job, "RESTARTING"));
	run_for_ms(600); /* longer than the pause */
	assert_true(is_in(job, "RESTARTING"));
	close(fd);
	RUN_UNTIL(is_in(job, "RUNNING"));
	assert_int_equal(number(job, "attempt"), 6); /* nobody else's number */
}

/* ---- of another version ---------------------------------------------------- */

static void reopen_speaking(int proto)
{
	close_all();
	f.config.proto = proto;
	f.config.generation++;
	open_all();
}

static void a_worker_of_the_version_before_is_spoken_to(void **state)
{
	int64_t job;

	(void)state;
	reopen_speaking(LH_PROTO_VERSION + 1);
	job = start_running();
	run_to_step(job, "12");
	set_ctl("end", "done");
	RUN_UNTIL(is_in(job, "DONE"));
	assert_int_equal(foreigners(), 0);
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
	set_ctl("redial", "");
	RUN_UNTIL(is_in(job, "RUNNING"));
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'worker.foreign'"), 1);
	assert_int_equal(number(job, "attempt"), 1);
}

/* It was started by an old lhd; new ones come and go until it ends. */
static void an_older_worker_is_left_alone_until_it_ends(void **state)
{
	int64_t job = start_running();

	(void)state;
	f.config.hang_ms = 5; /* and its silence is no hang */
	for (int i = 0; i < 2; i++) {
		reopen_speaking(LH_PROTO_VERSION + 2);
		RUN_UNTIL(foreigners() == 1);
	}
	run_for_ms(1500);
	set_ctl("steps", "20");
	set_ctl("end", "done");
	RUN_UNTIL(is_in(job, "DONE"));
	assert_true(has_steps(20)); /* from its spool */
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE exit_code = 0 AND "
			   "outcome = 'done'") == 1);
	RUN_UNTIL(foreigners() == 0);
}

static void the_loss_of_an_older_worker_is_noticed(void **state)
{
	int64_t job = start_running();

	(void)state;
	reopen_speaking(LH_PROTO_VERSION + 2);
	RUN_UNTIL(foreigners() == 1);
	kill_worker(job, 1);
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE attempt = 1 AND "
			   "exit_signal = 9 AND outcome = 'lost'") == 1);
	RUN_UNTIL(number(job, "attempt") == 2);
}

MANAGER_TESTS(T(unknown_workers_are_listed_and_left_alone),
	      T(a_worker_whose_attempt_is_over_is_sent_away),
	      T(what_is_no_hello_closes_the_line),
	      T(a_job_that_a_foreign_worker_trains_waits_for_it),
	      T(a_worker_of_the_version_before_is_spoken_to),
	      T(a_worker_of_another_version_is_left_alone_and_told_of_once),
	      T(an_older_worker_is_left_alone_until_it_ends),
	      T(the_loss_of_an_older_worker_is_noticed))

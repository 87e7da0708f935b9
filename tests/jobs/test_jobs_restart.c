/* test_jobs_restart.c: what is kept of a worker that was lost, what its loss costs
 * the job, and when that is forgiven; see manager.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "manager.h"

static void lose(int64_t job, int64_t attempt)
{
	kill_worker(job, attempt);
	RUN_UNTIL(is_in(job, "RESTARTING"));
}

/* ---- evidence -------------------------------------------------------------- */

static void what_a_lost_worker_left_is_kept(void **state)
{
	int64_t job = start_running();
	char log[2048] = "";

	(void)state;
	for (int i = 1; i <= 30; i++)
		snprintf(log + strlen(log), sizeof(log) - strlen(log), "line %d%s\n", i,
			 i == 29 ? " \033[2J" : "");
	run_to_step(job, "5");
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE pid > 0"));
	fake_write(attempt_dir(job, 1), LH_ATTEMPT_LOG, log);
	lose(job, 1);
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE attempt = 1 AND "
			   "outcome = 'lost' AND exit_signal = 9 AND last_step = 5 AND "
			   "doing = 'training' AND why LIKE '%signal 9%last words: "
			   "''line 30''' AND hint LIKE '%kernel may have killed it%'") == 1);
	assert_int_equal(query_db("SELECT json_array_length(log_json) FROM attempts "
				  "WHERE attempt = 1"), 20);
	assert_int_equal(query_db("SELECT json_extract(log_json, '$[0]') = 'line 11' AND "
				  "json_extract(log_json, '$[18]') = 'line 29 \\x1b[2J' "
				  "FROM attempts WHERE attempt = 1"), 1);
	assert_int_equal(query_db("SELECT json_extract(data_json, '$.log[19]') = 'line 30' "
				  "AND json_extract(data_json, '$.doing') = 'training' AND "
				  "json_extract(data_json, '$.exit_signal') = 9 "
				  "FROM events WHERE kind = 'attempt.lost'"), 1);
}

static void a_kill_for_want_of_memory_is_told_from_another(void **state)
{
	char file[160];
	int64_t job;

	(void)state;
	snprintf(file, sizeof(file), "%s/memory.events", f.ctl);
	set_ctl("memory.events", "oom_kill 2\n");
	close_all();
	f.config.oom_file = file;
	open_all();
	job = submit_with("t", 9, 0);
	RUN_UNTIL(is_in(job, "RUNNING"));
	set_ctl("memory.events", "oom_kill 3\n");
	lose(job, 1);
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	lose(job, 2);
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE outcome = 'lost'") == 2);
	assert_int_equal(query_db("SELECT attempt FROM attempts WHERE why LIKE "
				  "'%by the kernel, for want of memory%' AND "
				  "hint LIKE '%less memory%'"), 1);
	assert_int_equal(query_db("SELECT count(*) FROM attempts WHERE attempt = 2 AND "
				  "hint LIKE '%may have%'"), 1);
}

/* One of several ranks: its parent says which, the launcher ends with a code. */
static void a_rank_that_is_killed_for_want_of_memory_is_told_of(void **state)
{
	char file[160], fault[300];
	int64_t job;

	(void)state;
	snprintf(file, sizeof(file), "%s/memory.events", f.ctl);
	set_ctl("memory.events", "oom_kill 2\n");
	close_all();
	f.config.oom_file = file;
	open_all();
	job = submit_with("t", 9, 0);
	RUN_UNTIL(is_in(job, "RUNNING"));
	snprintf(fault, sizeof(fault), "%s/jobs/%d/attempt-1/" LH_ATTEMPT_FAULT, f.state,
		 (int)job);
	assert_int_equal(lh_fs_write_atomic(fault, "rank 1 was killed", 17, NULL), 0);
	set_ctl("memory.events", "oom_kill 3\n");
	set_ctl("exits", "9");
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE outcome = 'lost'") == 1);
	assert_int_equal(query_db("SELECT count(*) FROM attempts WHERE attempt = 1 AND why "
				  "LIKE '%rank 1 was killed' AND hint LIKE '%less memory%'"),
			 1);
}

/* ---- errors that pass ------------------------------------------------------ */

static void fail_with(const char *code)
{
	set_ctl("code", code);
	set_ctl("end", "failed");
}

static void an_error_that_may_pass_is_a_loss(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "4");
	fail_with("LH_EWORKER");
	RUN_UNTIL(is_in(job, "RESTARTING"));
	unset_ctl("end");
	assert_true(reason_has(job, "restart 1 of 2"));
	assert_true(reason_has(job, "the loss is not finite")); /* its own words */
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	assert_int_equal(query_db("SELECT count(*) FROM attempts WHERE attempt = 1 AND "
				  "outcome = 'lost' AND exit_code = 0"), 1);
	fail_with("LH_ENONFINITE");
	RUN_UNTIL(is_in(job, "FAILED"));
	assert_int_equal(number(job, "restarts"), 1);
}

static void such_an_end_is_a_loss_for_the_next_lhd_too(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "4");
	fail_with("LH_EWORKER");
	RUN_UNTIL(is_in(job, "STOPPING"));
	close_all();
	unset_ctl("end");
	open_all();
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	assert_int_equal(number(job, "restarts"), 1);
}

static void a_cancel_ends_a_job_that_met_such_an_error(void **state)
{
	int64_t job = start_running();

	(void)state;
	set_ctl("deaf", "");
	command(job, "cancel");
	fail_with("LH_EWORKER");
	RUN_UNTIL(is_in(job, "CANCELLED"));
}

/* ---- what it costs --------------------------------------------------------- */

static void each_loss_waits_twice_as_long(void **state)
{
	static const char *const told[] = { "restart 1 of 5 in 0.25 s",
					    "restart 2 of 5 in 0.5 s", "restart 3 of 5 in 1 s" };
	int64_t job = submit_with("t", 5, 0);

	(void)state;
	for (int i = 0; i < 3; i++) {
		RUN_UNTIL(number(job, "attempt") == i + 1 && is_in(job, "RUNNING"));
		lose(job, i + 1);
		assert_true(reason_has(job, told[i]));
	}
}

static void an_lhd_that_is_lost_too_does_not_end_the_pause(void **state)
{
	int64_t job = start_running();

	(void)state;
	lose(job, 1);
	close_all();
	/* Ten seconds, and since then the clock was set back by an hour. */
	alter_db("UPDATE jobs SET restarts = 50");
	alter_db("UPDATE attempts SET ended_ms = %lld",
		 (long long)lh_time_ms() + 3600000);
	open_all();
	for (int i = 0; i < 200; i++) {
		uv_run(&f.loop, UV_RUN_NOWAIT);
		usleep(500);
	}
	assert_true(is_in(job, "RESTARTING"));
	close_all();
	alter_db("UPDATE attempts SET ended_ms = 1");
	open_all();
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
}

static void save(int64_t job, const char *step)
{
	int64_t id;

	run_to_step(job, step);
	id = command(job, "checkpoint");
	RUN_UNTIL(query_db("SELECT max(id) FROM commands WHERE outcome = 'applied' AND "
			   "method = 'job.checkpoint'") == id);
}

static void a_checkpoint_past_the_place_forgives(void **state)
{
	int64_t job = submit_with("t", 1, 0);

	(void)state;
	RUN_UNTIL(is_in(job, "RUNNING"));
	run_to_step(job, "6");
	lose(job, 1);
	set_ctl("steps", "0");
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	save(job, "6");
	assert_int_equal(number(job, "restarts"), 1);
	/* The next lhd knows the place. */
	close_all();
	open_all();
	run_to_step(job, "7");
	assert_int_equal(number(job, "restarts"), 1);
	save(job, "8");
	assert_int_equal(number(job, "restarts"), 0);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'job.recovered' "
				  "AND text LIKE '%step 8 is saved, beyond step 6%'"), 1);
	lose(job, 2);
	RUN_UNTIL(number(job, "attempt") == 3 && is_in(job, "RUNNING"));
	kill_worker(job, 3);
	RUN_UNTIL(is_in(job, "FAILED"));
}

static void a_worker_that_dies_at_one_place_is_not_forgiven(void **state)
{
	int64_t job = submit_with("t", 2, 0);

	(void)state;
	for (int attempt = 1; attempt <= 3; attempt++) {
		RUN_UNTIL(number(job, "attempt") == attempt && is_in(job, "RUNNING"));
		save(job, "7");
		run_to_step(job, "9");
		set_ctl("steps", "7"); /* for the next one */
		kill_worker(job, attempt);
		RUN_UNTIL(!is_in(job, "RUNNING"));
	}
	RUN_UNTIL(is_in(job, "FAILED"));
	assert_true(reason_has(job, "without getting past step 9"));
}

MANAGER_TESTS(T(what_a_lost_worker_left_is_kept),
	      T(a_kill_for_want_of_memory_is_told_from_another),
	      T(a_rank_that_is_killed_for_want_of_memory_is_told_of),
	      T(an_error_that_may_pass_is_a_loss),
	      T(such_an_end_is_a_loss_for_the_next_lhd_too),
	      T(a_cancel_ends_a_job_that_met_such_an_error),
	      T(each_loss_waits_twice_as_long),
	      T(an_lhd_that_is_lost_too_does_not_end_the_pause),
	      T(a_checkpoint_past_the_place_forgives),
	      T(a_worker_that_dies_at_one_place_is_not_forgiven))

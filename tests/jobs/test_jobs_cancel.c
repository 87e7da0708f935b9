/* test_jobs_cancel.c: a job cancelled in every state; see manager.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "manager.h"

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

MANAGER_TESTS(T(cancel_works_while_running),
	      T(cancel_works_while_paused),
	      T(cancel_works_while_starting),
	      T(cancel_works_while_restarting),
	      T(cancel_of_a_worker_that_does_not_listen_ends_in_sigterm),
	      T(cancel_of_a_worker_that_hangs_ends_in_sigkill))

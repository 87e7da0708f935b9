/* test_jobs_stop.c: lhd told to end, in every state of a job and of its store; see
 * manager.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "manager.h"

static void begin_drain(void)
{
	f.closed = 0;
	lh_jobs_drain(f.jobs, on_closed, NULL);
	assert_int_equal(f.closed, 0);
}

static void drain(void)
{
	begin_drain();
	RUN_UNTIL(f.closed);
}

static void reopen(void)
{
	close_all();
	f.config.generation++;
	open_all();
}

/* Another program that writes. */
static sqlite3 *lock_store(void)
{
	sqlite3 *other;

	assert_int_equal(sqlite3_open(f.db, &other), 0);
	sqlite3_busy_timeout(other, 5000);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), 0);
	return other;
}

static void unlock_store(sqlite3 *other)
{
	assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), 0);
	sqlite3_close(other);
}

/* ---- states ---------------------------------------------------------------- */

static void draining_puts_jobs_back_and_the_next_lhd_goes_on(void **state)
{
	int64_t job = start_running(), queued = submit();
	struct answer a;

	(void)state;
	run_to_step(job, "6");
	drain();
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
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE outcome = 'stopped'") == 1);
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE method = 'job.stop' AND "
			   "outcome = 'applied' AND program = 'lhd'") == 1);
}

/* Else it would linger for it. */
static void the_end_of_a_worker_is_acknowledged(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "6");
	drain();
	close_all(); /* commits what is queued */
	open_all();
	assert_int_equal(fake_number(attempt_dir(job, 1), "acked", 0),
			 query_db("SELECT last_seq FROM attempts WHERE attempt = 1"));
}

static void a_worker_that_has_not_dialled_is_told_when_it_does(void **state)
{
	int64_t job;

	(void)state;
	set_ctl("silent", "");
	job = submit();
	RUN_UNTIL(pid_of(job, 1, "pid"));
	begin_drain();
	assert_true(is_in(job, "STOPPING"));
	unset_ctl("silent");
	RUN_UNTIL(f.closed);
	assert_true(is_in(job, "QUEUED"));
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE outcome = 'stopped'") == 1);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'worker.kill'"), 0);
}

static void a_start_that_has_not_come_to_a_process_comes_to_none(void **state)
{
	int64_t job = submit();

	(void)state;
	assert_true(is_in(job, "STARTING"));
	drain();
	assert_true(is_in(job, "QUEUED"));
	assert_int_equal(pid_of(job, 1, "pid"), 0);
	reopen();
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	assert_int_equal(number(job, "restarts"), 0);
}

static void a_paused_job_is_paused_again_once_it_is_resumed(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "4");
	command(job, "pause");
	RUN_UNTIL(is_in(job, "PAUSED"));
	drain();
	assert_true(is_in(job, "QUEUED") && reason_has(job, "paused at step 4"));
	reopen();
	command(job, "resume");
	RUN_UNTIL(is_in(job, "RUNNING"));
	RUN_UNTIL(query_db("SELECT first_step FROM attempts WHERE attempt = 2") == 4);
}

static void a_job_between_two_workers_is_not_started(void **state)
{
	int64_t job = start_running();

	(void)state;
	kill_worker(job, 1);
	RUN_UNTIL(is_in(job, "RESTARTING"));
	drain();
	assert_true(is_in(job, "QUEUED"));
	assert_int_equal(number(job, "attempt"), 1);
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome IS NULL") == 0);
}

static void a_job_that_is_being_cancelled_is_cancelled(void **state)
{
	int64_t job = start_running();

	(void)state;
	set_ctl("slow", "");
	command(job, "cancel");
	begin_drain();
	unset_ctl("slow");
	RUN_UNTIL(f.closed);
	assert_true(is_in(job, "CANCELLED"));
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome IS NULL") == 0);
}

/* ---- time ------------------------------------------------------------------ */

static void reopen_with_graces_ms(int64_t stop_ms, int64_t kill_ms)
{
	f.config.stop_grace_ms = stop_ms;
	f.config.kill_grace_ms = kill_ms;
	reopen();
}

static void a_worker_without_a_line_gets_the_signal(void **state)
{
	int64_t job;

	(void)state;
	reopen_with_graces_ms(30, 20000);
	set_ctl("silent", "");
	job = submit();
	RUN_UNTIL(pid_of(job, 1, "pid") && fake_has(attempt_dir(job, 1), LH_ATTEMPT_SPOOL));
	drain();
	assert_true(is_in(job, "QUEUED"));
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE outcome = 'stopped'") == 1);
}

static void a_save_that_takes_longer_than_lhd_has_is_ended(void **state)
{
	int64_t job;

	(void)state;
	reopen_with_graces_ms(30, 30);
	set_ctl("slow", "");
	job = start_running();
	drain();
	assert_true(is_in(job, "QUEUED"));
	assert_int_equal(number(job, "restarts"), 0);
	RUN_UNTIL(query_db("SELECT count(*) FROM attempts WHERE exit_signal = 9") == 1);
}

static void a_save_that_moves_is_waited_for_while_lhd_stays(void **state)
{
	int64_t job, end_ms;

	(void)state;
	reopen_with_graces_ms(10 * FAKE_PROGRESS_MS, 30);
	set_ctl("slow", "");
	job = start_running();
	command(job, "cancel");
	end_ms = lh_time_ms() + 5 * f.config.stop_grace_ms;
	RUN_UNTIL(lh_time_ms() > end_ms);
	assert_true(is_in(job, "STOPPING"));
	set_ctl("stuck", ""); /* and one that does not is not */
	RUN_UNTIL(is_in(job, "CANCELLED"));
	RUN_UNTIL(query_db("SELECT count(*) FROM events WHERE kind = 'worker.kill'") == 2);
}

static void a_process_that_nothing_ends_is_left(void **state)
{
	char path[512];
	int64_t job;
	int pid;

	(void)state;
	reopen_with_graces_ms(30, 30);
	set_ctl("silent", ""); /* a hello would name it too */
	job = submit();
	RUN_UNTIL((pid = pid_of(job, 1, "pid")));
	snprintf(path, sizeof(path), "%s/%s", attempt_dir(job, 1), LH_ATTEMPT_PID);
	assert_int_equal(unlink(path), 0); /* lhd does not know it any more */
	drain();
	assert_true(is_in(job, "STOPPING"));
	assert_int_equal(kill(pid, 0), 0);
}

/* ---- a store that takes nothing -------------------------------------------- */

static void a_locked_store_does_not_hold_up_the_end(void **state)
{
	int64_t job = start_running();
	sqlite3 *other;

	(void)state;
	run_to_step(job, "6");
	other = lock_store();
	run_to_step(job, "9");
	drain();
	assert_int_equal(processes(0), 0);
	assert_int_equal(query_db("SELECT count(*) FROM commands WHERE method = 'job.stop'"), 0);
	unlock_store(other);
	reopen();
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	RUN_UNTIL(query_db("SELECT first_step FROM attempts WHERE attempt = 2") == 9);
	assert_true(has_steps(9));
	assert_int_equal(number(job, "restarts"), 0);
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome IS NULL") == 0);
}

/* Its row is not stored, so nothing was started for it. */
static void a_start_that_waits_for_the_store_does_not_hold_it_up(void **state)
{
	int64_t job = start_running();
	sqlite3 *other;

	(void)state;
	reopen_with_graces_ms(30, 30);
	run_to_step(job, "3");
	RUN_UNTIL(has_steps(3));
	other = lock_store();
	kill_worker(job, 1);
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "STARTING"));
	drain();
	unlock_store(other);
	reopen();
	RUN_UNTIL(number(job, "attempt") == 3 && is_in(job, "RUNNING"));
	assert_int_equal(number(job, "restarts"), 1);
}

static void a_request_that_waits_for_the_store_is_answered(void **state)
{
	int64_t job = start_running();
	struct answer a, b, c;
	sqlite3 *other = lock_store();

	(void)state;
	ask(&a, job, "pause", NULL, "id-1");
	ask(&b, job, "pause", NULL, "id-1");
	RUN_UNTIL(*lh_store_trouble(f.store));
	assert_int_equal(a.count + b.count, 0);
	lh_jobs_give_up_requests(f.jobs);
	assert_true(a.count == 1 && b.count == 1);
	assert_int_equal(a.code, LH_ESTATE);
	assert_int_equal(b.code, LH_ESTATE);
	ask(&c, job, "cancel", NULL, NULL);
	assert_int_equal(c.code, LH_ESTATE);
	unlock_store(other);
	reopen();
	RUN_UNTIL(is_in(job, "PAUSED")); /* it was stored after all */
	ask(&b, job, "pause", NULL, "id-1");
	RUN_UNTIL(b.count);
	assert_int_equal(b.code, 0);
	assert_int_equal(a.count, 1);
}

MANAGER_TESTS(T(draining_puts_jobs_back_and_the_next_lhd_goes_on),
	      T(the_end_of_a_worker_is_acknowledged),
	      T(a_worker_that_has_not_dialled_is_told_when_it_does),
	      T(a_start_that_has_not_come_to_a_process_comes_to_none),
	      T(a_paused_job_is_paused_again_once_it_is_resumed),
	      T(a_job_between_two_workers_is_not_started),
	      T(a_job_that_is_being_cancelled_is_cancelled),
	      T(a_worker_without_a_line_gets_the_signal),
	      T(a_save_that_takes_longer_than_lhd_has_is_ended),
	      T(a_save_that_moves_is_waited_for_while_lhd_stays),
	      T(a_process_that_nothing_ends_is_left),
	      T(a_locked_store_does_not_hold_up_the_end),
	      T(a_start_that_waits_for_the_store_does_not_hold_it_up),
	      T(a_request_that_waits_for_the_store_is_answered))

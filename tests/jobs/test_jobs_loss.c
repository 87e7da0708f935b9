/* test_jobs_loss.c: workers that are lost, and an lhd that is; see manager.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "manager.h"

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

/* It trains on: were its attempt over, its records would be lost. */
static void a_worker_that_its_keeper_did_not_note_is_found_by_its_hello(void **state)
{
	int64_t job;

	(void)state;
	set_ctl("orphan", "");
	job = start_running();
	run_to_step(job, "8");
	assert_int_equal(number(job, "attempt"), 1);
	unset_ctl("orphan");
	assert_int_equal(kill((int)query_db("SELECT pid FROM attempts"), SIGKILL), 0);
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	assert_int_equal(query_db("SELECT count(*) FROM steps WHERE attempt = 1"), 8);
}

static void reopen_with_hang_ms(int64_t hang_ms)
{
	close_all();
	f.config.hang_ms = hang_ms;
	open_all();
}

static void a_worker_that_gets_nowhere_is_killed_and_replaced(void **state)
{
	int64_t job;

	(void)state;
	reopen_with_hang_ms(600);
	job = start_running();
	run_to_step(job, "8");
	set_ctl("stuck", "");
	RUN_UNTIL(query_db("SELECT count(*) FROM events WHERE kind = 'worker.hung' AND "
			   "attempt = 1 AND text LIKE '%while training after step 8 %'") == 1);
	unset_ctl("stuck");
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	RUN_UNTIL(query_db("SELECT count(*) FROM events WHERE kind = 'attempt.lost' AND "
			   "text LIKE '%made no progress for%signal 9%while training after "
			   "step 8%'") == 1);
	assert_int_equal(number(job, "restarts"), 1);
}

/* Steps come, pauses last, and the counter may stand still for less than five
 * steps' time: none of it is a hang. */
static void a_slow_worker_is_no_hang(void **state)
{
	int64_t job, end_ms;

	(void)state;
	set_ctl("step_ms", "60000");
	reopen_with_hang_ms(600); /* a busy machine stands still for a while, too */
	job = start_running();
	run_to_step(job, "3");
	set_ctl("stuck", "");
	end_ms = lh_time_ms() + 1500;
	RUN_UNTIL(lh_time_ms() > end_ms);
	unset_ctl("stuck");
	command(job, "pause");
	RUN_UNTIL(is_in(job, "PAUSED"));
	end_ms = lh_time_ms() + 1500;
	RUN_UNTIL(lh_time_ms() > end_ms);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'worker.hung'"), 0);
	assert_int_equal(number(job, "attempt"), 1);
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
	RUN_UNTIL((pid = pid_of(job, 1, "pid"))); /* it may step before its keeper says who it is */
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

/* The next record is a step far into the attempt: it is not its first. */
static void an_adopted_attempt_keeps_its_first_step(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "8");
	RUN_UNTIL(has_steps(8));
	close_all();
	set_ctl("steps", "20");
	f.config.generation++;
	open_all();
	RUN_UNTIL(has_steps(20));
	assert_int_equal(query_db("SELECT first_step FROM attempts"), 0);
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

/* Answers how it was taken. */
static struct answer switch_at(int64_t job, int64_t step)
{
	struct lh_caller who = caller(NULL);
	json_t *args = json_pack("{s:s, s:I}", "phase", "1", "at_step", (json_int_t)step);
	struct answer a = { 0 };

	lh_jobs_command(f.jobs, job, "switch", args, &who, on_reply, &a);
	json_decref(args);
	RUN_UNTIL(a.count);
	return a;
}

/* It would switch at once. */
static void a_worker_of_the_version_before_gets_nothing_for_a_later_step(void **state)
{
	int64_t job = start_running();
	struct answer a;

	(void)state;
	set_ctl("deaf", "");
	run_to_step(job, "3");
	a = switch_at(job, 1000);
	assert_int_equal(a.code, 0);
	set_ctl("proto", "1");
	set_ctl("redial", "");
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome = 'refused' AND "
			   "text LIKE '%cannot wait for a step'") == 1);
	a = switch_at(job, 1000);
	assert_int_equal(a.code, LH_ESTATE);
	assert_non_null(strstr(a.text, "cannot wait for a step"));
	assert_int_equal(number(job, "phase"), 0);
	run_to_step(job, "4"); /* it goes on all the same */
}

/* Its worker may make that step before anybody can tell it. */
static void what_is_for_a_later_step_is_told_at_the_start(void **state)
{
	int64_t job = start_running();
	json_t *start, *held;
	char *text;

	(void)state;
	set_ctl("deaf", "");
	run_to_step(job, "3");
	assert_int_equal(switch_at(job, 1000).code, 0);
	command(job, "checkpoint");
	kill_worker(job, 1);
	RUN_UNTIL(number(job, "attempt") == 2 && is_in(job, "RUNNING"));
	text = fake_text(attempt_dir(job, 2), LH_ATTEMPT_START);
	start = json_loads(text, 0, NULL);
	held = json_object_get(start, "held");
	assert_int_equal(json_array_size(held), 1);
	held = json_array_get(held, 0);
	assert_string_equal(json_string_value(json_object_get(held, "verb")), "switch");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(held, "args"),
							    "at_step")), 1000);
	json_decref(start);
	free(text);
}

MANAGER_TESTS(T(a_killed_worker_is_replaced_from_its_checkpoint),
	      T(a_worker_that_its_keeper_did_not_note_is_found_by_its_hello),
	      T(a_worker_that_gets_nowhere_is_killed_and_replaced),
	      T(a_slow_worker_is_no_hang),
	      T(restarts_run_out_and_the_reason_says_of_what),
	      T(a_worker_that_cannot_be_started_fails_the_job),
	      T(what_was_pending_goes_to_the_next_attempt),
	      T(the_next_attempt_is_told_what_to_repeat),
	      T(a_live_worker_is_adopted_and_no_record_is_lost),
	      T(an_adopted_attempt_keeps_its_first_step),
	      T(a_job_that_ended_while_nobody_watched_is_found_done),
	      T(a_pid_that_is_somebody_elses_now_is_left_alone),
	      T(an_attempt_that_was_never_spawned_is_no_loss),
	      T(a_state_directory_too_deep_for_a_socket_is_refused),
	      T(a_keeper_that_was_killed_does_not_end_its_worker),
	      T(pending_commands_survive_a_restart),
	      T(a_worker_of_the_version_before_gets_nothing_for_a_later_step),
	      T(what_is_for_a_later_step_is_told_at_the_start))

/* test_jobs_preempt.c: jobs that take each other's places; see manager.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "manager.h"

static void reopen_with_slots(int slots)
{
	close_all();
	f.config.slots = slots;
	open_all();
}

static int64_t preempted(int64_t job, int64_t by)
{
	char sql[200];

	snprintf(sql, sizeof(sql), "SELECT count(*) FROM events WHERE kind = 'job.preempted' "
		 "AND job = %lld AND json_extract(data_json, '$.by') = %lld", (long long)job,
		 (long long)by);
	return query_db(sql);
}

/* Every job has to be given up soon, or the test does not end. */
static void end_all(void)
{
	set_ctl("end", "done");
}

static void a_higher_one_takes_the_place_and_gives_it_back(void **state)
{
	int64_t low = start_running(), high;

	(void)state;
	run_to_step(low, "6");
	high = submit_with("high", 0, 1);
	RUN_UNTIL(is_in(high, "RUNNING"));
	assert_true(is_in(low, "QUEUED"));
	assert_true(reason_has(low, "stopped at step 6 (job 2 'high' of priority 1 takes"));
	RUN_UNTIL(preempted(low, high) == 1);
	command(high, "cancel");
	RUN_UNTIL(is_in(low, "RUNNING"));
	assert_int_equal(number(low, "attempt"), 2);
	assert_int_equal(number(low, "restarts"), 0);
	RUN_UNTIL(query_db("SELECT first_step FROM attempts WHERE job = 1 AND attempt = 2") == 6);
	end_all();
	RUN_UNTIL(is_in(low, "DONE"));
}

static void equals_wait_for_each_other(void **state)
{
	int64_t first, second;

	(void)state;
	first = submit_with("first", 0, 3);
	second = submit_with("second", 0, 3);
	RUN_UNTIL(is_in(first, "RUNNING"));
	end_all();
	RUN_UNTIL(is_in(second, "DONE"));
	assert_int_equal(number(first, "attempt"), 1);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'job.preempted'"), 0);
}

static void one_that_does_not_let_it_keeps_its_place(void **state)
{
	int64_t stays, other, high;

	(void)state;
	reopen_with_slots(2);
	f.more = json_pack("{s:b}", "preemptible", 0);
	stays = submit_with("stays", 0, -5);
	json_decref(f.more);
	f.more = NULL;
	other = submit_with("other", 0, 0);
	RUN_UNTIL(is_in(stays, "RUNNING") && is_in(other, "RUNNING"));
	high = submit_with("high", 0, 9);
	RUN_UNTIL(is_in(high, "RUNNING"));
	assert_true(is_in(stays, "RUNNING") && is_in(other, "QUEUED"));
}

/* Of several the lowest, of equals the newest; no more than have to. */
static void the_lowest_goes_first_and_only_as_many_as_must(void **state)
{
	int64_t job[5];

	(void)state;
	reopen_with_slots(3);
	job[0] = submit_with("a", 0, 1);
	job[1] = submit_with("b", 0, 0);
	job[2] = submit_with("c", 0, 0);
	RUN_UNTIL(is_in(job[0], "RUNNING") && is_in(job[1], "RUNNING") &&
		  is_in(job[2], "RUNNING"));
	job[3] = submit_with("d", 0, 2);
	RUN_UNTIL(is_in(job[3], "RUNNING"));
	assert_true(is_in(job[2], "QUEUED") && is_in(job[1], "RUNNING"));
	job[4] = submit_with("e", 0, 2);
	RUN_UNTIL(is_in(job[4], "RUNNING"));
	assert_true(is_in(job[1], "QUEUED") && is_in(job[0], "RUNNING"));
	RUN_UNTIL(query_db("SELECT count(*) FROM events WHERE kind = 'job.preempted'") == 2);
}

static void no_place_is_made_where_one_gets_free(void **state)
{
	int64_t ending, other, high;

	(void)state;
	reopen_with_slots(2);
	ending = submit_with("ending", 0, 0);
	other = submit_with("other", 0, 0);
	RUN_UNTIL(is_in(ending, "RUNNING") && is_in(other, "RUNNING"));
	set_ctl("slow", "");
	command(ending, "cancel");
	high = submit_with("high", 0, 9);
	assert_true(is_in(high, "QUEUED") && is_in(other, "RUNNING"));
	unset_ctl("slow");
	RUN_UNTIL(is_in(high, "RUNNING"));
	assert_true(is_in(ending, "CANCELLED") && is_in(other, "RUNNING"));
}

static void one_that_is_paused_is_held_afterwards(void **state)
{
	int64_t low = start_running(), high;

	(void)state;
	command(low, "pause");
	RUN_UNTIL(is_in(low, "PAUSED"));
	high = submit_with("high", 0, 1);
	RUN_UNTIL(is_in(high, "RUNNING"));
	assert_true(reason_has(low, "resume starts it"));
	command(high, "cancel");
	RUN_UNTIL(is_in(high, "CANCELLED"));
	assert_true(is_in(low, "QUEUED"));
	command(low, "resume");
	RUN_UNTIL(is_in(low, "RUNNING"));
}

static void one_between_two_workers_leaves_at_once(void **state)
{
	int64_t low = start_running(), high;

	(void)state;
	kill_worker(low, 1);
	RUN_UNTIL(is_in(low, "RESTARTING"));
	high = submit_with("high", 0, 1);
	RUN_UNTIL(is_in(high, "RUNNING"));
	assert_true(is_in(low, "QUEUED") && reason_has(low, "takes its place"));
	command(high, "cancel");
	RUN_UNTIL(number(low, "attempt") == 2 && is_in(low, "RUNNING"));
}

static void another_lhd_goes_on_with_it(void **state)
{
	int64_t low = start_running(), high;

	(void)state;
	run_to_step(low, "3");
	set_ctl("slow", "");
	high = submit_with("high", 0, 1);
	RUN_UNTIL(is_in(low, "STOPPING"));
	RUN_UNTIL(preempted(low, high) == 1);
	close_all();
	f.config.generation++;
	open_all();
	unset_ctl("slow");
	RUN_UNTIL(is_in(high, "RUNNING"));
	assert_true(is_in(low, "QUEUED") && reason_has(low, "takes its place"));
	assert_int_equal(number(low, "restarts"), 0);
}

/* Slots there are enough of. */
static void a_gpu_is_one_jobs(void **state)
{
	int64_t low, next, cpu, high;

	(void)state;
	reopen_with_slots(4);
	f.more = json_pack("{s:s}", "device", "cuda");
	low = submit_with("low", 0, 0);
	next = submit_with("next", 0, 0);
	json_object_set_new(f.more, "device", json_string("cpu"));
	cpu = submit_with("cpu", 0, -9);
	RUN_UNTIL(is_in(low, "RUNNING") && is_in(cpu, "RUNNING"));
	assert_true(is_in(next, "QUEUED"));
	json_object_set_new(f.more, "device", json_string("cuda"));
	high = submit_with("high", 0, 1);
	RUN_UNTIL(is_in(high, "RUNNING"));
	assert_true(is_in(low, "QUEUED") && is_in(next, "QUEUED") && is_in(cpu, "RUNNING"));
	command(high, "cancel");
	RUN_UNTIL(is_in(low, "RUNNING"));
	assert_true(is_in(next, "QUEUED"));
}

static void a_resume_of_one_that_stops_is_done_in_the_queue(void **state)
{
	int64_t job = start_running(), other;

	(void)state;
	command(job, "pause");
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE method = 'job.pause' AND "
			   "outcome = 'applied'") == 1);
	set_ctl("slow", "");
	other = submit_with("other", 0, 5);
	RUN_UNTIL(is_in(job, "STOPPING"));
	refused(job, "pause", "is stopping");
	command(job, "resume");
	refused(job, "resume", "is stopping");
	close_all();
	open_all();
	assert_true(is_in(job, "STOPPING"));
	unset_ctl("slow");
	RUN_UNTIL(is_in(other, "RUNNING"));
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE method = 'job.resume' AND "
			   "outcome = 'applied' AND text = 'free to start'") == 1);
	command(other, "cancel");
	RUN_UNTIL(is_in(job, "RUNNING"));
}

MANAGER_TESTS(T(a_resume_of_one_that_stops_is_done_in_the_queue),
	      T(a_higher_one_takes_the_place_and_gives_it_back),
	      T(equals_wait_for_each_other),
	      T(one_that_does_not_let_it_keeps_its_place),
	      T(the_lowest_goes_first_and_only_as_many_as_must),
	      T(no_place_is_made_where_one_gets_free),
	      T(one_that_is_paused_is_held_afterwards),
	      T(one_between_two_workers_leaves_at_once),
	      T(another_lhd_goes_on_with_it),
	      T(a_gpu_is_one_jobs))

/* test_jobs_wait.c: jobs that wait in the queue for a time or another job; see
 * manager.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "manager.h"

enum { FAR_MS = 3600 * 1000 };

static struct answer ask_how(const char *name, struct lh_submission how)
{
	struct answer a;

	ask_submit_how(&a, name, 2, how, NULL);
	RUN_UNTIL(a.count);
	return a;
}

static int64_t submit_how(const char *name, struct lh_submission how)
{
	struct answer a = ask_how(name, how);

	if (a.code)
		fail_msg("%s", a.text);
	return a.job;
}

static int64_t events(const char *kind, int64_t job)
{
	char sql[120];

	snprintf(sql, sizeof(sql), "SELECT count(*) FROM events WHERE kind = '%s' AND job = %lld",
		 kind, (long long)job);
	return query_db(sql);
}

static void a_job_starts_once_its_forerunner_is_done(void **state)
{
	int64_t first = start_running(), second;

	(void)state;
	second = submit_how("second", (struct lh_submission){ .after_job = first,
							      .priority = 9 });
	assert_true(reason_has(second, "waits for job 1 't' to be done"));
	assert_int_equal(number(second, "after"), first);
	run_to_step(first, "6");
	assert_true(is_in(first, "RUNNING")); /* its place is not taken */
	set_ctl("end", "done");
	RUN_UNTIL(is_in(second, "DONE"));
	assert_int_equal(events("job.due", second), 1);
	assert_int_equal(events("job.preempted", first), 0);
}

static void one_whose_forerunner_ends_otherwise_is_held_until_it_is_resumed(void **state)
{
	int64_t first = start_running(), second, third;

	(void)state;
	second = submit_how("second", (struct lh_submission){ .after_job = first });
	third = submit_how("third", (struct lh_submission){ .after_job = second });
	command(first, "cancel");
	RUN_UNTIL(is_in(first, "CANCELLED"));
	RUN_UNTIL(events("job.held", second) == 1);
	assert_true(is_in(second, "QUEUED"));
	assert_true(reason_has(second, "job 1 't', which it was to come after, ended as CANCELLED "
				       "(hint: 'lhctl resume 2'"));
	close_all();
	open_all();
	assert_true(reason_has(second, "ended as CANCELLED"));
	refused(second, "pause", "paused already");
	assert_true(reason_has(third, "waits for job 2 'second'"));
	command(second, "resume");
	RUN_UNTIL(is_in(second, "RUNNING"));
	set_ctl("end", "done");
	RUN_UNTIL(is_in(third, "DONE"));
	assert_int_equal(events("job.held", second), 1);
}

/* As when lhd was killed between the end of the one and the word about the other. */
static void an_end_that_nobody_told_of_is_found_at_the_next_start(void **state)
{
	int64_t first = start_running(), second;

	(void)state;
	second = submit_how("second", (struct lh_submission){ .after_job = first });
	command(first, "cancel");
	RUN_UNTIL(events("job.held", second) == 1);
	close_all();
	alter_db("UPDATE jobs SET after_job = 1, wanted = 'run', reason = '' WHERE id = 2");
	open_all();
	RUN_UNTIL(events("job.held", second) == 2);
	assert_true(is_in(second, "QUEUED"));
}

static void a_time_is_waited_for_through_a_restart(void **state)
{
	int64_t job;

	(void)state;
	job = submit_how("late", (struct lh_submission){ .not_before_ms = lh_time_ms() + FAR_MS });
	assert_true(reason_has(job, "waits for its time"));
	assert_int_equal(submit(), 2); /* it is in nobody's way */
	RUN_UNTIL(is_in(2, "RUNNING"));
	command(2, "cancel");
	RUN_UNTIL(is_in(2, "CANCELLED"));
	close_all();
	open_all();
	run_to_step(submit(), "3");
	assert_true(is_in(job, "QUEUED") && reason_has(job, "waits for its time"));
	command(3, "cancel");
	RUN_UNTIL(is_in(3, "CANCELLED"));
	close_all();
	alter_db("UPDATE jobs SET not_before_ms = not_before_ms - 3600000 WHERE id = 1");
	open_all();
	RUN_UNTIL(is_in(job, "RUNNING"));
	assert_int_equal(events("job.due", job), 1);
}

static void a_time_that_comes_starts_the_job(void **state)
{
	int64_t at_ms = lh_time_ms() + 300, job;

	(void)state;
	job = submit_how("soon", (struct lh_submission){ .not_before_ms = at_ms });
	RUN_UNTIL(is_in(job, "RUNNING"));
	assert_true(query_db("SELECT started_ms FROM jobs WHERE id = 1") >= at_ms);
}

static void a_forerunner_that_cannot_end_well_is_refused(void **state)
{
	int64_t first = start_running();
	struct answer a = ask_how("x", (struct lh_submission){ .after_job = 99 });

	(void)state;
	assert_int_equal(a.code, LH_ENOTFOUND);
	command(first, "cancel");
	RUN_UNTIL(is_in(first, "CANCELLED"));
	a = ask_how("x", (struct lh_submission){ .after_job = first });
	assert_int_equal(a.code, LH_ESTATE);
	assert_non_null(strstr(a.text, "job 1 't' ended as CANCELLED"));
	assert_int_equal(query_db("SELECT count(*) FROM jobs"), 1);
}

static void a_resume_ends_the_waiting(void **state)
{
	int64_t first = start_running(), second, far = lh_time_ms() + FAR_MS;

	(void)state;
	second = submit_how("second", (struct lh_submission){ .after_job = first,
							      .not_before_ms = far });
	command(second, "pause");
	command(second, "resume"); /* lets go of it only */
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome IS NULL") == 0);
	assert_int_equal(number(second, "not_before_ms"), far);
	command(second, "resume");
	RUN_UNTIL(reason_has(second, "resumed before what it waited for"));
	refused(second, "resume", "not paused");
	close_all();
	open_all();
	command(first, "cancel");
	RUN_UNTIL(is_in(second, "RUNNING"));
	assert_int_equal(query_db("SELECT count(*) FROM jobs WHERE not_before_ms IS NOT NULL "
				  "OR after_job IS NOT NULL"), 0);
}

MANAGER_TESTS(T(a_job_starts_once_its_forerunner_is_done),
	      T(one_whose_forerunner_ends_otherwise_is_held_until_it_is_resumed),
	      T(an_end_that_nobody_told_of_is_found_at_the_next_start),
	      T(a_time_is_waited_for_through_a_restart),
	      T(a_time_that_comes_starts_the_job),
	      T(a_forerunner_that_cannot_end_well_is_refused),
	      T(a_resume_ends_the_waiting))

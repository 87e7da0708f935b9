/* test_nth_jobs.c: every call that touches a file fails once while a job is
 * submitted: it is refused with a reason, or it is there with all its files, and is
 * after a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../nth.h"
#include "../shim.h"
#include "manager.h"

/* None is started: what is tested ends with the answer. */
static int setup_queue(void **state)
{
	shim_install();
	if (setup(state))
		return -1;
	close_all();
	f.config.slots = 0;
	open_all();
	return 0;
}

static bool has_file(int64_t job, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/jobs/%lld/%s", f.state, (long long)job, name);
	return lh_fs_exists(path);
}

/* Gives 1 if there is a job now. */
static int submit_once(bool may_fail)
{
	struct answer a;

	ask_submit(&a, "t", 0, 0, NULL);
	RUN_UNTIL(a.count);
	if (a.code) {
		assert_true(may_fail && *a.text);
		return 0;
	}
	assert_true(has_file(a.job, LH_JOB_SPEC) && has_file(a.job, LH_JOB_FILE));
	return 1;
}

static void check_jobs(int count)
{
	assert_int_equal(lh_jobs_count(f.jobs), count);
	assert_int_equal(query_db("SELECT count(*) FROM jobs"), count);
}

static void a_submit_is_whole_or_refused_whatever_file_call_fails(void **state)
{
	struct nth nth = { 0 };
	int count = 0;

	(void)state;
	while (nth_next(&nth)) {
		nth_arm(&nth);
		count += submit_once(true);
		nth_disarm();
		check_jobs(count);
		count += submit_once(false);
	}
	assert_in_range(nth.tried, 30, 1000);
	close_all();
	open_all();
	check_jobs(count);
}

/* Who submits can ask again, so it is told at once what the disk does not take. */
static void a_submit_is_whole_or_refused_whatever_database_call_fails(void **state)
{
	bool failed = true;
	int n = 0, count = 0;

	(void)state;
	while (failed) {
		shim_calls = 0;
		shim_fail_at = ++n;
		count += submit_once(true);
		failed = shim_calls >= n;
		shim_fail_at = 0;
		check_jobs(count);
	}
	assert_in_range(n, 3, 1000);
	close_all();
	open_all();
	check_jobs(count);
}

#define QUEUE_TEST(name) cmocka_unit_test_setup_teardown(name, setup_queue, teardown)

MANAGER_TESTS(QUEUE_TEST(a_submit_is_whole_or_refused_whatever_file_call_fails),
	      QUEUE_TEST(a_submit_is_whole_or_refused_whatever_database_call_fails))

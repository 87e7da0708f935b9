/* test_trial.c: the record of a switch on trial: it comes back as it was, and nonsense
 * is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../scratch.h"
#include "train/trial.h"

static struct lh_trial trial(void)
{
	struct lh_trial t = { .step = 30, .phase = 1, .from = 0, .command = 7,
			      .attempts = 1 };

	lh_watch_init(&t.watch);
	lh_watch_refuse(&t.watch, LH_CAUSE_LOSS_SPIKE, 12, 9, 1);
	return t;
}

static void it_comes_back_as_it_was(void **state)
{
	char *path = scratch_path("trial.json");
	struct lh_trial t = trial(), back;

	(void)state;
	assert_false(lh_trial_read(path, &back));
	t.held = true;
	strcpy(t.why, "a reason with \xff in it");
	assert_int_equal(lh_trial_write(path, &t, NULL), 0);
	assert_true(lh_trial_read(path, &back));
	assert_true(lh_trial_is_same(&t, &back));
	assert_int_equal(back.from, 0);
	assert_int_equal(back.attempts, 1);
	assert_true(back.held);
	assert_non_null(strstr(back.why, "a reason with "));
	assert_memory_equal(&back.watch, &t.watch, sizeof(t.watch));
	back.step++;
	assert_false(lh_trial_is_same(&t, &back));
	assert_true(lh_trial_is_again(&t, &back));
	back.command = 8;
	assert_false(lh_trial_is_again(&t, &back));
	free(path);
}

static void it_fails_by_a_verdict_or_by_two_attempts(void **state)
{
	struct lh_trial t = trial();

	(void)state;
	assert_false(lh_trial_has_failed(&t));
	t.attempts = 2;
	assert_true(lh_trial_has_failed(&t));
	assert_string_equal(t.why, "2 workers were lost in its first steps");
	t = trial();
	strcpy(t.why, "no memory");
	assert_true(lh_trial_has_failed(&t));
	assert_string_equal(t.why, "no memory");
}

static void nonsense_is_none(void **state)
{
	static const char *const texts[] = {
		"", "{", "[]", "{\"step\": 1}",
		"{\"step\": 1, \"phase\": 99, \"from\": 0, \"command\": 0, \"held\": false, "
		"\"attempts\": 5, \"why\": \"x\", \"watch\": {}}",
		"{\"step\": 1, \"phase\": 1, \"from\": -1, \"command\": 0, \"held\": false, "
		"\"attempts\": 5, \"why\": \"x\", \"watch\": {}}" };
	char *path = scratch_path("trial.json");
	struct lh_trial t;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		scratch_write("trial.json", texts[i], strlen(texts[i]));
		assert_false(lh_trial_read(path, &t));
	}
	free(path);
}

#define TRIAL_TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TRIAL_TEST(it_comes_back_as_it_was),
		TRIAL_TEST(it_fails_by_a_verdict_or_by_two_attempts),
		TRIAL_TEST(nonsense_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

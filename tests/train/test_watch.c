/* test_watch.c: what is a spike and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "train/watch.h"

static const struct lh_job_instability both = { .loss_z = 6, .gradient_z = 6 };

/* A falling, noisy loss. */
static double loss_at(int i)
{
	return 5 - 0.02 * i + 0.05 * ((i * 37) % 11 - 5) / 5.0;
}

static void feed(struct lh_watch *w, int from, int to)
{
	double z;

	for (int i = from; i < to; i++) {
		assert_int_equal(lh_watch_judge(w, &both, loss_at(i), 1 + 0.1 * (i % 3), &z),
				 LH_CAUSE_NONE);
		lh_watch_accept(w, loss_at(i), 1 + 0.1 * (i % 3));
	}
}

static void ordinary_losses_pass_and_spikes_do_not(void **state)
{
	struct lh_watch w;
	double z;

	(void)state;
	lh_watch_init(&w);
	feed(&w, 0, 150);
	assert_int_equal(lh_watch_judge(&w, &both, 8, 1, &z), LH_CAUSE_LOSS_SPIKE);
	assert_true(z > 6);
	assert_int_equal(lh_watch_judge(&w, &both, 0.1, 1, &z), LH_CAUSE_NONE); /* lower */
	assert_int_equal(lh_watch_judge(&w, &both, 2, 9, &z), LH_CAUSE_GRADIENT_SPIKE);
}

static void nothing_that_is_not_finite_passes_ever(void **state)
{
	static const struct lh_job_instability off = { 0 };
	struct lh_watch w;
	double z;

	(void)state;
	lh_watch_init(&w);
	assert_int_equal(lh_watch_judge(&w, &off, NAN, 1, &z), LH_CAUSE_NONFINITE);
	assert_int_equal(lh_watch_judge(&w, &off, 1, INFINITY, &z), LH_CAUSE_NONFINITE);
	assert_int_equal(lh_watch_judge(&w, &off, 1e30, 1e30, &z), LH_CAUSE_NONE);
}

static void it_is_armed_after_a_few_steps_and_after_a_switch_anew(void **state)
{
	struct lh_watch w;
	double z;

	(void)state;
	lh_watch_init(&w);
	feed(&w, 0, LH_WATCH_ARMED - 1);
	assert_int_equal(lh_watch_judge(&w, &both, 50, 1, &z), LH_CAUSE_NONE);
	feed(&w, LH_WATCH_ARMED - 1, LH_WATCH_ARMED);
	assert_int_equal(lh_watch_judge(&w, &both, 50, 1, &z), LH_CAUSE_LOSS_SPIKE);
	lh_watch_forget(&w);
	assert_int_equal(lh_watch_judge(&w, &both, 50, 1, &z), LH_CAUSE_NONE);
}

/* Even accepted ones: they move the median little. */
static void spikes_do_not_hide_the_next(void **state)
{
	struct lh_watch w;
	double z;

	(void)state;
	lh_watch_init(&w);
	feed(&w, 0, 60);
	for (int i = 0; i < 10; i++)
		lh_watch_accept(&w, 50, 50);
	assert_int_equal(lh_watch_judge(&w, &both, 20, 1, &z), LH_CAUSE_LOSS_SPIKE);
}

static void it_is_the_same_after_a_checkpoint(void **state)
{
	struct lh_watch w, back;
	json_t *j;

	(void)state;
	lh_watch_init(&w);
	feed(&w, 0, 100);
	w.times[LH_CAUSE_LOSS_SPIKE] = 3;
	w.lr_scale = 0.25;
	j = lh_watch_to_json(&w);
	lh_watch_from_json(&back, j);
	assert_memory_equal(&w, &back, sizeof(w));
	json_decref(j);
	/* Of an older checkpoint, or nonsense. */
	lh_watch_from_json(&back, NULL);
	assert_int_equal(back.count, 0);
	assert_true(back.lr_scale == 1);
	j = json_pack("{s:[f], s:[], s:i, s:f}", "loss", 1.0, "norm", "next", 99,
		      "lr_scale", -1.0);
	lh_watch_from_json(&back, j);
	assert_int_equal(back.count, 0);
	assert_true(back.lr_scale == 1);
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ordinary_losses_pass_and_spikes_do_not),
		cmocka_unit_test(nothing_that_is_not_finite_passes_ever),
		cmocka_unit_test(it_is_armed_after_a_few_steps_and_after_a_switch_anew),
		cmocka_unit_test(spikes_do_not_hide_the_next),
		cmocka_unit_test(it_is_the_same_after_a_checkpoint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

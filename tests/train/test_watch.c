/* test_watch.c: what is a spike and what is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "train/watch.h"

enum { VOCAB = 257 }; /* 5.5 nats for who knows nothing */

static const struct lh_job_instability both = { .loss_z = 6, .gradient_z = 6 };

static enum lh_cause judge(const struct lh_watch *w, double loss, double norm)
{
	double z;

	return lh_watch_judge(w, &both, VOCAB, loss, norm, &z);
}

/* A falling, noisy loss. */
static double loss_at(int i)
{
	return 5 - 0.02 * i + 0.05 * ((i * 37) % 11 - 5) / 5.0;
}

static void feed(struct lh_watch *w, int from, int to)
{
	for (int i = from; i < to; i++) {
		assert_int_equal(judge(w, loss_at(i), 1 + 0.1 * (i % 3)), LH_CAUSE_NONE);
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
	assert_int_equal(lh_watch_judge(&w, &both, VOCAB, 8, 1, &z), LH_CAUSE_LOSS_SPIKE);
	assert_true(z > 6);
	assert_int_equal(judge(&w, 0.1, 1), LH_CAUSE_NONE); /* lower */
	assert_int_equal(judge(&w, 2, 9), LH_CAUSE_GRADIENT_SPIKE);
}

static void nothing_that_is_not_finite_passes_ever(void **state)
{
	static const struct lh_job_instability off = {
		.loss_spike = LH_INSTABILITY_IGNORE,
		.gradient_spike = LH_INSTABILITY_IGNORE };
	struct lh_watch w;
	double z;

	(void)state;
	lh_watch_init(&w);
	feed(&w, 0, 20);
	assert_int_equal(lh_watch_judge(&w, &off, VOCAB, NAN, 1, &z), LH_CAUSE_NAN);
	assert_int_equal(lh_watch_judge(&w, &off, VOCAB, 1, INFINITY, &z), LH_CAUSE_NAN);
	assert_int_equal(lh_watch_judge(&w, &off, VOCAB, 1e30, 1e30, &z), LH_CAUSE_NONE);
}

/* From the first step on: first by the guard alone, which nothing that is refused can
 * move, then by the window; after a switch the same again. */
static void it_guards_until_it_is_armed_and_after_a_switch_anew(void **state)
{
	struct lh_watch w;

	(void)state;
	lh_watch_init(&w);
	assert_int_equal(judge(&w, 6, 1), LH_CAUSE_NONE);
	lh_watch_accept(&w, 6, 1);
	assert_int_equal(judge(&w, 17, 1), LH_CAUSE_NONE);
	for (int i = 0; i < 3 * LH_WATCH_ARMED; i++) {
		assert_int_equal(judge(&w, 50, 1), LH_CAUSE_LOSS_SPIKE);
		lh_watch_refuse(&w, LH_CAUSE_LOSS_SPIKE, 1, 50, 1);
	}
	feed(&w, 0, LH_WATCH_ARMED - 2);
	assert_false(lh_watch_is_armed(&w));
	assert_int_equal(judge(&w, 12, 1), LH_CAUSE_NONE);
	feed(&w, LH_WATCH_ARMED - 2, LH_WATCH_ARMED);
	assert_true(lh_watch_is_armed(&w));
	assert_int_equal(judge(&w, 12, 1), LH_CAUSE_LOSS_SPIKE);
	lh_watch_forget(&w);
	assert_int_equal(judge(&w, 12, 1), LH_CAUSE_NONE);
	assert_int_equal(judge(&w, 50, 1), LH_CAUSE_LOSS_SPIKE);
}

/* However large the first one is: no step was applied that could be to blame. */
static void the_first_loss_of_all_passes(void **state)
{
	struct lh_watch w;

	(void)state;
	lh_watch_init(&w);
	assert_int_equal(judge(&w, 1000, 1), LH_CAUSE_NONE);
	lh_watch_accept(&w, 1000, 1);
	assert_int_equal(judge(&w, 2900, 1), LH_CAUSE_NONE);
	assert_int_equal(judge(&w, 3100, 1), LH_CAUSE_LOSS_SPIKE);
}

/* One judged step, as the loop does it with `skip`; true if it was refused. */
static bool go(struct lh_watch *w, int64_t *step, double loss)
{
	enum lh_cause cause = judge(w, loss, 1);

	if (cause)
		lh_watch_refuse(w, cause, *step, loss, 1);
	else
		lh_watch_accept(w, loss, 1);
	*step += !cause;
	return cause;
}

/* Data that became harder for good, and data with a hard kind in it, how often it may
 * come: a default `max` of 10 is never reached. */
static void a_healthy_run_is_never_stopped(void **state)
{
	struct lh_watch w;
	int64_t step = 0;
	int refused = 0;

	(void)state;
	lh_watch_init(&w);
	feed(&w, 0, 100);
	for (int i = 0; i < 200; i++) {
		refused += go(&w, &step, 7 + 0.01 * (i % 5));
		assert_in_range(w.of[LH_CAUSE_LOSS_SPIKE].recent, 0, 10);
	}
	assert_in_range(refused, 1, 20);
	for (int every = 2; every < 40; every++) {
		lh_watch_init(&w);
		step = 0;
		for (int i = 0; i < 4000; i++) {
			go(&w, &step, i % every ? 2 + 0.01 * (i % 7) : 4);
			assert_in_range(w.of[LH_CAUSE_LOSS_SPIKE].recent, 0, 10);
		}
	}
}

static void a_count_is_forgiven_by_getting_further_alone(void **state)
{
	struct lh_watch w;
	const struct lh_watch_count *c = &w.of[LH_CAUSE_NAN];

	(void)state;
	lh_watch_init(&w);
	for (int i = 1; i <= 5; i++) {
		lh_watch_refuse(&w, LH_CAUSE_NAN, 100, NAN, 1);
		assert_int_equal(c->recent, i);
	}
	assert_int_equal(w.of[LH_CAUSE_LOSS_SPIKE].times, 0); /* its own */
	lh_watch_refuse(&w, LH_CAUSE_NAN, 100 + 2 * LH_WATCH_FORGIVE, NAN, 1);
	assert_int_equal(c->recent, 4);
	/* It went back, and comes to the same step again and again. */
	lh_watch_refuse(&w, LH_CAUSE_NAN, 50, NAN, 1);
	lh_watch_refuse(&w, LH_CAUSE_NAN, 100 + 2 * LH_WATCH_FORGIVE, NAN, 1);
	assert_int_equal(c->recent, 6);
	lh_watch_refuse(&w, LH_CAUSE_NAN, 1000000, NAN, 1);
	assert_int_equal(c->recent, 1);
	assert_int_equal(c->times, 9);
	assert_int_equal(w.count, 0);
}

/* Refused or accepted: they are few, and median and spread are not theirs. */
static void spikes_do_not_hide_the_next(void **state)
{
	struct lh_watch w;

	(void)state;
	lh_watch_init(&w);
	feed(&w, 0, 60);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(judge(&w, 50, 50), LH_CAUSE_LOSS_SPIKE);
		lh_watch_refuse(&w, LH_CAUSE_LOSS_SPIKE, 60, 50, 50);
	}
	assert_int_equal(judge(&w, 20, 1), LH_CAUSE_LOSS_SPIKE);
}

static void it_is_the_same_after_a_checkpoint(void **state)
{
	struct lh_watch w, back;
	json_t *j;

	(void)state;
	lh_watch_init(&w);
	feed(&w, 0, 100);
	lh_watch_refuse(&w, LH_CAUSE_LOSS_SPIKE, 100, 9, 1);
	lh_watch_refuse(&w, LH_CAUSE_NAN, 107, NAN, 1);
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
		cmocka_unit_test(it_guards_until_it_is_armed_and_after_a_switch_anew),
		cmocka_unit_test(the_first_loss_of_all_passes),
		cmocka_unit_test(a_healthy_run_is_never_stopped),
		cmocka_unit_test(a_count_is_forgiven_by_getting_further_alone),
		cmocka_unit_test(spikes_do_not_hide_the_next),
		cmocka_unit_test(it_is_the_same_after_a_checkpoint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

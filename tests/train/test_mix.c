/* test_mix.c: a mixture: every stretch of draws has the shares asked for, each draw goes
 * to one source, and its place in the source follows from its number alone; so it is
 * where weights are set on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "train/mix.h"

enum { DRAWS = 20000 };

static const double weights[] = { 0.5, 3, 1e-3, 1, 1, 40 };
enum { SOURCES = sizeof(weights) / sizeof(weights[0]) };

static double init(struct lh_mix *m, int count, uint64_t seed)
{
	struct lh_job_source sources[SOURCES];
	double sum = 0;

	for (int i = 0; i < count; i++) {
		sources[i] = (struct lh_job_source){ .weight = weights[i], .shards = 1 };
		sum += weights[i];
	}
	lh_mix_init(m, sources, count, seed);
	return sum;
}

/* Whatever came before, whoever asks, in whatever order. */
static void a_draw_is_the_next_one_of_its_source(void **state)
{
	(void)state;
	for (int count = 1; count <= SOURCES; count++)
		for (uint64_t seed = 0; seed < 3; seed++) {
			int64_t seen[LH_SOURCES_MAX] = { 0 }, drawn[LH_SOURCES_MAX];
			struct lh_mix m;

			init(&m, count, seed);
			for (int64_t n = 0; n < DRAWS; n++) {
				int64_t nth;
				int source = lh_mix_source(&m, n, &nth);

				assert_in_range(source, 0, count - 1);
				assert_int_equal(nth, seen[source]++);
			}
			lh_mix_drawn(&m, DRAWS, drawn);
			assert_memory_equal(drawn, seen, (size_t)count * sizeof(*drawn));
		}
}

static void every_stretch_has_the_shares(void **state)
{
	const int64_t starts[] = { 0, 1, 977, 123456789, INT64_C(1) << 50 };
	const int64_t lengths[] = { 1, 2, 31, 500, 1000000 };
	struct lh_mix m;
	double sum = init(&m, SOURCES, 5);

	(void)state;
	for (int s = 0; s < 5; s++)
		for (int l = 0; l < 5; l++) {
			int64_t from[LH_SOURCES_MAX], to[LH_SOURCES_MAX];

			lh_mix_drawn(&m, starts[s], from);
			lh_mix_drawn(&m, starts[s] + lengths[l], to);
			for (int i = 0; i < SOURCES; i++) {
				double want = (double)lengths[l] * weights[i] / sum;
				double got = (double)(to[i] - from[i]);

				if (fabs(got - want) > i + 1)
					fail_msg("source %d of %ld + %ld: %g, not %g", i,
						 (long)starts[s], (long)lengths[l], got, want);
			}
		}
}

static void seeds_begin_at_different_places(void **state)
{
	bool differ = false;
	struct lh_mix a, b;

	(void)state;
	init(&a, SOURCES, 1);
	init(&b, SOURCES, 2);
	for (int64_t n = 0; n < 100; n++) {
		int64_t nth;

		differ |= lh_mix_source(&a, n, &nth) != lh_mix_source(&b, n, &nth);
	}
	assert_true(differ);
}

/* Whatever it is that was set, and however often. */
static void weights_that_are_set_repeat_and_skip_nothing(void **state)
{
	static const double sets[][LH_SOURCES_MAX] = { { 0, 0, 1 }, { 3, 0, 0, 1e6, 1e-6 },
						       { 1, 1, 1, 1, 1, 1 }, { 1, 1, 1, 1, 1, 1 },
						       { 0, 2, 0, 0, 0, 1 } };
	const int64_t at[] = { 1, 700, 701, 5000, 12345 };
	int64_t seen[LH_SOURCES_MAX] = { 0 }, drawn[LH_SOURCES_MAX], nth;
	struct lh_mix m;
	int set = 0;

	(void)state;
	init(&m, SOURCES, 3);
	for (int64_t n = 0; n < DRAWS; n++) {
		int source;

		if (set < 5 && n == at[set])
			lh_mix_set(&m, sets[set++], n);
		source = lh_mix_source(&m, n, &nth);
		assert_in_range(source, 0, SOURCES - 1);
		assert_true(m.weight[source] > 0);
		assert_int_equal(nth, seen[source]++);
	}
	lh_mix_drawn(&m, DRAWS, drawn);
	assert_memory_equal(drawn, seen, SOURCES * sizeof(*seen));
}

/* Each step other weights: without what a step leaves of a draw, it would be rounded the
 * same way each time. */
static void weights_that_are_set_often_come_near_their_shares(void **state)
{
	enum { STEPS = 5000, A_STEP = 3 };
	double want[SOURCES] = { 0 };
	int64_t drawn[LH_SOURCES_MAX];
	struct lh_mix m;

	(void)state;
	init(&m, SOURCES, 7);
	for (int step = 0; step < STEPS; step++) {
		double weight[LH_SOURCES_MAX], sum = 0;

		for (int i = 0; i < SOURCES; i++)
			sum += weight[i] = i == step % 2 ? 0 : 1 + (step + i) % 5;
		lh_mix_set(&m, weight, step * A_STEP);
		for (int i = 0; i < SOURCES; i++)
			want[i] += A_STEP * weight[i] / sum;
	}
	lh_mix_drawn(&m, STEPS * A_STEP, drawn);
	for (int i = 0; i < SOURCES; i++)
		if (fabs((double)drawn[i] - want[i]) > 0.1 * want[i])
			fail_msg("source %d: %g, not %g", i, (double)drawn[i], want[i]);
}

static void the_same_weights_change_nothing(void **state)
{
	struct lh_mix m, same;

	(void)state;
	init(&m, SOURCES, 3);
	same = m;
	lh_mix_set(&m, same.weight, 500);
	assert_memory_equal(&m, &same, sizeof(m));
	lh_mix_set(&m, (double[LH_SOURCES_MAX]){ 1, 1, 1, 1, 1, 1 }, 500);
	assert_int_equal(m.since, 500);
}

static void it_comes_back_from_json_to_the_last_bit(void **state)
{
	static const char *const strange[] = {
		"3", "{}", "{\"weight\": []}",
		"{\"weight\": [0], \"since\": 0, \"drawn\": [0], \"offset\": [0]}",
		"{\"weight\": [\"1\"], \"since\": 0, \"drawn\": [0], \"offset\": [0]}",
		"{\"weight\": [1], \"since\": 2, \"drawn\": [1], \"offset\": [0]}",
		"{\"weight\": [1], \"since\": 0, \"drawn\": [], \"offset\": [0]}",
		"{\"weight\": [1, 1], \"since\": 0, \"drawn\": [-1, 1], \"offset\": [0, 0]}",
		"{\"weight\": [1], \"since\": 0, \"drawn\": [0], \"offset\": [4294967296]}",
		"{\"weight\": [1e7], \"since\": 0, \"drawn\": [0], \"offset\": [0]}" };
	struct lh_mix m, back;
	json_t *j;

	(void)state;
	init(&m, SOURCES, 3);
	lh_mix_set(&m, (double[LH_SOURCES_MAX]){ 1.0 / 3, 0, 0, 0, 0, 2 }, 977);
	j = lh_mix_to_json(&m);
	assert_true(lh_mix_from_json(&back, j));
	assert_memory_equal(&m, &back, sizeof(m));
	json_decref(j);
	assert_true(lh_mix_from_json(&back, NULL));
	assert_int_equal(back.count, 0);
	for (size_t i = 0; i < sizeof(strange) / sizeof(*strange); i++) {
		j = json_loads(strange[i], JSON_DECODE_ANY, NULL);
		assert_non_null(j);
		assert_false(lh_mix_from_json(&back, j));
		assert_int_equal(back.count, 0);
		json_decref(j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_draw_is_the_next_one_of_its_source),
		cmocka_unit_test(every_stretch_has_the_shares),
		cmocka_unit_test(seeds_begin_at_different_places),
		cmocka_unit_test(weights_that_are_set_repeat_and_skip_nothing),
		cmocka_unit_test(weights_that_are_set_often_come_near_their_shares),
		cmocka_unit_test(the_same_weights_change_nothing),
		cmocka_unit_test(it_comes_back_from_json_to_the_last_bit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

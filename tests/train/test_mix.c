/* test_mix.c: a mixture: every stretch of draws has the shares asked for, each draw goes
 * to one source, and its place in the source follows from its number alone. */
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
		sources[i] = (struct lh_job_source){ weights[i], 1 };
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_draw_is_the_next_one_of_its_source),
		cmocka_unit_test(every_stretch_has_the_shares),
		cmocka_unit_test(seeds_begin_at_different_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

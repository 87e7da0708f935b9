/* test_rope.c: rotary angles are those of transformers, whose formulas a few lines of
 * Python computed again for these tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "train/rope.h"

enum { HALF = 8 };

static void check(const struct lh_job_model *c, const double want[HALF], double want_length)
{
	double turn[HALF];

	lh_rope_turns(c, turn);
	assert_true(fabs(lh_rope_length(c) - want_length) < 1e-12);
	for (int d = 0; d < HALF; d++)
		if (fabs(turn[d] / want[d] - 1) > 1e-12)
			fail_msg("pair %d turns by %.15g, not %.15g", d, turn[d], want[d]);
}

static void without_scaling_pairs_turn_by_powers_of_theta(void **state)
{
	struct lh_job_model c = { .head_dim = 2 * HALF, .rope_theta = 1e4 };
	double want[HALF];

	(void)state;
	for (int d = 0; d < HALF; d++)
		want[d] = pow(10, -d / 2.0);
	check(&c, want, 1);
}

static void linear_slows_all_of_them(void **state)
{
	static const double want[HALF] = { 0.4, 0.126491106406735, 0.04, 0.0126491106406735,
					   0.004, 0.00126491106406735, 0.0004,
					   0.000126491106406735 };
	struct lh_job_model c = { .head_dim = 2 * HALF, .rope_theta = 1e4,
				  .rope_scaling = { .type = LH_ROPE_LINEAR, .factor = 2.5 } };

	(void)state;
	check(&c, want, 1);
}

static void llama3_slows_the_slow_ones(void **state)
{
	static const double want[HALF] = { 1, 0.193922744748686, 0.0376060309308639,
					   0.00729266473721711, 0.000524846160992955,
					   3.42810219595259e-05, 6.64786987118124e-06,
					   1.28917317215156e-06 };
	struct lh_job_model c = { .head_dim = 2 * HALF, .rope_theta = 5e5,
				  .rope_scaling = { .type = LH_ROPE_LLAMA3, .factor = 8,
						    .original_tokens = 8192,
						    .low_freq_factor = 1,
						    .high_freq_factor = 4 } };

	(void)state;
	check(&c, want, 1);
}

static void yarn_slows_by_pair_and_lengthens(void **state)
{
	static const double want[HALF] = { 1, 0.177827941003892, 0.0316227766016838,
					   0.00421755993892762, 0.0005, 4.44569852509731e-05,
					   7.90569415042095e-06, 1.40585331297587e-06 };
	struct lh_job_model c = { .head_dim = 2 * HALF, .rope_theta = 1e6,
				  .rope_scaling = { .type = LH_ROPE_YARN, .factor = 4,
						    .original_tokens = 32768, .beta_fast = 32,
						    .beta_slow = 1 } };

	(void)state;
	check(&c, want, 1.138629436111989);
	c.rope_scaling.attention_factor = 0.5;
	check(&c, want, 0.5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_scaling_pairs_turn_by_powers_of_theta),
		cmocka_unit_test(linear_slows_all_of_them),
		cmocka_unit_test(llama3_slows_the_slow_ones),
		cmocka_unit_test(yarn_slows_by_pair_and_lengthens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

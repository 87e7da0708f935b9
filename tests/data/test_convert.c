/* test_convert.c: every bf16 and fp16 there is goes to float32 and back unchanged,
 * and what lies between two of them goes to the nearer one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "data/convert.h"

enum { ALL = 1 << 16 };

static const enum lh_tensor_type halves[] = { LH_TENSOR_BF16, LH_TENSOR_F16 };

static uint16_t narrow(enum lh_tensor_type type, float x)
{
	uint16_t out;

	lh_convert(&out, type, &x, LH_TENSOR_F32, 1);
	return out;
}

static float widen(enum lh_tensor_type type, uint16_t x)
{
	float out;

	lh_convert(&out, LH_TENSOR_F32, &x, type, 1);
	return out;
}

static void every_half_comes_back_bit_for_bit(void **state)
{
	static uint16_t from[ALL], back[ALL];
	static float wide[ALL];

	(void)state;
	for (int i = 0; i < ALL; i++)
		from[i] = (uint16_t)i;
	for (int t = 0; t < 2; t++) {
		lh_convert(wide, LH_TENSOR_F32, from, halves[t], ALL);
		assert_int_equal(lh_convert(back, halves[t], wide, LH_TENSOR_F32, ALL), 0);
		assert_memory_equal(from, back, sizeof(from));
	}
}

static void one_half_becomes_another_by_way_of_float32(void **state)
{
	static uint16_t from[ALL], to[ALL], by_way[ALL];
	static float wide[ALL];

	(void)state;
	for (int i = 0; i < ALL; i++)
		from[i] = (uint16_t)i;
	for (int t = 0; t < 2; t++) {
		enum lh_tensor_type other = halves[!t];
		int64_t lost;

		lh_convert(wide, LH_TENSOR_F32, from, halves[t], ALL);
		lost = lh_convert(by_way, other, wide, LH_TENSOR_F32, ALL);
		/* Some are too large for fp16, none for bf16. */
		assert_int_equal(lost > 0, other == LH_TENSOR_F16);
		assert_int_equal(lh_convert(to, other, from, halves[t], ALL), lost);
		assert_memory_equal(to, by_way, sizeof(to));
		to[ALL - 1] = 1;
		lh_convert(to, other, from, halves[t], ALL - 1);
		assert_int_equal(to[ALL - 1], 1);
		lh_convert(to, halves[t], from, halves[t], ALL);
		assert_memory_equal(to, from, sizeof(to));
	}
}

static void known_values_are_what_they_are(void **state)
{
	(void)state;
	assert_true(widen(LH_TENSOR_BF16, 0x3f80) == 1);
	assert_true(widen(LH_TENSOR_F16, 0x3c00) == 1);
	assert_true(widen(LH_TENSOR_F16, 0xc000) == -2);
	assert_true(widen(LH_TENSOR_F16, 0x7bff) == 65504);
	assert_true(widen(LH_TENSOR_F16, 0x0001) == ldexpf(1, -24));
	assert_true(isnan(widen(LH_TENSOR_F16, 0x7e01)));
	assert_int_equal(narrow(LH_TENSOR_F16, 65504), 0x7bff);
	assert_int_equal(narrow(LH_TENSOR_F16, ldexpf(1, -25)), 0);      /* a tie: even */
	assert_int_equal(narrow(LH_TENSOR_F16, ldexpf(1.5f, -25)), 1);
	assert_int_equal(narrow(LH_TENSOR_F16, ldexpf(1, -26)), 0);
}

/* Between neighbours a < b of one type: below the middle a, above it b, and in it
 * the one that is even. */
static void what_lies_between_goes_to_the_nearer(void **state)
{
	const uint16_t infinity[] = { 0x7f80, 0x7c00 };

	(void)state;
	for (int t = 0; t < 2; t++)
		for (int i = 0; i + 1 < infinity[t]; i++) {
			float a = widen(halves[t], (uint16_t)i);
			float b = widen(halves[t], (uint16_t)(i + 1));
			float middle = (float)(((double)a + (double)b) / 2);

			assert_int_equal(narrow(halves[t], middle), i % 2 ? i + 1 : i);
			assert_int_equal(narrow(halves[t], nextafterf(middle, a)), i);
			assert_int_equal(narrow(halves[t], nextafterf(middle, b)), i + 1);
			assert_int_equal(narrow(halves[t], -middle),
					 0x8000 | (i % 2 ? i + 1 : i));
		}
}

static void what_is_too_large_is_counted(void **state)
{
	float x[] = { 65519, 65520, -1e9f, INFINITY, NAN, 3.4e38f };
	uint16_t out[6];

	(void)state;
	assert_int_equal(lh_convert(out, LH_TENSOR_F16, x, LH_TENSOR_F32, 6), 3);
	assert_int_equal(out[0], 0x7bff);
	assert_int_equal(out[1], 0x7c00);
	assert_int_equal(out[2], 0xfc00);
	assert_int_equal(lh_convert(out, LH_TENSOR_BF16, x, LH_TENSOR_F32, 6), 1);
}

static void a_nan_stays_one(void **state)
{
	uint32_t bits = 0x7f800001;
	float x;

	(void)state;
	memcpy(&x, &bits, 4);
	assert_int_equal(narrow(LH_TENSOR_BF16, x), 0x7fc0);
	assert_int_equal(narrow(LH_TENSOR_F16, x), 0x7e00);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_half_comes_back_bit_for_bit),
		cmocka_unit_test(one_half_becomes_another_by_way_of_float32),
		cmocka_unit_test(known_values_are_what_they_are),
		cmocka_unit_test(what_lies_between_goes_to_the_nearer),
		cmocka_unit_test(what_is_too_large_is_counted),
		cmocka_unit_test(a_nan_stays_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_positions.c: buckets of places cover a sequence once, and hold its losses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "train/positions.h"

static void buckets_cover_every_place_once(void **state)
{
	static const int64_t lengths[] = { 2, 3, 32, 100, 98304, 16777216 };
	struct lh_positions p;

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		lh_positions_init(&p, lengths[i]);
		assert_true(p.count >= 1 && p.count <= LH_POSITIONS_MAX);
		assert_int_equal(p.edge[0], 0);
		assert_int_equal(p.edge[p.count], lengths[i]);
		for (int b = 0; b < p.count; b++)
			assert_true(p.edge[b] < p.edge[b + 1]);
	}
	/* 98,304 tokens: two buckets a doubling, near enough. */
	lh_positions_init(&p, 98304);
	assert_true(p.count >= 28);
	assert_true((double)p.edge[p.count - 1] / 98304 > 0.65);
}

static void losses_are_means_of_what_is_predicted(void **state)
{
	int32_t targets[32];
	float row_loss[32];
	struct lh_positions p;
	json_t *j, *loss;
	int last;

	(void)state;
	for (int t = 0; t < 32; t++) {
		targets[t] = t == 31 ? -1 : 1;
		row_loss[t] = t == 31 ? 0 : (float)t;
	}
	lh_positions_init(&p, 32);
	last = p.count - 1;
	lh_positions_add(&p, targets, NULL, row_loss);
	lh_positions_add(&p, targets, NULL, row_loss);
	j = lh_positions_json(&p);
	loss = json_object_get(j, "loss");
	assert_int_equal(json_array_size(loss), p.count);
	assert_int_equal(json_array_size(json_object_get(j, "edges")), p.count + 1);
	assert_float_equal(json_number_value(json_array_get(loss, 0)), 0, 1e-9);
	assert_float_equal(json_number_value(json_array_get(loss, (size_t)last)),
			   (double)(p.edge[last] + 30) / 2, 1e-6);
	assert_int_equal(p.tokens[last], 2 * (31 - p.edge[last]));
	json_decref(j);
}

/* Two documents of 20 and 12 rows: both are at their places 0 to 11. */
static void a_place_is_one_in_a_document(void **state)
{
	int32_t targets[32], starts[32];
	float row_loss[32];
	struct lh_positions p;

	(void)state;
	for (int t = 0; t < 32; t++) {
		targets[t] = 1;
		starts[t] = t < 20 ? 0 : 20;
		row_loss[t] = (float)(t - starts[t]);
	}
	lh_positions_init(&p, 32);
	lh_positions_add(&p, targets, starts, row_loss);
	for (int i = 0; i < p.count; i++) {
		double nats = 0;
		int64_t tokens = 0;

		for (int64_t t = p.edge[i]; t < p.edge[i + 1]; t++) {
			tokens += (t < 20) + (t < 12);
			nats += (double)t * ((t < 20) + (t < 12));
		}
		assert_int_equal(p.tokens[i], tokens);
		assert_true(p.nats[i] == nats);
	}
}

static void what_is_not_known_is_null(void **state)
{
	int32_t targets[8] = { 1, -1, -1, -1, -1, -1, -1, -1 };
	float row_loss[8] = { INFINITY };
	struct lh_positions p;
	json_t *j;

	(void)state;
	lh_positions_init(&p, 8);
	lh_positions_add(&p, targets, NULL, row_loss);
	j = lh_positions_json(&p);
	for (size_t i = 0; i < (size_t)p.count; i++)
		assert_true(json_is_null(json_array_get(json_object_get(j, "loss"), i)));
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets_cover_every_place_once),
		cmocka_unit_test(losses_are_means_of_what_is_predicted),
		cmocka_unit_test(a_place_is_one_in_a_document),
		cmocka_unit_test(what_is_not_known_is_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

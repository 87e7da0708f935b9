/* test_selection.c: what is told of selections, against choices made by hand and those of
 * the CPU's own op. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/model.h"
#include "train/selection.h"

/* 16 tokens, 4 entries of level 1, 4 tokens each; a head expands 2 in one tile: 4 + 8
 * entries in all. */
static const struct lh_lighthouse flat = { .tokens = 16, .levels = 2, .pool = 4, .topk = 2,
					   .tile = 2 };
enum { SELECTED = 12 };

/* Index of a head that expands entries a and b. */
static void choose(int32_t *index, int a, int b)
{
	int n = 0;

	for (int i = 0; i < 4; i++) {
		for (int c = 0; c < 4 && (i == a || i == b); c++)
			index[n++] = 4 * i + c;
		index[n++] = 16 + i;
	}
	assert_int_equal(n, SELECTED);
}

/* One layer of two heads. */
static void look(struct lh_selection *s, int a, int b, int c, int d)
{
	int32_t index[2 * SELECTED];

	choose(index, a, b);
	choose(index + SELECTED, c, d);
	lh_selection_begin(s);
	lh_selection_add(s, 0, index);
}

static double told(const struct lh_selection *s, const char *key)
{
	json_t *all = lh_selection_json(s);
	json_t *level = json_array_get(json_object_get(all, "levels"), 0);
	json_t *v = json_object_get(all, key) ? json_object_get(all, key) :
						json_object_get(level, key);
	double x = json_is_number(v) ? json_number_value(v) : NAN;

	json_decref(all);
	return x;
}

static void shares_are_those_of_the_choice(void **state)
{
	struct lh_selection *s = lh_selection_new(&flat, 1, 2);

	(void)state;
	look(s, 0, 1, 0, 2);
	assert_float_equal(told(s, "expanded"), 0.5, 1e-9);
	assert_float_equal(told(s, "any_head"), 0.75, 1e-9);
	assert_float_equal(told(s, "heads"), 0.5, 1e-9); /* entry 0 of two each */
	assert_true(isnan(told(s, "kept")));
	assert_float_equal(told(s, "never"), 0.25, 1e-9); /* entry 3 */
	look(s, 0, 1, 0, 1);
	assert_float_equal(told(s, "heads"), 1, 1e-9);
	assert_float_equal(told(s, "kept"), 0.75, 1e-9);
	assert_float_equal(told(s, "never"), 0.25, 1e-9);
	assert_int_equal((int)told(s, "window"), 2);
	lh_selection_free(s);
}

static void a_token_is_starved_when_its_last_choice_left_the_window(void **state)
{
	struct lh_selection *s = lh_selection_new(&flat, 1, 2);

	(void)state;
	look(s, 0, 1, 2, 3);
	assert_float_equal(told(s, "never"), 0, 1e-9);
	for (int i = 1; i < LH_SELECTION_WINDOW; i++)
		look(s, 0, 1, 0, 1);
	assert_float_equal(told(s, "never"), 0, 1e-9);
	look(s, 0, 1, 0, 1);
	assert_float_equal(told(s, "never"), 0.5, 1e-9);
	assert_int_equal((int)told(s, "window"), LH_SELECTION_WINDOW);
	lh_selection_free(s);
}

static void another_geometry_is_another_selection(void **state)
{
	struct lh_selection *s = lh_selection_new(&flat, 1, 2);
	struct lh_lighthouse other = flat;

	(void)state;
	assert_true(lh_selection_is_of(s, &other));
	other.topk = 4;
	assert_false(lh_selection_is_of(s, &other));
	lh_selection_free(s);
}

/* ---- of a model ------------------------------------------------------------ */

struct seen {
	struct lh_selection *s;
	int layers[4], count;
};

static void see(void *arg, int layer, const int32_t *index)
{
	struct seen *seen = arg;

	seen->layers[seen->count++] = layer;
	lh_selection_add(seen->s, layer, index);
}

static void a_model_shows_its_lighthouse_layers_and_stays_as_it_is(void **state)
{
	struct lh_job_model c = { .vocab = 9, .dim = 16, .layers = 3, .heads = 2,
				  .kv_heads = 2, .head_dim = 8, .ffn_dim = 16,
				  .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.2 };
	struct lh_attention_mode mode = {
		.attention = LH_ATTENTION_LIGHTHOUSE, .recompute = LH_RECOMPUTE_NONE,
		.geometry = { .tokens = 64, .levels = 3, .pool = 2, .topk = 4, .tile = 4 },
		.dense = { true } };
	struct seen seen = { .s = lh_selection_new(&mode.geometry, 3, 2) };
	struct lh_err err = LH_ERR_INIT;
	int32_t tokens[2 * 64];
	double before, after;
	struct lh_model *m;
	struct lh_dev *dev;

	(void)state;
	for (int i = 0; i < 2 * 64; i++)
		tokens[i] = i * i % 9;
	assert_int_equal(lh_ops_cpu.open(&dev, 1, &err), 0);
	assert_int_equal(lh_model_new(&m, &lh_ops_cpu, dev, NULL, &c, 2, 64, &mode, 1, &err), 0);
	lh_model_init(m, 3);
	assert_int_equal(lh_model_loss(m, &mode, 2, 64, tokens, tokens, NULL, &before, NULL,
				       &err), 0);
	lh_selection_begin(seen.s);
	assert_int_equal(lh_model_selection(m, &mode, 2, tokens, NULL, see, &seen, &err), 0);
	assert_int_equal(seen.count, 2);
	assert_int_equal(seen.layers[0], 1);
	assert_int_equal(seen.layers[1], 2);
	/* Of the coarsest level, 16 entries, k = 4 are expanded. */
	assert_float_equal(told(seen.s, "expanded"), 0.25, 1e-9);
	assert_true(told(seen.s, "any_head") >= 0.25 && told(seen.s, "any_head") <= 0.5);
	assert_int_equal(lh_model_loss(m, &mode, 2, 64, tokens, tokens, NULL, &after, NULL,
				       &err), 0);
	assert_true(before == after);
	lh_selection_free(seen.s);
	lh_model_free(m);
	lh_ops_cpu.close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_are_those_of_the_choice),
		cmocka_unit_test(a_token_is_starved_when_its_last_choice_left_the_window),
		cmocka_unit_test(another_geometry_is_another_selection),
		cmocka_unit_test(a_model_shows_its_lighthouse_layers_and_stays_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_settings.c: settings as text and as JSON: what comes in comes out, and nonsense
 * is nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "train/settings.h"

/* A job of two sources, as far as settings ask. */
static const struct lh_job mixed = {
	.data = { .sources = { { 3, 1, "web" }, { 1, 1, "code" } }, .source_count = 2 } };

static struct lh_settings some(void)
{
	struct lh_settings s = { .phases = 2, .lr = 0.1, .weight_decay = 1.0 / 3, .clip = 0,
				 .eval_every_steps = 7, .checkpoint_every_steps = 9,
				 .lr_factor = { 1, 0.25 }, .phase_steps = { 40, 0 } };

	lh_mix_init(&s.mix, mixed.data.sources, mixed.data.source_count, 1);
	lh_mix_set(&s.mix, (double[LH_SOURCES_MAX]){ 1.0 / 3, 7 }, 1000);
	return s;
}

static void they_come_back_from_json_to_the_last_bit(void **state)
{
	struct lh_settings s = some(), back;
	char *text;
	json_t *j = lh_settings_to_json(&s);

	(void)state;
	text = json_dumps(j, JSON_REAL_PRECISION(17));
	json_decref(j);
	j = json_loads(text, 0, NULL);
	free(text);
	lh_settings_from_json(&back, j);
	json_decref(j);
	assert_int_equal(back.phases, 2);
	assert_true(lh_settings_are_equal(&s, &back));
	back.phase_steps[1] = 1;
	assert_false(lh_settings_are_equal(&s, &back));
	back = s;
	lh_mix_set(&back.mix, (double[LH_SOURCES_MAX]){ 1, 7 }, 1001);
	assert_false(lh_settings_are_equal(&s, &back));
}

static void what_is_strange_is_not_known(void **state)
{
	static const char *const strange[] = {
		"null", "[]", "{}", "{\"phase_steps\": [1]}", "{\"phase_steps\": 3}" };
	struct lh_settings s = some();
	json_t *j;

	(void)state;
	for (size_t i = 0; i < sizeof(strange) / sizeof(*strange); i++) {
		j = json_loads(strange[i], JSON_DECODE_ANY, NULL);
		lh_settings_from_json(&s, j);
		assert_int_equal(s.phases, 0);
		json_decref(j);
	}
	s = some();
	j = lh_settings_to_json(&s);
	json_array_append_new(json_object_get(j, "lr_factor"), json_real(1));
	lh_settings_from_json(&s, j);
	assert_int_equal(s.phases, 0);
	json_decref(j);
	/* Two of them would be no number any more. */
	s = some();
	s.phase_steps[0] = INT64_MAX;
	j = lh_settings_to_json(&s);
	lh_settings_from_json(&s, j);
	assert_int_equal(s.phases, 0);
	json_decref(j);
	s = some();
	s.mix.drawn[0]++;
	j = lh_settings_to_json(&s);
	lh_settings_from_json(&s, j);
	assert_int_equal(s.phases, 0);
	json_decref(j);
}

/* Programs that knew no weights wrote none. */
static void what_is_not_known_is_the_jobs(void **state)
{
	struct lh_settings s = some();
	json_t *j = lh_settings_to_json(&s);
	struct lh_job job = mixed;

	(void)state;
	job.phase_count = 2;
	json_object_del(j, "mix");
	lh_settings_from_json(&s, j);
	json_decref(j);
	assert_int_equal(s.mix.count, 0);
	lh_settings_complete(&s, &job);
	assert_true(s.mix.weight[0] == 3 && s.mix.since == 0 && s.lr == 0.1);
	s = some();
	lh_settings_complete(&s, &job);
	assert_int_equal(s.mix.since, 1000);
	job.phase_count = 1;
	lh_settings_complete(&s, &job);
	assert_true(s.phases == 1 && s.mix.since == 0 && s.lr == 0);
}

static void a_change_is_of_one_phase_where_phases_differ(void **state)
{
	struct lh_settings s = some();
	json_t *change = json_object();
	char text[100];

	(void)state;
	assert_true(lh_settings_is_empty(change));
	assert_int_equal(lh_settings_parse(change, "lr=3e-4", NULL), 0);
	assert_int_equal(lh_settings_parse(change, "lr_factor=2", NULL), 0);
	assert_int_equal(lh_settings_parse(change, "phase_steps=50", NULL), 0);
	assert_false(lh_settings_is_empty(change));
	assert_int_equal(lh_settings_apply(&s, &mixed, change, 1, 1000, NULL), 0);
	assert_true(s.lr == 3e-4 && s.lr_factor[0] == 1 && s.lr_factor[1] == 2);
	assert_int_equal(s.phase_steps[0], 40);
	assert_int_equal(s.phase_steps[1], 50);
	lh_settings_describe(change, text, sizeof(text));
	assert_string_equal(text, "lr 0.0003, lr_factor 2, phase_steps 50");
	json_decref(change);
}

static void weights_are_set_by_the_names_of_sources(void **state)
{
	struct lh_settings s = some(), was = s;
	json_t *change = json_object();
	struct lh_err err = LH_ERR_INIT;
	struct lh_job plain = mixed;
	char text[100];

	(void)state;
	assert_int_equal(lh_settings_parse(change, "weight.code=0.5", NULL), 0);
	assert_int_equal(lh_settings_parse(change, "weight.code=1", &err), LH_EINVAL);
	assert_non_null(strstr(err.text, "set twice"));
	assert_int_equal(lh_settings_parse(change, "lr=1", NULL), 0);
	assert_int_equal(lh_settings_apply(&s, &mixed, change, 0, 1500, &err), 0);
	assert_true(s.mix.weight[0] == 1.0 / 3 && s.mix.weight[1] == 0.5);
	assert_int_equal(s.mix.since, 1500);
	lh_settings_describe(change, text, sizeof(text));
	assert_string_equal(text, "lr 1, weight.code 0.5");
	assert_int_equal(lh_settings_parse(change, "weight.cod=1", NULL), 0);
	s = was;
	assert_int_equal(lh_settings_apply(&s, &mixed, change, 0, 1500, &err), LH_EPARAMS);
	assert_non_null(strstr(err.text, "weight.cod: the job has no such source"));
	assert_string_equal(err.hint, "it has: web code");
	assert_true(lh_settings_are_equal(&s, &was));
	plain.data.source_count = 0;
	assert_int_equal(lh_settings_apply(&s, &plain, change, 0, 0, &err), LH_EPARAMS);
	assert_non_null(strstr(err.hint, "no mixture"));
	json_decref(change);
	change = json_pack("{s:{s:s}}", "weight", "web", "1");
	assert_int_equal(lh_settings_apply(&s, &mixed, change, 0, 1500, &err), LH_EPARAMS);
	assert_non_null(strstr(err.text, "no number"));
	json_decref(change);
	change = json_pack("{s:{}}", "weight");
	assert_true(lh_settings_is_empty(change));
	json_decref(change);
}

static void what_sets_nothing_is_refused_and_adds_nothing(void **state)
{
	static const char *const wrong[] = { "", "lr", "=1", "lr=", "lr=x", "lr=1e999", "lr=nan",
					     "Lr=1", "lrx=1", "eval_every=1.5",
					     "eval_every=99999999999999999999", "lr= 1", "weight=1",
					     "weight.=1", "weight.web", "weight.web=",
					     "weight.web=x", "weights.web=1" };
	json_t *change = json_object();

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		struct lh_err err = LH_ERR_INIT;

		assert_int_equal(lh_settings_parse(change, wrong[i], &err), LH_EINVAL);
		assert_true(*err.hint);
	}
	assert_int_equal(json_object_size(change), 0);
	json_decref(change);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_come_back_from_json_to_the_last_bit),
		cmocka_unit_test(what_is_strange_is_not_known),
		cmocka_unit_test(a_change_is_of_one_phase_where_phases_differ),
		cmocka_unit_test(what_is_not_known_is_the_jobs),
		cmocka_unit_test(weights_are_set_by_the_names_of_sources),
		cmocka_unit_test(what_sets_nothing_is_refused_and_adds_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_origin.c: what of a run's origin may change under a checkpoint, and what is
 * told of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../scratch.h"
#include "train/origin.h"

static char why[600];

/* Ids that differ at `odd` alone. */
static void pack(const char *name, int64_t count, int64_t odd)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;

	assert_int_equal(lh_shard_writer_new(&w, path, 300, 299, &err), 0);
	for (int64_t i = 0; i < count; i++) {
		int32_t id = i == odd ? 299 : (int32_t)(i % 290);

		assert_int_equal(lh_shard_writer_add(w, &id, 1, &err), 0);
	}
	assert_int_equal(lh_shard_writer_commit(w, 1, &err), 0);
	free(path);
}

static json_t *origin(const char *first, const char *second, int64_t seed,
		      const char *device)
{
	char *train[] = { scratch_path(first), scratch_path(second) };
	char *validation = scratch_path("val");
	struct lh_job job = { .seed = 1 };
	struct lh_err err = LH_ERR_INIT;
	struct lh_data data;
	json_t *j;

	job.model.vocab = 300;
	job.data.train = train;
	job.data.train_count = 2;
	job.data.validation[0].path = validation;
	job.data.validation_count = 1;
	job.data.seq_len = 16;
	job.data.shuffle_seed = seed;
	if (lh_data_open(&data, &job, NULL, &err))
		fail_msg("%s", err.text);
	j = lh_origin_of(&job, &data, device);
	lh_data_close(&data);
	free(train[0]);
	free(train[1]);
	free(validation);
	return j;
}

static int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	pack("a", 200000, -1);
	pack("b", 1000, -1);
	pack("val", 100, -1);
	*why = '\0';
	return 0;
}

/* Compares with what is there now; takes `then`. */
static bool same_data_take(json_t *then, json_t *now)
{
	bool same = lh_origin_same_data(then, now, why, sizeof(why));

	json_decref(then);
	json_decref(now);
	return same;
}

static void the_same_is_the_same_wherever_it_lies(void **state)
{
	json_t *then = origin("a", "b", 1, "cpu");
	char *from = scratch_path("a"), *to = scratch_path("moved");

	(void)state;
	assert_int_equal(rename(from, to), 0);
	assert_true(same_data_take(then, origin("moved", "b", 1, "cpu")));
	assert_string_equal(why, "");
	free(from);
	free(to);
}

/* In the middle, far from what the fingerprint reads: the header tells. */
static void one_other_token_is_another_shard(void **state)
{
	json_t *then = origin("a", "b", 1, "cpu");

	(void)state;
	pack("a", 200000, 100000);
	assert_false(same_data_take(then, origin("a", "b", 1, "cpu")));
	assert_non_null(strstr(why, "/a' had 200000 tokens (fingerprint "));
}

static void shards_seeds_and_their_order_count(void **state)
{
	(void)state;
	assert_false(same_data_take(origin("a", "b", 1, "cpu"), origin("b", "a", 1, "cpu")));
	assert_non_null(strstr(why, "/b' had 200000 tokens"));
	assert_false(same_data_take(origin("a", "b", 1, "cpu"), origin("a", "b", 2, "cpu")));
	assert_non_null(strstr(why, "seed"));
}

/* Manifests of before there were mixtures say nothing of them. */
static void another_mixture_is_other_data(void **state)
{
	json_t *then = origin("a", "b", 1, "cpu"), *now = json_deep_copy(then);

	(void)state;
	json_object_del(then, "mixture");
	assert_true(lh_origin_same_data(then, now, why, sizeof(why)));
	json_object_set_new(now, "mixture", json_pack("[[f, i], [f, i]]", 1.0, 1, 2.0, 1));
	assert_false(lh_origin_same_data(then, now, why, sizeof(why)));
	json_object_set_new(then, "mixture", json_pack("[[f, i], [f, i]]", 1.0, 1, 3.0, 1));
	assert_false(same_data_take(then, now));
	assert_non_null(strstr(why, "mixture"));
}

/* Steps do not depend on it. */
static void another_validation_shard_is_no_other_data(void **state)
{
	json_t *then = origin("a", "b", 1, "cpu");

	(void)state;
	pack("val", 120, -1);
	assert_true(same_data_take(then, origin("a", "b", 1, "cpu")));
}

static void another_device_is_told(void **state)
{
	json_t *a = origin("a", "b", 1, "cpu, 2 threads"), *b = origin("a", "b", 1, "cpu, 4");

	(void)state;
	assert_true(lh_origin_same_device(a, a, why, sizeof(why)));
	assert_false(lh_origin_same_device(a, b, why, sizeof(why)));
	assert_string_equal(why, "it was computed on 'cpu, 2 threads', this is 'cpu, 4'");
	json_decref(a);
	json_decref(b);
}

static void what_is_not_known_does_not_differ(void **state)
{
	json_t *now = origin("a", "b", 1, "cpu"), *empty = json_object();

	(void)state;
	assert_true(lh_origin_same_data(NULL, now, why, sizeof(why)));
	assert_true(lh_origin_same_data(empty, now, why, sizeof(why)));
	assert_true(lh_origin_same_device(NULL, now, why, sizeof(why)));
	assert_true(lh_origin_same_device(empty, now, why, sizeof(why)));
	json_decref(now);
	json_decref(empty);
}

#define ORIGIN_TEST(f) cmocka_unit_test_setup_teardown(f, setup, scratch_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ORIGIN_TEST(the_same_is_the_same_wherever_it_lies),
		ORIGIN_TEST(one_other_token_is_another_shard),
		ORIGIN_TEST(shards_seeds_and_their_order_count),
		ORIGIN_TEST(another_mixture_is_other_data),
		ORIGIN_TEST(another_validation_shard_is_no_other_data),
		ORIGIN_TEST(another_device_is_told),
		ORIGIN_TEST(what_is_not_known_does_not_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

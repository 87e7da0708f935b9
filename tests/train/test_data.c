/* test_data.c: the sampler: an epoch is every window once, in an order that
 * depends on seed and epoch alone, and a cursor is all there is to resume. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../scratch.h"
#include "train/data.h"

enum { T = 8, VOCAB = 5000 };

/* A shard that counts on from `first`, so that a token tells its position. */
static char *pack(const char *name, int32_t first, int64_t count)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;

	assert_int_equal(lh_shard_writer_new(&w, path, VOCAB, LH_SHARD_NO_SEPARATOR, &err),
			 0);
	for (int64_t i = 0; i < count; i++) {
		int32_t id = first + (int32_t)i;

		assert_int_equal(lh_shard_writer_add(w, &id, 1, &err), 0);
	}
	assert_int_equal(lh_shard_writer_commit(w, 1, &err), 0);
	return path;
}

struct fixture {
	struct lh_job job;
	char *train[3];
	struct lh_data d;
};

/* Three shards: 3 windows and a tail, 1 window exactly, 5 windows; validation
 * of 41 tokens. Positions are told apart by thousands. */
static void fixture_open(struct fixture *f, int64_t seed)
{
	struct lh_err err = LH_ERR_INIT;

	memset(f, 0, sizeof(*f));
	f->train[0] = pack("a.bin", 0, 3 * T + 6);
	f->train[1] = pack("b.bin", 1000, T + 1);
	f->train[2] = pack("c.bin", 2000, 5 * T + 1);
	f->job.data.train = f->train;
	f->job.data.train_count = 3;
	f->job.data.validation[0].path = pack("v.bin", 3000, 41);
	f->job.data.validation_count = 1;
	f->job.data.seq_len = T;
	f->job.data.shuffle_seed = seed;
	f->job.model.vocab = VOCAB;
	if (lh_data_open(&f->d, &f->job, NULL, &err))
		fail_msg("%s", err.text);
}

static void fixture_close(struct fixture *f)
{
	lh_data_close(&f->d);
	for (int i = 0; i < 3; i++)
		free(f->train[i]);
	free(f->job.data.validation[0].path);
}

/* lh_data_window needs the number of windows only. */
static void permutation(int64_t n, uint64_t seed, int64_t epoch, int64_t *out)
{
	int64_t first[2] = { 0, n };
	struct lh_data d = { .seq_len = T, .seed = seed, .first = first, .count = 1 };

	for (int64_t i = 0; i < n; i++)
		out[i] = lh_data_window(&d, epoch * n + i);
}

static void an_epoch_is_a_permutation(void **state)
{
	static int64_t order[5000];
	static bool seen[5000];
	const int64_t sizes[] = { 1, 2, 3, 4, 5, 15, 16, 17, 63, 65, 1000, 4096, 4097 };

	(void)state;
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
		for (int64_t epoch = 0; epoch < 3; epoch++) {
			int64_t n = sizes[s];

			permutation(n, 7, epoch, order);
			memset(seen, 0, sizeof(seen));
			for (int64_t i = 0; i < n; i++) {
				assert_in_range(order[i], 0, n - 1);
				assert_false(seen[order[i]]);
				seen[order[i]] = true;
			}
		}
}

static int64_t fixed_points(const int64_t *a, const int64_t *b, int64_t n)
{
	int64_t same = 0;

	for (int64_t i = 0; i < n; i++)
		same += a[i] == (b ? b[i] : i);
	return same;
}

/* Two random orders of 1000 agree in about one place. */
static void seed_and_epoch_each_change_the_order(void **state)
{
	int64_t a[1000], b[1000];

	(void)state;
	permutation(1000, 1, 0, a);
	assert_in_range(fixed_points(a, NULL, 1000), 0, 10);
	permutation(1000, 1, 1, b);
	assert_in_range(fixed_points(a, b, 1000), 0, 10);
	permutation(1000, 2, 0, b);
	assert_in_range(fixed_points(a, b, 1000), 0, 10);
	permutation(1000, 1, 0, b);
	assert_memory_equal(a, b, sizeof(a));
}

/* Every seed and epoch is an order of its own: no pair of them may coincide. */
static void no_two_seeds_share_their_epochs(void **state)
{
	int64_t a[1000], b[1000];

	(void)state;
	for (int64_t epoch = 1; epoch < 4; epoch++)
		for (uint64_t shift = 0; shift < 64; shift++) {
			permutation(1000, 1, epoch, a);
			permutation(1000, 1 ^ (uint64_t)epoch << shift, 0, b);
			assert_in_range(fixed_points(a, b, 1000), 0, 10);
		}
}

static void every_window_comes_once_an_epoch(void **state)
{
	int32_t tokens[T], targets[T];
	struct lh_err err = LH_ERR_INIT;
	int seen[9] = { 0 };
	struct fixture f;

	(void)state;
	fixture_open(&f, 3);
	assert_int_equal(lh_data_windows(&f.d), 9);
	for (int64_t cursor = 0; cursor < 18; cursor++) {
		int shard, window;

		assert_int_equal(lh_data_train(&f.d, cursor, tokens, targets, NULL, &err), 0);
		for (int t = 0; t < T; t++) {
			assert_int_equal(tokens[t], tokens[0] + t);
			assert_int_equal(targets[t], tokens[t] + 1);
		}
		shard = tokens[0] / 1000;
		assert_int_equal(tokens[0] % 1000 % T, 0);
		window = tokens[0] % 1000 / T;
		assert_in_range(window, 0, shard == 0 ? 2 : shard == 1 ? 0 : 4);
		seen[(shard == 0 ? 0 : shard == 1 ? 3 : 4) + window]++;
		if (cursor == 8)
			for (int w = 0; w < 9; w++)
				assert_int_equal(seen[w], 1);
	}
	for (int w = 0; w < 9; w++)
		assert_int_equal(seen[w], 2);
	fixture_close(&f);
}

/* The first shard alone, against the other two at a third of its weight: 3 windows come
 * three times as often as 6. */
static void mix(struct fixture *f)
{
	struct lh_err err = LH_ERR_INIT;

	lh_data_close(&f->d);
	f->job.data.sources[0] = (struct lh_job_source){ .weight = 3, .shards = 1 };
	f->job.data.sources[1] = (struct lh_job_source){ .weight = 1, .shards = 2 };
	f->job.data.source_count = 2;
	assert_int_equal(lh_data_open(&f->d, &f->job, NULL, &err), 0);
}

static void each_source_of_a_mixture_has_its_epochs(void **state)
{
	int32_t tokens[T], targets[T];
	struct lh_err err = LH_ERR_INIT;
	int seen[3] = { 0 };
	struct fixture f;
	int64_t draws = 0;

	(void)state;
	fixture_open(&f, 3);
	mix(&f);
	for (int64_t cursor = 0; cursor < 4 * 90; cursor++) {
		bool epoch_is_over;

		assert_int_equal(lh_data_train(&f.d, cursor, tokens, targets, NULL, &err), 0);
		if (tokens[0] >= 1000)
			continue;
		assert_int_equal(lh_data_epoch(&f.d, cursor), draws / 3);
		seen[tokens[0] / T]++;
		epoch_is_over = ++draws % 3 == 0;
		for (int w = 0; epoch_is_over && w < 3; w++)
			assert_int_equal(seen[w], draws / 3);
	}
	assert_in_range(draws, 3 * 90 - 1, 3 * 90 + 1);
	fixture_close(&f);
}

/* The first draws with the weights before, the others by a reader that has but what a
 * checkpoint holds. */
static void weights_set_live_leave_each_source_its_epochs(void **state)
{
	static const double sets[][LH_SOURCES_MAX] = { { 1, 4 }, { 0, 1 }, { 2, 1 } };
	const int64_t at[] = { 40, 41, 80 };
	int32_t tokens[T], targets[T];
	struct lh_err err = LH_ERR_INIT;
	int draws[2] = { 0 }, seen[9] = { 0 }, set = 0;
	struct fixture f;

	(void)state;
	fixture_open(&f, 3);
	mix(&f);
	for (int64_t cursor = 0; cursor < 300; cursor++) {
		const int windows[] = { 3, 6 }, first[] = { 0, 3 };
		int source, window;

		if (set < 3 && cursor == at[set]) {
			json_t *kept;

			lh_mix_set(&f.d.mix, sets[set++], cursor);
			kept = lh_mix_to_json(&f.d.mix);
			lh_data_close(&f.d);
			assert_int_equal(lh_data_open(&f.d, &f.job, NULL, &err), 0);
			assert_true(lh_mix_from_json(&f.d.mix, kept));
			json_decref(kept);
		}
		assert_int_equal(lh_data_train(&f.d, cursor, tokens, targets, NULL, &err), 0);
		source = tokens[0] >= 1000;
		window = tokens[0] < 1000 ? tokens[0] / T :
			 tokens[0] < 2000 ? 3 : 4 + (tokens[0] - 2000) / T;
		/* Never twice before all of its source came. */
		assert_int_equal(seen[window]++, draws[source] / windows[source]);
		draws[source]++;
		for (int w = 0; draws[source] % windows[source] == 0 && w < windows[source]; w++)
			assert_int_equal(seen[first[source] + w],
					 draws[source] / windows[source]);
	}
	/* 30 of 40, none of 40, 2 of 3 of the rest. */
	assert_in_range(draws[0], 30 + 147 - 2, 30 + 147 + 2);
	fixture_close(&f);
}

static void a_cursor_is_all_there_is_to_resume(void **state)
{
	int32_t tokens[40], targets[T], again[T];
	struct lh_err err = LH_ERR_INIT;
	struct fixture f;

	(void)state;
	fixture_open(&f, 11);
	for (int64_t cursor = 0; cursor < 40; cursor++) {
		int32_t all[T];

		assert_int_equal(lh_data_train(&f.d, cursor, all, targets, NULL, &err), 0);
		tokens[cursor] = all[0];
	}
	fixture_close(&f);
	fixture_open(&f, 11);
	for (int64_t cursor = 39; cursor >= 23; cursor--) {
		assert_int_equal(lh_data_train(&f.d, cursor, again, targets, NULL, &err), 0);
		assert_int_equal(again[0], tokens[cursor]);
	}
	fixture_close(&f);
}

static void validation_is_spread_over_the_split(void **state)
{
	int32_t tokens[T], targets[T];
	struct lh_err err = LH_ERR_INIT;
	struct fixture f;

	(void)state;
	fixture_open(&f, 1);
	assert_int_equal(f.d.validation_count, 1);
	for (int64_t i = 0; i < 3; i++) {
		assert_int_equal(lh_data_validation(&f.d, 0, i, 3, tokens, targets, NULL, &err), 0);
		assert_int_equal(tokens[0], 3000 + i * 16);
		assert_int_equal(targets[T - 1], 3000 + i * 16 + T);
	}
	/* The last one ends with the split. */
	assert_int_equal(targets[T - 1], 3040);
	assert_int_equal(lh_data_validation(&f.d, 0, 0, 1, tokens, targets, NULL, &err), 0);
	assert_int_equal(tokens[0], 3000);
	fixture_close(&f);
}

static void a_short_split_is_filled_with_nothing_to_predict(void **state)
{
	int32_t tokens[T], targets[T];
	struct lh_err err = LH_ERR_INIT;
	struct fixture f;

	(void)state;
	fixture_open(&f, 1);
	lh_data_close(&f.d);
	free(f.job.data.validation[0].path);
	f.job.data.validation[0].path = pack("v.bin", 3000, 4);
	assert_int_equal(lh_data_open(&f.d, &f.job, NULL, &err), 0);
	for (int64_t i = 0; i < 3; i++) {
		assert_int_equal(lh_data_validation(&f.d, 0, i, 3, tokens, targets, NULL, &err), 0);
		assert_int_equal(tokens[2], 3002);
		assert_int_equal(targets[2], 3003);
		for (int t = 3; t < T; t++)
			assert_int_equal(targets[t], -1);
	}
	fixture_close(&f);
}

/* A split of one token has nothing to predict at all. */
static void a_split_of_one_token_is_refused(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct fixture f;

	(void)state;
	fixture_open(&f, 1);
	lh_data_close(&f.d);
	free(f.job.data.validation[0].path);
	f.job.data.validation[0].path = pack("v.bin", 3000, 1);
	assert_int_equal(lh_data_open(&f.d, &f.job, NULL, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "v.bin"));
	fixture_close(&f);
}

static void shards_too_short_for_a_window_are_refused(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct fixture f;

	(void)state;
	fixture_open(&f, 1);
	lh_data_close(&f.d);
	f.job.data.seq_len = 1000;
	assert_int_equal(lh_data_open(&f.d, &f.job, NULL, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "1001"));
	f.job.data.seq_len = T;
	remove(f.train[1]);
	assert_int_equal(lh_data_open(&f.d, &f.job, NULL, &err), LH_EDATA);
	assert_non_null(strstr(err.text, f.train[1]));
	fixture_close(&f);
}

/* Nobody else may read an id that the embedding does not have: the header can
 * lie, so what is read is checked. */
static void an_id_past_the_vocabulary_names_file_and_position(void **state)
{
	int32_t tokens[T], targets[T];
	struct lh_err err = LH_ERR_INIT;
	int failed = 0, validation = 0;
	struct fixture f;

	(void)state;
	fixture_open(&f, 1);
	f.d.vocab = 2019; /* 2019 first comes at position 19 of c.bin, in window 2 */
	for (int64_t cursor = 0; cursor < 9; cursor++)
		if (lh_data_train(&f.d, cursor, tokens, targets, NULL, &err)) {
			assert_int_equal(err.code, LH_EDATA);
			assert_non_null(strstr(err.text, f.train[2]));
			failed++;
			if (tokens[0] == 2016)
				assert_non_null(strstr(err.text, "2019 at position 19,"));
		}
	assert_int_equal(failed, 3);
	validation = lh_data_validation(&f.d, 0, 0, 1, tokens, targets, NULL, &err);
	assert_int_equal(validation, LH_EDATA);
	assert_non_null(strstr(err.text, "v.bin"));
	fixture_close(&f);
}

/* An id that is a target only: the last of its window. */
static void a_last_target_past_the_vocabulary_is_found(void **state)
{
	int32_t tokens[T], targets[T];
	struct lh_err err = LH_ERR_INIT;
	struct fixture f;
	int failed = 0;

	(void)state;
	fixture_open(&f, 1);
	f.d.vocab = 2000 + 5 * T;
	for (int64_t cursor = 0; cursor < 9; cursor++)
		failed += lh_data_train(&f.d, cursor, tokens, targets, NULL, &err) == LH_EDATA;
	assert_int_equal(failed, 1);
	assert_non_null(strstr(err.text, "2040 at position 40,"));
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_epoch_is_a_permutation),
		cmocka_unit_test(seed_and_epoch_each_change_the_order),
		cmocka_unit_test(no_two_seeds_share_their_epochs),
		SCRATCH_TEST(every_window_comes_once_an_epoch),
		SCRATCH_TEST(each_source_of_a_mixture_has_its_epochs),
		SCRATCH_TEST(weights_set_live_leave_each_source_its_epochs),
		SCRATCH_TEST(a_cursor_is_all_there_is_to_resume),
		SCRATCH_TEST(validation_is_spread_over_the_split),
		SCRATCH_TEST(a_short_split_is_filled_with_nothing_to_predict),
		SCRATCH_TEST(a_split_of_one_token_is_refused),
		SCRATCH_TEST(shards_too_short_for_a_window_are_refused),
		SCRATCH_TEST(an_id_past_the_vocabulary_names_file_and_position),
		SCRATCH_TEST(a_last_target_past_the_vocabulary_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

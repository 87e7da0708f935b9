/* test_checkpoint.c: a checkpoint is complete or absent: every bit comes back,
 * and whatever is missing, cut or changed, the one before is used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lighthouse/version.h"
#include "saved.h"
#include "train/rng.h"

static const enum lh_model_state states[] = { LH_STATE_PARAM, LH_STATE_MOMENT1,
					      LH_STATE_MOMENT2 };

static int damaged_count;
static char damaged_text[2048];

static int setup(void **state)
{
	damaged_count = 0;
	*damaged_text = '\0';
	return saved_setup(state, &saved_small);
}

/* Any bits but NaN: the state of a seed. */
static void state_of_seed(uint64_t seed, int which, float *out)
{
	for (int64_t i = 0; i < lh_model_param_count(model); i++)
		out[i] = (float)lh_rng_uniform(seed, LH_RNG_SAMPLE, (uint64_t)i * 3 +
					       (uint64_t)which) - 0.5f;
}

static void fill(uint64_t seed)
{
	int64_t n = lh_model_param_count(model);
	float *host = lh_alloc((size_t)n * 4);

	for (int s = 0; s < 3; s++) {
		state_of_seed(seed, s, host);
		lh_model_write(model, states[s], 0, n, host);
	}
	free(host);
}

static bool holds(uint64_t seed)
{
	int64_t n = lh_model_param_count(model);
	float *want = lh_alloc((size_t)n * 4), *have = lh_alloc((size_t)n * 4);
	bool same = true;

	for (int s = 0; s < 3; s++) {
		state_of_seed(seed, s, want);
		assert_int_equal(lh_model_read(model, states[s], 0, n, have, NULL), 0);
		same = same && !memcmp(want, have, (size_t)n * 4);
	}
	free(want);
	free(have);
	return same;
}

/* Saves the state of `step` as its seed. */
static void save(int64_t step)
{
	struct lh_progress p = { .attempt = 2, .step = step, .command = 77, .phase = 1,
				 .phase_step = step - 1, .phase_tokens = step * 100,
				 .phase_ms = (double)step / 3, .cursor = step * 4,
				 .total_steps = -1 };
	struct lh_err err = LH_ERR_INIT;
	int64_t bytes;
	char *path;

	fill((uint64_t)step);
	assert_int_equal(lh_snapshot_take(&snapshot, &err), 0);
	fill(0); /* what is written is the snapshot */
	if (lh_checkpoint_save(scratch_dir, &snapshot, &p, spec, origin, &path, &bytes,
			       &err))
		fail_msg("%s", err.text);
	assert_true(bytes > lh_model_param_count(model) * 12);
	free(path);
}

static void on_damaged(void *arg, const char *path, const struct lh_err *why)
{
	size_t n = strlen(damaged_text);

	(void)arg;
	damaged_count++;
	snprintf(damaged_text + n, sizeof(damaged_text) - n, "%s: %s\n", path, why->text);
}

/* Loads the newest; gives its step, or a negative LH_E*. */
static int64_t load(void)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;
	char *path;
	int rc = lh_checkpoint_load_newest(scratch_dir, INT64_MAX, model, &p, &path,
					   on_damaged, NULL, &err);

	if (rc)
		return rc;
	assert_true(holds((uint64_t)p.step));
	free(path);
	return p.step;
}

static int remove_mark(const char *path)
{
	char *mark = lh_asprintf("%s/" LH_MANIFEST_PINNED, path);
	int rc = unlink(mark);

	free(mark);
	return rc;
}

/* After a save that was the last of all. */
static void retain(int keep, int64_t keep_every, int64_t protect)
{
	lh_checkpoint_retain(scratch_dir, 1000, keep, keep_every, protect);
}

static bool there(const char *name)
{
	char *path = scratch_path(name);
	bool yes = lh_fs_exists(path);

	free(path);
	return yes;
}

static int entries(void)
{
	DIR *d = opendir(scratch_dir);
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void every_bit_comes_back(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;
	json_t *manifest;
	char *path;

	(void)state;
	save(41);
	assert_false(holds(41));
	assert_int_equal(lh_checkpoint_load_newest(scratch_dir, INT64_MAX, model, &p,
						   &path, on_damaged, NULL, &err), 0);
	assert_true(holds(41));
	assert_int_equal(p.attempt, 2);
	assert_int_equal(p.step, 41);
	assert_int_equal(p.command, 77);
	assert_int_equal(p.phase, 1);
	assert_int_equal(p.phase_step, 40);
	assert_int_equal(p.phase_tokens, 4100);
	assert_true(p.phase_ms == 41.0 / 3);
	assert_int_equal(p.cursor, 164);
	assert_int_equal(p.total_steps, -1);
	assert_int_equal(lh_manifest_read(path, &manifest, &err), 0);
	assert_true(json_equal(json_object_get(manifest, "job"), spec));
	assert_true(json_equal(json_object_get(manifest, "origin"), origin));
	assert_string_equal(json_string_value(json_object_get(manifest, "written_by")),
			    lh_build);
	assert_int_equal(strncmp(lh_build, LH_VERSION, strlen(LH_VERSION)), 0);
	json_decref(manifest);
	free(path);
	assert_int_equal(damaged_count, 0);
}

static void weights_alone_can_be_loaded(void **state)
{
	char *path = scratch_path("step-0000000005");
	int64_t n = lh_model_param_count(model);
	float *want = lh_alloc((size_t)n * 4), *have = lh_alloc((size_t)n * 4);
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;

	(void)state;
	save(5);
	assert_int_equal(lh_checkpoint_load(path, model, &p, false, &err), 0);
	state_of_seed(5, 0, want);
	lh_model_read(model, LH_STATE_PARAM, 0, n, have, NULL);
	assert_memory_equal(want, have, (size_t)n * 4);
	state_of_seed(0, 1, want);
	lh_model_read(model, LH_STATE_MOMENT1, 0, n, have, NULL);
	assert_memory_equal(want, have, (size_t)n * 4);
	free(want);
	free(have);
	free(path);
}

static void the_newest_is_loaded(void **state)
{
	(void)state;
	assert_int_equal(load(), LH_ENOTFOUND);
	save(9);
	save(100);
	save(20);
	assert_int_equal(load(), 100);
}

static void a_save_of_the_same_step_takes_its_place(void **state)
{
	(void)state;
	save(7);
	save(7);
	assert_int_equal(load(), 7);
	assert_int_equal(entries(), 1);
}

static const char *const files[] = { "params.safetensors", "moments.safetensors",
				     "manifest.json" };

/* Saves 10 and 20, damages a file of 20: 10 is loaded, 20 is named and set
 * aside. */
static void check_damage(const char *file, void (*damage)(const char *name))
{
	char name[64];

	lh_fs_remove_tree(scratch_dir, NULL);
	mkdir(scratch_dir, 0700);
	damaged_count = 0;
	*damaged_text = '\0';
	save(10);
	save(20);
	snprintf(name, sizeof(name), "step-0000000020/%s", file);
	damage(name);
	assert_int_equal(load(), 10);
	assert_int_equal(damaged_count, 1);
	assert_non_null(strstr(damaged_text, "step-0000000020"));
	assert_false(there("step-0000000020"));
	assert_true(there("step-0000000020.damaged"));
	/* Once is enough. */
	assert_int_equal(load(), 10);
	assert_int_equal(damaged_count, 1);
}

static void cut_last(const char *name)
{
	size_t bytes;
	char *data = scratch_read(name, &bytes);

	scratch_write(name, data, bytes - 1);
	free(data);
}

static void cut_half(const char *name)
{
	size_t bytes;
	char *data = scratch_read(name, &bytes);

	scratch_write(name, data, bytes / 2);
	free(data);
}

static void empty(const char *name)
{
	scratch_write(name, "", 0);
}

static void take_away(const char *name)
{
	char *path = scratch_path(name);

	assert_int_equal(unlink(path), 0);
	free(path);
}

static void truncated_files_are_found(void **state)
{
	(void)state;
	for (int f = 0; f < 3; f++) {
		/* Without its last newline or brace, a manifest may be whole. */
		if (f < 2)
			check_damage(files[f], cut_last);
		check_damage(files[f], cut_half);
		check_damage(files[f], empty);
	}
}

static void missing_files_are_found(void **state)
{
	(void)state;
	for (int f = 0; f < 3; f++)
		check_damage(files[f], take_away);
}

static size_t flip_at; /* in 1/16 of the file */

static void flip(const char *name)
{
	size_t bytes;
	char *data = scratch_read(name, &bytes);

	data[(bytes - 1) * flip_at / 16] ^= 0x10;
	scratch_write(name, data, bytes);
	free(data);
}

static void a_flipped_bit_is_found_wherever_it_is(void **state)
{
	(void)state;
	for (int f = 0; f < 2; f++)
		for (flip_at = 0; flip_at <= 16; flip_at++)
			check_damage(files[f], flip);
}

/* Exchanged files have good tensors and wrong checksums. */
static void old_params(const char *name)
{
	size_t bytes;
	char *data = scratch_read("step-0000000010/params.safetensors", &bytes);

	scratch_write(name, data, bytes);
	free(data);
}

static void a_file_of_another_checkpoint_is_found(void **state)
{
	(void)state;
	check_damage("params.safetensors", old_params);
}

static void give_name(const char *from, const char *to)
{
	char *old = scratch_path(from), *new = scratch_path(to);

	assert_int_equal(rename(old, new), 0);
	free(old);
	free(new);
}

static void what_a_torn_write_left_is_passed_over_and_cleared(void **state)
{
	(void)state;
	save(10);
	save(20);
	give_name("step-0000000020", "step-0000000020.tmp");
	assert_int_equal(load(), 10);
	assert_int_equal(damaged_count, 0);
	save(20); /* over the leftover */
	assert_int_equal(load(), 20);
	assert_false(there("step-0000000020.tmp"));
	scratch_write("step-0000000030.tmp", "x", 1);
	retain(5, 0, -1);
	assert_false(there("step-0000000030.tmp"));
	assert_int_equal(entries(), 2);
}

/* Whatever their names are by now. To start over is no way out: what it writes
 * would push out what may be repaired. */
static void none_that_can_be_used_is_not_none(void **state)
{
	(void)state;
	save(10);
	save(20);
	take_away("step-0000000010/manifest.json");
	cut_half("step-0000000020/params.safetensors");
	assert_int_equal(load(), LH_ECORRUPT);
	assert_int_equal(damaged_count, 2);
	assert_int_equal(load(), LH_ECORRUPT);
	assert_true(there("step-0000000010"));
	assert_true(there("step-0000000020"));
	give_name("step-0000000010", "step-0000000010.damaged");
	give_name("step-0000000020", "step-0000000020.left");
	assert_int_equal(load(), LH_ECORRUPT);
	lh_fs_remove_tree(scratch_dir, NULL);
	mkdir(scratch_dir, 0700);
	scratch_write("step-0000000010.tmp", "x", 1);
	assert_int_equal(load(), LH_ENOTFOUND);
}

static void of_another_version(const char *name)
{
	size_t bytes;
	char *text = scratch_read(name, &bytes), *at = strstr(text, "\"version\": 2");

	assert_non_null(at);
	at[11] = '9';
	scratch_write(name, text, bytes);
	free(text);
}

/* Training goes on from 10: what is saved then stays, though 30 is a later step, and
 * 30 does not come back by itself as the newest of a line that was left. */
static void one_that_cannot_be_read_is_set_aside_and_pushes_out_none(void **state)
{
	(void)state;
	save(10);
	save(30);
	of_another_version("step-0000000030/manifest.json");
	assert_int_equal(load(), 10);
	assert_non_null(strstr(damaged_text, "format version 9"));
	assert_true(there("step-0000000030.unread"));
	save(20);
	retain(1, 0, -1);
	assert_int_equal(load(), 20);
	assert_true(there("step-0000000030.unread"));
}

static void what_was_just_written_stays_below_what_is_later(void **state)
{
	(void)state;
	save(30);
	save(40);
	save(10);
	save(20);
	lh_checkpoint_retain(scratch_dir, 20, 1, 0, -1);
	assert_false(there("step-0000000010"));
	assert_true(there("step-0000000020"));
	assert_true(there("step-0000000030"));
	assert_true(there("step-0000000040"));
}

static void one_up_to_a_step_can_be_asked_for(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;
	char *path;

	(void)state;
	save(10);
	save(20);
	save(30);
	assert_int_equal(lh_checkpoint_load_newest(scratch_dir, 25, model, &p, &path,
						   on_damaged, NULL, &err), 0);
	assert_int_equal(p.step, 20);
	assert_true(there("step-0000000030"));
	free(path);
	assert_int_equal(lh_checkpoint_load_newest(scratch_dir, 5, model, &p, &path,
						   on_damaged, NULL, &err), LH_ECORRUPT);
}

static void a_directory_that_cannot_be_read_is_not_an_empty_one(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;
	char *file = scratch_path("file"), *path;

	(void)state;
	scratch_write("file", "x", 1);
	assert_int_equal(lh_checkpoint_load_newest(file, INT64_MAX, model, &p, &path,
						   on_damaged, NULL, &err), LH_EIO);
	free(file);
}

static int told, told_bad;

static void on_verified(void *arg, const char *file, int64_t bytes,
			const struct lh_err *why)
{
	(void)arg;
	assert_true(why || bytes > 0);
	assert_non_null(file);
	told++;
	told_bad += why != NULL;
}

static int verify(struct lh_err *err)
{
	char *path = scratch_path("step-0000000020");
	int rc;

	told = told_bad = 0;
	rc = lh_manifest_verify(path, on_verified, NULL, err);
	free(path);
	return rc;
}

static void a_whole_one_verifies(void **state)
{
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	save(20);
	assert_int_equal(verify(&err), 0);
	assert_int_equal(told, 3);
	assert_int_equal(told_bad, 0);
}

/* Every file is looked at, and the first that is bad is the error. */
static void verify_names_what_is_damaged(void **state)
{
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	assert_int_equal(verify(&err), LH_ENOTFOUND);
	assert_int_equal(told, 0);
	save(20);
	flip_at = 16;
	flip("step-0000000020/moments.safetensors");
	assert_int_equal(verify(&err), LH_ECORRUPT);
	assert_int_equal(told, 3);
	assert_int_equal(told_bad, 1);
	assert_non_null(strstr(err.text, "'moments.safetensors' does not match"));
	cut_last("step-0000000020/params.safetensors");
	assert_int_equal(verify(&err), LH_ECORRUPT);
	assert_int_equal(told_bad, 2);
	assert_non_null(strstr(err.text, "'params.safetensors' has "));
	assert_true(*err.hint);
	take_away("step-0000000020/params.safetensors");
	assert_int_equal(verify(&err), LH_ENOTFOUND);
	assert_non_null(strstr(err.text, "'params.safetensors' is missing"));
	cut_half("step-0000000020/manifest.json");
	assert_int_equal(verify(&err), LH_ECORRUPT);
	assert_int_equal(told, 1);
}

static void retention_keeps_the_newest(void **state)
{
	(void)state;
	for (int64_t step = 1; step <= 5; step++)
		save(step * 10);
	retain(2, 0, -1);
	assert_int_equal(entries(), 2);
	assert_int_equal(load(), 50);
	retain(0, 0, -1);
	assert_int_equal(entries(), 1);
	assert_int_equal(load(), 50);
}

static void retention_keeps_multiples_for_good(void **state)
{
	(void)state;
	for (int64_t step = 1; step <= 7; step++)
		save(step * 10);
	retain(2, 30, -1);
	assert_int_equal(entries(), 3);
	assert_true(there("step-0000000030"));
	assert_true(there("step-0000000060")); /* one of the newest two as well */
	assert_true(there("step-0000000070")); /* the newest, no multiple */
	save(80);
	save(100);
	retain(1, 30, -1);
	assert_int_equal(entries(), 3);
	assert_true(there("step-0000000030"));
	assert_true(there("step-0000000060"));
	assert_int_equal(load(), 100);
	/* None that is asked for no more is held on to. */
	retain(1, 0, -1);
	assert_int_equal(entries(), 1);
	assert_int_equal(load(), 100);
}

static void a_pinned_one_stays_and_its_successor_is_pinned_too(void **state)
{
	char *path = lh_checkpoint_path(scratch_dir, 10);
	struct lh_err err;

	(void)state;
	save(10);
	assert_int_equal(lh_checkpoint_pin(path, &err), 0);
	save(10); /* again: the mark is not the old one's alone */
	save(20);
	save(30);
	retain(1, 0, -1);
	assert_true(there("step-0000000010"));
	assert_false(there("step-0000000020"));
	assert_true(there("step-0000000030"));
	assert_int_equal(remove_mark(path), 0);
	retain(1, 0, -1);
	assert_false(there("step-0000000010"));
	free(path);
}

static void going_back_removes_what_came_later_but_pinned_ones(void **state)
{
	char *path = lh_checkpoint_path(scratch_dir, 30);
	struct lh_err err;

	(void)state;
	for (int step = 10; step <= 40; step += 10)
		save(step);
	assert_int_equal(lh_checkpoint_pin(path, &err), 0);
	assert_int_equal(lh_checkpoint_remove_after(scratch_dir, 20, &err), 0);
	assert_int_equal(load(), 20);
	assert_true(there("step-0000000010"));
	assert_true(there("step-0000000030.left"));
	assert_false(there("step-0000000040"));
	free(path);
}

/* A switch on trial may have to go back there. */
static void a_protected_one_stays(void **state)
{
	(void)state;
	for (int step = 10; step <= 30; step += 10)
		save(step);
	retain(1, 0, 10);
	assert_true(there("step-0000000010"));
	assert_false(there("step-0000000020"));
	retain(1, 0, -1);
	assert_false(there("step-0000000010"));
}

/* The run went back to 10 because 30 was damaged: with keep 1, what is saved at
 * 20 must not lose its place to 30. */
static void retention_never_counts_a_damaged_one(void **state)
{
	(void)state;
	save(10);
	save(30);
	cut_half("step-0000000030/moments.safetensors");
	assert_int_equal(load(), 10);
	save(20);
	retain(1, 0, -1);
	assert_int_equal(load(), 20);
	assert_true(there("step-0000000030.damaged"));
	/* Reached again, it is a checkpoint like any other. */
	save(30);
	retain(1, 0, -1);
	assert_int_equal(load(), 30);
}

static void a_save_that_cannot_be_written_is_an_error(void **state)
{
	struct lh_progress p = { .step = 3 };
	struct lh_err err = LH_ERR_INIT;
	int64_t bytes;
	char *path;

	(void)state;
	/* A file where the directory should be made: works as root too. */
	scratch_write("blocked", "x", 1);
	path = scratch_path("blocked");
	assert_int_equal(lh_checkpoint_save(path, &snapshot, &p, spec, origin, &path, &bytes,
					    &err), LH_EIO);
	assert_non_null(strstr(err.text, "blocked"));
	free(path);
}

#define CHECKPOINT_TEST(f) cmocka_unit_test_setup_teardown(f, setup, saved_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECKPOINT_TEST(every_bit_comes_back),
		CHECKPOINT_TEST(weights_alone_can_be_loaded),
		CHECKPOINT_TEST(the_newest_is_loaded),
		CHECKPOINT_TEST(a_save_of_the_same_step_takes_its_place),
		CHECKPOINT_TEST(truncated_files_are_found),
		CHECKPOINT_TEST(missing_files_are_found),
		CHECKPOINT_TEST(a_flipped_bit_is_found_wherever_it_is),
		CHECKPOINT_TEST(a_file_of_another_checkpoint_is_found),
		CHECKPOINT_TEST(what_a_torn_write_left_is_passed_over_and_cleared),
		CHECKPOINT_TEST(none_that_can_be_used_is_not_none),
		CHECKPOINT_TEST(one_that_cannot_be_read_is_set_aside_and_pushes_out_none),
		CHECKPOINT_TEST(what_was_just_written_stays_below_what_is_later),
		CHECKPOINT_TEST(one_up_to_a_step_can_be_asked_for),
		CHECKPOINT_TEST(a_directory_that_cannot_be_read_is_not_an_empty_one),
		CHECKPOINT_TEST(a_whole_one_verifies),
		CHECKPOINT_TEST(verify_names_what_is_damaged),
		CHECKPOINT_TEST(retention_keeps_the_newest),
		CHECKPOINT_TEST(retention_keeps_multiples_for_good),
		CHECKPOINT_TEST(a_pinned_one_stays_and_its_successor_is_pinned_too),
		CHECKPOINT_TEST(going_back_removes_what_came_later_but_pinned_ones),
		CHECKPOINT_TEST(a_protected_one_stays),
		CHECKPOINT_TEST(retention_never_counts_a_damaged_one),
		CHECKPOINT_TEST(a_save_that_cannot_be_written_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_checkpoint_files.c: the files a large state is spread over, and checkpoints of
 * the format version before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "data/safetensors.h"
#include "saved.h"

#define SAVED "step-0000000020"
enum { STATES = 3 };

static float *want[STATES]; /* what was saved */

static int setup(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	int64_t n;

	if (saved_setup(state, &saved_small))
		return -1;
	n = lh_model_param_count(model);
	for (int s = 0; s < STATES; s++) {
		want[s] = lh_calloc((size_t)n, 4);
		for (int64_t i = 0; i < n; i++)
			want[s][i] = (float)(i * STATES + s);
		lh_model_write(model, (enum lh_model_state)s, 0, n, want[s]);
	}
	return lh_snapshot_take(&snapshot, &err);
}

static int teardown(void **state)
{
	for (int s = 0; s < STATES; s++)
		free(want[s]);
	return saved_teardown(state);
}

/* With files of so many bytes; the model is empty afterwards. */
static void save(int64_t file_bytes)
{
	struct lh_progress p = { .step = 20, .total_steps = -1 };
	size_t n = (size_t)lh_model_param_count(model);
	float *zero = lh_calloc(n, 4);
	struct lh_err err = LH_ERR_INIT;
	int64_t bytes;
	char *path;

	snapshot.file_bytes = file_bytes;
	if (saved_write(scratch_dir, &p, &path, &bytes, &err))
		fail_msg("%s", err.text);
	for (int s = 0; s < STATES; s++)
		lh_model_write(model, (enum lh_model_state)s, 0, (int64_t)n, zero);
	free(zero);
	free(path);
}

static int load(struct lh_err *err)
{
	char *path = scratch_path(SAVED);
	struct lh_progress p;
	int rc = lh_checkpoint_load(path, model, &p, true, err);

	free(path);
	return rc;
}

static bool all_is_back(void)
{
	int64_t n = lh_model_param_count(model);
	float *have = lh_calloc((size_t)n, 4);
	bool same = true;

	for (int s = 0; s < STATES; s++) {
		lh_model_read(model, (enum lh_model_state)s, 0, n, have, NULL);
		same = same && !memcmp(have, want[s], (size_t)n * 4);
	}
	free(have);
	return same;
}

static json_t *manifest_of_saved(void)
{
	char *path = scratch_path(SAVED);
	struct lh_err err = LH_ERR_INIT;
	json_t *j;

	if (lh_manifest_read(path, &j, &err))
		fail_msg("%s", err.text);
	free(path);
	return j;
}

static int tensors_in(const char *name, int64_t *bytes)
{
	char *file = lh_asprintf("%s/" SAVED "/%s", scratch_dir, name);
	struct lh_safetensors st;
	struct lh_err err = LH_ERR_INIT;
	int n;

	if (lh_safetensors_open(&st, file, &err))
		fail_msg("%s", err.text);
	*bytes = 0;
	for (int i = 0; i < st.count; i++)
		*bytes += st.tensors[i].bytes;
	n = st.count;
	lh_safetensors_close(&st);
	free(file);
	return n;
}

/* No file holds more than it may, but for a tensor that is larger by itself. */
static void large_states_lie_in_several_files(void **state)
{
	static const int64_t limits[] = { 1, 200, 1000, 1536, 4000, 1 << 20 };
	int params, alone = 0;

	(void)state;
	lh_model_params(model, &params);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct lh_err err = LH_ERR_INIT;
		json_t *j, *file;
		const char *name;
		int tensors = 0;

		lh_fs_remove_tree(scratch_dir, NULL);
		save(limits[i]);
		j = manifest_of_saved();
		json_object_foreach(json_object_get(j, "files"), name, file) {
			int64_t bytes;
			int n = tensors_in(name, &bytes);

			tensors += n;
			alone += bytes > limits[i];
			if (bytes > limits[i] && n > 1)
				fail_msg("%s: %d tensors of %lld bytes", name, n,
					 (long long)bytes);
		}
		assert_int_equal(tensors, STATES * params);
		if (limits[i] == 1)
			assert_int_equal(json_object_size(json_object_get(j, "files")),
					 STATES * params);
		if (limits[i] == 1 << 20) {
			assert_non_null(json_object_get(json_object_get(j, "files"),
							"params.safetensors"));
			assert_int_equal(json_object_size(json_object_get(j, "files")), 2);
		}
		json_decref(j);
		if (load(&err))
			fail_msg("%s", err.text);
		assert_true(all_is_back());
	}
	assert_true(alone > 0);
}

/* Tensors of all files of what is saved, which `files` of each kind are at least. */
static int count_tensors(size_t files)
{
	json_t *j = manifest_of_saved(), *file;
	const char *name;
	int tensors = 0;
	int64_t bytes;

	assert_in_range(json_object_size(json_object_get(j, "files")), 2 * files, 1000);
	json_object_foreach(json_object_get(j, "files"), name, file)
		tensors += tensors_in(name, &bytes);
	json_decref(j);
	return tensors;
}

/* Also of more ranks than there are tensors, some of which have none. */
static void the_parts_of_ranks_make_one_checkpoint(void **state)
{
	static const int ranks[] = { 2, 3, 7, 60 };
	int params;

	(void)state;
	lh_model_params(model, &params);
	for (size_t i = 0; i < 2 * sizeof(ranks) / sizeof(ranks[0]); i++) {
		struct lh_err err = LH_ERR_INIT;

		for (int s = 0; s < STATES; s++)
			lh_model_write(model, (enum lh_model_state)s, 0,
				       lh_model_param_count(model), want[s]);
		saved_ranks = ranks[i / 2];
		save(i % 2 ? 1000 : LH_CHECKPOINT_FILE_BYTES);
		assert_int_equal(count_tensors(saved_ranks < 7 ? (size_t)saved_ranks : 4),
				 STATES * params);
		if (load(&err))
			fail_msg("%s", err.text);
		assert_true(all_is_back());
	}
	saved_ranks = 1;
}

static void on_verified(void *arg, const char *file, int64_t bytes,
			const struct lh_err *why)
{
	(void)file, (void)bytes;
	*(int *)arg += !why;
}

/* Cut, or taken away: each of the files is missed, by name. */
static void every_one_of_several_files_counts(void **state)
{
	char *dir = scratch_path(SAVED);
	json_t *j, *file;
	const char *name;
	int files;

	(void)state;
	save(1000);
	j = manifest_of_saved();
	files = (int)json_object_size(json_object_get(j, "files"));
	assert_true(files > 6);
	json_object_foreach(json_object_get(j, "files"), name, file) {
		struct lh_err err = LH_ERR_INIT;
		char *at = lh_asprintf("%s/%s", dir, name), *aside = scratch_path("aside");
		int good = 0;

		assert_int_equal(rename(at, aside), 0);
		assert_int_equal(load(&err), LH_ENOTFOUND);
		assert_non_null(strstr(err.text, name));
		assert_int_equal(lh_manifest_verify(dir, on_verified, &good, &err),
				 LH_ENOTFOUND);
		assert_int_equal(good, files); /* of them and the manifest, less this */
		assert_int_equal(rename(aside, at), 0);
		free(at);
		free(aside);
	}
	json_decref(j);
	free(dir);
}

/* A name the manifest does not number is no file of the checkpoint. */
static void foreign_names_are_not_followed(void **state)
{
	char name[LH_MANIFEST_NAME_BYTES];
	json_t *j = json_pack("{s:{s:{}, s:{}, s:{}}}", "files", "params-x/../../y",
			      "params.safetensors", "other");

	(void)state;
	assert_int_equal(lh_manifest_file_count(j, LH_MANIFEST_PARAMS), 2);
	assert_int_equal(lh_manifest_file_count(j, LH_MANIFEST_MOMENTS), 1);
	assert_int_equal(lh_manifest_file_count(NULL, LH_MANIFEST_PARAMS), 1);
	json_decref(j);
	lh_manifest_file_name(name, LH_MANIFEST_MOMENTS, 1, 12);
	assert_string_equal(name, "moments-00002-of-00012.safetensors");
	lh_manifest_file_name(name, LH_MANIFEST_PARAMS, 0, 1);
	assert_string_equal(name, "params.safetensors");
}

/* What version 1 wrote: one file of each kind, and a manifest that says less. */
static void the_version_before_is_read(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *j;
	char *text;

	(void)state;
	save(LH_CHECKPOINT_FILE_BYTES);
	j = manifest_of_saved();
	json_object_set_new(j, "version", json_integer(1));
	json_object_set_new(j, "written_by", json_string("0.1.0"));
	json_object_del(j, "origin");
	text = json_dumps(j, 0);
	scratch_write(SAVED "/manifest.json", text, strlen(text));
	free(text);
	json_decref(j);
	if (load(&err))
		fail_msg("%s", err.text);
	assert_true(all_is_back());
}

#define FILES_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FILES_TEST(large_states_lie_in_several_files),
		FILES_TEST(the_parts_of_ranks_make_one_checkpoint),
		FILES_TEST(every_one_of_several_files_counts),
		FILES_TEST(foreign_names_are_not_followed),
		FILES_TEST(the_version_before_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

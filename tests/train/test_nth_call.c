/* test_nth_call.c: every call that touches a file fails once, in every way: what is
 * written is then there or told of as an error, what was there before stays, and
 * the next try works. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "../nth.h"
#include "base/log.h"
#include "base/statedir.h"
#include "data/safetensors.h"
#include "saved.h"
#include "train/spool.h"

static int damaged;

static int setup(void **state)
{
	lh_log_set_level(LH_LOG_ERROR + 1);
	return saved_setup(state, &saved_least);
}

/* Every error has words, and only a call that failed makes one. */
static void check_error(int rc, const struct lh_err *err)
{
	if (rc >= 0)
		return;
	assert_true(nth_failed);
	assert_true(*err->text);
}

static void start_over(void)
{
	assert_int_equal(lh_fs_remove_tree(scratch_dir, NULL), 0);
	assert_int_equal(mkdir(scratch_dir, 0700), 0);
}

/* ---- files ----------------------------------------------------------------- */

static void a_file_has_its_old_or_its_new_text(void **state)
{
	char *path = scratch_path("a/b/file"), *text;
	struct nth nth = { 0 };
	size_t bytes;

	(void)state;
	while (nth_next(&nth)) {
		char *dir = scratch_path("a/b");
		struct lh_err err = LH_ERR_INIT;
		int rc;

		start_over();
		nth_arm(&nth);
		rc = lh_fs_mkdirs(dir, &err);
		rc = rc ? rc : lh_fs_write_atomic(path, "old", 3, &err);
		rc = rc ? rc : lh_fs_write_atomic(path, "new", 3, &err);
		nth_disarm();
		check_error(rc, &err);
		if (rc == 0 || lh_fs_exists(path)) {
			assert_int_equal(lh_fs_read(path, 64, &text, &bytes, &err), 0);
			assert_true(!strcmp(text, "new") || (rc && !strcmp(text, "old")));
			free(text);
		}
		assert_int_equal(lh_fs_mkdirs(dir, &err), 0);
		assert_int_equal(lh_fs_write_atomic(path, "next", 4, &err), 0);
		free(dir);
	}
	assert_in_range(nth.tried, 40, 1000);
	free(path);
}

static void a_state_directory_is_opened_or_refused(void **state)
{
	char *path = scratch_path("state");
	struct nth nth = { 0 };

	(void)state;
	while (nth_next(&nth)) {
		struct lh_statedir dir;
		struct lh_err err = LH_ERR_INIT;
		int64_t generation = 0;
		int rc;

		start_over();
		nth_arm(&nth);
		for (int i = 0; i < 2; i++) {
			rc = lh_statedir_open(&dir, path, 0700, &err);
			check_error(rc, &err);
			if (rc)
				continue;
			assert_true(dir.generation > generation);
			generation = dir.generation;
			lh_statedir_close(&dir);
		}
		nth_disarm();
		assert_int_equal(lh_statedir_open(&dir, path, 0700, &err), 0);
		assert_true(dir.generation > generation);
		lh_statedir_close(&dir);
	}
	assert_in_range(nth.tried, 40, 1000);
	free(path);
}

/* ---- tensors and checkpoints ----------------------------------------------- */

static int write_tensors(const char *path, const float *x, int64_t n, int64_t *bytes,
			 uint64_t *xxh64, struct lh_err *err)
{
	struct lh_safetensors_writer *w = lh_safetensors_writer_new();
	int rc;

	lh_safetensors_declare(w, "a", LH_TENSOR_F32, 1, &n);
	lh_safetensors_declare(w, "b", LH_TENSOR_F32, 1, &n);
	rc = lh_safetensors_begin(w, path, NULL, err);
	for (int i = 0; !rc && i < 2; i++)
		rc = lh_safetensors_append(w, x, (size_t)n * 4, err);
	if (rc) {
		lh_safetensors_abort(w);
		return rc;
	}
	return lh_safetensors_commit(w, bytes, xxh64, err);
}

static void tensors_are_whole_or_an_error(void **state)
{
	enum { N = 40000 }; /* more than is held back */
	float *x = lh_calloc(N, 4);
	char *path = scratch_path("x.safetensors");
	struct nth nth = { 0 };

	(void)state;
	for (int i = 0; i < N; i++)
		x[i] = (float)i;
	while (nth_next(&nth)) {
		struct lh_safetensors st;
		struct lh_err err = LH_ERR_INIT;
		uint64_t hash;
		int64_t bytes;
		int rc, read_rc;

		unlink(path);
		nth_arm(&nth);
		rc = write_tensors(path, x, N, &bytes, &hash, &err);
		check_error(rc, &err);
		read_rc = lh_safetensors_open(&st, path, &err);
		if (!rc)
			check_error(read_rc, &err);
		if (!rc && !read_rc) {
			assert_int_equal(st.map_bytes, bytes);
			for (int i = 0; i < 2; i++)
				assert_memory_equal(st.tensors[i].data, x, N * 4);
		}
		if (!read_rc)
			lh_safetensors_close(&st);
		nth_disarm();
	}
	assert_in_range(nth.tried, 20, 1000);
	free(path);
	free(x);
}

static int save(int64_t step, struct lh_err *err)
{
	struct lh_progress p = { .step = step };
	int64_t bytes;
	char *path;
	int rc = saved_write(scratch_dir, &p, &path, &bytes, err);

	if (!rc)
		free(path);
	return rc;
}

static void on_damaged(void *arg, const char *path, const struct lh_err *why)
{
	(void)arg, (void)path;
	assert_true(*why->text);
	damaged++;
}

/* The step that is loaded, or an LH_E*. */
static int64_t load(struct lh_err *err)
{
	struct lh_progress p;
	char *path;
	int rc;

	damaged = 0;
	rc = lh_checkpoint_load_newest(scratch_dir, INT64_MAX, model, &p, &path, on_damaged, NULL, err);
	if (rc)
		return rc;
	free(path);
	return p.step;
}

static void a_checkpoint_is_saved_or_the_one_before_stays(void **state)
{
	struct nth nth = { 0 };

	(void)state;
	while (nth_next(&nth)) {
		char *path = lh_checkpoint_path(scratch_dir, 20);
		struct lh_err err = LH_ERR_INIT;
		int rc, pin = -1;
		int64_t step;

		start_over();
		assert_int_equal(save(10, &err), 0);
		nth_arm(&nth);
		rc = save(20, &err);
		check_error(rc, &err);
		if (!rc)
			pin = lh_checkpoint_pin(path, &err);
		if (!rc)
			rc = save(20, &err); /* in its place */
		check_error(rc, &err);
		lh_checkpoint_retain(scratch_dir, rc ? 10 : 20, 1, 0, -1);
		nth_disarm();
		step = load(&err);
		assert_int_equal(damaged, 0);
		assert_true(step == 20 || (rc && step == 10));
		assert_int_equal(save(30, &err), 0);
		lh_checkpoint_retain(scratch_dir, 30, 1, 0, -1);
		assert_int_equal(load(&err), 30);
		assert_true(pin || lh_fs_exists(path));
		free(path);
	}
	assert_in_range(nth.tried, 150, 2000);
}

static void so_is_one_of_ranks(void **state)
{
	saved_ranks = 2;
	a_checkpoint_is_saved_or_the_one_before_stays(state);
	saved_ranks = 1;
}

/* What cannot be read now is no reason to throw it away: it keeps its name, or gets
 * another when training goes on from an older one. */
static void a_checkpoint_that_cannot_be_read_now_stays(void **state)
{
	char *newest = lh_checkpoint_path(scratch_dir, 20);
	char *aside = lh_asprintf("%s.unread", newest);
	struct lh_err err = LH_ERR_INIT;
	struct nth nth = { 0 };

	(void)state;
	assert_int_equal(save(10, &err), 0);
	assert_int_equal(save(20, &err), 0);
	while (nth_next(&nth)) {
		int64_t step;

		nth_arm(&nth);
		step = load(&err);
		check_error((int)step, &err);
		nth_disarm();
		assert_true(step == 20 || damaged);
		if (step == 10)
			assert_int_equal(rename(aside, newest), 0);
		assert_int_equal(load(&err), 20);
	}
	assert_in_range(nth.tried, 20, 1000);
	free(aside);
	free(newest);
}

static void going_back_is_done_or_an_error(void **state)
{
	struct nth nth = { 0 };

	(void)state;
	while (nth_next(&nth)) {
		struct lh_err err = LH_ERR_INIT;
		int rc;

		start_over();
		for (int step = 10; step <= 30; step += 10)
			assert_int_equal(save(step, &err), 0);
		nth_arm(&nth);
		rc = lh_checkpoint_remove_after(scratch_dir, 10, &err);
		check_error(rc, &err);
		nth_disarm();
		if (!rc)
			assert_int_equal(load(&err), 10);
		assert_int_equal(lh_checkpoint_remove_after(scratch_dir, 10, &err), 0);
		assert_int_equal(load(&err), 10);
		assert_int_equal(damaged, 0);
	}
	assert_in_range(nth.tried, 50, 1000);
}

/* ---- spool ----------------------------------------------------------------- */

/* The seq of the last record of the file, which all must follow each other. */
static int64_t last_in_file(const char *path, int64_t *first)
{
	char *text, *line, *end;
	struct lh_err err;
	int64_t seq = 0;
	size_t bytes;

	assert_int_equal(lh_fs_read(path, 64 << 20, &text, &bytes, &err), 0);
	*first = 0;
	for (line = text; (end = memchr(line, '\n', bytes - (size_t)(line - text)));
	     line = end + 1) {
		json_t *r = json_loadb(line, (size_t)(end - line), 0, NULL);

		assert_non_null(r);
		assert_true(!seq || json_integer_value(json_object_get(r, "seq")) == seq + 1);
		seq = json_integer_value(json_object_get(r, "seq"));
		*first = *first ? *first : seq;
		json_decref(r);
	}
	free(text);
	return seq;
}

static int add(struct lh_spool *s, size_t pad, struct lh_err *err)
{
	char *text = lh_calloc(pad + 1, 1);
	json_t *r;
	int rc;

	memset(text, 'x', pad);
	r = json_pack("{s:s, s:s}", "t", "event", "pad", text);
	rc = lh_spool_append(s, r, err);
	json_decref(r);
	free(text);
	return rc;
}

/* Each record that was taken is there, in the process and in the file. */
static void check_spool(struct lh_spool *s, const char *path, int64_t taken)
{
	int64_t from = lh_spool_first(s), first;
	struct lh_buf out = { 0 };
	struct lh_err err;

	assert_int_equal(lh_spool_next(s), taken + 1);
	assert_int_equal(last_in_file(path, &first), taken);
	assert_true(first <= from);
	assert_int_equal(lh_spool_read(s, from, taken + 1 - from, &out, &err), 0);
	lh_buf_release(&out);
}

static void a_spool_has_every_record_it_took(void **state)
{
	char *path = scratch_path("spool.jsonl");
	struct nth nth = { 0 };

	(void)state;
	while (nth_next(&nth)) {
		struct lh_spool *s;
		struct lh_err err = LH_ERR_INIT;
		struct lh_buf out = { 0 };
		int64_t taken = 0;
		int rc;

		nth_arm(&nth);
		rc = lh_spool_open(&s, path, 0, &err);
		check_error(rc, &err);
		for (int i = 0; !rc && i < 6; i++) {
			int no = add(s, i ? 10 : LH_SPOOL_SLACK_BYTES, &err);

			check_error(no, &err);
			taken += !no;
			if (i == 3)
				lh_spool_ack(s, taken - 1); /* a new file */
		}
		if (!rc) {
			check_error(lh_spool_sync(path, &err), &err);
			check_error(lh_spool_read(s, taken, 1, &out, &err), &err);
			nth_disarm();
			check_spool(s, path, taken);
			lh_spool_close(s);
		}
		lh_buf_release(&out);
		nth_disarm();
	}
	assert_in_range(nth.tried, 40, 1000);
	free(path);
}

#define NTH_TEST(f) cmocka_unit_test_setup_teardown(f, setup, saved_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		NTH_TEST(a_file_has_its_old_or_its_new_text),
		NTH_TEST(a_state_directory_is_opened_or_refused),
		NTH_TEST(tensors_are_whole_or_an_error),
		NTH_TEST(a_checkpoint_is_saved_or_the_one_before_stays),
		NTH_TEST(so_is_one_of_ranks),
		NTH_TEST(a_checkpoint_that_cannot_be_read_now_stays),
		NTH_TEST(going_back_is_done_or_an_error),
		NTH_TEST(a_spool_has_every_record_it_took),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

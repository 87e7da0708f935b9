/* test_saver.c: checkpoints in the background: what is written is the state of the
 * moment, whatever training does meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "train/saver.h"

static struct lh_dev *dev;
static struct lh_model *model;
static json_t *spec, *origin;
static char dir[32];
static atomic_int moved;

static int setup_model(int64_t ffn_dim)
{
	struct lh_job_model c = { .vocab = 64, .dim = 32, .layers = 2, .heads = 2,
				  .kv_heads = 2, .head_dim = 16, .ffn_dim = ffn_dim,
				  .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.1 };
	struct lh_err err = LH_ERR_INIT;

	atomic_store(&moved, 0);
	strcpy(dir, "/tmp/lh-saver-XXXXXX");
	spec = json_pack("{s:s}", "name", "saved");
	origin = json_pack("{s:s}", "device", "here");
	if (!mkdtemp(dir) || lh_ops_cpu.open(&dev, 1, &err) ||
	    lh_model_new(&model, &lh_ops_cpu, dev, NULL, &c, 1, 8, NULL, 0, &err))
		return -1;
	lh_model_init(model, 5);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return setup_model(48);
}

/* Takes far longer to be written than lh_saver_take to be called. */
static int setup_large(void **state)
{
	(void)state;
	return setup_model(20000);
}

static int teardown(void **state)
{
	(void)state;
	lh_model_free(model);
	lh_ops_cpu.close(dev);
	json_decref(spec);
	json_decref(origin);
	return lh_fs_remove_tree(dir, NULL);
}

static void on_moved(void *arg)
{
	assert_ptr_equal(arg, &moved);
	atomic_fetch_add(&moved, 1);
}

static struct lh_saver *saver_in(const char *where, int keep)
{
	struct lh_saver_config c = { .ops = &lh_ops_cpu, .dev = dev, .model = model,
				     .dir = where, .spec = spec, .origin = origin,
				     .keep = keep, .moved = on_moved,
				     .moved_arg = &moved };
	struct lh_saver *s;

	assert_int_equal(lh_saver_new(&s, &c, NULL), 0);
	return s;
}

/* Weights that tell a step. */
static void fill(int64_t step)
{
	int64_t n = lh_model_param_count(model);
	float *x = lh_calloc((size_t)n, 4);

	for (int64_t i = 0; i < n; i++)
		x[i] = (float)(step + i % 7);
	lh_model_write(model, LH_STATE_PARAM, 0, n, x);
	free(x);
}

static float first_weight(void)
{
	float x;

	assert_int_equal(lh_model_read(model, LH_STATE_PARAM, 0, 1, &x, NULL), 0);
	return x;
}

static void begin(struct lh_saver *s, int64_t step)
{
	struct lh_progress p = { .step = step, .total_steps = -1 };

	fill(step);
	assert_int_equal(lh_saver_begin(s, &p, "interval", NULL), 0);
	fill(-1000); /* the next step, at once */
}

static void damaged(void *arg, const char *path, const struct lh_err *why)
{
	(void)arg;
	fail_msg("'%s' is damaged: %s", path, why->text);
}

static void what_is_saved_is_the_moment_of_the_call(void **state)
{
	struct lh_saver *s = saver_in(dir, 2);
	struct lh_saved saved;
	struct lh_progress p;
	char *path;

	(void)state;
	assert_false(lh_saver_is_busy(s));
	assert_false(lh_saver_take(s, true, &saved)); /* nothing was begun */
	for (int64_t step = 1; step <= 4; step++) {
		begin(s, step);
		assert_true(lh_saver_is_busy(s));
		assert_true(lh_saver_take(s, true, &saved));
		assert_false(lh_saver_is_busy(s));
		assert_int_equal(saved.rc, 0);
		assert_int_equal(saved.step, step);
		assert_string_equal(saved.reason, "interval");
		assert_true(saved.duration_ms >= saved.stall_ms);
		assert_int_equal(access(saved.path, F_OK), 0);
		free(saved.path);
	}
	assert_int_equal(lh_checkpoint_load_newest(dir, INT64_MAX, model, &p, &path,
						   damaged, NULL, NULL), 0);
	assert_int_equal(p.step, 4);
	assert_true(first_weight() == 4);
	free(path);
	path = lh_asprintf("%s/step-%010d", dir, 2); /* two are kept */
	assert_int_not_equal(access(path, F_OK), 0);
	free(path);
	lh_saver_free(s);
}

static void freeing_waits_for_the_write(void **state)
{
	struct lh_saver *s = saver_in(dir, 2);
	struct lh_progress p;
	char *path;

	(void)state;
	begin(s, 9);
	lh_saver_free(s);
	assert_int_equal(lh_checkpoint_load_newest(dir, INT64_MAX, model, &p, &path,
						   damaged, NULL, NULL), 0);
	assert_int_equal(p.step, 9);
	free(path);
}

/* In the background it says nothing of the thread that trains. */
static void a_save_moves_for_who_waits_for_it(void **state)
{
	struct lh_saver *s = saver_in(dir, 2);
	struct lh_saved saved;

	(void)state;
	begin(s, 1);
	while (!lh_saver_take(s, false, &saved))
		usleep(1000);
	free(saved.path);
	assert_int_equal(atomic_load(&moved), 0);
	/* One may be written before this thread comes to wait for it. */
	for (int64_t step = 2; step < 50 && atomic_load(&moved) < 2; step++) {
		begin(s, step);
		assert_true(lh_saver_take(s, true, &saved));
		free(saved.path);
	}
	assert_in_range(atomic_load(&moved), 2, 1000);
	lh_saver_free(s);
}

static void what_a_killed_one_left_torn_is_cleared(void **state)
{
	char *torn = lh_asprintf("%s/step-removed.tmp", dir);
	char *file = lh_asprintf("%s/manifest.json", torn);
	char *whole = lh_asprintf("%s/step-0000000003", dir);
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	assert_int_equal(mkdir(torn, 0700), 0);
	assert_int_equal(mkdir(whole, 0700), 0);
	assert_int_equal(lh_fs_write_atomic(file, "{}", 2, &err), 0);
	lh_saver_free(saver_in(dir, 2));
	assert_false(lh_fs_exists(torn));
	assert_true(lh_fs_exists(whole));
	rmdir(whole);
	free(whole);
	free(file);
	free(torn);
}

static void a_write_that_fails_is_told(void **state)
{
	char *where = lh_asprintf("%s/file", dir);
	struct lh_saver *s;
	struct lh_saved saved;
	int fd = open(where, O_CREAT | O_WRONLY, 0600); /* not a directory */

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	s = saver_in(where, 2);
	begin(s, 1);
	assert_true(lh_saver_take(s, true, &saved));
	assert_true(saved.rc < 0);
	assert_true(*saved.err.text);
	assert_null(saved.path);
	lh_saver_free(s);
	free(where);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_saved_is_the_moment_of_the_call,
						setup, teardown),
		cmocka_unit_test_setup_teardown(freeing_waits_for_the_write, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_save_moves_for_who_waits_for_it,
						setup_large, teardown),
		cmocka_unit_test_setup_teardown(what_a_killed_one_left_torn_is_cleared,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_write_that_fails_is_told, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

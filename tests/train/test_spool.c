/* test_spool.c: records on disk until they are stored: in order, within the
 * limit, and a file that is whole whatever happens to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "../scratch.h"
#include "train/spool.h"

static struct lh_spool *spool;

static int open_spool(int64_t max_bytes)
{
	char *path = scratch_path("spool.jsonl");
	struct lh_err err = LH_ERR_INIT;
	int rc = lh_spool_open(&spool, path, max_bytes, &err);

	free(path);
	return rc;
}

static int setup(void **state)
{
	return scratch_setup(state) || open_spool(0);
}

static int teardown(void **state)
{
	lh_spool_close(spool);
	return scratch_teardown(state);
}

/* A record that carries its own number and `pad` bytes more. */
static int add(const char *kind, int64_t n, int pad)
{
	json_t *r = json_pack("{s:s, s:I}", "t", kind, "n", (json_int_t)n);
	struct lh_err err = LH_ERR_INIT;
	char *text = lh_calloc((size_t)pad + 1, 1);
	int rc;

	memset(text, '\n', (size_t)pad); /* the byte that separates records */
	json_object_set_new(r, "pad", json_string(text));
	rc = lh_spool_append(spool, r, &err);
	free(text);
	json_decref(r);
	return rc;
}

/* Records from .. from + count - 1 are what was added. */
static void check(int64_t from, int64_t count)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_buf out = { 0 };
	json_t *list, *r;
	size_t i;

	lh_buf_append(&out, "[", 1);
	assert_int_equal(lh_spool_read(spool, from, count, &out, &err), 0);
	lh_buf_append(&out, "]", 1);
	list = json_loadb(out.data, out.used_bytes, 0, NULL);
	assert_int_equal(json_array_size(list), count);
	json_array_foreach (list, i, r) {
		assert_int_equal(json_integer_value(json_object_get(r, "seq")),
				 from + (int64_t)i);
		assert_int_equal(json_integer_value(json_object_get(r, "n")),
				 from + (int64_t)i);
	}
	json_decref(list);
	lh_buf_release(&out);
}

/* The file as lhd reads it: whole lines, the last of them `last`. Gives its
 * size. */
static size_t check_file(int64_t last)
{
	size_t bytes, at = 0;
	char *data = scratch_read("spool.jsonl", &bytes);
	int64_t seq = 0;

	while (at < bytes) {
		char *end = memchr(data + at, '\n', bytes - at);
		json_t *r;

		assert_non_null(end);
		r = json_loadb(data + at, (size_t)(end - data) - at, 0, NULL);
		assert_non_null(r);
		if (seq)
			assert_int_equal(json_integer_value(json_object_get(r, "seq")),
					 seq + 1);
		seq = json_integer_value(json_object_get(r, "seq"));
		json_decref(r);
		at = (size_t)(end - data) + 1;
	}
	assert_int_equal(seq, last);
	free(data);
	return bytes;
}

static void records_are_numbered_and_read_back(void **state)
{
	(void)state;
	assert_int_equal(lh_spool_first(spool), 1);
	assert_int_equal(lh_spool_next(spool), 1);
	for (int64_t n = 1; n <= 3000; n++)
		assert_int_equal(add("step", n, (int)(n % 5)), 0);
	assert_int_equal(lh_spool_next(spool), 3001);
	check(1, 3000);
	check(17, 1);
	check(3000, 1);
	check_file(3000);
}

static void acknowledged_records_are_forgotten(void **state)
{
	(void)state;
	for (int64_t n = 1; n <= 10; n++)
		add("step", n, 0);
	lh_spool_ack(spool, 4);
	assert_int_equal(lh_spool_first(spool), 5);
	check(5, 6);
	lh_spool_ack(spool, 2);  /* late */
	lh_spool_ack(spool, 11); /* of nobody */
	lh_spool_ack(spool, INT64_MIN);
	lh_spool_ack(spool, INT64_MAX);
	assert_int_equal(lh_spool_first(spool), 5);
	add("step", 11, 0);
	check(5, 7);
	lh_spool_ack(spool, 11);
	assert_int_equal(lh_spool_first(spool), 12);
	add("step", 12, 0);
	check(12, 1);
}

/* There is always a record on its way: the file shrinks all the same. */
static void the_file_shrinks_while_records_keep_coming(void **state)
{
	size_t most = 0;

	(void)state;
	for (int64_t n = 1; n <= 8000; n++) {
		assert_int_equal(add("step", n, 500), 0);
		if (n % 100 == 0) {
			size_t bytes;

			lh_spool_ack(spool, n - 50);
			check(n - 49, 50);
			bytes = check_file(n);
			most = bytes > most ? bytes : most;
		}
	}
	/* Half of it at most is acknowledged, but for the slack. */
	assert_in_range(most, LH_SPOOL_SLACK_BYTES, LH_SPOOL_SLACK_BYTES * 5 / 4);
}

static void step_records_stop_at_the_limit_and_others_do_not(void **state)
{
	int64_t n = 1;

	(void)state;
	lh_spool_close(spool);
	assert_int_equal(open_spool(3 << 20), 0);
	while (!add("step", n, 1000))
		n++;
	assert_int_equal(lh_spool_next(spool), n);
	assert_in_range(check_file(n - 1), (3 << 20) - 2100, 3 << 20);
	assert_int_equal(add("step", n, 1000), LH_ETOOBIG);
	assert_int_equal(add("checkpoint", n, 0), 0);
	lh_spool_ack(spool, n * 3 / 4);
	assert_int_equal(add("step", n + 1, 1000), 0);
	check(n - 3, 5);
	check_file(n + 1);
}

/* A disk that is full, by a limit on the size of files. */
static void what_cannot_be_written_leaves_no_trace(void **state)
{
	struct rlimit old, limit;
	int64_t n = 1;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = old;
	limit.rlim_cur = 10000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	while (!add("event", n, 300))
		n++;
	assert_int_equal(add("event", n, 300), LH_EIO);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_in_range(n, 10, 30);
	check_file(n - 1);
	assert_int_equal(add("event", n, 300), 0);
	check(1, n);
	check_file(n);
}

static void a_spool_starts_empty(void **state)
{
	(void)state;
	add("step", 1, 0);
	lh_spool_close(spool);
	assert_int_equal(open_spool(0), 0);
	assert_int_equal(check_file(0), 0);
	assert_int_equal(lh_spool_next(spool), 1);
}

#define SPOOL_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SPOOL_TEST(records_are_numbered_and_read_back),
		SPOOL_TEST(acknowledged_records_are_forgotten),
		SPOOL_TEST(the_file_shrinks_while_records_keep_coming),
		SPOOL_TEST(step_records_stop_at_the_limit_and_others_do_not),
		SPOOL_TEST(what_cannot_be_written_leaves_no_trace),
		SPOOL_TEST(a_spool_starts_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

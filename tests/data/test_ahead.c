/* test_ahead.c: what comes next in a file is read while nobody looks at it yet, and no
 * more than that; maps that are closed, and places that are jumped to, do no harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../scratch.h"
#include "data/ahead.h"

enum { MB = 1 << 20, DATA_BYTES = 96 * MB, DEADLINE_MS = 20000 };

/* One tensor of zeros that nobody has read or written: a hole. */
static void open_hole(struct lh_safetensors *st)
{
	char head[200] = { 0 }, *path = scratch_path("hole");
	struct lh_err err = LH_ERR_INIT;
	uint64_t n;

	n = (uint64_t)snprintf(head + 8, sizeof(head) - 8, "{\"x\": {\"dtype\": \"U8\", "
			       "\"shape\": [%d], \"data_offsets\": [0, %d]}}", DATA_BYTES,
			       DATA_BYTES);
	memcpy(head, &n, 8);
	scratch_write("hole", head, 8 + n);
	assert_int_equal(truncate(path, (off_t)(8 + n + DATA_BYTES)), 0);
	if (lh_safetensors_open(st, path, &err))
		fail_msg("%s", err.text);
	free(path);
}

static bool is_there(const struct lh_safetensors *st, int64_t at)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	void *data = (void *)(((uintptr_t)st->map + (uintptr_t)at) & ~(page - 1));
	unsigned char there = 0;

	assert_int_equal(mincore(data, 1, &there), 0);
	return there & 1;
}

static void wait_for(const struct lh_safetensors *st, int64_t at)
{
	int64_t end = lh_time_ms() + DEADLINE_MS;

	while (!is_there(st, at)) {
		assert_true(lh_time_ms() < end);
		usleep(1000);
	}
}

static void what_follows_is_read_and_not_all_of_it(void **state)
{
	struct lh_safetensors st;
	struct lh_ahead *a;
	struct statfs fs;

	(void)state;
	assert_int_equal(statfs(scratch_dir, &fs), 0);
	if (fs.f_type == TMPFS_MAGIC)
		skip(); /* there is nothing to be read from */
	open_hole(&st);
	lh_ahead_new(&a);
	assert_false(is_there(&st, 4 * MB));
	lh_ahead_look(a, &st, st.map);
	wait_for(&st, 4 * MB);
	wait_for(&st, 31 * MB);
	assert_false(is_there(&st, 60 * MB));
	/* To its end, and back to what was passed over. */
	lh_ahead_look(a, &st, (char *)st.map + 90 * MB);
	wait_for(&st, 95 * MB);
	lh_ahead_look(a, &st, (char *)st.map + 60 * MB);
	wait_for(&st, 61 * MB);
	lh_ahead_look(a, &st, (char *)st.map + st.map_bytes);
	lh_ahead_free(a);
	lh_safetensors_close(&st);
}

static void a_map_may_be_closed_before_it(void **state)
{
	struct lh_safetensors st;
	struct lh_ahead *a;

	(void)state;
	lh_ahead_new(&a);
	for (int i = 0; i < 20; i++) {
		open_hole(&st);
		lh_ahead_look(a, &st, st.map);
		lh_safetensors_close(&st);
	}
	lh_ahead_free(a);
	lh_ahead_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(what_follows_is_read_and_not_all_of_it),
		SCRATCH_TEST(a_map_may_be_closed_before_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

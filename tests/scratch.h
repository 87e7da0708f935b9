/* scratch.h: a directory of its own for one test, and files in it. Included
 * after cmocka.h. Names are relative to the directory of the running test. */
#ifndef LIGHTHOUSE_TEST_SCRATCH_H
#define LIGHTHOUSE_TEST_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

static char scratch_dir[64];

static inline int scratch_setup(void **state)
{
	(void)state;
	strcpy(scratch_dir, "/tmp/lighthouse-test-XXXXXX");
	return !mkdtemp(scratch_dir);
}

static inline int scratch_teardown(void **state)
{
	(void)state;
	return lh_fs_remove_tree(scratch_dir, NULL);
}

/* Heap memory of the caller. */
static inline char *scratch_path(const char *name)
{
	return lh_asprintf("%s/%s", scratch_dir, name);
}

static inline void scratch_write(const char *name, const void *data, size_t bytes)
{
	char *path = scratch_path(name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, bytes, f), bytes);
	assert_int_equal(fclose(f), 0);
	free(path);
}

static inline char *scratch_read(const char *name, size_t *bytes)
{
	char *path = scratch_path(name), *data;
	struct lh_err err = LH_ERR_INIT;

	if (lh_fs_read(path, 64 << 20, &data, bytes, &err))
		fail_msg("%s", err.text);
	free(path);
	return data;
}

/* A test in a fresh directory. */
#define SCRATCH_TEST(f) \
	cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

#endif

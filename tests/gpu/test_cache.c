/* test_cache.c: files of what the device found out: whole, absent, or foreign. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"

static void what_was_written_is_read(void **state)
{
	char dir[] = "/tmp/lh-cache-XXXXXX", *text, path[64];
	const char bytes[] = "a\0b";
	size_t n = 0;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_null(lh_cache_read(dir, "x", &n));
	lh_cache_write(dir, "x", "old and longer", 14);
	lh_cache_write(dir, "x", bytes, 3); /* replaces it */
	text = lh_cache_read(dir, "x", &n);
	assert_non_null(text);
	assert_int_equal(n, 3);
	assert_memory_equal(text, bytes, 4); /* with a NUL after it */
	free(text);
	snprintf(path, sizeof(path), "%s/x", dir);
	unlink(path);
	assert_int_equal(rmdir(dir), 0); /* nothing else was left */
}

static void no_directory_is_no_cache(void **state)
{
	size_t n;

	(void)state;
	lh_cache_write(NULL, "x", "y", 1);
	assert_null(lh_cache_read(NULL, "x", &n));
	lh_cache_write("/nowhere/at/all", "x", "y", 1);
	assert_null(lh_cache_read("/nowhere/at/all", "x", &n));
}

static void names_are_tame(void **state)
{
	char name[] = "NVIDIA H100 80GB/../x\n-9.14";

	(void)state;
	assert_string_equal(lh_cache_name(name), "NVIDIA_H100_80GB_.._x_-9.14");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_is_read),
		cmocka_unit_test(no_directory_is_no_cache),
		cmocka_unit_test(names_are_tame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

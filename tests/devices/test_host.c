/* test_host.c: a /proc of files: what is read of it, what is missing, and the two
 * readings that a share of time takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "devices/host.h"
#include "lighthouse/err.h"

static char dir[] = "/tmp/lh-host-XXXXXX";

static int setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return lh_fs_remove_tree(dir, NULL);
}

static void put(const char *name, const char *text)
{
	char *path = lh_asprintf("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	free(path);
}

static void check_number(const json_t *host, const char *key, double want)
{
	const json_t *v = json_object_get(host, key);

	assert_true(json_is_number(v));
	assert_true(json_number_value(v) > want - 1e-9 && json_number_value(v) < want + 1e-9);
}

static void what_is_not_there_is_null(void **state)
{
	struct lh_host h = { .proc = "/nowhere", .state_dir = "/nowhere" };
	json_t *host = lh_host_read(&h), *v;
	const char *key;

	(void)state;
	json_object_foreach (host, key, v)
		assert_true(json_is_null(v) || !strcmp(key, "cpus"));
	assert_int_equal(lh_host_resident_bytes(&h, 1), -1);
	json_decref(host);
}

static void numbers_are_those_of_the_kernel(void **state)
{
	struct lh_host h = { .proc = dir, .state_dir = dir };
	json_t *host;

	(void)state;
	put("cpuinfo", "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nmodel\t\t: 85\n");
	put("loadavg", "1.25 0.50 0.10 2/300 4567\n");
	put("meminfo", "MemTotal:        1000 kB\nMemFree:           10 kB\n"
		       "MemAvailable:     400 kB\n");
	put("stat", "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3 4\n");
	host = lh_host_read(&h);
	assert_string_equal(json_string_value(json_object_get(host, "cpu")), "A CPU @ 2 GHz");
	check_number(host, "load", 1.25);
	check_number(host, "memory_used_bytes", 600 * 1024);
	check_number(host, "memory_total_bytes", 1000 * 1024);
	assert_true(json_is_null(json_object_get(host, "utilisation")));
	assert_true(json_is_integer(json_object_get(host, "disk_free_bytes")));
	json_decref(host);

	/* 200 ticks later, 150 of which were used; waiting for a disk is not use. */
	put("stat", "cpu  200 0 150 740 110 0 0 0 0 0\n");
	host = lh_host_read(&h);
	check_number(host, "utilisation", 0.75);
	json_decref(host);
}

static void memory_of_a_process_is_what_is_in_ram(void **state)
{
	struct lh_host h = { .proc = dir, .state_dir = dir };
	char *path = lh_asprintf("%s/42", dir);

	(void)state;
	assert_int_equal(mkdir(path, 0700), 0);
	put("42/status", "Name:\tVmRSS: 7 kB\nVmPeak:\t 900 kB\nVmRSS:\t     123 kB\n");
	assert_int_equal(lh_host_resident_bytes(&h, 42), 123 * 1024);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_there_is_null),
		cmocka_unit_test(numbers_are_those_of_the_kernel),
		cmocka_unit_test(memory_of_a_process_is_what_is_in_ram),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

/* test_oom.c: the count is found in either kind of cgroup, inside and outside of
 * a container, and a file that is not there is no count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../scratch.h"
#include "base/oom.h"

/* What is found when /proc/self/cgroup is `self`; `file` holds 3 kills. */
static int64_t count(const char *self, const char *file, const char *text)
{
	char *proc = scratch_path("cgroup"), *root = scratch_path("root");
	char *path = lh_asprintf("%s/%s", root, file), *found;
	int64_t kills;

	scratch_write("cgroup", self, strlen(self));
	*strrchr(path, '/') = '\0';
	assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	free(path);
	path = lh_asprintf("root/%s", file);
	scratch_write(path, text, strlen(text));
	found = lh_oom_find_in(proc, root);
	kills = lh_oom_kills(found);
	assert_int_equal(lh_fs_remove_tree(root, NULL), 0);
	free(found);
	free(path);
	free(root);
	free(proc);
	return kills;
}

static void both_kinds_of_cgroup_are_read(void **state)
{
	(void)state;
	assert_int_equal(count("0::/a/b\n", "a/b/memory.events",
			       "low 0\nhigh 9\nmax 8\noom 4\noom_kill 3\n"
			       "oom_group_kill 7\n"), 3);
	assert_int_equal(count("9:cpu:/x\n7:memory:/a\n1:name=systemd:/\n",
			       "memory/a/memory.oom_control",
			       "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
}

static void a_path_that_is_not_to_be_seen_is_the_root(void **state)
{
	(void)state;
	assert_int_equal(count("0::/host/only\n", "memory.events", "oom_kill 3\n"), 3);
}

static void what_is_not_there_is_no_count(void **state)
{
	(void)state;
	assert_int_equal(count("0::/a\n", "a/memory.stat", "oom_kill 3\n"), -1);
	assert_int_equal(count("0::/a\n", "a/memory.events", "oom 3\n"), -1);
	assert_int_equal(count("", "memory.events", "oom_kill 3\n"), -1);
	assert_null(lh_oom_find_in("/nowhere", "/nowhere"));
	assert_int_equal(lh_oom_kills("/nowhere"), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(both_kinds_of_cgroup_are_read),
		SCRATCH_TEST(a_path_that_is_not_to_be_seen_is_the_root),
		SCRATCH_TEST(what_is_not_there_is_no_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

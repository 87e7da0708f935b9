/* test_statedir.c: one owner at a time, and every owner a new generation. */
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
#include "base/statedir.h"

static char root[64], path[128];

static int setup(void **state)
{
	(void)state;
	strcpy(root, "/tmp/lighthouse-test-XXXXXX");
	assert_non_null(mkdtemp(root));
	snprintf(path, sizeof(path), "%s/a/state", root);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return lh_fs_remove_tree(root, NULL);
}

static void write_generation(const char *text)
{
	char file[160];
	FILE *f;

	snprintf(file, sizeof(file), "%s/generation", path);
	f = fopen(file, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void statedir_is_made_private_and_counts_its_owners(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_statedir d;
	struct stat st;
	int i;

	(void)state;
	for (i = 1; i <= 3; i++) {
		assert_int_equal(lh_statedir_open(&d, path, 0700, &err), 0);
		assert_int_equal(d.generation, i);
		assert_string_equal(d.path, path);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0700);
		lh_statedir_close(&d);
	}
}

static void statedir_names_its_owner_to_the_second(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_statedir d, second;
	char pid[32];

	(void)state;
	snprintf(pid, sizeof(pid), "(pid %ld)", (long)getpid());
	assert_int_equal(lh_statedir_open(&d, path, 0700, &err), 0);
	assert_int_equal(lh_statedir_open(&second, path, 0700, &err), LH_EBUSY);
	assert_non_null(strstr(err.text, pid));
	assert_string_not_equal(err.hint, "");
	lh_statedir_close(&d);
	assert_int_equal(lh_statedir_open(&d, path, 0700, &err), 0);
	/* the one that was refused is not counted */
	assert_int_equal(d.generation, 2);
	lh_statedir_close(&d);
}

static void statedir_refuses_a_damaged_generation(void **state)
{
	static const char *const texts[] = { "", "x\n", "-1\n", "0\n", "3", "3 4\n",
					     "9223372036854775807\n",
					     "99999999999999999999\n" };
	struct lh_err err = LH_ERR_INIT;
	struct lh_statedir d;
	size_t i;

	(void)state;
	assert_int_equal(lh_statedir_open(&d, path, 0700, &err), 0);
	lh_statedir_close(&d);
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		write_generation(texts[i]);
		assert_int_equal(lh_statedir_open(&d, path, 0700, &err), LH_ECORRUPT);
		assert_string_not_equal(err.hint, "");
	}
	write_generation("41\n");
	assert_int_equal(lh_statedir_open(&d, path, 0700, &err), 0);
	assert_int_equal(d.generation, 42);
	lh_statedir_close(&d);
}

static void statedir_knows_network_file_systems(void **state)
{
	(void)state;
	assert_string_equal(lh_statedir_network_fs(0x6969), "NFS");
	assert_string_equal(lh_statedir_network_fs(0x0bd00bd0), "Lustre");
	/* statfs fills a signed word on some machines */
	assert_string_equal(lh_statedir_network_fs(~0xffffffffUL | 0xff534d42), "CIFS");
	assert_null(lh_statedir_network_fs(0xef53)); /* ext4 */
	assert_null(lh_statedir_network_fs(0x01021994)); /* tmpfs */
}

static void statedir_default_follows_the_user(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	char *p;

	(void)state;
	if (geteuid() == 0) {
		p = lh_statedir_default(&err);
		assert_string_equal(p, "/var/lib/lighthouse");
		free(p);
		assert_int_equal(seteuid(65534), 0);
	}
	setenv("XDG_STATE_HOME", "/x", 1);
	setenv("HOME", "/h", 1);
	p = lh_statedir_default(&err);
	assert_string_equal(p, "/x/lighthouse");
	free(p);
	setenv("XDG_STATE_HOME", "relative", 1);
	p = lh_statedir_default(&err);
	assert_string_equal(p, "/h/.local/state/lighthouse");
	free(p);
	unsetenv("HOME");
	assert_null(lh_statedir_default(&err));
	assert_int_equal(err.code, LH_EINVAL);
	assert_true(getuid() || seteuid(0) == 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(statedir_is_made_private_and_counts_its_owners),
		T(statedir_names_its_owner_to_the_second),
		T(statedir_refuses_a_damaged_generation),
		T(statedir_knows_network_file_systems),
		T(statedir_default_follows_the_user),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

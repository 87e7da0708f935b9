/* test_access.c: who gets which role. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "control/access.h"

static struct lh_access access_of(const char *const *entries)
{
	struct lh_access a = { 0 };
	struct lh_err err = LH_ERR_INIT;

	for (; *entries; entries++)
		if (lh_access_allow(&a, *entries, &err))
			fail_msg("%s: %s", *entries, err.text);
	return a;
}

static void owner_and_root_may_do_everything(void **state)
{
	enum lh_role role;

	(void)state;
	assert_true(lh_access_role(NULL, geteuid(), NULL, 0, &role));
	assert_int_equal(role, LH_ROLE_SUBMIT);
	assert_true(lh_access_role(NULL, 0, NULL, 0, &role));
	assert_int_equal(role, LH_ROLE_SUBMIT);
	assert_false(lh_access_role(NULL, 4242, NULL, 0, &role));
}

static void users_and_groups_get_the_greatest_role_given(void **state)
{
	struct lh_access a = access_of((const char *const[]){
		"4242=read", "@77=read", "@78=steer", "daemon=steer", "@daemon=read", NULL });
	const uint32_t groups[] = { 100, 77 }, more[] = { 77, 78 };
	enum lh_role role;

	(void)state;
	assert_true(lh_access_role(&a, 4242, NULL, 0, &role));
	assert_int_equal(role, LH_ROLE_READ);
	assert_true(lh_access_role(&a, 5000, groups, 2, &role));
	assert_int_equal(role, LH_ROLE_READ);
	assert_true(lh_access_role(&a, 4242, more, 2, &role));
	assert_int_equal(role, LH_ROLE_STEER);
	assert_true(lh_access_role(&a, 1, NULL, 0, &role)); /* daemon */
	assert_int_equal(role, LH_ROLE_STEER);
	/* A group's number is no user's. */
	assert_false(lh_access_role(&a, 77, groups, 1, &role));
}

static void what_is_no_entry_is_refused(void **state)
{
	static const char *const bad[] = { "", "x", "=read", "@=read", "daemon=", "daemon=submit",
					   "daemon=root", "no-such-user=read",
					   "@no-such-group=read", "-1=read",
					   "99999999999999999999=read" };
	struct lh_access a = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct lh_err err = LH_ERR_INIT;

		assert_true(lh_access_allow(&a, bad[i], &err) < 0);
		assert_string_not_equal(err.text, "");
		assert_int_equal(a.count, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(owner_and_root_may_do_everything),
		cmocka_unit_test(users_and_groups_get_the_greatest_role_given),
		cmocka_unit_test(what_is_no_entry_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

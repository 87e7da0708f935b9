/* test_visible.c: the GPU that a rank takes, by the list that CUDA reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "visible.h"

static void becomes(const char *list, int number, int count, const char *turned)
{
	if (list)
		setenv("CUDA_VISIBLE_DEVICES", list, 1);
	else
		unsetenv("CUDA_VISIBLE_DEVICES");
	lh_cuda_choose(number, count);
	assert_string_equal(getenv("CUDA_VISIBLE_DEVICES"), turned);
}

static void each_rank_begins_with_its_own(void **state)
{
	(void)state;
	becomes(NULL, 0, 2, "0,1");
	becomes(NULL, 1, 2, "1,0");
	becomes(NULL, 2, 4, "2,3,0,1");
}

static void of_those_that_the_user_named(void **state)
{
	(void)state;
	becomes("5,3,1", 1, 2, "3,5");
	becomes("GPU-a,GPU-b", 0, 2, "GPU-a,GPU-b");
	becomes("GPU-a,GPU-b", 1, 2, "GPU-b,GPU-a");
}

/* Never another rank's. */
static void one_that_is_missing_is_none(void **state)
{
	(void)state;
	becomes("7", 1, 2, ",7");
	becomes("", 0, 2, ",");
	becomes("4,", 1, 3, ",,4");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_rank_begins_with_its_own),
		cmocka_unit_test(of_those_that_the_user_named),
		cmocka_unit_test(one_that_is_missing_is_none),
	};

	return cmocka_run_group_tests_name("visible", tests, NULL, NULL);
}

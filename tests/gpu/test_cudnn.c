/* test_cudnn.c: a cuDNN that is not there, too old, damaged or slow is told of.
 *
 * The library is stub_cudnn.c, which needs no GPU. Where the loader looks is
 * settled when a program starts, so the program starts itself again for each case:
 *
 *   test_cudnn check       the library's error and hint, or "usable"
 *   test_cudnn plan DIR    two plans, kept in DIR; the description */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdpa_plan.h"

static char self[1024], said[4096];

static struct lh_sdpa_shape shape_of(int batch, bool backward)
{
	return (struct lh_sdpa_shape){ .batch = batch, .heads = 2, .kv_heads = 2,
				       .head_dim = 64, .tokens = 256, .kv_tokens = 256,
				       .q_row = 128, .kv_row = 128, .o_row = 128,
				       .dq_row = backward ? 128 : 0,
				       .mask = LH_SDPA_TOP_LEFT, .backward = backward };
}

static int run_check(void)
{
	struct lh_err err = LH_ERR_INIT;

	if (lh_sdpa_check_library(&err))
		printf("%s: %s\nhint: %s\n", lh_err_name(err.code), err.text, err.hint);
	else
		puts("usable");
	return 0;
}

static int run_plan(const char *dir)
{
	const struct lh_sdpa_plan *plan;
	struct lh_sdpa_plans *plans;
	char text[128];

	if (lh_sdpa_plans_new(&plans, NULL, NULL))
		return 1;
	lh_sdpa_plans_cache(plans, dir, "stub");
	for (int i = 0; i < 4; i++) { /* the last is the first again */
		struct lh_sdpa_shape s = shape_of(1 + i % 3, false);

		if (lh_sdpa_plans_get(plans, &s, &plan, NULL))
			return 1;
	}
	lh_sdpa_plans_describe(plans, text, sizeof(text));
	printf("%s\n%d plans\n", text, lh_sdpa_plans_count(plans));
	lh_sdpa_plans_free(plans);
	return 0;
}

/* What the program prints when it is started with `env` before it and `args`. */
static const char *run(const char *env, const char *args)
{
	char *command = lh_asprintf("%s '%s' %s 2>&1", env, self, args);
	FILE *f = popen(command, "r");
	size_t n;

	assert_non_null(f);
	n = fread(said, 1, sizeof(said) - 1, f);
	said[n] = '\0';
	assert_int_equal(pclose(f), 0);
	free(command);
	return said;
}

/* The same with one of the stubs, "whole" or "lacking". */
static const char *run_stub(const char *stub, const char *env, const char *args)
{
	int dir = (int)(strrchr(self, '/') - self);
	char *all = lh_asprintf("LD_LIBRARY_PATH='%.*s/stub/%s' %s", dir, self, stub, env);

	run(all, args);
	free(all);
	return said;
}

static void says(const char *what)
{
	if (!strstr(said, what))
		fail_msg("'%s' is not in: %s", what, said);
}

static void refused(const char *why)
{
	says("LH_EUNSUPPORTED: 'libcudnn.so.9' cannot be used: ");
	says(why);
	says("; cuDNN 9.14 or newer is needed\nhint: install cuDNN 9 for CUDA 13");
}

static void one_that_is_there_is_usable(void **state)
{
	(void)state;
	assert_string_equal(run_stub("whole", "", "check"), "usable\n");
	assert_string_equal(run_stub("whole", "LH_STUB_VERSION=91400", "check"), "usable\n");
}

static void an_old_one_is_refused_with_its_version(void **state)
{
	(void)state;
	run_stub("whole", "LH_STUB_VERSION=91302", "check");
	refused("it is version 9.13.2");
}

static void one_that_lacks_a_function_is_refused_with_its_name(void **state)
{
	(void)state;
	run_stub("lacking", "", "check");
	refused("it has no cudnnBackendExecute");
}

static void one_that_cannot_be_loaded_is_refused_with_the_reason(void **state)
{
	char dir[] = "/tmp/lh-cudnn-XXXXXX", *env, *file;
	FILE *f;

	(void)state;
	assert_non_null(mkdtemp(dir));
	file = lh_asprintf("%s/libcudnn.so.9", dir);
	f = fopen(file, "w");
	assert_non_null(f);
	fputs("no library", f);
	fclose(f);
	env = lh_asprintf("LD_LIBRARY_PATH=%s", dir);
	run(env, "check");
	refused(file);
	unlink(file);
	rmdir(dir);
	free(file);
	free(env);
}

/* Without the loader's cache only the system's own directories are looked in. */
static void one_that_is_not_there_is_refused(void **state)
{
	const char *loader = "/lib64/ld-linux-x86-64.so.2";
	char *env;

	(void)state;
	if (access(loader, X_OK) ||
	    !access("/usr/lib/x86_64-linux-gnu/libcudnn.so.9", F_OK))
		skip(); /* it cannot be hidden here */
	env = lh_asprintf("env -u LD_LIBRARY_PATH %s --inhibit-cache", loader);
	run(env, "check");
	refused("cannot open shared object file");
	free(env);
}

/* The engine is kept with the plan: a reloaded one is judged as it was built. */
static void a_slow_engine_is_told_of_once(void **state)
{
	char dir[] = "/tmp/lh-cudnn-XXXXXX", *args, *rm;

	(void)state;
	assert_non_null(mkdtemp(dir));
	args = lh_asprintf("plan %s", dir);
	rm = lh_asprintf("rm -r %s", dir);
	run_stub("whole", "LH_STUB_ENGINE=1", args);
	says("warn  cuDNN 9.19.0 takes its engine 1 for attention forward");
	assert_null(strstr(strstr(said, "warn") + 1, "warn"));
	says("cuDNN 9.19.0, attention engines 1 forward\n3 plans\n");
	run_stub("whole", "LH_STUB_ENGINE=2", args);
	says("takes its engine 1");
	says("engines 1 forward");
	assert_int_equal(system(rm), 0);
	free(args);
	free(rm);
}

static void the_fast_one_is_no_news(void **state)
{
	(void)state;
	assert_string_equal(run_stub("whole", "", "plan /nowhere"),
			    "cuDNN 9.19.0, attention engines 2 forward\n3 plans\n");
	/* It may have been numbered anew. */
	run_stub("whole", "LH_STUB_VERSION=92000 LH_STUB_ENGINE=17", "plan /nowhere");
	assert_null(strstr(said, "warn"));
	says("engines 17 forward");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_is_there_is_usable),
		cmocka_unit_test(an_old_one_is_refused_with_its_version),
		cmocka_unit_test(one_that_lacks_a_function_is_refused_with_its_name),
		cmocka_unit_test(one_that_cannot_be_loaded_is_refused_with_the_reason),
		cmocka_unit_test(one_that_is_not_there_is_refused),
		cmocka_unit_test(a_slow_engine_is_told_of_once),
		cmocka_unit_test(the_fast_one_is_no_news),
	};
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (argc == 2 && !strcmp(argv[1], "check"))
		return run_check();
	if (argc == 3 && !strcmp(argv[1], "plan"))
		return run_plan(argv[2]);
	if (n < 0)
		return 2;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

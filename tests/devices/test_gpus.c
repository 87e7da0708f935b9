/* test_gpus.c: lhgpus as scripts: what it answers, and all the ways in which it does
 * not; whoever asks is answered, and a broken one is not asked twice. */
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
#include "devices/gpus.h"
#include "lighthouse/err.h"

#define DEADLINE_US (30 * 1000000LL)

static uv_loop_t loop;
static struct lh_gpus *gpus;
static char dir[64], program[96], said[600];
static bool answered, closed;

/* A program that does this. */
static void write_program(const char *script)
{
	FILE *f = fopen(program, "w");

	assert_non_null(f);
	fprintf(f, "#!/bin/sh\n%s\n", script);
	fclose(f);
	assert_int_equal(chmod(program, 0755), 0);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/lh-gpus-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(program, sizeof(program), "%s/lhgpus", dir);
	assert_int_equal(uv_loop_init(&loop), 0);
	gpus = lh_gpus_new(&loop, program);
	return 0;
}

static void on_closed(void *arg)
{
	(void)arg;
	closed = true;
}

static int teardown(void **state)
{
	(void)state;
	closed = false;
	lh_gpus_close(gpus, on_closed, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(closed);
	assert_int_equal(uv_loop_close(&loop), 0);
	return lh_fs_remove_tree(dir, NULL);
}

static void on_answer(void *arg, json_t *list, const char *why)
{
	char *text = list ? json_dumps(list, JSON_COMPACT) : NULL;

	(void)arg;
	snprintf(said, sizeof(said), "%s", text ? text : why);
	free(text);
	answered = true;
}

/* What one question is answered. */
static const char *ask(void)
{
	int64_t end = lh_clock_us() + DEADLINE_US;

	answered = false;
	lh_gpus_ask(gpus, on_answer, NULL);
	while (!answered && lh_clock_us() < end)
		uv_run(&loop, UV_RUN_ONCE);
	assert_true(answered);
	return said;
}

/* Asks until the answer has `part`. */
static void ask_until(const char *part)
{
	int64_t end = lh_clock_us() + DEADLINE_US;

	while (!strstr(ask(), part) && lh_clock_us() < end)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_non_null(strstr(said, part));
}

static void one_process_answers_every_question(void **state)
{
	char want[32];

	(void)state;
	write_program("while read x; do echo \"{\\\"gpus\\\": [$$]}\"; done");
	strcpy(want, ask());
	assert_int_equal(want[0], '[');
	for (int i = 0; i < 3; i++)
		assert_string_equal(ask(), want);
}

static void an_answer_in_pieces_is_one(void **state)
{
	(void)state;
	write_program("while read x; do printf '{\"gpus\":'; head -c 20000 /dev/zero | "
		      "tr '\\0' ' '; echo '[1]}'; done");
	ask_until("[1]");
}

static void why_there_are_none_is_told(void **state)
{
	(void)state;
	write_program("while read x; do echo '{\"why\": \"no driver\"}'; done");
	assert_string_equal(ask(), "no driver");
	assert_string_equal(ask(), "no driver");
}

static void one_that_is_not_there_or_ends_is_started_again(void **state)
{
	(void)state;
	assert_non_null(strstr(ask(), "does not start"));
	write_program("read x; exit 3");
	ask_until("ended with status 3");
	write_program("read x; kill -9 $$");
	ask_until("ended by signal 9");
	write_program("while read x; do echo '{\"gpus\": []}'; done");
	ask_until("[]");
}

static void nonsense_is_no_answer_and_ends_it(void **state)
{
	(void)state;
	write_program("read x; echo nonsense; read x");
	assert_string_equal(ask(), "lhgpus is of another version");
	write_program("while read x; do echo '{\"gpus\": [7]}'; done");
	ask_until("[7]");
}

/* A second question does not wait: the first has, for the same process. */
static void one_that_is_late_is_waited_for_once(void **state)
{
	char go[96], script[400];
	FILE *f;

	(void)state;
	snprintf(go, sizeof(go), "%s/go", dir);
	snprintf(script, sizeof(script), "mkfifo %s; read x; read y <%s; echo '{\"gpus\": [1]}'; "
		 "while read x; do echo '{\"gpus\": [2]}'; done", go, go);
	write_program(script);
	assert_non_null(strstr(ask(), "has not answered yet"));
	lh_gpus_ask(gpus, on_answer, NULL);
	assert_non_null(strstr(said, "has not answered yet"));
	f = fopen(go, "w");
	assert_non_null(f);
	fputs("y\n", f);
	fclose(f);
	ask_until("[2]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_process_answers_every_question, setup, teardown),
		cmocka_unit_test_setup_teardown(an_answer_in_pieces_is_one, setup, teardown),
		cmocka_unit_test_setup_teardown(why_there_are_none_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(one_that_is_not_there_or_ends_is_started_again,
						setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense_is_no_answer_and_ends_it, setup, teardown),
		cmocka_unit_test_setup_teardown(one_that_is_late_is_waited_for_once, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

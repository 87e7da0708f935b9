/* test_peers.c: the parent of a rank: what it says when its rank is lost, and what it ends
 * with, so that a launcher ends the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>

#include "../built.h"
#include "../scratch.h"
#include "lighthouse/proto.h"
#include "train/peers.h"

enum { LIMIT_MS = 20000 };

/* How a rank comes to its end, after so many collectives of step 7. */
struct story {
	int calls;
	bool inside; /* the last of them */
	int signal;  /* its own end; 0: it exits with `code` */
	int code;
	bool leaves;
};

static void __attribute__((noreturn)) be_rank(int rank, const struct story *s)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_peers *p;

	if (lh_peers_begin(&p, scratch_dir, rank, 3, &err))
		_exit(99);
	if (s->calls)
		lh_peers_step(p, 7);
	for (int i = 0; i < s->calls; i++) {
		lh_peers_note(p, "the gradient", true);
		if (i < s->calls - 1 || !s->inside)
			lh_peers_note(p, "the gradient", false);
	}
	if (s->leaves)
		lh_peers_leave(p);
	if (s->signal)
		raise(s->signal);
	_exit(s->code);
}

/* The exit code of its parent. */
static int run(int rank, struct story s)
{
	int pid = fork(), status;

	if (!pid)
		be_rank(rank, &s);
	status = built_wait(pid, LIMIT_MS);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void fault_is(const char *what)
{
	char *path = scratch_path(LH_ATTEMPT_FAULT), *text;
	size_t bytes;

	if (what) {
		text = scratch_read(LH_ATTEMPT_FAULT, &bytes);
		assert_string_equal(text, what);
		free(text);
	} else {
		assert_false(lh_fs_exists(path));
	}
	free(path);
}

static void a_rank_that_is_killed_is_told_of(void **state)
{
	(void)state;
	assert_int_equal(run(1, (struct story){ .calls = 4, .signal = SIGKILL }), 1);
	fault_is("rank 1 was killed by signal 9 (Killed) in step 7, after collective 4 (the "
		 "gradient)");
}

static void it_is_told_what_it_was_in(void **state)
{
	(void)state;
	assert_int_equal(run(0, (struct story){ .calls = 3, .inside = true, .code = 5 }), 5);
	fault_is("rank 0 exited with code 5 in step 7, in collective 3 (the gradient)");
}

static void one_that_did_nothing_yet_is_lost_as_well(void **state)
{
	(void)state;
	assert_int_equal(run(2, (struct story){ .code = 0 }), 1);
	fault_is("rank 2 exited with code 0 before its first collective");
}

static void one_that_left_is_not_missed(void **state)
{
	(void)state;
	assert_int_equal(run(0, (struct story){ .calls = 2, .leaves = true }), 0);
	assert_int_equal(run(1, (struct story){ .calls = 2, .leaves = true, .code = 3 }), 3);
	fault_is(NULL);
}

/* It was told to end before it met the others, who would wait for it. */
static void one_that_left_before_it_met_the_others_ends_them(void **state)
{
	(void)state;
	assert_int_equal(run(0, (struct story){ .leaves = true }), 1);
	fault_is(NULL);
}

static void the_first_word_stands(void **state)
{
	(void)state;
	run(1, (struct story){ .calls = 1, .signal = SIGKILL });
	run(0, (struct story){ .calls = 2, .inside = true, .signal = SIGABRT });
	fault_is("rank 1 was killed by signal 9 (Killed) in step 7, after collective 1 (the "
		 "gradient)");
}

/* Both end within a moment: the one that gave up is not to blame, whoever is quicker. */
static void one_that_gave_up_lets_the_other_speak(void **state)
{
	struct story aborts = { .calls = 2, .inside = true, .signal = SIGABRT };
	int pid = fork();

	(void)state;
	if (!pid)
		be_rank(0, &aborts);
	run(1, (struct story){ .calls = 1, .signal = SIGKILL });
	built_wait(pid, LIMIT_MS);
	fault_is("rank 1 was killed by signal 9 (Killed) in step 7, after collective 1 (the "
		 "gradient)");
}

/* Its parent is killed: the rank says so, and ends. */
static void a_rank_without_its_parent_ends(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_peers *p;
	int alive[2], pid;
	char byte;

	(void)state;
	assert_int_equal(pipe2(alive, O_CLOEXEC), 0);
	pid = fork();
	if (!pid) {
		if (lh_peers_begin(&p, scratch_dir, 1, 3, &err) ||
		    write(alive[1], &byte, 1) != 1)
			_exit(99);
		for (;;)
			pause();
	}
	close(alive[1]);
	assert_int_equal(read(alive[0], &byte, 1), 1);
	kill(pid, SIGKILL);
	built_wait(pid, LIMIT_MS);
	assert_int_equal(read(alive[0], &byte, 1), 0); /* the rank has it no longer open */
	fault_is("rank 1 lost its parent");
	close(alive[0]);
}

static void sigterm_is_passed_on(void **state)
{
	int ready[2], pid, status;
	struct lh_err err = LH_ERR_INIT;
	struct lh_peers *p;
	char byte = 0;

	(void)state;
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (!pid) {
		if (lh_peers_begin(&p, scratch_dir, 1, 3, &err) ||
		    write(ready[1], &byte, 1) != 1)
			_exit(99);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	kill(pid, SIGTERM);
	status = built_wait(pid, LIMIT_MS);
	assert_int_equal(WEXITSTATUS(status), 1);
	fault_is("rank 1 was killed by signal 15 (Terminated) before its first collective");
	close(ready[0]);
	close(ready[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(a_rank_that_is_killed_is_told_of),
		SCRATCH_TEST(it_is_told_what_it_was_in),
		SCRATCH_TEST(one_that_did_nothing_yet_is_lost_as_well),
		SCRATCH_TEST(one_that_left_is_not_missed),
		SCRATCH_TEST(one_that_left_before_it_met_the_others_ends_them),
		SCRATCH_TEST(the_first_word_stands),
		SCRATCH_TEST(one_that_gave_up_lets_the_other_speak),
		SCRATCH_TEST(a_rank_without_its_parent_ends),
		SCRATCH_TEST(sigterm_is_passed_on),
	};

	return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}

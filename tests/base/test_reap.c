/* test_reap.c: an orphan is waited for at the second look, others never before; what is
 * to end with this process ends, to the last descendant. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/reap.h"

static int zombie(void)
{
	siginfo_t info;
	int pid = fork();

	if (!pid)
		_exit(0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	return pid;
}

static void a_zombie_is_waited_for_at_the_second_look(void **state)
{
	int pid = zombie();

	(void)state;
	lh_log_set_level(LH_LOG_ERROR + 1);
	assert_int_equal(lh_reap_orphans(), 0);
	assert_int_equal(lh_reap_orphans(), 1);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), -1); /* it is gone */
	assert_int_equal(lh_reap_orphans(), 0);
}

static void one_that_somebody_waits_for_meanwhile_is_his(void **state)
{
	int pid = zombie();

	(void)state;
	assert_int_equal(lh_reap_orphans(), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(lh_reap_orphans(), 0);
}

static void a_living_child_is_left_alone(void **state)
{
	int fds[2], pid;
	char byte;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		close(fds[1]);
		_exit(read(fds[0], &byte, 1) != 0);
	}
	assert_int_equal(lh_reap_orphans(), 0);
	assert_int_equal(lh_reap_orphans(), 0);
	close(fds[1]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(fds[0]);
}

/* A child, and in a session of its own a child of that; both hold the pipe open. */
static void start_two(int fd)
{
	if (fork())
		return;
	if (!fork()) {
		setsid();
		signal(SIGTERM, SIG_IGN);
	}
	if (write(fd, "x", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static void all_descendants_are_killed(void **state)
{
	int fds[2];
	char byte;

	(void)state;
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	assert_int_equal(pipe(fds), 0);
	start_two(fds[1]);
	close(fds[1]);
	assert_int_equal(read(fds[0], &byte, 1), 1);
	assert_int_equal(read(fds[0], &byte, 1), 1);
	lh_reap_kill();
	assert_int_equal(read(fds[0], &byte, 1), 0); /* nobody has it open */
	close(fds[0]);
	lh_reap_kill(); /* none is left: it returns */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_zombie_is_waited_for_at_the_second_look),
		cmocka_unit_test(one_that_somebody_waits_for_meanwhile_is_his),
		cmocka_unit_test(a_living_child_is_left_alone),
		cmocka_unit_test(all_descendants_are_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

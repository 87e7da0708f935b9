/* test_notify.c: what lhd tells a service manager, as the manager hears it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/notify.h"
#include "../built.h"

static char dir[] = "/tmp/lh-notify-XXXXXX";
static char name[64];
static int manager = -1;

static int setup(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(name, sizeof(name), "%s/notify", dir);
	strcpy(a.sun_path, name);
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return bind(manager, (struct sockaddr *)&a, sizeof(a));
}

static int teardown(void **state)
{
	(void)state;
	close(manager);
	return lh_fs_remove_tree(dir, NULL);
}

static void hears(const char *want)
{
	struct pollfd p = { .fd = manager, .events = POLLIN };
	char text[64];
	ssize_t n;

	if (poll(&p, 1, 20000) != 1)
		fail_msg("nothing was said, '%s' was expected", want);
	n = recv(manager, text, sizeof(text) - 1, 0);
	assert_true(n > 0);
	text[n] = '\0';
	assert_string_equal(text, want);
}

static void environment_is_taken_and_checked(void **state)
{
	(void)state;
	unsetenv("NOTIFY_SOCKET");
	setenv("WATCHDOG_USEC", "3000000", 1);
	assert_int_equal(lh_notify_open(), 0); /* nobody to tell */
	assert_null(getenv("WATCHDOG_USEC"));
	lh_notify("READY=1");

	setenv("NOTIFY_SOCKET", name, 1);
	setenv("WATCHDOG_USEC", "3000000", 1);
	assert_in_range(lh_notify_open(), 500, 1500);
	assert_null(getenv("NOTIFY_SOCKET"));
	lh_notify("READY=1");
	hears("READY=1");

	setenv("NOTIFY_SOCKET", name, 1);
	setenv("WATCHDOG_USEC", "3000000", 1);
	setenv("WATCHDOG_PID", "1", 1); /* another process's */
	assert_int_equal(lh_notify_open(), 0);

	setenv("NOTIFY_SOCKET", "/nowhere/at/all", 1);
	assert_int_equal(lh_notify_open(), 0);
	lh_notify("READY=1"); /* a warning, no more */
}

static void lhd_says_ready_alive_and_stopping(void **state)
{
	char *program = built_program("lhd"), *place = lh_asprintf("%s/state", dir);
	char *argv[] = { program, (char *)"--state", place, NULL };
	int pid, status;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		setenv("NOTIFY_SOCKET", name, 1);
		setenv("WATCHDOG_USEC", "150000", 1);
		if (!freopen("/dev/null", "w", stderr))
			_exit(126);
		execv(program, argv);
		_exit(127);
	}
	hears("READY=1");
	hears("WATCHDOG=1");
	hears("WATCHDOG=1");
	assert_int_equal(kill(pid, SIGTERM), 0);
	do {
		char text[64];
		ssize_t n = recv(manager, text, sizeof(text) - 1, 0);

		assert_true(n > 0);
		text[n] = '\0';
		if (!strcmp(text, "STOPPING=1"))
			break;
		assert_string_equal(text, "WATCHDOG=1");
	} while (true);
	status = built_wait(pid, 20000);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	free(place);
	free(program);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(environment_is_taken_and_checked),
		cmocka_unit_test(lhd_says_ready_alive_and_stopping),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

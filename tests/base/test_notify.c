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
#include "lighthouse/proto.h"
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

/* Whatever was said of being alive comes before it. */
static void hears_at_last(const char *want)
{
	char text[64];
	ssize_t n;

	do {
		n = recv(manager, text, sizeof(text) - 1, 0);
		assert_true(n > 0);
		text[n] = '\0';
		if (strcmp(text, want))
			assert_string_equal(text, "WATCHDOG=1");
	} while (strcmp(text, want));
}

static void ask_for_restart(const char *state)
{
	static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":"
				   "\"daemon.restart\"}\n";
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[512];

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/" LH_STATE_CONTROL_SOCKET, state);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(send(fd, line, strlen(line), 0), (ssize_t)strlen(line));
	assert_true(recv(fd, text, sizeof(text), 0) > 0);
	assert_int_equal(recv(fd, text, sizeof(text), 0), 0); /* it hangs up */
	close(fd);
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
	lh_notify_hand_on();
	assert_string_equal(getenv("NOTIFY_SOCKET"), name);
	assert_string_equal(getenv("WATCHDOG_USEC"), "3000000");

	setenv("NOTIFY_SOCKET", name, 1);
	setenv("WATCHDOG_USEC", "3000000", 1);
	setenv("WATCHDOG_PID", "1", 1); /* another process's */
	assert_int_equal(lh_notify_open(), 0);
	lh_notify_hand_on();
	assert_null(getenv("WATCHDOG_USEC"));

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
	ask_for_restart(place);
	hears_at_last("READY=1"); /* the next one, of the same process */
	hears("WATCHDOG=1");
	assert_int_equal(kill(pid, SIGTERM), 0);
	hears_at_last("STOPPING=1");
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

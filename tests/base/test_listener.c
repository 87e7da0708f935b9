/* test_listener.c: a socket is replaced when nobody listens at it, refused when
 * somebody does, and made again when its file is removed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../scratch.h"
#include "base/listener.h"
#include "base/log.h"

enum { LIMIT_US = 20000000 };

static uv_loop_t loop;
static struct lh_listener listener;
static char *path;
static int accepted;
static bool opened, closed;

#define TURN_UNTIL(cond)                                                       \
	do {                                                                   \
		int64_t end_us_ = lh_clock_us() + LIMIT_US;                    \
		while (!(cond)) {                                              \
			if (lh_clock_us() > end_us_)                           \
				fail_msg("did not happen: %s", #cond);         \
			uv_run(&loop, UV_RUN_NOWAIT);                          \
			usleep(500);                                           \
		}                                                              \
	} while (0)

static void on_client_closed(uv_handle_t *handle)
{
	free(handle);
}

static void on_connection(uv_stream_t *pipe, int status)
{
	uv_pipe_t *client = lh_alloc(sizeof(*client));

	assert_int_equal(status, 0);
	assert_ptr_equal(pipe->data, &accepted);
	uv_pipe_init(&loop, client, 0);
	assert_int_equal(uv_accept(pipe, (uv_stream_t *)client), 0);
	uv_close((uv_handle_t *)client, on_client_closed);
	accepted++;
}

static void on_closed(void *arg)
{
	assert_ptr_equal(arg, &accepted);
	closed = true;
}

static int open_it(struct lh_err *err)
{
	opened = true;
	return lh_listener_open(&listener, &loop, path, 0600, 8, on_connection, &accepted, err);
}

static void close_it(void)
{
	opened = closed = false;
	lh_listener_close(&listener, on_closed);
	TURN_UNTIL(closed);
}

static int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	lh_log_set_level(LH_LOG_ERROR + 1);
	path = scratch_path("a.sock");
	accepted = 0;
	return uv_loop_init(&loop);
}

static int teardown(void **state)
{
	if (opened)
		close_it();
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	free(path);
	return scratch_teardown(state);
}

static int connect_to(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

	strcpy(a.sun_path, path);
	rc = connect(fd, (struct sockaddr *)&a, sizeof(a));
	close(fd);
	return rc;
}

/* A socket file somebody left, and his listening end. */
static int foreign(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(a.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 64), 0);
	return fd;
}

static void refused(int code, const char *word)
{
	struct lh_err err = LH_ERR_INIT;

	assert_int_equal(open_it(&err), code);
	assert_non_null(strstr(err.text, word));
	assert_true(*err.hint);
	close_it();
	assert_int_equal(access(path, F_OK), 0);
}

static void a_socket_that_nobody_listens_at_is_replaced(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct stat st;

	(void)state;
	close(foreign());
	assert_int_equal(open_it(&err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(connect_to(), 0);
	TURN_UNTIL(accepted == 1);
	close_it();
	assert_int_equal(access(path, F_OK), -1);
}

static void what_is_somebody_elses_is_refused_and_stays(void **state)
{
	int fd = foreign();

	(void)state;
	refused(LH_EBUSY, "somebody listens");
	assert_int_equal(connect_to(), 0);
	close(fd);
	assert_int_equal(unlink(path), 0);
	scratch_write("a.sock", "mine", 4);
	refused(LH_EIO, "is not a socket");
}

static void a_socket_that_was_removed_is_made_again(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct stat st;

	(void)state;
	assert_int_equal(open_it(&err), 0);
	for (int i = 1; i <= 2; i++) {
		assert_int_equal(unlink(path), 0);
		TURN_UNTIL(!access(path, F_OK) && connect_to() == 0);
		TURN_UNTIL(accepted == i);
	}
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	close_it();
}

/* Its directory is gone too, and comes back later. */
static void it_is_tried_until_it_works(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	char *away = lh_asprintf("%s.away", scratch_dir);

	(void)state;
	assert_int_equal(open_it(&err), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rename(scratch_dir, away), 0);
	TURN_UNTIL(!uv_is_active((uv_handle_t *)&listener.pipe)); /* it could not */
	assert_int_equal(rename(away, scratch_dir), 0);
	TURN_UNTIL(!access(path, F_OK) && connect_to() == 0);
	TURN_UNTIL(accepted == 1);
	close_it();
	free(away);
}

#define LISTENER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LISTENER_TEST(a_socket_that_nobody_listens_at_is_replaced),
		LISTENER_TEST(what_is_somebody_elses_is_refused_and_stays),
		LISTENER_TEST(a_socket_that_was_removed_is_made_again),
		LISTENER_TEST(it_is_tried_until_it_works),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* served.h: a control socket and its clients in one thread, for tests.
 *
 * A client is a non-blocking socket, and whoever waits for something turns the
 * loop until it is there or a deadline says that it never will be. Memory is
 * measured as what the process ever had resident, so the hungry cases say how
 * much more they may take. Included by one file a program. */
#ifndef LIGHTHOUSE_TEST_SERVED_H
#define LIGHTHOUSE_TEST_SERVED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/frame.h"
#include "base/fs.h"
#include "base/log.h"
#include "control/server.h"

#define DEADLINE_US (30 * 1000000LL)
#define MAX_HELD 16

static uv_loop_t loop;
static struct lh_server *server;
static char dir[64], path[128];
static struct lh_call *held[MAX_HELD];
static int held_count, gone_count;
static bool server_closed;

/* ---- methods -------------------------------------------------------------- */

static inline void echo(struct lh_call *call)
{
	lh_reply_ok(call, json_incref(call->params));
}

static inline json_t *text_of(size_t bytes)
{
	char *s = malloc(bytes + 1);
	json_t *v;

	memset(s, 'y', bytes);
	s[bytes] = '\0';
	v = json_string(s);
	free(s);
	return v;
}

static inline void big(struct lh_call *call)
{
	lh_reply_ok(call, text_of((size_t)lh_call_int(call, "bytes", 0)));
}

static inline void hold(struct lh_call *call)
{
	assert_true(held_count < MAX_HELD);
	held[held_count++] = call;
}

static inline void on_gone(struct lh_call *call)
{
	gone_count++;
	lh_call_drop(call);
}

static inline void watch(struct lh_call *call)
{
	call->gone = on_gone;
}

static inline void subscribe(struct lh_call *call)
{
	struct lh_err err = LH_ERR_INIT;
	int64_t id = lh_feed_add(call->peer->feed, lh_call_int(call, "job", 0),
				 lh_call_bool(call, "steps", false), &err);

	if (id < 0)
		lh_reply_err(call, &err);
	else
		lh_reply_ok(call, json_integer(id));
}

static inline void unsubscribe(struct lh_call *call)
{
	struct lh_err err = LH_ERR_INIT;

	if (lh_feed_remove(call->peer->feed, lh_call_int(call, "id", 0), &err))
		lh_reply_err(call, &err);
	else
		lh_reply_ok(call, json_true());
}

#define INT_PARAM(n) \
	{ .name = n, .type = LH_RPC_INTEGER, .min = 0, .max = HUGE_VAL, .doc = n }

static const struct lh_rpc_param echo_params[] = { INT_PARAM("n") };
static const struct lh_rpc_param big_params[] = { INT_PARAM("bytes") };
static const struct lh_rpc_param sub_params[] = {
	INT_PARAM("job"),
	{ .name = "steps", .type = LH_RPC_BOOLEAN, .min = -HUGE_VAL,
	  .max = HUGE_VAL, .doc = "steps" },
};
static const struct lh_rpc_param unsub_params[] = { INT_PARAM("id") };
static const struct lh_rpc_method methods[] = {
	{ .name = "echo", .params = echo_params, .param_count = 1, .handler = echo },
	{ .name = "big", .params = big_params, .param_count = 1, .handler = big },
	{ .name = "hold", .handler = hold },
	{ .name = "watch", .handler = watch },
	{ .name = "sub", .params = sub_params, .param_count = 2,
	  .handler = subscribe },
	{ .name = "unsub", .params = unsub_params, .param_count = 1,
	  .handler = unsubscribe },
};
static const struct lh_rpc rpc = { .methods = methods, .method_count = 6 };

/* ---- the loop ------------------------------------------------------------- */

/* Turns the loop until `cond` holds. */
#define TURN_UNTIL(cond)                                                     \
	do {                                                                 \
		int64_t deadline_ = lh_clock_us() + DEADLINE_US;             \
		while (!(cond)) {                                            \
			if (lh_clock_us() > deadline_)                       \
				fail_msg("never came true: %s", #cond);      \
			uv_run(&loop, UV_RUN_NOWAIT);                        \
		}                                                            \
	} while (0)

static inline void turns(int n)
{
	while (n--)
		uv_run(&loop, UV_RUN_NOWAIT);
}

static inline size_t resident_max_bytes(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (size_t)u.ru_maxrss * 1024;
}

static inline void on_server_closed(void *arg)
{
	*(bool *)arg = true;
}

static inline int setup(void **state)
{
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	strcpy(dir, "/tmp/lighthouse-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/control.sock", dir);
	held_count = gone_count = 0;
	server_closed = false;
	assert_int_equal(uv_loop_init(&loop), 0);
	if (lh_server_open(&server, &loop, path, &rpc, &err))
		fail_msg("%s", err.text);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	if (server)
		lh_server_close(server, on_server_closed, &server_closed);
	server = NULL;
	TURN_UNTIL(server_closed);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_int_equal(access(path, F_OK), -1);
	return lh_fs_remove_tree(dir, NULL);
}

/* ---- a client ------------------------------------------------------------- */

struct client {
	int fd;
	struct lh_frame frame;
	bool eof;
};

static inline int dial(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(a.sun_path, path);
	/* A full backlog says EAGAIN: let the server take some. */
	while (connect(fd, (struct sockaddr *)&a, sizeof(a)))
		if (errno == EAGAIN)
			turns(1);
		else
			fail_msg("connect: %s", strerror(errno));
	return fd;
}

static inline void open_client(struct client *c)
{
	memset(c, 0, sizeof(*c));
	c->fd = dial();
	lh_frame_init(&c->frame, 32u << 20);
}

static inline void close_client(struct client *c)
{
	close(c->fd);
	lh_frame_release(&c->frame);
}

/* Takes what there is to read. */
static inline void drink(struct client *c)
{
	static char buf[64 << 10];
	ssize_t n;

	while ((n = read(c->fd, buf, sizeof(buf))) > 0)
		lh_frame_push(&c->frame, buf, (size_t)n);
	if (n == 0 || errno == ECONNRESET)
		c->eof = true;
}

static inline void say(struct client *c, const char *bytes, size_t n)
{
	int64_t deadline = lh_clock_us() + DEADLINE_US;

	while (n) {
		ssize_t w = send(c->fd, bytes, n, MSG_NOSIGNAL);

		if (w > 0) {
			bytes += w;
			n -= (size_t)w;
			continue;
		}
		assert_int_equal(errno, EAGAIN);
		assert_true(lh_clock_us() < deadline);
		turns(1);
		drink(c);
	}
}

static inline void say_text(struct client *c, const char *text)
{
	say(c, text, strlen(text));
}

static inline void call(struct client *c, int id, const char *method, const char *params)
{
	char line[512];

	snprintf(line, sizeof(line),
		 "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":%s}\n",
		 id, method, params);
	say_text(c, line);
}

/* The next message if it is here; a new reference or NULL. */
static inline json_t *poll_message(struct client *c)
{
	json_t *m;
	char *line;
	size_t len;

	drink(c);
	if (lh_frame_next(&c->frame, &line, &len) <= 0)
		return NULL;
	m = json_loadb(line, len, 0, NULL);
	assert_non_null(m);
	return m;
}

static inline json_t *next_message(struct client *c)
{
	json_t *m = NULL;

	TURN_UNTIL((m = poll_message(c)) || c->eof);
	assert_non_null(m);
	return m;
}

/* The next message answers `id` with a result. */
static inline void expect_result(struct client *c, int id)
{
	json_t *m = next_message(c);

	assert_int_equal(json_integer_value(json_object_get(m, "id")), id);
	assert_non_null(json_object_get(m, "result"));
	json_decref(m);
}

static inline void expect_error(struct client *c, int code)
{
	json_t *m = next_message(c);
	json_t *e = json_object_get(m, "error");

	assert_int_equal(json_integer_value(json_object_get(e, "code")),
			 lh_err_rpc_code(code));
	json_decref(m);
}

static inline bool at_eof(struct client *c)
{
	drink(c);
	return c->eof;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif

/* test_server.c: the control socket under good and bad clients.
 *
 * Server and clients share one thread: a client is a non-blocking socket, and
 * whoever waits for something turns the loop until it is there or a deadline
 * says that it never will be. Memory is measured as what the process ever had
 * resident, so the hungry cases say how much more they may take. */
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

static void echo(struct lh_call *call)
{
	lh_reply_ok(call, json_incref(call->params));
}

static json_t *text_of(size_t bytes)
{
	char *s = malloc(bytes + 1);
	json_t *v;

	memset(s, 'y', bytes);
	s[bytes] = '\0';
	v = json_string(s);
	free(s);
	return v;
}

static void big(struct lh_call *call)
{
	lh_reply_ok(call, text_of((size_t)lh_call_int(call, "bytes", 0)));
}

static void hold(struct lh_call *call)
{
	assert_true(held_count < MAX_HELD);
	held[held_count++] = call;
}

static void on_gone(struct lh_call *call)
{
	gone_count++;
	lh_call_drop(call);
}

static void watch(struct lh_call *call)
{
	call->gone = on_gone;
}

static void subscribe(struct lh_call *call)
{
	struct lh_err err = LH_ERR_INIT;
	int64_t id = lh_feed_add(call->peer->feed, lh_call_int(call, "job", 0),
				 lh_call_bool(call, "steps", false), &err);

	if (id < 0)
		lh_reply_err(call, &err);
	else
		lh_reply_ok(call, json_integer(id));
}

static void unsubscribe(struct lh_call *call)
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
static const struct lh_rpc rpc = { methods, 6, NULL };

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

static void turns(int n)
{
	while (n--)
		uv_run(&loop, UV_RUN_NOWAIT);
}

static size_t resident_max_bytes(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (size_t)u.ru_maxrss * 1024;
}

static void on_server_closed(void *arg)
{
	*(bool *)arg = true;
}

static int setup(void **state)
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

static int teardown(void **state)
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

static int dial(void)
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

static void open_client(struct client *c)
{
	memset(c, 0, sizeof(*c));
	c->fd = dial();
	lh_frame_init(&c->frame, 32u << 20);
}

static void close_client(struct client *c)
{
	close(c->fd);
	lh_frame_release(&c->frame);
}

/* Takes what there is to read. */
static void drink(struct client *c)
{
	static char buf[64 << 10];
	ssize_t n;

	while ((n = read(c->fd, buf, sizeof(buf))) > 0)
		lh_frame_push(&c->frame, buf, (size_t)n);
	if (n == 0 || errno == ECONNRESET)
		c->eof = true;
}

static void say(struct client *c, const char *bytes, size_t n)
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

static void say_text(struct client *c, const char *text)
{
	say(c, text, strlen(text));
}

static void call(struct client *c, int id, const char *method, const char *params)
{
	char line[512];

	snprintf(line, sizeof(line),
		 "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":%s}\n",
		 id, method, params);
	say_text(c, line);
}

/* The next message if it is here; a new reference or NULL. */
static json_t *poll_message(struct client *c)
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

static json_t *next_message(struct client *c)
{
	json_t *m = NULL;

	TURN_UNTIL((m = poll_message(c)) || c->eof);
	assert_non_null(m);
	return m;
}

/* The next message answers `id` with a result. */
static void expect_result(struct client *c, int id)
{
	json_t *m = next_message(c);

	assert_int_equal(json_integer_value(json_object_get(m, "id")), id);
	assert_non_null(json_object_get(m, "result"));
	json_decref(m);
}

static void expect_error(struct client *c, int code)
{
	json_t *m = next_message(c);
	json_t *e = json_object_get(m, "error");

	assert_int_equal(json_integer_value(json_object_get(e, "code")),
			 lh_err_rpc_code(code));
	json_decref(m);
}

static bool at_eof(struct client *c)
{
	drink(c);
	return c->eof;
}

/* ---- good clients --------------------------------------------------------- */

static void server_answers_pipelined_calls_in_order(void **state)
{
	enum { CALLS = 10000 };
	struct client c;
	char *text = malloc(CALLS * 80), *p = text;
	int i;

	(void)state;
	open_client(&c);
	for (i = 0; i < CALLS; i++)
		p += sprintf(p, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"echo\","
				"\"params\":{\"n\":%d}}\n", i, i);
	say(&c, text, (size_t)(p - text));
	for (i = 0; i < CALLS; i++)
		expect_result(&c, i);
	close_client(&c);
	free(text);
}

static void server_puts_split_lines_together(void **state)
{
	struct client c;
	const char *p;

	(void)state;
	open_client(&c);
	for (p = "\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}\r\n"; *p; p++) {
		say(&c, p, 1);
		turns(2);
	}
	expect_result(&c, 1);
	close_client(&c);
}

static void server_answers_one_client_while_200_are_idle(void **state)
{
	struct client idle[200], c;
	int i;

	(void)state;
	for (i = 0; i < 200; i++)
		open_client(&idle[i]);
	open_client(&c);
	call(&c, 1, "echo", "{}");
	expect_result(&c, 1);
	assert_int_equal(lh_server_clients(server), 201);
	for (i = 0; i < 200; i++) {
		call(&idle[i], i, "echo", "{}");
		expect_result(&idle[i], i);
		close_client(&idle[i]);
	}
	TURN_UNTIL(lh_server_clients(server) == 1);
	close_client(&c);
}

static void server_refuses_one_connection_too_many(void **state)
{
	struct client c[LH_SERVER_MAX_CLIENTS], extra;
	struct rlimit limit;
	int i;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	for (i = 0; i < LH_SERVER_MAX_CLIENTS; i++)
		open_client(&c[i]);
	TURN_UNTIL(lh_server_clients(server) == LH_SERVER_MAX_CLIENTS);
	open_client(&extra);
	expect_error(&extra, LH_ETOOBIG);
	TURN_UNTIL(at_eof(&extra));
	close_client(&extra);
	close_client(&c[0]);
	TURN_UNTIL(lh_server_clients(server) == LH_SERVER_MAX_CLIENTS - 1);
	open_client(&c[0]);
	call(&c[0], 9, "echo", "{}");
	expect_result(&c[0], 9);
	for (i = 0; i < LH_SERVER_MAX_CLIENTS; i++)
		close_client(&c[i]);
}

static void server_answers_a_peer_that_ended_its_side(void **state)
{
	struct client c;
	int i;

	(void)state;
	open_client(&c);
	for (i = 0; i < 100; i++)
		call(&c, i, "echo", "{}");
	call(&c, 100, "hold", "{}");
	say_text(&c, "{\"jsonrpc\":\"2.0\",\"id\":101,");
	shutdown(c.fd, SHUT_WR);
	for (i = 0; i < 100; i++)
		expect_result(&c, i);
	TURN_UNTIL(held_count == 1);
	turns(10);
	assert_false(at_eof(&c));
	lh_reply_ok(held[0], json_true());
	expect_result(&c, 100);
	/* the half line was never a call */
	TURN_UNTIL(at_eof(&c));
	assert_null(poll_message(&c));
	TURN_UNTIL(lh_server_clients(server) == 0);
	close_client(&c);
}

static void server_begins_only_so_many_calls_at_once(void **state)
{
	struct client c, other;
	int i;

	(void)state;
	open_client(&c);
	open_client(&other);
	for (i = 0; i < LH_CLIENT_MAX_CALLS + 1; i++)
		call(&c, i, "hold", "{}");
	TURN_UNTIL(held_count == LH_CLIENT_MAX_CALLS);
	call(&other, 1, "echo", "{}");
	expect_result(&other, 1);
	turns(10);
	assert_int_equal(held_count, LH_CLIENT_MAX_CALLS);
	lh_reply_ok(held[3], json_true());
	expect_result(&c, 3);
	TURN_UNTIL(held_count == LH_CLIENT_MAX_CALLS + 1);
	for (i = 0; i < held_count; i++)
		if (i != 3)
			lh_reply_ok(held[i], json_true());
	for (i = 0; i < held_count; i++)
		if (i != 3)
			expect_result(&c, i);
	close_client(&c);
	close_client(&other);
}

/* ---- bad clients ---------------------------------------------------------- */

static void server_survives_a_line_of_100_mb(void **state)
{
	size_t before = resident_max_bytes(), chunk = 1 << 20;
	char *x = malloc(chunk);
	struct client c, other;
	int i;

	(void)state;
	memset(x, '[', chunk);
	open_client(&c);
	open_client(&other);
	for (i = 0; i < 100; i++)
		say(&c, x, chunk);
	call(&other, 5, "echo", "{}");
	expect_result(&other, 5);
	say_text(&c, "\n");
	call(&c, 1, "echo", "{}");
	expect_error(&c, LH_ETOOBIG);
	expect_result(&c, 1);
	assert_null(poll_message(&c));
	assert_true(resident_max_bytes() - before < 48u << 20);
	close_client(&c);
	close_client(&other);
	free(x);
}

static void server_answers_garbage_and_goes_on(void **state)
{
	static const char *const lines[] = { "garbage\n", "\xff\xfe\xfd\n", "[]\n",
					     "{\"jsonrpc\":\"2.0\"}\n" };
	struct client c;
	size_t i;

	(void)state;
	open_client(&c);
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		say_text(&c, lines[i]);
		expect_error(&c, i < 2 ? LH_EPARSE : LH_EREQUEST);
	}
	call(&c, 1, "echo", "{}");
	expect_result(&c, 1);
	close_client(&c);
}

/* Writes calls for ever and reads nothing: the server stops listening to it. */
static void server_bounds_a_client_that_never_reads(void **state)
{
	static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"big\","
				   "\"params\":{\"bytes\":20000}}\n";
	size_t before = resident_max_bytes();
	struct client c, other;
	int i, stuck = 0;

	(void)state;
	open_client(&c);
	open_client(&other);
	while (stuck < 200) {
		ssize_t n = send(c.fd, line, sizeof(line) - 1, MSG_NOSIGNAL);

		/* A torn call does no harm here: nobody reads the answers. */
		assert_true(n > 0 || errno == EAGAIN);
		stuck = n > 0 ? 0 : stuck + 1;
		turns(1);
	}
	for (i = 0; i < 100; i++) {
		call(&other, i, "echo", "{}");
		expect_result(&other, i);
	}
	assert_int_equal(lh_server_clients(server), 2);
	assert_true(resident_max_bytes() - before < 16u << 20);
	/* It may think better of it. */
	expect_result(&c, 1);
	close_client(&c);
	close_client(&other);
	TURN_UNTIL(lh_server_clients(server) == 0);
}

static void server_drops_a_client_with_too_much_unread(void **state)
{
	struct client c;
	int i;

	(void)state;
	open_client(&c);
	for (i = 0; i < 6; i++)
		call(&c, i, "hold", "{}");
	TURN_UNTIL(held_count == 6);
	for (i = 0; i < 5; i++)
		lh_reply_ok(held[i], text_of(3 << 20));
	turns(10);
	assert_int_equal(lh_server_clients(server), 1);
	lh_reply_ok(held[5], text_of(3 << 20));
	TURN_UNTIL(lh_server_clients(server) == 0);
	close_client(&c);
}

static void server_survives_peers_that_disappear(void **state)
{
	struct client c;
	char few[100];

	(void)state;
	/* in the middle of an answer */
	open_client(&c);
	call(&c, 1, "big", "{\"bytes\":3000000}");
	TURN_UNTIL(read(c.fd, few, sizeof(few)) > 0);
	close_client(&c);
	TURN_UNTIL(lh_server_clients(server) == 0);

	/* before it: the answer goes nowhere */
	open_client(&c);
	call(&c, 1, "hold", "{}");
	call(&c, 2, "watch", "{}");
	TURN_UNTIL(held_count == 1);
	close_client(&c);
	turns(10);
	lh_reply_ok(held[0], text_of(1 << 20));
	TURN_UNTIL(gone_count == 1);
	TURN_UNTIL(lh_server_clients(server) == 0);
}

static void server_refuses_another_uid(void **state)
{
	struct client c;

	(void)state;
	if (geteuid() != 0)
		skip();
	/* By hand, somebody opened the doors. */
	assert_int_equal(chmod(dir, 0755) | chmod(path, 0666), 0);
	assert_int_equal(seteuid(65534), 0);
	open_client(&c);
	assert_int_equal(seteuid(0), 0);
	expect_error(&c, LH_EDENIED);
	TURN_UNTIL(at_eof(&c));
	close_client(&c);
}

/* ---- subscriptions -------------------------------------------------------- */

static void publish(int64_t id, int64_t job, bool is_step)
{
	struct lh_event ev = { is_step ? 0 : id, job, is_step, NULL };

	ev.json = json_pack("{s:I,s:I,s:s}", "id", (json_int_t)id, "job",
			    (json_int_t)job, "text", "something happened to it");
	lh_hub_publish(lh_server_hub(server), &ev);
	json_decref(ev.json);
}

/* A field of the params of the next message, which must be of this method. */
static int64_t next_push(struct client *c, const char *method, const char *field,
			 int64_t *subscription)
{
	json_t *m = next_message(c), *p = json_object_get(m, "params");
	int64_t v = json_integer_value(json_object_get(p, field));

	assert_string_equal(json_string_value(json_object_get(m, "method")), method);
	assert_true(json_is_integer(json_object_get(p, field)));
	*subscription = json_integer_value(json_object_get(p, "subscription"));
	json_decref(m);
	return v;
}

static void subscriptions_get_what_they_asked_for(void **state)
{
	struct client a, b;
	int64_t sub;

	(void)state;
	open_client(&a);
	open_client(&b);
	call(&a, 1, "sub", "{\"job\":7}");
	expect_result(&a, 1);
	call(&b, 1, "sub", "{\"steps\":true}");
	expect_result(&b, 1);
	publish(1, 7, false);
	publish(2, 8, false);
	publish(3, 7, true);
	publish(4, 7, false);
	assert_int_equal(next_push(&a, "event", "id", &sub), 1);
	assert_int_equal(next_push(&a, "event", "id", &sub), 4);
	assert_int_equal(next_push(&b, "event", "id", &sub), 1);
	assert_int_equal(next_push(&b, "event", "id", &sub), 2);
	assert_int_equal(next_push(&b, "step", "id", &sub), 3);
	assert_int_equal(next_push(&b, "event", "id", &sub), 4);

	call(&a, 2, "unsub", "{\"id\":1}");
	expect_result(&a, 2);
	publish(5, 7, false);
	call(&a, 3, "unsub", "{\"id\":1}");
	expect_error(&a, LH_ENOTFOUND);
	assert_int_equal(next_push(&b, "event", "id", &sub), 5);
	assert_null(poll_message(&a));
	close_client(&a);
	close_client(&b);
}

static void subscriptions_have_a_limit(void **state)
{
	struct client c;
	int i;

	(void)state;
	open_client(&c);
	for (i = 0; i < LH_FEED_MAX_SUBSCRIPTIONS; i++) {
		call(&c, i, "sub", "{}");
		expect_result(&c, i);
	}
	call(&c, i, "sub", "{}");
	expect_error(&c, LH_ETOOBIG);
	close_client(&c);
}

/* What was received and what was told as lost, of each subscription. */
struct tally {
	int64_t got_events, got_steps, lost_events, lost_steps, newest;
	int told;
};

static void count_message(json_t *m, struct tally tally[3])
{
	const char *method = json_string_value(json_object_get(m, "method"));
	json_t *p = json_object_get(m, "params");
	int64_t sub = json_integer_value(json_object_get(p, "subscription")), id;
	struct tally *t = &tally[sub];

	assert_true(sub == 1 || sub == 2);
	if (!strcmp(method, "lost")) {
		t->lost_events += json_integer_value(json_object_get(p, "events"));
		t->lost_steps += json_integer_value(json_object_get(p, "steps"));
		t->told++;
		return;
	}
	id = json_integer_value(json_object_get(p, "id"));
	assert_true(id > t->newest);
	/* a gap has been told before what comes after it */
	assert_int_equal(id, t->got_events + t->got_steps + t->lost_events +
				     t->lost_steps + 1);
	t->newest = id;
	if (!strcmp(method, "step"))
		t->got_steps++;
	else
		t->got_events++;
}

static void subscriptions_count_what_a_slow_reader_lost(void **state)
{
	enum { N = 40000 };
	struct tally tally[3] = { 0 };
	struct client c;
	json_t *m;
	int i;

	(void)state;
	open_client(&c);
	call(&c, 1, "sub", "{\"steps\":true}");
	expect_result(&c, 1);
	call(&c, 2, "sub", "{\"steps\":true,\"job\":7}");
	expect_result(&c, 2);
	for (i = 1; i <= N; i++) {
		publish(i, 7, i % 10 != 0);
		assert_true(lh_server_hub(server)->feeds->used_bytes <=
			    LH_FEED_MAX_BYTES);
		if (i % 100 == 0)
			turns(1);
	}
	while (tally[1].newest < N || tally[2].newest < N) {
		m = next_message(&c);
		count_message(m, tally);
		json_decref(m);
	}
	for (i = 1; i <= 2; i++) {
		assert_int_equal(tally[i].got_events + tally[i].lost_events, N / 10);
		assert_int_equal(tally[i].got_steps + tally[i].lost_steps,
				 N - N / 10);
		assert_true(tally[i].lost_steps > 0 && tally[i].lost_events > 0);
		assert_int_equal(tally[i].told, 1);
	}
	close_client(&c);
}

static void subscriptions_end_with_their_connection(void **state)
{
	struct client c;

	(void)state;
	open_client(&c);
	call(&c, 1, "sub", "{}");
	expect_result(&c, 1);
	publish(1, 1, false);
	close_client(&c);
	TURN_UNTIL(lh_server_clients(server) == 0);
	assert_null(lh_server_hub(server)->feeds);
	publish(2, 1, false);
}

/* ---- opening and closing -------------------------------------------------- */

static void server_makes_a_private_socket(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void try_open(const char *where, int code)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_server *s;

	assert_int_equal(lh_server_open(&s, &loop, where, &rpc, &err), code);
	assert_string_not_equal(err.text, "");
}

static void server_refuses_impossible_paths(void **state)
{
	char file[160], longer[160];

	(void)state;
	snprintf(file, sizeof(file), "%s/file", dir);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	try_open(file, LH_EIO);
	assert_int_equal(access(file, F_OK), 0);
	snprintf(file, sizeof(file), "%s/none/control.sock", dir);
	try_open(file, LH_EIO);
	snprintf(longer, sizeof(longer), "%s/%0*d", dir, 108 - (int)strlen(dir) - 1, 0);
	assert_int_equal(strlen(longer), 108);
	try_open(longer, LH_EINVAL);
}

static void server_replaces_a_stale_socket(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct lh_err err = LH_ERR_INIT;
	struct lh_server *s;
	struct client c;
	bool closed = false;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	lh_server_close(server, on_server_closed, &server_closed);
	TURN_UNTIL(server_closed);
	strcpy(a.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(lh_server_open(&s, &loop, path, &rpc, &err), 0);
	server = s;
	open_client(&c);
	call(&c, 1, "echo", "{}");
	expect_result(&c, 1);
	lh_server_stop_accepting(s);
	call(&c, 2, "echo", "{}");
	expect_result(&c, 2);
	assert_int_equal(access(path, F_OK), -1);
	lh_server_close(s, on_server_closed, &closed);
	server = NULL;
	TURN_UNTIL(closed);
	close_client(&c);
}

static void server_close_waits_for_calls_and_says_goodbye(void **state)
{
	struct client c;

	(void)state;
	open_client(&c);
	call(&c, 1, "hold", "{}");
	call(&c, 2, "hold", "{}");
	call(&c, 3, "watch", "{}");
	TURN_UNTIL(held_count == 2);
	lh_reply_ok(held[0], json_true());
	lh_server_close(server, on_server_closed, &server_closed);
	server = NULL;
	expect_result(&c, 1);
	TURN_UNTIL(at_eof(&c));
	assert_int_equal(gone_count, 1);
	turns(10);
	assert_false(server_closed);
	lh_reply_ok(held[1], json_true());
	TURN_UNTIL(server_closed);
	close_client(&c);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(server_survives_a_line_of_100_mb),
		T(server_bounds_a_client_that_never_reads),
		T(subscriptions_count_what_a_slow_reader_lost),
		T(server_answers_pipelined_calls_in_order),
		T(server_puts_split_lines_together),
		T(server_answers_one_client_while_200_are_idle),
		T(server_refuses_one_connection_too_many),
		T(server_answers_a_peer_that_ended_its_side),
		T(server_begins_only_so_many_calls_at_once),
		T(server_answers_garbage_and_goes_on),
		T(server_drops_a_client_with_too_much_unread),
		T(server_survives_peers_that_disappear),
		T(server_refuses_another_uid),
		T(subscriptions_get_what_they_asked_for),
		T(subscriptions_have_a_limit),
		T(subscriptions_end_with_their_connection),
		T(server_makes_a_private_socket),
		T(server_refuses_impossible_paths),
		T(server_replaces_a_stale_socket),
		T(server_close_waits_for_calls_and_says_goodbye),
	};

	signal(SIGPIPE, SIG_IGN);
	lh_log_set_level(LH_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

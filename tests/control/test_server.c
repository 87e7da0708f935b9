/* test_server.c: the control socket under good and bad clients. */
#include "served.h"

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

/* Its answer makes it due for the next turn, before which it is freed. */
static void server_forgets_a_peer_that_asks_and_leaves(void **state)
{
	struct client c;

	(void)state;
	for (int i = 0; i < 50; i++) {
		open_client(&c);
		TURN_UNTIL(lh_server_clients(server) == 1);
		call(&c, i, "echo", "{}");
		close_client(&c);
		TURN_UNTIL(lh_server_clients(server) == 0);
		turns(3);
	}
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(server_survives_a_line_of_100_mb),
		T(server_bounds_a_client_that_never_reads),
		T(server_answers_pipelined_calls_in_order),
		T(server_puts_split_lines_together),
		T(server_answers_one_client_while_200_are_idle),
		T(server_refuses_one_connection_too_many),
		T(server_answers_a_peer_that_ended_its_side),
		T(server_forgets_a_peer_that_asks_and_leaves),
		T(server_begins_only_so_many_calls_at_once),
		T(server_answers_garbage_and_goes_on),
		T(server_drops_a_client_with_too_much_unread),
		T(server_survives_peers_that_disappear),
		T(server_refuses_another_uid),
		T(server_makes_a_private_socket),
		T(server_refuses_impossible_paths),
		T(server_replaces_a_stale_socket),
		T(server_close_waits_for_calls_and_says_goodbye),
	};

	signal(SIGPIPE, SIG_IGN);
	lh_log_set_level(LH_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

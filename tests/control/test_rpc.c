/* test_rpc.c: every corner of the protocol, without a socket.
 *
 * A table of methods made for the test; a peer that keeps what it is sent. Each
 * case is a line and what must come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/rpc.h"

struct test_peer {
	struct lh_peer peer;
	json_t *sent;   /* array */
	int ended;
};

static struct lh_call *held;
static int called;

static void echo(struct lh_call *call)
{
	called++;
	lh_reply_ok(call, json_incref(call->params));
}

static void hold(struct lh_call *call)
{
	called++;
	held = call;
}

static void refuse(struct lh_call *call)
{
	struct lh_err err = LH_ERR_INIT;

	called++;
	lh_err_set(&err, LH_ESTATE, "job '\xff\n' is DONE");
	lh_err_hint(&err, "look with 'ls'");
	lh_reply_err(call, &err);
}

#define NO_LIMIT .min = -HUGE_VAL, .max = HUGE_VAL

static const struct lh_rpc_param params[] = {
	{ .name = "int", .type = LH_RPC_INTEGER, .min = 1, .max = 10, .doc = "i" },
	{ .name = "num", .type = LH_RPC_NUMBER, .min = 0, .max = HUGE_VAL, .doc = "n" },
	{ .name = "str", .type = LH_RPC_STRING, NO_LIMIT, .max_bytes = 4, .doc = "s" },
	{ .name = "choice", .type = LH_RPC_STRING, NO_LIMIT,
	  .values = (const char *const[]){ "final", "all", NULL }, .doc = "c" },
	{ .name = "bool", .type = LH_RPC_BOOLEAN, NO_LIMIT, .doc = "b" },
	{ .name = "obj", .type = LH_RPC_OBJECT, NO_LIMIT, .doc = "o" },
	{ .name = "arr", .type = LH_RPC_ARRAY, .items = LH_RPC_STRING, NO_LIMIT,
	  .doc = "a" },
};
static const struct lh_rpc_param need_params[] = {
	{ .name = "job", .type = LH_RPC_INTEGER, .required = true, .min = 1,
	  .max = HUGE_VAL, .doc = "job id" },
};
static const struct lh_rpc_method methods[] = {
	{ .name = "echo", .params = params, .param_count = 7, .handler = echo },
	{ .name = "need", .params = need_params, .param_count = 1, .handler = echo },
	{ .name = "none", .handler = echo },
	{ .name = "hold", .handler = hold },
	{ .name = "refuse", .handler = refuse },
	{ .name = "steer", .role = LH_ROLE_STEER, .handler = echo },
	{ .name = "submit", .role = LH_ROLE_SUBMIT, .handler = echo },
};
static int denied;

static void on_denied(void *ctx, const struct lh_peer *peer, const char *method)
{
	(void)ctx, (void)peer;
	assert_non_null(method);
	denied++;
}

static const struct lh_rpc rpc = { .methods = methods, .method_count = 7,
				   .denied = on_denied };

static void on_send(struct lh_peer *peer, const struct lh_buf *message, bool piece)
{
	json_t *m = json_loadb(message->data, message->used_bytes, 0, NULL);

	assert_int_equal(piece, json_object_get(m, "method") != NULL);
	json_array_append_new(((struct test_peer *)peer)->sent, m);
}

static void on_ended(struct lh_peer *peer)
{
	((struct test_peer *)peer)->ended++;
}

static int setup(void **state)
{
	struct test_peer *p = calloc(1, sizeof(*p));

	p->peer.send = on_send;
	p->peer.ended = on_ended;
	p->sent = json_array();
	held = NULL;
	called = denied = 0;
	p->peer.role = LH_ROLE_SUBMIT;
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct test_peer *p = *state;

	assert_int_equal(p->peer.call_count, 0);
	assert_null(p->peer.calls);
	json_decref(p->sent);
	free(p);
	return 0;
}

/* Sends bytes; the one message that came back, or NULL. Borrowed. */
static json_t *send_bytes(struct test_peer *p, const char *line, size_t len)
{
	json_array_clear(p->sent);
	lh_rpc_line(&rpc, &p->peer, line, len);
	assert_true(json_array_size(p->sent) <= 1);
	return json_array_get(p->sent, 0);
}

static json_t *send_line(struct test_peer *p, const char *line)
{
	return send_bytes(p, line, strlen(line));
}

static void expect(json_t *got, const char *want_text)
{
	json_t *want = json_loads(want_text, JSON_DECODE_ANY, NULL);
	char *text;

	assert_non_null(want);
	if (!json_equal(got, want)) {
		text = json_dumps(got, JSON_ENCODE_ANY);
		fail_msg("got %s, want %s", text ? text : "nothing", want_text);
	}
	json_decref(want);
}

/* An error with this name and number, this id, and `part` in its message. */
static void expect_error(json_t *got, int code, const char *id, const char *part)
{
	json_t *error = json_object_get(got, "error");
	json_t *data = json_object_get(error, "data");
	const char *message = json_string_value(json_object_get(error, "message"));

	assert_non_null(error);
	expect(json_object_get(got, "jsonrpc"), "\"2.0\"");
	expect(json_object_get(got, "id"), id);
	assert_null(json_object_get(got, "result"));
	assert_int_equal(json_integer_value(json_object_get(error, "code")),
			 lh_err_rpc_code(code));
	assert_string_equal(json_string_value(json_object_get(data, "name")),
			    lh_err_name(code));
	assert_true(json_is_string(json_object_get(data, "hint")));
	assert_non_null(message);
	if (!strstr(message, part))
		fail_msg("'%s' lacks '%s'", message, part);
}

#define CALL(method, params) \
	"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"" method "\",\"params\":" params "}"

static void rpc_answers_a_call(void **state)
{
	expect(send_line(*state, CALL("echo", "{\"int\":3}")),
	       "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"int\":3}}");
	assert_int_equal(called, 1);
	assert_int_equal(((struct test_peer *)*state)->ended, 1);
	/* params may be left out */
	expect(send_line(*state, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"none\"}"),
	       "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}");
}

static void rpc_returns_ids_of_every_type(void **state)
{
	static const char *const ids[] = { "0", "-7", "9007199254740993", "\"\"",
					   "\"a\\u00e9\"", "null", "1.5",
					   "9223372036854775807" };
	char line[256], want[256];
	size_t i;

	for (i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		snprintf(line, sizeof(line),
			 "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"none\"}",
			 ids[i]);
		snprintf(want, sizeof(want),
			 "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{}}", ids[i]);
		expect(send_line(*state, line), want);
	}
}

static void rpc_refuses_ids_of_other_types(void **state)
{
	static const char *const ids[] = { "{}", "[1]", "true", "false" };
	char line[256];
	size_t i;

	for (i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		snprintf(line, sizeof(line),
			 "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"none\"}",
			 ids[i]);
		expect_error(send_line(*state, line), LH_EREQUEST, "null", "'id'");
	}
	assert_int_equal(called, 0);
}

static void rpc_does_not_answer_notifications(void **state)
{
	static const char *const lines[] = {
		"{\"jsonrpc\":\"2.0\",\"method\":\"none\"}",
		"{\"jsonrpc\":\"2.0\",\"method\":\"refuse\"}",
		"{\"jsonrpc\":\"2.0\",\"method\":\"none\",\"params\":{\"x\":1}}",
		"{\"jsonrpc\":\"2.0\",\"method\":\"nowhere\"}",
	};
	size_t i;

	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		assert_null(send_line(*state, lines[i]));
	assert_int_equal(called, 2);
}

static void rpc_refuses_what_is_not_json(void **state)
{
	static const char *const lines[] = {
		"{", "{\"jsonrpc\":\"2.0\",\"method\":\"none\"", "garbage", "nul",
		"{\"a\":1}}", "{} {}", "{'a':1}", "[1,]", "\"\\ud800\"", "01",
		"\x01\x02", "\"a\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"",
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"none\"}",
		"{\"id\":99999999999999999999}", "1e999", "\"\\u0000\"",
	};
	size_t i;

	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		expect_error(send_line(*state, lines[i]), LH_EPARSE, "null", "byte");
	expect_error(send_bytes(*state, "{}\0{}", 5), LH_EPARSE, "null", "byte");
	assert_int_equal(called, 0);
}

static void rpc_survives_deep_nesting(void **state)
{
	size_t n = 1000000;
	char *line = malloc(n);

	memset(line, '[', n);
	expect_error(send_bytes(*state, line, n), LH_EPARSE, "null", "depth");
	for (size_t i = 0; i + 5 <= n; i += 5)
		memcpy(line + i, "{\"a\":", 5);
	expect_error(send_bytes(*state, line, n), LH_EPARSE, "null", "depth");
	free(line);
}

static void rpc_refuses_what_is_not_a_request(void **state)
{
	static const struct {
		const char *line, *id, *part;
	} cases[] = {
		{ "[]", "null", "batches" },
		{ "[" CALL("none", "{}") "]", "null", "batches" },
		{ "42", "null", "object" },
		{ "\"none\"", "null", "object" },
		{ "null", "null", "object" },
		{ "{}", "null", "jsonrpc" },
		{ "{\"id\":5,\"method\":\"none\"}", "5", "jsonrpc" },
		{ "{\"id\":5,\"jsonrpc\":2.0,\"method\":\"none\"}", "5", "jsonrpc" },
		{ "{\"id\":5,\"jsonrpc\":\"1.0\",\"method\":\"none\"}", "5", "jsonrpc" },
		{ "{\"id\":\"x\",\"jsonrpc\":\"2.0\"}", "\"x\"", "method" },
		{ "{\"jsonrpc\":\"2.0\",\"method\":1}", "null", "method" },
		{ CALL("none", "\"x\""), "1", "params" },
		{ CALL("none", "null"), "1", "params" },
		{ CALL("none", "7"), "1", "params" },
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_error(send_line(*state, cases[i].line), LH_EREQUEST,
			     cases[i].id, cases[i].part);
	assert_int_equal(called, 0);
}

static void rpc_names_an_unknown_method(void **state)
{
	expect_error(send_line(*state, CALL("job.fly", "{}")), LH_EMETHOD, "1",
		     "job.fly");
	expect_error(send_line(*state, CALL("", "{}")), LH_EMETHOD, "1", "''");
}

static void rpc_checks_every_parameter(void **state)
{
	static const struct {
		const char *line, *part;
	} cases[] = {
		{ CALL("need", "{}"), "'job' is missing; it must be an integer of "
				      "at least 1" },
		{ CALL("need", "{\"job\":0}"), "'job' is 0; it must be" },
		{ CALL("need", "{\"job\":null}"), "'job' is null" },
		{ CALL("need", "{\"job\":1,\"jbo\":2}"), "unknown parameter 'jbo'" },
		{ CALL("none", "{\"x\":1}"), "unknown parameter 'x'" },
		{ CALL("none", "[1]"), "by name" },
		{ CALL("none", "[]"), "by name" },
		{ CALL("echo", "{\"int\":11}"), "'int' is 11; it must be an integer "
						"from 1 to 10" },
		{ CALL("echo", "{\"int\":5.0}"), "'int' is 5.0" },
		{ CALL("echo", "{\"int\":\"5\"}"), "'int' is \"5\"" },
		{ CALL("echo", "{\"int\":-9223372036854775808}"), "from 1 to 10" },
		{ CALL("echo", "{\"num\":-0.5}"), "'num' is -0.5; it must be a number "
						  "of at least 0" },
		{ CALL("echo", "{\"num\":true}"), "'num' is true" },
		{ CALL("echo", "{\"str\":\"12345\"}"), "a string of at most 4 bytes" },
		{ CALL("echo", "{\"str\":\"\xc3\xa9\xc3\xa9\xc3\xa9\"}"), "4 bytes" },
		{ CALL("echo", "{\"str\":1}"), "'str' is 1" },
		{ CALL("echo", "{\"choice\":\"some\"}"), "one of 'final', 'all'" },
		{ CALL("echo", "{\"choice\":[]}"), "one of 'final', 'all'" },
		{ CALL("echo", "{\"bool\":1}"), "'bool' is 1; it must be true or "
						"false" },
		{ CALL("echo", "{\"obj\":[]}"), "an object" },
		{ CALL("echo", "{\"arr\":{}}"), "an array with a string" },
		{ CALL("echo", "{\"arr\":[\"a\",1]}"), "a string in each place" },
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_error(send_line(*state, cases[i].line), LH_EPARAMS, "1",
			     cases[i].part);
	assert_int_equal(called, 0);
	assert_non_null(json_object_get(
		send_line(*state,
			  CALL("echo", "{\"int\":10,\"num\":0,\"str\":\"1234\","
				       "\"choice\":\"all\",\"bool\":false,"
				       "\"obj\":{},\"arr\":[\"a\"]}")),
		"result"));
}

static void rpc_names_a_long_value_by_its_size(void **state)
{
	char line[8192], *p = line;

	p += sprintf(p, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\","
			"\"params\":{\"int\":\"");
	memset(p, 'x', 5000);
	strcpy(p + 5000, "\"}}");
	expect_error(send_line(*state, line), LH_EPARAMS, "1",
		     "a string of 5000 bytes");
}

static void rpc_makes_hostile_error_texts_safe(void **state)
{
	json_t *got = send_line(*state, CALL("refuse", "{}"));

	expect_error(got, LH_ESTATE, "1", "'\\xff\\x0a' is DONE");
	expect(json_object_get(json_object_get(json_object_get(got, "error"), "data"),
			       "hint"),
	       "\"look with 'ls'\"");
}

static void rpc_can_answer_with_text_that_was_made_elsewhere(void **state)
{
	struct test_peer *p = *state;
	struct lh_buf text = { 0 };

	lh_buf_printf(&text, "{\"rows\":[1,2]}");
	send_line(p, CALL("hold", "{}"));
	lh_reply_text(held, &text);
	expect(p->sent, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"rows\":[1,2]}}]");
	send_line(p, "{\"jsonrpc\":\"2.0\",\"method\":\"hold\"}");
	lh_reply_text(held, &text);
	assert_int_equal(json_array_size(p->sent), 0);
	assert_int_equal(p->ended, 2);
	lh_buf_release(&text);
}
static void rpc_can_answer_later_with_pieces_before(void **state)
{
	struct test_peer *p = *state;
	json_t *piece = json_pack("{s:s}", "text", "ab");

	assert_null(send_line(p, CALL("hold", "{}")));
	assert_int_equal(p->peer.call_count, 1);
	assert_int_equal(p->ended, 0);
	lh_call_piece(held, "sample", piece);
	lh_reply_ok(held, json_integer(5));
	expect(p->sent,
	       "[{\"jsonrpc\":\"2.0\",\"method\":\"sample\",\"params\":"
	       "{\"id\":1,\"text\":\"ab\"}},"
	       "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":5}]");
	assert_int_equal(p->ended, 1);
	json_decref(piece);
}

static int gone;

static void on_gone(struct lh_call *call)
{
	gone++;
	lh_call_drop(call);
}

static void rpc_tells_calls_that_their_peer_is_lost(void **state)
{
	struct test_peer *p = *state;
	struct lh_call *first;

	gone = 0;
	send_line(p, CALL("hold", "{}"));
	first = held;
	send_line(p, CALL("hold", "{}"));
	held->gone = on_gone;
	lh_peer_lost(&p->peer);
	assert_int_equal(gone, 1);
	assert_int_equal(p->peer.call_count, 1);
	lh_call_drop(first);
	assert_int_equal(p->ended, 2);
	assert_int_equal(json_array_size(p->sent), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static void rpc_denies_what_a_role_may_not(void **state)
{
	struct test_peer *p = *state;

	p->peer.uid = 1234;
	for (int role = LH_ROLE_READ; role <= LH_ROLE_SUBMIT; role++) {
		p->peer.role = (enum lh_role)role;
		denied = 0;
		expect(json_object_get(send_line(p, CALL("none", "{}")), "result"), "{}");
		if (role < LH_ROLE_STEER)
			expect_error(send_line(p, CALL("steer", "{}")), LH_EDENIED, "1",
				     "uid 1234 may not call steer: that takes the role "
				     "'steer', it has 'read'");
		else
			expect(json_object_get(send_line(p, CALL("steer", "{}")), "result"),
			       "{}");
		/* Before its parameters are looked at. */
		if (role < LH_ROLE_SUBMIT)
			expect_error(send_line(p, CALL("submit", "{\"x\":1}")), LH_EDENIED,
				     "1", "takes the role 'submit'");
		assert_int_equal(denied, LH_ROLE_SUBMIT - role);
	}
}

static void rpc_tells_a_peer_how_it_gets_a_greater_role(void **state)
{
	struct test_peer *p = *state;
	json_t *error;

	p->peer.role = LH_ROLE_READ;
	p->peer.role_hint = "ask for another key";
	error = json_object_get(send_line(p, CALL("steer", "{}")), "error");
	expect(json_object_get(json_object_get(error, "data"), "hint"),
	       "\"ask for another key\"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(rpc_answers_a_call),
		T(rpc_returns_ids_of_every_type),
		T(rpc_refuses_ids_of_other_types),
		T(rpc_does_not_answer_notifications),
		T(rpc_refuses_what_is_not_json),
		T(rpc_survives_deep_nesting),
		T(rpc_refuses_what_is_not_a_request),
		T(rpc_names_an_unknown_method),
		T(rpc_denies_what_a_role_may_not),
		T(rpc_tells_a_peer_how_it_gets_a_greater_role),
		T(rpc_checks_every_parameter),
		T(rpc_names_a_long_value_by_its_size),
		T(rpc_makes_hostile_error_texts_safe),
		T(rpc_can_answer_with_text_that_was_made_elsewhere),
		T(rpc_can_answer_later_with_pieces_before),
		T(rpc_tells_calls_that_their_peer_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_handlers_steer.c: what reaches the jobs of a call that steers, and what of
 * their answer comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "pretended.h"

static void commands_reach_the_jobs_with_their_caller(void **state)
{
	static const char *const verbs[] = { "switch", "set", "pause", "resume",
					     "checkpoint", "eval", "cancel" };
	char method[32];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(verbs) / sizeof(*verbs); i++) {
		snprintf(method, sizeof(method), "job.%s", verbs[i]);
		begin(method, "{\"job\":7}");
		assert_string_equal(jobs.verb, verbs[i]);
		expect(jobs.args, "{}");
		assert_int_equal(json_array_size(sent), 0);
		answer("{\"command\":1}");
		assert_int_equal(json_array_size(sent), 1);
	}
	begin("job.switch", "{\"job\":7,\"phase\":\"recovery\",\"message\":\"why\","
			    "\"program\":\"me\",\"request_id\":\"u-1\"}");
	expect(jobs.args, "{\"phase\":\"recovery\"}");
	assert_int_equal(jobs.job, 7);
	assert_int_equal(jobs.uid, 11);
	assert_int_equal(jobs.pid, 12);
	assert_string_equal(jobs.program, "me");
	assert_string_equal(jobs.message, "why");
	assert_string_equal(jobs.request_id, "u-1");
	answer("{\"command\":2,\"state\":\"accepted\"}");
	expect(json_object_get(json_array_get(sent, 0), "result"),
	       "{\"command\":2,\"state\":\"accepted\"}");
}

static void what_must_be_said_with_a_command_is_demanded(void **state)
{
	(void)state;
	expect_error(ask("job.priority", "{\"job\":7}"), LH_EPARAMS, "'priority'");
	expect_error(ask("job.priority", "{\"job\":7,\"priority\":1001}"), LH_EPARAMS,
		     "'priority'");
	begin("job.priority", "{\"job\":7,\"priority\":-3}");
	assert_string_equal(jobs.verb, "priority");
	expect(jobs.args, "{\"priority\":-3}");
	answer("{\"command\":1}");
	expect_error(ask("job.annotate", "{\"job\":7}"), LH_EPARAMS, "'text'");
	begin("job.annotate", "{\"job\":7,\"text\":\"n\",\"program\":\"me\"}");
	assert_string_equal(jobs.verb, "annotate");
	expect(jobs.args, "{\"text\":\"n\"}");
	answer("{\"command\":2}");
}

static void a_replay_reaches_the_jobs(void **state)
{
	(void)state;
	expect(ask("job.replay", "{\"job\":7,\"priority\":3,\"message\":\"why\"}"),
	       "{\"job\":8}");
	assert_int_equal(jobs.job, 7);
	assert_int_equal(jobs.how.priority, 3);
	assert_string_equal(jobs.message, "why");
}

static void a_dry_run_is_no_command(void **state)
{
	(void)state;
	begin("job.switch", "{\"job\":7,\"phase\":\"b\",\"dry_run\":true,\"program\":\"me\"}");
	expect(jobs.args, "{\"phase\":\"b\"}");
	answer("{\"fits\":true}");
	expect(json_object_get(json_array_get(sent, 0), "result"),
	       "{\"command\":null,\"job\":7,\"state\":\"checked\","
	       "\"preflight\":{\"fits\":true}}");
}

static void samples_stream_pieces_and_can_be_abandoned(void **state)
{
	json_t *piece = json_pack("{s:s}", "text", "ab");

	(void)state;
	begin("job.sample", "{\"job\":7,\"prompt\":\"p\",\"temperature\":0.5}");
	expect(jobs.args, "{\"prompt\":\"p\",\"temperature\":0.5}");
	jobs.piece(jobs.arg, piece);
	answer("{\"text\":\"ab\"}");
	expect(sent, "[{\"jsonrpc\":\"2.0\",\"method\":\"sample\",\"params\":"
		     "{\"id\":1,\"text\":\"ab\"}},"
		     "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"text\":\"ab\"}}]");

	jobs.answer_at_once = true;
	expect(ask("job.sample", "{\"job\":7}"), "{\"text\":\"now\"}");
	jobs.answer_at_once = false;

	begin("job.sample", "{\"job\":7}");
	lh_peer_lost(&peer);
	assert_int_equal(jobs.abandoned, 1);
	assert_int_equal(json_array_size(sent), 0);
	json_decref(piece);
}

static void submit_resolves_the_file_first(void **state)
{
	(void)state;
	expect_error(ask("job.submit", "{\"yaml\":\"x: 1\",\"base_dir\":\"rel\"}"),
		     LH_EPARAMS, "absolute");
	expect_error(ask("job.submit", "{\"yaml\":\"nonsense: 1\",\"base_dir\":\"/\","
				       "\"file\":\"my.yaml\"}"),
		     LH_EJOBFILE, "my.yaml:1");
	expect_error(ask("job.submit", "{\"yaml\":\"{}\",\"base_dir\":\"/\",\"set\":[1]}"),
		     LH_EPARAMS, "'set'");
	assert_string_equal(jobs.yaml, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(commands_reach_the_jobs_with_their_caller),
		T(what_must_be_said_with_a_command_is_demanded),
		T(a_replay_reaches_the_jobs),
		T(a_dry_run_is_no_command),
		T(samples_stream_pieces_and_can_be_abandoned),
		T(submit_resolves_the_file_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

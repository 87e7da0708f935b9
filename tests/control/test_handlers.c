/* test_handlers.c: the methods that read, over a real store and jobs that are
 * pretended: parameters in, queries, shapes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "pretended.h"

/* "attempt:step ..." of a job.steps answer, and "+" if there is more. */
static void expect_steps(const char *params, const char *want)
{
	json_t *r = ask("job.steps", params), *s;
	char got[512] = "";
	size_t i, n = 0;

	json_array_foreach (json_object_get(r, "steps"), i, s)
		n += (size_t)snprintf(
			got + n, sizeof(got) - n, "%s%lld:%lld", i ? " " : "",
			(long long)json_integer_value(json_object_get(s, "attempt")),
			(long long)json_integer_value(json_object_get(s, "step")));
	if (json_is_true(json_object_get(r, "more")))
		strcat(got, " +");
	assert_string_equal(got, want);
}

/* ---- reading -------------------------------------------------------------- */

static void add_attempt(int attempt, const char *first_step, int from, int to)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "INSERT INTO attempts(job, attempt, token, first_step, started_ms)"
		 " VALUES (7, %d, 't', %s, 1);"
		 "WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n"
		 "  WHERE i < %d) INSERT INTO steps SELECT 7, %d, i, 0, 1, 2.5, NULL,"
		 "  1e-3, 64, 1.0, 64.0, 0 FROM n WHERE i <= %d",
		 attempt, first_step, from, to, attempt, to);
	sql(text);
}

static void add_job(void)
{
	sql("INSERT INTO jobs(id, name, spec_json, spec_yaml, state, submitted_ms)"
	    " VALUES (7, 'j', '{}', '', 'RUNNING', 1)");
}

static void steps_of_one_attempt_come_in_order_and_in_parts(void **state)
{
	(void)state;
	add_job();
	add_attempt(1, "0", 1, 5);
	expect_steps("{\"job\":7}", "1:1 1:2 1:3 1:4 1:5");
	expect_steps("{\"job\":7,\"limit\":5}", "1:1 1:2 1:3 1:4 1:5");
	expect_steps("{\"job\":7,\"limit\":2}", "1:1 1:2 +");
	expect_steps("{\"job\":7,\"from_step\":4}", "1:4 1:5");
	expect_steps("{\"job\":7,\"from_step\":2,\"to_step\":3}", "1:2 1:3");
	expect_steps("{\"job\":7,\"from_step\":6}", "");
	expect(json_array_get(json_object_get(ask("job.steps",
						  "{\"job\":7,\"limit\":1}"),
					      "steps"), 0),
	       "{\"attempt\":1,\"step\":1,\"phase\":0,\"time_ms\":1,\"loss\":2.5,"
	       "\"grad_norm\":null,\"lr\":0.001,\"tokens\":64,\"step_ms\":1.0,"
	       "\"tokens_per_s\":64.0,\"data_epoch\":0}");
}

static void steps_show_each_step_once_from_its_newest_attempt(void **state)
{
	(void)state;
	add_job();
	add_attempt(1, "0", 1, 6);
	add_attempt(2, "4", 5, 8);
	/* 3 went back further and has not come as far; 4 has not begun */
	add_attempt(3, "2", 3, 4);
	add_attempt(4, "NULL", 1, 0);
	expect_steps("{\"job\":7}", "1:1 1:2 3:3 3:4");
	expect_steps("{\"job\":7,\"from_step\":2,\"limit\":2}", "1:2 3:3 +");
	expect_steps("{\"job\":7,\"attempts\":\"all\"}",
		     "1:1 1:2 1:3 1:4 1:5 1:6 2:5 2:6 2:7 2:8 3:3 3:4");
	expect_steps("{\"job\":7,\"attempts\":\"all\",\"limit\":3,\"from_step\":5}",
		     "1:5 1:6 2:5 +");
	expect_steps("{\"job\":7,\"attempts\":\"all\",\"limit\":3,\"from_step\":5,"
		     "\"after_attempt\":2,\"after_step\":5}", "2:6 2:7 2:8");
	expect_steps("{\"job\":7,\"after_attempt\":1,\"after_step\":1}", "1:2 3:3 3:4");
	expect_steps("{\"job\":7,\"attempt\":2}", "2:5 2:6 2:7 2:8");
	expect_steps("{\"job\":7,\"attempt\":9}", "");
	/* 5 resumed at 2 and was lost before its first step */
	add_attempt(5, "2", 1, 0);
	expect_steps("{\"job\":7}", "1:1 1:2");
}

static void a_curve_has_smallest_mean_and_largest_of_equal_stretches(void **state)
{
	json_t *p;

	(void)state;
	add_job();
	expect(ask("job.curve", "{\"job\":7}"), "{\"points\":[]}");
	add_attempt(1, "0", 1, 10);
	add_attempt(2, "4", 5, 8);
	sql("UPDATE steps SET loss = step + attempt / 10.0, tokens = step;"
	    "UPDATE steps SET loss = NULL WHERE attempt = 1 AND step = 3");
	p = json_object_get(ask("job.curve", "{\"job\":7,\"points\":2}"), "points");
	assert_int_equal(json_array_size(p), 2);
	expect(json_array_get(p, 0),
	       "{\"first_step\":1,\"last_step\":4,\"steps\":4,\"phase\":0,\"time_ms\":1,"
	       "\"tokens\":10,\"loss_min\":1.1,\"loss_mean\":2.4333333333333331,"
	       "\"loss_max\":4.1,\"grad_norm_min\":null,\"grad_norm_mean\":null,"
	       "\"grad_norm_max\":null,\"lr_min\":0.001,\"lr_mean\":0.001,"
	       "\"lr_max\":0.001,\"step_ms_min\":1.0,\"step_ms_mean\":1.0,"
	       "\"step_ms_max\":1.0,\"tokens_per_s_min\":64.0,"
	       "\"tokens_per_s_mean\":64.0,\"tokens_per_s_max\":64.0}");
	expect(json_object_get(json_array_get(p, 1), "loss_min"), "5.2");
	expect(json_object_get(json_array_get(p, 1), "tokens"), "26");
	p = json_object_get(ask("job.curve", "{\"job\":7,\"attempt\":1,\"points\":3,"
				"\"from_step\":3,\"to_step\":6}"), "points");
	assert_int_equal(json_array_size(p), 3); /* 3 4 | 5 | 6 */
	expect(json_object_get(json_array_get(p, 0), "last_step"), "4");
	p = json_object_get(ask("job.curve", "{\"job\":7,\"points\":100}"), "points");
	assert_int_equal(json_array_size(p), 8);
}

static void expect_evaluations(const char *params, const char *want)
{
	json_t *r = ask("job.evaluations", params), *e;
	char got[256] = "";
	size_t i, n = 0;

	json_array_foreach (json_object_get(r, "evaluations"), i, e)
		n += (size_t)snprintf(
			got + n, sizeof(got) - n, "%s%lld:%lld", i ? " " : "",
			(long long)json_integer_value(json_object_get(e, "attempt")),
			(long long)json_integer_value(json_object_get(e, "step")));
	if (json_is_true(json_object_get(r, "more")))
		strcat(got, " +");
	assert_string_equal(got, want);
}

static void evaluations_follow_the_line_that_counts(void **state)
{
	(void)state;
	add_job();
	add_attempt(1, "0", 1, 8);
	add_attempt(2, "4", 5, 8);
	sql("INSERT INTO evaluations (job, attempt, seq, step, phase, time_ms, attention,"
	    " reason, loss, tokens, duration_ms) SELECT 7, column1, column2, column3, 0, 5, 'full',"
	    " 'interval', 2.5, 100, 1.5 FROM (VALUES (1, 1, 0), (1, 5, 4), (1, 9, 8),"
	    " (2, 6, 8))");
	expect_evaluations("{\"job\":7}", "1:0 1:4 2:8");
	expect_evaluations("{\"job\":7,\"limit\":1,\"newest\":true}", "2:8 +");
	expect_evaluations("{\"job\":7,\"limit\":2}", "1:0 1:4 +");
	expect_evaluations("{\"job\":7,\"limit\":2,\"after_attempt\":1,\"after_seq\":5}",
			   "2:8");
	expect_evaluations("{\"job\":7,\"attempt\":1,\"from_step\":1}", "1:4 1:8");
	expect(json_array_get(json_object_get(ask("job.evaluations", "{\"job\":7}"),
					      "evaluations"), 2),
	       "{\"attempt\":2,\"seq\":6,\"step\":8,\"phase\":0,\"attention\":\"full\","
	       "\"reason\":\"interval\",\"loss\":2.5,\"tokens\":100,\"duration_ms\":1.5,"
	       "\"time_ms\":5,\"set_no\":0,\"set_name\":\"validation\",\"cost\":null}");
}

static void checkpoints_tell_which_remain(void **state)
{
	char insert[400], path[200];
	json_t *r;

	(void)state;
	add_job();
	snprintf(insert, sizeof(insert), "INSERT INTO checkpoints VALUES"
		 " (7, 1, 3, 1, 6, '%s/a', 10, 1.5, 'end'), (7, 1, 4, 2, 7, '%s/b', 10,"
		 " 1.5, 'end'), (7, 1, 5, 3, 8, '%s/c', 10, 1.5, 'end')", dir, dir, dir);
	sql(insert);
	snprintf(path, sizeof(path), "%s/b", dir);
	assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	snprintf(path, sizeof(path), "%s/c", dir);
	assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	snprintf(path, sizeof(path), "%s/c/pinned", dir);
	assert_int_equal(lh_fs_write_atomic(path, "", 0, NULL), 0);
	r = json_object_get(ask("job.checkpoints", "{\"job\":7}"), "checkpoints");
	assert_int_equal(json_array_size(r), 3);
	for (size_t i = 0; i < 3; i++) {
		json_t *c = json_array_get(r, i);

		assert_int_equal(json_is_true(json_object_get(c, "removed")), i == 0);
		assert_int_equal(json_is_true(json_object_get(c, "pinned")), i == 2);
	}
}

/* ---- logs ------------------------------------------------------------------ */

static void write_log(int attempt, const char *text, size_t bytes)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/attempt-%d", job_dir, attempt);
	assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	strcat(path, "/worker.log");
	assert_int_equal(lh_fs_write_atomic(path, text, bytes, NULL), 0);
}

/* Text of a piece, and "+" if there is more. */
static void expect_log(const char *params, const char *want)
{
	json_t *r = ask("job.logs", params);
	const char *text = json_string_value(json_object_get(r, "text"));
	char got[256];

	assert_non_null(text);
	snprintf(got, sizeof(got), "%s%s", text,
		 json_is_true(json_object_get(r, "more")) ? "+" : "");
	assert_string_equal(got, want);
}

static void logs_come_in_pieces_of_an_attempt(void **state)
{
	(void)state;
	jobs.attempt = 2;
	write_log(1, "first\n", 6);
	write_log(2, "one\ntwo\nthree\nfour", 18);
	expect(ask("job.logs", "{\"job\":7,\"offset\":4,\"limit_bytes\":16}"),
	       "{\"attempt\":2,\"newest_attempt\":2,\"live\":true,\"bytes\":18,"
	       "\"offset\":4,\"next_offset\":18,\"more\":false,"
	       "\"text\":\"two\\nthree\\nfour\"}");
	expect_log("{\"job\":7,\"limit_bytes\":16}", "one\ntwo\nthree\nfo+");
	expect_log("{\"job\":7,\"offset\":99}", "");
	expect_log("{\"job\":7,\"attempt\":1}", "first\n");
	assert_true(json_is_false(json_object_get(
		ask("job.logs", "{\"job\":7,\"attempt\":1}"), "live")));
	jobs.ended = true;
	assert_true(json_is_false(json_object_get(ask("job.logs", "{\"job\":7}"), "live")));
}

static void the_last_lines_of_a_log_are_found(void **state)
{
	size_t n = 200000;
	char *big = lh_calloc(1, n);

	(void)state;
	jobs.attempt = 1;
	write_log(1, "one\ntwo\nthree\n", 14);
	expect_log("{\"job\":7,\"lines\":1}", "three\n");
	expect_log("{\"job\":7,\"lines\":2}", "two\nthree\n");
	expect_log("{\"job\":7,\"lines\":0}", "");
	expect_log("{\"job\":7,\"lines\":9}", "one\ntwo\nthree\n");
	write_log(1, "one\ntwo\nthree", 13);
	expect_log("{\"job\":7,\"lines\":2}", "two\nthree");
	write_log(1, "", 0);
	expect_log("{\"job\":7,\"lines\":2}", "");
	/* further back than one block */
	memset(big, 'x', n);
	memcpy(big, "a\nb\n", 4);
	memcpy(big + n - 2, "\ny", 2);
	write_log(1, big, n);
	expect(json_object_get(ask("job.logs", "{\"job\":7,\"lines\":2}"), "offset"), "4");
	expect(json_object_get(ask("job.logs", "{\"job\":7,\"lines\":3}"), "offset"), "2");
	expect_log("{\"job\":7,\"lines\":1}", "y");
	free(big);
}

static void text_of_a_log_is_utf8_whatever_was_printed(void **state)
{
	(void)state;
	jobs.attempt = 1;
	write_log(1, "0123456789abcd\xc3\xa9\xc3", 17);
	expect_log("{\"job\":7}", "0123456789abcd\u00e9+"); /* its rest may come */
	expect_log("{\"job\":7,\"limit_bytes\":16}", "0123456789abcd\u00e9+");
	write_log(1, "0123456789abcde\xc3\xa9", 17);
	expect_log("{\"job\":7,\"limit_bytes\":16}", "0123456789abcde+");
	jobs.ended = true;
	write_log(1, "a\0b\xff\x1b[2J\xc3", 9);
	expect_log("{\"job\":7}", "a\ufffdb\ufffd\x1b[2J\ufffd");
}

static void logs_that_are_not_there_are_told(void **state)
{
	char path[160], target[160];

	(void)state;
	expect(ask("job.logs", "{\"job\":7}"),
	       "{\"attempt\":0,\"newest_attempt\":0,\"live\":true,\"bytes\":0,\"offset\":0,"
	       "\"next_offset\":0,\"more\":false,\"text\":\"\"}");
	expect_error(ask("job.logs", "{\"job\":7,\"attempt\":1}"), LH_ENOTFOUND,
		     "no attempt 1");
	jobs.attempt = 2;
	expect_error(ask("job.logs", "{\"job\":7,\"attempt\":3}"), LH_ENOTFOUND,
		     "no attempt 3");
	expect_log("{\"job\":7}", ""); /* it is about to begin */
	expect_error(ask("job.logs", "{\"job\":7,\"attempt\":1}"), LH_ENOTFOUND,
		     "worker.log");
	/* a link leads out of the directory */
	write_log(1, "secret", 6);
	snprintf(target, sizeof(target), "%s/attempt-1/worker.log", job_dir);
	snprintf(path, sizeof(path), "%s/attempt-2", job_dir);
	assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	strcat(path, "/worker.log");
	assert_int_equal(symlink(target, path), 0);
	expect_error(ask("job.logs", "{\"job\":7}"), LH_EIO, "worker.log");
}

static void show_puts_memory_and_store_together(void **state)
{
	json_t *r;

	(void)state;
	add_job();
	add_attempt(1, "0", 1, 1);
	sql("UPDATE attempts SET ended_ms = 9, outcome = 'lost', last_step = 4,"
	    " doing = 'training', why = 'w', hint = 'h', log_json = '[\"a\"]'");
	sql("INSERT INTO evaluations VALUES (7, 1, 2, 0, 0, 5, 'full', 'start', 5.5,"
	    " 100, 1.5, 1, 'code', 0.25), (7, 1, 1, 9, 0, 5, 'full', 'early', NULL, 100,"
	    " NULL, 0, 'validation', NULL)");
	sql("INSERT INTO checkpoints VALUES (7, 1, 3, 1, 6, '/c', 10, 1.5, 'end')");
	r = ask("job.show", "{\"job\":7}");
	assert_string_equal(json_string_value(json_object_get(r, "directory")), job_dir);
	json_object_del(r, "directory");
	expect(r,
	       "{\"summary\":{\"job\":7},\"phases\":[],\"settings\":[],\"spec\":{},"
	       "\"attempts\":[{\"attempt\":1,"
	       "\"pid\":null,\"first_step\":0,\"last_step\":4,\"started_ms\":1,"
	       "\"ended_ms\":9,\"exit_code\":null,\"exit_signal\":null,"
	       "\"outcome\":\"lost\",\"doing\":\"training\",\"why\":\"w\","
	       "\"hint\":\"h\",\"log\":[\"a\"]}],"
	       "\"evaluations\":[{\"step\":9,\"attempt\":1,\"phase\":0,"
	       "\"attention\":\"full\",\"reason\":\"early\",\"loss\":null,"
	       "\"tokens\":100,\"duration_ms\":null,\"time_ms\":5,\"set_no\":0,"
	       "\"set_name\":\"validation\",\"cost\":null},{\"step\":0,\"attempt\":1,"
	       "\"phase\":0,\"attention\":\"full\",\"reason\":\"start\","
	       "\"loss\":5.5,\"tokens\":100,\"duration_ms\":1.5,\"time_ms\":5,"
	       "\"set_no\":1,\"set_name\":\"code\",\"cost\":0.25}],"
	       "\"checkpoints\":[{\"step\":1,\"attempt\":1,\"path\":\"/c\","
	       "\"bytes\":10,\"duration_ms\":1.5,\"reason\":\"end\","
	       "\"time_ms\":6}],\"trial\":null,\"last_switch\":null,"
	       "\"instability\":[],\"looks\":[]}");
}

/* A switch by hand was taken back; another one is on trial: its last entry counts. */
static void show_tells_of_trials_and_counts_from_events(void **state)
{
	const json_t *show;

	(void)state;
	add_job();
	sql("UPDATE jobs SET step = 37, spec_json = "
	    "'{\"switch\":{\"watch_steps\":20,\"loss_ceiling\":0.0}}'");
	sql("INSERT INTO events VALUES"
	    " (1, 7, 1, 9, 1, 'job.phase', '', '{\"phase\":1,\"trial\":true}'),"
	    " (2, 7, 1, 9, 1, 'switch.reverted', '', '{\"command\":3,\"phase\":1,"
	    "\"from_phase\":0,\"from_step\":9,\"why\":\"w\"}'),"
	    " (3, 7, 1, 9, 1, 'job.instability', '', '{\"cause\":\"nan\",\"count\":1,"
	    "\"recent\":1,\"step\":10,\"action\":\"skip\"}'),"
	    " (4, 7, 1, 9, 1, 'job.instability', '', '{\"cause\":\"nan\",\"count\":2,"
	    "\"recent\":2,\"step\":11,\"action\":\"stop\"}')");
	show = ask("job.show", "{\"job\":7}");
	expect(json_object_get(show, "trial"), "null");
	expect(json_object_get(show, "last_switch"),
	       "{\"verdict\":\"reverted\",\"command\":3,\"phase\":1,\"from_phase\":0,"
	       "\"from_step\":9,\"why\":\"w\"}");
	expect(json_object_get(show, "instability"),
	       "[{\"cause\":\"nan\",\"count\":2,\"recent\":2,\"step\":11,"
	       "\"action\":\"stop\"}]");
	sql("INSERT INTO events VALUES"
	    " (5, 7, 1, 30, 1, 'job.phase', '', '{\"phase\":1,\"trial\":true}'),"
	    " (6, 7, 2, 30, 1, 'job.phase', '', '{\"phase\":1,\"trial\":false}')");
	show = ask("job.show", "{\"job\":7}");
	expect(json_object_get(show, "trial"),
	       "{\"phase\":1,\"from_step\":30,\"steps\":7,\"of\":20,"
	       "\"loss_ceiling\":null}");
}

static void expect_ids(const json_t *r, const char *list, const char *id, const char *want)
{
	char got[256] = "";
	json_t *row;
	size_t i, n = 0;

	json_array_foreach (json_object_get(r, list), i, row)
		n += (size_t)snprintf(got + n, sizeof(got) - n, "%s%lld", i ? " " : "",
				      (long long)json_integer_value(
					      json_object_get(row, id)));
	if (json_is_true(json_object_get(r, "more")))
		strcat(got, " +");
	assert_string_equal(got, want);
}

static void expect_events(const char *params, const char *want)
{
	expect_ids(ask("job.events", params), "events", "id", want);
}

static void events_come_after_an_id_and_up_to_a_limit(void **state)
{
	(void)state;
	sql("INSERT INTO events VALUES"
	    " (1, 7, 1, 5, 100, 'job.state', 'a', '{\"to\":\"RUNNING\"}'),"
	    " (2, 8, NULL, NULL, 101, 'x', 'b', '{}'),"
	    " (3, NULL, NULL, NULL, 102, 'y', 'c', '{}'),"
	    " (4, 7, NULL, NULL, 103, 'z', 'd', '{}')");
	expect(ask("job.events", "{\"job\":7,\"limit\":1}"),
	       "{\"more\":true,\"events\":[{\"id\":1,\"job\":7,\"attempt\":1,"
	       "\"step\":5,\"time_ms\":100,\"kind\":\"job.state\",\"text\":\"a\","
	       "\"data\":{\"to\":\"RUNNING\"}}]}");
	assert_int_equal(json_array_size(json_object_get(
				 ask("job.events", "{\"job\":7}"), "events")), 2);
	assert_int_equal(json_array_size(json_object_get(
				 ask("job.events", "{\"after_id\":1}"), "events")), 3);
	assert_int_equal(json_array_size(json_object_get(
				 ask("job.events", "{\"after_id\":4}"), "events")), 0);
	expect_events("{\"newest\":true,\"limit\":2}", "3 4 +");
	expect_events("{\"newest\":true,\"limit\":4}", "1 2 3 4");
	expect_events("{\"newest\":true,\"limit\":1,\"job\":7}", "4 +");
	expect_events("{\"since_ms\":102}", "3 4");
	expect_events("{\"kind\":\"job.*\"}", "1");
	expect_events("{\"kind\":\"?\",\"job\":7}", "4");
}

static void expect_commands(const char *params, const char *want)
{
	expect_ids(ask("job.journal", params), "commands", "command", want);
}

static void journal_gives_the_newest_in_order(void **state)
{
	json_t *r;

	(void)state;
	sql("INSERT INTO commands(id, request_id, job, method, args_json, uid, pid,"
	    " program, message, accepted_ms, outcome, outcome_ms, step) VALUES"
	    " (1, NULL, 7, 'job.pause', '{}', 1, 2, 'p', 'm', 5, NULL, NULL, NULL),"
	    " (2, 'u', 8, 'job.pause', '{}', 1, 2, '', '', 5, NULL, NULL, NULL),"
	    " (3, NULL, 7, 'job.switch', '{\"phase\":\"1\"}', 1, 2, '', '', 6,"
	    "  'applied', 8, 12)");
	expect(ask("job.journal", "{\"job\":7,\"limit\":1}"),
	       "{\"more\":true,\"commands\":[{\"command\":3,\"job\":7,\"method\":\"job.switch\","
	       "\"args\":{\"phase\":\"1\"},\"uid\":1,\"pid\":2,\"program\":\"\","
	       "\"message\":\"\",\"accepted_ms\":6,\"outcome\":\"applied\","
	       "\"outcome_ms\":8,\"step\":12,\"text\":\"\"}]}");
	r = json_object_get(ask("job.journal", "{}"), "commands");
	assert_int_equal(json_array_size(r), 3);
	expect(json_object_get(json_array_get(r, 0), "command"), "1");
	expect_commands("{\"outcome\":\"pending\"}", "1 2");
	expect_commands("{\"outcome\":\"applied\"}", "3");
	expect_commands("{\"method\":\"job.p*\",\"job\":7}", "1");
	expect_commands("{\"since_ms\":6}", "3");
	expect_commands("{\"uid\":1,\"limit\":2}", "2 3 +");
	expect_commands("{\"uid\":2}", "");
}

static void unknown_jobs_are_not_found(void **state)
{
	static const char *const methods[] = {
		"job.get",    "job.show",    "job.steps",     "job.events",
		"job.sample", "job.journal", "job.subscribe", "job.logs",
		"job.curve",  "job.evaluations", "job.checkpoints",
		"job.forecast",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		expect_error(ask(methods[i], "{\"job\":6}"), LH_ENOTFOUND, "no job 6");
}

static void memory_answers_at_once(void **state)
{

	(void)state;
	expect(ask("job.get", "{\"job\":7}"), "{\"job\":7}");
	expect(ask("job.list", "{}"), "{\"jobs\":[\"any\"]}");
	expect(ask("job.list", "{\"state\":\"DONE\"}"), "{\"jobs\":[\"DONE\"]}");
	expect(ask("job.subscribe", "{\"job\":7,\"steps\":true}"),
	       "{\"subscription\":1,\"last_event\":99}");
	expect(ask("job.unsubscribe", "{\"subscription\":1}"), "{\"subscription\":1}");
	expect_error(ask("job.unsubscribe", "{\"subscription\":1}"), LH_ENOTFOUND,
		     "no subscription 1");
	expect(ask("daemon.stop", "{}"), "{\"state\":\"stopping\"}");
	assert_int_equal(stops, 1);
}

/* A connection that takes no pushed lines, and says itself what it is: the page's. */
static void a_peer_may_be_named_by_its_connection_and_have_no_feed(void **state)
{
	(void)state;
	peer.feed = NULL;
	peer.program = "page";
	expect_error(ask("job.subscribe", "{}"), LH_EUNSUPPORTED, "nothing can be pushed");
	expect_error(ask("job.unsubscribe", "{\"subscription\":1}"), LH_ENOTFOUND,
		     "no subscriptions");
	begin("job.pause", "{\"job\":7,\"program\":\"another\"}");
	assert_string_equal(jobs.program, "page");
	answer("{\"command\":1}");
}

static void without_a_page_there_is_no_address(void **state)
{
	(void)state;
	expect_error(ask("daemon.dashboard", "{}"), LH_EUNSUPPORTED, "serves no page");
}

static void a_restart_waits_for_the_journal(void **state)
{
	(void)state;
	begin("daemon.restart", "{\"message\":\"new version\",\"program\":\"t\"}");
	assert_string_equal(jobs.message, "new version");
	assert_int_equal(jobs.uid, 11);
	assert_int_equal(restarts, 0);
	answer("{\"command\":4,\"state\":\"restarting\"}");
	expect(json_object_get(json_array_get(sent, 0), "result"),
	       "{\"command\":4,\"state\":\"restarting\"}");
	assert_int_equal(restarts, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(steps_of_one_attempt_come_in_order_and_in_parts),
		T(steps_show_each_step_once_from_its_newest_attempt),
		T(a_curve_has_smallest_mean_and_largest_of_equal_stretches),
		T(evaluations_follow_the_line_that_counts),
		T(checkpoints_tell_which_remain),
		T(logs_come_in_pieces_of_an_attempt),
		T(the_last_lines_of_a_log_are_found),
		T(text_of_a_log_is_utf8_whatever_was_printed),
		T(logs_that_are_not_there_are_told),
		T(show_puts_memory_and_store_together),
		T(show_tells_of_trials_and_counts_from_events),
		T(events_come_after_an_id_and_up_to_a_limit),
		T(journal_gives_the_newest_in_order),
		T(unknown_jobs_are_not_found),
		T(memory_answers_at_once),
		T(a_peer_may_be_named_by_its_connection_and_have_no_feed),
		T(without_a_page_there_is_no_address),
		T(a_restart_waits_for_the_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_rule_sql.c: conditions of rules: what they see, what they may not do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <time.h>

#include "jobs/rule_sql.h"
#include "store/migrations.h"

static sqlite3 *db;
static struct lh_rule_scope scope;

static void sql(const char *text)
{
	char *why = NULL;

	if (sqlite3_exec(db, text, NULL, NULL, &why))
		fail_msg("%s: %s", text, why);
}

/* A job of two attempts: the second went back from step 60 to step 40. Loss falls
 * by one each step; 10 ms a step in phase 0. */
static int setup(void **state)
{
	(void)state;
	assert_int_equal(sqlite3_open(":memory:", &db), 0);
	for (int i = 0; i < lh_migration_count; i++)
		sql(lh_migrations[i]);
	sql("INSERT INTO jobs (id, name, spec_json, spec_yaml, state, submitted_ms) "
	    "VALUES (1, 'a', '{}', '', 'RUNNING', 0), (2, 'b', '{}', '', 'RUNNING', 0)");
	sql("INSERT INTO phases VALUES (1, 0, 'lighthouse', 'lighthouse'), "
	    "(1, 1, 'recovery', 'full'), (2, 0, 'other', 'full')");
	sql("INSERT INTO attempts (job, attempt, token, first_step, started_ms) VALUES "
	    "(1, 1, 'secret', 0, 0), (1, 2, 'secret', 40, 0), (2, 1, 'secret', 0, 0)");
	sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) "
	    "INSERT INTO steps SELECT 1, 1, i, 0, 1000 * i, 100 - i, 1, 0.1, 8, 10, 800, 0 "
	    "FROM n");
	sql("WITH RECURSIVE n(i) AS (SELECT 41 UNION ALL SELECT i + 1 FROM n WHERE i < 50) "
	    "INSERT INTO steps SELECT 1, 2, i, 0, 1000 * i, 200 - i, 1, 0.1, 8, 10, 800, 0 "
	    "FROM n");
	sql("INSERT INTO steps VALUES (2, 1, 1, 0, 0, 7, 1, 1, 8, 10, 800, 0)");
	sql("INSERT INTO evaluations (job, attempt, seq, step, phase, time_ms, attention, "
	    "reason, loss, tokens, duration_ms, set_no, set_name) VALUES "
	    "(1, 1, 1, 10, 0, 0, 'full', 'interval', 4.0, 8, 1, 0, 'v'), "
	    "(1, 1, 2, 60, 0, 0, 'full', 'interval', 9.0, 8, 1, 0, 'v'), "
	    "(1, 2, 1, 50, 0, 0, 'full', 'interval', 3.0, 8, 1, 0, 'v'), "
	    "(1, 2, 2, 50, 0, 0, 'lighthouse', 'interval', 2.5, 8, 1, 0, 'v'), "
	    "(1, 2, 3, 50, 0, 1, 'full', 'interval', 7.0, 8, 1, 1, 'code')");
	sql("INSERT INTO paces VALUES (1, 2, 3, 50, 1, 250, 0)");
	scope = (struct lh_rule_scope){
		.job = 1, .step = 50, .phase_step = 50, .step_tokens = 8,
		.steps_planned = 100, .now_ms = 1700000000000, .created_ms = 1700000000000,
		.elapsed_s = 12, .state = "RUNNING", .phase_count = 2,
		.phases = { { "lighthouse", LH_ATTENTION_LIGHTHOUSE, 60, true },
			    { "recovery", LH_ATTENTION_FULL, 40, false } } };
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sqlite3_close(db);
	return 0;
}

static bool holds(const char *when)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *values = NULL;
	bool yes;

	if (lh_rule_sql_eval(db, &scope, when, &yes, &values, &err))
		fail_msg("%s: %s", when, err.text);
	assert_true(json_is_object(values));
	json_decref(values);
	return yes;
}

/* The sentence with which it is refused. */
static const char *refusal(const char *when)
{
	static struct lh_err err;
	json_t *values;
	bool yes;

	memset(&err, 0, sizeof(err));
	if (lh_rule_sql_eval(db, &scope, when, &yes, &values, &err) != LH_EINVAL)
		fail_msg("allowed: %s", when);
	assert_null(values);
	assert_true(*err.hint || strstr(err.text, "not one expression"));
	return err.text;
}

static void a_condition_sees_the_job_as_it_is_now(void **state)
{
	(void)state;
	assert_true(holds("step = 50 AND phase = 'lighthouse' AND attention = 'lighthouse'"));
	assert_true(holds("phase_step = 50 AND state = 'RUNNING' AND elapsed_s = 12"));
	assert_true(holds("tokens >= 0.5 * tokens_planned AND steps_planned = 100"));
	assert_true(holds("loss = 150 AND val_loss = 3 AND gap = 0.5"));
	assert_true(holds("(SELECT max(loss) FROM evals WHERE step = 50) = 3"));
	assert_true(holds("(SELECT loss FROM sets WHERE name = 'code') = 7"));
	assert_false(holds("loss < 150"));
	assert_true(holds("1"));
	assert_false(holds("NULL"));
	scope.steps_planned = -1;
	assert_false(holds("tokens >= 0.5 * tokens_planned"));
}

static void only_the_line_that_counts_is_seen(void **state)
{
	(void)state;
	assert_true(holds("(SELECT count(*) FROM steps) = 50"));
	assert_true(holds("(SELECT max(step) FROM evals) = 50"));
	assert_true(holds("(SELECT avg(loss) FROM steps WHERE step > now.step - 2) = 150.5"));
	assert_true(holds("mean_loss(2) = 150.5"));
	assert_true(holds("NOT EXISTS (SELECT 1 FROM steps WHERE loss = 7)"));
}

static void functions_answer_what_rules_ask(void **state)
{
	(void)state;
	assert_true(holds("improvement(40) = 0.25"));
	assert_true(holds("improvement(41) IS NULL"));
	assert_true(holds("seconds_for('recovery') = 10"));   /* 40 at 250 ms, as tried */
	assert_true(holds("seconds_for('lighthouse') = 0.1")); /* 10 left at 10 ms */
	scope.phases[1].entered = true;
	assert_true(holds("seconds_for('recovery') IS NULL"));
}

static void a_deadline_is_the_next_such_time_after_the_rule_was_made(void **state)
{
	time_t made = (time_t)(scope.created_ms / 1000);
	struct tm tm;
	char when[96];

	(void)state;
	localtime_r(&made, &tm);
	snprintf(when, sizeof(when), "deadline('%02d:%02d') - time > 86000", tm.tm_hour,
		 tm.tm_min);
	assert_true(holds(when)); /* this minute has begun: tomorrow */
	scope.now_ms += 86400000;
	snprintf(when, sizeof(when), "deadline('%02d:%02d') <= time", tm.tm_hour, tm.tm_min);
	assert_true(holds(when)); /* and it does not move on */
}

static void what_is_wrong_is_named_with_its_column(void **state)
{
	(void)state;
	assert_non_null(strstr(refusal("los < 3"), "column 1 of the condition"));
	assert_non_null(strstr(refusal("loss < 3 AND fase = 'x'"), "column 14 of"));
	assert_non_null(strstr(refusal("loss <"), "column"));
	assert_non_null(strstr(refusal(""), "column"));
	assert_non_null(strstr(refusal("1), (2"), "not one expression"));
	assert_non_null(strstr(refusal("1) FROM now; SELECT (1"), "not one expression"));
	assert_non_null(strstr(refusal("seconds_for('x') < 1"), "name of a phase"));
	assert_non_null(strstr(refusal("deadline('25:00') < time"), "time of day"));
	assert_non_null(strstr(refusal("improvement(0) < 1"), "number of steps"));
}

static void nothing_else_may_be_touched(void **state)
{
	static const char *const bad[] = {
		"(SELECT token FROM attempts LIMIT 1) = 'secret'",
		"(SELECT count(*) FROM commands)", "(SELECT spec_json FROM jobs)",
		"(SELECT count(*) FROM sqlite_master)", "(SELECT * FROM pragma_user_version)",
		"load_extension('x')", "randomblob(1000000000)", "zeroblob(9) = ''",
		"printf('%1000000000d', 1)", "hex(loss)", "json('{}')",
		"(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
		"SELECT max(i) FROM n)" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_non_null(refusal(bad[i]));
	assert_true(holds("1 -- a remark"));
	/* The connection is like any other afterwards. */
	sql("SELECT token, hex(1) FROM attempts");
}

static void what_takes_too_long_is_ended(void **state)
{
	(void)state;
	assert_non_null(strstr(refusal("(SELECT count(*) FROM steps a, steps b, steps c, "
				       "steps d, steps e) > 1"), "too long"));
}

static void a_condition_is_checked_without_a_database(void **state)
{
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	assert_int_equal(lh_rule_sql_check(&scope, "improvement(500) < 0.005 AND "
					   "deadline('08:00') - time < "
					   "seconds_for('recovery')", &err), 0);
	assert_int_equal(lh_rule_sql_check(&scope, "seconds_for('recovry') < 3", &err),
			 LH_EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(a_condition_sees_the_job_as_it_is_now),
		T(only_the_line_that_counts_is_seen),
		T(functions_answer_what_rules_ask),
		T(a_deadline_is_the_next_such_time_after_the_rule_was_made),
		T(what_is_wrong_is_named_with_its_column),
		T(nothing_else_may_be_touched),
		T(what_takes_too_long_is_ended),
		T(a_condition_is_checked_without_a_database),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

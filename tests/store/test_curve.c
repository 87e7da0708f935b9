/* test_curve.c: curves that are read from rollups against the plain grouping of the
 * steps, over random jobs: attempts that go back, gaps, losses that are not finite,
 * batches of all sizes, records that come twice. Values are multiples of 1/64, so that
 * sums are exact in any order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "store/curve.h"
#include "store/migrations.h"
#include "store/store.h"

enum { LIMIT_MS = 60000, JOB = 3, STEPS_MAX = 16000, ROLLUPS_MIGRATION = 7 };

static uv_loop_t loop;
static struct lh_store *store;
static char dir[64], path[96];
static int answered;
static uint64_t seed;

static int64_t random_below(int64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (int64_t)(seed >> 1) % n;
}

static void open_store(void)
{
	struct lh_err err = LH_ERR_INIT;

	if (lh_store_open(&store, &loop, path, &err))
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	(void)state;
	lh_log_set_level(LH_LOG_ERROR + 1);
	strcpy(dir, "/tmp/lh-curve-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/t.db", dir);
	answered = 0;
	uv_loop_init(&loop);
	open_store();
	return 0;
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void close_store(void)
{
	bool closed = false;

	lh_store_close(store, on_closed, &closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(closed);
}

static int teardown(void **state)
{
	(void)state;
	close_store();
	assert_int_equal(uv_loop_close(&loop), 0);
	return lh_fs_remove_tree(dir, NULL);
}

/* ---- writing --------------------------------------------------------------- */

static void on_done(void *arg, int rc, int64_t id, const struct lh_err *err)
{
	(void)arg;
	(void)id;
	if (rc)
		fail_msg("%s", err->text);
	answered++;
}

static void await(int writes)
{
	int64_t end_ms = lh_time_ms() + LIMIT_MS;

	while (answered < writes) {
		if (lh_time_ms() > end_ms)
			fail_msg("%d of %d writes are answered", answered, writes);
		uv_run(&loop, UV_RUN_ONCE);
	}
	answered = 0;
}

static double value(void)
{
	return random_below(97) == 0 ? NAN : (double)random_below(1 << 16) / 64;
}

static void add_step(struct lh_write *w, int64_t attempt, int64_t step)
{
	lh_write_add(w, LH_STMT_STEP_INSERT,
		     (struct lh_bind[]){ LH_INT(JOB), LH_INT(attempt), LH_INT(step),
					 LH_INT(step / 1000), LH_INT(1000 * attempt + step),
					 LH_REAL(value()), LH_REAL(value()),
					 LH_REAL((double)random_below(64) / 64),
					 LH_INT(random_below(4096)),
					 LH_REAL((double)random_below(512) / 64),
					 LH_REAL((double)random_below(9999)), LH_INT(0) },
		     12);
}

static void sql(const char *text)
{
	sqlite3 *db;
	char *why = NULL;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_busy_timeout(db, LIMIT_MS);
	if (sqlite3_exec(db, text, NULL, NULL, &why))
		fail_msg("%s", why);
	sqlite3_close(db);
}

static void add_attempt(int64_t attempt, int64_t first_step)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "INSERT INTO attempts(job, attempt, token, first_step, started_ms)"
		 " VALUES (%d, %lld, 't', %s%lld, 1)", JOB, (long long)attempt,
		 first_step < 0 ? "NULL + " : "", (long long)first_step);
	sql(text);
}

/* Steps after `from` up to `to` in batches; `gaps`: not all of them. */
static void run_attempt(int64_t attempt, int64_t from, int64_t to, bool gaps)
{
	int writes = 0;

	add_attempt(attempt, from);
	for (int64_t step = from + 1; step <= to; writes++) {
		struct lh_write *w = lh_write_new();
		int64_t batch = 1 + random_below(random_below(4) ? 40 : 900);

		for (; batch-- && step <= to; step++) {
			if (gaps && random_below(50) == 0)
				step += random_below(600);
			add_step(w, attempt, step);
			if (random_below(100) == 0)
				add_step(w, attempt, step); /* comes again: the first stays */
		}
		lh_store_submit_take(store, w, random_below(30) == 0, on_done, NULL);
	}
	await(writes);
}

static void random_job(void)
{
	int64_t attempts = 1 + random_below(5), end = 1 + random_below(STEPS_MAX), from = 0;
	bool gaps = random_below(2);

	sql("DELETE FROM steps; DELETE FROM rollups; DELETE FROM attempts");
	for (int64_t a = 1; a <= attempts; a++) {
		run_attempt(a, from, from + random_below(end), gaps);
		from = random_below(end);
	}
	if (random_below(3) == 0)
		add_attempt(attempts + 1, random_below(2) ? -1 : random_below(end));
}

/* ---- reading --------------------------------------------------------------- */

#define SPREAD(c) "min(" c ") AS " c "_min, avg(" c ") AS " c "_mean, max(" c ") AS " c "_max"

/* ?1 job, ?2 and ?3 the range, ?4 an attempt or 0, ?5 points. */
static const char direct_sql[] =
	"WITH line AS (SELECT * FROM steps s WHERE job = ?1 AND step BETWEEN ?2 AND ?3"
	"  AND iif(?4, attempt = ?4, step <= ifnull((SELECT min(first_step) FROM attempts n"
	"   WHERE n.job = ?1 AND n.attempt > s.attempt), ?3))),"
	" e AS (SELECT min(step) AS lo, max(step) AS hi FROM line),"
	" w AS (SELECT lo, hi, (SELECT max(column1) FROM (VALUES (0), (4), (8), (12), (16),"
	"  (20)) WHERE column1 = 0 OR (hi - lo >= 4096 AND (hi - lo + 1) >> column1 >= ?5))"
	"  AS bits FROM e)"
	"SELECT min(step) AS first_step, max(step) AS last_step, count(*) AS steps,"
	" max(phase) AS phase, max(time_ms) AS time_ms, sum(tokens) AS tokens, "
	SPREAD("loss") ", " SPREAD("grad_norm") ", " SPREAD("lr") ", " SPREAD("step_ms")
	", " SPREAD("tokens_per_s") " FROM w CROSS JOIN line"
	" GROUP BY ((step >> bits) - (lo >> bits)) * ?5 / ((hi >> bits) - (lo >> bits) + 1)"
	" ORDER BY 1";

struct both {
	struct lh_curve_want want;
	json_t *direct, *curve;
};

static int read_both(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct both *b = arg;
	const struct lh_curve_want *w = &b->want;
	bool more;

	b->direct = lh_store_rows(db, direct_sql,
				  (struct lh_bind[]){ LH_INT(w->job), LH_INT(w->from_step),
						      LH_INT(w->to_step), LH_INT(w->attempt),
						      LH_INT(w->points) },
				  5, INT64_MAX, &more, err);
	b->curve = lh_curve_read(db, w, err);
	return b->direct && b->curve ? 0 : LH_ESTORE;
}

/* Compares; how many points there are. */
static size_t compare(struct lh_curve_want want)
{
	struct lh_err err = LH_ERR_INIT;
	struct both b = { .want = want };
	size_t n;

	want.job = JOB;
	b.want = want;
	if (lh_store_read_now(store, read_both, &b, &err))
		fail_msg("%s", err.text);
	n = json_array_size(b.curve);
	for (size_t i = 0; i < n || i < json_array_size(b.direct); i++)
		if (!json_equal(json_array_get(b.curve, i), json_array_get(b.direct, i)))
			fail_msg("from %lld to %lld attempt %lld points %lld: [%zu] is %s, not %s",
				 (long long)want.from_step, (long long)want.to_step,
				 (long long)want.attempt, (long long)want.points, i,
				 json_dumps(json_array_get(b.curve, i), JSON_ENCODE_ANY),
				 json_dumps(json_array_get(b.direct, i), JSON_ENCODE_ANY));
	json_decref(b.curve);
	json_decref(b.direct);
	return n;
}

/* ---- cases ----------------------------------------------------------------- */

static void a_curve_is_the_grouping_of_its_steps(void **state)
{
	static const int64_t points[] = { 1, 2, 3, 7, 40, 300, 2400 };

	(void)state;
	seed = 20;
	for (int job = 0; job < 12; job++) {
		random_job();
		for (int i = 0; i < 60; i++) {
			struct lh_curve_want w = { .to_step = INT64_MAX };

			w.points = points[random_below(7)];
			if (random_below(4))
				w.from_step = random_below(STEPS_MAX);
			if (random_below(4))
				w.to_step = w.from_step + random_below(STEPS_MAX);
			if (random_below(3) == 0)
				w.attempt = 1 + random_below(6);
			compare(w);
		}
	}
}

/* What is written step by step is what the migration makes of the steps. */
static void an_older_database_is_filled_alike(void **state)
{
	sqlite3 *db;
	sqlite3_stmt *st;

	(void)state;
	seed = 5;
	random_job();
	run_attempt(9, 70000, 71000, true);
	sql("ALTER TABLE rollups RENAME TO written; DROP INDEX events_by_kind;");
	sql(lh_migrations[ROLLUPS_MIGRATION - 1]);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(
				 db, "SELECT (SELECT count(DISTINCT level) FROM rollups),"
				     " (SELECT count(*) FROM (SELECT * FROM rollups"
				     "  EXCEPT SELECT * FROM written)),"
				     " (SELECT count(*) FROM (SELECT * FROM written"
				     "  EXCEPT SELECT * FROM rollups))",
				 -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	assert_int_equal(sqlite3_column_int(st, 0), 5);
	assert_int_equal(sqlite3_column_int(st, 1), 0);
	assert_int_equal(sqlite3_column_int(st, 2), 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
}

/* Steps no run takes: neither time nor room for what lies between. */
static void the_furthest_steps_are_a_curve_too(void **state)
{
	struct lh_write *w = lh_write_new();

	(void)state;
	seed = 1;
	add_attempt(1, 0);
	add_step(w, 1, 1);
	add_step(w, 1, INT64_C(1) << 53);
	add_step(w, 1, INT64_C(1) << 30);
	lh_store_submit_take(store, w, false, on_done, NULL);
	await(1);
	assert_int_equal(compare((struct lh_curve_want){ .to_step = INT64_MAX, .points = 10000 }),
			 2);
	assert_int_equal(compare((struct lh_curve_want){ .to_step = INT64_MAX, .points = 1 }), 1);
	assert_int_equal(compare((struct lh_curve_want){ .from_step = 2, .to_step = INT64_C(1) << 31,
							 .points = 10 }), 1);
}

/* Tokens that no sum can hold are not refused: others wait in the same transaction. */
static void a_number_too_large_to_add_is_stored(void **state)
{
	struct lh_write *w = lh_write_new();

	(void)state;
	add_attempt(1, 0);
	for (int64_t step = 1; step <= 40; step++)
		lh_write_add(w, LH_STMT_STEP_INSERT,
			     (struct lh_bind[]){ LH_INT(JOB), LH_INT(1), LH_INT(step), LH_INT(0),
						 LH_INT(1), LH_REAL(1e308), LH_NULL,
						 LH_REAL(1e308), LH_INT(INT64_MAX), LH_REAL(1),
						 LH_REAL(1), LH_INT(0) },
			     12);
	lh_store_submit_take(store, w, false, on_done, NULL);
	await(1);
	for (int64_t points = 1; points <= 2; points++) {
		struct lh_err err = LH_ERR_INIT;
		struct both b = { .want = { .job = JOB, .to_step = 40, .points = points } };
		json_t *p;

		(void)lh_store_read_now(store, read_both, &b, &err);
		p = json_array_get(b.curve, 0);
		assert_true(json_integer_value(json_object_get(p, "tokens")) == INT64_MAX);
		assert_true(json_is_null(json_object_get(p, "loss_mean")));
		json_decref(b.curve);
		json_decref(b.direct);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_curve_is_the_grouping_of_its_steps),
		T(an_older_database_is_filled_alike),
		T(the_furthest_steps_are_a_curve_too),
		T(a_number_too_large_to_add_is_stored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

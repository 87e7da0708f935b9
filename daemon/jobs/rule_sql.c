/* rule_sql.c: see rule_sql.h.
 *
 * The condition stands alone in the first column of one SELECT over a table of one
 * row, `now`. The authorizer decides while the statement is compiled what it may
 * touch; the connection is read-only besides. */
#define _XOPEN_SOURCE 700 /* NOLINT: strptime */
#include "jobs/rule_sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/migrations.h"

/* Instructions of SQLite's machine, a fraction of a second. */
enum { PROGRESS_EVERY = 1000, PROGRESS_MAX = 20000 };

/* An attempt's rows count up to where a later one began. */
#define COUNTS(t, a)                                                             \
	t ".step <= ifnull((SELECT min(n.first_step) FROM main.attempts n WHERE " \
	"n.job = ?1 AND n.attempt > " a ".attempt), 9223372036854775807)"

#define LINES                                                                    \
	"WITH steps AS (SELECT s.step, p.name AS phase, s.loss, s.grad_norm, "    \
	"s.lr, s.tokens, s.step_ms, s.tokens_per_s, s.time_ms / 1000.0 AS time "  \
	"FROM main.attempts a CROSS JOIN main.steps s ON s.job = a.job AND "      \
	"s.attempt = a.attempt AND " COUNTS("s", "a")                             \
	" JOIN main.phases p ON p.job = s.job AND p.phase = s.phase "             \
	"WHERE a.job = ?1), "                                                     \
	"sets AS (SELECT e.step, p.name AS phase, e.attention, e.reason, "        \
	"e.loss, e.time_ms / 1000.0 AS time, e.set_name AS name, e.set_no "       \
	"FROM main.evaluations e "                                                \
	"JOIN main.phases p ON p.job = e.job AND p.phase = e.phase "              \
	"WHERE e.job = ?1 AND " COUNTS("e", "e") "), "                            \
	"evals AS (SELECT step, phase, attention, reason, loss, time FROM sets "  \
	"WHERE set_no = 0)"

#define NEWEST_EVAL(attention)                                                   \
	"(SELECT loss FROM evals WHERE attention = '" attention "' "              \
	"ORDER BY step DESC, time DESC LIMIT 1)"

static const char before[] = LINES
	", newest AS (SELECT * FROM steps WHERE step = (SELECT max(step) FROM "
	"main.steps WHERE job = ?1 AND attempt = (SELECT max(attempt) FROM main.steps "
	"WHERE job = ?1))), "
	"losses AS (SELECT " NEWEST_EVAL("full") " AS val_loss, "
	NEWEST_EVAL("lighthouse") " AS val_loss_lighthouse), "
	"now AS (SELECT ?2 / 1000.0 AS time, ?1 AS job, ?3 AS step, ?4 AS phase, "
	"?5 AS attention, ?6 AS phase_step, ?7 AS state, ?3 * ?8 AS tokens, "
	"?9 AS steps_planned, ?9 * ?8 AS tokens_planned, newest.loss, "
	"newest.grad_norm, newest.lr, newest.step_ms, newest.tokens_per_s, val_loss, "
	"val_loss_lighthouse, val_loss - val_loss_lighthouse AS gap, "
	"?10 AS restarts, ?11 AS elapsed_s FROM losses LEFT JOIN newest) "
	"SELECT (";
static const char after[] = "\n), now.* FROM now";
enum { NOW_COLUMNS = 20 };

/* ---- what may be touched --------------------------------------------------- */

static bool is_in(const char *const *list, const char *name)
{
	while (*list && sqlite3_stricmp(*list, name))
		list++;
	return *list;
}

static int authorize(void *arg, int action, const char *a, const char *b,
		     const char *c, const char *d)
{
	/* Of the store, then of the statement itself. */
	static const char *const tables[] = { "steps", "evaluations", "phases", "paces",
					      "now", "evals", "sets", "newest", "losses", NULL };
	static const char *const attempt_columns[] = { "job", "attempt", "first_step",
						       NULL };
	static const char *const functions[] = {
		"abs", "avg", "coalesce", "count", "glob", "ifnull", "iif", "like",
		"lower", "max", "min", "nullif", "round", "sum", "total", "upper",
		"improvement", "mean_loss", "seconds_for", "deadline", NULL };

	(void)arg, (void)c, (void)d;
	if (action == SQLITE_SELECT)
		return SQLITE_OK;
	if (action == SQLITE_FUNCTION)
		return is_in(functions, b) ? SQLITE_OK : SQLITE_DENY;
	if (action == SQLITE_READ && !sqlite3_stricmp(a, "attempts"))
		return is_in(attempt_columns, b) ? SQLITE_OK : SQLITE_DENY;
	return action == SQLITE_READ && is_in(tables, a) ? SQLITE_OK : SQLITE_DENY;
}

/* ---- functions ------------------------------------------------------------- */

struct eval {
	sqlite3 *db;
	const struct lh_rule_scope *scope;
	int turns;
};

static int on_progress(void *arg)
{
	struct eval *e = arg;

	return ++e->turns > PROGRESS_MAX / (PROGRESS_EVERY / 1000);
}

/* The first row's numbers; false: there is none, or one is NULL. */
static bool query(struct eval *e, const char *sql, int64_t bound, double *out, int count)
{
	sqlite3_stmt *st = NULL;
	bool known = !sqlite3_prepare_v2(e->db, sql, -1, &st, NULL);

	if (known) {
		sqlite3_bind_int64(st, 1, e->scope->job);
		sqlite3_bind_int64(st, 2, bound);
		known = sqlite3_step(st) == SQLITE_ROW;
	}
	for (int i = 0; known && i < count; i++) {
		known = sqlite3_column_type(st, i) != SQLITE_NULL;
		out[i] = sqlite3_column_double(st, i);
	}
	sqlite3_finalize(st);
	return known;
}

static const char eval_sql[] = LINES
	" SELECT step, loss FROM evals WHERE attention = 'full' AND loss IS NOT NULL AND "
	"step <= ?2 ORDER BY step DESC, time DESC LIMIT 1";

static void improvement(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct eval *e = sqlite3_user_data(c);
	int64_t n = sqlite3_value_int64(argv[0]);
	double now[2], then[2];

	(void)argc;
	if (n < 1)
		sqlite3_result_error(c, "improvement() takes a number of steps", -1);
	else if (query(e, eval_sql, INT64_MAX, now, 2) &&
		 query(e, eval_sql, (int64_t)now[0] - n, then, 2) && then[1] > 0)
		sqlite3_result_double(c, (then[1] - now[1]) / then[1]);
}

static void mean_loss(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct eval *e = sqlite3_user_data(c);
	int64_t n = sqlite3_value_int64(argv[0]);
	double mean;

	(void)argc;
	if (n < 1)
		sqlite3_result_error(c, "mean_loss() takes a number of steps", -1);
	else if (query(e, LINES " SELECT avg(loss) FROM steps WHERE step > ?2",
		       e->scope->step - n, &mean, 1))
		sqlite3_result_double(c, mean);
}

/* Of a phase that ran, its last steps; of one that did not, what was tried. */
static bool pace_ms(struct eval *e, int phase, double *ms)
{
	return query(e, e->scope->phases[phase].entered ?
			"SELECT avg(step_ms) FROM (SELECT step_ms FROM main.steps WHERE "
			"job = ?1 AND phase = ?2 ORDER BY attempt DESC, step DESC LIMIT 20)" :
			"SELECT step_ms FROM main.paces WHERE job = ?1 AND phase = ?2 "
			"ORDER BY attempt DESC, seq DESC LIMIT 1", phase, ms, 1);
}

static void seconds_for(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct eval *e = sqlite3_user_data(c);
	const char *name = (const char *)sqlite3_value_text(argv[0]);
	const struct lh_rule_scope *s = e->scope;
	double ms;
	int i = 0;

	(void)argc;
	while (i < s->phase_count && (!name || strcmp(s->phases[i].name, name)))
		i++;
	if (i == s->phase_count) {
		sqlite3_result_error(c, "seconds_for() takes the name of a phase", -1);
	} else if (s->phases[i].steps >= 0 && pace_ms(e, i, &ms)) {
		int64_t left = s->phases[i].steps - (i == s->phase ? s->phase_step : 0);

		sqlite3_result_double(c, left > 0 ? (double)left * ms / 1000 : 0);
	}
}

static void deadline(sqlite3_context *c, int argc, sqlite3_value **argv)
{
	struct eval *e = sqlite3_user_data(c);
	const char *text = (const char *)sqlite3_value_text(argv[0]);
	time_t made = (time_t)(e->scope->created_ms / 1000), at;
	struct tm tm, clock = { 0 };
	const char *end = text ? strptime(text, "%H:%M", &clock) : NULL;

	(void)argc;
	if (!end || *end) {
		sqlite3_result_error(c, "deadline() takes a time of day, as in '08:00'", -1);
		return;
	}
	localtime_r(&made, &tm);
	tm.tm_hour = clock.tm_hour;
	tm.tm_min = clock.tm_min;
	tm.tm_sec = 0;
	tm.tm_isdst = -1;
	at = mktime(&tm);
	if (at <= made) {
		tm.tm_mday++;
		tm.tm_isdst = -1;
		at = mktime(&tm);
	}
	sqlite3_result_int64(c, at);
}

static const struct {
	const char *name;
	void (*call)(sqlite3_context *c, int argc, sqlite3_value **argv);
} functions[] = { { "improvement", improvement }, { "mean_loss", mean_loss },
		  { "seconds_for", seconds_for }, { "deadline", deadline } };

/* `e` NULL: takes all of it back, so that the connection is like any other. */
static void guard(sqlite3 *db, struct eval *e)
{
	for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++)
		sqlite3_create_function(db, functions[i].name, 1, SQLITE_UTF8, e,
					e ? functions[i].call : NULL, NULL, NULL);
	sqlite3_set_authorizer(db, e ? authorize : NULL, NULL);
	sqlite3_progress_handler(db, e ? PROGRESS_EVERY : 0, e ? on_progress : NULL, e);
}

/* ---- evaluation ------------------------------------------------------------ */

static int refuse(sqlite3 *db, int rc, struct lh_err *err)
{
	int at = sqlite3_error_offset(db) - (int)strlen(before);

	if (rc == SQLITE_INTERRUPT)
		lh_err_set(err, LH_EINVAL, "the condition takes too long");
	else if (at >= 0)
		lh_err_set(err, LH_EINVAL, "column %d of the condition: %s", at + 1,
			   sqlite3_errmsg(db));
	else
		lh_err_set(err, LH_EINVAL, "the condition: %s", sqlite3_errmsg(db));
	return lh_err_hint(err, rc == SQLITE_INTERRUPT ?
				   "bound its subqueries, as in WHERE step > now.step - 500" :
				   "'lhctl help rules' lists columns, tables and functions");
}

static int prepare(sqlite3 *db, const char *when, sqlite3_stmt **st, struct lh_err *err)
{
	char *sql = lh_asprintf("%s%s%s", before, when, after);
	const char *tail = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, st, &tail);

	if (rc)
		refuse(db, rc, err);
	else if (*tail || !*st || sqlite3_column_count(*st) != 1 + NOW_COLUMNS)
		rc = lh_err_set(err, LH_EINVAL, "the condition is not one expression");
	free(sql);
	return rc ? LH_EINVAL : 0;
}

static void bind(sqlite3_stmt *st, const struct lh_rule_scope *s)
{
	const char *attention = s->phases[s->phase].attention == LH_ATTENTION_FULL ?
					"full" : "lighthouse";

	sqlite3_bind_int64(st, 1, s->job);
	sqlite3_bind_int64(st, 2, s->now_ms);
	sqlite3_bind_int64(st, 3, s->step);
	sqlite3_bind_text(st, 4, s->phases[s->phase].name, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 5, attention, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 6, s->phase_step);
	sqlite3_bind_text(st, 7, s->state, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 8, s->step_tokens);
	if (s->steps_planned >= 0)
		sqlite3_bind_int64(st, 9, s->steps_planned);
	sqlite3_bind_int(st, 10, s->restarts);
	sqlite3_bind_double(st, 11, s->elapsed_s);
}

static json_t *value_of(sqlite3_stmt *st, int column)
{
	json_t *text;

	switch (sqlite3_column_type(st, column)) {
	case SQLITE_INTEGER:
		return json_integer(sqlite3_column_int64(st, column));
	case SQLITE_FLOAT:
		return json_real(sqlite3_column_double(st, column));
	case SQLITE_TEXT:
		text = json_string((const char *)sqlite3_column_text(st, column));
		return text ? text : json_null();
	default:
		return json_null();
	}
}

static json_t *values_of(sqlite3_stmt *st)
{
	json_t *values = json_object();

	for (int i = 1; i <= NOW_COLUMNS; i++)
		json_object_set_new(values, sqlite3_column_name(st, i), value_of(st, i));
	return values;
}

int lh_rule_sql_eval(sqlite3 *db, const struct lh_rule_scope *scope, const char *when,
		     bool *holds, json_t **values, struct lh_err *err)
{
	struct eval e = { .db = db, .scope = scope };
	sqlite3_stmt *st = NULL;
	int rc, step;

	*holds = false;
	*values = NULL;
	guard(db, &e);
	rc = prepare(db, when, &st, err);
	if (!rc) {
		bind(st, scope);
		step = sqlite3_step(st);
		if (step == SQLITE_ROW) {
			*holds = sqlite3_column_double(st, 0) != 0;
			*values = values_of(st);
		} else {
			rc = step == SQLITE_BUSY || step == SQLITE_IOERR ?
				     lh_err_set(err, LH_ESTORE, "cannot read the database: %s",
						sqlite3_errmsg(db)) :
				     refuse(db, step, err);
		}
	}
	sqlite3_finalize(st);
	guard(db, NULL);
	return rc;
}

int lh_rule_sql_check(const struct lh_rule_scope *scope, const char *when,
		      struct lh_err *err)
{
	sqlite3 *db = NULL;
	json_t *values = NULL;
	bool holds;
	int rc = sqlite3_open(":memory:", &db);

	for (int i = 0; !rc && i < lh_migration_count; i++)
		rc = sqlite3_exec(db, lh_migrations[i], NULL, NULL, NULL);
	if (rc)
		rc = lh_err_set(err, LH_ESTORE, "cannot make a database in memory: %s",
				sqlite3_errmsg(db));
	else
		rc = lh_rule_sql_eval(db, scope, when, &holds, &values, err);
	json_decref(values);
	sqlite3_close(db);
	return rc;
}

/* handlers_metrics.c: the numbers of a job: steps, evaluations, looks, and curves of
 * steps that were put together.
 *
 * Training that went on from step s does again what was done past s. The line that
 * counts ("final") has each step once: a step belongs to the newest attempt that
 * reached it, and what older attempts did past the step a newer one resumed from
 * is abandoned, though the newer one may not have come as far yet. So an attempt's
 * rows count up to the smallest first_step of the attempts after it; then no two
 * attempts share a step, and by attempt is by step. All attempts, and one alone,
 * can be had as well. Either way the order is that of the primary key, so that a
 * page costs its own rows, wherever it begins. */
#include <stdint.h>
#include <string.h>

#include "control/control.h"
#include "control/reading.h"
#include "rpc_table.h"
#include "store/curve.h"

/* Whether a row of table `t` is among those asked for. Of the binds ?1 is the job,
 * ?2 and ?3 the steps wanted, ?4 whether it is the line that counts, ?5 the attempt
 * or NULL for all. */
#define CHOSEN(t)                                                             \
	t ".job = ?1 AND " t ".step BETWEEN ?2 AND ?3"                        \
	" AND (?5 IS NULL OR " t ".attempt = ?5)"                             \
	" AND " t ".step <= CASE WHEN ?4 THEN ifnull("                        \
	"  (SELECT min(n.first_step) FROM attempts n"                         \
	"   WHERE n.job = ?1 AND n.attempt > " t ".attempt), ?3) ELSE ?3 END "

static void bind_chosen(struct lh_query *q, const struct lh_call *call, int64_t job)
{
	const char *attempts = lh_call_str(call, "attempts", "final");
	int64_t attempt = lh_call_int(call, "attempt", 0);

	lh_query_bind(q, LH_INT(job));
	lh_query_bind(q, LH_INT(lh_call_int(call, "from_step", 0)));
	lh_query_bind(q, LH_INT(lh_call_int(call, "to_step", INT64_MAX)));
	lh_query_bind(q, LH_INT(!attempt && !strcmp(attempts, "final")));
	lh_query_bind(q, attempt ? LH_INT(attempt) : LH_NULL);
}

/* A page of rows: those behind (after_attempt, `after`); `kind` is bound last, NULL:
 * there is none. */
static void read_page(struct lh_call *call, const char *key, const char *sql,
		      const char *after, bool newest, const char *kind)
{
	int64_t limit = lh_call_int(call, "limit", LH_READING_DEFAULT_ROWS), job;
	struct lh_reading *r;
	struct lh_query *q;

	if (!lh_control_find_job(call, &job))
		return;
	r = lh_reading_new(call);
	q = lh_reading_query(r, key, sql, limit);
	bind_chosen(q, call, job);
	lh_query_bind(q, LH_INT(lh_call_int(call, "after_attempt", 0)));
	lh_query_bind(q, LH_INT(lh_call_int(call, after, 0)));
	lh_query_bind(q, LH_INT(limit + 1));
	if (kind)
		lh_query_bind(q, LH_TEXT(kind));
	if (newest)
		lh_query_newest(q);
	lh_query_tell_more(q);
	lh_reading_start(r);
}

static const char steps_sql[] =
	"SELECT s.attempt, s.step, s.phase, s.time_ms, s.loss, s.grad_norm, s.lr,"
	" s.tokens, s.step_ms, s.tokens_per_s, s.data_epoch FROM steps s WHERE "
	CHOSEN("s") "AND (s.attempt, s.step) > (?6, ?7)"
	" ORDER BY s.attempt, s.step LIMIT ?8";

void rpc_job_steps(struct lh_call *call)
{
	read_page(call, "steps", steps_sql, "after_step", false, NULL);
}

#define EVALUATIONS(order)                                                    \
	"SELECT attempt, seq, step, phase, attention, reason, loss, tokens,"  \
	" duration_ms, time_ms, set_no, set_name, cost"                       \
	" FROM (SELECT * FROM evaluations e WHERE " CHOSEN("e")               \
	"  AND (e.attempt, e.seq) > (?6, ?7)"                                 \
	"  ORDER BY e.attempt" order ", e.seq" order " LIMIT ?8)"             \
	" ORDER BY attempt, seq"

static const char *const evaluations_sql[2] = { EVALUATIONS(""), EVALUATIONS(" DESC") };

void rpc_job_evaluations(struct lh_call *call)
{
	bool newest = lh_call_bool(call, "newest", false);

	read_page(call, "evaluations", evaluations_sql[newest], "after_seq", newest,
		  NULL);
}

#define LOOKS(order)                                                          \
	"SELECT attempt, seq, step, phase, kind, attention, reason,"          \
	" duration_ms, cost, time_ms, data_json"                              \
	" FROM (SELECT * FROM looks e WHERE " CHOSEN("e")                     \
	"  AND (e.attempt, e.seq) > (?6, ?7) AND e.kind = ?9"                 \
	"  ORDER BY e.attempt" order ", e.seq" order " LIMIT ?8)"             \
	" ORDER BY attempt, seq"

static const char *const looks_sql[2] = { LOOKS(""), LOOKS(" DESC") };

void rpc_job_looks(struct lh_call *call)
{
	bool newest = lh_call_bool(call, "newest", false);

	read_page(call, "looks", looks_sql[newest], "after_seq", newest,
		  lh_call_str(call, "kind", ""));
}

/* ---- job.curve ------------------------------------------------------------- */

static json_t *read_curve(sqlite3 *db, const struct lh_bind *binds, struct lh_err *err)
{
	struct lh_curve_want want = { .job = binds[0].i,
				      .from_step = binds[1].i,
				      .to_step = binds[2].i,
				      .attempt = binds[3].i,
				      .points = binds[4].i };

	return lh_curve_read(db, &want, err);
}

void rpc_job_curve(struct lh_call *call)
{
	struct lh_reading *r;
	struct lh_query *q;
	int64_t job;

	if (!lh_control_find_job(call, &job))
		return;
	r = lh_reading_new(call);
	q = lh_reading_query_by(r, "points", read_curve);
	lh_query_bind(q, LH_INT(job));
	lh_query_bind(q, LH_INT(lh_call_int(call, "from_step", 0)));
	lh_query_bind(q, LH_INT(lh_call_int(call, "to_step", INT64_MAX)));
	lh_query_bind(q, LH_INT(lh_call_int(call, "attempt", 0)));
	lh_query_bind(q, LH_INT(lh_call_int(call, "points", LH_READING_DEFAULT_ROWS)));
	lh_reading_start(r);
}

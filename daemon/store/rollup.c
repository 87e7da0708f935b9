/* rollup.c: see rollup.h. The two statements are those by which the migration fills
 * the table of an older database, for one stretch of an attempt. */
#include "store/rollup.h"

#include <stdlib.h>

#include "lighthouse/err.h"

/* Steps further apart are not noted as one stretch: all between would be read. */
enum { NEAR_STEPS = 4096 };

/* ?1 job, ?2 attempt, ?3 level, ?4 to ?5 its blocks. */
static const char *const sql[2] = {
	"INSERT OR REPLACE INTO rollups "
	"SELECT job, attempt, ?3, step >> 4, min(step), max(step), count(*), max(phase),"
	" max(time_ms), CAST(total(tokens) AS INTEGER),"
	" count(loss), min(loss), sum(loss), max(loss),"
	" count(grad_norm), min(grad_norm), sum(grad_norm), max(grad_norm),"
	" min(lr), sum(lr), max(lr), min(step_ms), sum(step_ms), max(step_ms),"
	" min(tokens_per_s), sum(tokens_per_s), max(tokens_per_s) "
	"FROM steps WHERE job = ?1 AND attempt = ?2"
	" AND step BETWEEN ?4 << 4 AND (?5 << 4) + 15 GROUP BY step >> 4",

	"INSERT OR REPLACE INTO rollups "
	"SELECT job, attempt, ?3, block >> 4, min(first_step), max(last_step), sum(steps),"
	" max(phase), max(time_ms), CAST(total(tokens) AS INTEGER),"
	" sum(loss_count), min(loss_min), sum(loss_sum), max(loss_max),"
	" sum(grad_norm_count), min(grad_norm_min), sum(grad_norm_sum),"
	" max(grad_norm_max), min(lr_min), sum(lr_sum), max(lr_max),"
	" min(step_ms_min), sum(step_ms_sum), max(step_ms_max),"
	" min(tokens_per_s_min), sum(tokens_per_s_sum), max(tokens_per_s_max) "
	"FROM rollups WHERE job = ?1 AND attempt = ?2 AND level = ?3 - 1"
	" AND block BETWEEN ?4 << 4 AND (?5 << 4) + 15 GROUP BY block >> 4",
};

_Static_assert(LH_ROLLUP_BITS == 4, "as the statements have it");

void lh_rollup_release(struct lh_rollup *r)
{
	sqlite3_finalize(r->stmt[0]);
	sqlite3_finalize(r->stmt[1]);
	free(r->spans);
	*r = (struct lh_rollup){ 0 };
}

void lh_rollup_reset(struct lh_rollup *r)
{
	r->count = 0;
}

void lh_rollup_note(struct lh_rollup *r, int64_t job, int64_t attempt, int64_t step)
{
	struct lh_rollup_span *p = r->spans;
	size_t i = r->count;

	/* Of the few jobs that train at a time, the last is the likeliest. */
	while (i-- > 0)
		if (p[i].job == job && p[i].attempt == attempt &&
		    step >= p[i].first_step - NEAR_STEPS &&
		    step <= p[i].last_step + NEAR_STEPS)
			break;
	if (i == SIZE_MAX) {
		if (r->count == r->cap) {
			r->cap = r->cap ? 2 * r->cap : 8;
			r->spans = lh_realloc(r->spans, r->cap * sizeof(*r->spans));
		}
		r->spans[r->count++] = (struct lh_rollup_span){ job, attempt, step, step };
		return;
	}
	if (step < p[i].first_step)
		p[i].first_step = step;
	if (step > p[i].last_step)
		p[i].last_step = step;
}

static int write_level(struct lh_rollup *r, sqlite3 *db, const struct lh_rollup_span *p,
		       int level)
{
	sqlite3_stmt **st = &r->stmt[level > 1];
	int bits = LH_ROLLUP_BITS * level, rc = SQLITE_OK;

	if (!*st)
		rc = sqlite3_prepare_v3(db, sql[level > 1], -1, SQLITE_PREPARE_PERSISTENT, st,
					NULL);
	if (rc != SQLITE_OK)
		return rc;
	sqlite3_bind_int64(*st, 1, p->job);
	sqlite3_bind_int64(*st, 2, p->attempt);
	sqlite3_bind_int(*st, 3, level);
	sqlite3_bind_int64(*st, 4, p->first_step >> bits);
	sqlite3_bind_int64(*st, 5, p->last_step >> bits);
	sqlite3_step(*st);
	return sqlite3_reset(*st); /* what the step came to */
}

int lh_rollup_write(struct lh_rollup *r, sqlite3 *db)
{
	int rc = SQLITE_OK;

	for (size_t i = 0; i < r->count; i++)
		for (int level = 1; rc == SQLITE_OK && level <= LH_ROLLUP_LEVELS; level++)
			rc = write_level(r, db, &r->spans[i], level);
	return rc;
}

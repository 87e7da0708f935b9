/* curve.c: see curve.h.
 *
 * The range falls into a part for each attempt: up to the smallest first_step of the
 * attempts after it, so that no two share a step. A part is read from its ends to
 * its middle, in ever larger blocks up to the level of the groups, and back:
 *
 *   steps | 16s | 256s ................ 256s | 16s | steps
 *
 * What is read lies within one block of the groups' level, and is added to its group.
 * A block that begins before the attempt does, or is not full yet, is whole all the
 * same: what it holds is what there is. */
#include "store/curve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/rollup.h"

/* No step lies beyond it (daemon/jobs/record.c), and a block's end can be computed. */
static const int64_t STEP_MAX = INT64_C(1) << 53;

enum { SPREADS = 5 };

static const char *const keys[SPREADS][3] = {
	{ "loss_min", "loss_mean", "loss_max" },
	{ "grad_norm_min", "grad_norm_mean", "grad_norm_max" },
	{ "lr_min", "lr_mean", "lr_max" },
	{ "step_ms_min", "step_ms_mean", "step_ms_max" },
	{ "tokens_per_s_min", "tokens_per_s_mean", "tokens_per_s_max" },
};

struct spread {
	int64_t count; /* of finite ones; 0: the rest says nothing */
	double min, sum, max;
};

struct group {
	int64_t steps; /* 0: the rest says nothing */
	int64_t first_step, last_step, phase, time_ms, tokens;
	struct spread spreads[SPREADS];
};

struct part {
	int64_t attempt, first_step, last_step;
};

struct curve {
	sqlite3 *db;
	const struct lh_curve_want *want;
	struct part *parts;          /* newest attempt first */
	size_t part_count;
	sqlite3_stmt *steps, *blocks;
	int64_t first_step, last_step; /* that there are */
	int level;                   /* of the groups' blocks, 0: steps */
	int64_t first_block, block_count;
	struct group *groups;        /* want->points */
};

/* ---- what is read ---------------------------------------------------------- */

/* ?1 job, ?2 attempt, from ?3 up to, but not ?4; of blocks ?5 their level. */
static const char steps_sql[] =
	"SELECT step, phase, time_ms, tokens, loss, grad_norm, lr, step_ms, tokens_per_s"
	" FROM steps WHERE job = ?1 AND attempt = ?2 AND step >= ?3 AND step < ?4";

static const char blocks_sql[] =
	"SELECT steps, first_step, last_step, phase, time_ms, tokens,"
	" loss_count, loss_min, loss_sum, loss_max,"
	" grad_norm_count, grad_norm_min, grad_norm_sum, grad_norm_max,"
	" steps, lr_min, lr_sum, lr_max, steps, step_ms_min, step_ms_sum, step_ms_max,"
	" steps, tokens_per_s_min, tokens_per_s_sum, tokens_per_s_max"
	" FROM rollups WHERE job = ?1 AND attempt = ?2 AND level = ?5"
	" AND block >= ?3 AND block < ?4";

static void take_step(sqlite3_stmt *st, struct group *g)
{
	g->steps = 1;
	g->first_step = g->last_step = sqlite3_column_int64(st, 0);
	g->phase = sqlite3_column_int64(st, 1);
	g->time_ms = sqlite3_column_int64(st, 2);
	g->tokens = sqlite3_column_int64(st, 3);
	for (int i = 0; i < SPREADS; i++) {
		struct spread *s = &g->spreads[i];

		s->count = sqlite3_column_type(st, 4 + i) != SQLITE_NULL;
		s->min = s->sum = s->max = sqlite3_column_double(st, 4 + i);
	}
}

static void take_block(sqlite3_stmt *st, struct group *g)
{
	g->steps = sqlite3_column_int64(st, 0);
	g->first_step = sqlite3_column_int64(st, 1);
	g->last_step = sqlite3_column_int64(st, 2);
	g->phase = sqlite3_column_int64(st, 3);
	g->time_ms = sqlite3_column_int64(st, 4);
	g->tokens = sqlite3_column_int64(st, 5);
	for (int i = 0; i < SPREADS; i++) {
		struct spread *s = &g->spreads[i];
		int column = 6 + 4 * i;

		s->count = sqlite3_column_int64(st, column);
		s->min = sqlite3_column_double(st, column + 1);
		s->sum = sqlite3_column_double(st, column + 2);
		s->max = sqlite3_column_double(st, column + 3);
	}
}

/* ---- groups ---------------------------------------------------------------- */

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* What somebody wrote there may be any number. */
static int64_t saturating_sum(int64_t a, int64_t b)
{
	int64_t sum;

	if (!__builtin_add_overflow(a, b, &sum))
		return sum;
	return a < 0 ? INT64_MIN : INT64_MAX;
}

static void add_spread(struct spread *to, const struct spread *s)
{
	if (!s->count)
		return;
	to->min = to->count ? fmin(to->min, s->min) : s->min;
	to->max = to->count ? fmax(to->max, s->max) : s->max;
	to->sum = to->count ? to->sum + s->sum : s->sum;
	to->count += s->count;
}

static void add(struct group *to, const struct group *g)
{
	to->first_step = to->steps ? smaller(to->first_step, g->first_step) : g->first_step;
	to->last_step = larger(to->last_step, g->last_step);
	to->phase = larger(to->phase, g->phase);
	to->time_ms = larger(to->time_ms, g->time_ms);
	to->tokens = saturating_sum(to->tokens, g->tokens);
	to->steps += g->steps;
	for (int i = 0; i < SPREADS; i++)
		add_spread(&to->spreads[i], &g->spreads[i]);
}

static struct group *group_of(const struct curve *c, int64_t step)
{
	int64_t block = (step >> LH_ROLLUP_BITS * c->level) - c->first_block;

	return &c->groups[block * c->want->points / c->block_count];
}

static json_t *real_or_null(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static json_t *group_json(const struct group *g)
{
	json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "first_step",
			      (json_int_t)g->first_step, "last_step",
			      (json_int_t)g->last_step, "steps", (json_int_t)g->steps, "phase",
			      (json_int_t)g->phase, "time_ms", (json_int_t)g->time_ms,
			      "tokens", (json_int_t)g->tokens);

	for (int i = 0; i < SPREADS; i++) {
		const struct spread *s = &g->spreads[i];
		const double v[3] = { s->min, s->sum / (double)s->count, s->max };

		for (int k = 0; k < 3; k++)
			json_object_set_new_nocheck(o, keys[i][k], s->count ?
						    real_or_null(v[k]) : json_null());
	}
	return o;
}

/* ---- reading --------------------------------------------------------------- */

static int prepare(struct curve *c, const char *sql, sqlite3_stmt **st)
{
	int rc = sqlite3_prepare_v2(c->db, sql, -1, st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(*st, 1, c->want->job);
	return rc;
}

/* The parts of the range, of which not all have steps. */
static int read_parts(struct curve *c)
{
	int64_t last = smaller(c->want->to_step, STEP_MAX);
	sqlite3_stmt *st = NULL;
	int rc = prepare(c, "SELECT attempt, first_step FROM attempts WHERE job = ?1"
			 " ORDER BY attempt DESC", &st), ended;

	while (rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
		int64_t attempt = sqlite3_column_int64(st, 0);

		if (c->want->attempt && attempt != c->want->attempt)
			continue;
		c->parts = lh_realloc(c->parts, (c->part_count + 1) * sizeof(*c->parts));
		c->parts[c->part_count++] =
			(struct part){ attempt, c->want->from_step, last };
		if (sqlite3_column_type(st, 1) != SQLITE_NULL)
			last = smaller(last, sqlite3_column_int64(st, 1));
	}
	ended = sqlite3_finalize(st);
	return rc == SQLITE_OK ? ended : rc;
}

/* The first and the last step that there are; none: the last lies before. */
static int read_extent(struct curve *c)
{
	sqlite3_stmt *st = NULL;
	int rc = prepare(c,
			 "SELECT (SELECT min(step) FROM steps WHERE job = ?1 AND attempt = ?2"
			 "  AND step BETWEEN ?3 AND ?4),"
			 " (SELECT max(step) FROM steps WHERE job = ?1 AND attempt = ?2"
			 "  AND step BETWEEN ?3 AND ?4)", &st);

	c->first_step = INT64_MAX;
	c->last_step = -1;
	for (size_t i = 0; rc == SQLITE_OK && i < c->part_count; i++) {
		sqlite3_bind_int64(st, 2, c->parts[i].attempt);
		sqlite3_bind_int64(st, 3, c->parts[i].first_step);
		sqlite3_bind_int64(st, 4, c->parts[i].last_step);
		if (sqlite3_step(st) == SQLITE_ROW &&
		    sqlite3_column_type(st, 0) != SQLITE_NULL) {
			c->first_step = smaller(c->first_step, sqlite3_column_int64(st, 0));
			c->last_step = larger(c->last_step, sqlite3_column_int64(st, 1));
		}
		rc = sqlite3_reset(st);
	}
	sqlite3_finalize(st);
	return rc;
}

static void set_groups(struct curve *c)
{
	int64_t span = c->last_step - c->first_step + 1;
	int bits;

	while (span > LH_CURVE_EXACT_STEPS && c->level < LH_ROLLUP_LEVELS &&
	       span >> LH_ROLLUP_BITS * (c->level + 1) >= c->want->points)
		c->level++;
	bits = LH_ROLLUP_BITS * c->level;
	c->first_block = c->first_step >> bits;
	c->block_count = (c->last_step >> bits) - c->first_block + 1;
	c->groups = lh_calloc((size_t)c->want->points, sizeof(*c->groups));
}

/* Blocks of a level (0: steps) from `from` up to, but not `end`. */
static int read_blocks(struct curve *c, int64_t attempt, int level, int64_t from,
		       int64_t end)
{
	sqlite3_stmt *st = level ? c->blocks : c->steps;

	if (from >= end)
		return SQLITE_OK;
	sqlite3_bind_int64(st, 2, attempt);
	sqlite3_bind_int64(st, 3, from);
	sqlite3_bind_int64(st, 4, end);
	if (level)
		sqlite3_bind_int(st, 5, level);
	while (sqlite3_step(st) == SQLITE_ROW) {
		struct group g;

		if (level)
			take_block(st, &g);
		else
			take_step(st, &g);
		/* Whoever edits the file may leave blocks of steps that are gone. */
		if (g.first_step >= c->first_step && g.first_step <= c->last_step)
			add(group_of(c, g.first_step), &g);
	}
	return sqlite3_reset(st);
}

/* The same, in the larger blocks above where these are whole. */
static int read_stretch(struct curve *c, int64_t attempt, int level, int64_t from,
			int64_t end)
{
	const int64_t ones = (1 << LH_ROLLUP_BITS) - 1;
	int64_t above = (from + ones) >> LH_ROLLUP_BITS, above_end = end >> LH_ROLLUP_BITS;
	int rc;

	if (level == c->level || above >= above_end)
		return read_blocks(c, attempt, level, from, end);
	rc = read_blocks(c, attempt, level, from, above << LH_ROLLUP_BITS);
	if (rc == SQLITE_OK)
		rc = read_stretch(c, attempt, level + 1, above, above_end);
	if (rc == SQLITE_OK)
		rc = read_blocks(c, attempt, level, above_end << LH_ROLLUP_BITS, end);
	return rc;
}

static int read_curve(struct curve *c)
{
	int rc = read_parts(c);

	if (rc == SQLITE_OK)
		rc = read_extent(c);
	if (rc != SQLITE_OK || c->last_step < c->first_step)
		return rc;
	set_groups(c);
	rc = prepare(c, steps_sql, &c->steps);
	if (rc == SQLITE_OK)
		rc = prepare(c, blocks_sql, &c->blocks);
	for (size_t i = c->part_count; rc == SQLITE_OK && i-- > 0;)
		rc = read_stretch(c, c->parts[i].attempt, 0, c->parts[i].first_step,
				  c->parts[i].last_step + 1);
	return rc;
}

json_t *lh_curve_read(sqlite3 *db, const struct lh_curve_want *want, struct lh_err *err)
{
	struct curve c = { .db = db, .want = want };
	json_t *points = NULL;

	if (read_curve(&c) != SQLITE_OK)
		lh_err_set(err, LH_ESTORE, "cannot read the database: %s", sqlite3_errmsg(db));
	else
		points = json_array();
	for (int64_t i = 0; points && c.groups && i < want->points; i++)
		if (c.groups[i].steps)
			json_array_append_new(points, group_json(&c.groups[i]));
	sqlite3_finalize(c.steps);
	sqlite3_finalize(c.blocks);
	free(c.groups);
	free(c.parts);
	return points;
}

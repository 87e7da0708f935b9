/* rule_sql.h: conditions of rules: SQL expressions over one job's metrics.
 *
 * A condition is one SQLite expression; the rule fires when it is true, and NULL
 * (something is not known yet) is not true. It may use
 *
 *   columns     of `now`, what is so at this moment: time (Unix seconds), job, step,
 *               phase, attention, phase_step (steps done in the phase), state,
 *               tokens, steps_planned and tokens_planned (NULL: open), loss,
 *               grad_norm, lr, step_ms, tokens_per_s, val_loss (full attention),
 *               val_loss_lighthouse, gap (the former less the latter), restarts,
 *               elapsed_s (since the job was started)
 *   tables      steps (step, phase, loss, grad_norm, lr, tokens, step_ms,
 *               tokens_per_s, time), evals (step, phase, attention, reason, loss,
 *               time; of the first validation set, as val_loss is) and sets (those
 *               and name, set_no; of all), each the line of attempts that counts; in
 *               subqueries
 *   functions   improvement(n)   share by which val_loss fell in the last n steps
 *               mean_loss(n)     of the last n steps
 *               seconds_for(p)   what phase p's planned steps take, at the pace it
 *                                was measured at
 *               deadline('HH:MM')  Unix seconds of the first such local time after
 *                                the rule was made
 *               and SQLite's: abs avg coalesce count glob ifnull iif like lower max
 *               min nullif round sum total upper
 *
 * Nothing else: no other table, no recursion, no writing; a step limit ends what
 * takes too long. So a condition can harm nothing and always ends.
 *
 * Any thread; a connection is used by one at a time.
 */
#ifndef LIGHTHOUSE_RULE_SQL_H
#define LIGHTHOUSE_RULE_SQL_H

#include <jansson.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/err.h"
#include "lighthouse/job.h"

enum { LH_RULE_NAME_BYTES = 65, LH_RULE_WHEN_BYTES = 1001 };

/* What lhd knows in memory; the rest is read from the database. */
struct lh_rule_scope {
	int64_t job, step, phase_step;
	int64_t step_tokens;   /* of an optimizer step */
	int64_t steps_planned; /* -1: open */
	int64_t now_ms, created_ms; /* created: when the rule was made */
	double elapsed_s;
	int restarts;
	int phase;             /* index */
	const char *state;     /* literal */
	int phase_count;
	struct {
		char name[LH_RULE_NAME_BYTES];
		enum lh_attention attention;
		int64_t steps;       /* planned, -1: open */
		bool entered;        /* so its pace was measured */
	} phases[LH_PHASES_MAX];
};

/* Whether an expression is a condition for a job of `scope`'s phases; LH_EINVAL
 * names what is wrong and the column. Needs no database. */
int lh_rule_sql_check(const struct lh_rule_scope *scope, const char *when,
		      struct lh_err *err);

/* *holds and *values <- {column of now: value} (new reference). LH_EINVAL: not a
 * condition, or it took too long; LH_ESTORE. */
int lh_rule_sql_eval(sqlite3 *db, const struct lh_rule_scope *scope, const char *when,
		     bool *holds, json_t **values, struct lh_err *err);

#endif

/* rollup.h: steps put together in blocks of 16, 256, ... 16^LH_ROLLUP_LEVELS
 * neighbours of one attempt (schema/store/0007_rollups.sql).
 *
 * The writer notes each step that it inserts and, before the commit, makes the blocks
 * that these lie in anew, each from the 16 below it: so they are of the same
 * transaction as the steps, and storing one twice changes nothing. The newest block of
 * a level holds what there is. Blocks of steps that were abandoned stay, like these.
 *
 * Writer thread only.
 */
#ifndef LIGHTHOUSE_ROLLUP_H
#define LIGHTHOUSE_ROLLUP_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#define LH_ROLLUP_LEVELS 5
#define LH_ROLLUP_BITS 4 /* a block holds 1 << bits of those below */

struct lh_rollup_span {
	int64_t job, attempt, first_step, last_step;
};

/* All zero: nothing was noted. */
struct lh_rollup {
	sqlite3_stmt *stmt[2]; /* of steps; of blocks */
	struct lh_rollup_span *spans;
	size_t count, cap;
};

void lh_rollup_release(struct lh_rollup *r);
/* Forgets what was noted: a transaction begins. */
void lh_rollup_reset(struct lh_rollup *r);
void lh_rollup_note(struct lh_rollup *r, int64_t job, int64_t attempt, int64_t step);
/* Inside the transaction, after its steps. SQLITE_OK or SQLite's code. */
int lh_rollup_write(struct lh_rollup *r, sqlite3 *db);

#endif

/* curve.h: a job's steps in groups of neighbours, as job.curve answers them.
 *
 * A range of up to LH_CURVE_EXACT_STEPS is cut into equal groups of its steps. Of a
 * longer one groups are made of whole blocks: of the largest, of 1, 16, 256, ... steps,
 * of which it spans no fewer than the points that are wanted. So at most some 16 rows
 * are read for a point, of rollups (rollup.h), and the steps themselves only where
 * blocks do not end with the range or with the part of an attempt that counts.
 */
#ifndef LIGHTHOUSE_CURVE_H
#define LIGHTHOUSE_CURVE_H

#include <jansson.h>
#include <sqlite3.h>
#include <stdint.h>

#include "lighthouse/err.h"

#define LH_CURVE_EXACT_STEPS 4096

struct lh_curve_want {
	int64_t job;
	int64_t from_step, to_step; /* both wanted */
	int64_t attempt;            /* it alone; 0: each step from the newest that took it */
	int64_t points;             /* groups at most, 1 to 10000 */
};

/* For `work` functions of a read: an array, ascending, its objects as in
 * schema/rpc/job.curve.json. New reference, or NULL and LH_ESTORE. */
json_t *lh_curve_read(sqlite3 *db, const struct lh_curve_want *want, struct lh_err *err);

#endif

/* reading.h: calls that are answered with rows of the store.
 *
 * A handler makes a reading, puts into its result what memory knows, adds its
 * queries and starts it; the queries run on the thread pool, all in one view of
 * the store, and the call is answered. Each query's rows become one list of the
 * result:
 *
 *   r = lh_reading_new(call);
 *   q = lh_reading_query(r, "events", sql, limit);
 *   lh_query_bind(q, LH_INT(after_id));
 *   lh_reading_start(r);
 *
 * Loop thread, but for `finish`.
 */
#ifndef LIGHTHOUSE_READING_H
#define LIGHTHOUSE_READING_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/rpc.h"
#include "store/store.h"

#define LH_READING_DEFAULT_ROWS 1000
#define LH_READING_MAX_ROWS 10000

struct lh_reading;
struct lh_query;

struct lh_reading *lh_reading_new(struct lh_call *call);
/* The object that is answered; borrowed. */
json_t *lh_reading_result(struct lh_reading *r);
/* Adds a query, its rows to be under `key`; both texts are borrowed till the
 * answer. At most `limit` rows are answered, so the SQL should not give more than
 * one above it, which is how one knows that there are more. */
struct lh_query *lh_reading_query(struct lh_reading *r, const char *key, const char *sql,
				  int64_t limit);
/* The same, its rows made by `read` of as many statements as it takes, on a pool
 * thread. New reference, or NULL and an error. */
typedef json_t *(*lh_query_read)(sqlite3 *db, const struct lh_bind *binds,
				 struct lh_err *err);
struct lh_query *lh_reading_query_by(struct lh_reading *r, const char *key,
				     lh_query_read read);
/* Binds the next value. Text is borrowed: the call's own lives long enough. */
void lh_query_bind(struct lh_query *q, struct lh_bind value);
/* The rows are the newest, in order: one too many is the first, not the last. */
void lh_query_newest(struct lh_query *q);
/* Its one row, or null, instead of a list. */
void lh_query_single(struct lh_query *q);
/* The answer gets "more": whether the limit cut the query's rows. */
void lh_query_tell_more(struct lh_query *q);
/* Called with the result when all rows are in it, on a pool thread. */
void lh_reading_finish(struct lh_reading *r, void (*finish)(json_t *result));
/* Runs it, answers the call and frees it. */
void lh_reading_start(struct lh_reading *r);

#endif

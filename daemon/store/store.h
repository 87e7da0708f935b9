/* store.h: the SQLite database of a state directory, with exactly one writer.
 *
 * A writer thread owns the only writing connection. The loop thread hands it
 * write requests and gets each one's outcome back through `done`, on the loop
 * thread, in the order of submission. Requests are grouped into a transaction a
 * few times a second; a `durable` request closes the group at once and is
 * answered after a commit with synchronous=FULL: it outlives a power cut, and so do
 * then all commits before it. The others outlive this process. Reads run on the
 * thread pool over read-only connections and never wait for the writer.
 *
 * When the database refuses (locked by a foreign writer, disk full), the writer
 * keeps the requests and retries; nothing is dropped. lh_store_backlog grows
 * meanwhile and lh_store_trouble says why. Only what somebody waits for and can
 * ask again (lh_write_may_fail) is answered LH_ESTORE at once when the disk takes
 * nothing; a lock passes, and is waited for.
 *
 * All functions: loop thread only, unless they say otherwise.
 */
#ifndef LIGHTHOUSE_STORE_H
#define LIGHTHOUSE_STORE_H

#include <jansson.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "lighthouse/err.h"

struct lh_store;

/* Opens or creates, runs the migrations that are missing (blocking, before the
 * loop runs), starts the writer. LH_ESTORE: a newer schema, damage, no access. */
int lh_store_open(struct lh_store **store, uv_loop_t *loop, const char *path,
		  struct lh_err *err);
/* Writes what is queued, joins the writer, closes; then calls `closed`. A
 * database that still refuses after 20 s of closing is given up: the writes left
 * are answered LH_ESTORE. */
void lh_store_close(struct lh_store *store, void (*closed)(void *arg), void *arg);

size_t lh_store_backlog(const struct lh_store *store); /* requests not committed */
const char *lh_store_trouble(const struct lh_store *store); /* "" when healthy */

/* Outcome of a write: rc 0 and the row id where one was made, or LH_ESTORE.
 * `arg` is the request's. */
typedef void (*lh_store_done)(void *arg, int rc, int64_t id, const struct lh_err *err);

/* One bound value of a statement. Text is copied when the request is made. */
enum lh_bind_type { LH_BIND_NULL, LH_BIND_INT, LH_BIND_REAL, LH_BIND_TEXT };
struct lh_bind {
	enum lh_bind_type type;
	int64_t i;
	double r;       /* NaN or infinite is stored as NULL */
	const char *s;
};
#define LH_NULL ((struct lh_bind){ .type = LH_BIND_NULL })
#define LH_INT(v) ((struct lh_bind){ .type = LH_BIND_INT, .i = (v) })
#define LH_REAL(v) ((struct lh_bind){ .type = LH_BIND_REAL, .r = (v) })
#define LH_TEXT(v) ((struct lh_bind){ .type = LH_BIND_TEXT, .s = (v) })

/* Every statement the writer knows; its SQL stands in store/statements.c, with
 * the meaning of its binds. A file a table. */
enum lh_stmt {
	LH_STMT_JOB_INSERT,
	LH_STMT_JOB_STATE,      /* state, wanted, reason, phase, step, ... of a job */
	LH_STMT_JOB_WAIT,
	LH_STMT_JOB_PRIORITY,
	LH_STMT_JOB_SPEC,
	LH_STMT_PHASE_INSERT,
	LH_STMT_ATTEMPT_INSERT,
	LH_STMT_ATTEMPT_WORKER, /* pid, start_time, first_step */
	LH_STMT_ATTEMPT_SEQ,
	LH_STMT_ATTEMPT_END,
	LH_STMT_ATTEMPT_REMAINS, /* last_step, doing, why, hint, log */
	LH_STMT_STEP_INSERT,
	LH_STMT_EVAL_INSERT,
	LH_STMT_LOOK_INSERT,
	LH_STMT_PACE_INSERT,
	LH_STMT_CHECKPOINT_INSERT,
	LH_STMT_COMMAND_INSERT,
	LH_STMT_COMMAND_OUTCOME,
	LH_STMT_COMMAND_REVERTED, /* that was applied: a switch */
	LH_STMT_EVENT_INSERT,
	LH_STMT_RULE_INSERT,
	LH_STMT_RULE_STATE,     /* state, held, fired, cursor_event */
	LH_STMT_FIRING_INSERT,
	LH_STMT_FIRING_OUTCOME,
	LH_STMT_PAGE_KEY_INSERT,
	LH_STMT_PAGE_KEYS_OVER, /* forgets those that ended before */
	LH_STMT_COUNT
};

/* A write: one or more statements that are committed together or not at all. */
struct lh_write;
struct lh_write *lh_write_new(void);
void lh_write_add(struct lh_write *w, enum lh_stmt stmt, const struct lh_bind *binds,
		  int count);
/* On a full, read-only or failing disk it is refused, before those that wait. */
void lh_write_may_fail(struct lh_write *w);
/* Hands the write over (the store frees it). `done` may be NULL; `id` given to
 * it is the rowid of the write's first statement. */
void lh_store_submit_take(struct lh_store *store, struct lh_write *w, bool durable,
			  lh_store_done done, void *arg);

/* `done` once every write that was handed over before is committed, or was answered
 * otherwise: a read that begins then sees them. `id` is 0. */
void lh_store_await(struct lh_store *store, lh_store_done done, void *arg);

/* Runs `work(db, arg)` on a pool thread with a read-only connection, then
 * `done(arg, rc, err)` on the loop. `work` returns 0 or LH_ESTORE. */
typedef int (*lh_store_work)(sqlite3 *db, void *arg, struct lh_err *err);
typedef void (*lh_store_read_done)(void *arg, int rc, const struct lh_err *err);
void lh_store_read(struct lh_store *store, lh_store_work work,
		   lh_store_read_done done, void *arg);
/* The same at once, blocking: at start, before the loop runs. */
int lh_store_read_now(struct lh_store *store, lh_store_work work, void *arg,
		      struct lh_err *err);

/* Rows as JSON, for `work` functions: one object a row, keys = column names,
 * columns whose name ends in _json are parsed and lose the suffix. New
 * reference, or NULL and an error. More than `limit` rows: *more = true. */
json_t *lh_store_rows(sqlite3 *db, const char *sql, const struct lh_bind *binds,
		      int count, int64_t limit, bool *more, struct lh_err *err);

#endif

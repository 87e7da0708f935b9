/* writer.c: the writer thread: groups of writes into transactions.
 *
 * A group is what was queued by the time it starts: LH_STORE_GROUP_MS after its
 * first write, or at once when one of them is durable. Each write runs inside a
 * savepoint, so that one the database refuses for good (a constraint) fails
 * alone; the rollups of the steps that were inserted come last. What may pass (a
 * foreign lock, a full disk, an I/O error) rolls the whole group back, is told in
 * `trouble`, and is tried again until it works, less the writes that may fail, unless
 * it is but a lock. */
#include "store/store_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"

void lh_write_list_init(struct lh_write_list *l)
{
	l->first = NULL;
	l->end = &l->first;
	l->count = 0;
}

void lh_write_list_append(struct lh_write_list *l, struct lh_write *w)
{
	w->next = NULL;
	*l->end = w;
	l->end = &w->next;
	l->count++;
}

void lh_write_list_move(struct lh_write_list *to, struct lh_write_list *from, size_t max)
{
	while (from->first && max--) {
		struct lh_write *w = from->first;

		from->first = w->next;
		from->count--;
		if (!from->first)
			from->end = &from->first;
		lh_write_list_append(to, w);
	}
}

/* ---- one transaction ------------------------------------------------------- */

/* Worth another try: nothing is wrong with the write itself. */
static bool may_pass(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_FULL:
	case SQLITE_IOERR:
	case SQLITE_NOMEM:
	case SQLITE_CANTOPEN:
	case SQLITE_PROTOCOL:
	case SQLITE_READONLY:
		return true;
	}
	return false;
}

static int exec(struct lh_store *s, const char *sql)
{
	return sqlite3_exec(s->writer, sql, NULL, NULL, NULL);
}

static int run_op(struct lh_store *s, const struct lh_write_op *op)
{
	sqlite3_stmt *st = s->stmt[op->stmt];
	int rc = SQLITE_OK;

	if (!st) {
		rc = sqlite3_prepare_v3(s->writer, lh_store_sql[op->stmt].sql, -1,
					SQLITE_PREPARE_PERSISTENT, &st, NULL);
		s->stmt[op->stmt] = st;
	}
	if (rc == SQLITE_OK)
		rc = lh_store_bind(st, op->binds, op->count);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (st) {
		sqlite3_reset(st);
		sqlite3_clear_bindings(st);
	}
	if (op->stmt == LH_STMT_STEP_INSERT)
		lh_rollup_note(&s->rollup, op->binds[0].i, op->binds[1].i, op->binds[2].i);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* SQLITE_OK with the write's outcome in w->rc; else what may pass. */
static int run_write(struct lh_store *s, struct lh_write *w)
{
	int rc = exec(s, "SAVEPOINT w");

	w->rc = 0;
	w->id = 0;
	for (int i = 0; rc == SQLITE_OK && i < w->count; i++) {
		rc = run_op(s, &w->ops[i]);
		if (rc == SQLITE_OK && i == 0)
			w->id = sqlite3_last_insert_rowid(s->writer);
	}
	if (rc == SQLITE_OK)
		return exec(s, "RELEASE w");
	if (may_pass(rc))
		return rc;
	w->rc = lh_store_fail(&w->err, s->writer, "write to", s->path);
	lh_log_err(LH_LOG_ERROR, "store", &w->err);
	rc = exec(s, "ROLLBACK TO w");
	return rc == SQLITE_OK ? exec(s, "RELEASE w") : rc;
}

static int set_synchronous(struct lh_store *s, bool full)
{
	int rc = SQLITE_OK;

	if (s->synchronous_full != full)
		rc = exec(s, full ? "PRAGMA synchronous=FULL" :
				    "PRAGMA synchronous=NORMAL");
	if (rc == SQLITE_OK)
		s->synchronous_full = full;
	return rc;
}

static int try_group(struct lh_store *s, struct lh_write_list *group)
{
	bool durable = false;
	int rc;

	for (struct lh_write *w = group->first; w; w = w->next)
		durable |= w->durable;
	/* Has no effect inside a transaction, hence before it. */
	rc = set_synchronous(s, durable);
	if (rc == SQLITE_OK)
		rc = exec(s, "BEGIN IMMEDIATE");
	lh_rollup_reset(&s->rollup);
	for (struct lh_write *w = group->first; rc == SQLITE_OK && w; w = w->next)
		rc = run_write(s, w);
	if (rc == SQLITE_OK)
		rc = lh_rollup_write(&s->rollup, s->writer);
	LH_FAILPOINT("store.commit");
	if (rc == SQLITE_OK)
		rc = exec(s, "COMMIT");
	LH_FAILPOINT("store.committed");
	return rc;
}

/* ---- tries and outcomes ---------------------------------------------------- */

static void set_trouble(struct lh_store *s, const char *text)
{
	pthread_mutex_lock(&s->mutex);
	if (strcmp(s->trouble, text)) {
		snprintf(s->trouble, sizeof(s->trouble), "%s", text);
		if (*text)
			lh_warn("store: %s; writes wait and are tried again", text);
		else
			lh_info("store: writing again");
		uv_async_send(&s->async);
	}
	pthread_mutex_unlock(&s->mutex);
}

/* Waits for `ms`, or until `early` says enough. Mutex held. */
static void wait_ms(struct lh_store *s, int ms, bool (*early)(struct lh_store *s))
{
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += ms / 1000;
	end.tv_nsec += (long)(ms % 1000) * 1000000;
	if (end.tv_nsec >= 1000000000) {
		end.tv_sec++;
		end.tv_nsec -= 1000000000;
	}
	while (!early(s))
		if (pthread_cond_timedwait(&s->wake, &s->mutex, &end) == ETIMEDOUT)
			break;
}

static bool is_closing(struct lh_store *s)
{
	return s->closing;
}

static bool group_is_due(struct lh_store *s)
{
	return s->durable_queued || s->closing || s->queue.count >= LH_STORE_GROUP_MAX;
}

static void give_up(struct lh_store *s, struct lh_write_list *group)
{
	for (struct lh_write *w = group->first; w; w = w->next)
		w->rc = lh_err_set(&w->err, LH_ESTORE,
				   "'%s' could not be written before closing: %s",
				   s->path, s->trouble);
	lh_error("store: closed with %zu writes lost: %s", group->count, s->trouble);
}

static void pick_refused(struct lh_write_list *refused, struct lh_write_list *from,
			 const struct lh_err *err)
{
	struct lh_write_list all;
	struct lh_write *w;

	lh_write_list_init(&all);
	lh_write_list_move(&all, from, SIZE_MAX);
	while ((w = all.first)) {
		lh_write_list_move(w->may_fail ? refused : from, &all, 1);
		if (w->may_fail) {
			w->err = *err;
			w->rc = err->code;
		}
	}
}

/* What somebody waits for is answered, when it is the disk that refuses: it may stay
 * full for days. Nothing was written of it, the transaction is rolled back. */
static void refuse_some(struct lh_store *s, struct lh_write_list *group,
			const struct lh_err *err)
{
	pthread_mutex_lock(&s->mutex);
	pick_refused(&s->finished, group, err);
	pick_refused(&s->finished, &s->queue, err);
	pthread_mutex_unlock(&s->mutex);
	uv_async_send(&s->async);
}

/* Whether it is the disk, and what was tried is certainly not on it: after a sync
 * that failed it may be. */
static bool is_refused_by_disk(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
		return true;
	case SQLITE_IOERR:
		return rc != SQLITE_IOERR_FSYNC && rc != SQLITE_IOERR_DIR_FSYNC;
	}
	return false;
}

/* After a try that failed: says so, and leaves no transaction open. */
static void on_failure(struct lh_store *s, struct lh_write_list *group, int rc)
{
	struct lh_err err = LH_ERR_INIT;
	char text[256];

	lh_store_fail(&err, s->writer, "write to", s->path);
	snprintf(text, sizeof(text), "'%s': %s", s->path,
		 (rc & 0xff) == SQLITE_BUSY ? "locked by another program" :
					      sqlite3_errmsg(s->writer));
	/* Some errors have ended the transaction by themselves. */
	if (!sqlite3_get_autocommit(s->writer))
		exec(s, "ROLLBACK");
	set_trouble(s, text);
	if (is_refused_by_disk(rc))
		refuse_some(s, group, &err);
}

/* Returns once the group is committed, or given up when closing. */
static void run_group(struct lh_store *s, struct lh_write_list *group)
{
	int64_t closing_us = 0;
	int pause_ms = 50, rc;
	bool closing;

	while (group->count && (rc = try_group(s, group)) != SQLITE_OK) {
		on_failure(s, group, rc);
		if (!group->count)
			return; /* and it is not known that it works again */
		pthread_mutex_lock(&s->mutex);
		closing = s->closing;
		if (!closing)
			wait_ms(s, pause_ms, is_closing);
		pthread_mutex_unlock(&s->mutex);
		if (closing && !closing_us)
			closing_us = lh_clock_us();
		if (closing && lh_clock_us() - closing_us > LH_STORE_CLOSE_GRACE_MS * 1000ll) {
			give_up(s, group);
			return;
		}
		if (closing && (rc & 0xff) != SQLITE_BUSY)
			sqlite3_sleep(pause_ms);
		pause_ms = pause_ms * 2 < LH_STORE_RETRY_MAX_MS ? pause_ms * 2 :
								  LH_STORE_RETRY_MAX_MS;
	}
	set_trouble(s, "");
}

/* The next group, or false when closing and nothing is left. */
static bool take_group(struct lh_store *s, struct lh_write_list *group)
{
	lh_write_list_init(group);
	pthread_mutex_lock(&s->mutex);
	while (!s->queue.count && !s->closing)
		pthread_cond_wait(&s->wake, &s->mutex);
	if (s->queue.count)
		wait_ms(s, LH_STORE_GROUP_MS, group_is_due);
	lh_write_list_move(group, &s->queue, LH_STORE_GROUP_MAX);
	/* A rest of the queue may hold the durable one: then do not wait. */
	s->durable_queued = s->durable_queued && s->queue.count;
	pthread_mutex_unlock(&s->mutex);
	return group->count > 0;
}

void *lh_store_writer_main(void *arg)
{
	struct lh_store *s = arg;
	struct lh_write_list group;

	while (take_group(s, &group)) {
		run_group(s, &group);
		pthread_mutex_lock(&s->mutex);
		lh_write_list_move(&s->finished, &group, SIZE_MAX);
		pthread_mutex_unlock(&s->mutex);
		uv_async_send(&s->async);
	}
	for (int i = 0; i < LH_STMT_COUNT; i++)
		sqlite3_finalize(s->stmt[i]);
	lh_rollup_release(&s->rollup);
	sqlite3_close(s->writer);
	pthread_mutex_lock(&s->mutex);
	s->ended = true;
	pthread_mutex_unlock(&s->mutex);
	uv_async_send(&s->async);
	return NULL;
}

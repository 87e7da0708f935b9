/* store.c: opening, migrating, handing writes over, closing; see store.h.
 *
 * Migrations run here, on the caller's thread, before the writer starts. Then
 * the connection belongs to the writer thread (writer.c). Closing goes: queue
 * drained by the writer, thread joined, reads finished, handle closed, freed. */
#include "store/store_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/io.h"
#include "base/log.h"
#include "store/migrations.h"

int lh_store_fail(struct lh_err *err, sqlite3 *db, const char *doing, const char *path)
{
	int rc = sqlite3_errcode(db) & 0xff;

	lh_err_set(err, LH_ESTORE, "cannot %s '%s': %s", doing, path, sqlite3_errmsg(db));
	if (!err)
		return LH_ESTORE;
	if (rc == SQLITE_FULL)
		return lh_err_hint(err, "make room on its disk, then ask again");
	if (rc == SQLITE_READONLY || rc == SQLITE_IOERR || rc == SQLITE_CANTOPEN)
		return lh_err_hint(err, "its disk takes no writes: is it full, read-only "
				   "or broken?");
	return LH_ESTORE;
}

/* ---- opening --------------------------------------------------------------- */

static int query_int(sqlite3 *db, const char *sql, int64_t *value)
{
	sqlite3_stmt *st;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*value = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int migrate_one(sqlite3 *db, int from, const char *path, struct lh_err *err)
{
	char *pragma = lh_asprintf("PRAGMA user_version=%d", from + 1);
	int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, lh_migrations[from], NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, pragma, NULL, NULL, NULL);
	LH_FAILPOINT("store.migrate");
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
	LH_FAILPOINT("store.migrated");
	free(pragma);
	if (rc == SQLITE_OK)
		return 0;
	rc = lh_store_fail(err, db, "migrate", path);
	sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return rc;
}

static int migrate(sqlite3 *db, const char *path, struct lh_err *err)
{
	int64_t version = 0, tables = 0;
	int rc = 0;

	if (query_int(db, "PRAGMA user_version", &version) ||
	    query_int(db, "SELECT count(*) FROM sqlite_schema", &tables))
		return lh_store_fail(err, db, "read", path);
	if (version > lh_migration_count) {
		lh_err_set(err, LH_ESTORE,
			   "'%s' has schema version %lld, this lhd knows up to %d", path,
			   (long long)version, lh_migration_count);
		return lh_err_hint(err, "start the newer lhd, or another --state");
	}
	if (version == 0 && tables) {
		lh_err_set(err, LH_ESTORE, "'%s' belongs to another program", path);
		return lh_err_hint(err, "name another directory with --state");
	}
	for (int64_t v = version; !rc && v < lh_migration_count; v++)
		rc = migrate_one(db, (int)v, path, err);
	return rc;
}

/* The file exists before SQLite sees it, so that it (and its -wal and -shm,
 * which copy its mode) are the owner's alone from the start. */
static int create_private(const char *path, struct lh_err *err)
{
	int fd = lh_io->open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return lh_err_set(err, LH_ESTORE, "cannot open '%s': %s", path,
				  strerror(errno));
	lh_io->close(fd);
	return 0;
}

static int open_writer(sqlite3 **db, const char *path, struct lh_err *err)
{
	int rc = create_private(path, err);

	if (rc)
		return rc;
	if (sqlite3_open_v2(path, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL))
		goto fail_open;
	sqlite3_extended_result_codes(*db, 1);
	/* A lock at start is somebody's passing read or an lhd that just died. */
	sqlite3_busy_timeout(*db, 5000);
	if (sqlite3_exec(*db,
			 "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
			 "PRAGMA foreign_keys=ON",
			 NULL, NULL, NULL))
		goto fail_open;
	rc = migrate(*db, path, err);
	sqlite3_busy_timeout(*db, LH_STORE_BUSY_MS);
	if (!rc)
		return 0;
	sqlite3_close(*db);
	return rc;

fail_open:
	rc = lh_store_fail(err, *db, "open", path);
	sqlite3_close(*db);
	return rc;
}

static void on_async(uv_async_t *async);

int lh_store_open(struct lh_store **out, uv_loop_t *loop, const char *path,
		  struct lh_err *err)
{
	struct lh_store *s;
	pthread_condattr_t attr;
	sqlite3 *db = NULL;
	int rc = open_writer(&db, path, err);

	if (rc)
		return rc;
	s = lh_calloc(1, sizeof(*s));
	s->loop = loop;
	s->path = lh_strdup(path);
	s->writer = db;
	lh_write_list_init(&s->queue);
	lh_write_list_init(&s->finished);
	pthread_mutex_init(&s->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	s->async.data = s;
	if (uv_async_init(loop, &s->async, on_async) ||
	    pthread_create(&s->thread, NULL, lh_store_writer_main, s))
		LH_BUG("the store's thread cannot start");
	*out = s;
	return 0;
}

/* ---- writes ---------------------------------------------------------------- */

struct lh_write *lh_write_new(void)
{
	return lh_calloc(1, sizeof(struct lh_write));
}

void lh_write_add(struct lh_write *w, enum lh_stmt stmt, const struct lh_bind *binds,
		  int count)
{
	struct lh_write_op *op;

	LH_ASSERT(stmt >= 0 && stmt < LH_STMT_COUNT && count == lh_store_sql[stmt].binds);
	if (w->count == w->cap) {
		w->cap = w->cap ? 2 * w->cap : 4;
		w->ops = lh_realloc(w->ops, (size_t)w->cap * sizeof(*w->ops));
	}
	op = &w->ops[w->count++];
	op->stmt = stmt;
	op->count = count;
	op->binds = lh_alloc((size_t)count * sizeof(*binds));
	memcpy(op->binds, binds, (size_t)count * sizeof(*binds));
	for (int i = 0; i < count; i++)
		if (op->binds[i].type == LH_BIND_TEXT)
			op->binds[i].s = lh_strdup(binds[i].s);
}

void lh_write_may_fail(struct lh_write *w)
{
	w->may_fail = true;
}

void lh_write_free(struct lh_write *w)
{
	for (int i = 0; i < w->count; i++) {
		for (int b = 0; b < w->ops[i].count; b++)
			if (w->ops[i].binds[b].type == LH_BIND_TEXT)
				free((char *)w->ops[i].binds[b].s);
		free(w->ops[i].binds);
	}
	free(w->ops);
	free(w);
}

static void submit_take(struct lh_store *s, struct lh_write *w, bool durable,
			lh_store_done done, void *arg)
{
	LH_ASSERT(!s->closed);
	w->durable = durable;
	w->done = done;
	w->arg = arg;
	s->backlog++;
	pthread_mutex_lock(&s->mutex);
	lh_write_list_append(&s->queue, w);
	s->durable_queued |= durable;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->mutex);
}

void lh_store_submit_take(struct lh_store *s, struct lh_write *w, bool durable,
			  lh_store_done done, void *arg)
{
	LH_ASSERT(w->count);
	submit_take(s, w, durable, done, arg);
}

/* A write of nothing: writes are done in order. */
void lh_store_await(struct lh_store *s, lh_store_done done, void *arg)
{
	submit_take(s, lh_write_new(), false, done, arg);
}

static void on_async(uv_async_t *async)
{
	struct lh_store *s = async->data;
	struct lh_write_list finished;
	struct lh_write *w, *next;

	lh_write_list_init(&finished);
	pthread_mutex_lock(&s->mutex);
	lh_write_list_move(&finished, &s->finished, SIZE_MAX);
	memcpy(s->trouble_copy, s->trouble, sizeof(s->trouble));
	pthread_mutex_unlock(&s->mutex);
	for (w = finished.first; w; w = next) {
		next = w->next;
		s->backlog--;
		if (w->done)
			w->done(w->arg, w->rc, w->id, w->rc ? &w->err : NULL);
		lh_write_free(w);
	}
	lh_store_close_step(s);
}

size_t lh_store_backlog(const struct lh_store *s)
{
	return s->backlog;
}

const char *lh_store_trouble(const struct lh_store *s)
{
	return s->trouble_copy;
}

/* ---- closing --------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
	struct lh_store *s = handle->data;
	void (*closed)(void *arg) = s->closed;
	void *arg = s->closed_arg;

	lh_store_readers_close(s);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->mutex);
	free(s->path);
	free(s);
	closed(arg);
}

void lh_store_close_step(struct lh_store *s)
{
	bool ended;

	pthread_mutex_lock(&s->mutex);
	ended = s->ended;
	pthread_mutex_unlock(&s->mutex);
	if (!ended || s->backlog || s->reads_in_flight || s->async_closing)
		return;
	s->async_closing = true;
	pthread_join(s->thread, NULL); /* it is past its last statement */
	uv_close((uv_handle_t *)&s->async, on_closed);
}

void lh_store_close(struct lh_store *s, void (*closed)(void *arg), void *arg)
{
	LH_ASSERT(closed && !s->closed);
	s->closed = closed;
	s->closed_arg = arg;
	pthread_mutex_lock(&s->mutex);
	s->closing = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->mutex);
}

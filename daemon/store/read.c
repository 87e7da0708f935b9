/* read.c: reads on the thread pool, over read-only connections.
 *
 * A read takes an idle connection or opens one, runs inside one read
 * transaction (so all its queries see the same moment) and gives it back. In WAL
 * mode it neither waits for the writer nor holds it up. */
#include "store/store_int.h"

#include <stdlib.h>
#include <string.h>

static int open_reader(struct lh_store *s, sqlite3 **db, struct lh_err *err)
{
	int rc = 0;

	if (sqlite3_open_v2(s->path, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX,
			    NULL) ||
	    sqlite3_exec(*db, "PRAGMA query_only=ON", NULL, NULL, NULL)) {
		rc = lh_store_fail(err, *db, "open", s->path);
		sqlite3_close(*db);
	} else {
		/* Only while the last writer's leftovers are being recovered. */
		sqlite3_busy_timeout(*db, 5000);
	}
	return rc;
}

static int take_reader(struct lh_store *s, sqlite3 **db, struct lh_err *err)
{
	*db = NULL;
	pthread_mutex_lock(&s->mutex);
	if (s->readers)
		*db = s->reader[--s->readers];
	pthread_mutex_unlock(&s->mutex);
	return *db ? 0 : open_reader(s, db, err);
}

static void give_reader(struct lh_store *s, sqlite3 *db)
{
	pthread_mutex_lock(&s->mutex);
	if (s->readers < LH_STORE_IDLE_READERS) {
		s->reader[s->readers++] = db;
		db = NULL;
	}
	pthread_mutex_unlock(&s->mutex);
	sqlite3_close(db);
}

void lh_store_readers_close(struct lh_store *s)
{
	while (s->readers)
		sqlite3_close(s->reader[--s->readers]);
}

int lh_store_read_now(struct lh_store *s, lh_store_work work, void *arg,
		      struct lh_err *err)
{
	sqlite3 *db;
	int rc = take_reader(s, &db, err);

	if (rc)
		return rc;
	if (sqlite3_exec(db, "BEGIN", NULL, NULL, NULL))
		rc = lh_store_fail(err, db, "read", s->path);
	else
		rc = work(db, arg, err);
	if (!sqlite3_get_autocommit(db))
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	give_reader(s, db);
	return rc;
}

struct read {
	uv_work_t req;
	struct lh_store *store;
	lh_store_work work;
	lh_store_read_done done;
	void *arg;
	int rc;
	struct lh_err err;
};

static void read_work(uv_work_t *req)
{
	struct read *r = req->data;

	r->rc = lh_store_read_now(r->store, r->work, r->arg, &r->err);
}

static void read_after(uv_work_t *req, int status)
{
	struct read *r = req->data;

	(void)status; /* never cancelled */
	r->store->reads_in_flight--;
	r->done(r->arg, r->rc, r->rc ? &r->err : NULL);
	lh_store_close_step(r->store);
	free(r);
}

void lh_store_read(struct lh_store *s, lh_store_work work, lh_store_read_done done,
		   void *arg)
{
	struct read *r = lh_calloc(1, sizeof(*r));

	r->req.data = r;
	r->store = s;
	r->work = work;
	r->done = done;
	r->arg = arg;
	s->reads_in_flight++;
	if (uv_queue_work(s->loop, &r->req, read_work, read_after))
		LH_BUG("the thread pool refuses work");
}

/* ---- rows ------------------------------------------------------------------ */

static json_t *text_value(const char *text, int bytes)
{
	json_t *v = json_stringn(text, (size_t)bytes);

	return v ? v : json_string("(not UTF-8)");
}

static void put_column(json_t *row, sqlite3_stmt *st, int i)
{
	const char *name = sqlite3_column_name(st, i), *text;
	size_t n = strlen(name);
	json_t *value = NULL;
	bool is_json = n > 5 && !strcmp(name + n - 5, "_json");

	switch (sqlite3_column_type(st, i)) {
	case SQLITE_INTEGER:
		value = json_integer(sqlite3_column_int64(st, i));
		break;
	case SQLITE_FLOAT:
		value = json_real(sqlite3_column_double(st, i));
		break;
	case SQLITE_TEXT:
		text = (const char *)sqlite3_column_text(st, i);
		value = is_json ? json_loads(text, JSON_DECODE_ANY, NULL) :
				  text_value(text, sqlite3_column_bytes(st, i));
		break;
	}
	json_object_setn_new(row, name, is_json ? n - 5 : n, value ? value : json_null());
}

json_t *lh_store_rows(sqlite3 *db, const char *sql, const struct lh_bind *binds,
		      int count, int64_t limit, bool *more, struct lh_err *err)
{
	sqlite3_stmt *st = NULL;
	json_t *rows = json_array();
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	*more = false;
	if (rc == SQLITE_OK)
		rc = lh_store_bind(st, binds, count);
	while (rc == SQLITE_OK || rc == SQLITE_ROW) {
		json_t *row;

		rc = sqlite3_step(st);
		if (rc != SQLITE_ROW)
			break;
		if ((int64_t)json_array_size(rows) == limit) {
			*more = true;
			rc = SQLITE_DONE;
			break;
		}
		row = json_object();
		for (int i = 0; i < sqlite3_column_count(st); i++)
			put_column(row, st, i);
		json_array_append_new(rows, row);
	}
	if (rc != SQLITE_DONE) {
		lh_err_set(err, LH_ESTORE, "cannot read the database: %s",
			   sqlite3_errmsg(db));
		json_decref(rows);
		rows = NULL;
	}
	sqlite3_finalize(st);
	return rows;
}

/* reading.c: see reading.h. */
#include "control/reading.h"

#include <stdlib.h>

#include "control/control.h"

enum { MAX_QUERIES = 8, MAX_BINDS = 10 };

struct lh_query {
	const char *key, *sql;
	lh_query_read read; /* instead of sql, or NULL */
	struct lh_bind binds[MAX_BINDS];
	int bind_count;
	int64_t limit;
	bool newest, single, tell_more;
};

struct lh_reading {
	struct lh_call *call;
	struct lh_query queries[MAX_QUERIES];
	int query_count;
	void (*finish)(json_t *result); /* or NULL */
	json_t *result;
	struct lh_buf text; /* of the result */
};

struct lh_reading *lh_reading_new(struct lh_call *call)
{
	struct lh_reading *r = lh_calloc(1, sizeof(*r));

	r->call = call;
	r->result = json_object();
	return r;
}

json_t *lh_reading_result(struct lh_reading *r)
{
	return r->result;
}

struct lh_query *lh_reading_query(struct lh_reading *r, const char *key, const char *sql,
				  int64_t limit)
{
	struct lh_query *q = &r->queries[r->query_count++];

	LH_ASSERT(r->query_count <= MAX_QUERIES);
	q->key = key;
	q->sql = sql;
	q->limit = limit;
	return q;
}

struct lh_query *lh_reading_query_by(struct lh_reading *r, const char *key,
				     lh_query_read read)
{
	struct lh_query *q = lh_reading_query(r, key, NULL, INT64_MAX);

	q->read = read;
	return q;
}

void lh_query_bind(struct lh_query *q, struct lh_bind value)
{
	LH_ASSERT(q->bind_count < MAX_BINDS);
	q->binds[q->bind_count++] = value;
}

void lh_query_newest(struct lh_query *q)
{
	q->newest = true;
}

void lh_query_single(struct lh_query *q)
{
	q->single = true;
}

void lh_query_tell_more(struct lh_query *q)
{
	q->tell_more = true;
}

void lh_reading_finish(struct lh_reading *r, void (*finish)(json_t *result))
{
	r->finish = finish;
}

static json_t *run_query(sqlite3 *db, const struct lh_query *q, bool *more,
			 struct lh_err *err)
{
	int64_t limit = q->newest ? INT64_MAX : q->limit;
	json_t *rows;

	if (q->read)
		return q->read(db, q->binds, err);
	rows = lh_store_rows(db, q->sql, q->binds, q->bind_count, limit, more, err);
	if (rows && q->newest && (int64_t)json_array_size(rows) > q->limit) {
		json_array_remove(rows, 0);
		*more = true;
	}
	return rows;
}

/* Takes the rows. */
static json_t *only(json_t *rows)
{
	json_t *row = json_array_get(rows, 0);

	row = row ? json_incref(row) : json_null();
	json_decref(rows);
	return row;
}

/* On a pool thread. */
static int run(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct lh_reading *r = arg;

	for (int i = 0; i < r->query_count; i++) {
		struct lh_query *q = &r->queries[i];
		bool more = false;
		json_t *rows = run_query(db, q, &more, err);

		if (!rows)
			return err->code;
		json_object_set_new(r->result, q->key, q->single ? only(rows) : rows);
		if (q->tell_more)
			json_object_set_new(r->result, "more", json_boolean(more));
	}
	if (r->finish)
		r->finish(r->result);
	lh_buf_json(&r->text, r->result); /* a large one would hold the loop up */
	json_decref(r->result);
	r->result = NULL;
	return 0;
}

static void on_read(void *arg, int rc, const struct lh_err *err)
{
	struct lh_reading *r = arg;

	if (rc)
		lh_reply_err(r->call, err);
	else
		lh_reply_text(r->call, &r->text);
	json_decref(r->result);
	lh_buf_release(&r->text);
	free(r);
}

void lh_reading_start(struct lh_reading *r)
{
	lh_store_read(lh_control_of(r->call)->store, run, on_read, r);
}

/* stream.c: GET /events: events and steps, as they come, to a page.
 *
 *   ?job=N          of this job; without it, events of all
 *   &steps=1        its steps too
 *   &after_event=E  first what came after this event ...
 *   &after_step=S   ... and after this step, of attempt &after_attempt=A: without that,
 *                   of the newest that took it
 *
 * Messages are event, step and lost, with the data that job.subscribe pushes, and first
 * hello, {generation, beat_ms}: a comment comes as often as that, so that silence means
 * that nobody is there. Each has an id, "EVENT.ATTEMPT.STEP": what the reader has by then.
 * Last-Event-ID, or else the query, says where to go on; without either that is now. `lost`
 * has the id of the message before it: who comes back with it gets what was lost. It may
 * count some that the rows of SETTLE have brought, never too few.
 *
 * No gap and no double:
 *
 *   CATCH_UP  pages of rows behind the cursor, until one is not full
 *   SETTLE    the feed has a subscription; everything pushed before that is committed
 *             first, for steps are pushed before; then the rest of the rows
 *   LIVE      the feed, without what the rows have brought
 *
 * (attempt, step) only grows, and what a worker sends again to a new lhd is behind the
 * cursor. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fs.h"
#include "http/http_int.h"

enum { PAGE_ROWS = 500, CHUNK_BYTES = 16 << 10 };

/* Lines wait in the feed, where the oldest can be lost, as long as this is unsent. */
enum { AHEAD_BYTES = 32 << 10 };

struct cursor {
	int64_t event, attempt, step; /* attempt < 0: the newest that took the step */
};

/* Waits for a commit. A database that is locked may take minutes for it, and the stream
 * may end before. */
struct barrier {
	struct lh_stream *stream; /* NULL: it has ended */
};

/* A page of rows: read on the thread pool, which has it alone meanwhile. */
struct page {
	int64_t job;              /* 0: all */
	int64_t subscription;
	bool steps;
	struct cursor cursor;     /* moves on with the rows */
	bool full;
	struct lh_buf text;
};

struct lh_stream {
	struct lh_feed feed;      /* first: a feed is its stream */
	struct lh_request *request;
	enum { CATCH_UP, SETTLE, LIVE } state;
	struct page page;
	bool reading;             /* page is the pool's, or there is a barrier */
	struct barrier *barrier;  /* or NULL */
	int64_t rows_event;       /* newest event that rows have brought */
	struct lh_buf out;
	bool failed;              /* the store could not be read: it ends, to be tried again */
	bool gone;                /* nobody reads it any more, or may */
	bool released;
};

/* ---- messages -------------------------------------------------------------- */

static void put(struct lh_buf *out, const char *kind, const struct cursor *at,
		const struct lh_buf *data)
{
	lh_buf_printf(out, "event: %s\nid: %" PRId64 ".%" PRId64 ".%" PRId64 "\ndata: ", kind,
		      at->event, at->attempt, at->step);
	lh_buf_append(out, data->data, data->used_bytes);
	lh_buf_append(out, "\n\n", 2);
}

static void put_row(struct page *p, const char *kind, json_t *row)
{
	struct lh_buf data = { 0 };

	json_object_set_new(row, "subscription", json_integer(p->subscription));
	lh_buf_json(&data, row);
	put(&p->text, kind, &p->cursor, &data);
	lh_buf_release(&data);
}

static bool is_behind(const struct cursor *c, int64_t attempt, int64_t step)
{
	return attempt < c->attempt || (attempt == c->attempt && step <= c->step);
}

/* The next line of the feed that the rows have not brought; false: there is none. */
static bool put_line(struct lh_stream *s)
{
	struct cursor *c = &s->page.cursor;
	struct lh_buf data = { 0 };
	struct lh_feed_kind kind;
	bool got, known = true;

	while (known && (got = lh_feed_take_params(&s->feed, &kind, &data))) {
		known = (kind.event && kind.event <= s->rows_event) ||
			(kind.attempt && is_behind(c, kind.attempt, kind.step));
		if (known)
			lh_buf_consume(&data, data.used_bytes);
	}
	if (got && kind.event > c->event)
		c->event = kind.event;
	if (got && kind.attempt) {
		c->attempt = kind.attempt;
		c->step = kind.step;
	}
	if (got)
		put(&s->out, kind.method, c, &data);
	lh_buf_release(&data);
	return got;
}

static void put_hello(struct lh_stream *s)
{
	struct lh_buf data = { 0 };

	lh_buf_printf(&data, "{\"generation\":%" PRId64 ",\"beat_ms\":%d}",
		      s->request->http->config.generation, LH_HTTP_BEAT_MS);
	put(&s->out, "hello", &s->page.cursor, &data);
	lh_buf_release(&data);
}

/* ---- rows ------------------------------------------------------------------ */

static int64_t integer(const json_t *row, const char *key)
{
	return json_integer_value(json_object_get(row, key));
}

/* Takes the rows; each moves the cursor on. */
static int put_events_take(struct page *p, json_t *rows, bool more)
{
	json_t *row;
	size_t i;

	json_array_foreach (rows, i, row) {
		p->cursor.event = integer(row, "id");
		put_row(p, "event", row);
	}
	p->full |= rows && more;
	json_decref(rows);
	return rows ? 0 : LH_ESTORE;
}

static int put_steps_take(struct page *p, json_t *rows, bool more)
{
	json_t *row;
	size_t i;

	json_array_foreach (rows, i, row) {
		p->cursor.attempt = integer(row, "attempt");
		p->cursor.step = integer(row, "step");
		put_row(p, "step", row);
	}
	p->full |= rows && more;
	json_decref(rows);
	return rows ? 0 : LH_ESTORE;
}

static int read_events(sqlite3 *db, struct page *p, struct lh_err *err)
{
	static const char *const sql[2] = { /* [of a job] */
		"SELECT id, job, attempt, step, time_ms, kind, text, data_json FROM events"
		" WHERE id > ?1 ORDER BY id LIMIT ?2",
		"SELECT id, job, attempt, step, time_ms, kind, text, data_json FROM events"
		" WHERE id > ?1 AND job = ?3 ORDER BY id LIMIT ?2",
	};
	struct lh_bind binds[] = { LH_INT(p->cursor.event), LH_INT(PAGE_ROWS + 1),
				   LH_INT(p->job) };
	bool more;
	json_t *rows = lh_store_rows(db, sql[p->job > 0], binds, p->job ? 3 : 2, PAGE_ROWS,
				     &more, err);

	return put_events_take(p, rows, more);
}

/* Which attempt a step is of that came without: the newest that took it; if none is
 * stored that did, the newest that began before it. */
static int find_attempt(sqlite3 *db, struct page *p, struct lh_err *err)
{
	static const char sql[] =
		"SELECT coalesce((SELECT max(attempt) FROM attempts a WHERE job = ?1 AND"
		"  EXISTS (SELECT 1 FROM steps s WHERE s.job = ?1 AND s.attempt = a.attempt"
		"   AND s.step = ?2)),"
		" (SELECT max(attempt) FROM attempts WHERE job = ?1 AND first_step < ?2), 0)"
		" AS attempt";
	struct lh_bind binds[] = { LH_INT(p->job), LH_INT(p->cursor.step) };
	bool more;
	json_t *rows = lh_store_rows(db, sql, binds, 2, 1, &more, err);

	p->cursor.attempt = integer(json_array_get(rows, 0), "attempt");
	json_decref(rows);
	return rows ? 0 : LH_ESTORE;
}

static int read_steps(sqlite3 *db, struct page *p, struct lh_err *err)
{
	static const char sql[] =
		"SELECT job, attempt, step, phase, time_ms, loss, grad_norm, lr, tokens,"
		" step_ms, tokens_per_s, data_epoch FROM steps"
		" WHERE job = ?1 AND (attempt, step) > (?2, ?3) ORDER BY attempt, step LIMIT ?4";
	struct lh_bind binds[] = { LH_INT(p->job), LH_INT(p->cursor.attempt),
				   LH_INT(p->cursor.step), LH_INT(PAGE_ROWS + 1) };
	bool more;
	json_t *rows = lh_store_rows(db, sql, binds, 4, PAGE_ROWS, &more, err);

	return put_steps_take(p, rows, more);
}

/* On a pool thread. */
static int read_page(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct page *p = &((struct lh_stream *)arg)->page;
	int rc = 0;

	p->full = false;
	if (p->cursor.attempt < 0)
		rc = find_attempt(db, p, err);
	if (!rc)
		rc = read_events(db, p, err);
	if (!rc && p->steps)
		rc = read_steps(db, p, err);
	return rc;
}

static void on_page(void *arg, int rc, const struct lh_err *err);

static void start_reading(struct lh_stream *s)
{
	lh_store_read(s->request->http->config.store, read_page, on_page, s);
}

static void on_committed(void *arg, int rc, int64_t id, const struct lh_err *err)
{
	struct barrier *b = arg;

	(void)rc; /* if the store gave up, so does the read */
	(void)id;
	(void)err;
	if (b->stream) {
		b->stream->barrier = NULL;
		start_reading(b->stream);
	}
	free(b);
}

/* Subscribes, and reads once all that was pushed before is committed. */
static void settle(struct lh_stream *s)
{
	struct page *p = &s->page;

	s->state = SETTLE;
	p->subscription = lh_feed_add(&s->feed, p->job, p->steps, NULL);
	s->barrier = lh_calloc(1, sizeof(*s->barrier));
	s->barrier->stream = s;
	lh_store_await(s->request->http->config.store, on_committed, s->barrier);
}

static void read_on(struct lh_stream *s)
{
	s->reading = true;
	s->request->pending++;
	start_reading(s);
}

static void finish_reading(struct lh_stream *s)
{
	struct lh_request *r = s->request;

	s->reading = false;
	lh__request_resume(r);
	r->pending--;
	lh__request_settle(r);
}

static void on_page(void *arg, int rc, const struct lh_err *err)
{
	struct lh_stream *s = arg;
	struct page *p = &s->page;

	(void)err;
	lh_buf_append(&s->out, p->text.data, p->text.used_bytes);
	lh_buf_release(&p->text);
	s->rows_event = p->cursor.event;
	s->failed = rc != 0;
	if (!rc && !p->full && s->state == CATCH_UP && !s->released) {
		settle(s);
		return;
	}
	if (!p->full && s->state == SETTLE)
		s->state = LIVE;
	finish_reading(s);
}

/* ---- to the reader --------------------------------------------------------- */

static void fill(struct lh_stream *s)
{
	if (s->state == LIVE)
		while (s->out.used_bytes < AHEAD_BYTES && put_line(s))
			;
	else if (!s->out.used_bytes && !s->reading && !s->failed)
		read_on(s);
}

static ssize_t on_read(void *arg, uint64_t at, char *buf, size_t max)
{
	struct lh_request *r = arg;
	struct lh_stream *s = r->stream;
	size_t n;

	(void)at;
	fill(s);
	n = s->out.used_bytes < max ? s->out.used_bytes : max;
	if (s->gone || (!n && s->failed))
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (!n) {
		lh__request_suspend(r);
		return 0;
	}
	memcpy(buf, s->out.data, n);
	lh_buf_consume(&s->out, n);
	return (ssize_t)n;
}

static void on_wake(struct lh_feed *feed)
{
	struct lh_stream *s = (struct lh_stream *)feed;

	if (s->state == LIVE)
		lh__request_resume(s->request);
}

/* libmicrohttpd does not watch a connection that is suspended. */
static bool has_hung_up(struct lh_request *r)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	char byte;

	return recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void lh__stream_beat(struct lh_request *r)
{
	struct lh_stream *s = r->stream;

	s->gone = s->gone || r->session.expires_ms <= lh_time_ms();
	/* One that is not suspended has something to send already. */
	if (!r->suspended)
		return;
	s->gone = s->gone || has_hung_up(r);
	lh_buf_append(&s->out, ":\n\n", 3);
	lh__request_resume(r);
}

struct MHD_Response *lh__stream_response(struct lh_request *r)
{
	struct MHD_Response *response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, CHUNK_BYTES, on_read, r, NULL);

	LH_ASSERT(response);
	return response;
}

/* ---- the request ----------------------------------------------------------- */

/* A number of the query; `absent` if it is not there, -2 if it is none. */
static int64_t query_number(struct lh_request *r, const char *name, int64_t absent)
{
	const char *text = MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND,
						       name);
	char *end;
	long long v;

	if (!text)
		return absent;
	errno = 0;
	v = strtoll(text, &end, 10);
	return errno || *end || end == text || v < 0 ? -2 : v;
}

/* Where to go on: the header, else the query, else now. */
static int find_cursor(struct lh_request *r, struct page *p, struct lh_err *err)
{
	const struct lh_http_config *c = &r->http->config;
	const char *last = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND,
						       "Last-Event-ID");
	json_t *job = p->job ? lh_jobs_get(c->jobs, p->job) : NULL;
	struct cursor now = { lh_jobs_last_event(c->jobs), integer(job, "attempt"),
			      integer(job, "step") };
	struct cursor *at = &p->cursor;
	int end = 0;

	json_decref(job);
	*at = now;
	if (last) {
		if (sscanf(last, "%18" SCNd64 ".%18" SCNd64 ".%18" SCNd64 "%n", &at->event,
			   &at->attempt, &at->step, &end) == 3 && !last[end] &&
		    at->event >= 0 && at->attempt >= -1 && at->step >= 0)
			return 0;
		return lh_err_set(err, LH_EPARAMS, "'Last-Event-ID' is not one of ours");
	}
	at->event = query_number(r, "after_event", now.event);
	at->step = query_number(r, "after_step", -1);
	at->attempt = query_number(r, "after_attempt", -1);
	if (at->event == -2 || at->step == -2 || at->attempt == -2)
		return lh_err_set(err, LH_EPARAMS, "'after_event', 'after_step' and "
				  "'after_attempt' must be numbers from 0");
	if (at->step < 0) {
		at->step = now.step;
		at->attempt = now.attempt;
	}
	return 0;
}

/* 0, or the status to refuse it with. */
static unsigned check(struct lh_request *r, struct page *p, struct lh_err *err)
{
	int64_t steps = query_number(r, "steps", 0);

	p->job = query_number(r, "job", 0);
	p->steps = steps == 1;
	if (p->job < 0 || steps < 0 || steps > 1 || (steps && !p->job)) {
		lh_err_set(err, LH_EPARAMS, "'job' must be the number of a job, 'steps' 0 or 1");
		lh_err_hint(err, "steps are of one job; job.list tells of all");
		return MHD_HTTP_BAD_REQUEST;
	}
	if (p->job && !lh_jobs_exists(r->http->config.jobs, p->job)) {
		lh_err_set(err, LH_ENOTFOUND, "there is no job %" PRId64, p->job);
		return MHD_HTTP_NOT_FOUND;
	}
	if (r->http->stream_count == LH_HTTP_MAX_STREAMS) {
		lh_err_set(err, LH_ETOOBIG, "%d streams are open already",
			   LH_HTTP_MAX_STREAMS);
		return MHD_HTTP_SERVICE_UNAVAILABLE;
	}
	return find_cursor(r, p, err) ? MHD_HTTP_BAD_REQUEST : 0;
}

void lh__stream_start(struct lh_request *r)
{
	struct lh_stream *s = lh_calloc(1, sizeof(*s));
	struct lh_err err = LH_ERR_INIT;
	unsigned status = check(r, &s->page, &err);

	if (status) {
		free(s);
		lh__request_refuse(r, status, &err);
		return;
	}
	s->request = r;
	s->page.subscription = 1; /* what a feed's first one will be */
	lh_feed_init(&s->feed, lh_server_hub(r->http->config.server),
		     LH_HTTP_PUSH_GAP_MS, on_wake);
	r->stream = s;
	r->http->stream_count++;
	MHD_set_connection_option(r->connection, MHD_CONNECTION_OPTION_TIMEOUT,
				  (unsigned)LH_HTTP_STREAM_IDLE_S);
	put_hello(s);
}

void lh__stream_release(struct lh_request *r)
{
	struct lh_stream *s = r->stream;

	if (!s || s->released)
		return;
	s->released = true;
	r->http->stream_count--;
	lh_feed_release(&s->feed);
	if (s->barrier) {
		s->barrier->stream = NULL;
		s->barrier = NULL;
		r->pending--;
	}
}

void lh__stream_free(struct lh_request *r)
{
	struct lh_stream *s = r->stream;

	if (!s)
		return;
	lh_buf_release(&s->out);
	lh_buf_release(&s->page.text);
	free(s);
	r->stream = NULL;
}

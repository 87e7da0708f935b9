/* journal.c: batches of writes and events; see journal.h. */
#include "jobs/journal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"
#include "base/log.h"

struct lh_journal {
	struct lh_store *store;
	lh_event_sink sink;
	void *sink_arg;
	int64_t next_event;
	int64_t pushed;     /* newest event the sink got */
	int in_flight;      /* batches */
	bool closed;
};

struct lh_batch {
	struct lh_journal *journal;
	struct lh_write *write; /* NULL while empty */
	json_t *events;         /* as pushed */
	lh_batch_done done;
	void *arg;
};

struct lh_journal *lh_journal_new(struct lh_store *store, int64_t last_event,
				  lh_event_sink sink, void *sink_arg)
{
	struct lh_journal *j = lh_calloc(1, sizeof(*j));

	j->store = store;
	j->sink = sink;
	j->sink_arg = sink_arg;
	j->next_event = last_event + 1;
	j->pushed = last_event;
	return j;
}

void lh_journal_close(struct lh_journal *j)
{
	j->closed = true;
	if (!j->in_flight)
		free(j);
}

int64_t lh_journal_last_event(const struct lh_journal *j)
{
	return j->pushed;
}

void lh_journal_push_step_take(struct lh_journal *j, int64_t job, json_t *json)
{
	struct lh_event ev = { .job = job, .is_step = true, .json = json };

	if (j->sink)
		j->sink(j->sink_arg, &ev);
	json_decref(json);
}

struct lh_batch *lh_batch_new(struct lh_journal *j)
{
	struct lh_batch *b = lh_calloc(1, sizeof(*b));

	b->journal = j;
	b->events = json_array();
	return b;
}

void lh_batch_add(struct lh_batch *b, enum lh_stmt stmt, const struct lh_bind *binds,
		  int count)
{
	if (!b->write)
		b->write = lh_write_new();
	lh_write_add(b->write, stmt, binds, count);
}

void lh_batch_may_fail(struct lh_batch *b)
{
	lh_write_may_fail(b->write);
}

static json_t *id_or_null(int64_t id, bool given)
{
	return given ? json_integer(id) : json_null();
}

void lh_batch_event_take(struct lh_batch *b, int64_t job, int64_t attempt, int64_t step,
			 const char *kind, json_t *data, const char *fmt, ...)
{
	int64_t id = b->journal->next_event++, now_ms = lh_time_ms();
	char raw[1024], text[sizeof(raw)], *data_text;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(raw, sizeof(raw), fmt, ap);
	va_end(ap);
	lh_escape(text, sizeof(text), raw); /* and now it is UTF-8 */
	if (!data)
		data = json_object();
	data_text = json_dumps(data, JSON_COMPACT);
	lh_batch_add(b, LH_STMT_EVENT_INSERT,
		     (struct lh_bind[]){ LH_INT(id), job ? LH_INT(job) : LH_NULL,
					 attempt ? LH_INT(attempt) : LH_NULL,
					 step >= 0 ? LH_INT(step) : LH_NULL,
					 LH_INT(now_ms), LH_TEXT(kind),
					 LH_TEXT(text), LH_TEXT(data_text) },
		     8);
	free(data_text);
	json_array_append_new(
		b->events,
		json_pack("{s:I, s:o, s:o, s:o, s:I, s:s, s:s, s:o}", "id", (json_int_t)id,
			  "job", id_or_null(job, job != 0), "attempt",
			  id_or_null(attempt, attempt != 0), "step",
			  id_or_null(step, step >= 0), "time_ms", (json_int_t)now_ms,
			  "kind", kind, "text", text, "data", data));
}

static void push(struct lh_journal *j, json_t *json)
{
	struct lh_event ev = {
		.id = json_integer_value(json_object_get(json, "id")),
		.job = json_integer_value(json_object_get(json, "job")),
		.json = json,
	};

	j->pushed = ev.id;
	if (j->sink)
		j->sink(j->sink_arg, &ev);
}

static void finish(struct lh_batch *b, int rc, const struct lh_err *err)
{
	struct lh_journal *j = b->journal;
	json_t *event;
	size_t i;

	if (!rc)
		json_array_foreach (b->events, i, event)
			if (!j->closed)
				push(j, event);
	if (b->done && !j->closed)
		b->done(b->arg, rc, err);
	json_decref(b->events);
	free(b);
}

static void on_written(void *arg, int rc, int64_t id, const struct lh_err *err)
{
	struct lh_batch *b = arg;
	struct lh_journal *j = b->journal;

	(void)id;
	finish(b, rc, err);
	if (!--j->in_flight && j->closed)
		free(j);
}

bool lh_batch_has_event(const struct lh_batch *b)
{
	return json_array_size(b->events) > 0;
}

void lh_batch_commit(struct lh_batch *b, bool durable, lh_batch_done done, void *arg)
{
	b->done = done;
	b->arg = arg;
	if (!b->write) {
		finish(b, 0, NULL);
		return;
	}
	b->journal->in_flight++;
	/* Events are rare and somebody waits for them: they do not wait for more. */
	durable |= lh_batch_has_event(b);
	lh_store_submit_take(b->journal->store, b->write, durable, on_written, b);
}

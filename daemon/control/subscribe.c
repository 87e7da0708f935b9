/* subscribe.c: bounded queues of pushed lines; see subscribe.h. */
#include "control/subscribe.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The timer's step: gaps end a little late. */
enum { GATHER_MS = 20 };

struct lh_subscription {
	int64_t id;
	int64_t job;               /* 0 = all */
	bool steps;
	int64_t lost_events, lost_steps; /* not told yet */
	struct lh_subscription *next;
};

/* The members of an event after its "{", shared by the entries of all feeds. */
struct text {
	int refs;
	bool is_step;
	struct lh_feed_kind kind;
	struct lh_buf json;
};

struct lh_feed_entry {
	struct text *text;
	struct lh_subscription *sub;
	struct lh_feed_entry *next;
};

static void text_unref(struct text *t)
{
	if (--t->refs)
		return;
	lh_buf_release(&t->json);
	free(t);
}

/* What an entry costs. Shared texts are counted in full: they are shared only
 * with feeds that may have gone on already. */
static size_t cost(const struct lh_feed_entry *e)
{
	return e->text->json.used_bytes + sizeof(*e);
}

void lh_feed_init(struct lh_feed *f, struct lh_hub *hub, uint64_t gap_ms,
		  void (*wake)(struct lh_feed *f))
{
	memset(f, 0, sizeof(*f));
	f->hub = hub;
	f->gap_ms = gap_ms;
	f->wake = wake;
	f->end = &f->first;
}

static struct lh_feed_entry *shift(struct lh_feed *f)
{
	struct lh_feed_entry *e = f->first;

	f->first = e->next;
	if (!f->first)
		f->end = &f->first;
	f->used_bytes -= cost(e);
	return e;
}

static void entry_free(struct lh_feed_entry *e)
{
	text_unref(e->text);
	free(e);
}

static void unlink_feed(struct lh_feed *f)
{
	*f->link = f->next;
	if (f->next)
		f->next->link = f->link;
	f->link = NULL;
}

void lh_feed_release(struct lh_feed *f)
{
	struct lh_subscription *sub;

	while (f->first)
		entry_free(shift(f));
	while ((sub = f->subs)) {
		f->subs = sub->next;
		free(sub);
	}
	f->sub_count = 0;
	if (f->link)
		unlink_feed(f);
}

int64_t lh_feed_add(struct lh_feed *f, int64_t job, bool steps, struct lh_err *err)
{
	struct lh_subscription *sub;

	if (f->sub_count == LH_FEED_MAX_SUBSCRIPTIONS)
		return lh_err_set(err, LH_ETOOBIG,
				  "a connection may hold %d subscriptions",
				  LH_FEED_MAX_SUBSCRIPTIONS);
	sub = lh_calloc(1, sizeof(*sub));
	sub->id = ++f->last_id;
	sub->job = job;
	sub->steps = steps;
	sub->next = f->subs;
	f->subs = sub;
	f->sub_count++;
	if (!f->link) {
		f->next = f->hub->feeds;
		f->link = &f->hub->feeds;
		if (f->next)
			f->next->link = &f->next;
		f->hub->feeds = f;
	}
	return sub->id;
}

static void forget_entries(struct lh_feed *f, const struct lh_subscription *sub)
{
	struct lh_feed_entry **p = &f->first, *e;

	while ((e = *p)) {
		if (e->sub != sub) {
			p = &e->next;
			continue;
		}
		*p = e->next;
		f->used_bytes -= cost(e);
		entry_free(e);
	}
	f->end = p;
}

int lh_feed_remove(struct lh_feed *f, int64_t subscription, struct lh_err *err)
{
	struct lh_subscription **p = &f->subs, *sub;

	while ((sub = *p) && sub->id != subscription)
		p = &sub->next;
	if (!sub)
		return lh_err_set(err, LH_ENOTFOUND,
				  "this connection has no subscription %" PRId64,
				  subscription);
	forget_entries(f, sub);
	*p = sub->next;
	free(sub);
	if (!--f->sub_count)
		unlink_feed(f);
	return 0;
}

static void lose_oldest(struct lh_feed *f)
{
	struct lh_feed_entry *e = shift(f);

	if (e->text->is_step)
		e->sub->lost_steps++;
	else
		e->sub->lost_events++;
	entry_free(e);
}

static void push(struct lh_feed *f, struct lh_subscription *sub, struct text *t)
{
	struct lh_feed_entry *e = lh_calloc(1, sizeof(*e));

	e->text = t;
	e->sub = sub;
	t->refs++;
	*f->end = e;
	f->end = &e->next;
	f->used_bytes += cost(e);
	/* The newest always stays, however long it is. */
	while (f->used_bytes > LH_FEED_MAX_BYTES && f->first != e)
		lose_oldest(f);
}

static bool wants(const struct lh_subscription *sub, const struct lh_event *ev)
{
	return (!sub->job || sub->job == ev->job) && (!ev->is_step || sub->steps);
}

static struct text *text_new(const struct lh_event *ev)
{
	struct text *t = lh_calloc(1, sizeof(*t));

	LH_ASSERT(json_object_size(ev->json));
	t->refs = 1;
	t->is_step = ev->is_step;
	t->kind.method = ev->is_step ? "step" : "event";
	t->kind.event = ev->id;
	if (ev->is_step) {
		t->kind.attempt = json_integer_value(json_object_get(ev->json, "attempt"));
		t->kind.step = json_integer_value(json_object_get(ev->json, "step"));
	}
	lh_buf_json(&t->json, ev->json);
	lh_buf_consume(&t->json, 1);
	return t;
}

/* What was lost is older than all that is queued, so it is told first. */
static struct lh_subscription *next_lost(const struct lh_feed *f)
{
	struct lh_subscription *sub = f->subs;

	while (sub && !sub->lost_events && !sub->lost_steps)
		sub = sub->next;
	return sub;
}

static void on_gathered(uv_timer_t *timer);

/* At once, if its gap is over or there is so much that some might be lost for waiting. */
static void wake(struct lh_feed *f)
{
	uv_timer_t *gather = f->hub->gather;

	if (!gather || uv_now(gather->loop) - f->taken_ms >= f->gap_ms ||
	    f->used_bytes > LH_FEED_MAX_BYTES / 4)
		f->wake(f);
	else if (!uv_is_active((uv_handle_t *)gather))
		uv_timer_start(gather, on_gathered, GATHER_MS, 0);
}

static void on_gathered(uv_timer_t *timer)
{
	struct lh_hub *hub = timer->data;

	for (struct lh_feed *f = hub->feeds; f; f = f->next)
		if (f->first || next_lost(f))
			wake(f);
}

void lh_hub_publish(struct lh_hub *hub, const struct lh_event *ev)
{
	struct lh_subscription *sub;
	struct text *t = NULL;
	struct lh_feed *f;
	bool any;

	for (f = hub->feeds; f; f = f->next) {
		any = false;
		for (sub = f->subs; sub; sub = sub->next) {
			if (!wants(sub, ev))
				continue;
			if (!t)
				t = text_new(ev);
			push(f, sub, t);
			any = true;
		}
		if (any)
			wake(f);
	}
	if (t)
		text_unref(t);
}

static void take_lost(struct lh_subscription *sub, struct lh_buf *out)
{
	lh_buf_printf(out,
		      "{\"subscription\":%" PRId64 ",\"events\":%" PRId64
		      ",\"steps\":%" PRId64 "}",
		      sub->id, sub->lost_events, sub->lost_steps);
	sub->lost_events = sub->lost_steps = 0;
}

static void take_entry(struct lh_feed *f, struct lh_buf *out)
{
	struct lh_feed_entry *e = shift(f);

	lh_buf_printf(out, "{\"subscription\":%" PRId64 ",", e->sub->id);
	lh_buf_append(out, e->text->json.data, e->text->json.used_bytes);
	entry_free(e);
}

/* What the next line is of; false when there is none. */
static bool peek(const struct lh_feed *f, struct lh_feed_kind *kind)
{
	if (next_lost(f))
		*kind = (struct lh_feed_kind){ .method = "lost" };
	else if (f->first)
		*kind = f->first->text->kind;
	else
		return false;
	return true;
}

bool lh_feed_take_params(struct lh_feed *f, struct lh_feed_kind *kind, struct lh_buf *out)
{
	struct lh_subscription *lost = next_lost(f);

	if (!peek(f, kind))
		return false;
	if (f->hub->gather)
		f->taken_ms = uv_now(f->hub->gather->loop);
	if (lost)
		take_lost(lost, out);
	else
		take_entry(f, out);
	return true;
}

bool lh_feed_take(struct lh_feed *f, struct lh_buf *out)
{
	struct lh_feed_kind kind;

	if (!peek(f, &kind))
		return false;
	lh_buf_printf(out, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":",
		      kind.method);
	lh_feed_take_params(f, &kind, out);
	lh_buf_append(out, "}\n", 2);
	return true;
}

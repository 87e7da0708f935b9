/* server.c: the listening socket and the turns; see server.h. */
#include "control/server.h"

#include <stdlib.h>

#include "base/log.h"
#include "control/access.h"
#include "control/server_int.h"

#define BACKLOG 511

void lh__server_make_due(struct lh_client *c)
{
	struct lh_server *s = c->server;

	if (c->due || c->closing)
		return;
	c->due = true;
	c->due_next = NULL;
	*s->due_end = c;
	s->due_end = &c->due_next;
}

void lh__server_forget_due(struct lh_client *c)
{
	struct lh_server *s = c->server;
	struct lh_client **link = &s->due;

	/* One that is not found is in the turn that is under way: nothing is freed
	 * before that is over. */
	while (*link && *link != c)
		link = &(*link)->due_next;
	if (!*link)
		return;
	*link = c->due_next;
	if (s->due_end == &c->due_next)
		s->due_end = link;
	c->due = false;
}

static void on_idle(uv_idle_t *idle)
{
	(void)idle;
}

/* One turn for everybody who was due when it began. */
static void turn(struct lh_server *s)
{
	struct lh_client *c = s->due, *next;

	s->due = NULL;
	s->due_end = &s->due;
	for (; c; c = next) {
		next = c->due_next;
		c->due = false;
		lh__client_turn(c);
	}
	if (s->closing)
		return;
	if (s->due)
		uv_idle_start(&s->idle, on_idle);
	else
		uv_idle_stop(&s->idle);
}

static void on_refill(uv_timer_t *timer)
{
	struct lh_server *s = timer->data;

	for (struct lh_client *c = s->clients; c; c = c->next) {
		c->allowance = LH_GUEST_CALLS;
		lh__server_make_due(c);
	}
}

void lh__server_await_refill(struct lh_server *s)
{
	if (!s->closing && !uv_is_active((uv_handle_t *)&s->refill))
		uv_timer_start(&s->refill, on_refill, LH_GUEST_REFILL_MS, 0);
}

static void on_prepare(uv_prepare_t *prepare)
{
	turn(prepare->data);
}

static void on_check(uv_check_t *check)
{
	turn(check->data);
}

static void on_connection(uv_stream_t *listener, int status)
{
	if (status < 0)
		lh_warn("control socket: %s", uv_strerror(status));
	else
		lh__client_accept(listener->data);
}

int lh_server_open(struct lh_server **server, uv_loop_t *loop, const char *path,
		   const struct lh_rpc *rpc, struct lh_err *err)
{
	struct lh_server *s = lh_calloc(1, sizeof(*s));
	int rc;

	s->rpc = rpc;
	s->loop = loop;
	s->due_end = &s->due;
	s->handles = 6;
	uv_prepare_init(loop, &s->prepare);
	uv_check_init(loop, &s->check);
	uv_idle_init(loop, &s->idle);
	uv_timer_init(loop, &s->refill);
	uv_timer_init(loop, &s->gather);
	s->prepare.data = s->check.data = s->idle.data = s->refill.data = s;
	s->hub.gather = &s->gather;
	s->gather.data = &s->hub;
	uv_prepare_start(&s->prepare, on_prepare);
	uv_check_start(&s->check, on_check);
	/* Whom it lets in, admit() looks at. */
	rc = lh_listener_open(&s->listener, loop, path,
			      rpc->access && rpc->access->count ? 0666 : 0600, BACKLOG,
			      on_connection, s, err);
	s->listening = true; /* to be closed, in any case */
	if (rc)
		lh_server_close(s, NULL, NULL);
	else
		*server = s;
	return rc;
}

static void finish_close(struct lh_server *s)
{
	void (*closed)(void *arg) = s->closed_cb;
	void *arg = s->closed_arg;

	if (s->handles || s->client_count)
		return;
	free(s);
	if (closed)
		closed(arg);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct lh_server *s = handle->data;

	s->handles--;
	finish_close(s);
}

static void on_listener_closed(void *arg)
{
	struct lh_server *s = arg;

	s->handles--;
	finish_close(s);
}

void lh__server_client_gone(struct lh_server *s)
{
	s->client_count--;
	if (s->closing)
		finish_close(s);
}

void lh_server_stop_accepting(struct lh_server *s)
{
	if (!s->listening)
		return;
	s->listening = false;
	lh_listener_close(&s->listener, on_listener_closed);
}

void lh_server_close(struct lh_server *s, void (*closed)(void *arg), void *arg)
{
	struct lh_client *c, *next;

	LH_ASSERT(!s->closing);
	s->closed_cb = closed;
	s->closed_arg = arg;
	lh_server_stop_accepting(s);
	for (c = s->clients; c; c = next) {
		next = c->next;
		lh__client_close(c);
	}
	s->closing = true;
	uv_close((uv_handle_t *)&s->prepare, on_handle_closed);
	uv_close((uv_handle_t *)&s->check, on_handle_closed);
	uv_close((uv_handle_t *)&s->idle, on_handle_closed);
	uv_close((uv_handle_t *)&s->refill, on_handle_closed);
	s->hub.gather = NULL;
	s->gather.data = s;
	uv_close((uv_handle_t *)&s->gather, on_handle_closed);
}

int lh_server_clients(const struct lh_server *s)
{
	return s->client_count;
}

struct lh_hub *lh_server_hub(struct lh_server *s)
{
	return &s->hub;
}

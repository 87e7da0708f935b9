/* client.c: one control connection; limits in server.h.
 *
 * Callbacks of libuv only note what happened and make the client due; lines are
 * taken, answers written and the connection ended in lh__client_turn() alone.
 * So nothing is freed under a caller's feet, answers of one turn leave together,
 * and no client gets more than its share of a turn.
 *
 *   socket -> frame -> lh_rpc_line -> handler -> send -> out -> socket
 *                                   feed (subscriptions) --^  while out is short
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "control/access.h"
#include "control/server_int.h"
#include "lighthouse/proto.h"

/* Pushed lines wait in the feed, where the oldest can be lost, as long as this
 * much is unsent. */
#define FEED_AHEAD_BYTES (64u << 10)

/* Of a peer, that are looked at. */
enum { GROUPS_MAX = 256 };

static size_t unsent(const struct lh_client *c)
{
	return c->out.used_bytes +
	       uv_stream_get_write_queue_size((const uv_stream_t *)&c->pipe);
}

/* ---- memory --------------------------------------------------------------- */

static void free_if_done(struct lh_client *c)
{
	struct lh_server *s = c->server;

	if (!c->closed || c->peer.call_count)
		return;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	lh_frame_release(&c->frame);
	lh_buf_release(&c->out);
	lh_buf_release(&c->writing);
	free(c);
	lh__server_client_gone(s);
}

static void on_closed(uv_handle_t *handle)
{
	struct lh_client *c = handle->data;

	c->closed = true;
	free_if_done(c);
}

/* ---- out ------------------------------------------------------------------ */

static void on_send(struct lh_peer *peer, const struct lh_buf *message, bool piece)
{
	struct lh_client *c = (struct lh_client *)peer;

	(void)piece;
	if (c->closing || c->broken)
		return;
	lh_buf_append(&c->out, message->data, message->used_bytes);
	lh_buf_append(&c->out, "\n", 1);
	if (unsent(c) > LH_CLIENT_DROP_BYTES) {
		lh_warn("control: pid %lld does not read its answers, closed",
			(long long)peer->pid);
		c->broken = true;
	}
	lh__server_make_due(c);
}

static void on_call_ended(struct lh_peer *peer)
{
	struct lh_client *c = (struct lh_client *)peer;

	lh__server_make_due(c);
	free_if_done(c);
}

static void on_written(uv_write_t *write, int status)
{
	struct lh_client *c = write->data;

	write->data = NULL;
	lh_buf_consume(&c->writing, c->writing.used_bytes);
	if (status < 0)
		c->broken = true;
	lh__server_make_due(c);
}

/* What the kernel does not take at once waits in `writing`, one write at a time;
 * `out` goes on collecting. */
static void flush(struct lh_client *c)
{
	uv_stream_t *stream = (uv_stream_t *)&c->pipe;
	struct lh_buf spare;
	uv_buf_t buf;
	int n;

	if (c->write.data || !c->out.used_bytes || c->broken)
		return;
	buf = uv_buf_init(c->out.data, (unsigned)c->out.used_bytes);
	n = uv_try_write(stream, &buf, 1);
	if (n > 0)
		lh_buf_consume(&c->out, (size_t)n);
	if (n < 0 && n != UV_EAGAIN)
		c->broken = true;
	if (c->broken || !c->out.used_bytes)
		return;
	spare = c->writing;
	c->writing = c->out;
	c->out = spare;
	buf = uv_buf_init(c->writing.data, (unsigned)c->writing.used_bytes);
	c->write.data = c;
	if (uv_write(&c->write, stream, &buf, 1, on_written)) {
		c->write.data = NULL;
		c->broken = true;
	}
}

/* Pushed lines, as long as the peer keeps up. */
static void pump_feed(struct lh_client *c)
{
	flush(c);
	while (!c->broken && unsent(c) < FEED_AHEAD_BYTES &&
	       lh_feed_take(&c->feed, &c->out))
		if (unsent(c) >= FEED_AHEAD_BYTES)
			flush(c);
	flush(c);
}

static void on_feed(struct lh_feed *feed)
{
	lh__server_make_due((struct lh_client *)((char *)feed -
						 offsetof(struct lh_client, feed)));
}

/* ---- in ------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct lh_client *c = handle->data;

	(void)suggested;
	*buf = uv_buf_init(c->server->read_buf, sizeof(c->server->read_buf));
}

static void stop_reading(struct lh_client *c)
{
	if (c->reading)
		uv_read_stop((uv_stream_t *)&c->pipe);
	c->reading = false;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct lh_client *c = stream->data;

	if (n == 0)
		return;
	if (n < 0) {
		stop_reading(c);
		c->eof = true;
		c->broken |= n != UV_EOF;
	} else {
		lh_frame_push(&c->frame, buf->base, (size_t)n);
		c->pending = true;
		/* There is more; a turn for the others comes first. */
		if ((size_t)n == buf->len)
			stop_reading(c);
	}
	lh__server_make_due(c);
}

static bool may_take(const struct lh_client *c)
{
	return !c->closing && !c->broken && c->allowance > 0 &&
	       c->peer.call_count < LH_CLIENT_MAX_CALLS &&
	       unsent(c) <= LH_CLIENT_PAUSE_BYTES;
}

/* Owner and root have no limit but those of everybody. */
static void spend(struct lh_client *c)
{
	if (c->peer.role != LH_ROLE_SUBMIT && !--c->allowance)
		lh__server_await_refill(c->server);
}

static void take_lines(struct lh_client *c)
{
	struct lh_err err = LH_ERR_INIT;
	int budget = LH_CLIENT_TURN_CALLS, rc;
	char *line;
	size_t len;

	while (c->pending && budget-- && may_take(c)) {
		rc = lh_frame_next(&c->frame, &line, &len);
		if (rc > 0) {
			spend(c);
			lh_rpc_line(c->server->rpc, &c->peer, line, len);
		} else if (rc == 0) {
			c->pending = false;
		} else {
			lh_err_set(&err, rc, "a line is longer than %u bytes",
				   LH_PROTO_LINE_MAX_BYTES);
			lh_rpc_refuse(&c->peer, &err);
		}
	}
}

static void choose_reading(struct lh_client *c)
{
	bool want = !c->eof && !c->pending && may_take(c);

	if (want == c->reading)
		return;
	if (!want)
		stop_reading(c);
	else if (uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read))
		c->broken = true;
	else
		c->reading = true;
}

/* ---- life ----------------------------------------------------------------- */

static bool finished(const struct lh_client *c)
{
	return c->eof && !c->pending && !c->peer.call_count && !unsent(c);
}

void lh__client_turn(struct lh_client *c)
{
	if (c->closing)
		return;
	take_lines(c);
	if (c->closing) /* a call ended the server, and it this client */
		return;
	pump_feed(c);
	choose_reading(c);
	if (c->broken || finished(c))
		lh__client_close(c);
	else if (c->pending && may_take(c))
		lh__server_make_due(c);
}

void lh__client_close(struct lh_client *c)
{
	if (c->closing)
		return;
	flush(c);
	c->closing = true;
	lh__server_forget_due(c); /* its answer of this very turn may have made it so */
	lh_feed_release(&c->feed);
	uv_close((uv_handle_t *)&c->pipe, on_closed);
	lh_peer_lost(&c->peer);
}

static struct lh_client *client_new(struct lh_server *s)
{
	struct lh_client *c = lh_calloc(1, sizeof(*c));

	c->server = s;
	c->peer.send = on_send;
	c->peer.ended = on_call_ended;
	c->peer.feed = &c->feed;
	lh_frame_init(&c->frame, LH_PROTO_LINE_MAX_BYTES);
	lh_feed_init(&c->feed, &s->hub, LH_CLIENT_PUSH_GAP_MS, on_feed);
	uv_pipe_init(s->loop, &c->pipe, 0);
	c->pipe.data = c;
	c->next = s->clients;
	c->link = &s->clients;
	if (c->next)
		c->next->link = &c->next;
	s->clients = c;
	s->client_count++;
	return c;
}

/* The groups of a peer, its own first. */
static int groups_of(int fd, gid_t own, gid_t *groups, int max)
{
	socklen_t len = (socklen_t)((size_t)(max - 1) * sizeof(*groups));

	groups[0] = own;
	return getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups + 1, &len) ?
		       1 : 1 + (int)(len / sizeof(*groups));
}

/* Who is it, may it, and is there a place? */
static int admit(struct lh_client *c, struct lh_err *err)
{
	const struct lh_rpc *rpc = c->server->rpc;
	gid_t groups[GROUPS_MAX];
	struct ucred who;
	socklen_t len = sizeof(who);
	uv_os_fd_t fd;

	if (uv_fileno((uv_handle_t *)&c->pipe, &fd) ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len))
		return lh_err_set(err, LH_EDENIED, "cannot tell who is calling");
	c->peer.uid = who.uid;
	c->peer.pid = who.pid;
	if (!lh_access_role(rpc->access, who.uid, groups,
			    groups_of(fd, who.gid, groups, GROUPS_MAX), &c->peer.role)) {
		if (rpc->denied)
			rpc->denied(rpc->ctx, &c->peer, NULL);
		lh_err_set(err, LH_EDENIED, "uid %u may not control the lhd of uid %u",
			   (unsigned)who.uid, (unsigned)geteuid());
		return lh_err_hint(err, "lhd --allow lets others look or steer");
	}
	c->allowance = LH_GUEST_CALLS;
	if (c->server->client_count > LH_SERVER_MAX_CLIENTS)
		return lh_err_set(err, LH_ETOOBIG, "%d connections are open already",
				  LH_SERVER_MAX_CLIENTS);
	return 0;
}

void lh__client_accept(struct lh_server *s)
{
	struct lh_client *c = client_new(s);
	struct lh_err err = LH_ERR_INIT;

	if (uv_accept((uv_stream_t *)&s->listener.pipe, (uv_stream_t *)&c->pipe)) {
		c->broken = true;
	} else if (admit(c, &err)) {
		lh_rpc_refuse(&c->peer, &err);
		c->eof = true;
	}
	lh__server_make_due(c);
}

/* connection.c: how long a connection may take for what it does.
 *
 *   asking    its next request is not all there yet: LH_HTTP_ASK_MS
 *   working   we owe it an answer, or it is a stream: no limit
 *   taking    its answer is on the way: LH_HTTP_TAKE_MS
 *
 * libmicrohttpd closes a connection on which nothing moves, but one that gives or takes a
 * byte now and then would keep its place for ever, and places are few. It has no call to
 * end a connection; one whose socket is shut down it closes by itself. */
#include <stdlib.h>
#include <sys/socket.h>

#include "http/http_int.h"

struct lh_connection {
	struct lh_http *http;
	struct MHD_Connection *mhd;
	uint64_t until_ms;           /* loop's clock; 0: no limit */
	struct lh_connection *next, **link;
};

struct lh_connection *lh__connection_new(struct lh_http *h, struct MHD_Connection *connection)
{
	struct lh_connection *c = lh_calloc(1, sizeof(*c));

	c->http = h;
	c->mhd = connection;
	c->until_ms = uv_now(h->config.loop) + LH_HTTP_ASK_MS;
	c->next = h->connections;
	c->link = &h->connections;
	if (c->next)
		c->next->link = &c->next;
	h->connections = c;
	return c;
}

void lh__connection_free(struct lh_connection *c)
{
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	free(c);
}

void lh__connection_limit(struct MHD_Connection *connection, int64_t ms)
{
	struct lh_connection *c =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)
			->socket_context;

	c->until_ms = ms ? uv_now(c->http->config.loop) + (uint64_t)ms : 0;
}

void lh__connections_look(struct lh_http *h)
{
	uint64_t now_ms = uv_now(h->config.loop);

	for (struct lh_connection *c = h->connections; c; c = c->next) {
		if (!c->until_ms || now_ms < c->until_ms)
			continue;
		c->until_ms = 0;
		shutdown(MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CONNECTION_FD)
				 ->connect_fd,
			 SHUT_RDWR);
	}
}

/* http_int.h: what the files of the server share: the server, and one request.
 *
 * libmicrohttpd calls into request.c for each request: once with its head, for each
 * piece of its body, and once when that is all. A request that has no answer by then
 * is suspended until lh__request_answer. It lives until libmicrohttpd is through with it
 * and what it began (calls, reads) has ended, whichever is later.
 */
#ifndef LIGHTHOUSE_HTTP_INT_H
#define LIGHTHOUSE_HTTP_INT_H

#include <microhttpd.h>

#include "base/buf.h"
#include "http/http.h"
#include "http/session.h"

struct lh_connection;
struct lh_request;
struct lh_stream;

struct lh_http {
	struct lh_http_config config; /* all set at open */
	char address[64];
	int64_t started_ms;
	struct lh_sessions *sessions;
	struct MHD_Daemon *mhd;       /* NULL: closed */
	uv_poll_t poll;               /* of its epoll */
	uv_timer_t due;               /* when it wants to be run next */
	uv_timer_t beat;              /* of streams and limits */
	int handles;                  /* of these, not closed yet */
	struct lh_connection *connections;
	struct lh_request *requests;
	int request_count, stream_count;
	bool again;                   /* kicked while it ran */
	bool accepting, closing;
	void (*closed_cb)(void *arg);
	void *closed_arg;
};

struct lh_route {
	const char *path;
	const char *method;
	bool wants_key;
	size_t body_max_bytes;        /* 0: no body is read */
	void (*start)(struct lh_request *r);
};

struct lh_request {
	struct lh_peer peer;          /* first: a peer is its request; for /rpc */
	struct lh_http *http;
	struct MHD_Connection *connection;
	const struct lh_route *route;
	struct lh_session session;    /* whose key it is */
	struct lh_buf body;
	struct lh_stream *stream;     /* of /events */
	bool started;                 /* route->start was called */
	bool suspended;
	bool over;                    /* libmicrohttpd is through with it */
	int pending;                  /* reads under way */
	/* The answer, once there is one. */
	bool ready;
	unsigned status;
	const char *type;             /* static */
	struct lh_buf answer;
	struct lh_request *next, **link;
};

/* request.c. The handlers that libmicrohttpd is given. */
enum MHD_Result lh__request_take(void *http, struct MHD_Connection *connection,
				 const char *url, const char *method, const char *version,
				 const char *upload, size_t *upload_bytes, void **request);
void lh__request_completed(void *http, struct MHD_Connection *connection, void **request,
			   enum MHD_RequestTerminationCode how);
/* The answer is r->answer, of this type; or the error, as JSON. */
void lh__request_answer(struct lh_request *r, unsigned status, const char *type);
void lh__request_refuse(struct lh_request *r, unsigned status, const struct lh_err *err);
void lh__request_suspend(struct lh_request *r);
void lh__request_resume(struct lh_request *r);
/* Something that counted in r->pending has ended. */
void lh__request_settle(struct lh_request *r);
/* Headers of every answer. */
void lh__response_guard(struct MHD_Response *response);

/* connection.c. */
struct lh_connection *lh__connection_new(struct lh_http *h, struct MHD_Connection *connection);
void lh__connection_free(struct lh_connection *c);
/* It is cut if this is not over in so many milliseconds; 0: it may take its time. */
void lh__connection_limit(struct MHD_Connection *connection, int64_t ms);
/* Cuts those whose time is over. */
void lh__connections_look(struct lh_http *h);

/* asset.c. Queues the file at this path; false: there is none. */
bool lh__asset_queue(struct MHD_Connection *connection, const char *path,
		     enum MHD_Result *rc);

/* call.c, metrics.c, stream.c: starts of routes. */
void lh__call_start(struct lh_request *r);
void lh__metrics_start(struct lh_request *r);
void lh__stream_start(struct lh_request *r);
/* The stream's response, for it to be queued once. */
struct MHD_Response *lh__stream_response(struct lh_request *r);
/* A sign of life, each LH_HTTP_BEAT_MS. */
void lh__stream_beat(struct lh_request *r);
void lh__stream_release(struct lh_request *r); /* no more is sent */
void lh__stream_free(struct lh_request *r);

/* http.c. */
void lh__http_kick(struct lh_http *h);  /* libmicrohttpd has something to do */
void lh__http_settle(struct lh_http *h); /* a request was freed */

#endif

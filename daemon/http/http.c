/* http.c: the server and the loop: libmicrohttpd watches its sockets by an epoll of its
 * own, which we watch; it is run when that has something, and when a connection's time
 * is over. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "http/http_int.h"
#include "lighthouse/proto.h"

enum { BACKLOG = 128 };

/* In the kernel, of a connection: else megabytes wait there for a reader that is slow,
 * and it is told late that it is. */
enum { SEND_BYTES = 64 << 10 };

/* ---- turns ----------------------------------------------------------------- */

static void on_due(uv_timer_t *timer);

static void turn(struct lh_http *h)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (!h->mhd)
		return;
	h->again = false;
	MHD_run(h->mhd);
	if (h->again)
		uv_timer_start(&h->due, on_due, 0, 0);
	else if (MHD_get_timeout(h->mhd, &ms) == MHD_YES)
		uv_timer_start(&h->due, on_due, ms, 0);
	else
		uv_timer_stop(&h->due);
}

static void on_due(uv_timer_t *timer)
{
	turn(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	turn(poll->data);
}

static void on_beat(uv_timer_t *timer)
{
	struct lh_http *h = timer->data;

	for (struct lh_request *r = h->requests; r; r = r->next)
		if (r->stream)
			lh__stream_beat(r);
	lh__connections_look(h);
}

void lh__http_kick(struct lh_http *h)
{
	h->again = true;
	if (!h->closing)
		uv_timer_start(&h->due, on_due, 0, 0);
}

/* With as many connections as there may be it stops listening; it notices that there is a
 * place again when it is run the next time, and nothing else would run it. */
static void on_connection(void *arg, struct MHD_Connection *connection, void **slot,
			  enum MHD_ConnectionNotificationCode what)
{
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		*slot = lh__connection_new(arg, connection);
	} else {
		lh__connection_free(*slot);
		lh__http_kick(arg);
	}
}

/* Paths and queries are compared as they came: none of ours needs an escape. */
static size_t leave_escaped(void *arg, struct MHD_Connection *connection, char *text)
{
	(void)arg;
	(void)connection;
	return strlen(text);
}

/* ---- the socket ------------------------------------------------------------ */

static int listen_at(int port, struct lh_err *err)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1, send = SEND_BYTES, why;

	if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) &&
	    !setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send, sizeof(send)) &&
	    !bind(fd, (struct sockaddr *)&a, sizeof(a)) && !listen(fd, BACKLOG))
		return fd;
	why = errno;
	if (fd >= 0)
		close(fd);
	lh_err_set(err, why == EADDRINUSE ? LH_EBUSY : LH_EIO,
		   "cannot listen at 127.0.0.1, port %d: %s", port, strerror(why));
	return lh_err_hint(err, "--page-port N chooses another port, --no-page serves none");
}

static int port_of(int fd)
{
	struct sockaddr_in a = { 0 };
	socklen_t len = sizeof(a);

	if (getsockname(fd, (struct sockaddr *)&a, &len))
		LH_BUG("a socket has no name: %s", strerror(errno));
	return ntohs(a.sin_port);
}

/* The port of last time, or 0. */
static int remembered_port(const char *path)
{
	char *text;
	size_t n;
	long port;

	if (lh_fs_read(path, 16, &text, &n, NULL))
		return 0;
	port = strtol(text, NULL, 10);
	free(text);
	return port > 0 && port < 65536 ? (int)port : 0;
}

static void remember_port(const char *path, int port)
{
	struct lh_err err = LH_ERR_INIT;
	char text[16];
	int n = snprintf(text, sizeof(text), "%d\n", port);

	if (lh_fs_write_atomic(path, text, (size_t)n, &err))
		lh_log_err(LH_LOG_WARN, "the page's port is not remembered", &err);
}

/* Pages that are open and bookmarks know the port, so it stays what it was if it can. */
static int open_socket(struct lh_http *h, struct lh_err *err)
{
	char *path = lh_asprintf("%s/" LH_STATE_PAGE_PORT, h->config.state_dir);
	int last = remembered_port(path), fd = -1;

	if (!h->config.port && last)
		fd = listen_at(last, NULL);
	if (fd < 0)
		fd = listen_at(h->config.port, err);
	if (fd >= 0) {
		int port = port_of(fd);

		snprintf(h->address, sizeof(h->address), "http://127.0.0.1:%d/", port);
		if (port != last)
			remember_port(path, port);
	}
	free(path);
	return fd;
}

/* ---- opening --------------------------------------------------------------- */

/* Takes the key of STATE/metrics.key, or makes one. */
static int open_metrics_key(struct lh_http *h, struct lh_err *err)
{
	struct lh_session is = { geteuid(), LH_ROLE_READ, INT64_MAX };
	char *path = lh_asprintf("%s/" LH_STATE_METRICS_KEY, h->config.state_dir);
	char *key, made[LH_SECRET_BYTES];
	size_t n;
	int rc = lh_fs_read(path, LH_SECRET_BYTES, &key, &n, err);

	if (!rc) {
		key[strcspn(key, "\r\n")] = '\0';
		if (strlen(key) == LH_SECRET_BYTES - 1)
			lh_sessions_set_fixed(h->sessions, key, &is);
		else
			lh_warn("'%s' holds no key; remove it for a new one", path);
		free(key);
	} else if (rc == LH_ENOTFOUND) {
		lh_secret_make(made);
		lh_sessions_set_fixed(h->sessions, made, &is);
		rc = lh_fs_write_atomic(path, made, strlen(made), err);
	}
	free(path);
	return rc;
}

static void on_panic(void *arg, const char *file, unsigned line, const char *reason)
{
	(void)arg;
	LH_BUG("libmicrohttpd, %s:%u: %s", file, line, reason ? reason : "");
}

/* Takes the socket. */
static void start_mhd(struct lh_http *h, int fd)
{
	const union MHD_DaemonInfo *info;

	MHD_set_panic_func(on_panic, NULL);
	h->mhd = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, lh__request_take, h,
		MHD_OPTION_LISTEN_SOCKET, (MHD_socket)fd,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)LH_HTTP_MAX_CONNECTIONS,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)LH_HTTP_IDLE_S,
		MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
		MHD_OPTION_NOTIFY_COMPLETED, lh__request_completed, h, MHD_OPTION_END);
	info = h->mhd ? MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (!info || uv_poll_init(h->config.loop, &h->poll, info->epoll_fd))
		LH_BUG("libmicrohttpd does not start: %s", strerror(errno));
	uv_timer_init(h->config.loop, &h->due);
	uv_timer_init(h->config.loop, &h->beat);
	h->poll.data = h->due.data = h->beat.data = h;
	h->handles = 3;
	uv_poll_start(&h->poll, UV_READABLE, on_poll);
	uv_timer_start(&h->beat, on_beat, LH_HTTP_BEAT_MS, LH_HTTP_BEAT_MS);
	h->accepting = true;
}

int lh_http_open(struct lh_http **http, const struct lh_http_config *config,
		 struct lh_err *err)
{
	struct lh_http *h = lh_calloc(1, sizeof(*h));
	int fd = -1, rc;

	h->config = *config;
	h->started_ms = lh_time_ms();
	h->sessions = lh_sessions_new(config->store);
	rc = lh_sessions_load(h->sessions, lh_time_ms(), err);
	if (!rc)
		rc = open_metrics_key(h, err);
	if (!rc && (fd = open_socket(h, err)) < 0)
		rc = fd;
	if (rc) {
		lh_sessions_free(h->sessions);
		free(h);
		return rc;
	}
	start_mhd(h, fd);
	lh_info("page: %s ('lhctl dashboard' prints an address that opens it)", h->address);
	*http = h;
	return 0;
}

/* ---- closing --------------------------------------------------------------- */

void lh__http_settle(struct lh_http *h)
{
	void (*closed)(void *arg) = h->closed_cb;
	void *arg = h->closed_arg;

	if (!h->closing || h->handles || h->request_count)
		return;
	lh_sessions_free(h->sessions);
	free(h);
	closed(arg);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct lh_http *h = handle->data;

	h->handles--;
	lh__http_settle(h);
}

void lh_http_stop_accepting(struct lh_http *h)
{
	MHD_socket fd;

	if (!h->accepting)
		return;
	h->accepting = false;
	fd = MHD_quiesce_daemon(h->mhd);
	if (fd != MHD_INVALID_SOCKET)
		close(fd);
}

void lh_http_close(struct lh_http *h, void (*closed)(void *arg), void *arg)
{
	struct lh_request *r;

	LH_ASSERT(!h->closing);
	lh_http_stop_accepting(h);
	h->closing = true;
	h->closed_cb = closed;
	h->closed_arg = arg;
	/* libmicrohttpd does not end while one is suspended. */
	for (r = h->requests; r; r = r->next)
		lh__request_resume(r);
	uv_close((uv_handle_t *)&h->poll, on_handle_closed);
	uv_close((uv_handle_t *)&h->due, on_handle_closed);
	uv_close((uv_handle_t *)&h->beat, on_handle_closed);
	MHD_stop_daemon(h->mhd);
	h->mhd = NULL;
}

/* ---- about it -------------------------------------------------------------- */

const char *lh_http_address(const struct lh_http *h)
{
	return h->address;
}

char *lh_http_dashboard(struct lh_http *h, int64_t uid, enum lh_role role,
			int64_t *expires_ms)
{
	char token[LH_SECRET_BYTES];

	*expires_ms = lh_sessions_token(h->sessions, uid, role, lh_time_ms(), token);
	return lh_asprintf("%s#token=%s", h->address, token);
}

int lh_http_connections(const struct lh_http *h)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

	return info ? (int)info->num_connections : 0;
}

int lh_http_streams(const struct lh_http *h)
{
	return h->stream_count;
}

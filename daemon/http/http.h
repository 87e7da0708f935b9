/* http.h: the page's server: HTTP on loopback, in lhd's own loop.
 *
 *   GET  /, /assets/...   the page, as it was built into lhd (asset.h)
 *   POST /session         {"token"} -> {"key", "role", "expires_ms"} (session.h)
 *   POST /rpc             one JSON-RPC call, answered as over the control socket
 *   GET  /events          a stream of events and steps (stream.c)
 *   GET  /metrics         for Prometheus (prom.h)
 *
 * All but the page and /session want `Authorization: Bearer KEY`; there are no cookies.
 * A key's role is read or steer, never more, and its commands are journalled as of the
 * program "page" and the uid that asked for its token. The key in STATE/metrics.key reads,
 * and does not end. What is refused is answered {"error": {code, message, hint}}:
 *
 *   Host is not 127.0.0.1, localhost or [::1], with any port    403 (DNS rebinding)
 *   Origin is there and not that of the page                    403
 *   a path that is not there, another method                    404, 405
 *   no key, or one that is not good                             401
 *   a body that is not application/json, too large              415, 413
 *   more than LH_HTTP_MAX_STREAMS streams                       503
 *
 * and by libmicrohttpd itself, in its own words, what is no HTTP or has more than 32 KiB
 * of headers. One more than LH_HTTP_MAX_CONNECTIONS waits until one has ended; one on
 * which nothing moves for LH_HTTP_IDLE_S is closed, and so is one whose request is not all
 * there in LH_HTTP_ASK_MS, or whose answer is not taken in LH_HTTP_TAKE_MS, though it moves.
 * A stream ends with its key.
 *
 * Loop thread; what needs the disk goes to the thread pool.
 */
#ifndef LIGHTHOUSE_HTTP_H
#define LIGHTHOUSE_HTTP_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "control/rpc.h"
#include "control/server.h"
#include "devices/devices.h"
#include "jobs/jobs.h"
#include "lighthouse/err.h"
#include "store/store.h"

enum {
	LH_HTTP_MAX_CONNECTIONS = 256,
	LH_HTTP_MAX_STREAMS = 128,
	LH_HTTP_IDLE_S = 10,
	LH_HTTP_ASK_MS = 20000,
	LH_HTTP_TAKE_MS = 120000,
	LH_HTTP_STREAM_IDLE_S = 60, /* of a stream whose reader takes nothing */
	LH_HTTP_PUSH_GAP_MS = 100,  /* of streams: a page draws no oftener */
	LH_HTTP_BEAT_MS = 3000,     /* of streams; limits are looked at as often */
};

/* All borrowed while it is open. */
struct lh_http_config {
	uv_loop_t *loop;
	const char *state_dir;
	int port;                /* 0: the one of last time if it is free, else any */
	int64_t generation;      /* of this lhd */
	const struct lh_rpc *rpc;
	struct lh_server *server; /* of the control socket: its hub, its clients */
	struct lh_jobs *jobs;
	struct lh_store *store;
	struct lh_devices *devices;
};

struct lh_http;

/* Blocking, at start. LH_EBUSY: a port that was asked for is taken; LH_EIO,
 * LH_ESTORE. */
int lh_http_open(struct lh_http **http, const struct lh_http_config *config,
		 struct lh_err *err);
/* Where the page is: "http://127.0.0.1:PORT/". */
const char *lh_http_address(const struct lh_http *h);
/* The page's address with a new token in its fragment; heap. */
char *lh_http_dashboard(struct lh_http *h, int64_t uid, enum lh_role role,
			int64_t *expires_ms);
/* No new connections; the present ones go on. */
void lh_http_stop_accepting(struct lh_http *h);
/* Ends the connections, waits for calls and reads that are under way; then frees it and
 * calls `closed`. */
void lh_http_close(struct lh_http *h, void (*closed)(void *arg), void *arg);

int lh_http_connections(const struct lh_http *h);
int lh_http_streams(const struct lh_http *h);

#endif

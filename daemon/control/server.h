/* server.h: the control socket: who may connect, and how much they may cost.
 *
 * A Unix stream socket of mode 0600; a peer must have our uid or be root. With
 * rpc->access others may connect too (mode 0666), and get the role it gives them;
 * whom it does not name is refused and told of. A peer sends one JSON object a line
 * and gets one a line. What a peer can cost:
 *
 *   a longer line than 4 MiB     dropped, answered once with LH_ETOOBIG
 *   unread answers over 1 MiB    we stop reading it until it reads
 *   unread answers over 16 MiB   the connection is closed
 *   calls not answered: 8        the next lines wait
 *   calls a turn of the loop: 64 then the others have theirs
 *   calls of others than the owner  100 in each 100 ms, the next lines wait
 *   pushed lines                 bounded, see subscribe.h
 *   connections: 512             one more gets LH_ETOOBIG and is closed
 *
 * Answers of one turn leave in one write. Calls answered at once (from memory)
 * are answered in the order they came; others when they are done. A peer that
 * ends its sending side still gets the answers to what it asked, then the
 * connection is closed, and its subscriptions end.
 *
 * The program must ignore SIGPIPE. Loop thread.
 */
#ifndef LIGHTHOUSE_SERVER_H
#define LIGHTHOUSE_SERVER_H

#include <uv.h>

#include "control/rpc.h"
#include "control/subscribe.h"
#include "lighthouse/err.h"

#define LH_SERVER_MAX_CLIENTS 512
#define LH_CLIENT_MAX_CALLS 8
#define LH_CLIENT_TURN_CALLS 64
#define LH_GUEST_CALLS 100
#define LH_GUEST_REFILL_MS 100
#define LH_CLIENT_PUSH_GAP_MS 20 /* subscribe.h */
#define LH_CLIENT_PAUSE_BYTES (1u << 20)
#define LH_CLIENT_DROP_BYTES (16u << 20)

struct lh_server;

/* Listens at `path` (base/listener.h, and its errors). `rpc` must outlive the
 * server. */
int lh_server_open(struct lh_server **server, uv_loop_t *loop, const char *path,
		   const struct lh_rpc *rpc, struct lh_err *err);
/* No new connections; the present ones go on. */
void lh_server_stop_accepting(struct lh_server *s);
/* Hands over what is written, closes all connections, waits for the calls that
 * are not answered; then frees the server and calls `closed`. */
void lh_server_close(struct lh_server *s, void (*closed)(void *arg), void *arg);

int lh_server_clients(const struct lh_server *s);
struct lh_hub *lh_server_hub(struct lh_server *s);

#endif

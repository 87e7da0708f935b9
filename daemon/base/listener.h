/* listener.h: a Unix socket of the state directory that lhd listens at.
 *
 * Of the mode it is given. A socket that an lhd left there when it was killed is replaced; one
 * that somebody listens at, and a file that is no socket, are refused. While lhd
 * lives the file may be removed by something that cleans directories: it is
 * looked for every second and made again. Connections are not touched by that.
 *
 * The loop's thread. Opening may block for a moment; nothing else does.
 */
#ifndef LIGHTHOUSE_LISTENER_H
#define LIGHTHOUSE_LISTENER_H

#include <stdbool.h>
#include <uv.h>

#include "lighthouse/err.h"

/* Memory of the caller; all of it private, but `pipe`, to accept from. */
struct lh_listener {
	uv_pipe_t pipe;             /* first: a handle's address is the listener's */
	uv_timer_t timer;
	char *path;
	mode_t mode;
	int backlog;
	uv_connection_cb on_connection;
	void *arg;
	int handles;                /* on the loop */
	bool remaking, closing;
	void (*closed)(void *arg);
};

/* `on_connection` gets the pipe, whose `data` is `arg`. LH_EINVAL: the path is too
 * long for a socket (107 bytes); LH_EBUSY: somebody listens there; LH_EIO. After a
 * failure too it must be closed. */
int lh_listener_open(struct lh_listener *l, uv_loop_t *loop, const char *path,
		     mode_t mode, int backlog, uv_connection_cb on_connection, void *arg,
		     struct lh_err *err);
/* Removes the socket; then calls `closed` with the arg of open. */
void lh_listener_close(struct lh_listener *l, void (*closed)(void *arg));

/* The length check of open alone, for those who want to know early. */
int lh_listener_check_path(const char *path, struct lh_err *err);

#endif

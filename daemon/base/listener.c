/* listener.c: see listener.h.
 *
 * A bound handle cannot be bound again, so a socket whose file is gone is closed
 * and another one takes its place once libuv is done with the first. */
#include "base/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"

enum {
	LOOK_EVERY_MS = 1000,
	PROBE_MS = 100,    /* between two looks at a socket that is in use */
	PROBES = 5,        /* an lhd that was killed may still be being buried */
};

int lh_listener_check_path(const char *path, struct lh_err *err)
{
	size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

	if (strlen(path) <= max)
		return 0;
	lh_err_set(err, LH_EINVAL,
		   "the path of a socket may have %zu bytes, '%s' has %zu", max,
		   path, strlen(path));
	return lh_err_hint(err, "choose a shorter state directory with --state");
}

/* ---- what is there already --------------------------------------------------- */

static bool is_in_use(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool used;

	if (fd < 0)
		return false;
	strcpy(a.sun_path, path);
	/* A full backlog (EAGAIN) is a listener too. */
	used = !connect(fd, (struct sockaddr *)&a, sizeof(a)) || errno == EAGAIN;
	close(fd);
	return used;
}

/* Only a socket at which nobody listens is ours to remove. */
static int remove_stale(const char *path, struct lh_err *err)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 :
		       lh_err_set(err, LH_EIO, "cannot look at '%s': %s", path,
				  strerror(errno));
	if (!S_ISSOCK(st.st_mode)) {
		lh_err_set(err, LH_EIO, "'%s' is not a socket", path);
		return lh_err_hint(err, "lhd needs that name: move the file away");
	}
	for (int i = 0; is_in_use(path); i++) {
		if (i == PROBES) {
			lh_err_set(err, LH_EBUSY, "somebody listens at '%s'", path);
			return lh_err_hint(err, "end that program, or choose another "
					   "directory with --state");
		}
		usleep(PROBE_MS * 1000);
	}
	if (unlink(path) && errno != ENOENT)
		return lh_err_set(err, LH_EIO, "cannot remove '%s': %s", path,
				  strerror(errno));
	return 0;
}

/* ---- listening --------------------------------------------------------------- */

/* The mode is set between bind and listen, while nobody can connect. */
static int listen_now(struct lh_listener *l, struct lh_err *err)
{
	int rc = uv_pipe_bind(&l->pipe, l->path);

	LH_FAILPOINT("listener.bound");
	if (rc == 0 && chmod(l->path, l->mode))
		rc = -errno;
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&l->pipe, l->backlog, l->on_connection);
	return rc ? lh_err_set(err, LH_EIO, "cannot listen at '%s': %s", l->path,
			       uv_strerror(rc)) : 0;
}

static void on_handle_closed(struct lh_listener *l)
{
	if (--l->handles)
		return;
	free(l->path);
	l->closed(l->arg);
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_handle_closed(handle->data);
}

static void on_pipe_closed(uv_handle_t *handle)
{
	struct lh_listener *l = (struct lh_listener *)handle;
	struct lh_err err = LH_ERR_INIT;

	if (l->closing) {
		on_handle_closed(l);
		return;
	}
	l->remaking = false;
	uv_pipe_init(handle->loop, &l->pipe, 0);
	l->pipe.data = l->arg;
	if (listen_now(l, &err))
		lh_log_err(LH_LOG_WARN, "making a socket again", &err);
	else
		lh_info("'%s' is there again", l->path);
}

/* On a local file system, and the name is cached: it takes microseconds. */
static void on_timer(uv_timer_t *timer)
{
	struct lh_listener *l = timer->data;
	struct stat st;

	if (l->remaking || !lstat(l->path, &st) || errno != ENOENT)
		return;
	lh_warn("'%s' was removed; it is made again", l->path);
	l->remaking = true;
	uv_close((uv_handle_t *)&l->pipe, on_pipe_closed);
}

int lh_listener_open(struct lh_listener *l, uv_loop_t *loop, const char *path,
		     mode_t mode, int backlog, uv_connection_cb on_connection, void *arg,
		     struct lh_err *err)
{
	int rc;

	memset(l, 0, sizeof(*l));
	l->path = lh_strdup(path);
	l->mode = mode;
	l->backlog = backlog;
	l->on_connection = on_connection;
	l->arg = arg;
	uv_pipe_init(loop, &l->pipe, 0);
	uv_timer_init(loop, &l->timer);
	l->pipe.data = arg;
	l->timer.data = l;
	l->handles = 2;
	rc = lh_listener_check_path(path, err);
	if (!rc)
		rc = remove_stale(path, err);
	if (!rc)
		rc = listen_now(l, err);
	if (!rc)
		uv_timer_start(&l->timer, on_timer, LOOK_EVERY_MS, LOOK_EVERY_MS);
	return rc;
}

void lh_listener_close(struct lh_listener *l, void (*closed)(void *arg))
{
	LH_ASSERT(!l->closing);
	l->closing = true;
	l->closed = closed;
	if (!l->remaking)
		uv_close((uv_handle_t *)&l->pipe, on_pipe_closed);
	uv_close((uv_handle_t *)&l->timer, on_timer_closed);
}

/* client.c: a blocking connection to lhd. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/frame.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/statedir.h"
#include "ctl.h"
#include "lighthouse/proto.h"

enum { LINE_MAX_BYTES = 256 << 20, CALL_LEAST_US = 2000000, NEXT_LIMIT_US = 60000000,
       NEXT_LOOK_US = 20000 };

struct ctl_client {
	int fd;
	int64_t end_us;   /* the deadline; INT64_MAX: none */
	struct lh_frame in;
	ctl_note note;
	void *arg;
	int wake_fd;      /* ends listening; -1: none */
	int64_t id;       /* of the newest call */
	json_t *reply;    /* to it, once it has come */
};

static int unreachable(struct lh_err *err, const char *what)
{
	lh_err_set(err, LH_EUNREACHABLE, "the daemon went away: %s", what);
	return lh_err_hint(err, "is lhd still running?");
}

char *ctl_state_dir(const struct ctl *c, struct lh_err *err)
{
	const char *given = getenv("LIGHTHOUSE_STATE");

	if (c->state)
		return lh_strdup(c->state);
	return given && *given ? lh_strdup(given) : lh_statedir_default(err);
}

static int dial(struct ctl_client *k, const char *state, struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", state, LH_STATE_CONTROL_SOCKET);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	bool fits = strlen(path) < sizeof(a.sun_path);
	int rc = -1;

	k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fits)
		memcpy(a.sun_path, path, strlen(path) + 1);
	if (k->fd >= 0 && fits)
		rc = connect(k->fd, (struct sockaddr *)&a, sizeof(a));
	if (rc) {
		lh_err_set(err, LH_EUNREACHABLE, "no daemon at '%s': %s", path,
			   fits ? strerror(errno) : "the path is too long for a socket");
		lh_err_hint(err, "start it: lhd --state %s", state);
		if (k->fd >= 0)
			close(k->fd);
	}
	free(path);
	return rc;
}

struct ctl_client *ctl_try_connect(const struct ctl *c, struct lh_err *err)
{
	char *state = ctl_state_dir(c, err);
	struct ctl_client *k;

	if (!state)
		return NULL;
	k = lh_calloc(1, sizeof(*k));
	if (dial(k, state, err)) {
		free(k);
		k = NULL;
	} else {
		lh_frame_init(&k->in, LINE_MAX_BYTES);
		k->end_us = INT64_MAX;
		k->wake_fd = -1;
	}
	free(state);
	return k;
}

struct ctl_client *ctl_connect(const struct ctl *c)
{
	struct lh_err err = LH_ERR_INIT;
	struct ctl_client *k = ctl_try_connect(c, &err);

	if (!k)
		ctl_fail(&err);
	return k;
}

struct ctl_client *ctl_await_next(const struct ctl *c, struct ctl_client *old)
{
	int64_t end_us = lh_clock_us() + NEXT_LIMIT_US;
	struct lh_err err = LH_ERR_INIT;
	struct ctl_client *k;
	int rc;

	do
		rc = ctl_listen(old, -1, &err);
	while (!rc || rc == LH_ETIMEOUT);
	ctl_disconnect(old);
	while (!(k = ctl_try_connect(c, &err)) && lh_clock_us() < end_us)
		usleep(NEXT_LOOK_US);
	if (!k)
		ctl_fail(&err);
	return k;
}

void ctl_disconnect(struct ctl_client *k)
{
	if (!k)
		return;
	close(k->fd);
	lh_frame_release(&k->in);
	json_decref(k->reply);
	free(k);
}

void ctl_deadline(struct ctl_client *k, double timeout_s)
{
	k->end_us = timeout_s < 0 ? INT64_MAX :
				    lh_clock_us() + (int64_t)(timeout_s * 1e6);
}

void ctl_wake_on(struct ctl_client *k, int fd)
{
	k->wake_fd = fd;
}

void ctl_on_note(struct ctl_client *k, ctl_note note, void *arg)
{
	k->note = note;
	k->arg = arg;
}

/* An answer to a call that was given up, at its deadline, is dropped. An error with
 * id null is of a request whose id could not be read: ours. */
static void take(struct ctl_client *k, const char *line, size_t len)
{
	json_t *m = json_loadb(line, len, 0, NULL), *id = json_object_get(m, "id");
	const char *method = json_string_value(json_object_get(m, "method"));

	if (method && k->note)
		k->note(k->arg, method, json_object_get(m, "params"));
	else if (!method && !k->reply &&
		 (json_integer_value(id) == k->id || json_is_null(id)))
		k->reply = json_incref(m);
	json_decref(m);
}

/* Until bytes can be read. 0 or LH_ETIMEOUT, also when wake_fd can be read. */
static int await_bytes(struct ctl_client *k, int64_t end_us, int wake_fd,
		       struct lh_err *err)
{
	struct pollfd p[2] = { { .fd = k->fd, .events = POLLIN },
			       { .fd = wake_fd, .events = POLLIN } };
	int rc = 0;

	while (!rc) {
		int64_t left_ms = (end_us - lh_clock_us() + 999) / 1000;

		if (left_ms <= 0)
			break;
		/* A poll cannot last as long as some deadlines. */
		rc = poll(p, 2, left_ms < INT_MAX ? (int)left_ms : INT_MAX);
	}
	return rc > 0 && p[0].revents ? 0 : lh_err_set(err, LH_ETIMEOUT,
						       "nothing came in time");
}

static int listen_until(struct ctl_client *k, int64_t end_us, int wake_fd,
			struct lh_err *err)
{
	char buf[65536], *line;
	size_t len;
	ssize_t n;
	int rc = await_bytes(k, end_us, wake_fd, err);

	if (rc)
		return rc;
	n = recv(k->fd, buf, sizeof(buf), 0);
	if (n <= 0)
		return unreachable(err, n ? strerror(errno) : "it closed the connection");
	lh_frame_push(&k->in, buf, (size_t)n);
	while ((rc = lh_frame_next(&k->in, &line, &len)) > 0)
		take(k, line, len);
	if (rc < 0) {
		lh_err_set(err, LH_EPROTO, "the daemon sent a line of more than %d MiB",
			   LINE_MAX_BYTES >> 20);
		lh_err_hint(err, "--limit asks for less");
	}
	return rc;
}

int ctl_listen(struct ctl_client *k, int timeout_ms, struct lh_err *err)
{
	int64_t end_us = k->end_us;

	if (timeout_ms >= 0 && lh_clock_us() + timeout_ms * INT64_C(1000) < end_us)
		end_us = lh_clock_us() + timeout_ms * INT64_C(1000);
	return listen_until(k, end_us, k->wake_fd, err);
}

/* Whether the lock of the state directory names this process. */
static bool owns_state(const char *state, pid_t pid)
{
	char *file = lh_asprintf("%s/%s", state, LH_STATE_LOCK), *text = NULL;
	size_t n;
	bool yes = !lh_fs_read(file, 64, &text, &n, NULL) && atol(text) == pid;

	free(text);
	free(file);
	return yes;
}

/* Of the lhd at the other end; -1 when it has ended or is none. */
static int open_pidfd(const char *state, int fd)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) ||
	    !owns_state(state, peer.pid))
		return -1;
	return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

void ctl_await_end(const struct ctl *c, struct ctl_client *k)
{
	struct lh_err err = LH_ERR_INIT;
	char *state = ctl_state_dir(c, &err);
	struct pollfd p = { .fd = open_pidfd(state, k->fd), .events = POLLIN };
	int rc;

	do
		rc = ctl_listen(k, -1, &err);
	while (!rc || rc == LH_ETIMEOUT);
	/* It closes its database after its connections, and then the next may start. */
	while (p.fd >= 0 && poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	if (p.fd >= 0)
		close(p.fd);
	free(state);
}

static int send_line_take(struct ctl_client *k, json_t *request, struct lh_err *err)
{
	char *text = json_dumps(request, JSON_COMPACT), *line;
	size_t done = 0, n;
	int rc = 0;

	json_decref(request);
	if (!text) {
		lh_err_set(err, LH_EINVAL, "the arguments are not valid UTF-8");
		return err->code;
	}
	line = lh_asprintf("%s\n", text);
	n = strlen(line);
	while (!rc && done < n) {
		ssize_t k_sent = send(k->fd, line + done, n - done, MSG_NOSIGNAL);

		if (k_sent < 0 && errno != EINTR)
			rc = unreachable(err, strerror(errno));
		else if (k_sent > 0)
			done += (size_t)k_sent;
	}
	free(line);
	free(text);
	return rc;
}

static void refusal(const json_t *error, struct lh_err *err)
{
	const json_t *data = json_object_get(error, "data");
	int code = lh_err_from_name(ctl_str(data, "name"));

	lh_err_set(err, code ? code : LH_EINTERNAL, "%s", ctl_str(error, "message"));
	lh_err_hint(err, "%s", ctl_str(data, "hint"));
}

/* A daemon that hangs up may have said why. */
static bool has_said_why(struct ctl_client *k)
{
	struct lh_err no;

	while (!k->reply && !listen_until(k, lh_clock_us() + CALL_LEAST_US, -1, &no))
		;
	return k->reply;
}

json_t *ctl_call(struct ctl_client *k, const char *method, json_t *params,
		 struct lh_err *err)
{
	json_t *request = json_pack("{s:s, s:I, s:s, s:o}", "jsonrpc", "2.0", "id",
				    (json_int_t)++k->id, "method", method, "params",
				    params ? params : json_object());
	int64_t least_us = lh_clock_us() + CALL_LEAST_US;
	json_t *result;

	if (!request)
		LH_BUG("a request that is no JSON");
	json_decref(k->reply); /* late, to a call that was given up */
	k->reply = NULL;
	if (send_line_take(k, request, err) && !has_said_why(k))
		return NULL;
	while (!k->reply)
		if (listen_until(k, k->end_us > least_us ? k->end_us : least_us, -1, err))
			return NULL;
	result = json_incref(json_object_get(k->reply, "result"));
	if (!result && !json_object_get(k->reply, "error"))
		lh_err_set(err, LH_EPROTO, "the answer to '%s' is neither a "
			   "result nor an error", method);
	else if (!result)
		refusal(json_object_get(k->reply, "error"), err);
	json_decref(k->reply);
	k->reply = NULL;
	return result;
}

int ctl_fail(const struct lh_err *err)
{
	char safe[1200];

	fprintf(stderr, "error: %s\n", lh_escape(safe, sizeof(safe), err->text));
	if (err->hint[0])
		fprintf(stderr, "hint: %s\n", lh_escape(safe, sizeof(safe), err->hint));
	return err->code == LH_EUNREACHABLE ? CTL_UNREACHABLE :
	       err->code == LH_ETIMEOUT	    ? CTL_TIMEOUT :
					      CTL_REFUSED;
}

int ctl_job(struct ctl_client *k, const char *operand, int64_t *id)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *result, *job;
	size_t i;

	*id = 0;
	if (*operand && strspn(operand, "0123456789") == strlen(operand))
		*id = strtoll(operand, NULL, 10);
	if (*id > 0)
		return CTL_DONE;
	result = ctl_call(k, "job.list", NULL, &err);
	if (!result)
		return ctl_fail(&err);
	json_array_foreach (json_object_get(result, "jobs"), i, job)
		if (!strcmp(ctl_str(job, "name"), operand))
			*id = ctl_int(job, "job");
	json_decref(result);
	if (*id)
		return CTL_DONE;
	lh_err_set(&err, LH_ENOTFOUND, "there is no job '%s'", operand);
	lh_err_hint(&err, "'lhctl ls' lists the jobs");
	return ctl_fail(&err);
}

json_t *ctl_ask(const struct ctl *c, const char *method, json_t *params, int *rc)
{
	struct ctl_client *k = ctl_connect(c);
	struct lh_err err = LH_ERR_INIT;
	json_t *result = NULL;
	int64_t job = 0;

	*rc = k ? CTL_DONE : CTL_UNREACHABLE;
	if (k && c->arg_count) {
		*rc = ctl_job(k, c->args[0], &job);
		json_object_set_new(params, "job", json_integer(job));
	}
	if (*rc == CTL_DONE) {
		result = ctl_call(k, method, json_incref(params), &err);
		if (!result)
			*rc = ctl_fail(&err);
	}
	json_decref(params);
	if (k)
		ctl_disconnect(k);
	return result;
}

/* A random UUID (version 4): a retry of this very request is harmless. */
static void make_uuid(char out[37])
{
	unsigned char b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		LH_BUG("no random bytes");
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	for (int i = 0, at = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			out[at++] = '-';
		at += snprintf(out + at, 3, "%02x", b[i]);
	}
}

json_t *ctl_steer_params(const struct ctl *c, int64_t job)
{
	const char *id = ctl_opt(c, "request-id"), *message = ctl_opt(c, "message");
	char uuid[37];
	json_t *params;

	make_uuid(uuid);
	params = json_pack("{s:s, s:o, s:o}", "program", "lhctl", "request_id",
			   ctl_text(c, "the request id", id ? id : uuid), "message",
			   ctl_text(c, "the message", message ? message : ""));
	if (job)
		json_object_set_new(params, "job", json_integer(job));
	return params;
}

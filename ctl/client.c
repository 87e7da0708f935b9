/* client.c: a blocking connection to lhd. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/frame.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/statedir.h"
#include "ctl.h"
#include "lighthouse/proto.h"

enum { LINE_MAX_BYTES = 256 << 20 };

struct ctl_client {
	int fd;
	int64_t next_id;
	struct lh_frame in;
	ctl_note note;
	void *arg;
	json_t *reply; /* of the call that waits */
};

static int unreachable(struct lh_err *err, const char *what)
{
	lh_err_set(err, LH_EUNREACHABLE, "the daemon went away: %s", what);
	return lh_err_hint(err, "is lhd still running?");
}

static char *state_dir(const struct ctl *c, struct lh_err *err)
{
	const char *given = getenv("LIGHTHOUSE_STATE");

	if (c->state)
		return lh_strdup(c->state);
	return given && *given ? lh_strdup(given) : lh_statedir_default(err);
}

static int dial(struct ctl_client *k, const char *state)
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
		fprintf(stderr, "error: no daemon at '%s': %s\n", path,
			fits ? strerror(errno) : "the path is too long for a socket");
		fprintf(stderr, "hint: start it: lhd --state %s\n", state);
		if (k->fd >= 0)
			close(k->fd);
	}
	free(path);
	return rc;
}

struct ctl_client *ctl_connect(const struct ctl *c)
{
	struct lh_err err = LH_ERR_INIT;
	char *state = state_dir(c, &err);
	struct ctl_client *k;

	if (!state) {
		ctl_fail(&err);
		return NULL;
	}
	k = lh_calloc(1, sizeof(*k));
	if (dial(k, state)) {
		free(k);
		k = NULL;
	} else {
		lh_frame_init(&k->in, LINE_MAX_BYTES);
	}
	free(state);
	return k;
}

void ctl_disconnect(struct ctl_client *k)
{
	close(k->fd);
	lh_frame_release(&k->in);
	free(k);
}

void ctl_on_note(struct ctl_client *k, ctl_note note, void *arg)
{
	k->note = note;
	k->arg = arg;
}

static void take(struct ctl_client *k, const char *line, size_t len)
{
	json_t *m = json_loadb(line, len, 0, NULL);
	const char *method = json_string_value(json_object_get(m, "method"));

	if (method && k->note)
		k->note(k->arg, method, json_object_get(m, "params"));
	else if (m && !method)
		k->reply = json_incref(m);
	json_decref(m);
}

int ctl_listen(struct ctl_client *k, int timeout_ms, struct lh_err *err)
{
	struct pollfd p = { .fd = k->fd, .events = POLLIN };
	char buf[65536], *line;
	size_t len;
	ssize_t n;
	int rc = poll(&p, 1, timeout_ms);

	if (rc <= 0)
		return lh_err_set(err, LH_ETIMEOUT, "nothing came in time");
	n = recv(k->fd, buf, sizeof(buf), 0);
	if (n <= 0)
		return unreachable(err, n ? strerror(errno) : "it closed the connection");
	lh_frame_push(&k->in, buf, (size_t)n);
	while (lh_frame_next(&k->in, &line, &len) > 0)
		take(k, line, len);
	return 0;
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

json_t *ctl_call(struct ctl_client *k, const char *method, json_t *params,
		 struct lh_err *err)
{
	json_t *request = json_pack("{s:s, s:I, s:s, s:o}", "jsonrpc", "2.0", "id",
				    (json_int_t)k->next_id++, "method", method, "params",
				    params ? params : json_object());
	json_t *result;

	if (!request)
		LH_BUG("a request that is no JSON");
	if (send_line_take(k, request, err))
		return NULL;
	while (!k->reply) {
		int rc = ctl_listen(k, -1, err);

		if (rc == LH_EUNREACHABLE || (rc && errno == EINTR))
			return NULL;
	}
	result = json_incref(json_object_get(k->reply, "result"));
	if (!result)
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

int64_t ctl_job(struct ctl_client *k, const char *operand)
{
	struct lh_err err = LH_ERR_INIT;
	int64_t found = 0;
	json_t *result, *job;
	size_t i;

	if (*operand && strspn(operand, "0123456789") == strlen(operand))
		return strtoll(operand, NULL, 10);
	result = ctl_call(k, "job.list", NULL, &err);
	if (!result) {
		ctl_fail(&err);
		return 0;
	}
	json_array_foreach (json_object_get(result, "jobs"), i, job)
		if (!strcmp(ctl_str(job, "name"), operand))
			found = ctl_int(job, "job");
	json_decref(result);
	if (!found) {
		lh_err_set(&err, LH_ENOTFOUND, "there is no job '%s'", operand);
		lh_err_hint(&err, "'lhctl ls' lists the jobs");
		ctl_fail(&err);
	}
	return found;
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

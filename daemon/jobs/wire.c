/* wire.c: worker.sock: who dials in, and what is said (proto.h).
 *
 * A connection belongs to nobody until its hello names job, attempt and token of
 * an attempt that is not over. A worker that is not ours (foreign.c) keeps its line
 * and hears nothing. One whose attempt is over, as we know by its token, is sent
 * away: another attempt may write where it writes. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "lighthouse/proto.h"

enum { BACKLOG = 64, READ_BYTES = 65536 };

struct lh_wire {
	uv_pipe_t pipe;
	struct lh_jobs *jobs;
	struct lh_wire *next;    /* in jobs->wires */
	struct lh_worker *w;     /* NULL before hello and after closing */
	struct lh_foreign *foreign; /* or who it is instead */
	struct lh_frame in;
	char buf[READ_BYTES];
	bool throttled, ending, closing;
};

/* ---- sending and closing --------------------------------------------------- */

struct sending {
	uv_write_t req;
	char *text;
};

static void on_sent(uv_write_t *req, int status)
{
	struct sending *s = req->data;
	struct lh_wire *wire = req->handle->data;

	if (status < 0 || (wire->ending && !wire->pipe.write_queue_size))
		lh_wire_close(wire);
	free(s->text);
	free(s);
}

void lh_wire_send_take(struct lh_wire *wire, json_t *message)
{
	struct sending *s;
	uv_buf_t buf;
	size_t n;

	LH_ASSERT(message);
	if (wire->closing) {
		json_decref(message);
		return;
	}
	s = lh_calloc(1, sizeof(*s));
	s->req.data = s;
	s->text = json_dumps(message, JSON_COMPACT);
	json_decref(message);
	n = strlen(s->text);
	s->text[n] = '\n'; /* in place of the NUL */
	buf = uv_buf_init(s->text, (unsigned)n + 1);
	if (uv_write(&s->req, (uv_stream_t *)&wire->pipe, &buf, 1, on_sent)) {
		free(s->text);
		free(s);
		lh_wire_close(wire);
	} else if (wire->pipe.write_queue_size > LH_WIRE_QUEUE_MAX_BYTES) {
		lh_warn("a worker does not read its line; it is closed");
		lh_wire_close(wire);
	}
}

static void on_closed(uv_handle_t *handle)
{
	struct lh_wire *wire = handle->data;
	struct lh_jobs *jobs = wire->jobs;

	lh_frame_release(&wire->in);
	free(wire);
	jobs->handles--;
	lh_queue_run(jobs); /* its job may have waited for a foreigner to leave */
	lh_jobs_settle(jobs);
}

void lh_wire_close(struct lh_wire *wire)
{
	struct lh_wire **p;

	if (!wire || wire->closing)
		return;
	wire->closing = true;
	for (p = &wire->jobs->wires; *p != wire; p = &(*p)->next)
		;
	*p = wire->next;
	if (wire->w) {
		wire->w->wire = NULL;
		lh_sample_worker_lost(wire->w);
		wire->w = NULL;
	}
	if (wire->foreign)
		lh_foreign_remove(wire->foreign);
	wire->foreign = NULL;
	uv_close((uv_handle_t *)&wire->pipe, on_closed);
}

/* Says why and closes once that is sent. */
static void refuse(struct lh_wire *wire, int code, const char *text)
{
	lh_warn("a worker was sent away: %s", text);
	wire->ending = true;
	lh_wire_send_take(wire, json_pack("{s:s, s:s, s:s}", "m", "refuse", "code",
					  lh_err_name(code), "text", text));
}

/* ---- hello ----------------------------------------------------------------- */

static int64_t integer(const json_t *m, const char *key)
{
	return json_integer_value(json_object_get(m, key));
}

/* The process at the other end; 0 if it is of another PID namespace. */
static int peer_pid(const struct lh_wire *wire)
{
	struct ucred peer = { 0 };
	socklen_t bytes = sizeof(peer);
	uv_os_fd_t fd;

	if (uv_fileno((const uv_handle_t *)&wire->pipe, &fd) ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes))
		return 0;
	return peer.pid;
}

/* Why a worker is not ours, or "". */
static char *why_foreign(const struct lh_jobs *jobs, const struct lh_job_run *run,
			 const json_t *m, char *why, size_t bytes)
{
	int64_t proto = integer(m, "proto"), attempt = integer(m, "attempt");
	const char *token = json_string_value(json_object_get(m, "token"));
	const char *known = run ? lh_job_token(run, attempt) : NULL;

	*why = '\0';
	if (proto < 1 || proto < jobs->proto - 1 || proto > jobs->proto)
		snprintf(why, bytes, "it speaks protocol version %" PRId64
			 ", this lhd speaks %d", proto, jobs->proto);
	else if (!run)
		snprintf(why, bytes, "there is no job %" PRId64 " here", integer(m, "job"));
	else if (!known)
		snprintf(why, bytes, "there is no attempt %" PRId64 " here", attempt);
	else if (!token || strcmp(known, token))
		snprintf(why, bytes, "its token is not that of attempt %" PRId64
			 ": another lhd started it", attempt);
	else if (integer(m, "generation") > jobs->generation)
		snprintf(why, bytes, "it obeyed a newer lhd, of generation %" PRId64
			 "; this one is %" PRId64, integer(m, "generation"),
			 jobs->generation);
	return why;
}

/* The attempt a hello belongs to; or NULL, and it was listed or refused. */
static struct lh_worker *find_worker(struct lh_wire *wire, const json_t *m)
{
	struct lh_jobs *jobs = wire->jobs;
	struct lh_job_run *run = lh_jobs_find(jobs, integer(m, "job"));
	struct lh_worker *w = run ? run->worker : NULL;
	const char *token = json_string_value(json_object_get(m, "token"));
	char why[160];

	if (*why_foreign(jobs, run, m, why, sizeof(why))) {
		wire->foreign = lh_foreign_add(jobs, m, peer_pid(wire), "%s", why);
		if (w && token && !strcmp(w->token, token))
			w->foreign = true;
		return NULL;
	}
	if (w && !w->gone && w->attempt == integer(m, "attempt"))
		return w;
	snprintf(why, sizeof(why), "attempt %" PRId64 " of job %" PRId64 " is over",
		 integer(m, "attempt"), run->id);
	refuse(wire, LH_ESTATE, why);
	return NULL;
}

static void note_process(struct lh_worker *w, const json_t *m)
{
	struct lh_batch *b;

	if (w->pid == integer(m, "pid") && w->start_time == (uint64_t)integer(m, "start_time"))
		return;
	w->pid = (int)integer(m, "pid");
	w->start_time = (uint64_t)integer(m, "start_time");
	b = lh_batch_new(w->run->journal);
	lh_batch_add(b, LH_STMT_ATTEMPT_WORKER,
		     (struct lh_bind[]){ LH_INT(w->run->id), LH_INT(w->attempt),
					 LH_INT(w->pid), LH_INT((int64_t)w->start_time),
					 w->first_step >= 0 ? LH_INT(w->first_step) :
							      LH_NULL },
		     5);
	lh_batch_event_take(b, w->run->id, w->attempt, -1, "attempt.started",
			    json_pack("{s:i}", "pid", w->pid),
			    "attempt %" PRId64 " runs as process %d", w->attempt, w->pid);
	lh_batch_commit(b, false, NULL, NULL);
}

static void note_adoption(struct lh_worker *w)
{
	struct lh_batch *b;

	if (!w->adopted || w->greeted)
		return;
	w->greeted = true;
	b = lh_batch_new(w->run->journal);
	lh_batch_event_take(b, w->run->id, w->attempt, -1, "attempt.adopted", NULL,
			    "a new lhd found attempt %" PRId64 " alive, process %d",
			    w->attempt, w->pid);
	lh_batch_commit(b, false, NULL, NULL);
}

static void on_hello(struct lh_wire *wire, const json_t *m)
{
	struct lh_worker *w = find_worker(wire, m);

	if (!w)
		return;
	w->foreign = false;
	lh_wire_close(w->wire); /* it dialled again: the old line is dead */
	wire->w = w;
	w->wire = wire;
	w->proto = (int)integer(m, "proto");
	note_process(w, m);
	note_adoption(w);
	lh_hang_alive(w);
	lh_wire_send_take(wire, json_pack("{s:s, s:I, s:I, s:I}", "m", "welcome", "proto",
					  (json_int_t)integer(m, "proto"), "generation",
					  (json_int_t)wire->jobs->generation, "stored_seq",
					  (json_int_t)w->safe_seq));
	lh_command_resend(w->run);
}

/* ---- receiving ------------------------------------------------------------- */

static void on_records(struct lh_wire *wire, const json_t *m)
{
	struct lh_err err = LH_ERR_INIT;

	if (lh_record_take_all(wire->w, json_object_get(m, "records"), &err)) {
		lh_log_err(LH_LOG_WARN, "a worker's line is closed", &err);
		lh_wire_close(wire);
	}
}

static void on_message(struct lh_wire *wire, const json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "m"));

	if (!name)
		name = "";
	if (wire->foreign)
		return;
	if (!strcmp(name, "hello") && !wire->w)
		on_hello(wire, m);
	else if (!wire->w)
		lh_wire_close(wire);
	else if (!strcmp(name, "records"))
		on_records(wire, m);
	else if (!strcmp(name, "progress"))
		lh_hang_progress(wire->w, m);
	else if (!strcmp(name, "piece"))
		lh_sample_on_piece(wire->jobs, m);
	else if (!strcmp(name, "reply"))
		lh_sample_on_reply(wire->jobs, m);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct lh_wire *wire = handle->data;

	(void)suggested;
	*buf = uv_buf_init(wire->buf, sizeof(wire->buf));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct lh_wire *wire = stream->data;
	char *line;
	size_t len;
	int rc = 0;

	if (n < 0) {
		lh_wire_close(wire);
		return;
	}
	if (wire->ending)
		return;
	lh_frame_push(&wire->in, buf->base, (size_t)n);
	while (!wire->closing && !wire->ending &&
	       (rc = lh_frame_next(&wire->in, &line, &len)) > 0) {
		json_t *m = json_loadb(line, len, 0, NULL);

		if (json_is_object(m))
			on_message(wire, m);
		else
			rc = LH_EPROTO;
		json_decref(m);
		if (rc < 0)
			break;
	}
	if (rc < 0 && !wire->closing) {
		lh_warn("a worker's line is closed: it sent what is no message");
		lh_wire_close(wire);
	}
}

void lh_wire_throttle(struct lh_wire *wire, bool wait)
{
	if (wire->throttled == wait || wire->closing)
		return;
	wire->throttled = wait;
	if (wait)
		uv_read_stop((uv_stream_t *)&wire->pipe);
	else
		uv_read_start((uv_stream_t *)&wire->pipe, on_alloc, on_read);
}

bool lh_wire_is_throttled(const struct lh_wire *wire)
{
	return wire->throttled;
}

/* ---- listening ------------------------------------------------------------- */

static void on_connection(uv_stream_t *listener, int status)
{
	struct lh_jobs *jobs = listener->data;
	struct lh_wire *wire;

	if (status < 0)
		return;
	wire = lh_calloc(1, sizeof(*wire));
	wire->jobs = jobs;
	wire->next = jobs->wires;
	jobs->wires = wire;
	jobs->handles++;
	lh_frame_init(&wire->in, LH_PROTO_LINE_MAX_BYTES);
	uv_pipe_init(jobs->loop, &wire->pipe, 0);
	wire->pipe.data = wire;
	if (uv_accept(listener, (uv_stream_t *)&wire->pipe) ||
	    uv_read_start((uv_stream_t *)&wire->pipe, on_alloc, on_read))
		lh_wire_close(wire);
}

int lh_wire_listen(struct lh_jobs *jobs, struct lh_err *err)
{
	return lh_listener_open(&jobs->listener, jobs->loop, jobs->socket_path, 0600,
				BACKLOG, on_connection, jobs, err);
}

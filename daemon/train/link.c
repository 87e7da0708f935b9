/* link.c: see link.h.
 *
 * The mutex guards what the two threads share: outbox, inbox, status. All else
 * belongs to the control thread. */
#include "train/link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/frame.h"
#include "base/fs.h"
#include "base/log.h"
#include "lighthouse/proto.h"

enum { REDIAL_MS = 200, PROGRESS_MS = 1000, COMPACT_BYTES = 1 << 20 };

struct lh_link {
	/* set at open */
	struct lh_link_config c;
	char *token, *socket;
	int event_fd;
	pthread_t thread;

	/* shared, under the mutex */
	pthread_mutex_t mutex;
	pthread_cond_t arrived; /* something in the inbox, or a wake */
	pthread_cond_t settled; /* the outbox is empty or records were acked */
	json_t *outbox;         /* records not in the spool yet */
	json_t *notes;          /* messages that are not kept */
	json_t *inbox;
	int64_t step;
	int phase;
	const char *state, *doing;
	bool woken, closing, connected;
	int64_t unacked;        /* records in the spool */

	/* control thread */
	int fd;                 /* -1: not connected */
	bool welcome;
	int64_t generation;     /* highest seen */
	int64_t dial_at_us, progress_at_us;
	struct lh_frame in;
	char *out;
	size_t out_used, out_sent, out_cap;
	int spool_fd;
	int64_t *offset;        /* of records first_seq .. next_seq - 1 */
	size_t offset_cap;
	int64_t first_seq, next_seq, sent_seq;
	int64_t spool_bytes, dropped;
	int64_t *seen;          /* command ids */
	size_t seen_count;
};

/* ---- the spool ------------------------------------------------------------- */

static void spool_append(struct lh_link *l, json_t *record)
{
	bool is_step = !strcmp(json_string_value(json_object_get(record, "t")), "step");
	char *line;
	size_t n;

	if (is_step && l->spool_bytes >= l->c.spool_max_bytes) {
		if (!l->dropped++)
			lh_warn("the spool is full: step records are dropped");
		return;
	}
	json_object_set_new(record, "seq", json_integer(l->next_seq));
	line = json_dumps(record, JSON_COMPACT | JSON_REAL_PRECISION(17));
	n = strlen(line);
	line[n++] = '\n'; /* in place of the NUL */
	if ((size_t)(l->next_seq - l->first_seq) == l->offset_cap) {
		l->offset_cap = l->offset_cap ? 2 * l->offset_cap : 1024;
		l->offset = lh_realloc(l->offset, l->offset_cap * sizeof(*l->offset));
	}
	l->offset[l->next_seq - l->first_seq] = l->spool_bytes;
	if (pwrite(l->spool_fd, line, n, l->spool_bytes) != (ssize_t)n)
		lh_error("cannot write the spool: %s", strerror(errno));
	l->spool_bytes += (int64_t)n;
	l->next_seq++;
	free(line);
}

/* Everything up to `seq` is stored: forget it; start the file over when it is
 * all gone and worth it. */
static void spool_ack(struct lh_link *l, int64_t seq)
{
	int64_t gone = seq - l->first_seq + 1, left = l->next_seq - 1 - seq;

	if (gone <= 0 || left < 0)
		return;
	memmove(l->offset, l->offset + gone, (size_t)left * sizeof(*l->offset));
	l->first_seq = seq + 1;
	if (l->sent_seq < seq)
		l->sent_seq = seq;
	if (!left && l->spool_bytes > COMPACT_BYTES && !ftruncate(l->spool_fd, 0))
		l->spool_bytes = 0;
}

/* The outbox into the spool; tells of records that were dropped before. */
static void spool_outbox(struct lh_link *l, json_t *records)
{
	json_t *r;
	size_t i;

	json_array_foreach (records, i, r)
		spool_append(l, r);
	if (l->dropped && l->spool_bytes < l->c.spool_max_bytes) {
		char *text = lh_asprintf("%lld step records were dropped while lhd was "
					 "away", (long long)l->dropped);
		json_t *note = json_pack("{s:s, s:s, s:s, s:I, s:I}", "t", "event",
					 "level", "warn", "text", text, "step",
					 (json_int_t)l->step, "time_ms",
					 (json_int_t)lh_time_ms());

		l->dropped = 0;
		spool_append(l, note);
		json_decref(note);
		free(text);
	}
}

/* ---- sending --------------------------------------------------------------- */

static void out_bytes(struct lh_link *l, const char *bytes, size_t n)
{
	if (l->out_used + n > l->out_cap) {
		l->out_cap = 2 * (l->out_used + n);
		l->out = lh_realloc(l->out, l->out_cap);
	}
	memcpy(l->out + l->out_used, bytes, n);
	l->out_used += n;
}

static void out_json_take(struct lh_link *l, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT | JSON_REAL_PRECISION(17));

	out_bytes(l, text, strlen(text));
	out_bytes(l, "\n", 1);
	free(text);
	json_decref(message);
}

/* The next batch of records, straight from the spool: its lines are JSON. */
static void out_records(struct lh_link *l)
{
	int64_t from = l->sent_seq + 1, to = l->next_seq, start, end;
	char *text;

	if (from >= to)
		return;
	if (to - from > LH_PROTO_BATCH)
		to = from + LH_PROTO_BATCH;
	start = l->offset[from - l->first_seq];
	end = to < l->next_seq ? l->offset[to - l->first_seq] : l->spool_bytes;
	text = lh_alloc((size_t)(end - start));
	if (pread(l->spool_fd, text, (size_t)(end - start), start) == end - start) {
		for (int64_t i = 0; i < end - start; i++)
			if (text[i] == '\n')
				text[i] = i == end - start - 1 ? ' ' : ',';
		out_bytes(l, "{\"m\":\"records\",\"records\":[", 26);
		out_bytes(l, text, (size_t)(end - start));
		out_bytes(l, "]}\n", 3);
		l->sent_seq = to - 1;
	} else {
		lh_error("cannot read the spool: %s", strerror(errno));
	}
	free(text);
}

static void hang_up(struct lh_link *l)
{
	if (l->fd < 0)
		return;
	close(l->fd);
	l->fd = -1;
	l->welcome = false;
	l->out_used = l->out_sent = 0;
	l->dial_at_us = lh_clock_us() + REDIAL_MS * 1000;
	lh_frame_release(&l->in);
}

static void flush(struct lh_link *l)
{
	while (l->fd >= 0 && l->out_sent < l->out_used) {
		ssize_t n = send(l->fd, l->out + l->out_sent, l->out_used - l->out_sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			hang_up(l);
			return;
		}
		l->out_sent += (size_t)n;
	}
	l->out_used = l->out_sent = 0;
}

static void say_hello(struct lh_link *l)
{
	int pid = getpid();
	json_t *hello;

	pthread_mutex_lock(&l->mutex);
	hello = json_pack(
		"{s:s, s:i, s:I, s:I, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:i, s:s}", "m",
		"hello", "proto", LH_PROTO_VERSION, "job", (json_int_t)l->c.job,
		"attempt", (json_int_t)l->c.attempt, "token", l->token, "pid", pid,
		"start_time", (json_int_t)lh_proc_start_time(pid), "generation",
		(json_int_t)l->generation, "first_seq", (json_int_t)l->first_seq,
		"next_seq", (json_int_t)l->next_seq, "step", (json_int_t)l->step,
		"phase", l->phase, "state", l->state);
	pthread_mutex_unlock(&l->mutex);
	out_json_take(l, hello);
}

static void dial(struct lh_link *l)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd;

	if (l->fd >= 0 || lh_clock_us() < l->dial_at_us)
		return;
	l->dial_at_us = lh_clock_us() + REDIAL_MS * 1000;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	memcpy(a.sun_path, l->socket, strlen(l->socket) + 1);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		close(fd);
		return;
	}
	l->fd = fd;
	say_hello(l);
}

/* ---- receiving ------------------------------------------------------------- */

static int64_t field(const json_t *m, const char *name)
{
	return json_integer_value(json_object_get(m, name));
}

static void deliver(struct lh_link *l, json_t *m)
{
	pthread_mutex_lock(&l->mutex);
	json_array_append(l->inbox, m);
	pthread_cond_broadcast(&l->arrived);
	pthread_mutex_unlock(&l->mutex);
}

/* A command once: lhd repeats what it has no outcome of after a reconnect. */
static void on_command(struct lh_link *l, json_t *m)
{
	int64_t id = field(m, "id");

	for (size_t i = 0; i < l->seen_count; i++)
		if (l->seen[i] == id)
			return;
	l->seen = lh_realloc(l->seen, (l->seen_count + 1) * sizeof(*l->seen));
	l->seen[l->seen_count++] = id;
	deliver(l, m);
}

static void on_message(struct lh_link *l, json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "m"));

	if (!name)
		return;
	if (!strcmp(name, "welcome")) {
		if (field(m, "generation") < l->generation) {
			hang_up(l); /* an lhd that was replaced */
			return;
		}
		l->generation = field(m, "generation");
		l->welcome = true;
		l->sent_seq = l->first_seq - 1;
		spool_ack(l, field(m, "stored_seq"));
	} else if (!strcmp(name, "ack")) {
		spool_ack(l, field(m, "seq"));
	} else if (!strcmp(name, "command")) {
		on_command(l, m);
	} else if (!strcmp(name, "call") || !strcmp(name, "refuse")) {
		deliver(l, m);
	}
}

static void receive(struct lh_link *l)
{
	char buf[65536], *line;
	size_t len;
	ssize_t n = recv(l->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		hang_up(l);
		return;
	}
	lh_frame_push(&l->in, buf, (size_t)n);
	while (l->fd >= 0 && lh_frame_next(&l->in, &line, &len) > 0) {
		json_t *m = json_loadb(line, len, 0, NULL);

		if (m)
			on_message(l, m);
		json_decref(m);
	}
}

/* ---- the thread ------------------------------------------------------------ */

static void out_progress(struct lh_link *l)
{
	int64_t now = lh_clock_us();

	if (now < l->progress_at_us)
		return;
	l->progress_at_us = now + PROGRESS_MS * 1000;
	pthread_mutex_lock(&l->mutex);
	out_json_take(l, json_pack("{s:s, s:I, s:i, s:s, s:s}", "m", "progress", "step",
				   (json_int_t)l->step, "phase", l->phase, "state",
				   l->state, "doing", l->doing));
	pthread_mutex_unlock(&l->mutex);
}

/* Takes over what the training thread left; gives true when it is time to end. */
static bool exchange(struct lh_link *l)
{
	json_t *records, *notes, *m;
	bool closing;
	size_t i;

	pthread_mutex_lock(&l->mutex);
	records = l->outbox;
	notes = l->notes;
	l->outbox = json_array();
	l->notes = json_array();
	closing = l->closing;
	pthread_mutex_unlock(&l->mutex);
	spool_outbox(l, records);
	json_array_foreach (notes, i, m)
		if (l->welcome)
			out_json_take(l, json_incref(m));
	json_decref(records);
	json_decref(notes);
	if (l->welcome)
		out_progress(l);
	if (l->welcome && !l->out_used)
		out_records(l);
	pthread_mutex_lock(&l->mutex);
	l->unacked = l->next_seq - l->first_seq;
	l->connected = l->welcome;
	pthread_cond_broadcast(&l->settled);
	pthread_mutex_unlock(&l->mutex);
	return closing;
}

static void *control_thread(void *arg)
{
	struct lh_link *l = arg;

	while (!exchange(l)) {
		struct pollfd p[2] = { { .fd = l->event_fd, .events = POLLIN } };
		uint64_t count;

		dial(l);
		flush(l);
		p[1].fd = l->fd;
		p[1].events = (short)(POLLIN | (l->out_used ? POLLOUT : 0));
		/* More records are waiting for an empty buffer: do not sleep. */
		if (poll(p, 2, l->welcome && !l->out_used && l->sent_seq + 1 < l->next_seq ?
				       0 : REDIAL_MS) < 0)
			continue;
		if (p[0].revents & POLLIN && read(l->event_fd, &count, 8) < 0)
			continue;
		if (l->fd >= 0 && p[1].revents)
			receive(l);
	}
	hang_up(l);
	return NULL;
}

static void notify(struct lh_link *l)
{
	uint64_t one = 1;

	if (write(l->event_fd, &one, 8) < 0)
		lh_error("cannot wake the control thread: %s", strerror(errno));
}

int lh_link_open(struct lh_link **out, const struct lh_link_config *c, struct lh_err *err)
{
	struct lh_link *l;
	int fd;

	if (strlen(c->socket) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		lh_err_set(err, LH_EINVAL, "socket path '%s' is too long", c->socket);
		return lh_err_hint(err, "a state directory with a shorter path");
	}
	fd = open(c->spool, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return lh_err_set(err, LH_EIO, "cannot create '%s': %s", c->spool,
				  strerror(errno));
	l = lh_calloc(1, sizeof(*l));
	l->c = *c;
	l->c.spool_max_bytes = c->spool_max_bytes ? c->spool_max_bytes :
						    LH_SPOOL_MAX_BYTES;
	l->token = lh_strdup(c->token);
	l->socket = lh_strdup(c->socket);
	l->event_fd = eventfd(0, EFD_CLOEXEC);
	l->outbox = json_array();
	l->notes = json_array();
	l->inbox = json_array();
	l->state = "running";
	l->doing = "starting";
	l->fd = -1;
	l->generation = c->generation;
	l->spool_fd = fd;
	l->first_seq = l->next_seq = 1;
	lh_frame_init(&l->in, LH_PROTO_LINE_MAX_BYTES);
	pthread_mutex_init(&l->mutex, NULL);
	pthread_cond_init(&l->arrived, NULL);
	pthread_cond_init(&l->settled, NULL);
	if (pthread_create(&l->thread, NULL, control_thread, l))
		LH_BUG("no thread");
	*out = l;
	return 0;
}

static struct timespec deadline(int ms)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

void lh_link_close(struct lh_link *l, int linger_ms)
{
	struct timespec end = deadline(linger_ms);

	notify(l);
	pthread_mutex_lock(&l->mutex);
	while (json_array_size(l->outbox) || json_array_size(l->notes) ||
	       (l->unacked && l->connected))
		if (pthread_cond_timedwait(&l->settled, &l->mutex, &end) == ETIMEDOUT)
			break;
	l->closing = true;
	pthread_mutex_unlock(&l->mutex);
	notify(l);
	pthread_join(l->thread, NULL);
	fsync(l->spool_fd);
	close(l->spool_fd);
	close(l->event_fd);
	json_decref(l->outbox);
	json_decref(l->notes);
	json_decref(l->inbox);
	pthread_mutex_destroy(&l->mutex);
	pthread_cond_destroy(&l->arrived);
	pthread_cond_destroy(&l->settled);
	lh_frame_release(&l->in);
	free(l->out);
	free(l->offset);
	free(l->seen);
	free(l->token);
	free(l->socket);
	free(l);
}

void lh_link_post_take(struct lh_link *l, json_t *record)
{
	LH_ASSERT(record);
	json_object_set_new(record, "time_ms", json_integer(lh_time_ms()));
	pthread_mutex_lock(&l->mutex);
	json_array_append_new(l->outbox, record);
	pthread_mutex_unlock(&l->mutex);
	notify(l);
}

void lh_link_send_take(struct lh_link *l, json_t *message)
{
	LH_ASSERT(message);
	pthread_mutex_lock(&l->mutex);
	json_array_append_new(l->notes, message);
	pthread_mutex_unlock(&l->mutex);
	notify(l);
}

void lh_link_status(struct lh_link *l, int64_t step, int phase, const char *state,
		    const char *doing)
{
	pthread_mutex_lock(&l->mutex);
	l->step = step;
	l->phase = phase;
	l->state = state;
	l->doing = doing;
	pthread_mutex_unlock(&l->mutex);
}

json_t *lh_link_take(struct lh_link *l, int wait_ms)
{
	struct timespec end = deadline(wait_ms);
	json_t *m = NULL;

	pthread_mutex_lock(&l->mutex);
	while (!json_array_size(l->inbox) && !l->woken && wait_ms > 0)
		if (pthread_cond_timedwait(&l->arrived, &l->mutex, &end) == ETIMEDOUT)
			break;
	l->woken = false;
	if (json_array_size(l->inbox)) {
		m = json_incref(json_array_get(l->inbox, 0));
		json_array_remove(l->inbox, 0);
	}
	pthread_mutex_unlock(&l->mutex);
	return m;
}

void lh_link_wake(struct lh_link *l)
{
	pthread_mutex_lock(&l->mutex);
	l->woken = true;
	pthread_cond_broadcast(&l->arrived);
	pthread_mutex_unlock(&l->mutex);
}

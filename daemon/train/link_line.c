/* link_line.c: a link's control thread: records into the spool and to lhd, what lhd
 * says to the training thread; see link_int.h. */
#include "train/link_int.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"
#include "lighthouse/proto.h"

enum {
	REDIAL_MS = 200,
	PROGRESS_MS = 1000,
	HELD_MAX = 1 << 17, /* records in memory, about 100 MiB */
};

/* ---- records into the spool ------------------------------------------------ */

static bool is_kind(const json_t *record, const char *kind)
{
	const char *t = json_string_value(json_object_get(record, "t"));

	return t && !strcmp(t, kind);
}

/* For a record that the spool did not take: `rc` says why. A disk gets room again;
 * a spool at its limit is too much already. */
static void hold(struct lh_link *l, json_t *record, int rc)
{
	bool step = is_kind(record, "step");

	if (!step || (rc == LH_EIO && json_array_size(l->held) < HELD_MAX))
		json_array_append(l->held, record);
	else if (!l->dropped++)
		lh_warn("step records are dropped until there is room for them");
}

static void tell_dropped(struct lh_link *l)
{
	char *text = lh_asprintf("%lld step records were dropped: the spool had no room "
				 "for them", (long long)l->dropped);
	json_t *note;

	pthread_mutex_lock(&l->mutex);
	note = json_pack("{s:s, s:s, s:s, s:I, s:I}", "t", "event", "level", "warn",
			 "text", text, "step", (json_int_t)l->step, "time_ms",
			 (json_int_t)lh_time_ms());
	pthread_mutex_unlock(&l->mutex);
	l->dropped = 0;
	if (lh_spool_append(l->spool, note, NULL))
		hold(l, note, LH_EIO);
	json_decref(note);
	free(text);
}

/* False: some are left. */
static bool spool_held(struct lh_link *l)
{
	size_t n = json_array_size(l->held), done = 0;
	json_t *rest;
	int rc = 0;

	while (done < n) {
		json_t *r = json_array_get(l->held, done);

		rc = lh_spool_append(l->spool, r, NULL);
		if (rc == LH_ETOOBIG)
			l->dropped++;
		else if (rc)
			break;
		done++;
	}
	if (!done)
		return !n;
	rest = json_array();
	for (size_t i = done; i < n; i++)
		json_array_append(rest, json_array_get(l->held, i));
	json_decref(l->held);
	l->held = rest;
	return done == n;
}

/* What was held, then what is new, in order, as far as the spool takes it. */
static void spool_all(struct lh_link *l, json_t *records)
{
	bool broken = !spool_held(l);
	struct lh_err err;
	json_t *r;
	size_t i;

	json_array_foreach (records, i, r) {
		int rc;

		if (l->dropped && is_kind(r, "end"))
			tell_dropped(l);
		rc = broken ? LH_EIO : lh_spool_append(l->spool, r, &err);
		if (rc == LH_EIO && !broken)
			lh_log_err(LH_LOG_ERROR, "records", &err);
		broken = broken || rc == LH_EIO;
		if (rc)
			hold(l, r, rc);
		else if (l->dropped && is_kind(r, "step"))
			tell_dropped(l);
	}
}

/* ---- sending --------------------------------------------------------------- */

static void out_json_take(struct lh_link *l, json_t *message)
{
	lh_buf_json(&l->out, message);
	lh_buf_append(&l->out, "\n", 1);
	json_decref(message);
}

/* Nobody will read answers to the calls of this line. */
static void forget_calls(struct lh_link *l)
{
	size_t i = 0;

	pthread_mutex_lock(&l->mutex);
	while (i < json_array_size(l->inbox)) {
		const json_t *m = json_array_get(l->inbox, i);

		if (!strcmp(json_string_value(json_object_get(m, "m")), "call"))
			json_array_remove(l->inbox, i);
		else
			i++;
	}
	l->line++;
	l->connected = false;
	pthread_cond_broadcast(&l->settled);
	pthread_mutex_unlock(&l->mutex);
}

static void hang_up(struct lh_link *l)
{
	if (l->fd < 0)
		return;
	close(l->fd);
	l->fd = -1;
	l->welcome = false;
	l->dial_at_us = lh_clock_us() + REDIAL_MS * 1000;
	lh_buf_release(&l->out);
	lh_frame_release(&l->in);
	forget_calls(l);
}

/* The next batch of records, straight from the spool. */
static void out_records(struct lh_link *l)
{
	int64_t from = l->sent_seq + 1, count = lh_spool_next(l->spool) - from;
	struct lh_err err;

	if (count <= 0)
		return;
	if (count > LH_PROTO_BATCH)
		count = LH_PROTO_BATCH;
	lh_buf_printf(&l->out, "{\"m\":\"records\",\"records\":[");
	if (lh_spool_read(l->spool, from, count, &l->out, &err)) {
		lh_log_err(LH_LOG_ERROR, "records", &err);
		hang_up(l);
		return;
	}
	lh_buf_printf(&l->out, "]}\n");
	l->sent_seq += count;
	LH_FAILPOINT("link.records");
}

static void flush(struct lh_link *l)
{
	while (l->fd >= 0 && l->out.used_bytes) {
		ssize_t n = send(l->fd, l->out.data, l->out.used_bytes,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
			hang_up(l);
		else
			lh_buf_consume(&l->out, (size_t)n);
	}
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
		(json_int_t)l->generation, "first_seq",
		(json_int_t)lh_spool_first(l->spool), "next_seq",
		(json_int_t)lh_spool_next(l->spool), "step", (json_int_t)l->step,
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
	/* Not blocking: an lhd that hangs has a full backlog. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
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

static bool is_an_end(const json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "m"));
	const char *verb = json_string_value(json_object_get(m, "verb"));

	return !strcmp(name, "refuse") ||
	       (verb && (!strcmp(verb, "stop") || !strcmp(verb, "cancel")));
}

/* The training thread owns it from here: JSON values are not shared, their
 * counts of references are no business of two threads. */
static void deliver_take(struct lh_link *l, json_t *m)
{
	bool told;

	pthread_mutex_lock(&l->mutex);
	json_object_set_new(m, "line", json_integer(l->line));
	l->ending = l->ending || is_an_end(m);
	json_array_append_new(l->inbox, m);
	told = l->ending;
	pthread_cond_broadcast(&l->arrived);
	pthread_mutex_unlock(&l->mutex);
	if (told)
		LH_FAILPOINT("link.told");
}

bool lh__link_is_new(struct lh_link *l, int64_t id)
{
	for (size_t i = 0; i < l->seen_count; i++)
		if (l->seen[i] == id)
			return LH_PLANTED("double_apply");
	l->seen = lh_realloc(l->seen, (l->seen_count + 1) * sizeof(*l->seen));
	l->seen[l->seen_count++] = id;
	return true;
}

static void on_welcome(struct lh_link *l, const json_t *m)
{
	int64_t generation = lh__link_field(m, "generation");

	if (generation < l->generation) {
		hang_up(l); /* an lhd that was replaced */
		return;
	}
	LH_FAILPOINT("link.welcome");
	l->generation = generation;
	l->welcome = true;
	l->told_doing = NULL;
	lh_spool_ack(l->spool, lh__link_field(m, "stored_seq"));
	l->sent_seq = lh_spool_first(l->spool) - 1;
}

/* Before its welcome, an lhd is a stranger that can only send us away. */
static void on_message_take(struct lh_link *l, json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "m"));

	if (!name)
		name = "";
	if (!strcmp(name, "refuse") || (l->welcome && !strcmp(name, "call")) ||
	    (l->welcome && !strcmp(name, "command") && lh__link_is_new(l, lh__link_field(m, "id")))) {
		deliver_take(l, m);
		return;
	}
	if (!strcmp(name, "welcome"))
		on_welcome(l, m);
	else if (l->welcome && !strcmp(name, "ack") && lh__link_field(m, "seq") <= l->sent_seq)
		lh_spool_ack(l->spool, lh__link_field(m, "seq"));
	json_decref(m);
}

static void receive(struct lh_link *l)
{
	char buf[65536], *line;
	int rc = 0;
	size_t len;
	ssize_t n = recv(l->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		hang_up(l);
		return;
	}
	lh_frame_push(&l->in, buf, (size_t)n);
	while (l->fd >= 0 && (rc = lh_frame_next(&l->in, &line, &len)) > 0) {
		json_t *m = json_loadb(line, len, 0, NULL);

		if (m)
			on_message_take(l, m);
	}
	if (rc < 0)
		hang_up(l);
}

/* ---- the thread ------------------------------------------------------------ */

static void out_progress(struct lh_link *l)
{
	int64_t now = lh_clock_us();

	pthread_mutex_lock(&l->mutex);
	if (now < l->progress_at_us && l->doing == l->told_doing) {
		pthread_mutex_unlock(&l->mutex);
		return;
	}
	l->progress_at_us = now + PROGRESS_MS * 1000;
	l->told_doing = l->doing;
	out_json_take(l, json_pack("{s:s, s:I, s:i, s:s, s:s, s:I}", "m", "progress",
				   "step", (json_int_t)l->step, "phase", l->phase, "state",
				   l->state, "doing", l->doing, "beat",
				   (json_int_t)l->beat));
	pthread_mutex_unlock(&l->mutex);
}

static void out_answers(struct lh_link *l, json_t *answers)
{
	json_t *m;
	size_t i;

	json_array_foreach (answers, i, m) {
		/* Only this thread changes l->line. */
		if (!l->welcome || lh__link_field(m, "line") != l->line)
			continue;
		json_object_del(m, "line");
		out_json_take(l, json_incref(m));
	}
}

/* Takes over what the training thread left; gives true when it is time to end. */
static bool exchange(struct lh_link *l)
{
	json_t *records, *answers;
	int64_t taken;
	bool closing;

	pthread_mutex_lock(&l->mutex);
	records = l->outbox;
	answers = l->answers;
	l->outbox = json_array();
	l->answers = json_array();
	l->busy = true;
	closing = l->closing;
	pthread_mutex_unlock(&l->mutex);
	spool_all(l, records);
	out_answers(l, answers);
	taken = (int64_t)json_array_size(records);
	json_decref(records);
	json_decref(answers);
	if (l->welcome && !l->out.used_bytes)
		out_progress(l);
	if (l->welcome && !l->out.used_bytes)
		out_records(l);
	pthread_mutex_lock(&l->mutex);
	l->unacked = lh_spool_next(l->spool) - lh_spool_first(l->spool) +
		     (int64_t)json_array_size(l->held);
	/* Before its welcome too: lhd may be about to say it. */
	l->connected = l->fd >= 0;
	l->spooled += taken;
	l->busy = false;
	pthread_cond_broadcast(&l->settled);
	pthread_mutex_unlock(&l->mutex);
	return closing;
}

/* More records wait for an empty buffer: there is nothing to wait for. */
static bool has_more(const struct lh_link *l)
{
	return l->welcome && !l->out.used_bytes &&
	       l->sent_seq + 1 < lh_spool_next(l->spool);
}

void *lh__link_run(void *arg)
{
	struct lh_link *l = arg;

	for (;;) {
		struct pollfd p[2] = { { .fd = l->event_fd, .events = POLLIN } };
		uint64_t count;

		dial(l);
		if (exchange(l))
			break;
		flush(l);
		p[1].fd = l->fd;
		p[1].events = (short)(POLLIN | (l->out.used_bytes ? POLLOUT : 0));
		if (poll(p, 2, has_more(l) ? 0 : REDIAL_MS) < 0)
			continue;
		if (p[0].revents & POLLIN && read(l->event_fd, &count, 8) < 0)
			continue;
		if (l->fd >= 0 && p[1].revents)
			receive(l);
	}
	hang_up(l);
	return NULL;
}

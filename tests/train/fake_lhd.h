/* fake_lhd.h: the other end of worker.sock, in a test's hands: it accepts,
 * reads and says exactly what the test tells it to. Every wait has a deadline.
 * Included after cmocka.h. */
#ifndef LIGHTHOUSE_TEST_FAKE_LHD_H
#define LIGHTHOUSE_TEST_FAKE_LHD_H

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../scratch.h"
#include "base/frame.h"
#include "lighthouse/proto.h"

enum { FAKE_LIMIT_MS = 60000 };

struct fake_lhd {
	char *path;
	int listener, fd;
	struct lh_frame in;
};

static inline void fake_open(struct fake_lhd *f)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	f->path = scratch_path("worker.sock");
	strcpy(a.sun_path, f->path);
	unlink(f->path);
	f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	f->fd = -1;
	assert_int_equal(bind(f->listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(f->listener, 8), 0);
	lh_frame_init(&f->in, LH_PROTO_LINE_MAX_BYTES);
}

static inline void fake_hang_up(struct fake_lhd *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
	lh_frame_release(&f->in);
}

static inline void fake_close(struct fake_lhd *f)
{
	fake_hang_up(f);
	if (f->listener >= 0)
		close(f->listener);
	f->listener = -1;
	free(f->path);
	f->path = NULL;
}

static inline bool fake_wait(int fd, int limit_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t end = lh_clock_us() + (int64_t)limit_ms * 1000;
	int rc;

	do
		rc = poll(&p, 1, limit_ms);
	while (rc < 0 && errno == EINTR && lh_clock_us() < end);
	return rc > 0;
}

/* Next message; NULL when the worker hung up, or said nothing for limit_ms
 * (0: that would be a failure). */
static inline json_t *fake_read_within(struct fake_lhd *f, int limit_ms)
{
	char buf[4096], *line;
	ssize_t n;
	size_t len;

	while (!lh_frame_next(&f->in, &line, &len)) {
		if (!fake_wait(f->fd, limit_ms ? limit_ms : FAKE_LIMIT_MS)) {
			if (!limit_ms)
				fail_msg("the worker says nothing");
			return NULL;
		}
		n = recv(f->fd, buf, sizeof(buf), 0);
		if (n <= 0)
			return NULL;
		lh_frame_push(&f->in, buf, (size_t)n);
	}
	return json_loadb(line, len, 0, NULL);
}

static inline bool fake_is(const json_t *m, const char *name)
{
	const char *is = json_string_value(json_object_get(m, "m"));

	return is && !strcmp(is, name);
}

static inline int64_t fake_int(const json_t *m, const char *key)
{
	assert_true(json_is_integer(json_object_get(m, key)));
	return json_integer_value(json_object_get(m, key));
}

/* The next message of a kind; progress is passed over, anything else fails. */
static inline json_t *fake_expect(struct fake_lhd *f, const char *name)
{
	for (;;) {
		json_t *m = fake_read_within(f, 0);

		if (!m)
			fail_msg("the worker hung up, not '%s'", name);
		if (fake_is(m, name))
			return m;
		if (!fake_is(m, "progress"))
			fail_msg("'%s' instead of '%s'", json_dumps(m, 0), name);
		json_decref(m);
	}
}

/* A worker dials: its hello. */
static inline json_t *fake_accept(struct fake_lhd *f)
{
	fake_hang_up(f);
	if (!fake_wait(f->listener, FAKE_LIMIT_MS))
		fail_msg("nobody dials");
	f->fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(f->fd >= 0);
	return fake_expect(f, "hello");
}

static inline void fake_send_take(struct fake_lhd *f, json_t *m)
{
	char *text;

	assert_non_null(m);
	text = json_dumps(m, JSON_COMPACT);
	/* The worker may have hung up; the test sees that when it reads. */
	send(f->fd, text, strlen(text), MSG_NOSIGNAL);
	send(f->fd, "\n", 1, MSG_NOSIGNAL);
	free(text);
	json_decref(m);
}

static inline void fake_welcome(struct fake_lhd *f, int64_t generation, int64_t stored)
{
	fake_send_take(f, json_pack("{s:s, s:i, s:I, s:I}", "m", "welcome", "proto",
				    LH_PROTO_VERSION, "generation",
				    (json_int_t)generation, "stored_seq",
				    (json_int_t)stored));
}

static inline void fake_ack(struct fake_lhd *f, int64_t seq)
{
	fake_send_take(f, json_pack("{s:s, s:I}", "m", "ack", "seq", (json_int_t)seq));
}

static inline void fake_command(struct fake_lhd *f, int64_t id, const char *verb,
				json_t *args)
{
	fake_send_take(f, json_pack("{s:s, s:I, s:s, s:o}", "m", "command", "id",
				    (json_int_t)id, "verb", verb, "args",
				    args ? args : json_object()));
}

#endif

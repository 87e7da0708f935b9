/* handlers_logs.c: job.logs: what an attempt's worker has printed, a piece a call.
 *
 * The file is read on the thread pool. Whether more may come is asked of the jobs
 * before the file is read: when an attempt is over by then, its end of file is the
 * end. Text is the worker's and libraries', so anything: what is not UTF-8 becomes
 * U+FFFD, and a character that the piece's end cuts is left for the next. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "control/control.h"
#include "lighthouse/proto.h"
#include "rpc_table.h"

enum {
	DEFAULT_BYTES = 64 << 10,
	TAIL_BLOCK_BYTES = 64 << 10,
	TAIL_MAX_BYTES = 16 << 20,   /* how far back the last lines are looked for */
};

struct logs {
	uv_work_t req;
	struct lh_call *call;
	char *path;
	int64_t attempt, newest;
	bool live;             /* the attempt's worker may print more */
	int64_t lines;         /* the last ones are wanted; -1: from `offset` */
	int64_t offset, next, limit, file_bytes;
	struct lh_buf text;
	int rc;
	struct lh_err err;
};

/* -1: nothing to read, or an error. */
static int open_log(struct logs *l)
{
	int fd = open(l->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0 && errno == ENOENT && l->live)
		return -1; /* not begun */
	if (fd < 0) {
		l->rc = lh_err_set(&l->err, errno == ENOENT ? LH_ENOTFOUND : LH_EIO,
				   "cannot read '%s': %s", l->path, strerror(errno));
		return -1;
	}
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		l->rc = lh_err_set(&l->err, LH_EIO, "'%s' is no file", l->path);
		close(fd);
		return -1;
	}
	l->file_bytes = st.st_size;
	return fd;
}

/* Where the last l->lines lines begin. */
static int64_t find_tail(const struct logs *l, int fd)
{
	int64_t at = l->file_bytes, left = l->lines + 1;
	char *block = lh_calloc(1, TAIL_BLOCK_BYTES);

	/* A file that ends in the middle of a line ends in a line all the same. */
	if (at && pread(fd, block, 1, at - 1) == 1 && *block != '\n')
		left--;
	while (left > 0 && at > 0 && l->file_bytes - at < TAIL_MAX_BYTES) {
		int64_t n = at < TAIL_BLOCK_BYTES ? at : TAIL_BLOCK_BYTES;

		if (pread(fd, block, (size_t)n, at - n) != n)
			break;
		for (at -= n; n && left; n--)
			if (block[n - 1] == '\n' && !--left)
				at += n;
	}
	free(block);
	return at;
}

/* Bytes of `data` without a character at its end that is cut short. */
static size_t whole_characters(const unsigned char *data, size_t n)
{
	for (size_t back = 1; back <= 3 && back <= n; back++)
		if (!lh_utf8_span(data + n - back, back))
			return n - back;
	return n;
}

static void append_text(struct lh_buf *out, const char *data, size_t n)
{
	char part[LH_UTF8_OUT_BYTES];
	struct lh_utf8 u = { 0 };

	for (size_t i = 0; i < n; i++) {
		lh_utf8_feed(&u, (unsigned char)data[i], part);
		lh_buf_append(out, part, strlen(part));
	}
	lh_utf8_end(&u, part);
	lh_buf_append(out, part, strlen(part));
}

/* On a pool thread. */
static void read_piece(uv_work_t *req)
{
	struct logs *l = req->data;
	int fd = open_log(l);
	char *data;
	ssize_t n;

	if (fd < 0)
		return;
	if (l->lines >= 0)
		l->offset = find_tail(l, fd);
	data = lh_calloc(1, (size_t)l->limit);
	n = pread(fd, data, (size_t)l->limit, l->offset);
	if (n < 0) {
		l->rc = lh_err_set(&l->err, LH_EIO, "cannot read '%s': %s", l->path,
				   strerror(errno));
	} else {
		bool end = !l->live && l->offset + n >= l->file_bytes;
		size_t whole = end ? (size_t)n :
				     whole_characters((unsigned char *)data, (size_t)n);

		append_text(&l->text, data, whole);
		l->next = l->offset + (int64_t)whole;
	}
	free(data);
	close(fd);
}

static json_t *result(const struct logs *l)
{
	const char *text = l->text.used_bytes ? l->text.data : "";

	return json_pack("{s:I, s:I, s:b, s:I, s:I, s:I, s:b, s:s%}", "attempt",
			 (json_int_t)l->attempt, "newest_attempt", (json_int_t)l->newest,
			 "live", l->live, "bytes", (json_int_t)l->file_bytes, "offset",
			 (json_int_t)l->offset, "next_offset", (json_int_t)l->next,
			 "more", l->next < l->file_bytes, "text", text,
			 l->text.used_bytes);
}

static void answer(struct logs *l)
{
	if (l->rc)
		lh_reply_err(l->call, &l->err);
	else
		lh_reply_ok(l->call, result(l));
	lh_buf_release(&l->text);
	free(l->path);
	free(l);
}

static void piece_read(uv_work_t *req, int status)
{
	(void)status; /* never cancelled */
	answer(req->data);
}

static struct logs *logs_new(struct lh_call *call, int64_t id)
{
	struct lh_jobs *jobs = lh_control_of(call)->jobs;
	json_t *job = lh_jobs_get(jobs, id);
	struct logs *l = lh_calloc(1, sizeof(*l));
	char *dir = lh_jobs_dir(jobs, id);

	l->req.data = l;
	l->call = call;
	l->newest = json_integer_value(json_object_get(job, "attempt"));
	l->attempt = lh_call_int(call, "attempt", l->newest);
	l->live = l->attempt == l->newest &&
		  !json_is_integer(json_object_get(job, "ended_ms"));
	l->path = lh_asprintf("%s/attempt-%" PRId64 "/" LH_ATTEMPT_LOG, dir, l->attempt);
	l->lines = lh_call_int(call, "lines", -1);
	l->offset = l->next = lh_call_int(call, "offset", 0);
	l->limit = lh_call_int(call, "limit_bytes", DEFAULT_BYTES);
	if (l->attempt > l->newest) {
		l->rc = lh_err_set(&l->err, LH_ENOTFOUND,
				   "job %" PRId64 " has no attempt %" PRId64, id,
				   l->attempt);
		lh_err_hint(&l->err, l->newest ? "its newest is %" PRId64 :
						 "it has not started yet", l->newest);
	}
	json_decref(job);
	free(dir);
	return l;
}

void rpc_job_logs(struct lh_call *call)
{
	struct logs *l;
	int64_t job;

	if (!lh_control_find_job(call, &job))
		return;
	l = logs_new(call, job);
	/* A job that never started has an empty log. */
	if (l->rc || !l->attempt)
		answer(l);
	else if (uv_queue_work(lh_control_of(call)->loop, &l->req, read_piece, piece_read))
		LH_BUG("the thread pool refuses work");
}

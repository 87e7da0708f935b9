/* spool.c: see spool.h. */
#include "train/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/io.h"
#include "base/log.h"

enum { CHUNK_BYTES = 1 << 20 };

struct lh_spool {
	char *path, *tmp;
	int fd;
	int64_t max_bytes;
	int64_t bytes;        /* of the file */
	int64_t first, next;  /* seq */
	int64_t *offset;      /* of first .. next - 1 */
	size_t offset_cap;
};

static int create(const char *path)
{
	return lh_io->open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

int lh_spool_open(struct lh_spool **out, const char *path, int64_t max_bytes,
		  struct lh_err *err)
{
	int fd = create(path);
	struct lh_spool *s;

	if (fd < 0)
		return lh_err_set(err, LH_EIO, "cannot create '%s': %s", path,
				  strerror(errno));
	s = lh_calloc(1, sizeof(*s));
	s->path = lh_strdup(path);
	s->tmp = lh_asprintf("%s.tmp", path);
	s->fd = fd;
	s->max_bytes = max_bytes ? max_bytes : LH_SPOOL_MAX_BYTES;
	s->first = s->next = 1;
	*out = s;
	return 0;
}

void lh_spool_close(struct lh_spool *s)
{
	if (!s)
		return;
	if (lh_io->fsync(s->fd))
		lh_error("cannot sync '%s': %s", s->path, strerror(errno));
	lh_io->close(s->fd);
	free(s->path);
	free(s->tmp);
	free(s->offset);
	free(s);
}

int lh_spool_sync(const char *path, struct lh_err *err)
{
	int fd = lh_io->open(path, O_RDONLY | O_CLOEXEC, 0), rc = 0;

	if (fd < 0 || lh_io->fsync(fd))
		rc = lh_err_set(err, LH_EIO, "cannot sync '%s': %s", path,
				strerror(errno));
	if (fd >= 0)
		lh_io->close(fd);
	LH_FAILPOINT("spool.synced");
	return rc ? rc : lh_fs_sync_parent(path, err);
}

int64_t lh_spool_first(const struct lh_spool *s)
{
	return s->first;
}

int64_t lh_spool_next(const struct lh_spool *s)
{
	return s->next;
}

static bool read_at(int fd, char *data, size_t bytes, int64_t at)
{
	while (bytes) {
		ssize_t n = lh_io->pread(fd, data, bytes, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data += n;
		bytes -= (size_t)n;
		at += n;
	}
	return true;
}

static int64_t offset_of(const struct lh_spool *s, int64_t seq)
{
	return seq < s->next ? s->offset[seq - s->first] : s->bytes;
}

int lh_spool_append(struct lh_spool *s, json_t *record, struct lh_err *err)
{
	const char *kind = json_string_value(json_object_get(record, "t"));
	struct lh_buf line = { 0 };
	int rc = 0;

	json_object_set_new(record, "seq", json_integer(s->next));
	lh_buf_json(&line, record);
	lh_buf_append(&line, "\n", 1);
	if (s->bytes + (int64_t)line.used_bytes > s->max_bytes && kind &&
	    !strcmp(kind, "step")) {
		rc = lh_err_set(err, LH_ETOOBIG, "'%s' is full", s->path);
	} else if (LH_FAILS("spool.write") ||
		   lh_fs_write_at(s->fd, line.data, line.used_bytes, s->bytes)) {
		rc = lh_err_set(err, LH_EIO, "cannot write '%s': %s", s->path,
				strerror(errno));
		/* Half a line must not be taken for a record. */
		if (lh_io->ftruncate(s->fd, s->bytes))
			lh_error("cannot cut '%s': %s", s->path, strerror(errno));
	} else {
		if ((size_t)(s->next - s->first) == s->offset_cap) {
			s->offset_cap = s->offset_cap ? 2 * s->offset_cap : 1024;
			s->offset = lh_realloc(s->offset,
					       s->offset_cap * sizeof(*s->offset));
		}
		s->offset[s->next++ - s->first] = s->bytes;
		s->bytes += (int64_t)line.used_bytes;
		LH_FAILPOINT("spool.written");
	}
	lh_buf_release(&line);
	return rc;
}

static bool copy_tail(struct lh_spool *s, int fd, int64_t from)
{
	char *chunk = lh_alloc(CHUNK_BYTES);
	bool ok = true;

	for (int64_t at = from; ok && at < s->bytes; at += CHUNK_BYTES) {
		size_t n = (size_t)(s->bytes - at < CHUNK_BYTES ? s->bytes - at :
								   CHUNK_BYTES);

		ok = read_at(s->fd, chunk, n, at) &&
		     !lh_fs_write_at(fd, chunk, n, at - from);
	}
	free(chunk);
	return ok;
}

/* Bytes [from, end of file) into a file that takes the place of this one, once they
 * are safe: what lh_spool_sync has promised of this one must hold for it. */
static bool move_tail(struct lh_spool *s, int64_t from)
{
	int fd = create(s->tmp);

	if (fd >= 0 && copy_tail(s, fd, from) && !lh_io->fsync(fd) &&
	    !lh_io->rename(s->tmp, s->path)) {
		lh_io->close(s->fd);
		s->fd = fd;
		return true;
	}
	lh_warn("cannot shorten '%s': %s", s->path, strerror(errno));
	if (fd >= 0)
		lh_io->close(fd);
	lh_io->unlink(s->tmp);
	return false;
}

void lh_spool_ack(struct lh_spool *s, int64_t seq)
{
	int64_t gone, left, from;

	/* Compared before it is reckoned with: it may be any number. */
	if (seq < s->first || seq >= s->next)
		return;
	gone = seq - s->first + 1;
	left = s->next - 1 - seq;
	LH_FAILPOINT("spool.acked");
	memmove(s->offset, s->offset + gone, (size_t)left * sizeof(*s->offset));
	s->first = seq + 1;
	from = offset_of(s, s->first);
	if (from <= LH_SPOOL_SLACK_BYTES || from < s->bytes / 2 || !move_tail(s, from))
		return;
	s->bytes -= from;
	for (int64_t i = 0; i < left; i++)
		s->offset[i] -= from;
}

int lh_spool_read(const struct lh_spool *s, int64_t from, int64_t count,
		  struct lh_buf *out, struct lh_err *err)
{
	int64_t start;
	char *text;
	size_t n;

	LH_ASSERT(from >= s->first && count > 0 && from + count <= s->next);
	start = offset_of(s, from);
	n = (size_t)(offset_of(s, from + count) - start);
	text = lh_alloc(n);
	if (!read_at(s->fd, text, n, start)) {
		free(text);
		return lh_err_set(err, LH_EIO, "cannot read '%s': %s", s->path,
				  strerror(errno));
	}
	n--; /* the last newline; the others separate, and JSON holds no raw ones */
	for (size_t i = 0; i < n; i++)
		if (text[i] == '\n')
			text[i] = ',';
	lh_buf_append(out, text, n);
	free(text);
	return 0;
}

/* pack_stream.c: a file's bytes, unpacked by zlib or zstd. See pack.h.
 *
 * A few bytes can stand for any number of them. A file that grows more than
 * GROWTH_MAX-fold is refused once it is past GROWTH_FREE_BYTES: text packs to a fifth,
 * at best to a fiftieth. zstd's own limit of its window, 128 MiB, is left as it is. */
#include "pack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { GROWTH_MAX = 200, IN_BYTES = 256 << 10 };
#define GROWTH_FREE_BYTES (INT64_C(64) << 20)

struct pack_stream {
	char *name;
	int fd;
	gzFile gz;
	ZSTD_DStream *zstd;
	char *in;             /* what zstd is to unpack */
	ZSTD_inBuffer packed;
	size_t frame;         /* zstd's last word; 0: a frame is complete */
	int64_t size, made;   /* bytes on disk; unpacked so far */
};

static bool ends(const char *name, const char *end, size_t n)
{
	size_t l = strlen(name);

	return l >= n && !strncmp(name + l - n, end, n);
}

bool pack_name_ends(const char *name, const char *end, size_t n)
{
	size_t packed = ends(name, ".gz", 3) ? 3 : ends(name, ".zst", 4) ? 4 : 0;
	size_t l = strlen(name) - packed;

	return ends(name, end, n) || (l >= n && !strncmp(name + l - n, end, n));
}

static int damaged(const struct pack_stream *s, const char *what, struct lh_err *err)
{
	lh_err_set(err, LH_EDATA, "'%s': damaged %s", s->name, what);
	return lh_err_hint(err, "was it copied whole? try '%s'",
			   s->gz ? "gzip -t" : "zstd -t");
}

static int open_unpacker(struct pack_stream *s)
{
	if (ends(s->name, ".gz", 3)) {
		s->gz = gzdopen(s->fd, "rb");
		if (s->gz)
			gzbuffer(s->gz, IN_BYTES);
		return s->gz ? 0 : -1;
	}
	if (!ends(s->name, ".zst", 4))
		return 0;
	s->zstd = ZSTD_createDStream();
	s->in = lh_alloc(IN_BYTES);
	return s->zstd ? 0 : -1;
}

int pack_stream_open(struct pack_stream **out, const char *path, bool in_tree,
		     struct lh_err *err)
{
	struct pack_stream *s = lh_calloc(1, sizeof(*s));
	struct stat st;

	s->name = lh_strdup(path ? path : "stdin");
	/* A pipe of that name must not block. */
	s->fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK |
				  (in_tree ? O_NOFOLLOW : 0)) :
		       STDIN_FILENO;
	if (s->fd < 0 || fstat(s->fd, &st) || (path && !S_ISREG(st.st_mode)) ||
	    (path && open_unpacker(s))) {
		lh_err_set(err, LH_EIO, "cannot read '%s': %s", s->name, strerror(errno));
		pack_stream_close(s);
		return err->code;
	}
	s->size = st.st_size;
	*out = s;
	return 0;
}

static int64_t read_plain(struct pack_stream *s, char *out, int64_t n, struct lh_err *err)
{
	ssize_t got;

	do {
		got = read(s->fd, out, (size_t)n);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return lh_err_set(err, LH_EIO, "cannot read '%s': %s", s->name,
				  strerror(errno));
	return got;
}

static int64_t read_gz(struct pack_stream *s, char *out, int64_t n, struct lh_err *err)
{
	int what, got = gzread(s->gz, out, n < INT32_MAX ? (unsigned)n : INT32_MAX);

	/* What is no gzip would be passed through; the end of a cut one is told late. */
	gzerror(s->gz, &what);
	if (got < 0 || what < 0 || gzdirect(s->gz))
		return damaged(s, "gzip", err);
	return got;
}

static int64_t read_zstd(struct pack_stream *s, char *out, int64_t n, struct lh_err *err)
{
	ZSTD_outBuffer to = { out, (size_t)n, 0 };

	while (!to.pos) {
		if (s->packed.pos == s->packed.size) {
			int64_t got = read_plain(s, s->in, IN_BYTES, err);

			if (got < 0)
				return got;
			if (!got)
				return s->frame ? damaged(s, "zstd", err) : 0;
			s->packed = (ZSTD_inBuffer){ s->in, (size_t)got, 0 };
		}
		s->frame = ZSTD_decompressStream(s->zstd, &to, &s->packed);
		if (ZSTD_isError(s->frame))
			return damaged(s, "zstd", err);
	}
	return (int64_t)to.pos;
}

static int check_growth(const struct pack_stream *s, struct lh_err *err)
{
	if ((!s->gz && !s->zstd) || s->made <= GROWTH_FREE_BYTES ||
	    s->made / GROWTH_MAX <= s->size)
		return 0;
	lh_err_set(err, LH_EDATA, "'%s': unpacked it is more than %d times as large",
		   s->name, GROWTH_MAX);
	return lh_err_hint(err, "is it text? unpack it yourself, and pack what comes out");
}

int64_t pack_stream_read(struct pack_stream *s, char *out, int64_t n, struct lh_err *err)
{
	int64_t have = 0;

	while (have < n) {
		int64_t got = s->gz   ? read_gz(s, out + have, n - have, err) :
			      s->zstd ? read_zstd(s, out + have, n - have, err) :
					read_plain(s, out + have, n - have, err);

		if (got < 0)
			return got;
		if (!got)
			break;
		have += got;
		s->made += got;
		if (check_growth(s, err))
			return err->code;
	}
	return have;
}

void pack_stream_close(struct pack_stream *s)
{
	if (!s)
		return;
	ZSTD_freeDStream(s->zstd);
	if (s->gz)
		gzclose(s->gz); /* and the file */
	else if (s->fd > STDIN_FILENO)
		close(s->fd);
	free(s->in);
	free(s->name);
	free(s);
}

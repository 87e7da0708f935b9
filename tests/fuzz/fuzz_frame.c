/* fuzz_frame.c: lines out of a stream (base/frame.h), against a plain reading of its
 * contract.
 *
 * The first byte is the longest line, the second how many bytes come at once; the
 * rest is the stream. Whatever the pieces, what is handed out must be the lines of
 * the stream, in order, those too long each reported once. */
#include "base/frame.h"
#include "fuzz.h"

enum { PIECE_MAX_BYTES = 64 };

/* The next line there should be: 1, LH_ETOOBIG, or 0 when none is complete. A line
 * counts with its '\r' for its length and without it for its text. */
static int expected(struct fuzz_part *rest, size_t max_bytes, struct fuzz_part *line)
{
	for (;;) {
		const char *end = rest->bytes ? memchr(rest->text, '\n', rest->bytes) : NULL;

		if (!end)
			return 0;
		*line = (struct fuzz_part){ rest->text, (size_t)(end - rest->text) };
		rest->bytes -= line->bytes + 1;
		rest->text = end + 1;
		if (line->bytes > max_bytes)
			return LH_ETOOBIG;
		if (line->bytes && line->text[line->bytes - 1] == '\r')
			line->bytes--;
		if (line->bytes)
			return 1;
	}
}

/* All lines that are there now; `reported`: the one without an end was too long. */
static void take_lines(struct lh_frame *f, struct fuzz_part *rest, bool *reported)
{
	struct fuzz_part want;
	size_t len;
	char *line;
	int rc;

	while ((rc = lh_frame_next(f, &line, &len))) {
		int due;

		if (*reported) { /* its end came: it is not told of again */
			LH_ASSERT(expected(rest, f->max_bytes, &want) == LH_ETOOBIG);
			*reported = false;
		}
		due = expected(rest, f->max_bytes, &want);
		if (rc == LH_ETOOBIG && due == 0)
			*reported = true;
		else
			LH_ASSERT(rc == due);
		if (rc != 1)
			continue;
		LH_ASSERT(len == want.bytes && line[len] == '\0');
		LH_ASSERT(!memcmp(line, want.text, len));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct fuzz_part rest, want;
	struct lh_frame f;
	size_t piece;
	bool reported = false;

	if (bytes < 2)
		return 0;
	lh_frame_init(&f, data[0]);
	piece = data[1] % PIECE_MAX_BYTES + 1;
	rest = (struct fuzz_part){ (const char *)data + 2, bytes - 2 };
	for (size_t at = 2; at < bytes; at += piece) {
		size_t n = bytes - at < piece ? bytes - at : piece;

		lh_frame_push(&f, (const char *)data + at, n);
		take_lines(&f, &rest, &reported);
		LH_ASSERT(f.used_bytes <= f.max_bytes + PIECE_MAX_BYTES);
	}
	if (reported)
		LH_ASSERT(expected(&rest, f.max_bytes, &want) != 1);
	else
		LH_ASSERT(expected(&rest, f.max_bytes, &want) == 0);
	lh_frame_release(&f);
	return 0;
}

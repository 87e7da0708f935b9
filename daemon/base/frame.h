/* frame.h: JSON objects, one a line, out of a byte stream.
 *
 * A frame collects bytes and hands out complete lines. It never grows past
 * `max_bytes`: a longer line is dropped to its newline and reported once as
 * LH_ETOOBIG, so the stream stays usable. No I/O here; one owner, one thread.
 *
 *   lh_frame_init(&f, max);
 *   on data: lh_frame_push(&f, bytes, n);
 *            while ((rc = lh_frame_next(&f, &line, &len)) > 0) ... use line ...
 *            rc == LH_ETOOBIG: say so; call lh_frame_next again
 *   lh_frame_release(&f);
 */
#ifndef LIGHTHOUSE_FRAME_H
#define LIGHTHOUSE_FRAME_H

#include <stdbool.h>
#include <stddef.h>

#include "lighthouse/err.h"

struct lh_frame {
	size_t max_bytes;   /* set at init */
	char *data;         /* private: from here down */
	size_t used_bytes;
	size_t cap_bytes;
	size_t next;        /* start of the first line not handed out */
	size_t scanned;     /* bytes known to hold no newline */
	bool dropping;      /* inside a line that was too long */
};

void lh_frame_init(struct lh_frame *f, size_t max_bytes);
void lh_frame_release(struct lh_frame *f);
void lh_frame_push(struct lh_frame *f, const char *bytes, size_t n);
/* 1 and a NUL-terminated line without its newline (and without a '\r' before
 * it), valid until the next push or next; 0 when there is no complete line;
 * LH_ETOOBIG once for a line that was dropped. Empty lines are skipped. */
int lh_frame_next(struct lh_frame *f, char **line, size_t *len);

#endif

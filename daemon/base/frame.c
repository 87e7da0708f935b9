/* frame.c: lines out of bytes; see frame.h. */
#include "base/frame.h"

#include <stdlib.h>
#include <string.h>

#define KEEP_BYTES (256u << 10)

void lh_frame_init(struct lh_frame *f, size_t max_bytes)
{
	memset(f, 0, sizeof(*f));
	f->max_bytes = max_bytes;
}

void lh_frame_release(struct lh_frame *f)
{
	free(f->data);
	lh_frame_init(f, f->max_bytes);
}

/* Moves the unread bytes to the front, so that the buffer holds at most one
 * unfinished line plus what was just pushed. */
static void compact(struct lh_frame *f)
{
	if (!f->next)
		return;
	memmove(f->data, f->data + f->next, f->used_bytes - f->next);
	f->used_bytes -= f->next;
	f->scanned -= f->next;
	f->next = 0;
}

void lh_frame_push(struct lh_frame *f, const char *bytes, size_t n)
{
	if (f->dropping) {
		const char *end = memchr(bytes, '\n', n);

		if (!end)
			return;
		n -= (size_t)(end + 1 - bytes);
		bytes = end + 1;
		f->dropping = false;
	}
	compact(f);
	if (f->used_bytes + n > f->cap_bytes) {
		f->cap_bytes = (f->used_bytes + n) * 2;
		f->data = lh_realloc(f->data, f->cap_bytes);
	}
	memcpy(f->data + f->used_bytes, bytes, n);
	f->used_bytes += n;
}

/* Ends a line at `end` (its newline): strips it, steps over it. */
static size_t take(struct lh_frame *f, size_t end, char **line)
{
	size_t len = end - f->next;

	*line = f->data + f->next;
	if (len && (*line)[len - 1] == '\r')
		len--;
	(*line)[len] = '\0';
	f->next = f->scanned = end + 1;
	return len;
}

/* Everything was handed out: start again at the front, and keep no more memory
 * than ordinary lines need, however long one has been. */
static void rewind_empty(struct lh_frame *f)
{
	if (f->next < f->used_bytes)
		return;
	f->next = f->scanned = f->used_bytes = 0;
	if (f->cap_bytes <= KEEP_BYTES)
		return;
	free(f->data);
	f->data = NULL;
	f->cap_bytes = 0;
}

int lh_frame_next(struct lh_frame *f, char **line, size_t *len)
{
	while (f->scanned < f->used_bytes) {
		char *nl = memchr(f->data + f->scanned, '\n',
				  f->used_bytes - f->scanned);
		size_t end = nl ? (size_t)(nl - f->data) : f->used_bytes;

		if (end - f->next > f->max_bytes) {
			f->next = f->scanned = nl ? end + 1 : f->used_bytes;
			f->dropping = !nl;
			return LH_ETOOBIG;
		}
		if (!nl) {
			f->scanned = f->used_bytes;
			break;
		}
		*len = take(f, end, line);
		if (*len)
			return 1;
	}
	rewind_empty(f);
	return 0;
}

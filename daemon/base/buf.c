/* buf.c: growing bytes; see buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/err.h"

/* Above this an empty buffer gives its memory back: one large answer must not
 * be paid for as long as its connection lives. */
#define KEEP_BYTES (64u << 10)

void lh_buf_release(struct lh_buf *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}

static void reserve(struct lh_buf *b, size_t n)
{
	if (b->used_bytes + n <= b->cap_bytes)
		return;
	b->cap_bytes = (b->used_bytes + n) * 2;
	if (b->cap_bytes < 512)
		b->cap_bytes = 512;
	b->data = lh_realloc(b->data, b->cap_bytes);
}

void lh_buf_append(struct lh_buf *b, const void *bytes, size_t n)
{
	if (!n)
		return;
	reserve(b, n);
	memcpy(b->data + b->used_bytes, bytes, n);
	b->used_bytes += n;
}

void lh_buf_printf(struct lh_buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	reserve(b, (size_t)n + 1);
	va_start(ap, fmt);
	vsnprintf(b->data + b->used_bytes, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->used_bytes += (size_t)n;
}

static int append_json(const char *bytes, size_t n, void *arg)
{
	lh_buf_append(arg, bytes, n);
	return 0;
}

void lh_buf_json(struct lh_buf *b, const json_t *value)
{
	if (json_dump_callback(value, append_json, b,
			       JSON_COMPACT | JSON_ENCODE_ANY |
				       JSON_REAL_PRECISION(17)))
		LH_BUG("a JSON value that cannot be written");
}

void lh_buf_consume(struct lh_buf *b, size_t n)
{
	LH_ASSERT(n <= b->used_bytes);
	b->used_bytes -= n;
	if (b->used_bytes)
		memmove(b->data, b->data + n, b->used_bytes);
	else if (b->cap_bytes > KEEP_BYTES)
		lh_buf_release(b);
}

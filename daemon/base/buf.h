/* buf.h: bytes that grow at the end.
 *
 * Output is collected here and handed to the kernel in few, large writes. A
 * zeroed buffer is empty. One owner, one thread.
 */
#ifndef LIGHTHOUSE_BUF_H
#define LIGHTHOUSE_BUF_H

#include <jansson.h>
#include <stddef.h>

struct lh_buf {
	char *data;        /* NULL until the first byte; not NUL-terminated */
	size_t used_bytes;
	size_t cap_bytes;
};

void lh_buf_release(struct lh_buf *b); /* frees; empty and usable after it */
void lh_buf_append(struct lh_buf *b, const void *bytes, size_t n);
void lh_buf_printf(struct lh_buf *b, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* The value as compact JSON, without a newline. Reals keep every bit. */
void lh_buf_json(struct lh_buf *b, const json_t *value);
/* Forgets the first n bytes. */
void lh_buf_consume(struct lh_buf *b, size_t n);

#endif

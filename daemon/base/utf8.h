/* utf8.h: bytes that may be anything, as text that is UTF-8. One owner.
 *
 * Feed bytes one at a time; whole characters come out, and U+FFFD for each byte
 * that belongs to none. NUL becomes U+FFFD too: text here is C strings.
 */
#ifndef LIGHTHOUSE_UTF8_H
#define LIGHTHOUSE_UTF8_H

#include <stddef.h>

#define LH_UTF8_OUT_BYTES 16

struct lh_utf8 { /* zeroed to start */
	unsigned char held[4];
	int used;
};

/* Length of the valid sequence that starts at s (n bytes at hand): 1..4; 0 if it
 * is valid so far but cut short; -1 if the first byte starts none. Overlong
 * forms and surrogates are not valid. */
int lh_utf8_span(const unsigned char *s, size_t n);
/* out receives what the byte completes, NUL-terminated, perhaps "". */
void lh_utf8_feed(struct lh_utf8 *u, unsigned char byte, char *out);
/* What is still held comes out as U+FFFD. */
void lh_utf8_end(struct lh_utf8 *u, char *out);

#endif

/* utf8.c: see utf8.h. */
#include "base/utf8.h"

#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

int lh_utf8_span(const unsigned char *s, size_t n)
{
	unsigned char c = s[0], low = 0x80, high = 0xbf;
	int want = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 :
		   c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : -1;

	/* The second byte's range excludes overlong forms and surrogates. */
	if (c == 0xe0)
		low = 0xa0;
	if (c == 0xed)
		high = 0x9f;
	if (c == 0xf0)
		low = 0x90;
	if (c == 0xf4)
		high = 0x8f;
	for (int i = 1; i < want; i++) {
		if ((size_t)i >= n)
			return 0;
		if (s[i] < low || s[i] > high)
			return -1;
		low = 0x80;
		high = 0xbf;
	}
	return want;
}

/* Moves characters, whole or replaced, from `held` to `out`. */
static void drain(struct lh_utf8 *u, char *out, int at_end)
{
	size_t used = 0;

	while (u->used) {
		int n = lh_utf8_span(u->held, (size_t)u->used);

		if (n == 0 && !at_end)
			break;
		if (n > 0 && u->held[0]) {
			memcpy(out + used, u->held, (size_t)n);
			used += (size_t)n;
		} else {
			n = 1;
			memcpy(out + used, REPLACEMENT, 3);
			used += 3;
		}
		u->used -= n;
		memmove(u->held, u->held + n, (size_t)u->used);
	}
	out[used] = '\0';
}

void lh_utf8_feed(struct lh_utf8 *u, unsigned char byte, char *out)
{
	u->held[u->used++] = byte;
	drain(u, out, 0);
}

void lh_utf8_end(struct lh_utf8 *u, char *out)
{
	drain(u, out, 1);
}

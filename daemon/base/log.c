/* log.c: log lines; see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum lh_log_level threshold = LH_LOG_INFO;
static const char *const level_names[] = { "debug", "info ", "warn ", "error" };

void lh_log_set_level(enum lh_log_level level)
{
	threshold = level;
}

/* Bytes of the valid UTF-8 sequence at s (1..4), or 0. Refuses overlong forms,
 * surrogates and C1 controls, which terminals obey too. */
static size_t utf8_bytes(const unsigned char *s)
{
	unsigned c = s[0], n, i, code;

	if (c < 0x80)
		return c >= 0x20 && c != 0x7f;
	n = c >= 0xf0 && c < 0xf5 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 :
	    c >= 0xc2 && c < 0xe0 ? 2 : 0;
	if (!n)
		return 0;
	code = c & (0x7fu >> n);
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if (code < 0xa0 || (n == 3 && code < 0x800) || (n == 4 && code < 0x10000) ||
	    (code >= 0xd800 && code < 0xe000) || code > 0x10ffff)
		return 0;
	return n;
}

char *lh_escape(char *out, size_t out_bytes, const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t used = 0;

	while (*p) {
		size_t n = utf8_bytes(p);

		if (used + (n ? n : 4) + 1 > out_bytes)
			break;
		if (n) {
			memcpy(out + used, p, n);
			used += n;
			p += n;
		} else {
			used += (size_t)snprintf(out + used, out_bytes - used,
						 "\\x%02x", *p++);
		}
	}
	out[used] = '\0';
	return out;
}

void lh_log(enum lh_log_level level, const char *fmt, ...)
{
	char text[2048], safe[4096], line[4200];
	struct timespec now;
	struct tm utc;
	va_list ap;
	int n;

	if (level < threshold)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	lh_escape(safe, sizeof(safe), text);
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	n = (int)strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &utc);
	n += snprintf(line + n, sizeof(line) - (size_t)n, ".%03ldZ %s %s\n",
		      now.tv_nsec / 1000000, level_names[level], safe);
	/* One write a line, so that lines of several threads do not mix. */
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}

void lh_log_err(enum lh_log_level level, const char *doing, const struct lh_err *err)
{
	if (err->hint[0])
		lh_log(level, "%s: %s (hint: %s)", doing, err->text, err->hint);
	else
		lh_log(level, "%s: %s", doing, err->text);
}

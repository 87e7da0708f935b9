/* log.c: log lines; see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

static enum lh_log_level threshold = LH_LOG_INFO;
static const char *const level_names[] = { "debug", "info ", "warn ", "error" };

void lh_log_set_level(enum lh_log_level level)
{
	threshold = level;
}

/* Bytes of the printable character at s, or 0. C1 controls (U+0080..U+009F) are
 * not printable: terminals obey them. */
static size_t printable(const unsigned char *s)
{
	int n = lh_utf8_span(s, strlen((const char *)s));

	if (n == 1)
		return *s >= 0x20 && *s != 0x7f;
	if (n < 2 || (n == 2 && s[0] == 0xc2 && s[1] < 0xa0))
		return 0;
	return (size_t)n;
}

char *lh_escape(char *out, size_t out_bytes, const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t used = 0;

	while (*p) {
		size_t n = printable(p);

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

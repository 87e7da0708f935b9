/* since.c: --since and --at: a row, a duration, a time; see ctl.h. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fs.h"
#include "ctl.h"

/* "10m" in seconds; -1 if it is none. */
static int64_t parse_duration(const char *text)
{
	static const struct {
		char unit;
		int64_t seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 },
		      { 'w', 604800 } };
	char *end;
	long long n = strtoll(text, &end, 10);

	if (!isdigit((unsigned char)*text) || n > 1000000000 || !*end || end[1])
		return -1;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (*end == units[i].unit)
			return n * units[i].seconds;
	return -1;
}

/* "Z" or "+01:00" or "+0100" in seconds east; false if it is none. */
static bool parse_zone(const char *text, long *east_s)
{
	int hours, minutes, used = 0;

	*east_s = 0;
	if (!strcmp(text, "Z"))
		return true;
	if ((*text != '+' && *text != '-') ||
	    (sscanf(text + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 &&
	     sscanf(text + 1, "%2d%2d%n", &hours, &minutes, &used) != 2) ||
	    text[1 + used] || hours > 14 || hours < 0 || minutes > 59 || minutes < 0)
		return false;
	*east_s = (*text == '-' ? -1 : 1) * (hours * 3600L + minutes * 60);
	return true;
}

/* Unix seconds; -1 if it is no time. */
static int64_t parse_time(const char *text)
{
	static const char *const forms[] = { "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S",
					     "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M",
					     "%Y-%m-%d" };
	long east_s;

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm tm = { .tm_isdst = -1 }, same;
		const char *end = strptime(text, forms[i], &tm);

		if (!end)
			continue;
		same = tm;
		/* The 31st of February is made one of March. */
		if (timegm(&same) < 0 || same.tm_mday != tm.tm_mday)
			return -1;
		if (!*end)
			return mktime(&tm);
		if (parse_zone(end, &east_s))
			return timegm(&tm) - east_s;
	}
	return -1;
}

struct ctl_since ctl_opt_since(const struct ctl *c)
{
	const char *text = ctl_opt(c, "since");
	struct ctl_since since = { .given = text != NULL };
	int64_t seconds;

	if (!text)
		return since;
	if (*text && strspn(text, "0123456789") == strlen(text)) {
		errno = 0;
		since.after_id = strtoll(text, NULL, 10);
		if (!errno)
			return since;
	} else if ((seconds = parse_duration(text)) >= 0) {
		since.ms = lh_time_ms() - seconds * 1000;
		since.ms = since.ms > 0 ? since.ms : 0;
		return since;
	} else if ((seconds = parse_time(text)) >= 0) {
		since.ms = seconds * 1000;
		return since;
	}
	exit(ctl_usage(c->command, "--since is '%s'; an id, a duration like 10m or a time "
		       "like '2026-01-31 08:00' is allowed", text));
}

/* "08:00": the next one, Unix seconds; -1 if it is none. */
static int64_t parse_clock(const char *text)
{
	int hours, minutes, used = 0;
	time_t now = time(NULL);
	struct tm tm;

	if (sscanf(text, "%2d:%2d%n", &hours, &minutes, &used) != 2 || text[used] ||
	    hours < 0 || hours > 23 || minutes < 0 || minutes > 59)
		return -1;
	localtime_r(&now, &tm);
	tm.tm_mday += hours * 60 + minutes <= tm.tm_hour * 60 + tm.tm_min;
	tm.tm_hour = hours;
	tm.tm_min = minutes;
	tm.tm_sec = 0;
	tm.tm_isdst = -1;
	return mktime(&tm);
}

int64_t ctl_opt_at_ms(const struct ctl *c)
{
	const char *text = ctl_opt(c, "at");
	int64_t seconds, now_ms = lh_time_ms();

	if (!text)
		return 0;
	seconds = parse_duration(text);
	if (seconds >= 0)
		return now_ms + seconds * 1000;
	seconds = parse_clock(text);
	if (seconds < 0)
		seconds = parse_time(text);
	if (seconds < 0)
		exit(ctl_usage(c->command, "--at is '%s'; a time like 08:00 or '2026-01-31 08:00' "
			       "or a duration like 2h is allowed", text));
	if (seconds * 1000 < now_ms)
		exit(ctl_usage(c->command, "--at is '%s', which is past", text));
	return seconds * 1000;
}

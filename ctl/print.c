/* print.c: tables, times, JSON. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "base/log.h"
#include "ctl.h"

enum { CELL_MAX_BYTES = 600, TABLE_MAX_COLUMNS = 32 };

/* Bytes of the character at s (1 where there is none), its columns in *columns. */
static size_t step(const char *s, int *columns)
{
	mbstate_t state = { 0 };
	wchar_t wide;
	size_t n = mbrtowc(&wide, s, MB_CUR_MAX, &state);

	if (n == 0 || n > MB_CUR_MAX) {
		*columns = 1;
		return 1;
	}
	*columns = wcwidth(wide) > 0 ? wcwidth(wide) : 0;
	return n;
}

int ctl_width(const char *s)
{
	int all = 0, one;

	while (*s) {
		s += step(s, &one);
		all += one;
	}
	return all;
}

size_t ctl_fit(const char *s, int columns)
{
	size_t used = 0;
	int one;

	while (s[used]) {
		size_t n = step(s + used, &one);

		if (one > columns)
			break;
		columns -= one;
		used += n;
	}
	return used;
}

struct ctl_table {
	int columns;
	const char *const *heads; /* NULL once printed, or not wanted */
	int width[TABLE_MAX_COLUMNS];
	char **cells;             /* not printed yet */
	int count, cap;
};

struct ctl_table *ctl_table_new(int columns, const char *const *heads)
{
	struct ctl_table *t = lh_calloc(1, sizeof(*t));

	LH_ASSERT(columns <= TABLE_MAX_COLUMNS);
	t->columns = columns;
	t->heads = heads;
	for (int i = 0; i < columns; i++)
		t->width[i] = ctl_width(heads[i]);
	return t;
}

void ctl_table_hide_heads(struct ctl_table *t)
{
	t->heads = NULL;
}

void ctl_table_add(struct ctl_table *t, const char *cell)
{
	char safe[CELL_MAX_BYTES];

	if (t->count == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 64;
		t->cells = lh_realloc(t->cells, (size_t)t->cap * sizeof(*t->cells));
	}
	t->cells[t->count++] = lh_strdup(lh_escape(safe, sizeof(safe), cell));
}

void ctl_table_addf(struct ctl_table *t, const char *fmt, ...)
{
	char text[CELL_MAX_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ctl_table_add(t, text);
}

static void print_row(const struct ctl_table *t, const char *const *cells, bool aligned)
{
	for (int i = 0; i < t->columns; i++) {
		bool last = i == t->columns - 1;
		int pad = last ? 0 : t->width[i] - ctl_width(cells[i]) + 2;

		if (aligned)
			printf("%s%*s%s", cells[i], pad, "", last ? "\n" : "");
		else
			printf("%s%s", cells[i], last ? "\n" : "\t");
	}
}

void ctl_table_flush(struct ctl_table *t)
{
	bool terminal = isatty(STDOUT_FILENO);

	LH_ASSERT(t->count % t->columns == 0);
	for (int i = 0; i < t->count; i++) {
		int n = ctl_width(t->cells[i]), *w = &t->width[i % t->columns];

		*w = n > *w ? n : *w;
	}
	if (terminal && t->heads)
		print_row(t, t->heads, true);
	t->heads = NULL;
	for (int i = 0; i < t->count; i += t->columns)
		print_row(t, (const char *const *)t->cells + i, terminal);
	for (int i = 0; i < t->count; i++)
		free(t->cells[i]);
	t->count = 0;
	fflush(stdout);
}

void ctl_table_free(struct ctl_table *t)
{
	for (int i = 0; i < t->count; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}

void ctl_table_print_take(struct ctl_table *t)
{
	ctl_table_flush(t);
	ctl_table_free(t);
}

/* Text as a CSV field (RFC 4180), safe on a terminal. */
static void print_quoted(const char *text)
{
	char safe[CELL_MAX_BYTES];

	if (isatty(STDOUT_FILENO))
		text = lh_escape(safe, sizeof(safe), text);
	putchar('"');
	for (; *text; text++) {
		if (*text == '"')
			putchar('"');
		putchar(*text);
	}
	putchar('"');
}

void ctl_csv_row(const json_t *row, bool head)
{
	const char *key;
	json_t *v;
	size_t i = 0;

	json_object_foreach ((json_t *)row, key, v) {
		fputs(i++ ? "," : "", stdout);
		if (head)
			fputs(key, stdout);
		else if (json_is_string(v))
			print_quoted(json_string_value(v));
		else if (!json_is_null(v))
			json_dumpf(v, stdout, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
	}
	putchar('\n');
}

static void print_json(const json_t *value, size_t layout)
{
	json_dumpf(value, stdout,
		   layout | JSON_REAL_PRECISION(17) |
			   (isatty(STDOUT_FILENO) ? JSON_ENSURE_ASCII : 0));
}

int ctl_print_json_take(json_t *value)
{
	print_json(value, JSON_INDENT(2));
	putchar('\n');
	json_decref(value);
	return CTL_DONE;
}

void ctl_print_json_part(const json_t *value)
{
	print_json(value, JSON_COMPACT);
}

void ctl_print_json_line(const json_t *value)
{
	ctl_print_json_part(value);
	putchar('\n');
}

void ctl_put_text(const char *text)
{
	char safe[64], one[8];
	size_t n;

	for (; isatty(STDOUT_FILENO) && *text; text += n) {
		n = strcspn(text, "\n\t");
		n = n ? (n < sizeof(one) ? n : sizeof(one) - 1) : 1;
		while (n > 1 && (text[n] & 0xc0) == 0x80)
			n--; /* whole characters */
		snprintf(one, sizeof(one), "%.*s", (int)n, text);
		fputs(*one == '\n' || *one == '\t' ? one :
						      lh_escape(safe, sizeof(safe), one),
		      stdout);
	}
	fputs(text, stdout);
	fflush(stdout);
}

void ctl_duration(char out[32], double s)
{
	if (!isfinite(s) || s < 0)
		snprintf(out, 32, "-");
	else if (s < 60)
		snprintf(out, 32, "%.0f s", s);
	else if (s < 3600)
		snprintf(out, 32, "%dm %02ds", (int)s / 60, (int)s % 60);
	else if (s < 48 * 3600)
		snprintf(out, 32, "%dh %02dm", (int)(s / 3600), (int)(s / 60) % 60);
	else
		snprintf(out, 32, "%.1f days", s / 86400);
}

void ctl_time(char out[32], int64_t ms)
{
	time_t t = (time_t)(ms / 1000);
	struct tm local;

	localtime_r(&t, &local);
	strftime(out, 32, "%Y-%m-%d %H:%M:%S", &local);
}

int64_t ctl_int(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

double ctl_real(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *ctl_str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

const char *ctl_safe(const json_t *o, const char *key)
{
	static char safe[4][CELL_MAX_BYTES];
	static int turn;

	turn = (turn + 1) % 4;
	return lh_escape(safe[turn], CELL_MAX_BYTES, ctl_str(o, key));
}

bool ctl_has(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return v && !json_is_null(v);
}

bool ctl_has_ended(const json_t *job)
{
	const char *s = ctl_str(job, "state");

	return !strcmp(s, "DONE") || !strcmp(s, "FAILED") || !strcmp(s, "CANCELLED");
}

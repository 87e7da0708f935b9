/* print.c: tables, times, JSON. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl.h"

enum { CELL_MAX_BYTES = 600 };

struct ctl_table {
	int columns;
	const char *const *heads;
	char **cells;
	int count;
};

struct ctl_table *ctl_table_new(int columns, const char *const *heads)
{
	struct ctl_table *t = lh_calloc(1, sizeof(*t));

	t->columns = columns;
	t->heads = heads;
	return t;
}

void ctl_table_add(struct ctl_table *t, const char *cell)
{
	char safe[CELL_MAX_BYTES];

	t->cells = lh_realloc(t->cells, (size_t)(t->count + 1) * sizeof(*t->cells));
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

static void print_row(const struct ctl_table *t, const char *const *cells,
		      const int *width)
{
	for (int c = 0; c < t->columns; c++) {
		bool last = c == t->columns - 1;

		if (width && !last)
			printf("%-*s  ", width[c], cells[c]);
		else
			printf("%s%s", cells[c], last ? "\n" : "\t");
	}
}

void ctl_table_print_take(struct ctl_table *t)
{
	bool terminal = isatty(STDOUT_FILENO);
	int width[32] = { 0 };

	LH_ASSERT(t->columns <= 32 && t->count % t->columns == 0);
	for (int c = 0; c < t->columns; c++)
		width[c] = (int)strlen(t->heads[c]);
	for (int i = 0; i < t->count; i++) {
		int n = (int)strlen(t->cells[i]), *w = &width[i % t->columns];

		*w = n > *w ? n : *w;
	}
	if (terminal)
		print_row(t, t->heads, width);
	for (int i = 0; i < t->count; i += t->columns)
		print_row(t, (const char *const *)t->cells + i, terminal ? width : NULL);
	for (int i = 0; i < t->count; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}

static void print_json(const json_t *value, size_t layout)
{
	json_dumpf(value, stdout,
		   layout | JSON_REAL_PRECISION(17) |
			   (isatty(STDOUT_FILENO) ? JSON_ENSURE_ASCII : 0));
	putchar('\n');
}

int ctl_print_json_take(json_t *value)
{
	print_json(value, JSON_INDENT(2));
	json_decref(value);
	return CTL_DONE;
}

void ctl_print_json_line(const json_t *value)
{
	print_json(value, JSON_COMPACT);
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

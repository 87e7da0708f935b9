/* chart.c: see chart.h. */
#include "chart.h"

#include <math.h>
#include <string.h>

/* ---- series ---------------------------------------------------------------- */

static void forget_from(struct ctl_series *s, int64_t step)
{
	while (s->count && s->step[s->count - 1] >= step)
		s->count--;
}

/* Two points to one, all along. */
static void halve(struct ctl_series *s)
{
	int n = s->count / 2;

	for (int i = 0; i < n; i++) {
		int a = 2 * i, b = a + 1, held = s->held[a] + s->held[b];

		s->value[i] = (s->value[a] * s->held[a] + s->value[b] * s->held[b]) / held;
		s->step[i] = s->step[b];
		s->held[i] = held;
	}
	s->count = n;
	s->full *= 2;
}

void ctl_series_add(struct ctl_series *s, int64_t step, double value)
{
	int last;

	if (!isfinite(value))
		return;
	s->full = s->full ? s->full : 1;
	forget_from(s, step);
	if (s->count == CTL_SERIES_MAX && s->held[s->count - 1] >= s->full)
		halve(s);
	last = s->count - 1;
	if (last < 0 || s->held[last] >= s->full) {
		last = s->count++;
		s->held[last] = 0;
		s->value[last] = 0;
	}
	s->value[last] += (value - s->value[last]) / (s->held[last] + 1);
	s->held[last]++;
	s->step[last] = step;
}

/* ---- the picture ----------------------------------------------------------- */

static const char *const eighths[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
static const char *const thirds[] = { " ", ".", ":", "|" };

struct span {
	int64_t first, last; /* steps */
};

static void widen(struct span *span, const struct ctl_series *s, double *low, double *high)
{
	for (int i = 0; i < s->count; i++) {
		*low = fmin(*low, s->value[i]);
		*high = fmax(*high, s->value[i]);
	}
	if (s->count && s->step[0] < span->first)
		span->first = s->step[0];
	if (s->count && s->step[s->count - 1] > span->last)
		span->last = s->step[s->count - 1];
}

static int column_of(const struct ctl_chart *c, struct span span, int64_t step)
{
	double part = (double)(step - span.first) / (double)(span.last - span.first + 1);

	return (int)(part * c->columns);
}

/* Means of what falls on each column; NaN where nothing does. */
static void spread(const struct ctl_chart *c, const struct ctl_series *s, struct span span,
		   double *mean)
{
	int held[CTL_CHART_MAX_COLUMNS] = { 0 };

	for (int i = 0; i < c->columns; i++)
		mean[i] = NAN;
	for (int i = 0; i < s->count; i++) {
		int at = column_of(c, span, s->step[i]);

		if (!held[at])
			mean[at] = 0;
		mean[at] += (s->value[i] - mean[at]) / ++held[at];
	}
}

/* Few points over many columns: the line goes on between them. */
static void join(double *mean, int columns)
{
	for (int i = 1; i < columns; i++)
		if (isnan(mean[i]))
			mean[i] = mean[i - 1];
}

/* From 0 to 1. Losses fall by halves, and fast at first: by their logarithm what
 * comes later can be told apart as well. */
static double height(const struct ctl_chart *c, double value)
{
	if (!(c->high > c->low))
		return 0.5;
	if (c->low > 0)
		return log(value / c->low) / log(c->high / c->low);
	return (value - c->low) / (c->high - c->low);
}

static void draw_row(struct ctl_chart *c, int row, const double *line, const double *marks)
{
	const char *const *glyphs = c->utf8 ? eighths : thirds;
	int parts = c->utf8 ? 8 : 3, floor_level = (c->rows - 1 - row) * parts;
	char *out = c->text[row];

	for (int i = 0; i < c->columns; i++) {
		/* The lowest value shows too. */
		int level = isnan(line[i]) ? 0 :
			    1 + (int)(height(c, line[i]) * (c->rows * parts - 1));
		int fill = level - floor_level;
		const char *glyph = glyphs[fill < 0 ? 0 : fill > parts ? parts : fill];

		if (!isnan(marks[i]) &&
		    (int)(height(c, marks[i]) * (c->rows - 0.01)) == c->rows - 1 - row)
			glyph = "o";
		strcpy(out, glyph);
		out += strlen(glyph);
	}
}

void ctl_chart_draw(struct ctl_chart *c)
{
	double line[CTL_CHART_MAX_COLUMNS], marks[CTL_CHART_MAX_COLUMNS];
	struct span span = { INT64_MAX, INT64_MIN };

	memset(c->text, 0, sizeof(c->text));
	c->low = INFINITY;
	c->high = -INFINITY;
	widen(&span, c->line, &c->low, &c->high);
	widen(&span, c->marks, &c->low, &c->high);
	if (span.first > span.last) {
		c->low = c->high = 0;
		return;
	}
	spread(c, c->line, span, line);
	spread(c, c->marks, span, marks);
	join(line, c->columns);
	for (int row = 0; row < c->rows; row++)
		draw_row(c, row, line, marks);
}

/* chart.h: a curve of bounded length, and its picture in characters.
 *
 * A series takes (step, value) in the order of steps and keeps at most CTL_SERIES_MAX
 * points: when it is full, neighbours are put together. A step at or before the last
 * one means that training went back: what lies behind it is forgotten.
 */
#ifndef LIGHTHOUSE_CHART_H
#define LIGHTHOUSE_CHART_H

#include <stdbool.h>
#include <stdint.h>

enum { CTL_SERIES_MAX = 2048, CTL_CHART_MAX_ROWS = 32, CTL_CHART_MAX_COLUMNS = 512 };

struct ctl_series { /* zeroed to start */
	int64_t step[CTL_SERIES_MAX];  /* last of each point */
	double value[CTL_SERIES_MAX];  /* mean of each point */
	int held[CTL_SERIES_MAX];      /* values in each point */
	int count;
	int full;                      /* values that fill a point; 0 is 1 */
};

/* Values that are not finite are passed over. */
void ctl_series_add(struct ctl_series *s, int64_t step, double value);

struct ctl_chart {
	/* set by the caller */
	const struct ctl_series *line, *marks; /* marks are drawn over it, as 'o' */
	int rows, columns;             /* of the picture, at most the limits */
	bool utf8;                     /* blocks of eighths; else ASCII */
	/* found by drawing */
	double low, high;              /* of the values shown; both 0 without any */
	char text[CTL_CHART_MAX_ROWS][CTL_CHART_MAX_COLUMNS * 3 + 1]; /* from the top */
};
void ctl_chart_draw(struct ctl_chart *c);

#endif

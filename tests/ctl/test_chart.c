/* test_chart.c: series of bounded length, and their pictures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "../../ctl/chart.h"

static struct ctl_series line, marks;
static struct ctl_chart chart;

static int setup(void **state)
{
	(void)state;
	memset(&line, 0, sizeof(line));
	memset(&marks, 0, sizeof(marks));
	memset(&chart, 0, sizeof(chart));
	chart.line = &line;
	chart.marks = &marks;
	return 0;
}

static void a_series_stays_bounded_and_keeps_its_mean(void **state)
{
	const int n = 100 * CTL_SERIES_MAX + 7;
	double sum = 0;
	int held = 0;

	(void)state;
	for (int i = 1; i <= n; i++)
		ctl_series_add(&line, i, i);
	assert_in_range(line.count, CTL_SERIES_MAX / 2, CTL_SERIES_MAX);
	for (int i = 0; i < line.count; i++) {
		sum += line.value[i] * line.held[i];
		held += line.held[i];
		assert_true(!i || line.step[i] > line.step[i - 1]);
	}
	assert_int_equal(held, n);
	assert_true(fabs(sum / n - (n + 1) / 2.0) < 1e-6 * n);
	assert_int_equal(line.step[line.count - 1], n);
}

static void a_series_forgets_what_training_went_back_behind(void **state)
{
	(void)state;
	for (int i = 1; i <= 10; i++)
		ctl_series_add(&line, i, 1);
	ctl_series_add(&line, 6, 2);
	assert_int_equal(line.count, 6);
	assert_true(line.value[5] == 2);
	ctl_series_add(&line, 7, NAN);
	ctl_series_add(&line, 8, INFINITY);
	assert_int_equal(line.count, 6);
}

static void a_chart_shows_heights_in_eighths(void **state)
{
	(void)state;
	for (int i = 1; i <= 4; i++)
		ctl_series_add(&line, i, i - 1); /* from 0: no logarithm */
	chart.rows = 2;
	chart.columns = 4;
	chart.utf8 = true;
	ctl_chart_draw(&chart);
	assert_string_equal(chart.text[0], "  ▃█");
	assert_string_equal(chart.text[1], "▁▆██");
	assert_true(chart.low == 0 && chart.high == 3);
	chart.utf8 = false;
	ctl_chart_draw(&chart);
	assert_string_equal(chart.text[0], "  .|");
	assert_string_equal(chart.text[1], ".:||");
}

static void a_chart_joins_few_points_and_marks_its_marks(void **state)
{
	(void)state;
	ctl_series_add(&line, 1, 1);
	ctl_series_add(&line, 5, 16);
	ctl_series_add(&marks, 3, 4);
	ctl_series_add(&marks, 6, 1);
	chart.rows = 2;
	chart.columns = 6;
	ctl_chart_draw(&chart);
	assert_string_equal(chart.text[0], "    ||");
	assert_string_equal(chart.text[1], "..o.|o");
}

static void a_chart_of_nothing_or_of_one_value_is_one(void **state)
{
	(void)state;
	chart.rows = CTL_CHART_MAX_ROWS;
	chart.columns = CTL_CHART_MAX_COLUMNS;
	chart.utf8 = true;
	ctl_chart_draw(&chart);
	assert_string_equal(chart.text[0], "");
	ctl_series_add(&line, 7, 2.5);
	ctl_chart_draw(&chart);
	assert_true(chart.low == 2.5 && chart.high == 2.5);
	assert_int_equal(strlen(chart.text[CTL_CHART_MAX_ROWS - 1]),
			 3 * CTL_CHART_MAX_COLUMNS);
}

#define T(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_series_stays_bounded_and_keeps_its_mean),
		T(a_series_forgets_what_training_went_back_behind),
		T(a_chart_shows_heights_in_eighths),
		T(a_chart_joins_few_points_and_marks_its_marks),
		T(a_chart_of_nothing_or_of_one_value_is_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* watch.c: see watch.h. */
#include "train/watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of a normal distribution: standard deviation / median distance. */
static const double DEVIATION = 1.4826;
/* A window whose values are nearly equal would make a spike of anything. */
static const double LEAST_SPREAD = 0.01;

void lh_watch_init(struct lh_watch *w)
{
	memset(w, 0, sizeof(*w));
	w->lr_scale = 1;
}

void lh_watch_forget(struct lh_watch *w)
{
	w->count = w->next = 0;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *x, int n)
{
	qsort(x, (size_t)n, sizeof(*x), ascending);
	return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static double deviations(const double *window, int n, double x)
{
	double sorted[LH_WATCH_WINDOW], middle, spread;

	memcpy(sorted, window, (size_t)n * sizeof(*sorted));
	middle = median(sorted, n);
	for (int i = 0; i < n; i++)
		sorted[i] = fabs(window[i] - middle);
	spread = DEVIATION * median(sorted, n);
	return (x - middle) / fmax(spread, LEAST_SPREAD * fabs(middle) + 1e-12);
}

enum lh_cause lh_watch_judge(const struct lh_watch *w, const struct lh_job_instability *c,
			     double loss, double norm, double *z)
{
	*z = 0;
	if (!isfinite(loss) || !isfinite(norm))
		return LH_CAUSE_NONFINITE;
	if (w->count < LH_WATCH_ARMED)
		return LH_CAUSE_NONE;
	if (c->loss_z > 0 && (*z = deviations(w->loss, w->count, loss)) > c->loss_z)
		return LH_CAUSE_LOSS_SPIKE;
	if (c->gradient_z > 0 &&
	    (*z = deviations(w->norm, w->count, norm)) > c->gradient_z)
		return LH_CAUSE_GRADIENT_SPIKE;
	return LH_CAUSE_NONE;
}

void lh_watch_accept(struct lh_watch *w, double loss, double norm)
{
	w->loss[w->next] = loss;
	w->norm[w->next] = norm;
	w->next = (w->next + 1) % LH_WATCH_WINDOW;
	w->count += w->count < LH_WATCH_WINDOW;
}

const char *lh_cause_name(enum lh_cause cause)
{
	static const char *const names[LH_CAUSES] = {
		"none", "a loss or gradient that is not finite", "a loss spike",
		"a gradient spike" };

	return names[cause];
}

json_t *lh_watch_to_json(const struct lh_watch *w)
{
	json_t *loss = json_array(), *norm = json_array(), *times = json_array();

	for (int i = 0; i < w->count; i++) {
		json_array_append_new(loss, json_real(w->loss[i]));
		json_array_append_new(norm, json_real(w->norm[i]));
	}
	for (int i = 0; i < LH_CAUSES; i++)
		json_array_append_new(times, json_integer(w->times[i]));
	return json_pack("{s:o, s:o, s:i, s:o, s:f}", "loss", loss, "norm", norm, "next",
			 w->next, "times", times, "lr_scale", w->lr_scale);
}

void lh_watch_from_json(struct lh_watch *w, const json_t *j)
{
	json_t *loss = json_object_get(j, "loss"), *norm = json_object_get(j, "norm");
	json_t *times = json_object_get(j, "times");
	double scale = json_number_value(json_object_get(j, "lr_scale"));
	int next = (int)json_integer_value(json_object_get(j, "next"));
	size_t n = json_array_size(loss);

	lh_watch_init(w);
	if (n > LH_WATCH_WINDOW || json_array_size(norm) != n || next < 0 ||
	    next >= LH_WATCH_WINDOW || !(scale > 0 && scale <= 1))
		return;
	for (size_t i = 0; i < n; i++) {
		w->loss[i] = json_number_value(json_array_get(loss, i));
		w->norm[i] = json_number_value(json_array_get(norm, i));
	}
	for (size_t i = 0; i < LH_CAUSES; i++)
		w->times[i] = json_integer_value(json_array_get(times, i));
	w->count = (int)n;
	w->next = next;
	w->lr_scale = scale;
}

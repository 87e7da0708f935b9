/* watch.c: see watch.h. */
#include "train/watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of a normal distribution: standard deviation / median distance. */
static const double DEVIATION = 1.4826;
/* A window whose values are nearly equal would make a spike of anything. Shares of
 * the median: batches differ by percents in their loss, and by tens in their norm. */
static const double LEAST_LOSS_SPREAD = 0.01, LEAST_NORM_SPREAD = 0.1;

void lh_watch_init(struct lh_watch *w)
{
	memset(w, 0, sizeof(*w));
	w->lr_scale = 1;
}

void lh_watch_forget(struct lh_watch *w)
{
	w->count = w->next = 0;
}

bool lh_watch_is_armed(const struct lh_watch *w)
{
	return w->count >= LH_WATCH_ARMED;
}

/* ---- judging --------------------------------------------------------------- */

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

/* Whether x stands out from the window, and few in it stood out half as far. */
static bool is_spike(const double *window, int n, double least_spread, double limit,
		     double x, double *z)
{
	double sorted[LH_WATCH_WINDOW], middle, spread;
	int as_high = 0;

	memcpy(sorted, window, (size_t)n * sizeof(*sorted));
	middle = median(sorted, n);
	for (int i = 0; i < n; i++) {
		sorted[i] = fabs(window[i] - middle);
		as_high += window[i] - middle >= (x - middle) / 2;
	}
	spread = DEVIATION * median(sorted, n);
	*z = (x - middle) / fmax(spread, least_spread * fabs(middle) + 1e-12);
	return *z > limit && as_high * LH_WATCH_RARE <= n;
}

static bool is_runaway(const struct lh_watch *w, int64_t vocab, double loss)
{
	return w->first_loss > 0 &&
	       loss > LH_WATCH_GUARD * fmax(log((double)vocab), w->first_loss);
}

enum lh_cause lh_watch_judge(const struct lh_watch *w, const struct lh_job_instability *c,
			     int64_t vocab, double loss, double norm, double *z)
{
	bool losses = c->loss_spike != LH_INSTABILITY_IGNORE;
	bool norms = c->gradient_spike != LH_INSTABILITY_IGNORE;

	*z = 0;
	if (!isfinite(loss) || !isfinite(norm))
		return LH_CAUSE_NAN;
	if (!lh_watch_is_armed(w))
		return losses && is_runaway(w, vocab, loss) ? LH_CAUSE_LOSS_SPIKE :
							      LH_CAUSE_NONE;
	if (losses && is_spike(w->loss, w->count, LEAST_LOSS_SPREAD, c->loss_z, loss, z))
		return LH_CAUSE_LOSS_SPIKE;
	if (norms && is_spike(w->norm, w->count, LEAST_NORM_SPREAD, c->gradient_z, norm, z))
		return LH_CAUSE_GRADIENT_SPIKE;
	return LH_CAUSE_NONE;
}

/* ---- what came of it ------------------------------------------------------- */

static void enter(struct lh_watch *w, double loss, double norm)
{
	w->loss[w->next] = loss;
	w->norm[w->next] = norm;
	w->next = (w->next + 1) % LH_WATCH_WINDOW;
	w->count += w->count < LH_WATCH_WINDOW;
}

void lh_watch_accept(struct lh_watch *w, double loss, double norm)
{
	if (!w->first_loss)
		w->first_loss = loss;
	enter(w, loss, norm);
}

void lh_watch_refuse(struct lh_watch *w, enum lh_cause cause, int64_t step, double loss,
		     double norm)
{
	struct lh_watch_count *c = &w->of[cause];
	int64_t further = step > c->last_step ? step - c->last_step : 0;

	c->times++;
	c->recent -= further / LH_WATCH_FORGIVE;
	c->recent = (c->recent > 0 ? c->recent : 0) + 1;
	c->last_step += further;
	/* The guard's refusals would make a window of nothing else. */
	if (cause != LH_CAUSE_NAN && lh_watch_is_armed(w))
		enter(w, loss, norm);
}

void lh_watch_carry(struct lh_watch *to, const struct lh_watch *from)
{
	to->lr_scale = from->lr_scale;
	memcpy(to->of, from->of, sizeof(to->of));
}

const char *lh_cause_name(enum lh_cause cause)
{
	static const char *const names[LH_CAUSES] = { "none", "nan", "loss_spike",
						      "gradient_spike" };

	return names[cause];
}

const char *lh_cause_phrase(enum lh_cause cause)
{
	static const char *const phrases[LH_CAUSES] = {
		"nothing", "a loss or gradient that is not finite", "a loss spike",
		"a gradient spike" };

	return phrases[cause];
}

enum lh_instability_action lh_cause_action(const struct lh_job_instability *c,
					   enum lh_cause cause)
{
	return cause == LH_CAUSE_NAN ? c->nan :
	       cause == LH_CAUSE_LOSS_SPIKE ? c->loss_spike : c->gradient_spike;
}

/* ---- in a checkpoint ------------------------------------------------------- */

json_t *lh_watch_to_json(const struct lh_watch *w)
{
	json_t *loss = json_array(), *norm = json_array(), *counts = json_object();

	for (int i = 0; i < w->count; i++) {
		json_array_append_new(loss, json_real(w->loss[i]));
		json_array_append_new(norm, json_real(w->norm[i]));
	}
	for (int i = 1; i < LH_CAUSES; i++)
		json_object_set_new(counts, lh_cause_name((enum lh_cause)i),
				    json_pack("{s:I, s:I, s:I}", "times",
					      (json_int_t)w->of[i].times, "recent",
					      (json_int_t)w->of[i].recent, "last_step",
					      (json_int_t)w->of[i].last_step));
	return json_pack("{s:o, s:o, s:i, s:f, s:o, s:f}", "loss", loss, "norm", norm, "next",
			 w->next, "first_loss", w->first_loss, "counts", counts, "lr_scale",
			 w->lr_scale);
}

static void counts_from_json(struct lh_watch *w, const json_t *counts)
{
	for (int i = 1; i < LH_CAUSES; i++) {
		json_t *c = json_object_get(counts, lh_cause_name((enum lh_cause)i));

		w->of[i] = (struct lh_watch_count){
			.times = json_integer_value(json_object_get(c, "times")),
			.recent = json_integer_value(json_object_get(c, "recent")),
			.last_step = json_integer_value(json_object_get(c, "last_step")) };
	}
}

void lh_watch_from_json(struct lh_watch *w, const json_t *j)
{
	json_t *loss = json_object_get(j, "loss"), *norm = json_object_get(j, "norm");
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
	counts_from_json(w, json_object_get(j, "counts"));
	w->first_loss = json_number_value(json_object_get(j, "first_loss"));
	w->count = (int)n;
	w->next = next;
	w->lr_scale = scale;
}

/* watch_page.c: a job as a page of a terminal; see watch.h.
 *
 *   job 7 'big': RUNNING (attempt 1)              what it is, and why
 *   step 1234 of 5500, 49 s left, attempt 2, ...
 *   [########........|................]           the phases
 *    lighthouse 1234/1500  recovery 0/4000
 *   loss 2.3456  norm 1.234  lr ...               the newest step
 *   validation 2.4012 at step 1200
 *   2.9 |                                         the loss, validation as 'o'
 *   2.1 |
 *   08:00:00 job.phase  phase 'lighthouse' ...    events
 *   q quits; the job goes on
 *
 * A small terminal shows the top of it: first the events go, then the curve. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "ctl.h"
#include "watch.h"

enum { HEAD_ROWS = 6, MAX_PHASES = 32, MAX_COLUMNS = 400, LABEL_COLUMNS = 9 };

void ctl_watch_add_event_take(struct ctl_watch *w, json_t *event)
{
	int64_t newest = w->event_count ? ctl_int(w->events[w->event_count - 1], "id") : 0;

	if (ctl_int(event, "id") <= newest) {
		json_decref(event);
		return;
	}
	if (w->event_count == CTL_WATCH_EVENTS) {
		json_decref(w->events[0]);
		w->event_count--;
		memmove(w->events, w->events + 1,
			(size_t)w->event_count * sizeof(*w->events));
	}
	w->events[w->event_count++] = event;
}

void ctl_watch_release(struct ctl_watch *w)
{
	json_decref(w->job);
	json_decref(w->phases);
	json_decref(w->step);
	json_decref(w->evaluation);
	while (w->event_count)
		json_decref(w->events[--w->event_count]);
}

static void draw_head(const struct ctl_watch *w, struct ctl_page *p)
{
	const json_t *j = w->job;
	char total[40] = "", left[48] = "", eta[32];

	ctl_duration(eta, ctl_real(j, "eta_s"));
	if (ctl_has(j, "total_steps"))
		snprintf(total, sizeof(total), " of %lld",
			 (long long)ctl_int(j, "total_steps"));
	if (ctl_has(j, "eta_s"))
		snprintf(left, sizeof(left), ", %s left", eta);
	ctl_page_line(p, CTL_BOLD, "job %lld '%s': %s (%s)", (long long)ctl_int(j, "job"),
		      ctl_safe(j, "name"), ctl_safe(j, "state"), ctl_safe(j, "reason"));
	ctl_page_line(p, CTL_PLAIN, "step %lld%s%s, attempt %lld, %lld restarts",
		      (long long)ctl_int(j, "step"), total, left,
		      (long long)ctl_int(j, "attempt"), (long long)ctl_int(j, "restarts"));
}

/* ---- phases ---------------------------------------------------------------- */

/* A phase's part of the bar. */
struct part {
	const json_t *phase;
	int64_t planned;  /* steps; -1: not known */
	int64_t done;
	int columns;
};

/* Steps of a phase that are done: those of one that is over count as planned. */
static int64_t steps_done(const struct ctl_watch *w, const json_t *phase, int64_t i)
{
	int64_t now = ctl_int(w->job, "phase");

	if (i > now || !ctl_int(w->job, "attempt"))
		return 0;
	if (i < now)
		return ctl_has(phase, "steps") ? ctl_int(phase, "steps") : 0;
	return ctl_has(phase, "first_step") ?
		       ctl_int(w->job, "step") - ctl_int(phase, "first_step") : 0;
}

/* Columns by planned steps; one whose number is not known gets its fair share, and
 * none is too small to be seen. */
static int plan_parts(const struct ctl_watch *w, struct part *parts, int columns)
{
	int count = 0, shown = 0;
	int64_t sum = 0, known = 0, all;
	json_t *phase;
	size_t i;

	json_array_foreach (w->phases, i, phase) {
		struct part *part = &parts[count];

		if (count == MAX_PHASES)
			break;
		part->phase = phase;
		part->planned = ctl_has(phase, "steps") ? ctl_int(phase, "steps") : -1;
		part->done = steps_done(w, phase, (int64_t)i);
		known += part->planned > 0;
		sum += part->planned > 0 ? part->planned : 0;
		count++;
	}
	all = known ? sum + (count - known) * (sum / known) : count;
	for (int k = 0; k < count; k++) {
		int64_t steps = parts[k].planned > 0 ? parts[k].planned :
				known ? sum / known : 1;
		int left = columns - shown - (count - 1 - k);

		parts[k].columns = all ? (int)((double)steps / (double)all * columns) : 1;
		if (parts[k].columns < 1)
			parts[k].columns = 1;
		if (parts[k].columns > left || k == count - 1)
			parts[k].columns = left > 0 ? left : 0;
		shown += parts[k].columns;
	}
	return count;
}

static void draw_bar(const struct part *parts, int count, struct ctl_page *p)
{
	const char *full = ctl_screen_utf8() ? "█" : "#";
	const char *rest = ctl_screen_utf8() ? "░" : ".";
	char text[MAX_COLUMNS * 3 + MAX_PHASES + 3] = "[";
	size_t n = 1;

	for (int k = 0; k < count; k++) {
		const struct part *part = &parts[k];
		double share = part->planned > 0 ?
				       (double)part->done / (double)part->planned : 0;
		int filled = (int)(fmin(share, 1) * part->columns);

		for (int i = 0; i < part->columns; i++)
			n += (size_t)sprintf(text + n, "%s", i < filled ? full : rest);
		text[n++] = k == count - 1 ? ']' : '|';
	}
	text[n] = '\0';
	ctl_page_line(p, CTL_PLAIN, "%s", text);
}

/* "lighthouse 12/60": below its part while it fits, the present one marked. */
static void draw_labels(const struct ctl_watch *w, const struct part *parts, int count,
			struct ctl_page *p)
{
	char text[4096] = "";
	int used = 0, at = 1;
	size_t n = 0;

	for (int k = 0; k < count; k++) {
		const struct part *part = &parts[k];
		char label[700], planned[32] = "";
		int pad = at > used ? at - used : 1;

		if (part->planned >= 0)
			snprintf(planned, sizeof(planned), "/%lld",
				 (long long)part->planned);
		snprintf(label, sizeof(label), "%s%.400s %lld%s",
			 k == ctl_int(w->job, "phase") ? "*" : "",
			 ctl_safe(part->phase, "name"), (long long)part->done, planned);
		if (n + (size_t)pad + strlen(label) >= sizeof(text))
			break;
		n += (size_t)sprintf(text + n, "%*s%s", pad, "", label);
		used += pad + ctl_width(label);
		at += part->columns + 1;
	}
	ctl_page_line(p, CTL_PLAIN, "%s", text);
}

static void draw_phases(const struct ctl_watch *w, struct ctl_page *p)
{
	int room = p->columns < MAX_COLUMNS ? p->columns : MAX_COLUMNS;
	int separators = (int)json_array_size(w->phases) + 1;
	struct part parts[MAX_PHASES];
	int count = plan_parts(w, parts, room > separators ? room - separators : 0);

	draw_bar(parts, count, p);
	draw_labels(w, parts, count, p);
}

/* ---- numbers, curve, events ------------------------------------------------ */

static void draw_numbers(const struct ctl_watch *w, struct ctl_page *p)
{
	const json_t *s = w->step, *e = w->evaluation;

	if (s)
		ctl_page_line(p, CTL_PLAIN,
			      "loss %.4f  norm %.3f  lr %.3e  %.1f ms  %.0f tokens/s",
			      ctl_real(s, "loss"), ctl_real(s, "grad_norm"),
			      ctl_real(s, "lr"), ctl_real(s, "step_ms"),
			      ctl_real(s, "tokens_per_s"));
	else
		ctl_page_line(p, CTL_DIM, "no step yet");
	if (e)
		ctl_page_line(p, CTL_PLAIN, "validation %.4f at step %lld",
			      ctl_real(e, "loss"), (long long)ctl_int(e, "step"));
	else
		ctl_page_line(p, CTL_DIM, "no validation yet");
}

static void draw_curve(const struct ctl_watch *w, struct ctl_page *p, int rows)
{
	struct ctl_chart *c = lh_calloc(1, sizeof(*c));

	c->line = &w->loss;
	c->marks = &w->val_loss;
	c->utf8 = ctl_screen_utf8();
	c->rows = rows < CTL_CHART_MAX_ROWS ? rows : CTL_CHART_MAX_ROWS;
	c->columns = p->columns - LABEL_COLUMNS;
	if (c->columns > CTL_CHART_MAX_COLUMNS)
		c->columns = CTL_CHART_MAX_COLUMNS;
	if (c->columns > 0)
		ctl_chart_draw(c);
	for (int i = 0; c->columns > 0 && i < c->rows; i++) {
		char label[16] = "";

		if (c->high != c->low && (i == 0 || i == c->rows - 1))
			snprintf(label, sizeof(label), "%.4g", i ? c->low : c->high);
		ctl_page_line(p, CTL_PLAIN, "%7.7s |%s", label, c->text[i]);
	}
	free(c);
}

static void draw_events(const struct ctl_watch *w, struct ctl_page *p, int rows)
{
	int first = w->event_count > rows ? w->event_count - rows : 0;

	for (int i = first; i < w->event_count; i++) {
		const json_t *e = w->events[i];
		char safe[1200], when[32];

		ctl_time(when, ctl_int(e, "time_ms"));
		ctl_page_line(p, CTL_PLAIN, "%s %-16s %s", when + strlen("2026-01-31 "),
			      ctl_safe(e, "kind"),
			      lh_escape(safe, sizeof(safe), ctl_str(e, "text")));
	}
}

void ctl_watch_draw(const struct ctl_watch *w, struct ctl_page *p)
{
	int room = p->rows - HEAD_ROWS - 1; /* the foot */
	int curve_rows = room > 12 ? room / 2 : room > 3 ? room - 3 : room;

	draw_head(w, p);
	draw_phases(w, p);
	draw_numbers(w, p);
	if (curve_rows > 0)
		draw_curve(w, p, curve_rows);
	if (room > curve_rows)
		draw_events(w, p, room - curve_rows);
	while (p->used_rows < p->rows - 1)
		ctl_page_line(p, CTL_PLAIN, "%s", "");
	ctl_page_line(p, CTL_DIM, "q quits; the job goes on");
}

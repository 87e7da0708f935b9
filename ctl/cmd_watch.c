/* cmd_watch.c: a job as it runs: on a terminal a page that is drawn again and again
 * (watch_page.c), on a pipe a line a step and a line an event.
 *
 * Both listen first and then ask how things are, so that nothing falls in between. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "commands.h"
#include "watch.h"

enum { REDRAW_MS = 250, CURVE_POINTS = 1000, PLAIN_POLL_MS = 500 };

static const struct ctl_option options[] = {
	{ "plain", 0, NULL, false, "lines on a terminal too" },
	{ "json", 0, NULL, false, "notifications as they come, one object a line" },
	{ NULL },
};

struct watching {
	struct ctl_client *client;
	int64_t job;
	bool screen, json;
	bool ended, failed;
	bool look;          /* events were lost: the end may be among them */
	bool reload;        /* the page's history is not what it was */
	struct ctl_watch page;
};

static void look_at_state(struct watching *w, const char *state)
{
	w->failed = !strcmp(state, "FAILED") || !strcmp(state, "CANCELLED");
	w->ended = w->failed || !strcmp(state, "DONE");
}

/* ---- lines ----------------------------------------------------------------- */

static void print_event(const json_t *e)
{
	char safe[1200];

	printf("%-16s %s\n", ctl_safe(e, "kind"),
	       lh_escape(safe, sizeof(safe), ctl_str(e, "text")));
}

/* The daemon drops what a slow reader has not taken; the store has it all. */
static void print_lost(const json_t *lost)
{
	fflush(stdout);
	fprintf(stderr, "not shown: %lld steps, %lld events; 'lhctl metrics' and 'lhctl "
		"events' have them\n", (long long)ctl_int(lost, "steps"),
		(long long)ctl_int(lost, "events"));
}

static void print_step(const json_t *s)
{
	printf("step %6lld  phase %lld  loss %7.4f  norm %8.3f  lr %.3e  %7.1f ms  "
	       "%8.0f tokens/s\n", (long long)ctl_int(s, "step"),
	       (long long)ctl_int(s, "phase"), ctl_real(s, "loss"),
	       ctl_real(s, "grad_norm"), ctl_real(s, "lr"), ctl_real(s, "step_ms"),
	       ctl_real(s, "tokens_per_s"));
}

static void print_note(const struct watching *w, const char *method, const json_t *params)
{
	if (w->json)
		ctl_print_json_line(params);
	else if (!strcmp(method, "event"))
		print_event(params);
	else if (!strcmp(method, "lost"))
		print_lost(params);
	else if (!strcmp(method, "step"))
		print_step(params);
	fflush(stdout);
}

/* ---- the page's memory ----------------------------------------------------- */

static void take(json_t **place, json_t *value)
{
	json_decref(*place);
	*place = value;
}

static void take_evaluation(struct ctl_watch *p, json_t *e, int64_t step)
{
	if (strcmp(ctl_str(e, "attention"), "full") || ctl_int(e, "set_no"))
		return;
	ctl_series_add(&p->val_loss, step, ctl_real(e, "loss"));
	take(&p->evaluation, json_copy(e));
	json_object_set_new(p->evaluation, "step", json_integer(step));
}

static void keep_note(struct watching *w, const char *method, json_t *params)
{
	struct ctl_watch *p = &w->page;
	const char *kind = ctl_str(params, "kind");

	if (!strcmp(method, "step")) {
		take(&p->step, json_incref(params));
		ctl_series_add(&p->loss, ctl_int(params, "step"), ctl_real(params, "loss"));
	} else if (!strcmp(method, "event")) {
		ctl_watch_add_event_take(p, json_incref(params));
		if (!strcmp(kind, "job.eval"))
			take_evaluation(p, json_object_get(params, "data"),
					ctl_int(params, "step"));
		w->reload |= !strcmp(kind, "job.phase") || !strcmp(kind, "job.rewind");
	} else {
		w->reload = true;
	}
}

static json_t *ask(struct watching *w, const char *method, json_t *more, struct lh_err *err)
{
	json_object_set_new(more, "job", json_integer(w->job));
	return ctl_call(w->client, method, more, err);
}

/* The stored events, and behind them those that came meanwhile. */
static void take_events(struct ctl_watch *p, const json_t *stored)
{
	json_t *came[CTL_WATCH_EVENTS], *event;
	int count = p->event_count;
	size_t i;

	memcpy(came, p->events, sizeof(came));
	p->event_count = 0;
	json_array_foreach (stored, i, event)
		ctl_watch_add_event_take(p, json_incref(event));
	for (int k = 0; k < count; k++)
		ctl_watch_add_event_take(p, came[k]);
}

/* Everything but the newest state, from the store; what is on its way comes
 * later, over it. Results of a call that failed are empty. */
static int load(struct watching *w, struct lh_err *err)
{
	struct ctl_watch *p = &w->page;
	json_t *show = ask(w, "job.show", json_object(), err), *row;
	json_t *curve = NULL, *events = NULL;
	size_t i;

	if (show)
		curve = ask(w, "job.curve", json_pack("{s:i}", "points", CURVE_POINTS), err);
	if (curve)
		events = ask(w, "job.events", json_pack("{s:i, s:b}", "limit",
							CTL_WATCH_EVENTS, "newest", 1), err);
	w->reload = !events;
	if (events) {
		take(&p->phases, json_incref(json_object_get(show, "phases")));
		memset(&p->loss, 0, sizeof(p->loss));
		memset(&p->val_loss, 0, sizeof(p->val_loss));
		json_array_foreach (json_object_get(show, "evaluations"), i, row)
			take_evaluation(p, row, ctl_int(row, "step"));
		json_array_foreach (json_object_get(curve, "points"), i, row)
			ctl_series_add(&p->loss, ctl_int(row, "last_step"),
				       ctl_real(row, "loss_mean"));
		take_events(p, json_object_get(events, "events"));
	}
	json_decref(show);
	json_decref(curve);
	json_decref(events);
	return events ? 0 : err->code;
}

/* ---- following ------------------------------------------------------------- */

static void on_note(void *arg, const char *method, json_t *params)
{
	struct watching *w = arg;

	if (w->screen)
		keep_note(w, method, params);
	else
		print_note(w, method, params);
	if (!strcmp(method, "event") && !strcmp(ctl_str(params, "kind"), "job.state"))
		look_at_state(w, ctl_str(json_object_get(params, "data"), "to"));
	w->look |= !strcmp(method, "lost") && ctl_int(params, "events");
}

static int follow_lines(struct watching *w, struct lh_err *err)
{
	while (!w->ended) {
		int rc = ctl_listen(w->client, PLAIN_POLL_MS, err);
		json_t *job;

		if (rc && rc != LH_ETIMEOUT)
			return ctl_fail(err);
		if (w->ended || !w->look)
			continue;
		job = ask(w, "job.get", json_object(), err);
		if (!job)
			return ctl_fail(err);
		look_at_state(w, ctl_str(job, "state"));
		w->look = false;
		json_decref(job);
	}
	return w->failed ? CTL_JOB_ENDED : CTL_DONE;
}

static int draw(struct watching *w, struct lh_err *err)
{
	struct ctl_page page;
	json_t *job;

	if (w->reload && load(w, err))
		return err->code;
	job = ask(w, "job.get", json_object(), err);
	if (!job)
		return err->code;
	take(&w->page.job, job);
	look_at_state(w, ctl_str(job, "state"));
	ctl_page_begin(&page);
	ctl_watch_draw(&w->page, &page);
	ctl_page_show(&page);
	return 0;
}

/* What remains on the terminal when the page is gone. */
static void print_state(const json_t *job)
{
	printf("job %lld '%s': %s at step %lld (%s)\n", (long long)ctl_int(job, "job"),
	       ctl_safe(job, "name"), ctl_safe(job, "state"),
	       (long long)ctl_int(job, "step"), ctl_safe(job, "reason"));
}

/* A signal ends a call as a timeout does; then the next round asks again. */
static int follow_page(struct watching *w, struct lh_err *err)
{
	int64_t next_us = 0;
	int rc = 0;

	ctl_screen_enter();
	ctl_wake_on(w->client, ctl_screen_keys());
	w->reload = true;
	while (!w->ended && !ctl_screen_quit() && (!rc || rc == LH_ETIMEOUT)) {
		int64_t now_us = lh_clock_us();
		int64_t left_ms = (next_us - now_us + 999) / 1000;

		if (left_ms > 0) {
			rc = ctl_listen(w->client, (int)left_ms, err);
		} else {
			rc = draw(w, err);
			next_us = now_us + REDRAW_MS * INT64_C(1000);
		}
	}
	/* Its end was heard of: now it is known what it is. */
	if (w->ended && (!rc || rc == LH_ETIMEOUT))
		rc = draw(w, err);
	ctl_screen_leave();
	if (rc && rc != LH_ETIMEOUT)
		return ctl_fail(err);
	if (w->page.job)
		print_state(w->page.job);
	return w->failed ? CTL_JOB_ENDED : CTL_DONE;
}

/* The job when the watching begins; NULL after printing why not. */
static json_t *begin(struct watching *w, struct lh_err *err)
{
	json_t *sub, *job;

	ctl_on_note(w->client, on_note, w);
	sub = ask(w, "job.subscribe", json_pack("{s:b}", "steps", 1), err);
	job = sub ? ask(w, "job.get", json_object(), err) : NULL;
	json_decref(sub);
	return job;
}

static int run(struct ctl *c)
{
	struct watching *w = lh_calloc(1, sizeof(*w));
	struct lh_err err = LH_ERR_INIT;
	json_t *job = NULL;
	int rc = CTL_UNREACHABLE;

	w->json = ctl_opt(c, "json");
	w->screen = !w->json && !ctl_opt(c, "plain") && ctl_screen_usable();
	w->client = ctl_connect(c);
	if (!w->client)
		goto done;
	rc = ctl_job(w->client, c->args[0], &w->job);
	if (rc)
		goto done;
	job = begin(w, &err);
	if (!job) {
		rc = ctl_fail(&err);
	} else if (ctl_has_ended(job)) {
		fprintf(w->json ? stderr : stdout, "job %lld is %s\n", (long long)w->job,
			ctl_safe(job, "state"));
		look_at_state(w, ctl_str(job, "state"));
		rc = w->failed ? CTL_JOB_ENDED : CTL_DONE;
	} else {
		rc = w->screen ? follow_page(w, &err) : follow_lines(w, &err);
	}
done:
	json_decref(job);
	ctl_watch_release(&w->page);
	if (w->client)
		ctl_disconnect(w->client);
	free(w);
	return rc;
}

const struct ctl_command ctl_cmd_watch = {
	"watch", "JOB",
	"Watch a job until it ends.\n"
	"On a terminal a page: phases, the newest step, the loss (validation as 'o'), "
	"events;\nq or Ctrl-C ends the watching, not the job. Otherwise lines.",
	"  lhctl watch my-job\n  lhctl watch my-job | tee my-job.log\n", 1, 1, options,
	run };

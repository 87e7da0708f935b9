/* cmd_watch.c: a job as it runs. On a terminal one line that is redrawn, events
 * above it; on a pipe a line a step and a line an event. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "commands.h"

enum { REDRAW_US = 250000 };

static const struct ctl_option options[] = {
	{ "json", 0, NULL, false, "notifications as they come, one object a line" },
	{ NULL },
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signum)
{
	(void)signum;
	interrupted = 1;
}

struct watch {
	bool terminal, json, ended, drawn, failed;
	bool look;       /* events were lost: the end may be among them */
	int64_t drawn_us;
};

static void clear_line(struct watch *w)
{
	if (w->drawn)
		printf("\r\x1b[K");
	w->drawn = false;
}

static void look_at_state(struct watch *w, const char *state)
{
	w->failed = !strcmp(state, "FAILED") || !strcmp(state, "CANCELLED");
	w->ended = w->failed || !strcmp(state, "DONE");
}

static void print_event(struct watch *w, const json_t *e)
{
	char safe[1200];

	clear_line(w);
	printf("%-16s %s\n", ctl_safe(e, "kind"),
	       lh_escape(safe, sizeof(safe), ctl_str(e, "text")));
}

/* The daemon drops what a slow reader has not taken; the store has it all. */
static void print_lost(struct watch *w, const json_t *lost)
{
	clear_line(w);
	fflush(stdout);
	fprintf(stderr, "not shown: %lld steps, %lld events; 'lhctl steps' and 'lhctl "
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

static void on_note(void *arg, const char *method, json_t *params)
{
	struct watch *w = arg;

	if (w->json)
		ctl_print_json_line(params);
	else if (!strcmp(method, "event"))
		print_event(w, params);
	else if (!strcmp(method, "lost"))
		print_lost(w, params);
	else if (!strcmp(method, "step") && !w->terminal)
		print_step(params);
	if (!strcmp(method, "event") && !strcmp(ctl_str(params, "kind"), "job.state"))
		look_at_state(w, ctl_str(json_object_get(params, "data"), "to"));
	w->look |= !strcmp(method, "lost") && ctl_int(params, "events");
	if (!w->terminal)
		fflush(stdout);
}

/* "lighthouse 41/220  loss 2.9113  5310 tokens/s  38 s left" */
static void draw(struct watch *w, const json_t *job)
{
	char eta[32], total[32] = "";

	ctl_duration(eta, ctl_real(job, "eta_s"));
	if (ctl_has(job, "total_steps"))
		snprintf(total, sizeof(total), "/%lld",
			 (long long)ctl_int(job, "total_steps"));
	clear_line(w);
	printf("%s  step %lld%s", ctl_safe(job, "phase_name"),
	       (long long)ctl_int(job, "step"), total);
	if (ctl_has(job, "loss"))
		printf("  loss %.4f  %.0f tokens/s  %s left", ctl_real(job, "loss"),
		       ctl_real(job, "tokens_per_s"), eta);
	if (strcmp(ctl_str(job, "state"), "RUNNING"))
		printf("  %s", ctl_safe(job, "state"));
	fflush(stdout);
	w->drawn = true;
	w->drawn_us = lh_clock_us();
}

static int follow(struct ctl_client *k, struct watch *w, int64_t id, struct lh_err *err)
{
	while (!w->ended && !interrupted) {
		int rc = ctl_listen(k, 500, err);
		json_t *job;

		if (rc && rc != LH_ETIMEOUT)
			return ctl_fail(err);
		if (w->ended || (!w->look && (!w->terminal || lh_clock_us() <
							w->drawn_us + REDRAW_US)))
			continue;
		job = ctl_call(k, "job.get", json_pack("{s:I}", "job", (json_int_t)id), err);
		if (!job && !interrupted)
			return ctl_fail(err);
		if (job && w->look && !w->ended)
			look_at_state(w, ctl_str(job, "state"));
		if (job && w->terminal && !w->ended)
			draw(w, job);
		w->look = false;
		json_decref(job);
	}
	clear_line(w);
	return w->failed ? CTL_JOB_ENDED : CTL_DONE;
}

static int run(struct ctl *c)
{
	struct watch w = { .terminal = isatty(STDOUT_FILENO) && !ctl_opt(c, "json"),
			   .json = ctl_opt(c, "json") };
	struct sigaction sa = { .sa_handler = on_interrupt };
	struct ctl_client *k = ctl_connect(c);
	struct lh_err err = LH_ERR_INIT;
	json_t *sub, *job = NULL;
	int64_t id;
	int rc;

	if (!k)
		return CTL_UNREACHABLE;
	sigaction(SIGINT, &sa, NULL);
	rc = ctl_job(k, c->args[0], &id);
	if (rc) {
		ctl_disconnect(k);
		return rc;
	}
	ctl_on_note(k, on_note, &w);
	sub = ctl_call(k, "job.subscribe",
		       json_pack("{s:I, s:b}", "job", (json_int_t)id, "steps", 1), &err);
	if (sub)
		job = ctl_call(k, "job.get", json_pack("{s:I}", "job", (json_int_t)id),
			       &err);
	if (!job) {
		rc = ctl_fail(&err);
	} else if (ctl_has_ended(job)) {
		fprintf(w.json ? stderr : stdout, "job %lld is %s\n", (long long)id,
			ctl_safe(job, "state"));
		rc = strcmp(ctl_str(job, "state"), "DONE") ? CTL_JOB_ENDED : CTL_DONE;
	} else {
		rc = follow(k, &w, id, &err);
	}
	json_decref(sub);
	json_decref(job);
	ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_watch = {
	"watch", "JOB",
	"Watch a job until it ends.\nCtrl-C ends the watching, not the job.",
	"  lhctl watch my-job\n  lhctl watch my-job | tee my-job.log\n", 1, 1, options,
	run };

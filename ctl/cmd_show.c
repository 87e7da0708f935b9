/* cmd_show.c: all about one job. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "commands.h"
#include "looks.h"

static const struct ctl_option options[] = {
	{ "evaluations", 'e', NULL, false, "only the evaluations" },
	CTL_OPTION_JSON,
	{ NULL },
};

static void print_summary(const json_t *j, const json_t *spec, const char *directory)
{
	char safe[600], eta[32], when[32];

	printf("job %lld '%s': %s (%s)\n", (long long)ctl_int(j, "job"),
	       ctl_safe(j, "name"), ctl_safe(j, "state"), ctl_safe(j, "reason"));
	ctl_time(when, ctl_int(j, "submitted_ms"));
	printf("submitted %s, priority %lld, attempt %lld, %lld of %lld restarts used\n", when,
	       (long long)ctl_int(j, "priority"), (long long)ctl_int(j, "attempt"),
	       (long long)ctl_int(j, "restarts"), (long long)ctl_int(spec, "restarts"));
	if (ctl_has(j, "not_before_ms")) {
		ctl_time(when, ctl_int(j, "not_before_ms"));
		printf("not before %s\n", when);
	}
	printf("step %lld", (long long)ctl_int(j, "step"));
	if (ctl_has(j, "total_steps"))
		printf(" of %lld", (long long)ctl_int(j, "total_steps"));
	if (ctl_has(j, "loss"))
		printf(", loss %.4f, %.0f tokens/s", ctl_real(j, "loss"),
		       ctl_real(j, "tokens_per_s"));
	ctl_duration(eta, ctl_real(j, "eta_s"));
	if (ctl_has(j, "eta_s"))
		printf(", %s left", eta);
	printf("\nfiles: %s\n", lh_escape(safe, sizeof(safe), directory));
}

static void print_phases(const json_t *show)
{
	int64_t now = ctl_int(json_object_get(show, "summary"), "phase");
	json_t *p;
	size_t i;

	json_array_foreach (json_object_get(show, "phases"), i, p) {
		printf("%c phase %zu '%s': %s attention", (int64_t)i == now ? '*' : ' ', i,
		       ctl_safe(p, "name"), ctl_safe(p, "attention"));
		if (ctl_has(p, "steps"))
			printf(", %lld steps", (long long)ctl_int(p, "steps"));
		if (ctl_has(p, "first_step"))
			printf(", from step %lld", (long long)ctl_int(p, "first_step") + 1);
		printf("\n");
	}
}

/* Where they are not the job file's. */
static void print_settings(const json_t *show)
{
	json_t *s;
	size_t i;

	json_array_foreach (json_object_get(show, "settings"), i, s) {
		printf("set: %s %.10g", ctl_safe(s, "setting"), ctl_real(s, "value"));
		if (ctl_has(s, "phase"))
			printf(" in '%s'", ctl_safe(s, "phase"));
		printf(", %.10g in the job file\n", ctl_real(s, "file"));
	}
}

static void print_evaluations(const json_t *show)
{
	static const char *const heads[] = { "STEP", "VALIDATION LOSS", "SET", "ATTENTION",
					     "PHASE", "WHEN" };
	json_t *phases = json_object_get(show, "phases"), *e;
	struct ctl_table *t = ctl_table_new(6, heads);
	size_t i;

	json_array_foreach (json_object_get(show, "evaluations"), i, e) {
		json_t *phase = json_array_get(phases, (size_t)ctl_int(e, "phase"));

		ctl_table_addf(t, "%lld", (long long)ctl_int(e, "step"));
		ctl_table_addf(t, "%.4f", ctl_real(e, "loss"));
		ctl_table_add(t, ctl_str(e, "set_name"));
		ctl_table_add(t, ctl_str(e, "attention"));
		ctl_table_add(t, ctl_str(phase, "name"));
		ctl_table_add(t, ctl_str(e, "reason"));
	}
	ctl_table_print_take(t);
}

static void print_checkpoints(const json_t *show)
{
	json_t *c;
	size_t i;

	json_array_foreach (json_object_get(show, "checkpoints"), i, c)
		printf("checkpoint at step %lld: %.1f MB in %.0f ms (%s) %s\n",
		       (long long)ctl_int(c, "step"), (double)ctl_int(c, "bytes") / 1e6,
		       ctl_real(c, "duration_ms"), ctl_safe(c, "reason"),
		       ctl_safe(c, "path"));
}

static const char *phase_name(const json_t *show, const json_t *o)
{
	return ctl_safe(json_array_get(json_object_get(show, "phases"),
				       (size_t)ctl_int(o, "phase")), "name");
}

static void print_switch(const json_t *show)
{
	const json_t *trial = json_object_get(show, "trial");
	const json_t *last = json_object_get(show, "last_switch");

	if (json_is_object(trial)) {
		printf("switch to '%s' on trial: %lld of %lld steps", phase_name(show, trial),
		       (long long)ctl_int(trial, "steps"), (long long)ctl_int(trial, "of"));
		if (ctl_has(trial, "loss_ceiling"))
			printf(", loss ceiling %g", ctl_real(trial, "loss_ceiling"));
		printf("\n");
	}
	if (json_is_object(last))
		printf("switch to '%s' after step %lld %s: %s\n", phase_name(show, last),
		       (long long)ctl_int(last, "from_step"), ctl_safe(last, "verdict"),
		       ctl_safe(last, "why"));
}

static void print_instability(const json_t *show)
{
	json_t *i;
	size_t n;

	json_array_foreach (json_object_get(show, "instability"), n, i)
		printf("%s: %lld steps refused, the last one %lld (%s)\n",
		       ctl_safe(i, "cause"), (long long)ctl_int(i, "count"),
		       (long long)ctl_int(i, "step"), ctl_safe(i, "action"));
}

/* Of the attempt that ended last, if nobody asked it to. */
static void print_loss(const json_t *show)
{
	json_t *attempts = json_object_get(show, "attempts"), *a = NULL, *line;
	size_t i = json_array_size(attempts);
	bool lost, failed;
	char safe[600];

	while (i && !ctl_has(a = json_array_get(attempts, i - 1), "ended_ms"))
		i--;
	lost = i && !strcmp(ctl_str(a, "outcome"), "lost");
	failed = i && !strcmp(ctl_str(a, "outcome"), "failed");
	if (!lost && !failed)
		return;
	printf("attempt %lld %s at step %lld: %s\n", (long long)ctl_int(a, "attempt"),
	       lost ? "was lost" : "failed", (long long)ctl_int(a, "last_step"),
	       lh_escape(safe, sizeof(safe), ctl_str(a, "why")));
	if (*ctl_str(a, "hint"))
		printf("hint: %s\n", lh_escape(safe, sizeof(safe), ctl_str(a, "hint")));
	json_array_foreach (json_object_get(a, "log"), i, line)
		printf("  | %s\n", lh_escape(safe, sizeof(safe), json_string_value(line)));
}

static void print_left(const json_t *forecast)
{
	json_t *p;
	size_t i;

	json_array_foreach (json_object_get(forecast, "phases"), i, p) {
		char left[32];

		if (!ctl_has(p, "seconds"))
			continue;
		ctl_duration(left, ctl_real(p, "seconds"));
		printf("left in '%s': %lld steps at %.3g s, %s\n", ctl_safe(p, "name"),
		       (long long)ctl_int(p, "steps_left"), ctl_real(p, "step_s"), left);
	}
}

static void print_end(const json_t *forecast, const char *key, const char *what)
{
	const json_t *end = json_object_get(forecast, key);
	char left[32], when[32];

	if (!ctl_has(end, "seconds"))
		return;
	ctl_duration(left, ctl_real(end, "seconds"));
	ctl_time(when, ctl_int(end, "end_ms"));
	printf("%s it would end in %s, %s\n", what, left, when);
}

static void print_forecast(const json_t *forecast)
{
	const json_t *gap = json_object_get(forecast, "gap");

	print_left(forecast);
	print_end(forecast, "as_planned", "as planned");
	print_end(forecast, "switched_now", "switched now");
	if (ctl_has(gap, "gap"))
		printf("gap at step %lld: %.4f (validation loss %.4f with full attention, "
		       "%.4f with Lighthouse)\n", (long long)ctl_int(gap, "step"),
		       ctl_real(gap, "gap"), ctl_real(gap, "val_loss"),
		       ctl_real(gap, "val_loss_lighthouse"));
}

/* NULL where there is none, or a daemon that makes none. */
static json_t *forecast_of(struct ctl *c, const json_t *job)
{
	struct lh_err err = LH_ERR_INIT;
	struct ctl_client *k = ctl_has_ended(job) ? NULL : ctl_try_connect(c, &err);
	json_t *forecast = NULL;

	if (k)
		forecast = ctl_call(k, "job.forecast",
				    json_pack("{s:I}", "job", (json_int_t)ctl_int(job, "job")),
				    &err);
	ctl_disconnect(k);
	return forecast;
}

static int run(struct ctl *c)
{
	json_t *show, *forecast;
	int rc;

	show = ctl_ask(c, "job.show", json_object(), &rc);
	if (!show)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(show);
	if (!ctl_opt(c, "evaluations")) {
		print_summary(json_object_get(show, "summary"), json_object_get(show, "spec"),
			      ctl_str(show, "directory"));
		print_loss(show);
		print_phases(show);
		print_settings(show);
		print_switch(show);
		forecast = forecast_of(c, json_object_get(show, "summary"));
		print_forecast(forecast);
		json_decref(forecast);
		print_instability(show);
		ctl_print_looks(show);
		print_checkpoints(show);
	}
	print_evaluations(show);
	json_decref(show);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_show = {
	"show", "JOB",
	"Show one job.\nIts state, how its newest worker was lost, phases, when it would end, as "
	"planned or\nswitched now, checkpoints, and the validation loss as often as it was measured.",
	"  lhctl show my-job\n  lhctl show my-job --evaluations\n"
	"  lhctl show 7 --json\n", 1, 1, options, run };

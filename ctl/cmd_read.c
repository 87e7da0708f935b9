/* cmd_read.c: steps, events, journal, info: what the daemon has stored. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "commands.h"

static const struct ctl_option list_options[] = {
	{ "limit", 0, "N", false, "rows at most (1000)" },
	{ "json", 0, NULL, false, "the daemon's answer, as data" },
	{ NULL },
};
static const struct ctl_option step_options[] = {
	{ "from", 0, "STEP", false, "first step wanted (1)" },
	{ "to", 0, "STEP", false, "last step wanted" },
	{ "limit", 0, "N", false, "rows at most (1000)" },
	{ "all-attempts", 0, NULL, false, "abandoned steps too" },
	{ "csv", 0, NULL, false, "comma-separated, with a head" },
	{ "json", 0, NULL, false, "the daemon's answer, as data" },
	{ NULL },
};
static const struct ctl_option info_options[] = {
	{ "json", 0, NULL, false, "the daemon's answer, as data" },
	{ NULL },
};
static const struct ctl_option stop_options[] = {
	{ "no-wait", 0, NULL, false, "do not wait until it has ended" },
	{ "json", 0, NULL, false, "the daemon's answer, as data" },
	{ NULL },
};

/* ctl_ask, of which --json is all that is wanted: printed, and NULL. */
static json_t *ask(struct ctl *c, const char *method, json_t *params, int *rc)
{
	json_t *result = ctl_ask(c, method, params, rc);

	if (!result || !ctl_opt(c, "json"))
		return result;
	*rc = ctl_print_json_take(result);
	return NULL;
}

static json_t *limited(const struct ctl *c)
{
	return json_pack("{s:I}", "limit",
			 (json_int_t)ctl_opt_int(c, "limit", 1000, 1, 10000));
}

static int run_steps(struct ctl *c)
{
	static const char *const heads[] = { "ATTEMPT", "STEP", "PHASE", "LOSS", "GRAD NORM",
					     "LR", "MS", "TOKENS/S" };
	json_t *params = limited(c), *result, *s;
	struct ctl_table *t;
	size_t i;
	int rc;

	json_object_set_new(params, "from_step",
			    json_integer(ctl_opt_int(c, "from", 1, 0, INT64_C(1) << 50)));
	if (ctl_opt(c, "to"))
		json_object_set_new(params, "to_step",
				    json_integer(ctl_opt_int(c, "to", 1, 0,
							     INT64_C(1) << 50)));
	if (ctl_opt(c, "all-attempts"))
		json_object_set_new(params, "attempts", json_string("all"));
	result = ask(c, "job.steps", params, &rc);
	if (!result)
		return rc;
	if (ctl_opt(c, "csv"))
		puts("attempt,step,phase,time_ms,loss,grad_norm,lr,tokens,step_ms,"
		     "tokens_per_s");
	t = ctl_table_new(8, heads);
	json_array_foreach (json_object_get(result, "steps"), i, s) {
		if (ctl_opt(c, "csv")) {
			printf("%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64
			       ",%.9g,%.9g,%.9g,%" PRId64 ",%.3f,%.1f\n",
			       ctl_int(s, "attempt"), ctl_int(s, "step"),
			       ctl_int(s, "phase"), ctl_int(s, "time_ms"),
			       ctl_real(s, "loss"), ctl_real(s, "grad_norm"),
			       ctl_real(s, "lr"), ctl_int(s, "tokens"),
			       ctl_real(s, "step_ms"), ctl_real(s, "tokens_per_s"));
			continue;
		}
		ctl_table_addf(t, "%" PRId64, ctl_int(s, "attempt"));
		ctl_table_addf(t, "%" PRId64, ctl_int(s, "step"));
		ctl_table_addf(t, "%" PRId64, ctl_int(s, "phase"));
		ctl_table_addf(t, "%.4f", ctl_real(s, "loss"));
		ctl_table_addf(t, "%.3f", ctl_real(s, "grad_norm"));
		ctl_table_addf(t, "%.3e", ctl_real(s, "lr"));
		ctl_table_addf(t, "%.1f", ctl_real(s, "step_ms"));
		ctl_table_addf(t, "%.0f", ctl_real(s, "tokens_per_s"));
	}
	ctl_table_print_take(t);
	if (json_is_true(json_object_get(result, "more")))
		fputs("there are more; --from and --limit choose\n", stderr);
	json_decref(result);
	return CTL_DONE;
}

static int run_events(struct ctl *c)
{
	static const char *const heads[] = { "ID", "TIME", "JOB", "STEP", "KIND", "TEXT" };
	json_t *result, *e;
	struct ctl_table *t;
	size_t i;
	int rc;

	result = ask(c, "job.events", limited(c), &rc);
	if (!result)
		return rc;
	t = ctl_table_new(6, heads);
	json_array_foreach (json_object_get(result, "events"), i, e) {
		char when[32];

		ctl_time(when, ctl_int(e, "time_ms"));
		ctl_table_addf(t, "%" PRId64, ctl_int(e, "id"));
		ctl_table_add(t, when);
		ctl_table_addf(t, "%" PRId64, ctl_int(e, "job"));
		ctl_table_addf(t, "%" PRId64, ctl_int(e, "step"));
		ctl_table_add(t, ctl_str(e, "kind"));
		ctl_table_add(t, ctl_str(e, "text"));
	}
	ctl_table_print_take(t);
	json_decref(result);
	return CTL_DONE;
}

static int run_journal(struct ctl *c)
{
	static const char *const heads[] = { "ID", "TIME", "JOB", "METHOD", "UID", "PROGRAM",
					     "OUTCOME", "STEP", "WHY", "TEXT" };
	json_t *result, *e;
	struct ctl_table *t;
	size_t i;
	int rc;

	result = ask(c, "job.journal", limited(c), &rc);
	if (!result)
		return rc;
	t = ctl_table_new(10, heads);
	json_array_foreach (json_object_get(result, "commands"), i, e) {
		char when[32];

		ctl_time(when, ctl_int(e, "accepted_ms"));
		ctl_table_addf(t, "%" PRId64, ctl_int(e, "command"));
		ctl_table_add(t, when);
		ctl_table_addf(t, "%" PRId64, ctl_int(e, "job"));
		ctl_table_add(t, ctl_str(e, "method"));
		ctl_table_addf(t, "%" PRId64, ctl_int(e, "uid"));
		ctl_table_add(t, ctl_str(e, "program"));
		ctl_table_add(t, ctl_has(e, "outcome") ? ctl_str(e, "outcome") : "pending");
		ctl_table_addf(t, "%" PRId64, ctl_int(e, "step"));
		ctl_table_add(t, ctl_str(e, "message"));
		ctl_table_add(t, ctl_str(e, "text"));
	}
	ctl_table_print_take(t);
	json_decref(result);
	return CTL_DONE;
}

static int run_info(struct ctl *c)
{
	char safe[1024], when[32];
	json_t *r;
	int rc;

	r = ask(c, "daemon.info", json_object(), &rc);
	if (!r)
		return rc;
	ctl_time(when, ctl_int(r, "started_ms"));
	printf("lhd %s, pid %" PRId64 ", since %s\n", ctl_safe(r, "version"),
	       ctl_int(r, "pid"), when);
	printf("database: %s\n", lh_escape(safe, sizeof(safe), ctl_str(r, "database")));
	printf("%" PRId64 " jobs, %" PRId64 " workers, %" PRId64 " clients\n",
	       ctl_int(r, "jobs"), ctl_int(r, "workers"), ctl_int(r, "clients"));
	printf("GPU: %s\n", lh_escape(safe, sizeof(safe), ctl_str(r, "gpu")));
	json_decref(r);
	return CTL_DONE;
}

static int run_stop(struct ctl *c)
{
	struct ctl_client *k = ctl_connect(c);
	struct lh_err err = LH_ERR_INIT;
	json_t *r;
	int rc = CTL_DONE;

	if (!k)
		return CTL_UNREACHABLE;
	r = ctl_call(k, "daemon.stop", NULL, &err);
	if (!r)
		rc = ctl_fail(&err);
	else if (ctl_opt(c, "json"))
		ctl_print_json_take(json_incref(r));
	else
		puts("stopping: workers save their state; the next lhd goes on with it");
	fflush(stdout);
	if (r && !ctl_opt(c, "no-wait"))
		ctl_await_end(c, k);
	json_decref(r);
	ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_steps = {
	"steps", "JOB", "Print stored steps.",
	"  lhctl steps my-job --from 100 --limit 20\n  lhctl steps my-job --csv >steps.csv\n",
	1, 1, step_options, run_steps };
const struct ctl_command ctl_cmd_events = {
	"events", "[JOB]", "Print what happened, of one job or all.",
	"  lhctl events\n  lhctl events my-job --json\n", 0, 1, list_options, run_events };
const struct ctl_command ctl_cmd_journal = {
	"journal", "[JOB]", "Print who asked for what, why, and what became of it.",
	"  lhctl journal\n  lhctl journal my-job\n", 0, 1, list_options, run_journal };
const struct ctl_command ctl_cmd_info = {
	"info", "", "Tell about the daemon.", "  lhctl info\n  lhctl info --json\n", 0, 0,
	info_options, run_info };
const struct ctl_command ctl_cmd_stop = {
	"stop", "",
	"Stop the daemon and wait until it has ended.\n"
	"Its workers write checkpoints and end first. Ctrl-C ends the waiting only.",
	"  lhctl stop\n  lhctl stop --no-wait\n", 0, 0, stop_options, run_stop };

/* cmd_ls.c: all jobs, a line each. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"

static const struct ctl_option options[] = {
	{ "for-state", 's', "STATE", false, "only jobs in this state" },
	{ "json", 0, NULL, false, "the daemon's answer, as data" },
	{ NULL },
};

static void add_row(struct ctl_table *t, const json_t *j)
{
	char eta[32];

	ctl_duration(eta, ctl_real(j, "eta_s"));
	ctl_table_addf(t, "%lld", (long long)ctl_int(j, "job"));
	ctl_table_add(t, ctl_str(j, "name"));
	ctl_table_add(t, ctl_str(j, "state"));
	ctl_table_add(t, ctl_str(j, "phase_name"));
	if (ctl_has(j, "total_steps"))
		ctl_table_addf(t, "%lld/%lld", (long long)ctl_int(j, "step"),
			       (long long)ctl_int(j, "total_steps"));
	else
		ctl_table_addf(t, "%lld", (long long)ctl_int(j, "step"));
	if (ctl_has(j, "loss"))
		ctl_table_addf(t, "%.4f", ctl_real(j, "loss"));
	else
		ctl_table_add(t, "-");
	if (ctl_has(j, "tokens_per_s"))
		ctl_table_addf(t, "%.0f", ctl_real(j, "tokens_per_s"));
	else
		ctl_table_add(t, "-");
	ctl_table_add(t, eta);
}

static int run(struct ctl *c)
{
	static const char *const heads[] = { "JOB", "NAME", "STATE", "PHASE", "STEP", "LOSS",
					     "TOKENS/S", "LEFT" };
	const char *state = ctl_opt(c, "for-state");
	struct lh_err err = LH_ERR_INIT;
	struct ctl_client *k;
	struct ctl_table *t;
	json_t *result, *job;
	size_t i;

	ctl_check_state(c, state);
	k = ctl_connect(c);
	if (!k)
		return CTL_UNREACHABLE;
	result = ctl_call(k, "job.list", state ? json_pack("{s:s}", "state", state) : NULL,
			  &err);
	ctl_disconnect(k);
	if (!result)
		return ctl_fail(&err);
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
	t = ctl_table_new(8, heads);
	json_array_foreach (json_object_get(result, "jobs"), i, job)
		add_row(t, job);
	ctl_table_print_take(t);
	json_decref(result);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_ls = {
	"ls", "", "List all jobs, the newest last.",
	"  lhctl ls\n  lhctl ls --for-state RUNNING\n  lhctl ls --json\n", 0, 0, options,
	run };

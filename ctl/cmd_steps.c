/* cmd_steps.c: stored steps of a job. */
#include <inttypes.h>
#include <stdio.h>

#include "commands.h"

static const struct ctl_option options[] = {
	{ "from", 0, "STEP", false, "first step wanted (1)" },
	{ "to", 0, "STEP", false, "last step wanted" },
	{ "limit", 0, "N", false, "rows at most (1000)" },
	{ "all-attempts", 0, NULL, false, "abandoned steps too" },
	{ "csv", 0, NULL, false, "comma-separated, with a head" },
	{ "json", 0, NULL, false, "the daemon's answer, as data" },
	{ NULL },
};

static int run(struct ctl *c)
{
	static const char *const heads[] = { "ATTEMPT", "STEP", "PHASE", "LOSS", "GRAD NORM",
					     "LR", "MS", "TOKENS/S" };
	int64_t limit = ctl_opt_int(c, "limit", 1000, 1, 10000);
	json_t *params = json_pack("{s:I}", "limit", (json_int_t)limit), *result, *s;
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
	result = ctl_ask(c, "job.steps", params, &rc);
	if (!result)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
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

const struct ctl_command ctl_cmd_steps = {
	"steps", "JOB", "Print stored steps.",
	"  lhctl steps my-job --from 100 --limit 20\n  lhctl steps my-job --csv >steps.csv\n",
	1, 1, options, run };

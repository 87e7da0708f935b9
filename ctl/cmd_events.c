/* cmd_events.c: what happened. */
#include <inttypes.h>
#include <stdio.h>

#include "commands.h"

static const struct ctl_option options[] = {
	{ "limit", 0, "N", false, "rows at most (1000)" },
	{ "json", 0, NULL, false, "the daemon's answer, as data" },
	{ NULL },
};

static int run(struct ctl *c)
{
	static const char *const heads[] = { "ID", "TIME", "JOB", "STEP", "KIND", "TEXT" };
	int64_t limit = ctl_opt_int(c, "limit", 1000, 1, 10000);
	json_t *result, *e;
	struct ctl_table *t;
	size_t i;
	int rc;

	result = ctl_ask(c, "job.events", json_pack("{s:I}", "limit", (json_int_t)limit),
			 &rc);
	if (!result)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
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

const struct ctl_command ctl_cmd_events = {
	"events", "[JOB]", "Print what happened, of one job or all.",
	"  lhctl events\n  lhctl events my-job --json\n", 0, 1, options, run };

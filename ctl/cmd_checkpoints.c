/* cmd_checkpoints.c: every checkpoint a job has written, and which remain. */
#include <inttypes.h>
#include <stdio.h>

#include "base/fs.h"
#include "commands.h"

static const struct ctl_option options[] = {
	CTL_OPTION_JSON,
	{ NULL },
};

static void add_row(struct ctl_table *t, const json_t *c)
{
	char age[32], when[32];

	ctl_time(when, ctl_int(c, "time_ms"));
	ctl_duration(age, (double)(lh_time_ms() - ctl_int(c, "time_ms")) / 1000);
	ctl_table_addf(t, "%" PRId64, ctl_int(c, "step"));
	ctl_table_addf(t, "%.1f MB", (double)ctl_int(c, "bytes") / 1e6);
	ctl_table_add(t, ctl_str(c, "reason"));
	ctl_table_add(t, when);
	ctl_table_add(t, age);
	ctl_table_add(t, json_is_true(json_object_get(c, "removed")) ? "removed" :
			 json_is_true(json_object_get(c, "pinned"))  ? "pinned" : "there");
	ctl_table_add(t, ctl_str(c, "path"));
}

static int run(struct ctl *c)
{
	static const char *const heads[] = { "STEP", "SIZE", "REASON", "WRITTEN", "AGE",
					     "STATE", "PATH" };
	struct ctl_table *t;
	json_t *result, *one;
	size_t i;
	int rc;

	result = ctl_ask(c, "job.checkpoints", json_object(), &rc);
	if (!result)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
	t = ctl_table_new(7, heads);
	json_array_foreach (json_object_get(result, "checkpoints"), i, one)
		add_row(t, one);
	ctl_table_print_take(t);
	json_decref(result);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_checkpoints = {
	"checkpoints", "JOB",
	"List the checkpoints of a job, oldest first.\n"
	"Those that made room for newer ones, or were set aside as damaged, are "
	"'removed'.",
	"  lhctl checkpoints my-job\n  lhctl checkpoints 7 --json\n", 1, 1, options, run };

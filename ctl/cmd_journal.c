/* cmd_journal.c: who asked for what. */
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
	static const char *const heads[] = { "ID", "TIME", "JOB", "METHOD", "UID", "PROGRAM",
					     "OUTCOME", "STEP", "WHY", "TEXT" };
	int64_t limit = ctl_opt_int(c, "limit", 1000, 1, 10000);
	json_t *result, *e;
	struct ctl_table *t;
	size_t i;
	int rc;

	result = ctl_ask(c, "job.journal", json_pack("{s:I}", "limit", (json_int_t)limit),
			 &rc);
	if (!result)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
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

const struct ctl_command ctl_cmd_journal = {
	"journal", "[JOB]", "Print who asked for what, why, and what became of it.",
	"  lhctl journal\n  lhctl journal my-job\n", 0, 1, options, run };

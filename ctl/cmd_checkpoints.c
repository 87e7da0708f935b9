/* cmd_checkpoints.c: every checkpoint a job has written, and which remain. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"
#include "commands.h"
#include "train/manifest.h"

static const struct ctl_option options[] = {
	{ "json", 0, NULL, false, "as data" },
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

static int print_table(const json_t *checkpoints)
{
	static const char *const heads[] = { "STEP", "SIZE", "REASON", "WRITTEN", "AGE",
					     "STATE", "PATH" };
	struct ctl_table *t = ctl_table_new(7, heads);
	json_t *c;
	size_t i;

	json_array_foreach (checkpoints, i, c)
		add_row(t, c);
	ctl_table_print_take(t);
	return CTL_DONE;
}

static int run(struct ctl *c)
{
	json_t *show, *checkpoints, *one;
	size_t i;
	int rc;

	show = ctl_ask(c, "job.show", json_object(), &rc);
	if (!show)
		return rc;
	checkpoints = json_object_get(show, "checkpoints");
	/* The daemon stores what was written; what has been removed since, only the
	 * disk knows. The socket is local, and so is the path. */
	json_array_foreach (checkpoints, i, one) {
		char *mark = lh_asprintf("%s/" LH_MANIFEST_PINNED, ctl_str(one, "path"));

		json_object_set_new(one, "removed",
				    json_boolean(!lh_fs_exists(ctl_str(one, "path"))));
		json_object_set_new(one, "pinned", json_boolean(lh_fs_exists(mark)));
		free(mark);
	}
	rc = ctl_opt(c, "json") ? ctl_print_json_take(json_incref(checkpoints)) :
				  print_table(checkpoints);
	json_decref(show);
	return rc;
}

const struct ctl_command ctl_cmd_checkpoints = {
	"checkpoints", "JOB",
	"List the checkpoints of a job, oldest first.\n"
	"Those that made room for newer ones, or were set aside as damaged, are "
	"'removed'.",
	"  lhctl checkpoints my-job\n  lhctl checkpoints 7 --json\n", 1, 1, options, run };

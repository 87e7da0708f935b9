/* cmd_journal.c: who asked for what, why, and what became of it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

static const struct ctl_option options[] = {
	{ "method", 0, "METHOD", false, "only of this method, with or without 'job.'" },
	{ "outcome", 0, "OUTCOME", false, "only pending, applied, refused, reverted or denied ones" },
	{ "uid", 0, "UID", false, "only of this user" },
	{ "since", 0, "TIME", false, "accepted from a time, or 10m, 2h, 3d ago on" },
	{ "limit", 0, "N", false, "the newest N (1000)" },
	CTL_OPTION_JSON,
	{ NULL },
};

static json_t *params(const struct ctl *c)
{
	const char *method = ctl_opt(c, "method"), *outcome = ctl_opt(c, "outcome");
	int64_t limit = ctl_opt_int(c, "limit", 1000, 1, 10000);
	int64_t uid = ctl_opt_int(c, "uid", -1, 0, UINT32_MAX);
	struct ctl_since since = ctl_opt_since(c);
	json_t *p = json_pack("{s:I}", "limit", (json_int_t)limit);
	char full[64];

	if (method)
		snprintf(full, sizeof(full), "%s%s", strchr(method, '.') ? "" : "job.",
			 method);
	if (method)
		json_object_set_new(p, "method", ctl_text(c, "the method", full));
	if (outcome)
		json_object_set_new(p, "outcome", ctl_text(c, "the outcome", outcome));
	if (uid >= 0)
		json_object_set_new(p, "uid", json_integer(uid));
	if (since.after_id)
		exit(ctl_usage(c->command, "--since takes a time here, not an id"));
	if (since.given)
		json_object_set_new(p, "since_ms", json_integer(since.ms));
	return p;
}

static void add_row(struct ctl_table *t, const json_t *e)
{
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

static int run(struct ctl *c)
{
	static const char *const heads[] = { "ID", "TIME", "JOB", "METHOD", "UID", "PROGRAM",
					     "OUTCOME", "STEP", "WHY", "TEXT" };
	json_t *result, *e;
	struct ctl_table *t;
	size_t i;
	int rc;

	result = ctl_ask(c, "job.journal", params(c), &rc);
	if (!result)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
	t = ctl_table_new(10, heads);
	json_array_foreach (json_object_get(result, "commands"), i, e)
		add_row(t, e);
	ctl_table_print_take(t);
	if (json_is_true(json_object_get(result, "more")) && !ctl_opt(c, "limit"))
		fputs("there are older ones; --limit and --since choose\n", stderr);
	json_decref(result);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_journal = {
	"journal", "[JOB]", "Print who asked for what, why, and what became of it.",
	"  lhctl journal my-job\n"
	"  lhctl journal --outcome refused --since 1d\n"
	"  lhctl journal --outcome denied\n"
	"  lhctl journal --method switch --json\n", 0, 1, options, run };

/* cmd_replay.c: a job once more, with what was done to it. */
#include <stdio.h>

#include "base/log.h"
#include "commands.h"

static const struct ctl_option options[] = {
	{ "priority", 0, "N", false, "higher starts first (0)" },
	{ "message", 'm', "WHY", false, "kept in the journal" },
	{ "request-id", 0, "UUID", false, "repeating a request with its id is harmless" },
	{ "json", 0, NULL, false, "the daemon's answer, as data" },
	{ NULL },
};

static int run(struct ctl *c)
{
	json_t *params = ctl_steer_params(c, 0), *result;
	char safe[256];
	int rc;

	json_object_set_new(params, "priority",
			    json_integer(ctl_opt_int(c, "priority", 0, -1000, 1000)));
	result = ctl_ask(c, "job.replay", params, &rc);
	if (!result)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
	printf("job %lld '%s': queued\n", (long long)ctl_int(result, "job"),
	       lh_escape(safe, sizeof(safe), ctl_str(result, "name")));
	json_decref(result);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_replay = {
	"replay", "JOB",
	"Submit a new job that does what another did.\n"
	"It has the other's job file, without the rules, and each switch and set that was\n"
	"applied to it, at the same step; they wait in its journal until then. What was\n"
	"taken back is left out. On the CPU, with the same data and machine, its losses are\n"
	"the other's to the last bit; but for a run that went back to a checkpoint because\n"
	"of a command that was then taken back. One with phases that end after minutes is\n"
	"refused.",
	"  lhctl replay my-job\n"
	"  lhctl replay 7 --priority -1 -m 'was it the lr?' && lhctl journal my-job-replay\n",
	1, 1, options, run };

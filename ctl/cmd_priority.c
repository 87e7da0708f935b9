/* cmd_priority.c: which job comes first. */
#include <errno.h>
#include <stdlib.h>

#include "commands.h"
#include "steer.h"

static const struct ctl_option options[] = { CTL_STEER_OPTIONS };

static int run(struct ctl *c)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(c->args[1], &end, 10);
	if (!*c->args[1] || *end || errno || n < -1000 || n > 1000)
		return ctl_usage(c->command, "priority '%s'; an integer from -1000 to 1000 is "
				 "allowed", c->args[1]);
	return ctl_steer(c, "job.priority",
			 json_pack("{s:I}", "priority", (json_int_t)n));
}

const struct ctl_command ctl_cmd_priority = {
	"priority", "JOB N",
	"Give a job another priority.\n"
	"Higher starts first (0). Where there is no room, a job takes the place of one of\n"
	"lower priority, which saves, waits and goes on later, unless its file says\n"
	"'preemptible: false'; so a job that runs keeps its place by a higher one.",
	"  lhctl priority my-job 5\n"
	"  lhctl priority -m 'it can wait' my-job -- -5\n", 2, 2, options, run };

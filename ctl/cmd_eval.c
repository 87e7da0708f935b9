/* cmd_eval.c: the validation loss of a job, now. */
#include <string.h>

#include "commands.h"
#include "steer.h"

static const struct ctl_option options[] = {
	{ "attention", 'a', "KIND", false, "full (default), or lighthouse: the phase's own" },
	CTL_STEER_OPTIONS
};

static int run(struct ctl *c)
{
	const char *attention = ctl_opt(c, "attention");

	if (attention && strcmp(attention, "full") && strcmp(attention, "lighthouse"))
		return ctl_usage(c->command, "attention '%s'; full or lighthouse", attention);
	return ctl_steer(c, "job.eval", attention ? json_pack("{s:s}", "attention", attention) :
						    json_object());
}

const struct ctl_command ctl_cmd_eval = {
	"eval", "JOB",
	"Measure the validation loss at the next step boundary.\n"
	"Training goes on to the last bit as it would have. 'lhctl show' has the loss.",
	"  lhctl eval my-job && lhctl show my-job --evaluations\n"
	"  lhctl eval my-job --attention lighthouse\n", 1, 1, options, run };

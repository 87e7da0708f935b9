/* cmd_annotate.c: a note about a job. */
#include "commands.h"
#include "steer.h"

static const struct ctl_option options[] = { CTL_STEER_OPTIONS };

static int run(struct ctl *c)
{
	json_t *text = ctl_text(c, "the note", c->args[1]);

	return ctl_steer(c, "job.annotate", json_pack("{s:o}", "text", text));
}

const struct ctl_command ctl_cmd_annotate = {
	"annotate", "JOB TEXT",
	"Write a note about a job, also of one that has ended.\n"
	"It is in 'lhctl journal', and an event of the step that the job is at: in\n"
	"'lhctl events' and 'lhctl watch'.",
	"  lhctl annotate my-job 'the loss went up when the disk was slow'\n"
	"  lhctl events my-job --kind job.note\n", 2, 2, options, run };

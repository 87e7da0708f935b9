/* cmd_steer.c: pause, resume, cancel, checkpoint. */
#include "commands.h"
#include "steer.h"

static const struct ctl_option options[] = { CTL_STEER_OPTIONS };
static const struct ctl_option checkpoint_options[] = {
	{ "pin", 0, NULL, false, "keep it, however many come after it" },
	CTL_STEER_OPTIONS
};
static const struct ctl_option pause_options[] = {
	{ "release", 0, NULL, false, "end its worker once all is on disk" },
	CTL_STEER_OPTIONS
};

static const struct ctl_option resume_options[] = {
	{ "micro-sequences", 0, "N", false, "of a released job: sequences at once in memory" },
	CTL_STEER_OPTIONS
};

/* {flag: true} if the option was given. */
static json_t *flagged(const struct ctl *c, const char *flag)
{
	return ctl_opt(c, flag) ? json_pack("{s:b}", flag, true) : json_object();
}

static int run_pause(struct ctl *c)
{
	return ctl_steer(c, "job.pause", flagged(c, "release"));
}

static int run_resume(struct ctl *c)
{
	int64_t micro = ctl_opt_int(c, "micro-sequences", -1, 0, 65536);

	return ctl_steer(c, "job.resume", micro < 0 ? json_object() :
		     json_pack("{s:I}", "micro_sequences", (json_int_t)micro));
}

static int run_cancel(struct ctl *c)
{
	return ctl_steer(c, "job.cancel", json_object());
}

static int run_checkpoint(struct ctl *c)
{
	return ctl_steer(c, "job.checkpoint", flagged(c, "pin"));
}

const struct ctl_command ctl_cmd_pause = {
	"pause", "JOB",
	"Stop a job at the next step boundary.\n"
	"Its worker keeps everything in memory, or with --release ends once all is on\n"
	"disk: then its GPU and its slot are free, and resume starts another worker. A\n"
	"job in the queue is held there.",
	"  lhctl pause my-job -m 'to look at it'\n"
	"  lhctl pause my-job --release -m 'the GPU is needed'\n", 1, 1, pause_options,
	run_pause };
const struct ctl_command ctl_cmd_resume = {
	"resume", "JOB",
	"Let a paused job go on.\n"
	"One whose worker is being released goes on once that has ended. One in the queue\n"
	"waits no longer for its time or another job.\n"
	"One that was released may get other micro-batches, e.g. for a device with less\n"
	"memory: weights, optimizer and data go on as they were, and losses are equal in\n"
	"exact arithmetic, not bit for bit.",
	"  lhctl resume my-job\n  lhctl resume my-job --micro-sequences 1\n", 1, 1,
	resume_options, run_resume };
const struct ctl_command ctl_cmd_cancel = {
	"cancel", "JOB",
	"End a job for good.\nA running one writes a checkpoint first, which is kept.",
	"  lhctl cancel my-job\n  lhctl cancel 7 -m 'wrong data'\n", 1, 1, options,
	run_cancel };
const struct ctl_command ctl_cmd_checkpoint = {
	"checkpoint", "JOB", "Write a checkpoint at the next step boundary.\n"
	"A pinned one has a file 'pinned' in it and stays until that is removed.",
	"  lhctl checkpoint my-job\n  lhctl checkpoint my-job --pin\n", 1, 1,
	checkpoint_options, run_checkpoint };

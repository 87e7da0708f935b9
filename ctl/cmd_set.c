/* cmd_set.c: settings of a job that runs. */
#include "commands.h"
#include "steer.h"
#include "train/settings.h"

static const struct ctl_option options[] = { CTL_STEER_OPTIONS };

static int run(struct ctl *c)
{
	json_t *change = json_object();

	for (int i = 1; i < c->arg_count; i++) {
		struct lh_err err = LH_ERR_INIT;

		if (!lh_settings_parse(change, c->args[i], &err))
			continue;
		json_decref(change);
		ctl_fail(&err);
		return CTL_USAGE;
	}
	return ctl_steer(c, "job.set", change);
}

const struct ctl_command ctl_cmd_set = {
	"set", "JOB NAME=VALUE...",
	"Change settings of a job that runs.\n"
	"lr, clip and weight_decay; lr_factor and phase_steps of the phase it is in;\n"
	"eval_every and checkpoint_every, in steps; weight.SOURCE of a mixture, by the names\n"
	"that data.train gives. They are applied together at the next step boundary and\n"
	"stay, also when it goes on from a checkpoint; 'lhctl show' has those that are not\n"
	"the job file's.",
	"  lhctl set my-job lr=1e-3 -m 'the loss has spikes'\n"
	"  lhctl set my-job phase_steps=20000 eval_every=250\n"
	"  lhctl set my-job weight.code=2 weight.web=0 -m 'enough of the web'\n",
	2, -1, options, run };

/* cmd_eval.c: the validation loss of a job, its passkeys or its multiple choice, now. */
#include <string.h>

#include "commands.h"
#include "steer.h"

static const struct ctl_option options[] = {
	{ "attention", 'a', "KIND", false, "full (default), or lighthouse: the phase's own" },
	{ "passkey", 0, NULL, false, "ask for digits hidden in long texts, not for the loss" },
	{ "choices", 0, NULL, false, "ask its multiple choice (evaluation.choices), not the loss" },
	CTL_STEER_OPTIONS
};

static int run(struct ctl *c)
{
	const char *attention = ctl_opt(c, "attention");
	json_t *params;

	if (attention && strcmp(attention, "full") && strcmp(attention, "lighthouse"))
		return ctl_usage(c->command, "attention '%s'; full or lighthouse", attention);
	if (ctl_opt(c, "passkey") && ctl_opt(c, "choices"))
		return ctl_usage(c->command, "--passkey and --choices exclude each other");
	params = json_object();
	if (attention)
		json_object_set_new(params, "attention", json_string(attention));
	if (ctl_opt(c, "passkey"))
		json_object_set_new(params, "passkey", json_true());
	if (ctl_opt(c, "choices"))
		json_object_set_new(params, "choices", json_true());
	return ctl_steer(c, "job.eval", params);
}

const struct ctl_command ctl_cmd_eval = {
	"eval", "JOB",
	"Measure the validation loss at the next step boundary, or ask for passkeys, or which\n"
	"of several endings is the right one.\n"
	"Training goes on to the last bit as it would have. 'lhctl show' has what was found.",
	"  lhctl eval my-job && lhctl show my-job --evaluations\n"
	"  lhctl eval my-job --attention lighthouse\n"
	"  lhctl eval my-job --passkey && lhctl metrics my-job --kind passkey\n"
	"  lhctl eval my-job --choices && lhctl show my-job\n",
	1, 1, options, run };

/* cmd_stop.c: ends the daemon. */
#include <stdio.h>

#include "commands.h"

static const struct ctl_option options[] = {
	CTL_OPTION_NO_WAIT("until it has ended"),
	CTL_OPTION_JSON,
	{ NULL },
};

static int run(struct ctl *c)
{
	struct ctl_client *k = ctl_connect(c);
	struct lh_err err = LH_ERR_INIT;
	json_t *r;
	int rc = CTL_DONE;

	if (!k)
		return CTL_UNREACHABLE;
	r = ctl_call(k, "daemon.stop", NULL, &err);
	if (!r)
		rc = ctl_fail(&err);
	else if (ctl_opt(c, "json"))
		ctl_print_json_take(json_incref(r));
	else
		puts("stopping: workers save their state; the next lhd goes on with it");
	fflush(stdout);
	if (r && !ctl_opt(c, "no-wait"))
		ctl_await_end(c, k);
	json_decref(r);
	ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_stop = {
	"stop", "",
	"Stop the daemon and wait until it has ended.\n"
	"Its workers write checkpoints and end first. Ctrl-C ends the waiting only.",
	"  lhctl stop\n  lhctl stop --no-wait\n", 0, 0, options, run };

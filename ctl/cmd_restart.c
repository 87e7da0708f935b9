/* cmd_restart.c: another lhd in the place of the one that runs. */
#include <inttypes.h>
#include <stdio.h>

#include "commands.h"

static const struct ctl_option options[] = {
	CTL_OPTION_MESSAGE,
	CTL_OPTION_NO_WAIT("for the next one"),
	CTL_OPTION_JSON,
	{ NULL },
};

/* Takes the connection to the old one. */
static int tell_next_take(const struct ctl *c, struct ctl_client *old)
{
	struct ctl_client *k = ctl_await_next(c, old);
	struct lh_err err = LH_ERR_INIT;
	json_t *info;
	int rc = CTL_DONE;

	if (!k)
		return CTL_UNREACHABLE;
	info = ctl_call(k, "daemon.info", NULL, &err);
	if (!info)
		rc = ctl_fail(&err);
	else if (!ctl_opt(c, "json"))
		printf("lhd %s runs, pid %" PRId64 ", generation %" PRId64 "\n",
		       ctl_safe(info, "version"), ctl_int(info, "pid"),
		       ctl_int(info, "generation"));
	json_decref(info);
	ctl_disconnect(k);
	return rc;
}

static int run(struct ctl *c)
{
	const char *message = ctl_opt(c, "message");
	struct ctl_client *k = ctl_connect(c);
	struct lh_err err = LH_ERR_INIT;
	json_t *r;
	int rc = CTL_DONE;

	if (!k)
		return CTL_UNREACHABLE;
	r = ctl_call(k, "daemon.restart",
		     json_pack("{s:s, s:o}", "program", "lhctl", "message",
			       ctl_text(c, "the message", message ? message : "")),
		     &err);
	if (!r)
		rc = ctl_fail(&err);
	else if (ctl_opt(c, "json"))
		ctl_print_json_take(json_incref(r));
	fflush(stdout);
	if (r && !ctl_opt(c, "no-wait"))
		rc = tell_next_take(c, k);
	else
		ctl_disconnect(k);
	json_decref(r);
	return rc;
}

const struct ctl_command ctl_cmd_restart = {
	"restart", "",
	"Start the daemon anew while its workers go on.\n"
	"The process becomes the lhd that lies at its path by now, with the options it\n"
	"has, and finds its workers again: no step is lost.",
	"  lhctl restart -m 'a new version is installed'\n", 0, 0, options, run };

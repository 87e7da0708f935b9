/* cmd_version.c: versions of this lhctl and of the daemon. */
#include <stdio.h>

#include "commands.h"
#include "lighthouse/proto.h"
#include "lighthouse/version.h"

static const struct ctl_option options[] = {
	{ "json", 0, NULL, false, "as data" },
	{ NULL },
};

static int run(struct ctl *c)
{
	struct lh_err err = LH_ERR_INIT;
	struct ctl_client *k = ctl_try_connect(c, &err);
	json_t *info = k ? ctl_call(k, "daemon.info", json_object(), &err) : NULL;

	ctl_disconnect(k);
	if (ctl_opt(c, "json"))
		ctl_print_json_take(json_pack("{s:s, s:i, s:o}", "lhctl", LH_VERSION,
					      "worker_protocol", LH_PROTO_VERSION, "lhd",
					      info ? json_incref(json_object_get(info,
										 "version")) :
						     json_null()));
	else if (info)
		printf("lhctl %s\nlhd %s\n", LH_VERSION, ctl_safe(info, "version"));
	else
		printf("lhctl %s\nlhd: not running\n", LH_VERSION);
	json_decref(info);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_version = {
	"version", "", "Print the versions of lhctl and of the daemon.",
	"  lhctl version\n", 0, 0, options, run };

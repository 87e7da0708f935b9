/* cmd_dashboard.c: an address that opens the page. */
#include <stdio.h>

#include "commands.h"

static const struct ctl_option options[] = {
	{ "steer", 0, NULL, false, "the page may also switch, pause, checkpoint, cancel" },
	{ "json", 0, NULL, false, "the daemon's answer, as data" },
	{ NULL },
};

static int run(struct ctl *c)
{
	json_t *r;
	int rc;

	r = ctl_ask(c, "daemon.dashboard",
		    json_pack("{s:b}", "steer", ctl_opt(c, "steer") != NULL), &rc);
	if (!r)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(r);
	printf("%s\n", ctl_safe(r, "url"));
	fflush(stdout);
	fprintf(stderr, "open it within a minute: it is good once%s\n",
		ctl_opt(c, "steer") ? ", and its page may steer" : "");
	json_decref(r);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_dashboard = {
	"dashboard", "",
	"Print an address that opens the page in a browser of this machine.\n"
	"From another one forward its port, which 'lhctl info' shows, and open the address\n"
	"there.",
	"  lhctl dashboard\n  lhctl dashboard --steer\n"
	"  ssh -L 8080:127.0.0.1:8080 HOST    # of lhd --page-port 8080\n", 0, 0,
	options, run };

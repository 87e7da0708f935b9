/* cmd_info.c: about the daemon. */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "commands.h"

static const struct ctl_option options[] = {
	CTL_OPTION_JSON,
	{ NULL },
};

static int run(struct ctl *c)
{
	char safe[1024], when[32];
	json_t *r, *w;
	size_t i;
	int rc;

	r = ctl_ask(c, "daemon.info", json_object(), &rc);
	if (!r)
		return rc;
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(r);
	ctl_time(when, ctl_int(r, "started_ms"));
	printf("lhd %s, pid %" PRId64 ", since %s\n", ctl_safe(r, "version"),
	       ctl_int(r, "pid"), when);
	printf("database: %s\n", lh_escape(safe, sizeof(safe), ctl_str(r, "database")));
	printf("%" PRId64 " jobs, %" PRId64 " workers, %" PRId64 " clients\n",
	       ctl_int(r, "jobs"), ctl_int(r, "workers"), ctl_int(r, "clients"));
	if (*ctl_str(r, "page"))
		printf("page: %s ('lhctl dashboard' opens it)\n", ctl_safe(r, "page"));
	printf("GPU: %s\n", lh_escape(safe, sizeof(safe), ctl_str(r, "gpu")));
	json_array_foreach (json_object_get(r, "foreign_workers"), i, w)
		printf("foreign worker: pid %" PRId64 " trains job %" PRId64 ", attempt %" PRId64
		       ", at step %" PRId64 " or beyond; left alone: %s\n", ctl_int(w, "pid"),
		       ctl_int(w, "job"), ctl_int(w, "attempt"), ctl_int(w, "step"),
		       ctl_safe(w, "why"));
	json_decref(r);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_info = {
	"info", "", "Tell about the daemon.", "  lhctl info\n  lhctl info --json\n", 0, 0,
	options, run };

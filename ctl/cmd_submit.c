/* cmd_submit.c: a job file to the daemon, which checks it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "commands.h"

enum { FILE_MAX_BYTES = 1000000 };

static const struct ctl_option options[] = {
	{ "set", 0, "KEY=VALUE", true, "override a key, as in optimizer.lr=1e-3" },
	{ "priority", 0, "N", false, "higher starts first (0)" },
	{ "at", 0, "TIME", false, "not before 08:00, a date and time, or in 10m, 2h, 3d" },
	{ "after", 0, "JOB", false, "once that job is done" },
	{ "dry-run", 'n', NULL, false, "check only, queue nothing" },
	CTL_OPTION_MESSAGE,
	CTL_OPTION_REQUEST_ID,
	CTL_OPTION_JSON,
	{ NULL },
};

/* `yaml` is borrowed. What JSON cannot carry exits 2: a parameter that is dropped
 * would submit another job than was asked for. */
static json_t *params_of(const struct ctl *c, json_t *yaml, const char *dir)
{
	json_t *params = ctl_steer_params(c, 0), *set = json_array();

	for (int i = 0; i < c->repeated_count; i++)
		json_array_append_new(set, ctl_text(c, "an override", c->repeated[i]));
	json_object_set(params, "yaml", yaml);
	json_object_set_new(params, "file",
			    ctl_text(c, "the name of the job file", c->args[0]));
	json_object_set_new(params, "base_dir",
			    ctl_text(c, "the job file's directory", dir));
	json_object_set_new(params, "set", set);
	json_object_set_new(params, "priority",
			    json_integer(ctl_opt_int(c, "priority", 0, -1000, 1000)));
	if (ctl_opt(c, "at"))
		json_object_set_new(params, "not_before_ms", json_integer(ctl_opt_at_ms(c)));
	json_object_set_new(params, "dry_run", json_boolean(ctl_opt(c, "dry-run")));
	return params;
}

/* An enum ctl_exit; then the daemon's answer. */
static int ask(const struct ctl *c, json_t *params, json_t **result, struct lh_err *err)
{
	struct ctl_client *k = ctl_connect(c);
	const char *after = ctl_opt(c, "after");
	int64_t job;
	int rc = k ? CTL_DONE : CTL_UNREACHABLE;

	if (k && after) {
		rc = ctl_job(k, after, &job);
		json_object_set_new(params, "after", json_integer(job));
	}
	if (!rc) {
		*result = ctl_call(k, "job.submit", json_incref(params), err);
		rc = *result ? CTL_DONE : ctl_fail(err);
	}
	json_decref(params);
	ctl_disconnect(k);
	return rc;
}

static int submit(const struct ctl *c, json_t *yaml, const char *dir, struct lh_err *err)
{
	json_t *result;
	int rc = ask(c, params_of(c, yaml, dir), &result, err);
	char safe[256];

	if (rc)
		return rc;
	lh_escape(safe, sizeof(safe), ctl_str(result, "name"));
	if (ctl_opt(c, "json"))
		rc = ctl_print_json_take(json_incref(result));
	else if (ctl_opt(c, "dry-run"))
		printf("'%s' is fine: %.1f M parameters\n", safe,
		       (double)ctl_int(result, "params") / 1e6);
	else
		printf("job %lld '%s': %.1f M parameters, queued\n",
		       (long long)ctl_int(result, "job"), safe,
		       (double)ctl_int(result, "params") / 1e6);
	json_decref(result);
	return rc;
}

static int run(struct ctl *c)
{
	struct lh_err err = LH_ERR_INIT;
	char *text, *dir;
	size_t bytes;
	json_t *yaml;
	int rc;

	if (lh_fs_read(c->args[0], FILE_MAX_BYTES, &text, &bytes, &err)) {
		lh_err_hint(&err, "ctl/examples/demo.yaml is a job file to start from");
		return ctl_fail(&err);
	}
	dir = ctl_directory_of(c->args[0]);
	yaml = json_stringn(text, bytes);
	if (!yaml || memchr(text, 0, bytes)) {
		lh_err_set(&err, LH_EJOBFILE, "'%s' %s", c->args[0],
			   yaml ? "holds a NUL byte" : "is not UTF-8");
		lh_err_hint(&err, "is this a job file?");
		rc = ctl_fail(&err);
	} else {
		rc = submit(c, yaml, dir, &err);
	}
	json_decref(yaml);
	free(dir);
	free(text);
	return rc;
}

const struct ctl_command ctl_cmd_submit = {
	"submit", "JOB.yaml",
	"Check a job file and put the job in the queue.\n"
	"Data paths in it are relative to the file. 'lhctl help job' lists its keys.\n"
	"Where there is no room, it takes the place of a job of lower priority, which\n"
	"saves, waits and goes on later, unless its file says 'preemptible: false'.\n"
	"After a job that does not end as DONE it stays in the queue, held, until it is\n"
	"resumed or cancelled; 'lhctl show' says why.",
	"  lhctl submit job.yaml\n"
	"  lhctl submit job.yaml --set optimizer.lr=1e-3 --set phases.recovery.until.steps=900\n"
	"  lhctl submit job.yaml --after base --at 22:00\n"
	"  lhctl submit job.yaml --dry-run\n",
	1, 1, options, run };

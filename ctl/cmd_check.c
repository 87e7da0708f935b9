/* cmd_check.c: a job file, checked here: no daemon, no GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "commands.h"
#include "jobs/jobfile.h"
#include "jobs/rule.h"

enum { FILE_MAX_BYTES = 1000000 };

static const struct ctl_option options[] = {
	{ "set", 0, "KEY=VALUE", true, "override a key, as in optimizer.lr=1e-3" },
	{ "without-data", 0, NULL, false, "do not look at the data files" },
	{ "json", 0, NULL, false, "the job as it would run, as data" },
	{ NULL },
};

static int print(const struct ctl *c, const struct lh_job *job)
{
	char safe[300];

	if (ctl_opt(c, "json"))
		return ctl_print_json_take(lh_jobfile_to_json(job));
	printf("'%s' is fine: %.1f M parameters, %d phases, %d rules\n",
	       lh_escape(safe, sizeof(safe), job->name),
	       (double)lh_job_model_params(&job->model) / 1e6, job->phase_count,
	       job->rule_count);
	return CTL_DONE;
}

static int run(struct ctl *c)
{
	char *text, *dir = ctl_directory_of(c->args[0]);
	struct lh_jobfile_source src = { .file = c->args[0], .base_dir = dir,
					 .set = (const char *const *)c->repeated,
					 .set_count = c->repeated_count,
					 .without_data = ctl_opt(c, "without-data") };
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job = { 0 };
	int rc = lh_fs_read(c->args[0], FILE_MAX_BYTES, &text, &src.yaml_bytes, &err);

	if (rc) {
		free(dir);
		lh_err_hint(&err, "ctl/examples/demo.yaml is a job file to start from");
		return ctl_fail(&err);
	}
	src.yaml = text;
	rc = lh_jobfile_load(&job, &src, &err);
	if (!rc)
		rc = lh_rules_check(&job, &err);
	rc = rc ? ctl_fail(&err) : print(c, &job);
	lh_job_release(&job);
	free(text);
	free(dir);
	return rc;
}

const struct ctl_command ctl_cmd_check = {
	"check", "FILE",
	"Check a job file, without a daemon.\n"
	"Every key, the data files and the conditions of rules; what is wrong is named with\n"
	"its line. Whether the job fits on a GPU is 'estimate'.",
	"  lhctl check job.yaml\n  lhctl check job.yaml --set optimizer.lr=1e-3 --json\n", 1, 1,
	options, run };

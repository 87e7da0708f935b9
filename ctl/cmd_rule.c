/* cmd_rule.c: rules of jobs: add, ls, rm. */
#include <stdio.h>
#include <string.h>

#include "commands.h"

static const struct ctl_option options[] = {
	{ "when", 'w', "SQL", false, "fire when this condition is true ('lhctl help rules')" },
	{ "on", 0, "KIND", false, "or at events of this kind, a glob as 'job.*'" },
	{ "do", 'd', "ACTION", false, "switch PHASE, set NAME=VALUE..., pause [release], "
	  "resume, checkpoint [pin], cancel, exec FILE" },
	{ "repeat", 0, NULL, false, "fire again each time the condition becomes true" },
	{ "cooldown", 0, "S", false, "seconds between two firings (0)" },
	CTL_OPTION_MESSAGE,
	CTL_OPTION_REQUEST_ID,
	CTL_OPTION_JSON,
	{ NULL },
};

static void add_row(struct ctl_table *t, const json_t *r)
{
	bool on = *ctl_str(r, "on");

	ctl_table_addf(t, "%lld", (long long)ctl_int(r, "job"));
	ctl_table_add(t, ctl_str(r, "name"));
	ctl_table_add(t, *ctl_str(r, "trouble") ? "in trouble" : ctl_str(r, "state"));
	ctl_table_addf(t, "%lld", (long long)ctl_int(r, "fired"));
	ctl_table_add(t, ctl_str(r, "do"));
	ctl_table_addf(t, "%s %s", on ? "on" : "when", ctl_str(r, on ? "on" : "when"));
}

static int list(struct ctl *c, struct ctl_client *k, int64_t job)
{
	static const char *const heads[] = { "JOB", "RULE", "STATE", "FIRED", "DOES", "" };
	struct lh_err err = LH_ERR_INIT;
	json_t *result = ctl_call(k, "rule.list", job ? json_pack("{s:I}", "job",
								  (json_int_t)job) :
							json_object(), &err), *one;
	struct ctl_table *t;
	size_t i;

	if (!result)
		return ctl_fail(&err);
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
	t = ctl_table_new(6, heads);
	json_array_foreach (json_object_get(result, "rules"), i, one)
		add_row(t, one);
	ctl_table_print_take(t);
	json_decref(result);
	return CTL_DONE;
}

static int change(struct ctl *c, struct ctl_client *k, int64_t job, bool add)
{
	static const char *const texts[] = { "when", "on", "do" };
	double cooldown_s = ctl_opt_number(c, "cooldown", 0, 0, 1e9);
	struct lh_err err = LH_ERR_INIT;
	json_t *params = ctl_steer_params(c, job), *result;

	json_object_set_new(params, "name", ctl_text(c, "the name", c->args[2]));
	for (int i = 0; add && i < 3; i++)
		if (ctl_opt(c, texts[i]))
			json_object_set_new(params, texts[i],
					    ctl_text(c, texts[i], ctl_opt(c, texts[i])));
	if (add) {
		json_object_set_new(params, "repeat",
				    json_boolean(ctl_opt(c, "repeat") != NULL));
		json_object_set_new(params, "cooldown_s", json_real(cooldown_s));
	}
	result = ctl_call(k, add ? "rule.add" : "rule.remove", params, &err);
	if (!result)
		return ctl_fail(&err);
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
	printf("%s: rule '%s'\n", add ? "added" : "removed", c->args[2]);
	json_decref(result);
	return CTL_DONE;
}

static int run(struct ctl *c)
{
	const char *what = c->args[0];
	bool add = !strcmp(what, "add"), ls = !strcmp(what, "ls");
	struct ctl_client *k;
	int64_t job = 0;
	int rc = CTL_DONE;

	if (!add && !ls && strcmp(what, "rm"))
		return ctl_usage(c->command, "'%s' is nothing to do with rules; add, ls or rm",
				 what);
	if (!ls && c->arg_count != 3)
		return ctl_usage(c->command, "rule %s needs JOB and NAME", what);
	if (ls && c->arg_count == 3)
		return ctl_usage(c->command, "unexpected '%s'", c->args[2]);
	if (add && !ctl_opt(c, "do"))
		return ctl_usage(c->command, "--do is missing");
	if (add && !ctl_opt(c, "when") == !ctl_opt(c, "on"))
		return ctl_usage(c->command, "either --when or --on is needed");
	k = ctl_connect(c);
	if (!k)
		return CTL_UNREACHABLE;
	if (c->arg_count > 1)
		rc = ctl_job(k, c->args[1], &job);
	if (!rc)
		rc = ls ? list(c, k, job) : change(c, k, job, add);
	ctl_disconnect(k);
	return rc;
}

/* As in daemon/jobs/rule_sql.h; tests/e2e/rules.test.mjs tries every word of it. */
const char ctl_rules_help[] =
	"A rule's condition is one SQL expression (SQLite's), true or not; NULL, what is not\n"
	"known yet, is not. It sees one job.\n"
	"\nNow:\n"
	"  time                 Unix seconds\n"
	"  job, step            numbers; step counts those completed\n"
	"  phase, attention     name; 'full' or 'lighthouse'\n"
	"  phase_step           steps completed in this phase\n"
	"  state                'RUNNING' or 'PAUSED'\n"
	"  tokens               trained on so far\n"
	"  steps_planned, tokens_planned  over all phases; NULL if a phase is open\n"
	"  loss, grad_norm, lr, step_ms, tokens_per_s  of the newest step\n"
	"  val_loss             newest validation loss with full attention\n"
	"  val_loss_lighthouse, gap  the same with Lighthouse attention; their difference\n"
	"  restarts, elapsed_s  workers lost; seconds since the job was started\n"
	"\nTables, for subqueries; evals is of the first validation set, sets of all:\n"
	"  steps  step, phase, loss, grad_norm, lr, tokens, step_ms, tokens_per_s, time\n"
	"  evals  step, phase, attention, reason, loss, time\n"
	"  sets   step, phase, attention, reason, loss, time, name, set_no\n"
	"\nFunctions:\n"
	"  improvement(n)       share by which val_loss fell over the last n steps\n"
	"  mean_loss(n)         mean training loss of the last n steps\n"
	"  seconds_for(phase)   what a phase's planned steps take at its measured pace\n"
	"  deadline('HH:MM')    Unix seconds of the first such time after the rule was made\n"
	"  abs avg coalesce count glob ifnull iif like lower max min nullif round sum\n"
	"  total upper          SQLite's own\n"
	"\nexamples:\n"
	"  improvement(500) < 0.005 AND phase = 'lighthouse'\n"
	"  tokens >= 0.7 * tokens_planned\n"
	"  deadline('08:00') - time <= seconds_for('recovery')\n"
	"  loss > 1.5 * mean_loss(100)\n"
	"  (SELECT max(grad_norm) FROM steps WHERE step > now.step - 50) > 10\n";

const struct ctl_command ctl_cmd_rule = {
	"rule", "add JOB NAME | ls [JOB] | rm JOB NAME",
	"Let a job be steered by rules.\n"
	"When its condition holds, a rule gives its command, once, or with --repeat each\n"
	"time it comes to hold; every firing is in the journal with the values it saw.\n"
	"Rules may also stand in the job file. 'lhctl help rules' tells what a condition\n"
	"may ask.",
	"  lhctl rule add my-job flat --when \"improvement(500) < 0.005\" --do 'switch recovery'\n"
	"  lhctl rule add my-job most --when 'tokens > 0.7 * tokens_planned' --do 'switch recovery'\n"
	"  lhctl rule add my-job by-8 --do 'switch recovery' --when \"deadline('08:00') - time < seconds_for('recovery')\"\n"
	"  lhctl rule add my-job calm --when 'loss > 1.5 * mean_loss(100)' --do 'set lr=5e-4'\n"
	"  lhctl rule add my-job tell --on 'job.state' --do 'exec notify.sh'\n"
	"  lhctl rule ls\n", 1, 3, options, run };

/* cmd_switch.c: to another phase: at once, at a step, when a condition holds, or only to
 * see what would come of it. */
#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "steer.h"

static const struct ctl_option options[] = {
	{ "at-step", 0, "N", false, "once N steps are done, and not before" },
	{ "when", 'w', "SQL", false, "when this condition is true: a rule that fires once" },
	{ "now", 0, NULL, false, "abandon the step under way, evaluate nothing before" },
	{ "dry-run", 0, NULL, false, "only tell what it would meet" },
	CTL_STEER_OPTIONS
};

static int dry_run(struct ctl *c, json_t *more)
{
	const json_t *p;
	json_t *result;
	int rc;

	json_object_set_new(more, "dry_run", json_true());
	result = ctl_ask(c, "job.switch", more, &rc);
	if (!result)
		return rc;
	p = json_object_get(result, "preflight");
	rc = json_is_true(json_object_get(p, "fits")) ? CTL_DONE : CTL_REFUSED;
	if (ctl_opt(c, "json")) {
		ctl_print_json_take(result);
		return rc;
	}
	printf("phase '%s' needs %.2f GiB, %.2f are free or this job's: it %s\n",
	       ctl_safe(p, "phase"), (double)ctl_int(p, "need_bytes") / (1 << 30),
	       (double)ctl_int(p, "have_bytes") / (1 << 30),
	       rc ? "would be refused" : "fits");
	if (ctl_has(p, "step_s"))
		printf("a step would take %.3g s\n", ctl_real(p, "step_s"));
	json_decref(result);
	return rc;
}

/* The rule's name comes from the request: repeated, it is the same rule. */
static json_t *rule_of(struct ctl *c, int64_t job)
{
	const char *phase = c->arg_count > 1 ? c->args[1] : "";
	json_t *params = ctl_steer_params(c, job);
	char *name = lh_asprintf("switch-%.8s", ctl_str(params, "request_id"));
	char *action = lh_asprintf("switch%s%s", *phase ? " " : "", phase);

	json_object_set_new(params, "name", ctl_text(c, "the request id", name));
	json_object_set_new(params, "when", ctl_text(c, "the condition", ctl_opt(c, "when")));
	json_object_set_new(params, "do", ctl_text(c, "the phase", action));
	free(name);
	free(action);
	return params;
}

static int add_rule(struct ctl *c)
{
	struct ctl_client *k = ctl_connect(c);
	struct lh_err err = LH_ERR_INIT;
	json_t *params = NULL, *result = NULL;
	int64_t job;
	int rc;

	if (!k)
		return CTL_UNREACHABLE;
	rc = ctl_job(k, c->args[0], &job);
	if (!rc) {
		params = rule_of(c, job);
		result = ctl_call(k, "rule.add", json_incref(params), &err);
		rc = result ? CTL_DONE : ctl_fail(&err);
	}
	if (result && ctl_opt(c, "json"))
		ctl_print_json_take(json_incref(result));
	else if (result)
		printf("added: rule '%s'\n", ctl_safe(params, "name"));
	json_decref(params);
	json_decref(result);
	ctl_disconnect(k);
	return rc;
}

static int run(struct ctl *c)
{
	int64_t at = ctl_opt_int(c, "at-step", -1, 0, INT64_C(1) << 53);
	int ways = (at >= 0) + !!ctl_opt(c, "when") + !!ctl_opt(c, "now") +
		   !!ctl_opt(c, "dry-run");
	json_t *more;

	if (ways > 1)
		return ctl_usage(c->command, "one of --at-step, --when, --now and --dry-run");
	if (ctl_opt(c, "when"))
		return add_rule(c);
	more = json_object();
	if (c->arg_count > 1)
		json_object_set_new(more, "phase", ctl_text(c, "the phase", c->args[1]));
	if (ctl_opt(c, "dry-run"))
		return dry_run(c, more);
	if (at >= 0)
		json_object_set_new(more, "at_step", json_integer(at));
	if (ctl_opt(c, "now"))
		json_object_set_new(more, "now", json_true());
	return ctl_steer(c, "job.switch", more);
}

const struct ctl_command ctl_cmd_switch = {
	"switch", "JOB [PHASE]",
	"Go to another phase at the next step boundary.\n"
	"PHASE is its name or number from 0; the next one unless given. A checkpoint is\n"
	"written first and the validation loss measured before and after. --at-step waits\n"
	"for a step, --when for a condition ('lhctl help rules'; it is a rule then, which\n"
	"'lhctl rule rm' takes away), --now for nothing. --dry-run exits with 1 if the\n"
	"phase does not fit.",
	"  lhctl switch my-job\n  lhctl switch my-job recovery -m 'loss is flat'\n"
	"  lhctl switch my-job recovery --at-step 12000 --no-wait\n"
	"  lhctl switch my-job recovery --when 'improvement(500) < 0.005'\n"
	"  lhctl switch my-job recovery --dry-run\n", 1, 2, options, run };

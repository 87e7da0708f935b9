/* rule_check.c: whether rules are rules, without a daemon; see rule.h. Pure, any
 * thread: lhctl checks job files with it too. */
#include "jobs/rule_int.h"

#include <stdio.h>
#include <string.h>

#include "jobs/jobfile.h"
#include "jobs/rule_action.h"

void lh_rule_scope_of_job(struct lh_rule_scope *s, const struct lh_job *spec,
			  const struct lh_settings *settings)
{
	s->phase_count = spec->phase_count;
	for (int i = 0; i < spec->phase_count; i++) {
		snprintf(s->phases[i].name, sizeof(s->phases[i].name), "%s",
			 spec->phases[i].name);
		s->phases[i].attention = spec->phases[i].attention;
		s->phases[i].steps = lh_settings_phase_steps(settings, spec, i);
	}
	s->step_tokens = spec->batch.sequences * spec->data.seq_len;
	s->state = "QUEUED";
	s->steps_planned = -1;
}

int lh_rule_check(const struct lh_rule_scope *scope, const char *when, const char *on,
		 const char *action, struct lh_err *err)
{
	struct lh_rule_action a = { 0 };
	int rc;

	if (!*when == !*on) {
		lh_err_set(err, LH_EINVAL, "a rule has either a condition or kinds of events");
		return lh_err_hint(err, "give 'when' or 'on'");
	}
	rc = lh_rule_action_parse(&a, action, err);
	if (!rc && *on && strcmp(a.verb, "exec")) {
		rc = lh_err_set(err, LH_EINVAL, "a rule on events runs a script");
		lh_err_hint(err, "do: exec FILE");
	}
	lh_rule_action_release(&a);
	if (!rc && *when)
		rc = lh_rule_sql_check(scope, when, err);
	return rc;
}

int lh_rule_check_action(const struct lh_job *job, const struct lh_settings *settings,
			 int phase, const char *action, struct lh_err *err)
{
	struct lh_rule_action a = { 0 };
	struct lh_settings s = *settings;
	const char *to;
	json_t *spec;
	int rc = lh_rule_action_parse(&a, action, err);

	if (rc)
		return rc;
	to = json_string_value(json_object_get(a.args, "phase"));
	if (to)
		rc = lh_jobfile_find_phase(job, to, &phase, err);
	if (!rc && !strcmp(a.verb, "set")) {
		spec = lh_jobfile_to_json(job);
		rc = lh_settings_apply(&s, job, a.args, phase, s.mix.since, err);
		if (!rc)
			rc = lh_settings_check(&s, spec, err);
		json_decref(spec);
	}
	lh_rule_action_release(&a);
	return rc;
}

int lh_rules_check(const struct lh_job *job, struct lh_err *err)
{
	struct lh_rule_scope scope = { 0 };
	struct lh_settings settings;
	int rc = 0;

	lh_settings_of_job(&settings, job);
	lh_rule_scope_of_job(&scope, job, &settings);
	for (int i = 0; !rc && i < job->rule_count; i++) {
		const struct lh_job_rule *r = &job->rules[i];

		rc = lh_rule_check(&scope, r->when, r->on, r->action, err);
		if (!rc)
			rc = lh_rule_check_action(job, &settings, 0, r->action, err);
		if (rc) {
			err->code = LH_EJOBFILE;
			rc = lh_err_prefix(err, "rules.%d (%s)", i, r->name);
		}
	}
	return rc;
}

/* set.c: settings of jobs that run (train/settings.h), as lhd knows them.
 *
 * The worker has them; it tells them at its start and when they change. A `set` is
 * compared beforehand with what a job file may say, on top of those that are pending.
 * For the next lhd a change is an event, and only a change. */
#include "jobs/jobs_int.h"

#include <string.h>

#include "jobs/jobfile.h"

/* As they will be once everything pending was applied; from which draw on is the
 * worker's to know. */
static struct lh_settings to_be(const struct lh_job_run *run, int phase)
{
	struct lh_settings s = run->settings;

	for (const struct lh_command *c = run->commands; c; c = c->next) {
		const char *name = json_string_value(json_object_get(c->args, "phase"));
		int of = phase;

		if (strcmp(c->verb, "set"))
			continue;
		if (name)
			lh_jobfile_find_phase(&run->spec, name, &of, NULL);
		lh_settings_apply(&s, &run->spec, c->args, of, s.mix.since, NULL);
	}
	return s;
}

int lh_set_check(const struct lh_job_run *run, int phase, const json_t *args,
		 json_t **stored, struct lh_err *err)
{
	struct lh_settings s = to_be(run, phase);
	char names[160];

	if (lh_settings_is_empty(args)) {
		lh_settings_names(names, sizeof(names));
		lh_err_set(err, LH_EPARAMS, "nothing is to be set");
		return lh_err_hint(err, "give at least one of: %s", names);
	}
	if (lh_settings_apply(&s, &run->spec, args, phase, s.mix.since, err) ||
	    lh_settings_check(&s, run->spec_json, err))
		return err->code;
	*stored = json_copy((json_t *)args);
	json_object_set_new(*stored, "phase", json_string(run->spec.phases[phase].name));
	json_object_set_new(*stored, "asked", json_null());
	return 0;
}

/* What is not as in the job file. */
static void describe(const json_t *changed, char *text, size_t text_bytes)
{
	json_t *one;
	size_t i, used;

	snprintf(text, text_bytes, "%s", json_array_size(changed) ? "" :
							"all settings are the job file's");
	json_array_foreach (changed, i, one) {
		const char *name = json_string_value(json_object_get(one, "setting"));
		const char *phase = json_string_value(json_object_get(one, "phase"));

		used = strlen(text);
		snprintf(text + used, text_bytes - used, "%s%s%s%s %.10g (job file: %.10g)",
			 i ? ", " : "", phase ? phase : "", phase ? ": " : "", name,
			 json_number_value(json_object_get(one, "value")),
			 json_number_value(json_object_get(one, "file")));
	}
}

void lh_set_told(struct lh_worker *w, struct lh_batch *b, int64_t step,
		 const json_t *settings)
{
	struct lh_job_run *run = w->run;
	struct lh_settings s;
	json_t *changed;
	char text[1024];

	lh_settings_from_json(&s, settings);
	if (s.phases != run->spec.phase_count)
		return;
	lh_settings_complete(&s, &run->spec);
	if (lh_settings_are_equal(&s, &run->settings))
		return;
	run->settings = s;
	changed = lh_settings_changed(&s, &run->spec);
	describe(changed, text, sizeof(text));
	lh_batch_event_take(b, run->id, w->attempt, step, "job.settings",
			    json_pack("{s:o, s:o}", "settings", lh_settings_to_json(&s),
				      "changed", changed),
			    "%s", text);
}

void lh_set_load(struct lh_job_run *run, const json_t *settings)
{
	struct lh_settings s;

	lh_settings_from_json(&s, settings);
	if (s.phases != run->spec.phase_count)
		return;
	lh_settings_complete(&s, &run->spec);
	run->settings = s;
}

/* settings.h: what of a job may be changed while it runs.
 *
 * As the job file says until a `set` changes them. They are part of a run's progress,
 * so that a resumed one goes on with them; lhd keeps what the worker last told. Names
 * are those of `lhctl set`, what they mean and may be stands in schema/job.json under
 * the key of each.
 *
 * Pure, any thread.
 */
#ifndef LIGHTHOUSE_SETTINGS_H
#define LIGHTHOUSE_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/err.h"
#include "lighthouse/job.h"
#include "train/mix.h"

struct lh_settings {
	int phases;                         /* of the job; 0: nothing is known */
	double lr, weight_decay, clip;
	int64_t eval_every_steps, checkpoint_every_steps;
	double lr_factor[LH_PHASES_MAX];
	int64_t phase_steps[LH_PHASES_MAX]; /* until.steps, 0 = no limit */
	struct lh_mix mix;                  /* of the sources of data.train */
};

void lh_settings_of_job(struct lh_settings *s, const struct lh_job *job);
/* What is not known is the job's: all of them, or what programs of an older version
 * did not write. */
void lh_settings_complete(struct lh_settings *s, const struct lh_job *job);
/* Steps planned of one phase, as lh_jobfile_phase_steps; -1: open. */
int64_t lh_settings_phase_steps(const struct lh_settings *s, const struct lh_job *job,
				int phase);
/* The limits of one phase as they are now. */
struct lh_job_until lh_settings_until(const struct lh_settings *s, const struct lh_job *job,
				      int phase);
bool lh_settings_are_equal(const struct lh_settings *a, const struct lh_settings *b);

/* ---- a change: {NAME: value, weight: {SOURCE: value}} ------------------------- */
/* Adds "NAME=VALUE" or "weight.SOURCE=VALUE" to it. LH_EINVAL: no such name, not of its
 * type, or twice. */
int lh_settings_parse(json_t *change, const char *pair, struct lh_err *err);
bool lh_settings_is_empty(const json_t *change);
/* What it names, of `phase` where phases differ, before draw `cursor`, which is
 * s->mix.since or later; other keys are passed over. LH_EPARAMS: the job has no such
 * source, or its value is no number; nothing is changed then. */
int lh_settings_apply(struct lh_settings *s, const struct lh_job *job, const json_t *change,
		      int phase, int64_t cursor, struct lh_err *err);
/* "lr 0.001, clip 0.5, weight.web 3". */
void lh_settings_describe(const json_t *change, char *text, size_t text_bytes);
/* The names with a blank between them. */
void lh_settings_names(char *text, size_t text_bytes);

/* ---- as JSON ----------------------------------------------------------------- */
/* Whole, as manifests and records hold them. New reference. */
json_t *lh_settings_to_json(const struct lh_settings *s);
/* NULL or a strange one: nothing is known. */
void lh_settings_from_json(struct lh_settings *s, const json_t *j);
/* Whether a job file could say so: by ranges, and by what several keys decide together.
 * `spec`: the resolved job (lh_jobfile_to_json). LH_EPARAMS. */
int lh_settings_check(const struct lh_settings *s, const json_t *spec, struct lh_err *err);
/* What is not as in the job file: [{setting, phase (name or null), value, file}]. */
json_t *lh_settings_changed(const struct lh_settings *s, const struct lh_job *job);

#endif

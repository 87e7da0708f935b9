/* settings.c: see settings.h. One table says what there is, but for the weights of
 * sources: they have their names from the job file, and are kept with what was drawn
 * by others before (mix.h). */
#include "train/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/jobfile.h"

static const struct setting {
	const char *name;
	const char *section, *key; /* of a job file, or of a phase; section NULL: none */
	size_t offset;
	bool is_integer, of_phase;
} settings[] = {
	{ "lr", "optimizer", "lr", offsetof(struct lh_settings, lr), false, false },
	{ "lr_factor", NULL, "lr_factor", offsetof(struct lh_settings, lr_factor), false,
	  true },
	{ "clip", "optimizer", "clip", offsetof(struct lh_settings, clip), false, false },
	{ "weight_decay", "optimizer", "weight_decay",
	  offsetof(struct lh_settings, weight_decay), false, false },
	{ "eval_every", "evaluation", "every_steps",
	  offsetof(struct lh_settings, eval_every_steps), true, false },
	{ "checkpoint_every", "checkpoint", "every_steps",
	  offsetof(struct lh_settings, checkpoint_every_steps), true, false },
	{ "phase_steps", "until", "steps", offsetof(struct lh_settings, phase_steps), true,
	  true },
};
enum { SETTINGS = sizeof(settings) / sizeof(settings[0]) };

#define WEIGHT "weight" /* an object of a change; WEIGHT.SOURCE as a name */

/* ---- values ---------------------------------------------------------------- */

static void *at(struct lh_settings *s, const struct setting *k, int phase)
{
	/* Both kinds of value have eight bytes. */
	return (char *)s + k->offset + (k->of_phase ? (size_t)phase * sizeof(double) : 0);
}

static json_t *get(const struct lh_settings *s, const struct setting *k, int phase)
{
	const void *v = at((struct lh_settings *)s, k, phase);

	return k->is_integer ? json_integer(*(const int64_t *)v) :
			       json_real(*(const double *)v);
}

static void put(struct lh_settings *s, const struct setting *k, int phase,
		const json_t *value)
{
	void *v = at(s, k, phase);

	if (k->is_integer)
		*(int64_t *)v = json_integer_value(value);
	else
		*(double *)v = json_number_value(value);
}

void lh_settings_of_job(struct lh_settings *s, const struct lh_job *job)
{
	*s = (struct lh_settings){
		.phases = job->phase_count,
		.lr = job->optimizer.lr,
		.weight_decay = job->optimizer.weight_decay,
		.clip = job->optimizer.clip,
		.eval_every_steps = job->evaluation.every_steps,
		.checkpoint_every_steps = job->checkpoint.every_steps,
	};
	for (int i = 0; i < job->phase_count; i++) {
		s->lr_factor[i] = job->phases[i].lr_factor;
		s->phase_steps[i] = job->phases[i].until.steps;
	}
	lh_mix_init(&s->mix, job->data.sources, job->data.source_count,
		    (uint64_t)job->data.shuffle_seed);
}

void lh_settings_complete(struct lh_settings *s, const struct lh_job *job)
{
	struct lh_settings of_job;

	lh_settings_of_job(&of_job, job);
	if (s->phases != of_job.phases)
		*s = of_job;
	else if (s->mix.count != of_job.mix.count)
		s->mix = of_job.mix;
}

struct lh_job_until lh_settings_until(const struct lh_settings *s, const struct lh_job *job,
				      int phase)
{
	struct lh_job_until u = job->phases[phase].until;

	u.steps = s->phase_steps[phase];
	return u;
}

int64_t lh_settings_phase_steps(const struct lh_settings *s, const struct lh_job *job,
				int phase)
{
	struct lh_job_until u = lh_settings_until(s, job, phase);

	return lh_jobfile_until_steps(job, &u);
}

bool lh_settings_are_equal(const struct lh_settings *a, const struct lh_settings *b)
{
	json_t *x = lh_settings_to_json(a), *y = lh_settings_to_json(b);
	bool equal = json_equal(x, y);

	json_decref(x);
	json_decref(y);
	return equal;
}

/* ---- a change -------------------------------------------------------------- */

void lh_settings_names(char *text, size_t text_bytes)
{
	*text = '\0';
	for (int i = 0; i < SETTINGS; i++) {
		size_t used = strlen(text);

		snprintf(text + used, text_bytes - used, "%s ", settings[i].name);
	}
	snprintf(text + strlen(text), text_bytes - strlen(text), WEIGHT ".SOURCE");
}

static const struct setting *find(const char *name)
{
	for (int i = 0; i < SETTINGS; i++)
		if (!strcmp(settings[i].name, name))
			return &settings[i];
	return NULL;
}

/* A number as JSON, or NULL. */
static json_t *number_of(bool is_integer, const char *text)
{
	char *end;
	double real;
	long long integer;

	if (!*text || strspn(text, "+-.0123456789eE") != strlen(text))
		return NULL;
	errno = 0;
	if (is_integer) {
		integer = strtoll(text, &end, 10);
		return *end || errno ? NULL : json_integer(integer);
	}
	real = strtod(text, &end);
	return *end || !isfinite(real) ? NULL : json_real(real);
}

static bool is_weight(const char *name)
{
	const size_t head = strlen(WEIGHT ".");

	return !strncmp(name, WEIGHT ".", head) && name[head];
}

/* False: it has a value already. */
static bool put_once_take(json_t *change, const char *name, json_t *value)
{
	json_t *object = change;

	if (is_weight(name)) {
		name += strlen(WEIGHT ".");
		object = json_object_get(change, WEIGHT);
		if (!object)
			json_object_set_new(change, WEIGHT, object = json_object());
	}
	if (json_object_get(object, name)) {
		json_decref(value);
		return false;
	}
	json_object_set_new(object, name, value);
	return true;
}

static int add(json_t *change, const char *name, const char *text, struct lh_err *err)
{
	const struct setting *k = find(name);
	json_t *value = number_of(k && k->is_integer, text);

	if (!value) {
		lh_err_set(err, LH_EINVAL, "%.80s: found '%.80s', %s is needed", name, text,
			   k && k->is_integer ? "an integer" : "a number");
		return lh_err_hint(err, "'lhctl help job' tells what is allowed");
	}
	if (put_once_take(change, name, value))
		return 0;
	lh_err_set(err, LH_EINVAL, "%.80s is set twice", name);
	return lh_err_hint(err, "give it one value");
}

int lh_settings_parse(json_t *change, const char *pair, struct lh_err *err)
{
	size_t n = strcspn(pair, "=");
	char *name = lh_asprintf("%.*s", (int)n, pair), names[160];
	int rc;

	if (pair[n] && (find(name) || is_weight(name))) {
		rc = add(change, name, pair + n + 1, err);
	} else {
		lh_settings_names(names, sizeof(names));
		lh_err_set(err, LH_EINVAL, "'%.80s' sets nothing", pair);
		rc = lh_err_hint(err, "NAME=VALUE, a name of: %s", names);
	}
	free(name);
	return rc;
}

bool lh_settings_is_empty(const json_t *change)
{
	for (int i = 0; i < SETTINGS; i++)
		if (json_object_get(change, settings[i].name))
			return false;
	return !json_object_size(json_object_get(change, WEIGHT));
}

/* The place of a source by its name, or -1. */
static int find_source(const struct lh_job *job, const char *name)
{
	for (int i = 0; i < job->data.source_count; i++)
		if (!strcmp(job->data.sources[i].name, name))
			return i;
	return -1;
}

static int refuse_source(const struct lh_job *job, const char *name, struct lh_err *err)
{
	char names[200] = "";

	lh_err_set(err, LH_EPARAMS, WEIGHT ".%.64s: the job has no such source", name);
	if (!job->data.source_count)
		return lh_err_hint(err, "its data.train is no mixture");
	for (int i = 0; i < job->data.source_count; i++)
		snprintf(names + strlen(names), sizeof(names) - strlen(names), " %s",
			 job->data.sources[i].name);
	return lh_err_hint(err, "it has:%s", names);
}

/* Those that are not named stay. */
static int apply_weights(struct lh_mix *m, const struct lh_job *job, const json_t *change,
			 int64_t cursor, struct lh_err *err)
{
	double weight[LH_SOURCES_MAX];
	const char *name;
	json_t *value;

	memcpy(weight, m->weight, sizeof(weight));
	json_object_foreach ((json_t *)change, name, value) {
		int i = find_source(job, name);

		if (i < 0)
			return refuse_source(job, name, err);
		if (!json_is_number(value)) {
			lh_err_set(err, LH_EPARAMS, WEIGHT ".%.64s is no number", name);
			return lh_err_hint(err, "as in a mixture of data.train");
		}
		weight[i] = json_number_value(value);
	}
	lh_mix_set(m, weight, cursor);
	return 0;
}

int lh_settings_apply(struct lh_settings *s, const struct lh_job *job, const json_t *change,
		      int phase, int64_t cursor, struct lh_err *err)
{
	int rc = apply_weights(&s->mix, job, json_object_get(change, WEIGHT), cursor, err);

	for (int i = 0; !rc && i < SETTINGS; i++) {
		const json_t *value = json_object_get(change, settings[i].name);

		if (value)
			put(s, &settings[i], phase, value);
	}
	return rc;
}

static void describe_one(const char *head, const char *name, const json_t *value, char *text,
			 size_t text_bytes)
{
	size_t used = strlen(text);

	snprintf(text + used, text_bytes - used, "%s%s%s %.10g", used ? ", " : "", head, name,
		 json_number_value(value));
}

void lh_settings_describe(const json_t *change, char *text, size_t text_bytes)
{
	const char *name;
	json_t *value;

	*text = '\0';
	for (int i = 0; i < SETTINGS; i++) {
		value = json_object_get(change, settings[i].name);
		if (value)
			describe_one("", settings[i].name, value, text, text_bytes);
	}
	json_object_foreach (json_object_get(change, WEIGHT), name, value)
		describe_one(WEIGHT ".", name, value, text, text_bytes);
}

/* ---- JSON ------------------------------------------------------------------ */

json_t *lh_settings_to_json(const struct lh_settings *s)
{
	json_t *j = json_object();

	for (int i = 0; i < SETTINGS; i++) {
		const struct setting *k = &settings[i];
		json_t *list;

		if (!k->of_phase) {
			json_object_set_new(j, k->name, get(s, k, 0));
			continue;
		}
		list = json_array();
		for (int p = 0; p < s->phases; p++)
			json_array_append_new(list, get(s, k, p));
		json_object_set_new(j, k->name, list);
	}
	json_object_set_new(j, "mix", lh_mix_to_json(&s->mix));
	return j;
}

/* What any job file could say: totals of it are numbers still. */
static bool is_sane(const struct setting *k, const json_t *value)
{
	if (k->is_integer)
		return json_is_integer(value) && json_integer_value(value) >= 0 &&
		       json_integer_value(value) <= INT64_C(1) << 53;
	return json_is_number(value) && json_number_value(value) >= 0;
}

void lh_settings_from_json(struct lh_settings *s, const json_t *j)
{
	size_t phases = json_array_size(json_object_get(j, "phase_steps"));

	*s = (struct lh_settings){ 0 };
	if (phases < 1 || phases > LH_PHASES_MAX)
		return;
	for (int i = 0; i < SETTINGS; i++) {
		const struct setting *k = &settings[i];
		const json_t *value = json_object_get(j, k->name);
		size_t count = k->of_phase ? phases : 1;

		if (k->of_phase && json_array_size(value) != phases)
			return;
		for (size_t p = 0; p < count; p++) {
			const json_t *one = k->of_phase ? json_array_get(value, p) : value;

			if (!is_sane(k, one))
				return;
			put(s, k, (int)p, one);
		}
	}
	if (lh_mix_from_json(&s->mix, json_object_get(j, "mix")))
		s->phases = (int)phases;
}

/* Into a resolved job. */
static void into_spec(const struct lh_settings *s, json_t *spec)
{
	json_t *phase, *source;
	size_t p;

	for (int i = 0; i < SETTINGS; i++) {
		const struct setting *k = &settings[i];

		if (!k->of_phase) {
			json_object_set_new(json_object_get(spec, k->section), k->key,
					    get(s, k, 0));
			continue;
		}
		json_array_foreach (json_object_get(spec, "phases"), p, phase)
			json_object_set_new(k->section ? json_object_get(phase, k->section) :
							 phase,
					    k->key, get(s, k, (int)p));
	}
	if (s->mix.count)
		json_array_foreach (json_object_get(json_object_get(spec, "data"), "train"),
				    p, source)
			json_object_set_new(source, "weight", json_real(s->mix.weight[p]));
}

int lh_settings_check(const struct lh_settings *s, const json_t *spec, struct lh_err *err)
{
	json_t *as_set = json_deep_copy(spec);
	struct lh_job job = { 0 };
	int rc;

	into_spec(s, as_set);
	rc = lh_jobfile_from_json(&job, as_set, err);
	lh_job_release(&job);
	json_decref(as_set);
	return rc ? err->code = LH_EPARAMS : 0;
}

/* Takes both values. */
static void add_changed_take(json_t *list, const char *setting, const char *phase, json_t *now,
			     json_t *was)
{
	if (!json_equal(now, was))
		json_array_append_new(list, json_pack("{s:s, s:s?, s:O, s:O}", "setting",
						      setting, "phase", phase, "value", now,
						      "file", was));
	json_decref(now);
	json_decref(was);
}

json_t *lh_settings_changed(const struct lh_settings *s, const struct lh_job *job)
{
	struct lh_settings file;
	json_t *list = json_array();
	char name[80];

	lh_settings_of_job(&file, job);
	for (int i = 0; i < SETTINGS; i++) {
		const struct setting *k = &settings[i];

		for (int p = 0; p < (k->of_phase ? job->phase_count : 1); p++)
			add_changed_take(list, k->name,
					 k->of_phase ? job->phases[p].name : NULL,
					 get(s, k, p), get(&file, k, p));
	}
	for (int i = 0; i < file.mix.count; i++) {
		snprintf(name, sizeof(name), WEIGHT ".%s", job->data.sources[i].name);
		add_changed_take(list, name, NULL, json_real(s->mix.weight[i]),
				 json_real(file.mix.weight[i]));
	}
	return list;
}

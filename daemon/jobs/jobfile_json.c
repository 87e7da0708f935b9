/* jobfile_json.c: a resolved job as JSON, for the worker and the store, by the same
 * key table that jobfile.c reads with; what is written here it reads back alike.
 * Pure; any thread. */
#include "jobs/jobfile.h"

#include <stdio.h>
#include <string.h>

#include "jobs/jobfile_int.h"

static json_t *paths_of(const struct lh_job_data *d, int from, int count)
{
	json_t *list = json_array();

	for (int i = from; i < from + count; i++)
		json_array_append_new(list, json_string(d->train[i]));
	return list;
}

static json_t *train_of(const struct lh_job_data *d)
{
	json_t *mixture;
	int from = 0;

	if (!d->source_count)
		return paths_of(d, 0, d->train_count);
	mixture = json_array();
	for (int i = 0; i < d->source_count; i++) {
		const struct lh_job_source *s = &d->sources[i];

		json_array_append_new(mixture, json_pack("{s:s, s:o, s:f}", "name", s->name,
							 "path",
							 paths_of(d, from, s->shards),
							 "weight", s->weight));
		from += s->shards;
	}
	return mixture;
}

static json_t *value_of(const struct lh_key *key, const void *base,
			const struct lh_job *job)
{
	const void *p = (const char *)base + key->offset;
	const struct lh_job_phase *phase = base;
	json_t *list;

	switch (key->type) {
	case LH_KEY_STRING:
	case LH_KEY_PATH:
		return json_string(*(char *const *)p);
	case LH_KEY_INTEGER:
		return json_integer(key->bytes == sizeof(int) ? *(const int *)p :
								*(const int64_t *)p);
	case LH_KEY_NUMBER:
		return json_real(*(const double *)p);
	case LH_KEY_BOOLEAN:
		return json_boolean(*(const bool *)p);
	case LH_KEY_ENUM:
		return json_string(key->names[*(const int *)p]);
	case LH_KEY_PATHS:
		return train_of(&job->data);
	case LH_KEY_SETS:
		return lh__sets_json(key, job);
	case LH_KEY_LAYERS:
		list = json_array();
		for (int i = 0; i < phase->dense_count; i++)
			json_array_append_new(list, json_integer(phase->dense_layers[i]));
		return list;
	}
	LH_BUG("key '%s' has no type", key->path);
}

/* Sets "a.b" in nested objects. */
static void put_path_take(json_t *object, const char *path, json_t *value)
{
	const char *dot = strchr(path, '.');
	char section[64];
	json_t *inner;

	if (!dot) {
		json_object_set_new(object, path, value);
		return;
	}
	snprintf(section, sizeof(section), "%.*s", (int)(dot - path), path);
	inner = json_object_get(object, section);
	if (!inner) {
		inner = json_object();
		json_object_set_new(object, section, inner);
	}
	put_path_take(inner, dot + 1, value);
}

json_t *lh_jobfile_to_json(const struct lh_job *job)
{
	json_t *root = json_object(), *phases = json_array(), *rules = json_array();

	for (int i = 0; i < lh_job_keys_count; i++)
		put_path_take(root, lh_job_keys[i].path,
			      value_of(&lh_job_keys[i], job, job));
	for (int i = 0; i < job->phase_count; i++) {
		const struct lh_job_phase *p = &job->phases[i];
		json_t *phase = json_object();

		for (int k = 0; k < lh_phase_keys_count; k++)
			if (p->attention == LH_ATTENTION_LIGHTHOUSE ||
			    !lh_phase_keys[k].lighthouse)
				put_path_take(phase, lh_phase_keys[k].path,
					      value_of(&lh_phase_keys[k], p, job));
		json_array_append_new(phases, phase);
	}
	json_object_set_new(root, "phases", phases);
	json_object_set_new(root, "rules", rules);
	for (int i = 0; i < job->rule_count; i++) {
		json_t *rule = json_object();

		for (int k = 0; k < lh_rule_keys_count; k++)
			put_path_take(rule, lh_rule_keys[k].path,
				      value_of(&lh_rule_keys[k], &job->rules[i], job));
		json_array_append_new(rules, rule);
	}
	return root;
}

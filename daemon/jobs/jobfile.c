/* jobfile.c: a tree into struct lh_job, driven by the key table.
 *
 * See jobfile.h for the rules, jobfile_tree.c for the tree, jobfile_paths.c for paths
 * and mixtures, jobfile_json.c for the way back, jobfile_check.c for what takes more
 * than one key to tell. */
#include "jobs/jobfile.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/jobfile_int.h"

enum { SETS_MAX = 1000 };

int lh__reader_refuse(const struct lh_reader *r, const struct lh_node *n,
		      const char *path, const struct lh_key *key, const char *allowed)
{
	const char *found = n->kind == LH_NODE_LIST ? "a list" :
			    n->kind == LH_NODE_MAP ? "a section" : n->text;

	lh_err_set(r->err, LH_EJOBFILE, "found '%.80s', %s is allowed", found, allowed);
	lh_err_hint(r->err, "%s: %s", key->path, key->doc);
	return lh_node_blame(n, path, r->err);
}

static void *field(void *base, const struct lh_key *key)
{
	return (char *)base + key->offset;
}

static bool is_one_of(const char *text, const char *const *words)
{
	while (*words && strcmp(text, *words))
		words++;
	return *words;
}

bool lh_node_is_text(const struct lh_node *n)
{
	static const char *const words[] = { "", "~", "null", "true", "false", NULL };

	return n->kind == LH_NODE_SCALAR && (n->quoted || !is_one_of(n->text, words));
}

/* ---- one value ------------------------------------------------------------- */

/* Decimal, with one spelling a number: YAML readers disagree about 010. */
static bool is_integer(const char *text)
{
	const char *digits = text + (*text == '-');

	return *digits && strspn(digits, "0123456789") == strlen(digits) &&
	       (*digits != '0' || !strcmp(text, "0"));
}

static int read_integer(const struct lh_reader *r, const struct lh_node *n,
			const char *path, const struct lh_key *key, void *out)
{
	char allowed[96];
	long long v;

	if (key->max == INT64_C(1) << 53)
		snprintf(allowed, sizeof(allowed), "an integer from %" PRId64, key->min);
	else
		snprintf(allowed, sizeof(allowed), "an integer from %" PRId64 " to %" PRId64,
			 key->min, key->max);
	if (n->kind != LH_NODE_SCALAR || n->quoted || !is_integer(n->text))
		return lh__reader_refuse(r, n, path, key, allowed);
	errno = 0;
	v = strtoll(n->text, NULL, 10);
	if (errno || v < key->min || v > key->max)
		return lh__reader_refuse(r, n, path, key, allowed);
	if (key->bytes == sizeof(int))
		*(int *)out = (int)v;
	else
		*(int64_t *)out = v;
	return 0;
}

int lh__read_number(const struct lh_reader *r, const struct lh_node *n, const char *path,
		    const struct lh_key *key, void *out)
{
	char allowed[96], *end;
	double v;

	snprintf(allowed, sizeof(allowed), "a number from %g to %g", key->min_number,
		 key->max_number);
	if (n->kind != LH_NODE_SCALAR || n->quoted || !*n->text ||
	    strspn(n->text, "+-.0123456789eE") != strlen(n->text))
		return lh__reader_refuse(r, n, path, key, allowed);
	v = strtod(n->text, &end);
	if (*end || !isfinite(v) || v < key->min_number || v > key->max_number)
		return lh__reader_refuse(r, n, path, key, allowed);
	*(double *)out = v;
	return 0;
}

static int read_boolean(const struct lh_reader *r, const struct lh_node *n,
			const char *path, const struct lh_key *key, void *out)
{
	bool yes = n->kind == LH_NODE_SCALAR && !n->quoted && !strcmp(n->text, "true");

	if (!yes && (n->kind != LH_NODE_SCALAR || n->quoted || strcmp(n->text, "false")))
		return lh__reader_refuse(r, n, path, key, "true or false");
	*(bool *)out = yes;
	return 0;
}

static int read_enum(const struct lh_reader *r, const struct lh_node *n, const char *path,
		     const struct lh_key *key, void *out)
{
	char allowed[160] = "";

	for (int i = 0; key->names[i]; i++) {
		if (n->kind == LH_NODE_SCALAR && !strcmp(n->text, key->names[i])) {
			*(int *)out = i;
			return 0;
		}
		if (i)
			strcat(allowed, key->names[i + 1] ? ", " : " or ");
		strcat(allowed, key->names[i]);
	}
	return lh__reader_refuse(r, n, path, key, allowed);
}

int lh__read_string(const struct lh_reader *r, const struct lh_node *n, const char *path,
		    const struct lh_key *key, char **out)
{
	char allowed[96];

	snprintf(allowed, sizeof(allowed), "a text of %s%zu bytes",
		 key->required ? "1 to " : "at most ", key->max_bytes);
	if (!lh_node_is_text(n) || strlen(n->text) > key->max_bytes ||
	    (key->required && !*n->text))
		return lh__reader_refuse(r, n, path, key, allowed);
	free(*out);
	*out = lh_strdup(n->text);
	return 0;
}

static int read_layers(const struct lh_reader *r, const struct lh_node *n, const char *path,
		       const struct lh_key *key, struct lh_job_phase *p, int layers)
{
	bool dense[LH_LAYERS_MAX] = { false };
	struct lh_key one = *key;
	int rc, layer;

	one.min = -layers;
	one.max = layers - 1;
	one.bytes = sizeof(int);
	if (n->kind != LH_NODE_LIST)
		return lh__reader_refuse(r, n, path, key,
					 "a list of layers, as in [0, 1, -2, -1]");
	for (int i = 0; i < n->count; i++) {
		rc = read_integer(r, n->child[i], path, &one, &layer);
		if (rc)
			return rc;
		dense[layer < 0 ? layer + layers : layer] = true;
	}
	p->dense_count = 0;
	for (int i = 0; i < layers; i++)
		if (dense[i])
			p->dense_layers[p->dense_count++] = i;
	return 0;
}

/* `base` is the job, or the phase whose job is `job`. */
static int read_value(const struct lh_reader *r, const struct lh_node *n, const char *path,
		      const struct lh_key *key, void *base, struct lh_job *job)
{
	switch (key->type) {
	case LH_KEY_STRING:
		return lh__read_string(r, n, path, key, field(base, key));
	case LH_KEY_INTEGER:
		return read_integer(r, n, path, key, field(base, key));
	case LH_KEY_NUMBER:
		return lh__read_number(r, n, path, key, field(base, key));
	case LH_KEY_BOOLEAN:
		return read_boolean(r, n, path, key, field(base, key));
	case LH_KEY_ENUM:
		return read_enum(r, n, path, key, field(base, key));
	case LH_KEY_PATH:
		return lh__read_path(r, n, path, key, field(base, key));
	case LH_KEY_PATHS:
		return lh__read_paths(r, n, path, key, &job->data);
	case LH_KEY_SETS:
		return lh__read_sets(r, n, path, key, job);
	case LH_KEY_LAYERS:
		return read_layers(r, n, path, key, base, job->model.layers);
	}
	LH_BUG("key '%s' has no type", key->path);
}

/* ---- unknown keys ---------------------------------------------------------- */

static int distance(const char *a, const char *b)
{
	int row[128], n = (int)strlen(b);

	if (n > 120 || strlen(a) > 120)
		return 1000;
	for (int j = 0; j <= n; j++)
		row[j] = j;
	for (int i = 1; a[i - 1]; i++) {
		int diagonal = row[0];

		row[0] = i;
		for (int j = 1; j <= n; j++) {
			int best = diagonal + (a[i - 1] != b[j - 1]);

			best = row[j] + 1 < best ? row[j] + 1 : best;
			best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[n];
}

static bool known(const struct lh_key *keys, int count, const char *path, bool *section)
{
	size_t n = strlen(path);

	*section = false;
	for (int i = 0; i < count; i++) {
		if (!strcmp(keys[i].path, path))
			return true;
		*section |= !strncmp(keys[i].path, path, n) && keys[i].path[n] == '.';
	}
	return *section;
}

static int refuse_unknown(const struct lh_reader *r, const struct lh_node *n,
			  const struct lh_key *keys, int count, const char *path)
{
	char *shown = lh_asprintf("%s%.100s", r->prefix, path);
	int best = 0;

	for (int k = 1; k < count; k++)
		if (distance(keys[k].path, path) < distance(keys[best].path, path))
			best = k;
	lh_err_set(r->err, LH_EJOBFILE, "there is no such key");
	if (strchr(n->key, '.'))
		lh_err_hint(r->err, "keys of a section stand inside it, as in "
			    "checkpoint: { keep: 3 }; dots are for --set");
	else
		lh_err_hint(r->err, "did you mean '%s'? 'lhctl help job' lists all keys",
			    keys[best].path);
	lh_node_blame(n, shown, r->err);
	free(shown);
	return r->err->code;
}

static int refuse_no_section(const struct lh_reader *r, const struct lh_node *n,
			     const char *path)
{
	char *shown = lh_asprintf("%s%s", r->prefix, path);

	lh_err_set(r->err, LH_EJOBFILE, "found '%.80s', a section of keys is allowed",
		   n->kind == LH_NODE_LIST ? "a list" : n->text);
	lh_err_hint(r->err, "'lhctl help job' lists the keys of '%s'", path);
	lh_node_blame(n, shown, r->err);
	free(shown);
	return r->err->code;
}

/* Every key of the tree under `n` is in the table, one level a section: a key
 * "a.b" would match the table and yet never be read. `skip`: keys that are read
 * elsewhere; NULL: none. */
static int check_known(const struct lh_reader *r, const struct lh_node *n,
		       const struct lh_key *keys, int count, const char *prefix,
		       const char *const *skip)
{
	for (int i = 0; i < n->count; i++) {
		const struct lh_node *c = n->child[i];
		char *path = lh_asprintf("%s%s", prefix, c->key), *inner;
		bool section;
		int rc = 0;

		if (skip && is_one_of(path, skip)) {
			free(path);
			continue;
		}
		if (strchr(c->key, '.') || !known(keys, count, path, &section)) {
			rc = refuse_unknown(r, c, keys, count, path);
		} else if (section && c->kind == LH_NODE_MAP) {
			inner = lh_asprintf("%s.", path);
			rc = check_known(r, c, keys, count, inner, NULL);
			free(inner);
		} else if (section) {
			rc = refuse_no_section(r, c, path);
		}
		free(path);
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- sections -------------------------------------------------------------- */

/* Exactly the node of a path, or NULL. */
static const struct lh_node *exact(const struct lh_node *root, const char *path)
{
	char part[64];

	while (root && *path) {
		size_t n = strcspn(path, ".");

		snprintf(part, sizeof(part), "%.*s", (int)n, path);
		root = lh_node_get(root, part);
		path += n + (path[n] == '.');
	}
	return root;
}

static const char *preset_value(const char *preset, const char *path)
{
	for (const struct lh_preset *p = lh_presets; p->name; p++)
		if (!strcmp(p->name, preset) && !strcmp(p->path, path))
			return p->value;
	return NULL;
}

/* The value a key has when the file does not give it. */
static int read_fallback(const struct lh_reader *r, const struct lh_key *key, void *base,
			 struct lh_job *job, const struct lh_node *section,
			 const char *path)
{
	const char *value = key->fallback;
	struct lh_node n = { .kind = LH_NODE_SCALAR };
	int rc;

	if (!strncmp(key->path, "model.", 6) && job->model.preset) {
		const char *p = preset_value(job->model.preset, key->path);

		value = p ? p : value;
	}
	if (key->required && !*value) {
		lh_err_set(r->err, LH_EJOBFILE, "the key is missing");
		lh_err_hint(r->err, "%s: %s", key->path, key->doc);
		return lh_node_blame(section, path, r->err);
	}
	if (key->type == LH_KEY_LAYERS)
		return 0;
	n.text = lh_strdup(value);
	n.quoted = key->type == LH_KEY_STRING || key->type == LH_KEY_PATH ||
		   key->type == LH_KEY_SETS;
	rc = read_value(r, &n, path, key, base, job);
	free(n.text);
	return rc;
}

static int read_keys(const struct lh_reader *r, const struct lh_node *section,
		     const struct lh_key *keys, int count, void *base,
		     struct lh_job *job)
{
	for (int i = 0; i < count; i++) {
		const struct lh_node *n = exact(section, keys[i].path);
		char *path = lh_asprintf("%s%s", r->prefix, keys[i].path);
		int rc = n ? read_value(r, n, path, &keys[i], base, job) :
			     read_fallback(r, &keys[i], base, job, section, path);

		free(path);
		if (rc)
			return rc;
	}
	return 0;
}

/* `devices: all` is one until a place is found for the job. */
static void expand_devices(struct lh_node *root, struct lh_job *job)
{
	struct lh_node *n = lh_node_get(root, "devices");

	if (!n || n->kind != LH_NODE_SCALAR || strcmp(n->text, "all"))
		return;
	free(n->text);
	n->text = lh_strdup("1");
	job->all_devices = true;
}

/* `until: manual` is short for `until: { manual: true }`. */
static void expand_until(struct lh_node *phase)
{
	struct lh_node *until = lh_node_get(phase, "until"), *manual;

	if (!until || until->kind != LH_NODE_SCALAR || strcmp(until->text, "manual"))
		return;
	manual = lh_calloc(1, sizeof(*manual));
	manual->line = until->line;
	manual->origin = until->origin;
	manual->text = lh_strdup("true");
	until->kind = LH_NODE_MAP;
	free(until->text);
	until->text = NULL;
	lh_node_put_take(until, "manual", manual);
}

static int read_phase(const struct lh_reader *outer, struct lh_node *n, struct lh_job *job,
		      int i)
{
	char prefix[32];
	struct lh_reader r = *outer;
	int rc;

	snprintf(prefix, sizeof(prefix), "phases.%d.", i);
	r.prefix = prefix;
	if (n->kind != LH_NODE_MAP) {
		lh_err_set(r.err, LH_EJOBFILE, "a phase is a section of keys");
		lh_err_hint(r.err, "- { name: recovery, attention: full, until: { "
				   "steps: 1000 } }");
		return lh_node_blame(n, "phases", r.err);
	}
	expand_until(n);
	rc = check_known(&r, n, lh_phase_keys, lh_phase_keys_count, "", NULL);
	if (rc)
		return rc;
	job->phase_count++; /* what is half read is released too */
	rc = read_keys(&r, n, lh_phase_keys, lh_phase_keys_count, &job->phases[i], job);
	job->phases[i].lighthouse.tokens = job->data.seq_len;
	return rc;
}

static int read_phases(const struct lh_reader *r, struct lh_job *job)
{
	const struct lh_node *list = lh_node_get(r->root, "phases");

	if (!list || list->kind != LH_NODE_LIST || !list->count ||
	    list->count > LH_PHASES_MAX) {
		lh_err_set(r->err, LH_EJOBFILE, "a list of 1 to %d phases is needed",
			   LH_PHASES_MAX);
		lh_err_hint(r->err, "- { name: recovery, attention: full, until: { "
				    "steps: 1000 } }");
		return lh_node_blame(list ? list : r->root, "phases", r->err);
	}
	for (int i = 0; i < list->count; i++) {
		int rc = read_phase(r, list->child[i], job, i);

		if (rc)
			return rc;
	}
	return 0;
}

static int read_rule(const struct lh_reader *outer, const struct lh_node *n,
		     struct lh_job *job, int i)
{
	char prefix[32];
	struct lh_reader r = *outer;
	int rc;

	snprintf(prefix, sizeof(prefix), "rules.%d.", i);
	r.prefix = prefix;
	if (n->kind != LH_NODE_MAP) {
		lh_err_set(r.err, LH_EJOBFILE, "a rule is a section of keys");
		lh_err_hint(r.err, "- { name: flat, when: 'improvement(500) < 0.005', do: "
				   "switch recovery }");
		return lh_node_blame(n, "rules", r.err);
	}
	rc = check_known(&r, n, lh_rule_keys, lh_rule_keys_count, "", NULL);
	if (rc)
		return rc;
	job->rule_count++; /* what is half read is released too */
	return read_keys(&r, n, lh_rule_keys, lh_rule_keys_count, &job->rules[i], job);
}

static int read_rules(const struct lh_reader *r, struct lh_job *job)
{
	const struct lh_node *list = lh_node_get(r->root, "rules");

	if (list && (list->kind != LH_NODE_LIST || list->count > LH_RULES_MAX)) {
		lh_err_set(r->err, LH_EJOBFILE, "a list of at most %d rules is allowed",
			   LH_RULES_MAX);
		lh_err_hint(r->err, "- { name: flat, when: 'improvement(500) < 0.005', do: "
				    "switch recovery }");
		return lh_node_blame(list, "rules", r->err);
	}
	for (int i = 0; list && i < list->count; i++) {
		int rc = read_rule(r, list->child[i], job, i);

		if (rc)
			return rc;
	}
	return 0;
}

static int check_preset(const struct lh_reader *r, const struct lh_job *job)
{
	char all[200] = "";

	for (const struct lh_preset *p = lh_presets; p->name; p++) {
		if (!strcmp(p->name, job->model.preset))
			return 0;
		if (!strstr(all, p->name)) {
			strcat(all, *all ? ", " : "");
			strcat(all, p->name);
		}
	}
	if (!*job->model.preset)
		return 0;
	lh_err_set(r->err, LH_EJOBFILE, "found '%.80s', one of %s is allowed",
		   job->model.preset, all);
	lh_err_hint(r->err, "without a preset every dimension is given by hand");
	return lh_node_blame(exact(r->root, "model.preset"), "model.preset", r->err);
}

int lh_jobfile_read(struct lh_job *job, const struct lh_node *root,
		    const char *base_dir, struct lh_err *err)
{
	struct lh_reader r = { root, base_dir, "", err };
	const struct lh_node *preset = exact(root, "model.preset");
	int rc;

	if (root->kind != LH_NODE_MAP) {
		lh_err_set(err, LH_EJOBFILE, "a job file is a section of keys");
		lh_err_hint(err, "'lhctl help job' lists all keys");
		return lh_node_blame(root, "", err);
	}
	rc = check_known(&r, root, lh_job_keys, lh_job_keys_count, "",
			 (const char *const[]){ "phases", "rules", NULL });
	if (rc)
		return rc;
	/* The preset decides what other keys fall back to. */
	if (preset && preset->text)
		job->model.preset = lh_strdup(preset->text);
	if (job->model.preset)
		rc = check_preset(&r, job);
	if (!rc)
		rc = read_keys(&r, root, lh_job_keys, lh_job_keys_count, job, job);
	if (rc)
		return rc;
	if (!job->model.kv_heads)
		job->model.kv_heads = job->model.heads;
	if (!job->model.head_dim && job->model.dim % job->model.heads == 0)
		job->model.head_dim = (int)(job->model.dim / job->model.heads);
	rc = read_phases(&r, job);
	return rc ? rc : read_rules(&r, job);
}

/* ---- public ---------------------------------------------------------------- */

/* Each may add a key that the next is compared with. */
static int check_set_count(const struct lh_jobfile_source *src, struct lh_err *err)
{
	if (src->set_count <= SETS_MAX)
		return 0;
	lh_err_set(err, LH_EJOBFILE, "found %d overrides, at most %d are allowed",
		   src->set_count, SETS_MAX);
	return lh_err_hint(err, "write them into the job file");
}

/* The tree of the file and its overrides. */
static int read_tree(struct lh_node **root, const struct lh_jobfile_source *src,
		     struct lh_err *err)
{
	int rc = check_set_count(src, err);

	if (!rc)
		rc = lh_node_from_yaml(root, src->yaml, src->yaml_bytes,
				       src->file ? src->file : "job file", err);
	for (int i = 0; !rc && i < src->set_count; i++)
		rc = (*root)->kind == LH_NODE_MAP ?
			     lh_node_override(*root, src->set[i], err) : 0;
	return rc;
}

int lh_jobfile_load(struct lh_job *job, const struct lh_jobfile_source *src,
		    struct lh_err *err)
{
	struct lh_node *root = NULL;
	json_t *from = NULL;
	int rc = read_tree(&root, src, err);

	if (!rc)
		rc = lh_jobfile_fill_from(root, src->base_dir, &from, err);
	if (!rc)
		expand_devices(root, job);
	if (!rc)
		rc = lh_jobfile_read(job, root, src->without_data ? NULL : src->base_dir,
				     err);
	if (!rc)
		rc = lh_jobfile_check(job, root, err);
	if (!rc)
		rc = lh_jobfile_check_names(job, root, err);
	if (!rc && from)
		rc = lh_jobfile_check_from(job, from, root, err);
	if (!rc && !src->without_data)
		rc = lh_jobfile_check_data(job, root, err);
	if (rc)
		lh_job_release(job);
	json_decref(from);
	lh_node_free(root);
	return rc;
}

/* Sections that job files had once. Jobs and checkpoints of then are still read. */
static const char *const retired[] = { "instability" };

int lh_jobfile_from_json(struct lh_job *job, const json_t *json, struct lh_err *err)
{
	json_t *known = json_copy((json_t *)json);
	struct lh_node *root;
	int rc;

	for (size_t i = 0; i < sizeof(retired) / sizeof(*retired); i++)
		json_object_del(known, retired[i]);
	root = lh_node_from_json(known);
	json_decref(known);
	rc = lh_jobfile_read(job, root, NULL, err);

	if (!rc)
		rc = lh_jobfile_check(job, root, err);
	if (rc)
		lh_job_release(job);
	lh_node_free(root);
	return rc;
}

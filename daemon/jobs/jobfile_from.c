/* jobfile_from.c: a job that starts from the weights of a checkpoint (model.from): its
 * model is that of the weights, and what the file says otherwise must fit them. So is
 * its tokenizer, if that is a file and the job names none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/jobfile.h"
#include "jobs/jobfile_int.h"
#include "train/manifest.h"

/* Two models that agree in these have the same tensors. */
static const char *const shape[] = { "vocab", "dim", "layers", "heads", "kv_heads",
				     "head_dim", "ffn_dim", "tied", "qkv_bias", "qk_norm" };

/* A text of the model section that is given and not empty, or NULL; what is no text
 * is refused when it is read. */
static const struct lh_node *given(const struct lh_node *section, const char *key)
{
	const struct lh_node *n = lh_node_get(section, key);

	return n && lh_node_is_text(n) && *n->text ? n : NULL;
}

static int blame(const struct lh_node *from, struct lh_err *err)
{
	err->code = LH_EDATA;
	return lh_node_blame(from, "model.from", err);
}

/* *model: of the weights; *tokenizer: the file of its ids, NULL where there is none. */
static int read_from(const struct lh_node *from, const char *base_dir, json_t **model,
		     char **tokenizer, struct lh_err *err)
{
	char *path = *from->text == '/' || !base_dir ?
		lh_strdup(from->text) : lh_asprintf("%s/%s", base_dir, from->text);
	json_t *manifest = NULL;

	if (lh_manifest_read(path, &manifest, err)) {
		lh_err_hint(err, "it names the directory of a checkpoint; 'lhctl import' makes "
			    "one of a model of Hugging Face");
	} else {
		json_t *job = json_object_get(manifest, "job");
		const char *text = json_string_value(json_object_get(
			json_object_get(job, "data"), "tokenizer"));

		*model = json_incref(json_object_get(job, "model"));
		*tokenizer = text && *text == '/' ? lh_strdup(text) : NULL;
		if (!json_is_object(*model))
			lh_err_set(err, LH_EDATA, "the manifest in '%s' tells of no model",
				   path);
	}
	json_decref(manifest);
	free(path);
	return json_is_object(*model) ? 0 : blame(from, err);
}

/* What the file does not give, section by section. */
static void fill_in(struct lh_node *section, const json_t *values, const struct lh_node *from)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)values, key, value) {
		struct lh_node *n = lh_node_get(section, key);

		if (!n) {
			n = lh_node_from_json(value);
			n->line = from->line;
			n->origin = from->origin;
			lh_node_put_take(section, key, n);
		} else if (n->kind == LH_NODE_MAP && json_is_object(value)) {
			fill_in(n, value, from);
		}
	}
}

static void fill_tokenizer(struct lh_node *root, const char *tokenizer,
			   const struct lh_node *from)
{
	json_t *data = json_pack("{s:s}", "tokenizer", tokenizer);
	struct lh_node *section = lh_node_get(root, "data");

	if (section && section->kind == LH_NODE_MAP)
		fill_in(section, data, from);
	json_decref(data);
}

int lh_jobfile_fill_from(struct lh_node *root, const char *base_dir, json_t **model,
			 struct lh_err *err)
{
	struct lh_node *section = lh_node_get(root, "model");
	const struct lh_node *from = given(section, "from"), *preset = given(section, "preset");
	char *tokenizer = NULL;
	int rc;

	*model = NULL;
	if (!from)
		return 0;
	if (preset) {
		lh_err_set(err, LH_EJOBFILE, "a preset and model.from are given");
		lh_err_hint(err, "without the preset the dimensions are those of the weights");
		return lh_node_blame(preset, "model.preset", err);
	}
	rc = read_from(from, base_dir, model, &tokenizer, err);
	if (rc) {
		free(tokenizer);
		return rc;
	}
	json_object_del(*model, "preset");
	json_object_del(*model, "from");
	fill_in(section, *model, from);
	if (tokenizer)
		fill_tokenizer(root, tokenizer, from);
	free(tokenizer);
	return 0;
}

int lh_jobfile_check_from(const struct lh_job *job, const json_t *model,
			  const struct lh_node *root, struct lh_err *err)
{
	json_t *spec = lh_jobfile_to_json(job), *have = json_object_get(spec, "model");
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(shape) / sizeof(*shape); i++) {
		json_t *ours = json_object_get(have, shape[i]);
		json_t *theirs = json_object_get(model, shape[i]);
		char path[40], *a, *b;

		if (!theirs || json_equal(ours, theirs))
			continue;
		a = json_dumps(ours, JSON_ENCODE_ANY);
		b = json_dumps(theirs, JSON_ENCODE_ANY | JSON_COMPACT);
		lh_err_set(err, LH_EJOBFILE, "found %s, the weights of model.from have %.80s", a,
			   b);
		lh_err_hint(err, "leave it out");
		snprintf(path, sizeof(path), "model.%s", shape[i]);
		rc = lh_node_blame(lh_node_find(root, path), path, err);
		free(a);
		free(b);
	}
	json_decref(spec);
	return rc;
}

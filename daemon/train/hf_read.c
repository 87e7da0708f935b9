/* hf_read.c: a job of somebody's config.json; see hf_int.h.
 *
 * Numbers are taken over as they stand and judged by the job file's own table of
 * types and ranges. What is judged here is what a family computes that ours does not:
 * a model that would load and be another one is refused. */
#include "train/hf_int.h"

#include <math.h>
#include <string.h>

#include "jobs/jobfile.h"

static const struct family {
	const char *type, *class;
	bool has_window;      /* sliding_window counts unless it is null */
	bool qkv_bias, qk_norm;
	/* Keys whose default is a number of its own. */
	const char *needs[3];
} families[] = {
	{ "llama", "LlamaForCausalLM", false, false, false, { NULL } },
	{ "mistral", "MistralForCausalLM", true, false, false, { "num_key_value_heads" } },
	{ "qwen2", "Qwen2ForCausalLM", false, true, false, { "num_key_value_heads" } },
	{ "qwen3", "Qwen3ForCausalLM", false, false, true,
	  { "num_key_value_heads", "head_dim" } },
};

/* NULL for what is null, too. */
static json_t *get(const json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	return json_is_null(v) ? NULL : v;
}

static int refuse(struct lh_err *err, const char *what, const char *hint)
{
	lh_err_set(err, LH_EUNSUPPORTED, "%s", what);
	return lh_err_hint(err, "%s", hint);
}

static const struct family *family_of(const json_t *config, struct lh_err *err)
{
	const char *type = json_string_value(get(config, "model_type"));
	size_t n = sizeof(families) / sizeof(*families);
	char all[200] = "";

	for (size_t i = 0; i < n; i++) {
		if (type && !strcmp(families[i].type, type))
			return &families[i];
		strcat(strcat(all, i ? ", " : ""), families[i].type);
	}
	lh_err_set(err, LH_EUNSUPPORTED, "'model_type' is '%.60s'", type ? type : "");
	lh_err_hint(err, "these can be trained here: %s", all);
	return NULL;
}

/* ---- what ours does not compute -------------------------------------------- */

/* Newer versions say of each layer what it attends to. */
static bool has_partial_layers(const json_t *config)
{
	json_t *types = get(config, "layer_types"), *type;
	size_t i;

	json_array_foreach (types, i, type) {
		const char *name = json_string_value(type);

		if (!name || strcmp(name, "full_attention"))
			return true;
	}
	return false;
}

static int check_family(const struct family *f, const json_t *config, struct lh_err *err)
{
	const char *act = json_string_value(get(config, "hidden_act"));
	json_t *ropes = get(config, "rope_parameters");
	json_t *rotary = get(get(ropes, "partial_rotary_factor") ? ropes : config,
			     "partial_rotary_factor");

	if (act && strcmp(act, "silu") && strcmp(act, "swish"))
		return refuse(err, "'hidden_act' is not silu", "the FFN here is SwiGLU");
	if (get(config, "quantization_config"))
		return refuse(err, "the weights are quantized",
			      "import the model they were made from");
	if (rotary && json_number_value(rotary) != 1)
		return refuse(err, "'partial_rotary_factor' is not 1",
			      "whole heads are rotated here");
	if (json_is_true(get(config, "mlp_bias")) || json_is_true(get(config, "attention_bias")))
		return refuse(err, "its linear maps have biases",
			      "attention_bias and mlp_bias are false in what is trained here");
	if ((f->has_window && get(config, "sliding_window")) ||
	    json_is_true(get(config, "use_sliding_window")) || has_partial_layers(config))
		return refuse(err, "attention is not full: it has a sliding window",
			      "set sliding_window to null, use_sliding_window to false and "
			      "layer_types to null in config.json to train it with full or "
			      "Lighthouse attention from here on");
	for (int i = 0; f->needs[i]; i++)
		if (!get(config, f->needs[i]))
			return lh_err_set(err, LH_ECORRUPT, "'%s' is missing", f->needs[i]);
	return 0;
}

/* ---- numbers --------------------------------------------------------------- */

/* model.OURS <- config.THEIRS, or nothing for what the job's default is right for. */
static int take(json_t *model, const char *ours, const json_t *config, const char *theirs,
		bool required, struct lh_err *err)
{
	json_t *v = get(config, theirs);

	if (v)
		json_object_set(model, ours, v);
	else if (required)
		return lh_err_set(err, LH_ECORRUPT, "'%s' is missing", theirs);
	return 0;
}

static double mscale(double factor, double m)
{
	return factor > 1 ? 0.1 * m * log(factor) + 1 : 1;
}

/* Of yarn: by factor, or by two numbers of DeepSeek. */
static int take_attention_factor(json_t *ours, const json_t *theirs, struct lh_err *err)
{
	double factor = json_number_value(get(theirs, "factor"));
	double m = json_number_value(get(theirs, "mscale"));
	double all = json_number_value(get(theirs, "mscale_all_dim"));

	if (json_is_false(get(theirs, "truncate")))
		return refuse(err, "'truncate' of its yarn is false",
			      "the bounds between pairs are whole numbers here");
	take(ours, "attention_factor", theirs, "attention_factor", false, err);
	if (!get(theirs, "attention_factor") && m != 0 && all != 0)
		json_object_set_new(ours, "attention_factor",
				    json_real(mscale(factor, m) / mscale(factor, all)));
	return 0;
}

/* model.rope_scaling of their section. */
static int take_scaling(json_t *model, const json_t *config, const json_t *theirs,
			const char *type, struct lh_err *err)
{
	json_t *ours = json_object();
	int rc = take(ours, "factor", theirs, "factor", true, err);

	json_object_set_new(model, "rope_scaling", ours);
	json_object_set_new(ours, "type", json_string(type));
	if (rc || !strcmp(type, "linear"))
		return rc;
	/* Without it yarn means the context that the config tells of. */
	take(ours, "original_tokens", get(theirs, "original_max_position_embeddings") ?
	     theirs : config, get(theirs, "original_max_position_embeddings") ?
	     "original_max_position_embeddings" : "max_position_embeddings", false, err);
	if (!strcmp(type, "yarn")) {
		take(ours, "beta_fast", theirs, "beta_fast", false, err);
		take(ours, "beta_slow", theirs, "beta_slow", false, err);
		return take_attention_factor(ours, theirs, err);
	}
	rc = take(ours, "low_freq_factor", theirs, "low_freq_factor", true, err);
	return rc ? rc : take(ours, "high_freq_factor", theirs, "high_freq_factor", true, err);
}

/* rope_theta and rope_scaling; newer versions have both in rope_parameters. */
static int take_rope(json_t *model, const json_t *config, struct lh_err *err)
{
	static const char *const known[] = { "linear", "llama3", "yarn" };
	json_t *theirs = get(config, "rope_parameters");
	const char *type;

	take(model, "rope_theta", get(theirs, "rope_theta") ? theirs : config, "rope_theta",
	     false, err);
	if (!theirs)
		theirs = get(config, "rope_scaling");
	type = json_string_value(get(theirs, get(theirs, "rope_type") ? "rope_type" : "type"));
	if (!theirs || (type && !strcmp(type, "default")))
		return 0;
	for (size_t i = 0; type && i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(known[i], type))
			return take_scaling(model, config, theirs, type, err);
	lh_err_set(err, LH_EUNSUPPORTED, "'rope_scaling' is of type '%.60s'", type ? type : "");
	return lh_err_hint(err, "linear, llama3 and yarn are computed here");
}

static int take_numbers(json_t *model, const json_t *config, struct lh_err *err)
{
	static const struct {
		const char *ours, *theirs;
		bool required;
	} keys[] = {
		{ "vocab", "vocab_size", true },
		{ "dim", "hidden_size", true },
		{ "layers", "num_hidden_layers", true },
		{ "heads", "num_attention_heads", true },
		{ "kv_heads", "num_key_value_heads", false },
		{ "head_dim", "head_dim", false },
		{ "ffn_dim", "intermediate_size", true },
		{ "tied", "tie_word_embeddings", false },
		{ "init_std", "initializer_range", false },
	};
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(keys) / sizeof(*keys); i++)
		rc = take(model, keys[i].ours, config, keys[i].theirs, keys[i].required, err);
	json_object_set(model, "norm_eps", get(config, "rms_norm_eps"));
	if (!get(config, "rms_norm_eps")) /* the default of all families */
		json_object_set_new(model, "norm_eps", json_real(1e-6));
	return rc ? rc : take_rope(model, config, err);
}

/* A job must have data and an end; this one is never run. */
static json_t *spec_of_take(json_t *model, const json_t *config)
{
	json_t *tokens = get(config, "max_position_embeddings");
	json_int_t most = 1 << 24, seq_len = json_integer_value(tokens);

	return json_pack("{s:s, s:o, s:{s:[s], s:s, s:I}, s:{s:i}, s:{s:f}, "
			 "s:[{s:s, s:s, s:{s:b}}]}",
			 "name", "import", "model", model, "data", "train", "none",
			 "tokenizer", "none", "seq_len", seq_len > most ? most : seq_len,
			 "batch", "sequences", 1, "optimizer", "lr", 0.0, "phases", "name",
			 "import", "attention", "full", "until", "manual", true);
}

int lh_hf_job_of(struct lh_job *job, const char **class, const json_t *config,
		 struct lh_err *err)
{
	const struct family *f = family_of(config, err);
	json_t *model = json_object(), *spec;
	int rc = f ? check_family(f, config, err) : err->code;

	if (!rc)
		rc = take_numbers(model, config, err);
	if (!rc) {
		json_object_set_new(model, "qkv_bias", json_boolean(f->qkv_bias));
		json_object_set_new(model, "qk_norm", json_boolean(f->qk_norm));
	}
	spec = spec_of_take(model, config);
	LH_ASSERT(spec);
	if (!rc && lh_jobfile_from_json(job, spec, err)) {
		rc = err->code = LH_EUNSUPPORTED;
		lh_err_prefix(err, "as the model of a job");
	}
	if (!rc)
		*class = f->class;
	json_decref(spec);
	return rc ? lh_err_prefix(err, "'" LH_HF_CONFIG "'") : 0;
}

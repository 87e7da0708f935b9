/* hf_config.c: config.json and what we call its numbers; see hf_int.h. */
#include "train/hf_int.h"

#include <math.h>

#include "lighthouse/shard.h"

/* ---- theirs of ours -------------------------------------------------------- */

/* The family that computes exactly this model. */
static const struct {
	bool qkv_bias, qk_norm;
	const char *type, *class;
} families[] = {
	{ false, false, "llama", "LlamaForCausalLM" },
	{ true, false, "qwen2", "Qwen2ForCausalLM" },
	{ false, true, "qwen3", "Qwen3ForCausalLM" },
};

/* Its place in the list, or -1. */
static int family_of(const struct lh_job_model *c)
{
	for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++)
		if (families[i].qkv_bias == c->qkv_bias && families[i].qk_norm == c->qk_norm)
			return (int)i;
	return -1;
}

int lh_hf_class(const struct lh_job_model *c, const char **name, struct lh_err *err)
{
	int i = family_of(c);

	if (i < 0) {
		lh_err_set(err, LH_EUNSUPPORTED, "no family of transformers has qkv_bias and "
			   "qk_norm");
		return lh_err_hint(err, "Qwen2 has the one, Qwen3 the other");
	}
	*name = families[i].class;
	return 0;
}

static const char *type_name(enum lh_tensor_type type)
{
	return type == LH_TENSOR_F32 ? "float32" : type == LH_TENSOR_BF16 ? "bfloat16" :
									    "float16";
}

static json_t *id_or_null(int64_t id)
{
	return id < 0 ? json_null() : json_integer(id);
}

/* What begins a text, and what ends one, if the job's ids mean something to us. */
static json_t *begin_id(const struct lh_vocabulary *v)
{
	return id_or_null(v ? v->bos : -1);
}

static json_t *end_id(const struct lh_job *job, const struct lh_vocabulary *v)
{
	if (lh_job_tokenizer(job) == LH_TOKENIZER_BYTES)
		return json_integer(LH_BYTES_SEPARATOR);
	return id_or_null(v ? v->eos : -1);
}

static json_t *scaling_of(const struct lh_job_model *c)
{
	const struct lh_job_rope_scaling *s = &c->rope_scaling;
	json_t *yarn;

	switch (s->type) {
	case LH_ROPE_NONE:
		break;
	case LH_ROPE_LINEAR:
		return json_pack("{s:s, s:f}", "rope_type", "linear", "factor", s->factor);
	case LH_ROPE_LLAMA3:
		return json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor",
				 s->factor, "low_freq_factor", s->low_freq_factor,
				 "high_freq_factor", s->high_freq_factor,
				 "original_max_position_embeddings",
				 (json_int_t)s->original_tokens);
	case LH_ROPE_YARN:
		yarn = json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "yarn", "factor",
				 s->factor, "beta_fast", s->beta_fast, "beta_slow",
				 s->beta_slow, "original_max_position_embeddings",
				 (json_int_t)s->original_tokens);
		if (s->attention_factor > 0)
			json_object_set_new(yarn, "attention_factor",
					    json_real(s->attention_factor));
		return yarn;
	}
	return json_null();
}

/* Versions of transformers before 5 take the factor of yarn from this instead. */
static int64_t max_tokens_of(const struct lh_job *job)
{
	const struct lh_job_rope_scaling *s = &job->model.rope_scaling;

	return s->type == LH_ROPE_YARN ? llround(s->factor * (double)s->original_tokens) :
					 job->data.seq_len;
}

json_t *lh_hf_config_of(const struct lh_job *job, enum lh_tensor_type type,
			const struct lh_vocabulary *v)
{
	const struct lh_job_model *c = &job->model;
	int family = family_of(c);
	json_t *config;

	LH_ASSERT(family >= 0);
	config = json_pack("{s:[s], s:s, s:I, s:I, s:I, s:i, s:i, s:i, s:i, s:s, s:I, s:f, "
			   "s:f, s:f, s:o, s:b, s:b, s:b, s:f, s:b, s:s, s:o, s:o}",
			   "architectures", families[family].class, "model_type",
			   families[family].type, "vocab_size",
			   (json_int_t)c->vocab, "hidden_size", (json_int_t)c->dim,
			   "intermediate_size", (json_int_t)c->ffn_dim, "num_hidden_layers",
			   c->layers, "num_attention_heads", c->heads, "num_key_value_heads",
			   c->kv_heads, "head_dim", c->head_dim, "hidden_act", "silu",
			   "max_position_embeddings", (json_int_t)max_tokens_of(job),
			   "initializer_range", c->init_std, "rms_norm_eps", c->norm_eps,
			   "rope_theta", c->rope_theta, "rope_scaling", scaling_of(c),
			   "tie_word_embeddings", c->tied,
			   "attention_bias", false, "mlp_bias", false, "attention_dropout",
			   0.0, "use_cache", true, "torch_dtype", type_name(type),
			   "bos_token_id", begin_id(v), "eos_token_id", end_id(job, v));
	LH_ASSERT(config);
	return config;
}

json_t *lh_hf_generation_of(const struct lh_job *job, const struct lh_vocabulary *v)
{
	json_t *g = json_pack("{s:b, s:o, s:o}", "_from_model_config", true, "bos_token_id",
			      begin_id(v), "eos_token_id", end_id(job, v));

	LH_ASSERT(g);
	return g;
}

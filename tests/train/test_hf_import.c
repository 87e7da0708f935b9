/* test_hf_import.c: what others saved comes in and goes out again bit for bit; what is
 * damaged, hostile or another kind of model is refused with a reason, and nothing is
 * written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hf_model.h"
#include "train/rng.h"
#include "train/weights.h"

#define TINY "{ vocab: 19, dim: 8, layers: 2, heads: 4, kv_heads: 2, head_dim: 6, ffn_dim: 12 }"
#define TIED "{ vocab: 19, dim: 8, layers: 1, heads: 2, ffn_dim: 1, tied: true }"
#define SCALED "{ vocab: 19, dim: 8, layers: 1, heads: 2, ffn_dim: 12, rope_scaling: " \
	"{ type: llama3, factor: 8, original_tokens: 32 } }"

#define YARN "{ vocab: 19, dim: 8, layers: 1, heads: 2, ffn_dim: 12, rope_scaling: " \
	"{ type: yarn, factor: 4, original_tokens: 16 } }"

#define QWEN2 "{ vocab: 19, dim: 8, layers: 2, heads: 4, kv_heads: 2, ffn_dim: 12, " \
	"qkv_bias: true }"
#define QWEN3 "{ vocab: 19, dim: 8, layers: 2, heads: 4, kv_heads: 2, head_dim: 6, " \
	"ffn_dim: 12, qk_norm: true }"

static int import(const char *from, const char *to, struct lh_err *err)
{
	struct lh_hf_progress nobody = { 0 };
	struct lh_hf_written w;
	char *a = scratch_path(from), *b = scratch_path(to);
	int rc = lh_hf_import(a, b, false, &nobody, &w, err);

	free(a);
	free(b);
	return rc;
}

static int export(const char *from, const char *to, enum lh_tensor_type type,
		  int64_t file_bytes, struct lh_err *err)
{
	struct lh_hf_export how = { .type = type, .file_bytes = file_bytes };
	struct lh_hf_written w;
	char *a = scratch_path(from), *b = scratch_path(to);
	int rc = lh_hf_export(a, b, &how, &w, err);

	free(a);
	free(b);
	return rc;
}

/* A model as the directory `name`, with some numbers that are easily lost. */
static void make(const char *name, const char *model, enum lh_tensor_type type,
		 int64_t file_bytes)
{
	const float odd[] = { -0.0f, NAN, 1e-7f, -3e-8f, 65504, INFINITY };
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job;
	struct lh_model *m;
	char *from;

	hf_job(&job, model);
	m = hf_model(&job);
	lh_model_init(m, 5);
	lh_model_write(m, LH_STATE_PARAM, 40, 6, odd);
	from = hf_save(m, &job, 1 << 20);
	if (export(HF_SAVED, name, type, file_bytes, &err))
		fail_msg("%s", err.text);
	free(from);
	lh_model_free(m);
	lh_job_release(&job);
}

static void check_same_file(const char *a, const char *b, const char *name)
{
	char *x = lh_asprintf("%s/%s", a, name), *y = lh_asprintf("%s/%s", b, name);
	size_t m, n;
	char *p = scratch_read(x, &m), *q = scratch_read(y, &n);

	assert_int_equal(m, n);
	assert_memory_equal(p, q, n);
	free(p);
	free(q);
	free(x);
	free(y);
}

/* What a checkpoint says of its model is what was asked for. */
static void check_model(const char *dir, const char *model)
{
	char *name = lh_asprintf("%s/manifest.json", dir);
	json_t *manifest = hf_json(name), *want;
	struct lh_job job;

	hf_job(&job, model);
	want = lh_jobfile_to_json(&job);
	assert_true(json_equal(json_object_get(want, "model"),
			       json_object_get(json_object_get(manifest, "job"), "model")));
	json_decref(want);
	json_decref(manifest);
	lh_job_release(&job);
	free(name);
}

static void in_and_out_is_the_same_to_the_bit(void **state)
{
	static const char *const models[] = { TINY, TIED, SCALED, YARN, QWEN2, QWEN3 };
	static const enum lh_tensor_type types[] = { LH_TENSOR_F32, LH_TENSOR_BF16,
						     LH_TENSOR_F16 };
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	for (int i = 0; i < 18; i++) {
		char a[32], b[32], c[32];

		snprintf(a, sizeof(a), "theirs%d", i);
		snprintf(b, sizeof(b), "ours%d", i);
		snprintf(c, sizeof(c), "again%d", i);
		make(a, models[i % 6], types[i / 6], 1 << 20);
		if (import(a, b, &err) || export(b, c, types[i / 6], 1 << 20, &err))
			fail_msg("%s", err.text);
		check_same_file(a, c, "model.safetensors");
		check_same_file(a, c, "config.json");
		check_same_file(a, c, "generation_config.json");
		check_model(b, models[i % 6]);
	}
}

static void shards_and_their_index_are_read(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *index, *file;
	const char *tensor;

	(void)state;
	make("theirs", TINY, LH_TENSOR_BF16, 500);
	if (import("theirs", "ours", &err) ||
	    export("ours", "again", LH_TENSOR_BF16, 500, &err))
		fail_msg("%s", err.text);
	check_same_file("theirs", "again", "model.safetensors.index.json");
	index = hf_json("theirs/model.safetensors.index.json");
	json_object_foreach (json_object_get(index, "weight_map"), tensor, file)
		check_same_file("theirs", "again", json_string_value(file));
	json_decref(index);
}

static void ignore(void *arg, const char *file, int64_t bytes, const struct lh_err *why)
{
	(void)arg;
	(void)file;
	(void)bytes;
	(void)why;
}

/* It can be verified, and its weights loaded; but a job cannot go on from it. */
static void what_came_in_is_a_checkpoint_of_weights_alone(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;
	struct lh_weights w;
	struct lh_model *m;
	char *path;

	(void)state;
	make("theirs", TINY, LH_TENSOR_F32, 1 << 20);
	assert_int_equal(import("theirs", "ours", &err), 0);
	path = scratch_path("ours");
	if (lh_manifest_verify(path, ignore, NULL, &err))
		fail_msg("%s", err.text);
	assert_int_equal(lh_weights_open(&w, path, &err), 0);
	assert_int_equal(w.progress.step, 0);
	m = hf_model(&w.job);
	assert_int_equal(lh_checkpoint_load(path, m, &p, false, &err), 0);
	assert_int_equal(lh_checkpoint_load(path, m, &p, true, &err), LH_ECORRUPT);
	assert_non_null(strstr(err.text, "embed.m"));
	lh_model_free(m);
	lh_weights_close(&w);
	free(path);
}

/* The parameters of the checkpoint NAME; heap. */
static float *params_of(const char *name, int64_t *count)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p;
	struct lh_weights w;
	struct lh_model *m;
	float *params;

	if (lh_weights_open(&w, path, &err))
		fail_msg("%s", err.text);
	m = hf_model(&w.job);
	if (lh_checkpoint_load(path, m, &p, false, &err))
		fail_msg("%s", err.text);
	*count = lh_model_param_count(m);
	params = lh_calloc((size_t)*count, sizeof(*params));
	assert_int_equal(lh_model_read(m, LH_STATE_PARAM, 0, *count, params, &err), 0);
	lh_model_free(m);
	lh_weights_close(&w);
	free(path);
	return params;
}

/* Of two bytes as they came, which is what the same numbers in float32 load as. */
static void types_stay_and_load_alike(void **state)
{
	static const enum lh_tensor_type types[] = { LH_TENSOR_BF16, LH_TENSOR_F16 };
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	for (int t = 0; t < 2; t++) {
		const char *names[2][4] = { { "theirs0", "half0", "wide0", "whole0" },
					    { "theirs1", "half1", "wide1", "whole1" } };
		const char **n = names[t];
		char *path = scratch_path(n[1]);
		struct lh_weights w;
		int64_t count, same;
		float *half, *whole;

		make(n[0], TINY, types[t], 1 << 20);
		if (import(n[0], n[1], &err) ||
		    export(n[1], n[2], LH_TENSOR_F32, 1 << 20, &err) ||
		    import(n[2], n[3], &err))
			fail_msg("%s", err.text);
		assert_int_equal(lh_weights_open(&w, path, &err), 0);
		for (int i = 0; i < w.params.count; i++)
			assert_int_equal(w.tensor[i]->type, types[t]);
		lh_weights_close(&w);
		half = params_of(n[1], &count);
		whole = params_of(n[3], &same);
		assert_int_equal(count, same);
		assert_memory_equal(half, whole, (size_t)count * sizeof(*half));
		free(half);
		free(whole);
		free(path);
	}
}

/* Their q, k and v are one of our tensors: it has the type that holds each. */
static void types_that_are_packed_together_become_one_that_holds_all(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	char *half, *into, *path = scratch_path("ours");
	const char *file;
	struct lh_weights w;
	json_t *index;

	(void)state;
	make("theirs", TINY, LH_TENSOR_F32, 1); /* a tensor a file */
	make("halves", TINY, LH_TENSOR_BF16, 1);
	index = hf_json("halves/model.safetensors.index.json");
	file = json_string_value(json_object_get(json_object_get(index, "weight_map"),
						 "model.layers.0.self_attn.k_proj.weight"));
	half = lh_asprintf("%s/halves/%s", scratch_dir, file);
	into = lh_asprintf("%s/theirs/%s", scratch_dir, file);
	assert_int_equal(rename(half, into), 0);
	if (import("theirs", "ours", &err))
		fail_msg("%s", err.text);
	assert_int_equal(lh_weights_open(&w, path, &err), 0);
	for (int i = 0; i < w.params.count; i++)
		assert_int_equal(w.tensor[i]->type, LH_TENSOR_F32);
	lh_weights_close(&w);
	free(path);
	free(half);
	free(into);
	json_decref(index);
}

/* ---- what is refused ------------------------------------------------------- */

/* Sets a key of a JSON file in theirs/; NULL removes it. Takes the value. */
static void set_take(const char *file, const char *key, json_t *value)
{
	char *name = lh_asprintf("theirs/%s", file), *text;
	json_t *json = hf_json(name);

	if (value)
		json_object_set_new(json, key, value);
	else
		json_object_del(json, key);
	text = json_dumps(json, 0);
	scratch_write(name, text, strlen(text));
	free(text);
	free(name);
	json_decref(json);
}

/* Expects that theirs/ is refused with the words, and that nothing is written. */
static void refused(const char *says)
{
	struct lh_err err = LH_ERR_INIT;
	struct dirent *e;
	DIR *d;

	if (!import("theirs", "ours", &err))
		fail_msg("was taken, expected '%s'", says);
	if (!strstr(err.text, says))
		fail_msg("'%s' (hint: %s), expected '%s'", err.text, err.hint, says);
	d = opendir(scratch_dir);
	while ((e = readdir(d)))
		assert_true(strncmp(e->d_name, "ours", 4));
	closedir(d);
}

static void models_that_compute_something_else_are_refused(void **state)
{
	static const struct { const char *key, *value, *says; } cases[] = {
		{ "model_type", "'gpt2'", "'model_type' is 'gpt2'" },
		{ "model_type", "7", "'model_type' is ''" },
		{ "hidden_act", "'gelu'", "not silu" },
		{ "attention_bias", "true", "biases" },
		{ "mlp_bias", "true", "biases" },
		{ "partial_rotary_factor", "0.5", "partial_rotary_factor" },
		{ "rope_parameters", "{'partial_rotary_factor':0.5}", "partial_rotary_factor" },
		{ "quantization_config", "{}", "quantized" },
		{ "rope_scaling", "{'rope_type':'dynamic','factor':2}", "of type 'dynamic'" },
		{ "rope_scaling", "{'type':'yarn','factor':2,'truncate':false}", "truncate" },
		{ "rope_scaling", "{'rope_type':'llama3','factor':2}", "low_freq_factor" },
		{ "hidden_size", "9", "is 19 x 8, by 'config.json' it is 19 x 9" },
		{ "hidden_size", "'8'", "model.dim: found '8'" },
		{ "hidden_size", "null", "'hidden_size' is missing" },
		{ "vocab_size", "99999999999", "model.vocab: found '99999999999'" },
		{ "num_hidden_layers", "3", "'model.layers.2.self_attn.q_proj.weight' is missing" },
		{ "num_hidden_layers", "1", "is of no use" },
		{ "num_hidden_layers", "1000000", "model.layers" },
		{ "num_attention_heads", "0", "model.heads" },
		{ "num_key_value_heads", "3", "does not divide" },
		{ "head_dim", "-2", "model.head_dim" },
		{ "max_position_embeddings", "null", "data.seq_len" },
		{ "rms_norm_eps", "0", "model.norm_eps" },
		{ "tie_word_embeddings", "'no'", "model.tied" },
	};

	(void)state;
	make("theirs", TINY, LH_TENSOR_BF16, 1 << 20);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		json_t *config = hf_json("theirs/config.json"), *value;
		json_t *was = json_incref(json_object_get(config, cases[i].key));
		char *text = lh_strdup(cases[i].value);

		for (char *c = text; *c; c++)
			*c = *c == '\'' ? '"' : *c;
		value = json_loads(text, JSON_DECODE_ANY, NULL);
		assert_non_null(value);
		set_take("config.json", cases[i].key, value);
		refused(cases[i].says);
		set_take("config.json", cases[i].key, was);
		json_decref(config);
		free(text);
	}
	set_take("config.json", "model_type", json_string("mistral"));
	set_take("config.json", "sliding_window", json_integer(4096));
	refused("sliding window");
	set_take("config.json", "model_type", json_string("qwen2"));
	refused("q_proj.bias' is missing");
	set_take("config.json", "use_sliding_window", json_true());
	refused("sliding window");
	set_take("config.json", "use_sliding_window", NULL);
	set_take("config.json", "layer_types", json_pack("[s,s]", "full_attention",
							 "sliding_attention"));
	refused("sliding window");
	set_take("config.json", "layer_types", json_pack("[s]", "full_attention"));
	set_take("config.json", "model_type", json_string("qwen3"));
	refused("q_norm.weight' is missing");
	set_take("config.json", "head_dim", json_null());
	refused("'head_dim' is missing");
	set_take("config.json", "num_key_value_heads", NULL);
	refused("'num_key_value_heads' is missing");
}

static void hostile_json_is_refused(void **state)
{
	static char text[2 << 20];

	(void)state;
	make("theirs", TINY, LH_TENSOR_BF16, 500);
	memset(text, '[', sizeof(text));
	scratch_write("theirs/model.safetensors.index.json", text, 100000);
	refused("is no JSON object");
	scratch_write("theirs/model.safetensors.index.json", "{\"weight_map\":7}", 16);
	refused("has no weight_map");
	scratch_write("theirs/config.json", text, 100000);
	refused("is no JSON object");
	memset(text, ' ', sizeof(text));
	scratch_write("theirs/config.json", text, sizeof(text));
	refused("is larger than");
}

static void an_index_leads_nowhere_else(void **state)
{
	static const char *const names[] = {
		"../outside.safetensors", "/tmp/outside.safetensors", "a/b.safetensors",
		".hidden.safetensors", "", "outside.bin", "..", ".safetensors" };

	(void)state;
	make("theirs", TINY, LH_TENSOR_BF16, 500);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		json_t *map = json_pack("{s:s}", "model.embed_tokens.weight", names[i]);

		set_take("model.safetensors.index.json", "weight_map", map);
		refused("says that 'model.embed_tokens.weight' is in");
	}
	set_take("model.safetensors.index.json", "weight_map",
		 json_pack("{s:n}", "model.embed_tokens.weight"));
	refused("says that");
	set_take("model.safetensors.index.json", "weight_map",
		 json_pack("{s:s}", "model.embed_tokens.weight", "gone.safetensors"));
	refused("cannot open 'gone.safetensors'");
}

/* DIR/name becomes a link to `target`. */
static void link_to(const char *name, const char *target)
{
	char *path = scratch_path(name);

	unlink(path);
	assert_int_equal(symlink(target, path), 0);
	free(path);
}

static void links_out_of_the_directory_are_refused(void **state)
{
	char *outside = scratch_path("other/model.safetensors"), *fifo;

	(void)state;
	make("theirs", TINY, LH_TENSOR_BF16, 1 << 20);
	make("other", TINY, LH_TENSOR_BF16, 1 << 20);
	link_to("theirs/model.safetensors", outside);
	refused("'model.safetensors' is a link out of the directory");
	link_to("theirs/model.safetensors", "../other/model.safetensors");
	refused("'model.safetensors' is a link out of the directory");
	link_to("theirs/config.json", "/etc/passwd");
	refused("'config.json' is a link out of the directory");
	link_to("theirs/config.json", "config.json");
	refused("cannot open 'config.json'");
	fifo = scratch_path("theirs/config.json");
	unlink(fifo);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	refused("'config.json' is no regular file");
	free(fifo);
	free(outside);
}

/* MODEL/snapshots/REVISION/NAME -> ../../blobs/HASH, as their tools download. */
static void the_links_of_a_cache_are_followed(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	char *dir = scratch_path("cache/snapshots/1a2b"), *blobs = scratch_path("cache/blobs");
	char *from = scratch_path("theirs/model.safetensors");
	char *to = scratch_path("cache/blobs/77");

	(void)state;
	make("theirs", TINY, LH_TENSOR_BF16, 1 << 20);
	assert_int_equal(lh_fs_mkdirs(dir, &err), 0);
	assert_int_equal(lh_fs_mkdirs(blobs, &err), 0);
	assert_int_equal(rename(from, to), 0);
	free(from);
	free(to);
	from = scratch_path("theirs/config.json");
	to = scratch_path("cache/blobs/78");
	assert_int_equal(rename(from, to), 0);
	link_to("cache/snapshots/1a2b/model.safetensors", "../../blobs/77");
	link_to("cache/snapshots/1a2b/config.json", "../../blobs/78");
	if (import("cache/snapshots/1a2b", "ours", &err))
		fail_msg("%s", err.text);
	free(from);
	free(to);
	free(dir);
	free(blobs);
}

/* Rewrites the header of theirs/model.safetensors: `from` becomes `to`, as long. */
static void change_header(const char *from, const char *to)
{
	size_t bytes, n = strlen(from);
	char *file = scratch_read("theirs/model.safetensors", &bytes);
	char *at = memmem(file, bytes, from, n);

	assert_non_null(at);
	assert_int_equal(strlen(to), n);
	memcpy(at, to, n);
	scratch_write("theirs/model.safetensors", file, bytes);
	free(file);
}

static void damaged_tensor_files_are_refused(void **state)
{
	char *path = scratch_path("theirs/model.safetensors");

	(void)state;
	make("theirs", TINY, LH_TENSOR_BF16, 1 << 20);
	change_header("\"data_offsets\":[0,304]", "\"data_offsets\":[1,304]");
	refused("offsets");
	change_header("\"data_offsets\":[1,304]", "\"data_offsets\":[0,999]");
	refused("offsets");
	change_header("\"data_offsets\":[0,999]", "\"data_offsets\":[0,304]");
	change_header("\"shape\":[19,8]", "\"shape\":[8,19]");
	refused("is 8 x 19, by 'config.json' it is 19 x 8");
	change_header("\"shape\":[8,19]", "\"shape\":[19,8]");
	change_header("model.norm.weight", "model.nrom.weight");
	refused("'model.norm.weight' is missing");
	change_header("model.nrom.weight", "model.norm.weight");
	assert_int_equal(truncate(path, 5000), 0);
	refused("'");
	unlink(path);
	refused("neither 'model.safetensors' nor");
	free(path);
}

static void tensors_of_integers_are_refused(void **state)
{
	(void)state;
	make("theirs", TINY, LH_TENSOR_F32, 1 << 20);
	change_header("\"dtype\":\"F32\"", "\"dtype\":\"I32\"");
	refused("is of integers");
}

/* A newer config has theta and scaling in one section. */
static void rope_parameters_are_read(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	const char *class;
	struct lh_job job = { 0 };
	json_t *config;

	(void)state;
	make("theirs", TINY, LH_TENSOR_BF16, 1 << 20);
	set_take("config.json", "rope_theta", NULL);
	set_take("config.json", "rope_parameters",
		 json_pack("{s:s, s:f, s:f, s:i, s:f, s:f}", "rope_type", "yarn", "rope_theta",
			   5e5, "factor", 4.0, "original_max_position_embeddings", 16,
			   "mscale", 1.0, "mscale_all_dim", 0.5));
	config = hf_json("theirs/config.json");
	assert_int_equal(lh_hf_job_of(&job, &class, config, &err), 0);
	assert_true(job.model.rope_theta == 5e5);
	assert_int_equal(job.model.rope_scaling.type, LH_ROPE_YARN);
	assert_int_equal(job.model.rope_scaling.original_tokens, 16);
	assert_true(fabs(job.model.rope_scaling.attention_factor -
			 (0.1 * log(4) + 1) / (0.05 * log(4) + 1)) < 1e-12);
	lh_job_release(&job);
	json_decref(config);
}

/* theirs/: a model of 67 MB in float32, all zeros. */
static void make_large(void)
{
	static const char zeros[1 << 20];
	struct lh_safetensors_writer *w = lh_safetensors_writer_new();
	char *dir = scratch_path("theirs"), *path = scratch_path("theirs/model.safetensors");
	struct lh_err err = LH_ERR_INIT;
	struct lh_params params;
	struct lh_job job;
	json_t *config;
	uint64_t hash;
	int64_t bytes;
	char *text;

	hf_job(&job, "{ vocab: 16384, dim: 1024, layers: 1, heads: 8, ffn_dim: 8, tied: true }");
	assert_int_equal(mkdir(dir, 0700), 0);
	config = lh_hf_config_of(&job, LH_TENSOR_BF16, NULL);
	text = json_dumps(config, 0);
	scratch_write("theirs/config.json", text, strlen(text));
	lh_params_init(&params, &job.model);
	for (int i = 0; i < params.count; i++) {
		struct lh_hf_piece piece[LH_HF_PIECES_MAX];
		int n = lh_hf_pieces(piece, &params.table[i], &job.model);

		for (int k = 0; k < n; k++)
			lh_safetensors_declare(w, piece[k].name, LH_TENSOR_BF16, piece[k].dims,
					       piece[k].shape);
	}
	assert_int_equal(lh_safetensors_begin(w, path, NULL, &err), 0);
	for (int64_t left = params.floats * 2, n; left; left -= n) {
		n = left < (int64_t)sizeof(zeros) ? left : (int64_t)sizeof(zeros);
		assert_int_equal(lh_safetensors_append(w, zeros, (size_t)n, &err), 0);
	}
	assert_int_equal(lh_safetensors_commit(w, &bytes, &hash, &err), 0);
	lh_params_release(&params);
	lh_job_release(&job);
	json_decref(config);
	free(text);
	free(path);
	free(dir);
}

/* Neither holds more than a piece of a file: as a process of its own, so that its
 * memory alone is counted. */
static void memory_stays_small(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct rusage use;
	int status;
	pid_t pid;

	(void)state;
	make_large();
	pid = fork();
	if (!pid)
		_exit(import("theirs", "ours", &err) ||
		      export("ours", "again", LH_TENSOR_F32, 1 << 30, &err));
	assert_int_equal(wait4(pid, &status, 0, &use), pid);
	assert_int_equal(status, 0);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed */
	if (use.ru_maxrss > 40 << 10)
		fail_msg("%ld KiB were held", use.ru_maxrss);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HF_TEST(in_and_out_is_the_same_to_the_bit),
		HF_TEST(shards_and_their_index_are_read),
		HF_TEST(what_came_in_is_a_checkpoint_of_weights_alone),
		HF_TEST(types_stay_and_load_alike),
		HF_TEST(types_that_are_packed_together_become_one_that_holds_all),
		HF_TEST(models_that_compute_something_else_are_refused),
		HF_TEST(hostile_json_is_refused),
		HF_TEST(an_index_leads_nowhere_else),
		HF_TEST(links_out_of_the_directory_are_refused),
		HF_TEST(the_links_of_a_cache_are_followed),
		HF_TEST(damaged_tensor_files_are_refused),
		HF_TEST(tensors_of_integers_are_refused),
		HF_TEST(rope_parameters_are_read),
		HF_TEST(memory_stays_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

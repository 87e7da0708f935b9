/* test_hf_export.c: an export holds every number under the name that transformers
 * gives it, in the shape it expects, and is there whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/convert.h"
#include "hf_model.h"

#define TINY "{ vocab: 19, dim: 8, layers: 2, heads: 4, kv_heads: 2, head_dim: 6, ffn_dim: 12 }"
#define TIED "{ vocab: 19, dim: 8, layers: 1, heads: 2, ffn_dim: 12, tied: true }"

/* So many entries of the scratch directory begin so. */
static int entries(const char *prefix)
{
	DIR *d = opendir(scratch_dir);
	struct dirent *e;
	int n = 0;

	assert_non_null(d);
	while ((e = readdir(d)))
		n += !strncmp(e->d_name, prefix, strlen(prefix));
	closedir(d);
	return n;
}

static int export_as(const char *from, const char *name, enum lh_tensor_type type,
		     int64_t file_bytes, struct lh_hf_written *w, struct lh_err *err)
{
	struct lh_hf_export how = { .type = type, .file_bytes = file_bytes };
	char *dir = scratch_path(name);
	int rc = lh_hf_export(from, dir, &how, w, err);

	free(dir);
	return rc;
}

/* Tensor `name` of an export is rows from .. of ours: the element at row and column
 * of theirs is ours `from` elements later. */
static void check_tensor(const struct lh_safetensors *st, const char *name, int64_t rows,
			 int64_t cols, const float *ours)
{
	const struct lh_tensor *t = lh_safetensors_find(st, name);

	assert_non_null(t);
	assert_int_equal(t->type, LH_TENSOR_F32);
	assert_int_equal(t->dims, cols ? 2 : 1);
	assert_int_equal(t->shape[0], rows);
	if (cols)
		assert_int_equal(t->shape[1], cols);
	assert_memory_equal(t->data, ours, (size_t)t->bytes);
}

static const float *ours(struct lh_model *m, const float *flat, const char *name)
{
	int count;
	const struct lh_param *p = lh_model_params(m, &count);

	for (int i = 0; i < count; i++)
		if (!strcmp(p[i].name, name))
			return flat + p[i].offset;
	fail_msg("no '%s'", name);
	return NULL;
}

static float *all_of(struct lh_model *m)
{
	int64_t n = lh_model_param_count(m);
	float *flat = lh_calloc((size_t)n, 4);

	assert_int_equal(lh_model_read(m, LH_STATE_PARAM, 0, n, flat, NULL), 0);
	return flat;
}

static void every_tensor_has_its_name_and_shape(void **state)
{
	struct lh_hf_written w;
	struct lh_err err = LH_ERR_INIT;
	struct lh_safetensors st;
	struct lh_job job;
	struct lh_model *m;
	char *from, *path;
	const float *q;
	float *flat;

	(void)state;
	hf_job(&job, TINY);
	m = hf_model(&job);
	lh_model_init(m, 3);
	flat = all_of(m);
	from = hf_save(m, &job, 1000); /* in several files */
	assert_int_equal(export_as(from, "out", LH_TENSOR_F32, LH_HF_FILE_BYTES, &w, &err), 0);
	assert_int_equal(w.files, 1);
	assert_int_equal(w.step, 7);
	assert_int_equal(w.parameters, lh_model_param_count(m));
	path = scratch_path("out/model.safetensors");
	assert_int_equal(lh_safetensors_open(&st, path, &err), 0);
	assert_string_equal(lh_safetensors_meta(&st, "format"), "pt");
	assert_int_equal(st.count, 3 + 2 * 9);
	q = ours(m, flat, "layers.1.wqkv");
	check_tensor(&st, "model.embed_tokens.weight", 19, 8, ours(m, flat, "embed"));
	check_tensor(&st, "model.layers.1.self_attn.q_proj.weight", 24, 8, q);
	check_tensor(&st, "model.layers.1.self_attn.k_proj.weight", 12, 8, q + 24 * 8);
	check_tensor(&st, "model.layers.1.self_attn.v_proj.weight", 12, 8, q + 36 * 8);
	check_tensor(&st, "model.layers.1.self_attn.o_proj.weight", 8, 24,
		     ours(m, flat, "layers.1.wo"));
	check_tensor(&st, "model.layers.0.mlp.gate_proj.weight", 12, 8,
		     ours(m, flat, "layers.0.wgu"));
	check_tensor(&st, "model.layers.0.mlp.up_proj.weight", 12, 8,
		     ours(m, flat, "layers.0.wgu") + 12 * 8);
	check_tensor(&st, "model.layers.0.mlp.down_proj.weight", 8, 12,
		     ours(m, flat, "layers.0.wdown"));
	check_tensor(&st, "model.layers.0.input_layernorm.weight", 8, 0,
		     ours(m, flat, "layers.0.norm1"));
	check_tensor(&st, "model.layers.0.post_attention_layernorm.weight", 8, 0,
		     ours(m, flat, "layers.0.norm2"));
	check_tensor(&st, "model.norm.weight", 8, 0, ours(m, flat, "final_norm"));
	check_tensor(&st, "lm_head.weight", 19, 8, ours(m, flat, "output"));
	lh_safetensors_close(&st);
	free(path);
	free(from);
	free(flat);
	lh_model_free(m);
	lh_job_release(&job);
}

static void config_says_what_the_model_is(void **state)
{
	struct lh_hf_written w;
	struct lh_err err = LH_ERR_INIT;
	struct lh_safetensors st;
	struct lh_job job;
	struct lh_model *m;
	json_t *config, *generation;
	char *from, *path;

	(void)state;
	hf_job(&job, TIED);
	m = hf_model(&job);
	from = hf_save(m, &job, 1 << 20);
	assert_int_equal(export_as(from, "out", LH_TENSOR_BF16, 1 << 20, &w, &err), 0);
	config = hf_json("out/config.json");
	assert_string_equal(json_string_value(json_array_get(
				    json_object_get(config, "architectures"), 0)),
			    "LlamaForCausalLM");
	assert_int_equal(json_integer_value(json_object_get(config, "head_dim")), 4);
	assert_int_equal(json_integer_value(json_object_get(config, "num_key_value_heads")), 2);
	assert_int_equal(json_integer_value(json_object_get(config, "max_position_embeddings")),
			 64);
	assert_true(json_is_true(json_object_get(config, "tie_word_embeddings")));
	assert_string_equal(json_string_value(json_object_get(config, "torch_dtype")),
			    "bfloat16");
	generation = hf_json("out/generation_config.json");
	path = scratch_path("out/model.safetensors");
	assert_int_equal(lh_safetensors_open(&st, path, &err), 0);
	assert_null(lh_safetensors_find(&st, "lm_head.weight"));
	assert_int_equal(lh_safetensors_find(&st, "model.norm.weight")->type, LH_TENSOR_BF16);
	lh_safetensors_close(&st);
	json_decref(config);
	json_decref(generation);
	free(path);
	free(from);
	lh_model_free(m);
	lh_job_release(&job);
}

static void files_are_no_larger_than_asked_and_the_index_knows_them(void **state)
{
	struct lh_hf_written w;
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job;
	struct lh_model *m;
	json_t *index, *map, *file;
	const char *name;
	int64_t total = 0;
	int tensors = 0;
	char *from;

	(void)state;
	hf_job(&job, TINY);
	m = hf_model(&job);
	from = hf_save(m, &job, 1 << 20);
	assert_int_equal(export_as(from, "out", LH_TENSOR_F16, 500, &w, &err), 0);
	assert_true(w.files > 5);
	index = hf_json("out/model.safetensors.index.json");
	map = json_object_get(index, "weight_map");
	for (int f = 1; f <= w.files; f++) {
		struct lh_safetensors st;
		char *path = lh_asprintf("%s/out/model-%05d-of-%05d.safetensors", scratch_dir,
					 f, w.files);
		int64_t bytes = 0;

		assert_int_equal(lh_safetensors_open(&st, path, &err), 0);
		for (int i = 0; i < st.count; i++) {
			file = json_object_get(map, st.tensors[i].name);
			assert_non_null(file);
			assert_non_null(strstr(path, json_string_value(file)));
			bytes += st.tensors[i].bytes;
		}
		assert_true(bytes <= 500 || st.count == 1);
		total += bytes;
		tensors += st.count;
		lh_safetensors_close(&st);
		free(path);
	}
	json_object_foreach (map, name, file)
		tensors--;
	assert_int_equal(tensors, 0);
	assert_int_equal(total, w.bytes);
	assert_int_equal(json_integer_value(json_object_get(
				 json_object_get(index, "metadata"), "total_size")), total);
	json_decref(index);
	free(from);
	lh_model_free(m);
	lh_job_release(&job);
}

/* Only with --force, and only what is an export itself. */
static void what_is_there_is_replaced_only_if_asked(void **state)
{
	struct lh_hf_export force = { .type = LH_TENSOR_F32, .file_bytes = 1 << 20,
				      .replace = true };
	struct lh_hf_written w;
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job;
	struct lh_model *m;
	char *from, *dir = scratch_path("out"), *other = scratch_path("mine");

	(void)state;
	hf_job(&job, TINY);
	m = hf_model(&job);
	from = hf_save(m, &job, 1 << 20);
	assert_int_equal(export_as(from, "out", LH_TENSOR_BF16, 1 << 20, &w, &err), 0);
	assert_int_equal(export_as(from, "out", LH_TENSOR_BF16, 1 << 20, &w, &err), LH_EINVAL);
	assert_non_null(strstr(err.hint, "--force"));
	assert_int_equal(lh_hf_export(from, dir, &force, &w, &err), 0);
	assert_int_equal(w.bytes, 4 * lh_model_param_count(m));
	assert_int_equal(mkdir(other, 0700), 0);
	scratch_write("mine/diary", "x", 1);
	assert_int_equal(lh_hf_export(from, other, &force, &w, &err), LH_EINVAL);
	assert_int_equal(entries("mine"), 1);
	assert_int_equal(entries("out"), 1);
	free(other);
	free(dir);
	free(from);
	lh_model_free(m);
	lh_job_release(&job);
}

static void what_cannot_be_exported_leaves_nothing(void **state)
{
	struct lh_hf_written w;
	struct lh_err err = LH_ERR_INIT;
	float large = 1e6f;
	struct lh_job job;
	struct lh_model *m;
	char *from, *file;

	(void)state;
	hf_job(&job, TINY);
	m = hf_model(&job);
	lh_model_write(m, LH_STATE_PARAM, 5, 1, &large);
	from = hf_save(m, &job, 1 << 20);
	assert_int_equal(export_as(from, "out", LH_TENSOR_F16, 1 << 20, &w, &err), LH_ETOOBIG);
	assert_non_null(strstr(err.text, "1 numbers of 'model.embed_tokens.weight'"));
	assert_non_null(strstr(err.hint, "bf16"));
	assert_int_equal(entries("out"), 0);
	assert_int_equal(export_as(scratch_dir, "out", LH_TENSOR_F32, 1, &w, &err),
			 LH_ENOTFOUND);
	file = lh_asprintf("%s/params.safetensors", from);
	assert_int_equal(truncate(file, 4000), 0);
	assert_int_equal(export_as(from, "out", LH_TENSOR_F32, 1 << 20, &w, &err), LH_ECORRUPT);
	assert_int_equal(entries("out"), 0);
	free(file);
	free(from);
	lh_model_free(m);
	lh_job_release(&job);
}

static void what_no_family_computes_is_not_exported(void **state)
{
	struct lh_hf_written w;
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job;
	struct lh_model *m;
	char *from;

	(void)state;
	hf_job(&job, "{ vocab: 9, dim: 4, layers: 1, heads: 2, ffn_dim: 4, qk_norm: true, "
	       "qkv_bias: true }");
	m = hf_model(&job);
	from = hf_save(m, &job, 1 << 20);
	assert_int_equal(export_as(from, "out", LH_TENSOR_F32, 1 << 20, &w, &err),
			 LH_EUNSUPPORTED);
	assert_int_equal(entries("out"), 0);
	free(from);
	lh_model_free(m);
	lh_job_release(&job);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HF_TEST(every_tensor_has_its_name_and_shape),
		HF_TEST(config_says_what_the_model_is),
		HF_TEST(files_are_no_larger_than_asked_and_the_index_knows_them),
		HF_TEST(what_is_there_is_replaced_only_if_asked),
		HF_TEST(what_no_family_computes_is_not_exported),
		HF_TEST(what_cannot_be_exported_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_jobfile.c: what a job file may not say, and that the refusal names file,
 * line, key, what was found and what is allowed.
 *
 * A good file has every key on a line of its own. Each case replaces one line.
 * The cases of a key follow from its type and range in the generated table, so a
 * new key is tested when it is added, and fails here if the good file lacks it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "jobs/jobfile.h"
#include "jobs/jobfile_int.h"
#include "lighthouse/shard.h"

static const struct { const char *path, *text; } good[] = {
	{ "name", "name: good" },
	{ "device", "device: cpu" },
	{ "seed", "seed: 3" },
	{ "threads", "threads: 2" },
	{ "restarts", "restarts: 1" },
	{ "preemptible", "preemptible: false" },
	{ "deterministic", "deterministic: true" },
	{ "recompute", "recompute: cheap" },
	{ "model", "model:" },
	{ "model.preset", "  preset: demo" },
	{ "model.from", "  from: ''" },
	{ "model.vocab", "  vocab: 300" },
	{ "model.dim", "  dim: 32" },
	{ "model.layers", "  layers: 4" },
	{ "model.heads", "  heads: 4" },
	{ "model.kv_heads", "  kv_heads: 2" },
	{ "model.head_dim", "  head_dim: 8" },
	{ "model.ffn_dim", "  ffn_dim: 64" },
	{ "model.tied", "  tied: false" },
	{ "model.qkv_bias", "  qkv_bias: true" },
	{ "model.qk_norm", "  qk_norm: true" },
	{ "model.rope_theta", "  rope_theta: 1e4" },
	{ "model.rope_scaling", "  rope_scaling:" },
	{ "model.rope_scaling.type", "    type: llama3" },
	{ "model.rope_scaling.factor", "    factor: 8" },
	{ "model.rope_scaling.original_tokens", "    original_tokens: 64" },
	{ "model.rope_scaling.low_freq_factor", "    low_freq_factor: 1" },
	{ "model.rope_scaling.high_freq_factor", "    high_freq_factor: 4" },
	{ "model.rope_scaling.beta_fast", "    beta_fast: 32" },
	{ "model.rope_scaling.beta_slow", "    beta_slow: 1" },
	{ "model.rope_scaling.attention_factor", "    attention_factor: 1" },
	{ "model.norm_eps", "  norm_eps: 1e-6" },
	{ "model.init_std", "  init_std: 0.03" },
	{ "data", "data:" },
	{ "data.train", "  train: train.bin" },
	{ "data.validation", "  validation: val.bin" },
	{ "data.format", "  format: auto" },
	{ "data.tokenizer", "  tokenizer: bytes" },
	{ "data.seq_len", "  seq_len: 256" },
	{ "data.shuffle_seed", "  shuffle_seed: 4" },
	{ "batch", "batch:" },
	{ "batch.sequences", "  sequences: 4" },
	{ "batch.micro_sequences", "  micro_sequences: 2" },
	{ "optimizer", "optimizer:" },
	{ "optimizer.lr", "  lr: 2e-3" },
	{ "optimizer.beta1", "  beta1: 0.8" },
	{ "optimizer.beta2", "  beta2: 0.9" },
	{ "optimizer.eps", "  eps: 1e-9" },
	{ "optimizer.weight_decay", "  weight_decay: 0" },
	{ "optimizer.clip", "  clip: 0.5" },
	{ "optimizer.warmup_steps", "  warmup_steps: 7" },
	{ "optimizer.schedule", "  schedule: wsd" },
	{ "optimizer.final_lr_factor", "  final_lr_factor: 0.1" },
	{ "optimizer.decay_fraction", "  decay_fraction: 0.2" },
	{ "evaluation", "evaluation:" },
	{ "evaluation.every_steps", "  every_steps: 10" },
	{ "evaluation.sequences", "  sequences: 3" },
	{ "evaluation.gap", "  gap: false" },
	{ "evaluation.selection", "  selection: false" },
	{ "evaluation.positions", "  positions: false" },
	{ "evaluation.passkey", "  passkey:" },
	{ "evaluation.passkey.every_steps", "    every_steps: 9" },
	{ "evaluation.passkey.from_tokens", "    from_tokens: 64" },
	{ "evaluation.passkey.samples", "    samples: 2" },
	{ "evaluation.passkey.seed", "    seed: 3" },
	{ "checkpoint", "checkpoint:" },
	{ "checkpoint.every_steps", "  every_steps: 11" },
	{ "checkpoint.keep", "  keep: 2" },
	{ "checkpoint.keep_every", "  keep_every: 1000" },
	{ "switch", "switch:" },
	{ "switch.watch_steps", "  watch_steps: 20" },
	{ "switch.loss_ceiling", "  loss_ceiling: 9" },
	{ "on_instability", "on_instability:" },
	{ "on_instability.nan", "  nan: rollback" },
	{ "on_instability.loss_spike", "  loss_spike: ignore" },
	{ "on_instability.gradient_spike", "  gradient_spike: pause" },
	{ "on_instability.max", "  max: 4" },
	{ "on_instability.loss_z", "  loss_z: 8" },
	{ "on_instability.gradient_z", "  gradient_z: 9.5" },
	{ "phases", "phases:" },
	{ "phases.0.name", "  - name: light" },
	{ "phases.0.attention", "    attention: lighthouse" },
	{ "phases.0.levels", "    levels: 2" },
	{ "phases.0.pool", "    pool: 4" },
	{ "phases.0.topk", "    topk: 32" },
	{ "phases.0.tile", "    tile: 16" },
	{ "phases.0.scorer", "    scorer: dilated" },
	{ "phases.0.dilation", "    dilation: 2" },
	{ "phases.0.dense_layers", "    dense_layers: [0, -1]" },
	{ "phases.0.lr_factor", "    lr_factor: 0.5" },
	{ "phases.0.until", "    until:" },
	{ "phases.0.until.steps", "      steps: 20" },
	{ "phases.0.until.tokens", "      tokens: 100000" },
	{ "phases.0.until.minutes", "      minutes: 1.5" },
	{ "phases.0.until.manual", "      manual: false" },
	{ "phases.1", "  - { name: recovery, attention: full, until: { steps: 5 } }" },
};
enum { LINES = sizeof(good) / sizeof(good[0]) };

static char dir[] = "/tmp/lh-jobfile-XXXXXX";

static int line_of(const char *path)
{
	for (int i = 0; i < LINES; i++)
		if (!strcmp(good[i].path, path))
			return i;
	fail_msg("the good file of this test lacks '%s': add it", path);
	return -1;
}

/* The good file with one line replaced (at < 0: none). Heap. */
static char *text_with(int at, const char *line)
{
	char *text = lh_calloc(1, 8192 + (line ? strlen(line) : 0));

	for (int i = 0; i < LINES; i++) {
		strcat(text, i == at ? line : good[i].text);
		strcat(text, "\n");
	}
	return text;
}

static int load(struct lh_job *job, const char *text, size_t bytes,
		const char *const *set, int sets, struct lh_err *err)
{
	struct lh_jobfile_source src = { .yaml = text, .yaml_bytes = bytes,
					 .file = "x.yaml", .base_dir = dir, .set = set,
					 .set_count = sets };

	memset(job, 0, sizeof(*job));
	memset(err, 0, sizeof(*err));
	return lh_jobfile_load(job, &src, err);
}

/* Replaces the key's line by "KEY: value" and expects a refusal that names file,
 * the line and path of `blamed`, and contains `says`. */
static void refused_at(const char *path, const char *value, const char *blamed,
		       const char *says)
{
	int at = line_of(path);
	char *line = lh_asprintf("%.*s %s",
				 (int)(strchr(good[at].text, ':') + 1 - good[at].text),
				 good[at].text, value);
	char *text = text_with(at, line), *place;
	struct lh_job job;
	struct lh_err err;

	if (!load(&job, text, strlen(text), NULL, 0, &err))
		fail_msg("%s: '%s' was taken", path, value);
	place = lh_asprintf("x.yaml:%d: %s: ", line_of(blamed) + 1, blamed);
	if (strncmp(err.text, place, strlen(place)) || !strstr(err.text, says) ||
	    !err.hint[0])
		fail_msg("%s: '%s' gave: %s (hint: %s); expected %s and '%s'", path, value,
			 err.text, err.hint, place, says);
	assert_null(job.name);
	free(place);
	free(text);
	free(line);
}

static void refused_with(const char *path, const char *value, const char *says)
{
	refused_at(path, value, path, says);
}

static void refused_for_type(const struct lh_key *k, const char *path)
{
	char value[64];

	switch (k->type) {
	case LH_KEY_INTEGER:
		refused_with(path, "seven", "found 'seven'");
		refused_with(path, "1.5", "found '1.5'");
		refused_with(path, "'1'", "found '1'");
		refused_with(path, "010", "found '010'");
		refused_with(path, "1_0", "found '1_0'");
		refused_with(path, "99999999999999999999", "an integer");
		snprintf(value, sizeof(value), "%" PRId64, k->min - 1);
		if (k->min > INT64_MIN)
			refused_with(path, value, "an integer from");
		snprintf(value, sizeof(value), "%" PRId64, k->max + 1);
		refused_with(path, value, "an integer from");
		refused_with(path, "[1]", "a list");
		break;
	case LH_KEY_NUMBER:
		refused_with(path, "much", "found 'much'");
		refused_with(path, ".nan", "a number from");
		refused_with(path, "inf", "a number from");
		snprintf(value, sizeof(value), "%.17g", k->max_number * 2 + 1);
		refused_with(path, value, "a number from");
		refused_with(path, "-1", "a number from");
		refused_with(path, "{ a: 1 }", path);
		break;
	case LH_KEY_BOOLEAN:
		refused_with(path, "yes", "true or false is allowed");
		refused_with(path, "1", "true or false is allowed");
		break;
	case LH_KEY_ENUM:
		refused_with(path, "other", k->names[0]);
		refused_with(path, "[other]", "a list");
		break;
	case LH_KEY_STRING:
	case LH_KEY_PATH:
		refused_with(path, "[a]", "a list");
		refused_with(path, "null", "found 'null'");
		refused_with(path, "~", "found '~'");
		refused_with(path, "true", "found 'true'");
		break;
	case LH_KEY_PATHS:
	case LH_KEY_SETS:
		refused_with(path, "none.bin", "none.bin");
		refused_with(path, "none-*.bin", "none-*.bin");
		refused_with(path, "[]", "a path");
		break;
	case LH_KEY_LAYERS:
		refused_with(path, "3", "a list of layers");
		refused_with(path, "[4]", "from -4 to 3");
		refused_with(path, "[-5]", "from -4 to 3");
		refused_with(path, "[a]", "an integer");
		break;
	}
}

static void every_key_refuses_what_it_cannot_be(void **state)
{
	(void)state;
	for (int i = 0; i < lh_job_keys_count; i++)
		refused_for_type(&lh_job_keys[i], lh_job_keys[i].path);
	for (int i = 0; i < lh_phase_keys_count; i++) {
		char *path = lh_asprintf("phases.0.%s", lh_phase_keys[i].path);

		refused_for_type(&lh_phase_keys[i], path);
		free(path);
	}
}

static void every_required_key_is_missed(void **state)
{
	(void)state;
	for (int i = 0; i < lh_job_keys_count; i++) {
		const struct lh_key *k = &lh_job_keys[i];
		char *text;
		struct lh_job job;
		struct lh_err err;

		/* A preset may give model keys. */
		if (!k->required || !strncmp(k->path, "model.", 6))
			continue;
		text = text_with(line_of(k->path), "");
		assert_true(load(&job, text, strlen(text), NULL, 0, &err) < 0);
		assert_non_null(strstr(err.text, k->path));
		assert_non_null(strstr(err.text, "missing"));
		free(text);
	}
}

static void what_keys_decide_together_is_checked(void **state)
{
	(void)state;
	refused_with("name", "a b", "letters");
	refused_with("name", "17", "not digits alone");
	refused_with("phases.0.name", "'1'", "not digits alone");
	refused_with("phases.0.name", "\"a\\e[2J\"", "letters");
	refused_with("model.preset", "llama-9z", "llama-530m");
	refused_with("model.kv_heads", "3", "does not divide");
	refused_with("model.head_dim", "7", "even");
	refused_with("model.vocab", "200", "byte tokenizer");
	refused_with("model.rope_scaling.original_tokens", "0", "context before");
	refused_with("model.rope_scaling.high_freq_factor", "1", "more than low_freq_factor");
	refused_with("batch.micro_sequences", "3", "does not divide");
	refused_with("optimizer.warmup_steps", "1000", "in all");
}

static void the_preconditions_of_lighthouse_attention_are_checked(void **state)
{
	(void)state;
	refused_with("phases.0.tile", "15", "even");
	refused_with("phases.0.topk", "40", "no multiple of tile");
	refused_with("data.seq_len", "254", "does not divide");
	refused_at("phases.0.pool", "3", "data.seq_len", "does not divide");
	refused_with("phases.0.topk", "48", "tiles do not divide");
	refused_at("phases.0.topk", "128", "phases.0.tile", "fewer than its budget");
	refused_with("phases.0.dilation", "3", "does not divide seq_len");
}

static void unknown_and_repeated_keys_are_refused(void **state)
{
	struct lh_job job;
	struct lh_err err;
	char *text, want[40];

	(void)state;
	snprintf(want, sizeof(want), "x.yaml:%d: model.dimm", line_of("model.dim") + 1);
	text = text_with(line_of("model.dim"), "  dimm: 32");
	assert_true(load(&job, text, strlen(text), NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, want));
	assert_non_null(strstr(err.hint, "'model.dim'"));
	free(text);
	text = text_with(line_of("seed"), "name: again");
	assert_true(load(&job, text, strlen(text), NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "x.yaml:3: name"));
	assert_non_null(strstr(err.text, "twice"));
	free(text);
	text = text_with(line_of("phases.0.levels"), "    levls: 2");
	assert_true(load(&job, text, strlen(text), NULL, 0, &err) < 0);
	assert_non_null(strstr(err.hint, "'levels'"));
	free(text);
	text = text_with(line_of("phases.1"),
			 "  - { name: r, attention: full, topk: 8, until: { steps: 5 } }");
	assert_true(load(&job, text, strlen(text), NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "full attention"));
	free(text);
}

static void a_key_with_dots_is_no_section(void **state)
{
	struct lh_job job;
	struct lh_err err;
	char *text;

	(void)state;
	text = text_with(line_of("seed"), "checkpoint.keep: 9");
	assert_true(load(&job, text, strlen(text), NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "x.yaml:3: checkpoint.keep: there is no such key"));
	assert_non_null(strstr(err.hint, "inside"));
	free(text);
	text = text_with(line_of("phases.0.levels"), "    until.steps: 9");
	assert_true(load(&job, text, strlen(text), NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "phases.0.until.steps: there is no such key"));
	free(text);
}

static void a_section_is_no_value(void **state)
{
	struct lh_job job;
	struct lh_err err;
	char *text = text_with(line_of("seed"), "checkpoint: 5\nseed: 3");

	(void)state;
	*strstr(text, "\ncheckpoint:\n") = '\0';
	assert_true(load(&job, text, strlen(text), NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "x.yaml:3: checkpoint: found '5', a section"));
	assert_non_null(strstr(err.hint, "checkpoint"));
	free(text);
}

static void dim_is_not_rounded_to_fit_the_heads(void **state)
{
	static const char *const odd[] = { "model.heads=5", "model.kv_heads=5",
					   "model.head_dim=0" };
	char *text = text_with(-1, NULL);
	struct lh_job job;
	struct lh_err err;

	(void)state;
	assert_true(load(&job, text, strlen(text), odd, 3, &err) < 0);
	assert_non_null(strstr(err.text, "model.heads: found 5, which does not divide dim"));
	/* Given by hand, any width will do. */
	assert_int_equal(load(&job, text, strlen(text), odd, 2, &err), 0);
	assert_int_equal(job.model.head_dim, 8);
	lh_job_release(&job);
	free(text);
}

/* A checkpoint that tells of its model in `dir`/start. */
static void write_start(const char *model)
{
	char *path = lh_asprintf("%s/start", dir), *file, *text;

	lh_fs_mkdirs(path, NULL);
	file = lh_asprintf("%s/manifest.json", path);
	text = lh_asprintf("{\"format\":\"lighthouse-checkpoint\",\"version\":2,"
			   "\"job\":{\"model\":%s}}", model);
	assert_int_equal(lh_fs_write_atomic(file, text, strlen(text), NULL), 0);
	free(text);
	free(file);
	free(path);
}

static void dimensions_are_those_of_the_weights(void **state)
{
	static const char yaml[] =
		"{ name: a, model: { from: start, rope_theta: 7 }, data: { train: zeros.bin, "
		"seq_len: 64 }, batch: { sequences: 1 }, optimizer: { lr: 1 }, "
		"phases: [{ name: a, attention: full, until: manual }] }";
	static const char *const other[] = { "model.layers=4" };
	struct lh_job job;
	struct lh_err err;

	(void)state;
	write_start("{\"preset\":\"x\",\"vocab\":300,\"dim\":24,\"layers\":3,\"heads\":2,"
		    "\"ffn_dim\":40,\"rope_theta\":5e5,"
		    "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}");
	if (load(&job, yaml, strlen(yaml), NULL, 0, &err))
		fail_msg("%s", err.text);
	assert_int_equal(job.model.dim, 24);
	assert_int_equal(job.model.head_dim, 12);
	assert_int_equal(job.model.rope_scaling.type, LH_ROPE_LINEAR);
	assert_true(job.model.rope_theta == 7); /* the file's */
	assert_string_equal(strrchr(job.model.from, '/'), "/start");
	assert_int_equal(*job.model.from, '/');
	lh_job_release(&job);
	assert_true(load(&job, yaml, strlen(yaml), other, 1, &err) < 0);
	assert_non_null(strstr(err.text, "model.layers: found 4, the weights of model.from "
				   "have 3"));
	write_start("7");
	assert_true(load(&job, yaml, strlen(yaml), NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "x.yaml:1: model.from: "));
	assert_non_null(strstr(err.text, "tells of no model"));
}

static void yarn_needs_an_order_and_angles_that_differ(void **state)
{
	static const char *const betas[] = { "model.rope_scaling.type=yarn",
					     "model.rope_scaling.beta_slow=33" };
	static const char *const theta[] = { "model.rope_scaling.type=yarn",
					     "model.rope_theta=1" };
	char *text = text_with(-1, NULL);
	struct lh_job job;
	struct lh_err err;

	(void)state;
	assert_int_equal(load(&job, text, strlen(text), betas, 1, &err), 0);
	lh_job_release(&job);
	assert_true(load(&job, text, strlen(text), betas, 2, &err) < 0);
	assert_non_null(strstr(err.text, "beta_fast: found 32, beta_slow (33) or more"));
	assert_true(load(&job, text, strlen(text), theta, 2, &err) < 0);
	assert_non_null(strstr(err.text, "rope_theta: all angles turn alike"));
	free(text);
}

static void long_input_does_not_hide_what_is_allowed(void **state)
{
	static char set[3000], file[3000];
	const char *sets[] = { set };
	char *text = text_with(line_of("device"), "device: moon");
	struct lh_jobfile_source src = { .yaml = text, .yaml_bytes = strlen(text),
					 .file = file, .base_dir = dir };
	struct lh_job job = { 0 };
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	memset(file, 'd', sizeof(file) - 1);
	assert_true(lh_jobfile_load(&job, &src, &err) < 0);
	assert_non_null(strstr(err.text, "d:2: device: found 'moon', auto, cpu or cuda is"));
	free(text);
	text = text_with(-1, NULL);
	memset(set, '9', sizeof(set) - 1);
	memcpy(set, "checkpoint.keep=", 16);
	assert_true(load(&job, text, strlen(text), sets, 1, &err) < 0);
	assert_non_null(strstr(err.text, "checkpoint.keep: found '9"));
	assert_non_null(strstr(err.text, "is allowed"));
	memset(set, 'p', sizeof(set) - 1);
	memcpy(set, "model.preset=", 13);
	assert_true(load(&job, text, strlen(text), sets, 1, &err) < 0);
	assert_non_null(strstr(err.text, "llama-530m"));
	free(text);
}

static void presets_have_the_size_they_say(void **state)
{
	static const struct { const char *name; int64_t params; } sizes[] = {
		{ "demo", 3475968 },        { "llama-39m", 38811136 },
		{ "llama-268m", 268497920 }, { "llama-530m", 530117632 },
		{ "llama-1b", 1235814400 }, { "llama-8b", 8030261248 },
	};

	(void)state;
	for (const struct lh_preset *p = lh_presets; p->name; p++) {
		char *text = lh_asprintf(
			"{ name: a, model: { preset: %s }, data: { train: zeros.bin, "
			"seq_len: 64 }, batch: { sequences: 1 }, optimizer: { lr: 1 }, "
			"phases: [{ name: a, attention: full, until: manual }] }", p->name);
		struct lh_job job;
		struct lh_err err;
		size_t i = 0;

		while (i < sizeof(sizes) / sizeof(sizes[0]) &&
		       strcmp(sizes[i].name, p->name))
			i++;
		if (i == sizeof(sizes) / sizeof(sizes[0]))
			fail_msg("preset '%s' has no size here: add it", p->name);
		if (load(&job, text, strlen(text), NULL, 0, &err))
			fail_msg("preset '%s': %s", p->name, err.text);
		assert_int_equal(lh_job_model_params(&job.model), sizes[i].params);
		lh_job_release(&job);
		free(text);
	}
}

static void what_is_no_job_file_is_refused(void **state)
{
	static const struct { const char *text; size_t bytes; const char *says; } bad[] = {
		{ "", 0, "empty" },
		{ "# nothing\n", 10, "empty" },
		{ "- a\n", 4, "section of keys" },
		{ "a: [", 4, "not YAML" },
		{ "name: \xff\xfe\n", 9, "not YAML" },
		{ "name: a\0b\n", 10, "not YAML" },
		{ "a: &x 1\nb: *x\n", 14, "anchors" },
		{ "a: *x\n", 6, "not YAML" },
		{ "a: !!int 1\n", 11, "tags" },
		{ "%YAML 1.1\n%TAG !a b\n---\na: 1\n", 29, ":2: %TAG is not allowed" },
		{ "a: 1\n---\nb: 2\n", 14, "second document" },
		{ "? [a]\n: 1\n", 10, "plain word" },
	};
	struct lh_job job;
	struct lh_err err;
	char *deep = lh_calloc(1, 3 << 20);

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_true(load(&job, bad[i].text, bad[i].bytes, NULL, 0, &err) < 0);
		if (!strstr(err.text, bad[i].says) &&
		    !(i == 7 && strstr(err.text, "aliases")))
			fail_msg("case %zu gave: %s", i, err.text);
	}
	memset(deep, '[', 5000);
	assert_true(load(&job, deep, 5000, NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "deep"));
	memset(deep, 'a', 3 << 20);
	assert_true(load(&job, deep, 3 << 20, NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "at most"));
	free(deep);
}

static void overrides_follow_the_same_rules(void **state)
{
	static const char *const fine[] = { "optimizer.lr=1e-4", "phases.0.topk=16",
					    "phases.recovery.until.steps=9",
					    "evaluation.every_steps=0" };
	static const struct { const char *set, *says; } bad[] = {
		{ "optimizer.lr=fast", "found 'fast'" },
		{ "optimizer.lrr=1", "no such key" },
		{ "phases.7.topk=1", "no such place" },
		{ "phases.nobody.topk=1", "no such place" },
		{ "phases.topk=1", "no such place" },
		{ "nothing", "no such place" },
		{ "checkpoint.keep=", "there is no value" },
		{ "checkpoint.keep=[1", "checkpoint.keep=[1': value:" },
		{ "checkpoint={kept: 1}", "checkpoint.kept: there is no such key" },
		{ "=1", "no such place" },
		{ "name.x=1", "no such place" },
	};
	char *text = text_with(-1, NULL);
	struct lh_job job;
	struct lh_err err;

	(void)state;
	if (load(&job, text, strlen(text), fine, 4, &err))
		fail_msg("refused: %s", err.text);
	assert_true(job.optimizer.lr == 1e-4);
	assert_int_equal(job.phases[0].lighthouse.topk, 16);
	assert_int_equal(job.phases[1].until.steps, 9);
	lh_job_release(&job);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_true(load(&job, text, strlen(text), &bad[i].set, 1, &err) < 0);
		if (!strstr(err.text, bad[i].says) || !strstr(err.text, "--set"))
			fail_msg("%s gave: %s", bad[i].set, err.text);
	}
	free(text);
}

/* As deep as a call's line has room for: the tree is walked by calling. */
static void an_override_is_a_few_levels_deep(void **state)
{
	enum { LEVELS = 2000000 };
	char *set = lh_calloc(1, 2 * LEVELS + 8), *text = text_with(-1, NULL);
	struct lh_job job;
	struct lh_err err;

	(void)state;
	for (int i = 0; i < LEVELS; i++)
		memcpy(set + 2 * i, "a.", 2);
	strcpy(set + 2 * LEVELS, "a=1");
	assert_int_equal(load(&job, text, strlen(text), (const char *const *)&set, 1, &err),
			 LH_EJOBFILE);
	assert_non_null(strstr(err.hint, "a few levels deep"));
	free(text);
	free(set);
}

static void sections_and_overrides_are_not_endless(void **state)
{
	enum { KEYS = 1200 };
	const char *set[KEYS];
	char *text = lh_calloc(KEYS, 16), *end = text;
	struct lh_job job;
	struct lh_err err;

	(void)state;
	for (int i = 0; i < KEYS; i++) {
		set[i] = "seed=1";
		end += sprintf(end, "k%d: 1\n", i);
	}
	assert_int_equal(load(&job, text, strlen(text), NULL, 0, &err), LH_EJOBFILE);
	assert_non_null(strstr(err.text, ":1001: too many keys"));
	assert_int_equal(load(&job, text, strlen(text), set, KEYS, &err), LH_EJOBFILE);
	assert_non_null(strstr(err.text, "1200 overrides"));
	free(text);
}

static void the_resolved_job_survives_json(void **state)
{
	char *text = text_with(-1, NULL);
	struct lh_job job, back = { 0 };
	static const char *const digits[] = { "optimizer.lr=0.30000000000000004" };
	json_t *json, *again;
	char *written;
	struct lh_err err;

	(void)state;
	if (load(&job, text, strlen(text), digits, 1, &err))
		fail_msg("the good file is refused: %s", err.text);
	assert_int_equal(job.phases[0].dense_count, 2);
	assert_int_equal(job.phases[0].dense_layers[1], 3);
	assert_int_equal(lh_jobfile_total_steps(&job), 25);
	json = lh_jobfile_to_json(&job);
	written = json_dumps(json, 0);
	again = json_loads(written, 0, NULL);
	if (lh_jobfile_from_json(&back, again, &err))
		fail_msg("from JSON: %s", err.text);
	assert_true(back.optimizer.lr == job.optimizer.lr);
	json_decref(again);
	free(written);
	again = lh_jobfile_to_json(&back);
	assert_true(json_equal(json, again));
	json_decref(json);
	json_decref(again);
	lh_job_release(&job);
	lh_job_release(&back);
	free(text);
}

static void data_that_does_not_fit_is_refused(void **state)
{
	char *path = lh_asprintf("%s/short.bin", dir);
	struct lh_shard_writer *w;
	int32_t ids[10] = { 0 };

	(void)state;
	assert_int_equal(lh_shard_writer_new(&w, path, 300, 256, NULL), 0);
	assert_int_equal(lh_shard_writer_add(w, ids, 10, NULL), 0);
	assert_int_equal(lh_shard_writer_commit(w, 1, NULL), 0);
	refused_with("data.train", "short.bin", "holds 10 tokens, at least 257");
	assert_int_equal(truncate(path, 70), 0);
	refused_with("data.train", "[train.bin, short.bin]", "promises 10 tokens");
	assert_int_equal(lh_fs_write_atomic(path, "", 0, NULL), 0);
	refused_with("data.validation", "short.bin", "empty");
	assert_int_equal(lh_fs_write_atomic(path, "hello, I am no shard at all", 27, NULL), 0);
	refused_with("data.train", "short.bin", "not a token shard");
	refused_at("model.vocab", "270", "data.train", "token id 299");
	free(path);
}

/* No header says how wide they are, so the file must. */
static void bare_ids_are_read_when_the_file_says_so(void **state)
{
	static const char *const set[] = { "data.train=raw/bare.bin", "data.format=uint16" };
	static const char *const small[] = { "data.train=raw/bare.bin", "data.format=uint16",
					     "model.vocab=290" };
	char *path = lh_asprintf("%s/raw/bare.bin", dir), *text = text_with(-1, NULL);
	uint16_t ids[300];
	struct lh_job job;
	struct lh_err err;

	(void)state;
	for (int i = 0; i < 300; i++)
		ids[i] = (uint16_t)i;
	assert_int_equal(lh_fs_write_atomic(path, ids, sizeof(ids), NULL), 0);
	assert_int_equal(load(&job, text, strlen(text), set, 1, &err), LH_EDATA);
	assert_non_null(strstr(err.hint, "data.format"));
	if (load(&job, text, strlen(text), set, 2, &err))
		fail_msg("refused: %s", err.text);
	assert_int_equal(job.data.format, LH_SHARD_UINT16);
	lh_job_release(&job);
	assert_int_equal(load(&job, text, strlen(text), small, 3, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "token id 299"));
	assert_int_equal(unlink(path), 0);
	free(text);
	free(path);
}

static void validation_sets_have_names(void **state)
{
	static const char *const lists[] = {
		"data.validation={ web: val.bin, code: train.bin }",
		"data.validation=[{ name: web, path: val.bin }, { path: train.bin, name: code }]",
	};
	char *text = text_with(-1, NULL);
	struct lh_job job, back = { 0 };
	struct lh_err err;
	json_t *json;

	(void)state;
	for (int i = 0; i < 2; i++) {
		if (load(&job, text, strlen(text), &lists[i], 1, &err))
			fail_msg("refused: %s", err.text);
		json = lh_jobfile_to_json(&job);
		if (lh_jobfile_from_json(&back, json, &err))
			fail_msg("from JSON: %s", err.text);
		assert_int_equal(back.data.validation_count, 2);
		assert_string_equal(back.data.validation[0].name, "web");
		assert_string_equal(back.data.validation[1].name, "code");
		assert_string_equal(back.data.validation[1].path, job.data.train[0]);
		json_decref(json);
		lh_job_release(&back);
		lh_job_release(&job);
	}
	free(text);
}

static void odd_validation_sets_are_refused(void **state)
{
	(void)state;
	refused_with("data.validation", "[val.bin]", "found 'val.bin', { name: NAME");
	refused_with("data.validation", "[]", "found 'a list', a path, or 1 to 16");
	refused_with("data.validation", "{ a: [val.bin] }", "found 'a list', a path");
	refused_with("data.validation", "{ 'a b': val.bin }", "found the name 'a b'");
	refused_with("data.validation", "{ a: '' }", "found '', a path");
	refused_with("data.validation", "null", "found 'null', a path");
	refused_with("data.validation",
		     "[{ name: a, path: val.bin }, { name: a, path: val.bin }]",
		     "two sets are named 'a'");
	refused_with("data.validation", "{ a: val.bin, b: none.bin }", "none.bin");
}

static void passkeys_need_bytes_and_room(void **state)
{
	(void)state;
	refused_at("data.tokenizer", "none", "evaluation.passkey.every_steps",
		   "digits are hidden in bytes");
}

/* 600 ids, 0 .. ids-1 over and over. */
static int write_shard(const char *name, int ids)
{
	char *path = lh_asprintf("%s/%s", dir, name);
	struct lh_shard_writer *w;
	int32_t all[600];
	int rc;

	for (int j = 0; j < 600; j++)
		all[j] = j % ids;
	rc = lh_shard_writer_new(&w, path, (uint32_t)ids, LH_SHARD_NO_SEPARATOR, NULL);
	if (!rc)
		rc = lh_shard_writer_add(w, all, 600, NULL);
	if (!rc)
		rc = lh_shard_writer_commit(w, 1, NULL);
	free(path);
	return rc;
}

static void shards_are_found_once_whatever_their_names(void **state)
{
	static const char *const all[] = { "data.train=['[odd]/b*.bin', '[odd]/*.bin', "
					   "'[odd]/a[1].bin']" };
	static const char *const foreign[] = { "data.train='raw/*.bin'" };
	char *text = text_with(-1, NULL), *odd = lh_asprintf("%s/[odd]", dir);
	struct lh_jobfile_source src = { .yaml = text, .yaml_bytes = strlen(text),
					 .base_dir = odd };
	struct lh_job job, back = { 0 };
	struct lh_err err;
	json_t *json;

	(void)state;
	assert_int_equal(write_shard("[odd]/b.bin", 200), 0);
	assert_int_equal(write_shard("[odd]/a[1].bin", 200), 0);
	/* "[odd]" in a pattern of the file is a glob; the file itself is not. */
	assert_true(load(&job, text, strlen(text), all, 1, &err) < 0);
	assert_non_null(strstr(err.text, "no file matches"));
	src.set = (const char *[]){ "data.train=['b*.bin', '*.bin', 'a[1].bin']",
				    "data.validation=b.bin" };
	src.set_count = 2;
	if (lh_jobfile_load(&job, &src, &err))
		fail_msg("refused: %s", err.text);
	assert_int_equal(job.data.train_count, 2);
	assert_non_null(strstr(job.data.train[0], "/[odd]/a[1].bin"));
	assert_non_null(strstr(job.data.train[1], "/[odd]/b.bin"));
	json = lh_jobfile_to_json(&job);
	if (lh_jobfile_from_json(&back, json, &err))
		fail_msg("from JSON: %s", err.text);
	assert_int_equal(back.data.train_count, 2);
	assert_string_equal(back.data.train[0], job.data.train[0]);
	json_decref(json);
	lh_job_release(&back);
	lh_job_release(&job);
	/* JSON cannot carry this name: the worker would not see the shard. */
	assert_int_equal(write_shard("raw/\xff.bin", 200), 0);
	assert_true(load(&job, text, strlen(text), foreign, 1, &err) < 0);
	assert_non_null(strstr(err.text, "not UTF-8"));
	free(odd);
	free(text);
}

static void a_mixture_is_read_by_source(void **state)
{
	static const char *const set[] = { "data.train=[{path: train.bin, weight: 2.5}, "
					   "{path: [zeros.bin, '*s.bin', val.bin]}]" };
	char *text = text_with(-1, NULL);
	struct lh_job job, back = { 0 };
	struct lh_err err;
	json_t *json, *again;

	(void)state;
	if (load(&job, text, strlen(text), set, 1, &err))
		fail_msg("refused: %s", err.text);
	assert_int_equal(job.data.train_count, 3);
	assert_int_equal(job.data.source_count, 2);
	assert_true(job.data.sources[0].weight == 2.5);
	assert_int_equal(job.data.sources[0].shards, 1);
	assert_true(job.data.sources[1].weight == 1);
	assert_int_equal(job.data.sources[1].shards, 2);
	assert_non_null(strstr(job.data.train[1], "/val.bin"));
	json = lh_jobfile_to_json(&job);
	if (lh_jobfile_from_json(&back, json, &err))
		fail_msg("from JSON: %s", err.text);
	again = lh_jobfile_to_json(&back);
	assert_true(json_equal(json, again));
	assert_int_equal(back.data.source_count, 2);
	json_decref(json);
	json_decref(again);
	lh_job_release(&job);
	lh_job_release(&back);
	free(text);
}

static void a_mixture_that_is_none_is_refused(void **state)
{
	static const char *const bad[][2] = {
		{ "[{path: train.bin}, train.bin]", "a list of paths, or of { path" },
		{ "[train.bin, {path: train.bin}]", "a section" },
		{ "[{path: train.bin, weight: 0}]", "a number from 1e-06" },
		{ "[{path: train.bin, weight: -1}]", "a number from 1e-06" },
		{ "[{path: train.bin, weight: nan}]", "a number from 1e-06" },
		{ "[{path: train.bin, weight: '2'}]", "a number from 1e-06" },
		{ "[{weight: 1}]", "a list of paths, or of { path" },
		{ "[{path: train.bin, wait: 1}]", "a list of paths, or of { path" },
		{ "[{path: []}]", "a path or a list" },
		{ "[{path: none.bin}]", "No such file" },
		{ "{path: train.bin}", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused_with("data.train", bad[i][0], bad[i][1]);
}

static void an_accepted_job_is_read_back_as_it_is(void **state)
{
	char *text = text_with(-1, NULL);
	struct lh_job job, back = { 0 };
	json_t *json, *phase;
	struct lh_err err;

	(void)state;
	assert_int_equal(load(&job, text, strlen(text), NULL, 0, &err), 0);
	json = lh_jobfile_to_json(&job);
	phase = json_array_get(json_object_get(json, "phases"), 0);
	json_object_set_new(phase, "name", json_string("1 a"));
	json_object_set_new(json_object_get(json, "data"), "train",
			    json_pack("[s, s, s]", "/b*.bin", "/a.bin", "/a.bin"));
	json_object_set_new(json, "instability", json_pack("{s:s}", "action", "skip"));
	if (lh_jobfile_from_json(&back, json, &err))
		fail_msg("from JSON: %s", err.text);
	assert_non_null(json_object_get(json, "instability")); /* borrowed */
	assert_string_equal(back.phases[0].name, "1 a");
	assert_int_equal(back.data.train_count, 3);
	assert_string_equal(back.data.train[0], "/b*.bin");
	json_decref(json);
	lh_job_release(&back);
	lh_job_release(&job);
	free(text);
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	for (int i = 0; i < 2; i++) {
		char *path = lh_asprintf("%s/%s", dir, i ? "raw" : "[odd]");
		int rc = lh_fs_mkdirs(path, NULL);

		free(path);
		if (rc)
			return rc;
	}
	return write_shard("train.bin", 300) || write_shard("val.bin", 300) ||
	       write_shard("zeros.bin", 1);
}

static int teardown(void **state)
{
	(void)state;
	return lh_fs_remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_resolved_job_survives_json),
		cmocka_unit_test(every_key_refuses_what_it_cannot_be),
		cmocka_unit_test(every_required_key_is_missed),
		cmocka_unit_test(what_keys_decide_together_is_checked),
		cmocka_unit_test(the_preconditions_of_lighthouse_attention_are_checked),
		cmocka_unit_test(unknown_and_repeated_keys_are_refused),
		cmocka_unit_test(a_key_with_dots_is_no_section),
		cmocka_unit_test(a_section_is_no_value),
		cmocka_unit_test(dim_is_not_rounded_to_fit_the_heads),
		cmocka_unit_test(dimensions_are_those_of_the_weights),
		cmocka_unit_test(yarn_needs_an_order_and_angles_that_differ),
		cmocka_unit_test(long_input_does_not_hide_what_is_allowed),
		cmocka_unit_test(presets_have_the_size_they_say),
		cmocka_unit_test(shards_are_found_once_whatever_their_names),
		cmocka_unit_test(a_mixture_is_read_by_source),
		cmocka_unit_test(a_mixture_that_is_none_is_refused),
		cmocka_unit_test(validation_sets_have_names),
		cmocka_unit_test(odd_validation_sets_are_refused),
		cmocka_unit_test(passkeys_need_bytes_and_room),
		cmocka_unit_test(an_accepted_job_is_read_back_as_it_is),
		cmocka_unit_test(what_is_no_job_file_is_refused),
		cmocka_unit_test(overrides_follow_the_same_rules),
		cmocka_unit_test(an_override_is_a_few_levels_deep),
		cmocka_unit_test(sections_and_overrides_are_not_endless),
		cmocka_unit_test(data_that_does_not_fit_is_refused),
		cmocka_unit_test(bare_ids_are_read_when_the_file_says_so),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

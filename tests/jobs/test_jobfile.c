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

#include "jobfile_text.h"

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
	refused_with("devices", "3", "does not divide");
	refused_with("devices", "1", "counted by devices:, which is 1");
	refused_with("devices", "all", "counted by devices:, which is all");
	refused_with("join", "somewhere", "HOST:PORT is allowed");
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

/* The good file for four devices, two of which share a sequence, with two more changes. */
static int load_shared(const char *change, const char *more, struct lh_err *err)
{
	const char *const set[] = { "context=2", "devices=4", "join=''",
				    "batch.micro_sequences=0", "phases.0.scorer=norm",
				    "phases.0.topk=64", change, more };
	char *text = text_with(-1, NULL);
	struct lh_job job;
	int rc = load(&job, text, strlen(text), set, 8, err);

	if (!rc) {
		assert_int_equal(lh_job_groups(&job), job.devices / 2);
		assert_int_equal(lh_job_micro_sequences(&job), 1);
	}
	lh_job_release(&job);
	free(text);
	return rc;
}

/* What a hint names would do, if nothing else is changed. */
static void sequences_are_shared_where_that_can_be_done(void **state)
{
	static const struct { const char *change, *says, *hint, *does; } bad[] = {
		{ "context=3", "context: found 3, which does not divide the 4 devices",
		  "2 would do, or devices: 6", "context=2" },
		{ "devices=1", "context: found 2, which does not divide the 1 device",
		  "1 would do, or devices: 2", "devices=2" },
		{ "batch.sequences=3", "devices: found 4, whose 2 groups of 2 do not divide",
		  "e.g. of 4", "batch.sequences=4" },
		{ "batch.micro_sequences=2", "micro_sequences: found 2, sequences that devices "
		  "share", "1, or context: 1", "batch.micro_sequences=1" },
		{ "data.documents=separate", "data.documents: devices that share",
		  "attend, or context: 1", "data.documents=attend" },
		{ "phases.0.scorer=dilated", "phases.0.scorer: this scorer attends",
		  "norm, or context: 1", "phases.0.scorer=norm" },
		{ "phases.0.topk=32", "phases.0.topk: found 32, whose tiles of 16 are 2: the 4 "
		  "pieces", "topk: 64 would do, or tile: 8", "phases.0.topk=64" },
		{ "phases.0.tile=64", "phases.0.topk: found 64, whose tiles of 64 are 1:", "tile: 16 "
		  "would do", "phases.0.tile=16" },
	};
	struct lh_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (!load_shared(bad[i].change, "seed=1", &err) || !strstr(err.text, bad[i].says) ||
		    !strstr(err.hint, bad[i].hint))
			fail_msg("%s gave: %s (%s)", bad[i].change, err.text, err.hint);
		if (load_shared(bad[i].does, "seed=1", &err))
			fail_msg("%s gave: %s (%s)", bad[i].does, err.text, err.hint);
	}
}

/* 66 windows are no four pieces, whatever is chosen of them. */
static void what_no_choice_helps_is_the_length(void **state)
{
	struct lh_err err;

	(void)state;
	assert_true(load_shared("data.seq_len=264", "phases.0.topk=16", &err) < 0);
	assert_non_null(strstr(err.text, "data.seq_len: found 264, 2 devices share a sequence "
			       "in 4 pieces of whole tiles, and of whole windows of 4"));
	assert_string_equal(err.hint, "256 would do with topk: 64, or context: 1");
	assert_int_equal(load_shared("data.seq_len=256", "phases.0.topk=64", &err), 0);
}

static void full_attention_is_shared_in_equal_pieces(void **state)
{
	static const char text[] =
		"{ name: a, devices: 2, context: 2, model: { preset: demo }, data: { train: "
		"zeros.bin, seq_len: 62 }, batch: { sequences: 1 }, optimizer: { lr: 1 }, "
		"phases: [{ name: a, attention: full, until: manual }] }";
	static const char *const does[] = { "data.seq_len=64" };
	struct lh_job job;
	struct lh_err err;

	(void)state;
	assert_true(load(&job, text, strlen(text), NULL, 0, &err) < 0);
	assert_non_null(strstr(err.text, "data.seq_len: found 62, 2 devices share a sequence "
			       "in 4 equal pieces"));
	assert_string_equal(err.hint, "60 or 64 would do");
	assert_int_equal(load(&job, text, strlen(text), does, 1, &err), 0);
	lh_job_release(&job);
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

static void all_devices_are_one_until_there_is_a_place(void **state)
{
	static const char *const set[] = { "devices=all", "join=''" };
	char *text = text_with(-1, NULL);
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job;

	(void)state;
	assert_int_equal(load(&job, text, strlen(text), NULL, 0, &err), 0);
	assert_false(job.all_devices);
	lh_job_release(&job);
	assert_int_equal(load(&job, text, strlen(text), set, 2, &err), 0);
	assert_true(job.all_devices);
	assert_int_equal(job.devices, 1);
	lh_job_release(&job);
	free(text);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_resolved_job_survives_json),
		cmocka_unit_test(every_key_refuses_what_it_cannot_be),
		cmocka_unit_test(every_required_key_is_missed),
		cmocka_unit_test(what_keys_decide_together_is_checked),
		cmocka_unit_test(the_preconditions_of_lighthouse_attention_are_checked),
		cmocka_unit_test(sequences_are_shared_where_that_can_be_done),
		cmocka_unit_test(what_no_choice_helps_is_the_length),
		cmocka_unit_test(full_attention_is_shared_in_equal_pieces),
		cmocka_unit_test(unknown_and_repeated_keys_are_refused),
		cmocka_unit_test(a_key_with_dots_is_no_section),
		cmocka_unit_test(a_section_is_no_value),
		cmocka_unit_test(dim_is_not_rounded_to_fit_the_heads),
		cmocka_unit_test(dimensions_are_those_of_the_weights),
		cmocka_unit_test(yarn_needs_an_order_and_angles_that_differ),
		cmocka_unit_test(long_input_does_not_hide_what_is_allowed),
		cmocka_unit_test(presets_have_the_size_they_say),
		cmocka_unit_test(an_accepted_job_is_read_back_as_it_is),
		cmocka_unit_test(all_devices_are_one_until_there_is_a_place),
		cmocka_unit_test(what_is_no_job_file_is_refused),
		cmocka_unit_test(overrides_follow_the_same_rules),
		cmocka_unit_test(an_override_is_a_few_levels_deep),
		cmocka_unit_test(sections_and_overrides_are_not_endless),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

/* jobfile_text.h: a good job file, every key on a line of its own, and what is refused
 * when one of them is replaced. Included after cmocka.h. */
#ifndef LIGHTHOUSE_TEST_JOBFILE_TEXT_H
#define LIGHTHOUSE_TEST_JOBFILE_TEXT_H

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
	{ "devices", "devices: 2" },
	{ "join", "join: 'localhost:29400'" },
	{ "divide", "divide: gradients" },
	{ "context", "context: 1" },
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
	{ "data.documents", "  documents: attend" },
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
	{ "evaluation.passkey.file", "    file: ''" },
	{ "evaluation.passkey.from_tokens", "    from_tokens: 64" },
	{ "evaluation.passkey.samples", "    samples: 2" },
	{ "evaluation.passkey.seed", "    seed: 3" },
	{ "evaluation.choices", "  choices:" },
	{ "evaluation.choices.every_steps", "    every_steps: 12" },
	{ "evaluation.choices.files", "    files: { quiz: quiz.jsonl }" },
	{ "evaluation.choices.items", "    items: 5" },
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

static inline int line_of(const char *path)
{
	for (int i = 0; i < LINES; i++)
		if (!strcmp(good[i].path, path))
			return i;
	fail_msg("the good file of this test lacks '%s': add it", path);
	return -1;
}

/* The good file with one line replaced (at < 0: none). Heap. */
static inline char *text_with(int at, const char *line)
{
	char *text = lh_calloc(1, 8192 + (line ? strlen(line) : 0));

	for (int i = 0; i < LINES; i++) {
		strcat(text, i == at ? line : good[i].text);
		strcat(text, "\n");
	}
	return text;
}

static inline int load(struct lh_job *job, const char *text, size_t bytes,
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
static inline void refused_at(const char *path, const char *value, const char *blamed,
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

static inline void refused_with(const char *path, const char *value, const char *says)
{
	refused_at(path, value, path, says);
}

/* 600 ids, 0 .. ids-1 over and over. */
static inline int write_shard(const char *name, int ids)
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

static inline int write_quiz(void)
{
	static const char item[] = "{\"ctx\": \"a\", \"endings\": [\"b\", \"c\"], \"label\": 0}";
	char *path = lh_asprintf("%s/quiz.jsonl", dir);
	int rc = lh_fs_write_atomic(path, item, strlen(item), NULL);

	free(path);
	return rc;
}

static inline int setup(void **state)
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
	return write_quiz() || write_shard("train.bin", 300) || write_shard("val.bin", 300) ||
	       write_shard("zeros.bin", 1);
}

static inline int teardown(void **state)
{
	(void)state;
	return lh_fs_remove_tree(dir, NULL);
}

#endif

/* hf_model.h: a small model and a checkpoint of it, for tests of what becomes of it
 * in Hugging Face's form. Included after cmocka.h. */
#ifndef LIGHTHOUSE_TEST_HF_MODEL_H
#define LIGHTHOUSE_TEST_HF_MODEL_H

#include <jansson.h>

#include "../scratch.h"
#include "jobs/jobfile.h"
#include "train/checkpoint.h"
#include "train/hf_int.h"

static struct lh_dev *dev;

#define HF_SAVED "step-0000000007" /* by hf_save */

/* A job with that model section, in YAML's flow style. */
static inline void hf_job(struct lh_job *job, const char *model)
{
	char *yaml = lh_asprintf("name: tiny\nmodel: %s\n"
				 "data: { train: t, tokenizer: none, seq_len: 64 }\n"
				 "batch: { sequences: 1 }\noptimizer: { lr: 1e-3 }\n"
				 "phases: [{ name: all, attention: full, until: { steps: 1 } }]\n",
				 model);
	struct lh_jobfile_source src = { .yaml = yaml, .yaml_bytes = strlen(yaml),
					 .without_data = true };
	struct lh_err err = LH_ERR_INIT;

	memset(job, 0, sizeof(*job));
	if (lh_jobfile_load(job, &src, &err))
		fail_msg("%s", err.text);
	free(yaml);
}

static inline struct lh_model *hf_model(const struct lh_job *job)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;

	if (lh_model_new(&m, &lh_ops_cpu, dev, NULL, &job->model, 1, job->data.seq_len, NULL, 0,
			 &err))
		fail_msg("%s", err.text);
	return m;
}

/* Saves the model as step 7, in files of so many bytes; heap: the directory. */
static inline char *hf_save(struct lh_model *m, const struct lh_job *job, int64_t file_bytes)
{
	json_t *spec = lh_jobfile_to_json(job), *origin = json_object();
	struct lh_progress p = { .step = 7, .total_steps = -1 };
	struct lh_err err = LH_ERR_INIT;
	struct lh_snapshot s;
	int64_t bytes;
	char *path;

	assert_int_equal(lh_snapshot_new(&s, &lh_ops_cpu, dev, m, 0, 1, &err), 0);
	assert_int_equal(lh_snapshot_take(&s, &err), 0);
	s.file_bytes = file_bytes;
	if (lh_checkpoint_save(scratch_dir, &s, &p, spec, origin, &path, &bytes, &err))
		fail_msg("%s", err.text);
	lh_snapshot_free(&s);
	json_decref(spec);
	json_decref(origin);
	return path;
}

static inline json_t *hf_json(const char *name)
{
	size_t bytes;
	char *text = scratch_read(name, &bytes);
	json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(json);
	free(text);
	return json;
}

static inline int hf_setup(void **state)
{
	return scratch_setup(state) || lh_ops_cpu.open(&dev, 1, NULL);
}

static inline int hf_teardown(void **state)
{
	lh_ops_cpu.close(dev);
	return scratch_teardown(state);
}

#define HF_TEST(f) cmocka_unit_test_setup_teardown(f, hf_setup, hf_teardown)

#endif

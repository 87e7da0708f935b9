/* saved.h: a small model on the CPU, the snapshot that its checkpoints are written
 * from, and a scratch directory for them (scratch.h). Included after cmocka.h. */
#ifndef LIGHTHOUSE_TEST_SAVED_H
#define LIGHTHOUSE_TEST_SAVED_H

#include <jansson.h>

#include "../scratch.h"
#include "train/checkpoint.h"

static struct lh_dev *dev;
static struct lh_model *model;
static struct lh_snapshot snapshot;
static json_t *spec, *origin; /* for manifests */
static int saved_ranks = 1;   /* that saved_write writes for, one after the other */

/* Parameters of every kind; and as few as a model can have, where each call is
 * tried in many ways. */
static const struct lh_job_model saved_small = {
	.vocab = 19, .dim = 8, .layers = 2, .heads = 2, .kv_heads = 1, .head_dim = 4,
	.ffn_dim = 12, .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.02 };
static const struct lh_job_model saved_least = {
	.vocab = 5, .dim = 4, .layers = 1, .heads = 2, .kv_heads = 1, .head_dim = 2,
	.ffn_dim = 4, .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.02 };

/* For a test's setup: 0, or what cmocka takes for a failure. */
static inline int saved_setup(void **state, const struct lh_job_model *shape)
{
	struct lh_err err = LH_ERR_INIT;

	if (scratch_setup(state) || lh_ops_cpu.open(&dev, 1, &err))
		return -1;
	spec = json_pack("{s:s, s:[i, i]}", "name", "tiny", "list", 1, 2);
	origin = json_pack("{s:s}", "device", "here");
	return lh_model_new(&model, &lh_ops_cpu, dev, NULL, shape, 1, 4, NULL, 0, &err) ||
	       lh_snapshot_new(&snapshot, &lh_ops_cpu, dev, model, 0, 1, &err);
}

/* The part of one rank, as it writes it. */
static inline int saved_write_part(const char *dir, int64_t step, int rank, json_t *files,
				   int64_t *bytes, struct lh_err *err)
{
	struct lh_snapshot part;
	int64_t own;
	int rc;

	if (lh_snapshot_new(&part, &lh_ops_cpu, dev, model, rank, saved_ranks, err) ||
	    lh_snapshot_take(&part, err))
		return err->code;
	part.file_bytes = snapshot.file_bytes;
	rc = lh_checkpoint_write(dir, step, &part, files, &own, err);
	lh_snapshot_free(&part);
	*bytes += own;
	return rc;
}

/* A checkpoint of the model as it is. Of several ranks the first writes last. */
static inline int saved_write(const char *dir, const struct lh_progress *p, char **path,
			      int64_t *bytes, struct lh_err *err)
{
	json_t *files;
	int rc;

	if (saved_ranks == 1) {
		rc = lh_snapshot_take(&snapshot, err);
		return rc ? rc : lh_checkpoint_save(dir, &snapshot, p, spec, origin, path,
						    bytes, err);
	}
	files = json_object();
	*bytes = 0;
	rc = lh_checkpoint_begin(dir, p->step, err);
	for (int r = saved_ranks - 1; !rc && r >= 0; r--)
		rc = saved_write_part(dir, p->step, r, files, bytes, err);
	if (rc)
		lh_checkpoint_abandon(dir, p->step);
	else
		rc = lh_checkpoint_finish(dir, p, spec, origin, files, path, bytes, err);
	json_decref(files);
	return rc;
}

static inline int saved_teardown(void **state)
{
	lh_snapshot_free(&snapshot);
	lh_model_free(model);
	lh_ops_cpu.close(dev);
	json_decref(spec);
	json_decref(origin);
	return scratch_teardown(state);
}

#endif

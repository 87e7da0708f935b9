/* checkpoint.h: the whole state of training as a directory: complete or absent.
 *
 * checkpoints/step-%010d/ holds params.safetensors, moments.safetensors (tensors
 * by parameter name, ".m" and ".v") and manifest.json (manifest.h), written
 * last, which names the files with size and xxh64. It is written as step-N.tmp,
 * synced and renamed. Loading takes the newest that matches its manifest; a
 * damaged one is reported and set aside as step-N.damaged, where it is never
 * counted among those that are kept, and never deleted. Training thread, but for
 * lh_checkpoint_save.
 */
#ifndef LIGHTHOUSE_CHECKPOINT_H
#define LIGHTHOUSE_CHECKPOINT_H

#include <jansson.h>

#include "train/manifest.h"
#include "train/model.h"

/* The state in host memory, as it was at lh_snapshot_take. */
struct lh_snapshot {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	struct lh_model *model;
	float *state[3]; /* (params) by enum lh_model_state: weights, moments */
};

/* Takes the memory, 12 bytes a parameter, from ops->host_alloc: LH_ETOOBIG. */
int lh_snapshot_new(struct lh_snapshot *s, const struct lh_ops *ops, struct lh_dev *dev,
		    struct lh_model *model, struct lh_err *err);
void lh_snapshot_free(struct lh_snapshot *s);
int lh_snapshot_take(struct lh_snapshot *s, struct lh_err *err);

/* Writes DIR/step-N for p->step; replaces one of the same step. *path is the
 * caller's. `spec` is the resolved job. Any thread: uses the snapshot alone, and of
 * its model only what never changes. */
int lh_checkpoint_save(const char *dir, const struct lh_snapshot *s,
		       const struct lh_progress *p, const json_t *spec, char **path,
		       int64_t *bytes, struct lh_err *err);

/* Called for each checkpoint that was passed over, by the path it had. */
typedef void (*lh_checkpoint_damaged)(void *arg, const char *path,
				      const struct lh_err *why);

/* Newest good checkpoint into the model. LH_ENOTFOUND: none; the model must be
 * initialised then, a damaged one may have been read in part. Those that do not
 * match their manifest are set aside; those that cannot be read now, or are of
 * another format version, stay. *path is the caller's. */
int lh_checkpoint_load_newest(const char *dir, struct lh_model *model,
			      struct lh_progress *p, char **path,
			      lh_checkpoint_damaged damaged, void *arg,
			      struct lh_err *err);
/* Weights and progress of one; moments only if `moments`. */
int lh_checkpoint_load(const char *path, struct lh_model *model, struct lh_progress *p,
		       bool moments, struct lh_err *err);

/* Marks one that retention must leave, by a file in it: LH_MANIFEST_PINNED.
 * Another one of the same step inherits it. Whoever removes the file unpins it. */
int lh_checkpoint_pin(const char *path, struct lh_err *err);
/* Removes leftovers of torn writes, and all checkpoints but the pinned ones, the
 * newest `keep` (at least 1), those at multiples of `keep_every` steps (0: none)
 * and the one of step `protect` (-1: none). */
void lh_checkpoint_retain(const char *dir, int keep, int64_t keep_every, int64_t protect);
/* Removes those of later steps: training went back. Pinned ones are set aside as
 * step-N.left. */
void lh_checkpoint_remove_after(const char *dir, int64_t step);
/* DIR/step-N, whether it is there or not; the caller's. */
char *lh_checkpoint_path(const char *dir, int64_t step);

#endif

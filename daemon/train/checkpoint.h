/* checkpoint.h: the whole state of training as a directory: complete or absent.
 *
 * checkpoints/step-%010d/ holds params.safetensors, moments.safetensors (tensors
 * by parameter name, ".m" and ".v"; numbered files of at most
 * LH_CHECKPOINT_FILE_BYTES where one would be larger) and manifest.json (manifest.h),
 * written last, which names the files with size and xxh64. It is written as step-N.tmp,
 * synced and renamed. Of several ranks each that sees the directory writes the tensors of its part, into numbered
 * files of its own, and rank 0 the manifest once all are on disk: what is read does not
 * depend on how many there were. Loading takes the newest that matches its manifest. Newer
 * ones, which cannot be used, are reported and set aside: as step-N.damaged what
 * does not match, as step-N.unread what could not be read or is of another format
 * version. There they are never counted among those that are kept, never loaded,
 * and never deleted: training goes on from an older one, and what came after it
 * would be of another line. Training thread, but for lh_checkpoint_save.
 */
#ifndef LIGHTHOUSE_CHECKPOINT_H
#define LIGHTHOUSE_CHECKPOINT_H

#include <jansson.h>

#include "train/manifest.h"
#include "train/model.h"

/* Of tensors in a file; one that is larger has a file of its own. */
#define LH_CHECKPOINT_FILE_BYTES ((int64_t)4 << 30)

/* A rank's part of the state in host memory, as it was at lh_snapshot_take. */
struct lh_snapshot {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	struct lh_model *model;
	int rank, ranks;
	int64_t first, count; /* parameters of its tensors */
	float *state[3]; /* (count) by enum lh_model_state: weights, moments */
	int64_t file_bytes; /* LH_CHECKPOINT_FILE_BYTES */
	void (*wrote)(void *arg); /* after each piece of a save; NULL: nobody asks */
	void *wrote_arg;
};

/* Of rank `rank` of `ranks` that write, 0 of 1: all; `ranks` of them: nothing. Takes the memory, 12 bytes a parameter of the part,
 * from ops->host_alloc: LH_ETOOBIG. */
int lh_snapshot_new(struct lh_snapshot *s, const struct lh_ops *ops, struct lh_dev *dev,
		    struct lh_model *model, int rank, int ranks, struct lh_err *err);
void lh_snapshot_free(struct lh_snapshot *s);
/* Of a model of several ranks all of them do so, and an error is every rank's. */
int lh_snapshot_take(struct lh_snapshot *s, struct lh_err *err);

/* Writes DIR/step-N for p->step; replaces one of the same step. *path is the
 * caller's. `spec` is the resolved job, `origin` of origin.h. Any thread: uses the
 * snapshot alone, which is of all, and of its model only what never changes. */
int lh_checkpoint_save(const char *dir, const struct lh_snapshot *s,
		       const struct lh_progress *p, const json_t *spec,
		       const json_t *origin, char **path, int64_t *bytes,
		       struct lh_err *err);
/* The same in three acts, of several ranks that see the directory. Rank 0 makes place. Then
 * each, in any order, writes its part, syncs it, and adds its files to `files`, an object.
 * When all have, rank 0 finishes with the files of all of them, of `bytes` in all, to
 * which the manifest's are added; or it abandons what there is. */
int lh_checkpoint_begin(const char *dir, int64_t step, struct lh_err *err);
int lh_checkpoint_write(const char *dir, int64_t step, const struct lh_snapshot *s,
			json_t *files, int64_t *bytes, struct lh_err *err);
int lh_checkpoint_finish(const char *dir, const struct lh_progress *p, const json_t *spec,
			 const json_t *origin, json_t *files, char **path, int64_t *bytes,
			 struct lh_err *err);
void lh_checkpoint_abandon(const char *dir, int64_t step);

/* Called for each checkpoint that was passed over, by the path it had. */
typedef void (*lh_checkpoint_damaged)(void *arg, const char *path,
				      const struct lh_err *why);

/* Newest good checkpoint of step `up_to` at most (INT64_MAX: any) into the model.
 * LH_ENOTFOUND: there never was one, so that training may begin. LH_ECORRUPT: there
 * are or were some and none can be used: nothing was set aside, and nothing must be
 * begun, since it would push out what may still be repaired. LH_EIO: the directory
 * cannot be read, or nothing be set aside in it. After an error the model holds
 * anything. *path is the caller's. */
int lh_checkpoint_load_newest(const char *dir, int64_t up_to, struct lh_model *model,
			      struct lh_progress *p, char **path,
			      lh_checkpoint_damaged damaged, void *arg,
			      struct lh_err *err);
/* Weights and progress of one; moments only if `moments`. */
int lh_checkpoint_load(const char *path, struct lh_model *model, struct lh_progress *p,
		       bool moments, struct lh_err *err);

/* Likewise, for those who have the same model and cannot read the path: gets every piece, as
 * lh_model_write does. Only after a success are they good. */
typedef void (*lh_checkpoint_shown)(void *arg, enum lh_model_state which, int64_t offset,
				    int64_t count, const float *x);
int lh_checkpoint_show(const char *path, struct lh_model *model, bool moments,
		       lh_checkpoint_shown shown, void *arg, struct lh_err *err);

/* Marks one that retention must leave, by a file in it: LH_MANIFEST_PINNED.
 * Another one of the same step inherits it. Whoever removes the file unpins it. */
int lh_checkpoint_pin(const char *path, struct lh_err *err);
/* After step `newest` was saved: removes leftovers of torn writes, and of the
 * checkpoints up to it all but the pinned ones, the last `keep` (at least 1: its
 * own), those at multiples of `keep_every` steps (0: none) and the one of step
 * `protect` (-1: none). Those of later steps are of no line that goes on, count for
 * nothing and are left alone. */
void lh_checkpoint_retain(const char *dir, int64_t newest, int keep, int64_t keep_every,
			  int64_t protect);
/* Removes those of later steps, for good: training went back. Pinned ones are set
 * aside as step-N.left. An error: some may be there still. */
int lh_checkpoint_remove_after(const char *dir, int64_t step, struct lh_err *err);
/* DIR/step-N, whether it is there or not; the caller's. */
char *lh_checkpoint_path(const char *dir, int64_t step);

#endif

/* manifest.h: what a checkpoint says of itself, and whether its files agree.
 *
 * manifest.json in a checkpoint's directory: format and version, which build wrote
 * it, the progress of training, the resolved job, where its numbers come from
 * (origin.h), and each of the tensor files with its size and the xxh64 (seed 0) of
 * all its bytes. A checkpoint without one, or whose files differ from it, is damaged.
 * Nothing here knows a model, so that lhctl can check checkpoints too; the tensors
 * are checkpoint.c's. Any thread.
 *
 * Versions: 1 had one file of each kind and no origin; it is still read. 2 is this, 3
 * has weights alone, which may be of bf16 or fp16.
 *
 * Errors name the file within the directory; LH_ECORRUPT is damage and
 * LH_EUNSUPPORTED another version's checkpoint. A file that is not there is
 * LH_ENOTFOUND, one that cannot be read now LH_EIO.
 */
#ifndef LIGHTHOUSE_MANIFEST_H
#define LIGHTHOUSE_MANIFEST_H

#include <jansson.h>
#include <stdint.h>

#include "lighthouse/err.h"
#include "train/settings.h"
#include "train/watch.h"

/* Tensor files are of two kinds, each one file or several. */
enum lh_manifest_kind { LH_MANIFEST_PARAMS, LH_MANIFEST_MOMENTS, LH_MANIFEST_KINDS };
enum { LH_MANIFEST_FILES_MAX = 99999, LH_MANIFEST_NAME_BYTES = 48 };

/* True in the origin of weights that come from elsewhere: there are no moments. */
#define LH_MANIFEST_WEIGHTS_ONLY "weights_only"

#define LH_MANIFEST_FILE "manifest.json"
#define LH_MANIFEST_PINNED "pinned" /* empty; retention leaves the checkpoint */

enum { LH_VOIDED_MAX = 64 };

/* Everything besides tensors that a step depends on. */
struct lh_progress {
	int64_t attempt;       /* that wrote it */
	int64_t step;          /* optimizer steps completed */
	int64_t command;       /* last one applied after this very step, 0 none:
	                        * a replay goes on behind it */
	int phase;
	int64_t phase_step;    /* step at which the phase was entered */
	int64_t phase_tokens;  /* trained on in this phase */
	double phase_ms;       /* spent in its steps */
	int64_t cursor;        /* sequences drawn, see data.h */
	int64_t total_steps;   /* as known now, -1 not known */
	bool owed;             /* the evaluation that comes with this step was left */
	struct lh_watch watch; /* of losses and gradients */
	struct lh_settings settings; /* as they are now; of old checkpoints not known */

	/* switches, see rewind.h */
	int64_t phase_command; /* that asked for this phase, 0: nobody did */
	bool trial;            /* its first steps are watched */
	bool held;             /* its switch was taken back: its end is ignored */
	int64_t voided[LH_VOIDED_MAX]; /* commands taken back, never to be repeated */
	int voided_count;      /* the newest ones */
};

/* Name of file i of n, from 0: "params.safetensors" if it is the only one, else
 * "params-00001-of-00003.safetensors". */
void lh_manifest_file_name(char name[LH_MANIFEST_NAME_BYTES], enum lh_manifest_kind kind,
			   int i, int n);
/* How many files of a kind the manifest tells of, at least 1; of moments none where
 * its origin says so: weights_only. */
int lh_manifest_file_count(const json_t *manifest, enum lh_manifest_kind kind);

/* Adds a file that was written to `files`, an object. */
void lh_manifest_add_file(json_t *files, const char *file, int64_t bytes,
			  uint64_t xxh64);
/* Writes DIR/manifest.json and syncs the directory with it: to be called last.
 * What is JSON is borrowed. */
int lh_manifest_write(const char *dir, const struct lh_progress *p, const json_t *spec,
		      const json_t *origin, json_t *files, int64_t *bytes,
		      struct lh_err *err);

/* The manifest of the checkpoint at DIR, checked for form and version. New
 * reference. */
int lh_manifest_read(const char *dir, json_t **manifest, struct lh_err *err);
int lh_manifest_progress(const json_t *manifest, struct lh_progress *p,
			 struct lh_err *err);
/* 0 if a file of that size and xxh64 is what the manifest tells of, else
 * LH_ECORRUPT. */
int lh_manifest_match(const json_t *manifest, const char *file, int64_t bytes,
		      uint64_t xxh64, struct lh_err *err);

/* Called for each file in turn; `bytes` it has, `why` NULL if it is good. */
typedef void (*lh_manifest_verified)(void *arg, const char *file, int64_t bytes,
				     const struct lh_err *why);
/* Reads every byte of the checkpoint at DIR, going on behind a damaged file. The
 * first error is returned, with a hint and the directory's name. */
int lh_manifest_verify(const char *dir, lh_manifest_verified verified, void *arg,
		       struct lh_err *err);

#endif

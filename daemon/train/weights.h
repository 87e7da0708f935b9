/* weights.h: the parameters of a checkpoint, read without a model or a device.
 *
 * All files are open, and compared with the manifest, before the first tensor is
 * looked at: what retention removes later is still read to its end. They are mapped,
 * and what was read can be given back, so memory stays small however large they are.
 * Blocking; one thread.
 */
#ifndef LIGHTHOUSE_WEIGHTS_H
#define LIGHTHOUSE_WEIGHTS_H

#include "data/safetensors.h"
#include "lighthouse/job.h"
#include "train/manifest.h"
#include "train/params.h"

struct lh_weights {
	struct lh_job job;            /* that trained them */
	struct lh_progress progress;
	struct lh_params params;
	const struct lh_tensor **tensor; /* of params.table[i]: its count; lh_convert_can */
	const struct lh_safetensors **in; /* the file it lies in */
	struct lh_safetensors *file;
	int files;
};

/* Errors are those of a checkpoint, see manifest.h, and name DIR. */
int lh_weights_open(struct lh_weights *w, const char *dir, struct lh_err *err);
void lh_weights_close(struct lh_weights *w); /* zeroed is allowed */

#endif

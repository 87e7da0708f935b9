/* loop.h: the training thread of rank 0: a job from its newest checkpoint to its end.
 *
 * Between two optimizer steps lies a boundary, where alone things change, in
 * this order: a checkpoint that is due; commands of an earlier attempt that were
 * applied here; commands that have arrived; the phase's own end. So a resumed
 * run repeats what the lost one did, bit for bit.
 *
 * Told to end, by SIGTERM or a command, it does not wait for the next boundary: it
 * leaves an evaluation, a step between two micro-batches, or what it prepares. Of
 * that nothing is applied or recorded, and the next attempt does it.
 */
#ifndef LIGHTHOUSE_LOOP_H
#define LIGHTHOUSE_LOOP_H

#include <jansson.h>
#include <signal.h>

#include "lighthouse/job.h"
#include "lighthouse/ops.h"
#include "train/link.h"
#include "train/peers.h"

struct lh_loop_config {
	const struct lh_job *job;
	const json_t *spec;            /* the job, for manifests */
	const char *checkpoints;       /* directory */
	struct lh_peers *peers;        /* of several ranks (peers.h), or NULL */
	int host_ranks;                /* team.h */
	int devices;                   /* the job's, of those that this process sees */
	const struct lh_ops *ops;
	struct lh_link *link;
	int64_t attempt;
	bool paused;                   /* start paused */
	bool saved;                    /* a checkpoint was written before: there must be one */
	const json_t *replay;          /* array, see proto.h */
	const char *cache;             /* directory for what the device finds out, or NULL */
	const char *state_dir;         /* of the lhd whose GPU it is to be (gpulock.h) */
	volatile sig_atomic_t *stop;   /* set by SIGTERM: end as "stopped" */
	bool *done;                    /* set at the end: whether the job is done */
};

/* Runs the job to its end and posts the end record. 0 when the job is done,
 * cancelled or stopped; LH_E* when it failed, or is held: it cannot go on now, lost
 * nothing, and tries again when it is resumed. Both are posted too. */
int lh_loop_run(const struct lh_loop_config *config, struct lh_err *err);

#endif

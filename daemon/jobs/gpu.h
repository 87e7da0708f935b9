/* gpu.h: the GPUs of this machine, as lhd knows them, and where a job goes.
 *
 * lhd links no CUDA: it asks `lhworker-cuda --probe` once, at its start. Whether a
 * job fits is checked for every phase when it is submitted, by the arithmetic
 * that the worker uses too (train/estimate.h), so that the last phase cannot turn
 * out not to fit days later.
 */
#ifndef LIGHTHOUSE_GPU_H
#define LIGHTHOUSE_GPU_H

#include "lighthouse/err.h"
#include "lighthouse/job.h"

struct lh_gpu {
	bool usable;
	char name[128];
	int64_t memory_bytes;
	int count;         /* such GPUs: a rank takes one of them */
	struct lh_err why; /* when it is not usable */
};

/* Blocks for as long as the probe takes, seconds at most. */
void lh_gpu_find(struct lh_gpu *gpu, const char *bin_dir);

/* device auto becomes cpu or cuda, devices: all the GPUs that there are, or one CPU rank;
 * cuda without a usable GPU is refused with the reason (LH_EUNSUPPORTED), and so are more
 * GPUs than there are, or than divide the sequences (LH_EJOBFILE), and a job of a shape
 * that the device's ops cannot do, or (LH_ETOOBIG) with a phase that does not fit. */
int lh_gpu_place(const struct lh_gpu *gpu, struct lh_job *job, struct lh_err *err);

#endif

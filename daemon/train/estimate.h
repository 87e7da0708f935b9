/* estimate.h: what a job needs and how fast it would run, without running it.
 *
 * Memory comes from the layout that the worker itself uses (layout.h): the same
 * code says what fits. Time comes from counting: operations of GEMMs and
 * attention over the rates that a chip reaches, bytes of everything else over
 * its bandwidth. estimate.c says which rates were measured.
 *
 * Pure arithmetic, no device.
 */
#ifndef LIGHTHOUSE_ESTIMATE_H
#define LIGHTHOUSE_ESTIMATE_H

#include "train/layout.h"

struct lh_chip {
	const char *name;        /* "h100" */
	const char *device;      /* what its driver calls it */
	int64_t memory_bytes;    /* of the device */
	double gemm_flops;       /* per second, bf16, at shapes of a decoder */
	double sdpa_flops;       /* forward, long sequences */
	double sdpa_bwd_flops;
	double bytes_per_s;      /* of elementwise kernels, read + written */
	int host_devices;        /* in one host */
	double link_bytes_per_s; /* that one sends to the others of its host */
	double network_bytes_per_s; /* that a host sends, all its cards together */
};

/* NULL when there is none of that name. */
const struct lh_chip *lh_chip_find(const char *name);
/* The same by a device's own name: lh_device_info. */
const struct lh_chip *lh_chip_of_device(const char *device);
/* Stands in where there is none: times by it are only compared with each other. */
extern const struct lh_chip lh_chip_unknown;
/* "h100, h200" */
const char *lh_chip_names(void);
/* What a job can have of a GPU's memory: the driver and others keep some. */
int64_t lh_chip_usable_bytes(int64_t memory_bytes);

struct lh_estimate_phase {
	enum lh_recompute recompute; /* chosen */
	struct lh_layout_bytes bytes;
	double step_s;               /* 0 without a chip */
	double exchange_s;           /* of it, waiting for other devices (exchange.h) */
	/* Of them, for deterministic: true. */
	int64_t deterministic_bytes;
	double deterministic_s;
};

struct lh_estimate {
	struct lh_estimate_phase phase[LH_PHASES_MAX];
	int64_t bytes; /* the most of any phase, and of an evaluation */
};

/* Chooses for every phase what is computed again, as the worker will. LH_ETOOBIG
 * names the phase that does not fit, LH_EUNSUPPORTED what the device's ops cannot
 * do. chip: for times, or NULL. */
int lh_estimate_job(struct lh_estimate *out, const struct lh_job *job,
		    const struct lh_ops_sizes *sizes, const struct lh_chip *chip,
		    int64_t memory_bytes, struct lh_err *err);

#endif

/* scale.h: a job as it stands on 1, 2, 4 and more devices, by arithmetic: for 'lhctl
 * estimate --devices'. Its batch stays as it is, so a device has the less of it the more
 * there are; numbers that do not divide it are left out. */
#ifndef LIGHTHOUSE_CTL_SCALE_H
#define LIGHTHOUSE_CTL_SCALE_H

#include <jansson.h>

#include "train/estimate.h"

struct ctl_scale {
	int count;
	struct {
		int devices;
		bool fits; /* each of them; else there is nothing in e */
		struct lh_estimate e;
	} row[32];
};

/* Up to `most` devices of the chip's kind. Errors as of lh_estimate_job; that the job is
 * too big for some numbers of devices is none. */
int ctl_scale_measure(struct ctl_scale *s, const struct lh_job *job,
		      const struct lh_chip *chip, int64_t memory_bytes, int most,
		      struct lh_err *err);
/* New reference: a list of rows. */
json_t *ctl_scale_json(const struct ctl_scale *s, const struct lh_job *job);
/* A table; `most` as it was asked for. */
void ctl_scale_print(const struct ctl_scale *s, const struct lh_job *job, int most);

#endif

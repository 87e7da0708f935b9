/* tfevents.h: writes an event file as TensorBoard reads it.
 *
 * A file of TFRecords: length, its masked CRC-32C, the bytes, theirs; each holds an Event
 * of TensorFlow's event.proto, encoded here by hand: three kinds of field are all that
 * scalars need. It is complete under its name or not there. One thread.
 */
#ifndef LIGHTHOUSE_TFEVENTS_H
#define LIGHTHOUSE_TFEVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/err.h"

struct ctl_tfevents;

/* One value of a step. */
struct ctl_scalar {
	const char *tag;     /* "loss/train" */
	double value;        /* kept as a float; NaN is one */
};

/* Begins the file that will be DIR/events.out.tfevents.SECONDS.lighthouse, by which name
 * TensorBoard knows it; makes DIR. LH_EINVAL: it is there, and not `replace`; LH_EIO. */
int ctl_tfevents_open(struct ctl_tfevents **f, const char *dir, int64_t time_ms, bool replace,
		      struct lh_err *err);
/* An event. Failures are told of by close. */
void ctl_tfevents_write(struct ctl_tfevents *f, int64_t time_ms, int64_t step,
			const struct ctl_scalar *scalars, int count);
/* Gives the file its name. LH_EIO: there is none. Frees in either case. */
int ctl_tfevents_close(struct ctl_tfevents *f, struct lh_err *err);
/* Leaves none; NULL is allowed. */
void ctl_tfevents_discard(struct ctl_tfevents *f);

#endif

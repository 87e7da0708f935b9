/* tensorboard.h: the numbers of a job as runs that TensorBoard shows. */
#ifndef LIGHTHOUSE_TENSORBOARD_H
#define LIGHTHOUSE_TENSORBOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "ctl.h"

/* Writes DIR/NAME-JOB, the line that counts, and below it abandoned-attempt-N for each
 * attempt that did steps which another one did again. CTL_DONE, or the code to exit with
 * after printing why; no file is written in part. */
int ctl_tensorboard_write(const struct ctl *c, struct ctl_client *k, int64_t job,
			  const char *dir, bool replace);

#endif

/* nvml.h: what NVIDIA's driver tells of its GPUs, by its libnvidia-ml.so.1.
 *
 * Opened when lhgpus starts, a process of its own: a call into a driver that is in
 * trouble may never come back, and then not even SIGKILL ends the process before it does.
 * The library is part of the driver and needs no CUDA. One thread.
 */
#ifndef LIGHTHOUSE_NVML_H
#define LIGHTHOUSE_NVML_H

#include <jansson.h>

#include "lighthouse/err.h"

/* LH_EUNSUPPORTED: there is no driver, or it says why not. */
int lh_nvml_open(struct lh_err *err);
/* One object a GPU, as `gpus` of daemon.devices; what a GPU does not tell is null. Each
 * has "processes" too: [{pid, bytes}], those of which the driver knows the memory. NULL
 * and *err: the driver fails as a whole. */
json_t *lh_nvml_read(struct lh_err *err);

#endif

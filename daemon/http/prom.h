/* prom.h: what is known of lhd and its jobs, in Prometheus' text format (0.0.4).
 *
 * Names carry their unit; the table in prom.c is the list of them. Jobs are those that
 * have not ended and those that ended in the last day, labelled job and name. No state,
 * no I/O; any thread. */
#ifndef LIGHTHOUSE_PROM_H
#define LIGHTHOUSE_PROM_H

#include <jansson.h>

#include "base/buf.h"

#define LH_PROM_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define LH_PROM_ENDED_MS 86400000

/* `daemon`: numbers by the keys of the table, and "version". `devices`: as
 * daemon.devices tells. `jobs`: summaries as job.get gives them, with more numbers by the
 * keys of the table. What is missing or null is left out; of a loss it is NaN. */
void lh_prom_write(struct lh_buf *out, const json_t *daemon, const json_t *devices,
		   const json_t *jobs);

#endif

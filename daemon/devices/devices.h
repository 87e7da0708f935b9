/* devices.h: what the machine does that jobs run on: CPU, memory, disk, GPUs, and what
 * each worker takes of them.
 *
 * Read only while somebody asks, at most once in LH_DEVICES_FRESH_MS whoever asks: /proc
 * on the thread pool (host.h), GPUs by a process of their own (gpus.h). Loop thread.
 */
#ifndef LIGHTHOUSE_DEVICES_H
#define LIGHTHOUSE_DEVICES_H

#include <jansson.h>
#include <uv.h>

#include "jobs/jobs.h"

enum { LH_DEVICES_FRESH_MS = 1000 };

struct lh_devices;

/* Borrows all but `bin_dir`, where lhgpus lies. */
struct lh_devices *lh_devices_new(uv_loop_t *loop, struct lh_jobs *jobs,
				  const char *state_dir, const char *bin_dir);
/* Calls `done` once, later or at once, with the result of daemon.devices, borrowed. */
void lh_devices_ask(struct lh_devices *d, void (*done)(void *arg, json_t *devices),
		    void *arg);
/* Nobody waits for an answer any more. */
void lh_devices_close(struct lh_devices *d, void (*closed)(void *arg), void *arg);

#endif

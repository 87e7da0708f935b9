/* host.h: what this machine's CPU, memory and disk do, by /proc. Blocking, for the thread
 * pool; one thread at a time. */
#ifndef LIGHTHOUSE_HOST_H
#define LIGHTHOUSE_HOST_H

#include <jansson.h>
#include <stdint.h>

/* Between two readings. A zeroed one has had none. */
struct lh_host {
	const char *proc;         /* "/proc", but in tests */
	const char *state_dir;    /* of whose disk */
	char cpu[128];            /* its name; "": not read yet */
	int64_t busy, total;      /* ticks of all CPUs */
};

/* As `host` of daemon.devices: utilisation is that since the reading before, null in the
 * first one. What cannot be read is null. */
json_t *lh_host_read(struct lh_host *h);
/* Memory of one process that is in RAM, or -1. */
int64_t lh_host_resident_bytes(const struct lh_host *h, int64_t pid);

#endif

/* oom.h: how many processes the kernel has killed here for want of memory.
 *
 * The count of the cgroup that this process and its children are in. A worker
 * that was killed by a signal nobody sent, while it went up, died of that. */
#ifndef LIGHTHOUSE_OOM_H
#define LIGHTHOUSE_OOM_H

#include <stdint.h>

/* The file that holds the count (memory.events of cgroup v2, memory.oom_control
 * of v1), or NULL where there is none. Heap. Blocking; at start. */
char *lh_oom_find(void);
/* The same with /proc/self/cgroup and /sys/fs/cgroup elsewhere, for tests. */
char *lh_oom_find_in(const char *self_cgroup, const char *root);
/* The count, or -1 if the file cannot be read. NULL is allowed. */
int64_t lh_oom_kills(const char *file);

#endif

/* gpulock.h: a GPU is one state directory's at a time.
 *
 * A job is sized for a whole GPU, and an lhd gives it one of its own jobs at a time.
 * Of another lhd on the machine, with another state directory and mostly another
 * user's, it knows nothing. So a worker locks a file of the GPU's UUID, in a directory
 * that all users of the machine write to. Workers of one state directory share the
 * lock; those of another are told who has it. It ends with its process.
 *
 * The file says whose it is: "DEV:INO PID\nPATH\n", the numbers of the state directory
 * (two containers may call theirs alike), and for people its path and the first worker
 * to take it. It is written under an exclusive lock, so it is whole whenever somebody
 * has a shared one. Whoever may use the GPU may write it: what it says is hostile
 * input. Containers with a /run/lock of their own do not see each other.
 */
#ifndef LIGHTHOUSE_GPULOCK_H
#define LIGHTHOUSE_GPULOCK_H

#include "lighthouse/err.h"

/* An fd; closing it gives the lock back. LH_EBUSY: another state directory's worker
 * has it, named in text and hint; LH_EIO: there is no such lock to be had. Does not
 * wait. */
int lh_gpulock_take(const char *uuid, const char *state_dir, struct lh_err *err);

/* The file: in /run/lock where every user may write to that, else in /tmp. Heap. */
char *lh_gpulock_path(const char *uuid);

#endif

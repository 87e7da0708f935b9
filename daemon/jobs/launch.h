/* launch.h: the command line that an attempt is started with.
 *
 *   lhkeeper DIR -- lhworker-cpu --attempt DIR                       one device
 *   lhkeeper DIR -- mpiexec.hydra ... -n N lhworker-cpu --attempt DIR    N
 *
 * Ranks are started by MPICH's launcher: it hands SIGTERM on to all of them, ends all of
 * them when one ends with an error, and they end with it: so the keeper has one process to
 * wait for and lhd one to kill. It is looked for beside lhd, then in PATH. Why a rank was
 * lost is told by that rank's own parent (train/peers.h).
 *
 *   lhkeeper DIR -- lhworker-cpu --gather DIR .../mpiexec.hydra      N that join
 *
 * Of a job with `join` the ranks are started by the user, and come in by a door (join/door.h).
 */
#ifndef LIGHTHOUSE_LAUNCH_H
#define LIGHTHOUSE_LAUNCH_H

#include "lighthouse/err.h"
#include "lighthouse/job.h"

enum { LH_LAUNCH_ARGS = 20 };

struct lh_launch {
	char *keeper, *launcher, *worker; /* programs; launcher NULL: one device */
	char count[12];
	char *args[LH_LAUNCH_ARGS];       /* NULL at the end; args[0] is the keeper */
};

/* DIR/NAME of bin_dir, or else of PATH, if it can be run; heap, or NULL. */
char *lh_launch_find(const char *name, const char *bin_dir);

/* LH_EUNSUPPORTED: the job has several devices, and there is no launcher. Any thread. */
int lh_launch_check(const struct lh_job *job, const char *bin_dir, struct lh_err *err);

/* Of an attempt in `dir`, which outlives it; fails as lh_launch_check. To be released whatever
 * comes. */
int lh_launch_init(struct lh_launch *l, const struct lh_job *job, const char *bin_dir,
		   char *dir, struct lh_err *err);
void lh_launch_release(struct lh_launch *l);

#endif

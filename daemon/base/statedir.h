/* statedir.h: the state directory: where it is, and who owns it.
 *
 * Everything lhd knows lies in one directory: sockets, database, jobs. One lhd
 * at a time owns it, by a lock that ends with the process, and each lhd that
 * does gets a larger generation number, so that workers can tell a newer one
 * from one that is about to die. Network file systems are refused: their locks,
 * sockets and database files do not keep such promises. Blocking; at start.
 */
#ifndef LIGHTHOUSE_STATEDIR_H
#define LIGHTHOUSE_STATEDIR_H

#include <stdint.h>
#include <sys/types.h>

#include "lighthouse/err.h"

struct lh_statedir {
	char *path;          /* absolute, no symbolic links */
	int64_t generation;  /* 1, 2, ... */
	int lock_fd;
};

/* The directory lhd and lhctl use when none is named: /var/lib/lighthouse for
 * root, else $XDG_STATE_HOME/lighthouse or ~/.local/state/lighthouse. Heap; NULL
 * and LH_EINVAL when there is no home either. */
char *lh_statedir_default(struct lh_err *err);

/* Creates it if it is not there, gives it `mode`, locks it, takes the next
 * generation. LH_EDENIED: it is somebody else's. LH_EBUSY names the process that has it; LH_EUNSUPPORTED a network file system;
 * LH_ECORRUPT a generation file that holds no number. */
int lh_statedir_open(struct lh_statedir *dir, const char *path, mode_t mode,
		     struct lh_err *err);
/* Gives the lock back and frees. A zeroed one is fine. */
void lh_statedir_close(struct lh_statedir *dir);

/* The name of the network file system that statfs(2) calls `type`, or NULL. */
const char *lh_statedir_network_fs(unsigned long type);

#endif

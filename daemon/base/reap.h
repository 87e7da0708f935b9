/* reap.h: children that this program did not start, and those that are to end with it.
 *
 * In a container lhd may be PID 1: a worker whose keeper was killed becomes its
 * child, and stays a zombie after its end unless it is waited for. So do the
 * keepers that were started by the lhd which this process was before. libuv waits
 * for the children it started, and for those alone, at once; so what is still a
 * zombie at a second look is nobody's.
 */
#ifndef LIGHTHOUSE_REAP_H
#define LIGHTHOUSE_REAP_H

enum { LH_REAP_MS = 2000 }; /* between two looks */

/* Whether this process has to: it is PID 1, or has children. To be asked before it
 * starts any. */
int lh_reap_is_due(void);
/* One look; gives the number of children that were waited for. One thread. */
int lh_reap_orphans(void);
/* Kills every child and waits for it, until there is none. A process that orphans come to
 * (PR_SET_CHILD_SUBREAPER) ends all that its children have started. */
void lh_reap_kill(void);

#endif

/* failpoint.h: named places at which a test can make a process fail.
 *
 * Compiled in by FAILPOINTS=1 alone (a build of its own, see the Makefile); in any
 * other build they are nothing. A process reads at its first one:
 *
 *   LH_FAILPOINTS     "NAME=ACTION@N[,...]": at the N-th time (1, 2, ...) that this
 *                     process comes to NAME, once over all processes. ACTION:
 *                     kill   it is killed by SIGKILL, there and then
 *                     error  LH_FAILS is true once: ENOSPC; at "alloc" no memory
 *                     stop   it is stopped by SIGSTOP
 *                     spoil  LH_SPOILS is true once: a value is to be a wrong one
 *                     hold   the thread waits there until the file free-NAME is
 *                            in LH_FAILPOINT_DIR
 *   LH_PLANT          name of a bug that is planted: LH_PLANTED(name) is true
 *   LH_FAILPOINT_DIR  where it notes by files what it came to (hit-NAME) and what
 *                     it did (done-NAME-ACTION), so that no action is repeated
 *
 * tests/crash drives them all but those that spoil: they change what a job learns.
 * Any thread.
 */
#ifndef LIGHTHOUSE_FAILPOINT_H
#define LIGHTHOUSE_FAILPOINT_H

#include <stdbool.h>

#ifdef LH_FAILPOINTS
void lh_failpoint(const char *name);
bool lh_failpoint_fails(const char *name); /* sets errno */
bool lh_failpoint_spoils(const char *name);
bool lh_failpoint_planted(const char *bug);
#define LH_FAILPOINT(name) lh_failpoint(name)
#define LH_FAILS(name) lh_failpoint_fails(name)
#define LH_SPOILS(name) lh_failpoint_spoils(name)
#define LH_PLANTED(bug) lh_failpoint_planted(bug)
#else
#define LH_FAILPOINT(name) ((void)0)
#define LH_FAILS(name) false
#define LH_SPOILS(name) false
#define LH_PLANTED(bug) false
#endif

#endif

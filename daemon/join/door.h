/* door.h: where the ranks of an attempt come in that the user's launcher has started.
 *
 *   lhkeeper DIR -- lhworker-cpu --gather DIR LAUNCHER
 *
 * A process an attempt, under its keeper in place of the launcher (jobs/launch.h). It
 * listens at the job's address until all ranks have a seat, then starts LAUNCHER,
 * mpiexec.hydra, with `-launcher manual`: that one starts nothing, it prints the command
 * line of a proxy for each rank and waits for them. The door hands each its own; join.h
 * tells what becomes of it. From then on an attempt is as any other: mpiexec hands SIGTERM
 * on, and ends all ranks when one was killed.
 *
 * A rank that goes before all have come gives its seat back. One whose host or launcher is
 * lost later is a fault that the door tells of (LH_ATTEMPT_FAULT), as are those that ranks
 * of other hosts send, and the end of all. Strangers, another's token, a wrong size and a
 * second rank of a number are refused, with the reason at both ends, and end nothing.
 */
#ifndef LIGHTHOUSE_DOOR_H
#define LIGHTHOUSE_DOOR_H

#include "lighthouse/err.h"

/* Until the attempt in `dir` is over: the exit status that the launcher had; where that
 * was killed by a signal, this process is, too. 0 as well when it is told to end before all
 * have come. LH_E*: it could not begin. */
int lh_door_run(const char *dir, const char *launcher, struct lh_err *err);

#endif

/* join.h: ranks that the user's launcher starts, on this host or others.
 *
 *   lhworker-cpu --join FILE [SECONDS]
 *
 * A job with `join: HOST:PORT` is trained by `devices` ranks that srun, mpirun or a script
 * starts, each as this command, with FILE the job's join file (joinfile.h). Who it is a rank
 * knows by its launcher (launcher.h). Rank 0 has to run on lhd's host, where the state
 * directory is; others need no file of it.
 *
 * Between CPU ranks, and for words of GPUs' ranks, bytes travel by MPICH, whose ranks find
 * each other through its process manager, Hydra: Slurm's PMI-2 could stand in for it, Open
 * MPI's PMIx and a plain script not. Hydra can leave the starting of its proxies, one a
 * rank here, to others (`-launcher manual`). So there is one way for all launchers, and no
 * rendezvous of our own for MPI or NCCL:
 *
 *   lhd - lhkeeper - door (door.h) - mpiexec.hydra
 *                      |                   |           control port of Hydra
 *                    line (sealed.h)       |
 *                      |                   |
 *   launcher -- lhworker --join -- hydra_pmi_proxy -- lhworker --attempt: the rank
 *
 * The token keeps strangers, and ranks of another job, out of a job, and tells a rank that
 * it is its own lhd whose commands it runs. What MPI, NCCL and Hydra open they do not
 * protect: as with these anywhere, the network between the hosts has to be one's own.
 *
 * A rank on lhd's host works in the attempt's directory. Elsewhere it has one of its own,
 * with the job in it and removed at the end; its output goes by Hydra to the attempt's log,
 * and what its parent says of its end (train/peers.h) by the line to the attempt's fault.
 * Its environment is that of its launcher, with LH_JOIN_*: what mpiexec's command runs, and
 * its place on its host. UCX and NCCL are told the interface that leads to rank 0's host,
 * and UCX to take TCP between ranks; variables of theirs that are set already stand.
 *
 * An attempt is one call: when a rank is lost all end, and the launcher is to start them
 * again while the job goes on. The exit status is 0 when the job is done, 1 when it is not,
 * 2 when the rank was refused and another try would be, too. SECONDS are how long a door is
 * waited for. SIGTERM asks for a checkpoint and the end of all, as one to the attempt
 * does.
 */
#ifndef LIGHTHOUSE_JOIN_H
#define LIGHTHOUSE_JOIN_H

#include "lighthouse/err.h"

enum { LH_JOIN_WAIT_S = 60 };

/* To the end of the attempt, as a rank for `device` ("cpu", "cuda"). 0: the job is done;
 * LH_E*: it is not, and why; a transient one may pass. */
int lh_join_run(const char *file, int wait_s, const char *device, struct lh_err *err);

/* Of a rank that runs, joined or not. */
struct lh_joined {
	int host_ranks;      /* that share its host's processors, it among them */
	int device, devices; /* its device is number `device` of the first `devices` */
};
void lh_joined_find(struct lh_joined *j, int rank, int size);
/* The exit code of a rank's process, for its launcher. One that was joined ends here: at
 * once, since MPI was not told to tidy up (kernels/cpu/comm.c), and with another code than
 * 0 by SIGKILL: where each rank has a proxy, mpiexec ends the others over a signal alone. */
int lh_joined_code(int code);

#endif

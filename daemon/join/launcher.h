/* launcher.h: which rank of how many a process is, by what its launcher left in the
 * environment.
 *
 *   name     set by                        rank, size, rank on its host
 *   slurm    srun, with PMIx or without    SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID
 *   openmpi  Open MPI's mpirun             OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK
 *   pmi      MPICH's mpiexec, and lhd's    PMI_RANK, PMI_SIZE, MPI_LOCALRANKID
 *   plain    a script, torchrun, ...       RANK, WORLD_SIZE, LOCAL_RANK
 *
 * A set is there when its rank or its size is; then both have to be good numbers. Several
 * may be there, as under srun --mpi=pmi2: they have to say the same, and PMIX_RANK, which
 * comes without a size, too. Where one launcher was started by another, as mpirun in a
 * batch of Slurm's, they do not: LH_LAUNCHER=NAME says whose word counts. Nothing is ever
 * assumed: a rank that took itself for the only one would train a job of its own.
 *
 * Pure functions of their arguments; any thread.
 */
#ifndef LIGHTHOUSE_LAUNCHER_H
#define LIGHTHOUSE_LAUNCHER_H

#include "lighthouse/err.h"

struct lh_standing {
	const char *launcher; /* its name above; a literal */
	int rank, size;
	int local_rank;       /* -1: it does not say */
};

/* `env` as environ: "NAME=VALUE", NULL at the end. LH_EINVAL: no launcher, half of one, no
 * number, or two that contradict each other. */
int lh_launcher_find(struct lh_standing *s, char *const *env, struct lh_err *err);

/* Of a rank that lhd's own launcher has started, one of `size`: what is left of a launcher
 * around lhd does not count. Alone, nobody is asked. LH_EINVAL. */
int lh_launcher_find_own(int *rank, int size, char *const *env, struct lh_err *err);

#endif

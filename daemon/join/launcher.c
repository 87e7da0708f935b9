/* launcher.c: see launcher.h. */
#include "join/launcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS_MAX = 9, SETS = 4 };

struct set {
	const char *launcher;
	const char *rank, *size, *local_rank;
};

static const struct set sets[SETS] = {
	{ "slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID" },
	{ "openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
	  "OMPI_COMM_WORLD_LOCAL_RANK" },
	{ "pmi", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID" },
	{ "plain", "RANK", "WORLD_SIZE", "LOCAL_RANK" },
};
static const struct set *const pmi = &sets[2];
static const char WITNESS[] = "PMIX_RANK", CHOICE[] = "LH_LAUNCHER";

static const char *get(char *const *env, const char *name)
{
	size_t n = strlen(name);

	for (; *env; env++)
		if (!strncmp(*env, name, n) && (*env)[n] == '=')
			return *env + n + 1;
	return NULL;
}

static int number_of(char *const *env, const char *name, int *n, struct lh_err *err)
{
	const char *text = get(env, name);
	size_t digits = text ? strspn(text, "0123456789") : 0;

	if (!text)
		return lh_err_set(err, LH_EINVAL, "%s is not set", name);
	if (!digits || digits > DIGITS_MAX || text[digits])
		return lh_err_set(err, LH_EINVAL, "%s is '%.60s', which is no number", name,
				  text);
	*n = atoi(text);
	return 0;
}

static bool is_there(const struct set *set, char *const *env)
{
	return get(env, set->rank) || get(env, set->size);
}

static int read_set(const struct set *set, char *const *env, struct lh_standing *s,
		    struct lh_err *err)
{
	int rc = number_of(env, set->rank, &s->rank, err);

	s->launcher = set->launcher;
	s->local_rank = -1;
	if (!rc)
		rc = number_of(env, set->size, &s->size, err);
	if (!rc && get(env, set->local_rank))
		rc = number_of(env, set->local_rank, &s->local_rank, err);
	if (rc)
		return rc;
	if (s->rank >= s->size)
		return lh_err_set(err, LH_EINVAL, "%s is %d, %s is %d: ranks count from 0",
				  set->rank, s->rank, set->size, s->size);
	if (s->local_rank >= s->size)
		return lh_err_set(err, LH_EINVAL, "%s is %d, and there are %d ranks",
				  set->local_rank, s->local_rank, s->size);
	return 0;
}

static int none(struct lh_err *err)
{
	char text[320] = "";

	for (int i = 0; i < SETS; i++) {
		size_t used = strlen(text);

		snprintf(text + used, sizeof(text) - used, "%s%s and %s",
			 !i ? "" : i < SETS - 1 ? ", " : ", or ", sets[i].rank,
			 sets[i].size);
	}
	lh_err_set(err, LH_EINVAL, "no launcher says which rank this is: looked for %s",
		   text);
	return lh_err_hint(err, "start it by srun, mpirun or mpiexec, or set RANK, "
			   "WORLD_SIZE and LOCAL_RANK");
}

static int contradict(struct lh_err *err)
{
	return lh_err_hint(err, "%s=NAME says which launcher counts: slurm, openmpi, pmi or "
			   "plain", CHOICE);
}

/* What another set says, too; with the first there is nothing to compare yet. */
static int join_set(const struct set *set, char *const *env, struct lh_standing *s,
		    struct lh_err *err)
{
	struct lh_standing one;
	int rc = read_set(set, env, &one, err);

	if (rc)
		return rc;
	if (s->launcher && (one.rank != s->rank || one.size != s->size)) {
		lh_err_set(err, LH_EINVAL, "%s says rank %d of %d, %s rank %d of %d",
			   s->launcher, s->rank, s->size, one.launcher, one.rank, one.size);
		return contradict(err);
	}
	if (!s->launcher)
		*s = one;
	else if (s->local_rank < 0)
		s->local_rank = one.local_rank;
	return 0;
}

static int hear_witness(char *const *env, const struct lh_standing *s, struct lh_err *err)
{
	int rank, rc = get(env, WITNESS) ? number_of(env, WITNESS, &rank, err) : 0;

	if (rc || !get(env, WITNESS) || rank == s->rank)
		return rc;
	lh_err_set(err, LH_EINVAL, "%s says rank %d of %d, %s %d", s->launcher, s->rank,
		   s->size, WITNESS, rank);
	return contradict(err);
}

static int find_chosen(struct lh_standing *s, const char *name, char *const *env,
		       struct lh_err *err)
{
	for (int i = 0; i < SETS; i++)
		if (!strcmp(sets[i].launcher, name))
			return read_set(&sets[i], env, s, err);
	lh_err_set(err, LH_EINVAL, "%s is '%.60s', and no launcher is called so", CHOICE,
		   name);
	return lh_err_hint(err, "slurm, openmpi, pmi or plain");
}

int lh_launcher_find(struct lh_standing *s, char *const *env, struct lh_err *err)
{
	const char *chosen = get(env, CHOICE);
	int rc = 0;

	*s = (struct lh_standing){ 0 };
	if (chosen)
		return find_chosen(s, chosen, env, err);
	for (int i = 0; !rc && i < SETS; i++)
		if (is_there(&sets[i], env))
			rc = join_set(&sets[i], env, s, err);
	if (!rc && !s->launcher)
		rc = none(err);
	return rc ? rc : hear_witness(env, s, err);
}

int lh_launcher_find_own(int *rank, int size, char *const *env, struct lh_err *err)
{
	struct lh_standing s;

	*rank = 0;
	if (size == 1)
		return 0;
	if (read_set(pmi, env, &s, err)) {
		lh_err_hint(err, "a rank is started by MPI's mpiexec.hydra, which sets it");
		return lh_err_prefix(err, "which of %d ranks", size);
	}
	*rank = s.rank;
	if (s.size == size)
		return 0;
	lh_err_set(err, LH_EINVAL, "the job has %d ranks, the launcher says that this is "
		   "rank %d of %d", size, s.rank, s.size);
	return lh_err_hint(err, "start as many as the job's devices");
}

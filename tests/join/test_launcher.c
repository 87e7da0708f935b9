/* test_launcher.c: a rank knows itself by what each launcher sets, and by nothing less. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "join/launcher.h"

#define ENV(...) ((char *[]){ __VA_ARGS__ __VA_OPT__(,) NULL })

/* What is found; where nothing is, `refused` is in the text or the hint. */
struct a_case {
	const char *refused; /* NULL: it is found */
	const char *launcher;
	int rank, size, local_rank;
	char *env[12];
};

static void check(const struct a_case *c)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_standing s;
	int rc = lh_launcher_find(&s, c->env, &err);

	if (!c->refused) {
		if (rc)
			fail_msg("%s: %s", c->env[0], err.text);
		assert_string_equal(s.launcher, c->launcher);
		assert_int_equal(s.rank, c->rank);
		assert_int_equal(s.size, c->size);
		assert_int_equal(s.local_rank, c->local_rank);
		return;
	}
	assert_int_equal(rc, LH_EINVAL);
	if (!strstr(err.text, c->refused) && !strstr(err.hint, c->refused))
		fail_msg("'%s' (%s) does not say '%s'", err.text, err.hint, c->refused);
}

static void each_launcher_is_understood(void **state)
{
	static const struct a_case cases[] = {
		{ NULL, "slurm", 3, 8, 1, { "HOME=/", "SLURM_PROCID=3", "SLURM_NTASKS=8",
		  "SLURM_LOCALID=1", "SLURM_NODEID=1" } },
		/* srun --mpi=pmix, and --mpi=pmi2 */
		{ NULL, "slurm", 1, 2, 0, { "SLURM_PROCID=1", "SLURM_NTASKS=2",
		  "SLURM_LOCALID=0", "PMIX_RANK=1", "PMIX_NAMESPACE=slurm.pmix.7.0" } },
		{ NULL, "slurm", 1, 2, 0, { "PMI_FD=9", "PMI_RANK=1", "PMI_SIZE=2",
		  "SLURM_PROCID=1", "SLURM_NTASKS=2", "SLURM_LOCALID=0" } },
		{ NULL, "openmpi", 0, 4, 0, { "OMPI_COMM_WORLD_SIZE=4",
		  "OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_LOCAL_RANK=0", "PMIX_RANK=0" } },
		{ NULL, "pmi", 2, 3, 2, { "PMI_RANK=2", "PMI_SIZE=3", "MPI_LOCALRANKID=2",
		  "MPI_LOCALNRANKS=3" } },
		{ NULL, "plain", 0, 2, -1, { "RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=a" } },
		{ NULL, "plain", 9, 16, 1, { "RANK=9", "WORLD_SIZE=16", "LOCAL_RANK=1" } },
		/* One says what another leaves open. */
		{ NULL, "pmi", 1, 2, 1, { "PMI_RANK=1", "PMI_SIZE=2", "RANK=1",
		  "WORLD_SIZE=2", "LOCAL_RANK=1" } },
		{ NULL, "plain", 0, 1, -1, { "RANK=0", "WORLD_SIZE=1" } }, /* it was said */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		check(&cases[i]);
}

static void what_is_missing_or_wrong_is_named(void **state)
{
	static const struct a_case cases[] = {
		{ "SLURM_PROCID and SLURM_NTASKS, OMPI_COMM_WORLD_RANK and "
		  "OMPI_COMM_WORLD_SIZE, PMI_RANK and PMI_SIZE, or RANK and WORLD_SIZE",
		  .env = { "HOME=/" } },
		{ .refused = "no launcher says", .env = { "LOCAL_RANK=0", "MASTER_ADDR=a" } },
		{ .refused = "no launcher says", .env = { "PMIX_RANK=0" } },
		{ .refused = "no launcher says", .env = { "XRANK=0", "RANKS=1" } },
		{ .refused = "SLURM_NTASKS is not set", .env = { "SLURM_PROCID=0" } },
		{ .refused = "OMPI_COMM_WORLD_RANK is not set",
		  .env = { "OMPI_COMM_WORLD_SIZE=2" } },
		{ .refused = "PMI_SIZE is not set", .env = { "PMI_RANK=0" } },
		{ .refused = "RANK is not set", .env = { "WORLD_SIZE=2" } },
		/* Half of one spoils a whole one: whose word counts is not known. */
		{ .refused = "WORLD_SIZE is not set",
		  .env = { "SLURM_PROCID=0", "SLURM_NTASKS=2", "RANK=0" } },
		{ .refused = "RANK is ''", .env = { "RANK=", "WORLD_SIZE=2" } },
		{ .refused = "RANK is '-1'", .env = { "RANK=-1", "WORLD_SIZE=2" } },
		{ .refused = "RANK is '+1'", .env = { "RANK=+1", "WORLD_SIZE=2" } },
		{ .refused = "RANK is ' 1'", .env = { "RANK= 1", "WORLD_SIZE=2" } },
		{ .refused = "RANK is '1x'", .env = { "RANK=1x", "WORLD_SIZE=2" } },
		{ .refused = "WORLD_SIZE is '99999999999'",
		  .env = { "RANK=1", "WORLD_SIZE=99999999999" } },
		{ .refused = "RANK is 2, WORLD_SIZE is 2", .env = { "RANK=2", "WORLD_SIZE=2" } },
		{ .refused = "RANK is 0, WORLD_SIZE is 0", .env = { "RANK=0", "WORLD_SIZE=0" } },
		{ .refused = "LOCAL_RANK is ''",
		  .env = { "RANK=0", "WORLD_SIZE=2", "LOCAL_RANK=" } },
		{ .refused = "LOCAL_RANK is 2",
		  .env = { "RANK=0", "WORLD_SIZE=2", "LOCAL_RANK=2" } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		check(&cases[i]);
}

static void contradictions_are_refused_until_one_is_chosen(void **state)
{
	static const struct a_case cases[] = {
		/* mpirun in a batch of Slurm's; torchrun under srun */
		{ .refused = "slurm says rank 0 of 2, openmpi rank 1 of 2",
		  .env = { "SLURM_PROCID=0", "SLURM_NTASKS=2", "OMPI_COMM_WORLD_RANK=1",
			   "OMPI_COMM_WORLD_SIZE=2" } },
		{ .refused = "LH_LAUNCHER=NAME", .env = { "SLURM_PROCID=1", "SLURM_NTASKS=2",
		  "RANK=1", "WORLD_SIZE=16" } },
		{ .refused = "plain says rank 0 of 2, PMIX_RANK 1",
		  .env = { "RANK=0", "WORLD_SIZE=2", "PMIX_RANK=1" } },
		{ .refused = "PMIX_RANK is 'x'",
		  .env = { "RANK=0", "WORLD_SIZE=2", "PMIX_RANK=x" } },
		{ NULL, "openmpi", 1, 2, -1, { "SLURM_PROCID=0", "SLURM_NTASKS=2",
		  "OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE=2", "LH_LAUNCHER=openmpi" } },
		{ NULL, "plain", 9, 16, 1, { "LH_LAUNCHER=plain", "SLURM_PROCID=1", "RANK=9",
		  "WORLD_SIZE=16", "LOCAL_RANK=1", "PMIX_RANK=0" } },
		{ .refused = "SLURM_PROCID is not set",
		  .env = { "RANK=0", "WORLD_SIZE=2", "LH_LAUNCHER=slurm" } },
		{ .refused = "LH_LAUNCHER is 'torch'",
		  .env = { "RANK=0", "WORLD_SIZE=2", "LH_LAUNCHER=torch" } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		check(&cases[i]);
}

static void own_ranks_hear_the_own_launcher_alone(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	int rank = 9;

	(void)state;
	assert_int_equal(lh_launcher_find_own(&rank, 1, ENV("PMI_RANK=x"), &err), 0);
	assert_int_equal(rank, 0);
	assert_int_equal(lh_launcher_find_own(&rank, 2, ENV("SLURM_PROCID=0", "SLURM_NTASKS=4",
							    "PMI_RANK=1", "PMI_SIZE=2"),
					      &err), 0);
	assert_int_equal(rank, 1);
	assert_int_equal(lh_launcher_find_own(&rank, 2, ENV("RANK=0", "WORLD_SIZE=2"), &err),
			 LH_EINVAL);
	assert_string_equal(err.text, "which of 2 ranks: PMI_RANK is not set");
	assert_int_equal(lh_launcher_find_own(&rank, 2, ENV("PMI_RANK=0", "PMI_SIZE=1"), &err),
			 LH_EINVAL);
	assert_string_equal(err.text, "the job has 2 ranks, the launcher says that this is "
			    "rank 0 of 1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_launcher_is_understood),
		cmocka_unit_test(what_is_missing_or_wrong_is_named),
		cmocka_unit_test(contradictions_are_refused_until_one_is_chosen),
		cmocka_unit_test(own_ranks_hear_the_own_launcher_alone),
	};

	return cmocka_run_group_tests_name("launcher", tests, NULL, NULL);
}

/* ranks.h: a test's own program as the ranks of a job. Included after cmocka.h.
 *
 * ranks_run(n, "name") runs this program again, n times, by MPI's launcher; main hands
 * over to ranks_main, which calls the case of that name in each of them. A case fails by
 * RANKS_CHECK. */
#ifndef LIGHTHOUSE_TEST_RANKS_H
#define LIGHTHOUSE_TEST_RANKS_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "built.h"
#include "lighthouse/comm.h"

enum { RANKS_LIMIT_MS = 60000 };

struct ranks_case {
	const char *name;
	void (*run)(const struct lh_comm *c);
};

#define RANKS_CHECK(what)                                                          \
	do {                                                                       \
		if (!(what)) {                                                     \
			fprintf(stderr, "%s:%d: rank %d: not so: %s\n", __FILE__,  \
				__LINE__, c->rank, #what);                         \
			_exit(1);                                                  \
		}                                                                  \
	} while (0)

static inline int ranks_number(const char *name)
{
	const char *text = getenv(name);

	return text ? atoi(text) : -1;
}

static inline void ranks_run(int n, const char *name)
{
	char count[12], self[PATH_MAX] = "";
	int pid;

	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	snprintf(count, sizeof(count), "%d", n);
	pid = fork();
	if (!pid) {
		/* A test that fails leaves none. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Libraries of MPI keep what they have to the end. */
		setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
		execlp("mpiexec.hydra", "mpiexec.hydra", "-launcher", "fork", "-rmk", "user",
		       "-hosts", "localhost", "-n", count, self, name, NULL);
		perror("mpiexec.hydra");
		_exit(127);
	}
	assert_int_equal(built_wait(pid, RANKS_LIMIT_MS), 0);
}

/* In a rank: the exit code of this process. */
static inline int ranks_main(const char *name, const struct ranks_case *cases, size_t count)
{
	struct lh_comm c = { .ops = &lh_comm_mpi, .rank = ranks_number("PMI_RANK"),
			     .size = ranks_number("PMI_SIZE") };
	struct lh_err err = LH_ERR_INIT;

	if (c.ops->open(&c.line, c.rank, c.size, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	for (size_t i = 0; i < count; i++)
		if (!strcmp(cases[i].name, name))
			cases[i].run(&c);
	lh_comm_close(&c);
	return 0;
}

#endif

/* built.h: where the programs are that were built with this test, and how to
 * start one. Included after cmocka.h. */
#ifndef LIGHTHOUSE_TEST_BUILT_H
#define LIGHTHOUSE_TEST_BUILT_H

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"

/* BUILD/bin/NAME of the test BUILD/tests/DIR/NAME. Caller's. */
static inline char *built_program(const char *name)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(n > 0);
	self[n] = '\0';
	for (int i = 0; i < 3; i++)
		*strrchr(self, '/') = '\0';
	return lh_asprintf("%s/bin/%s", self, name);
}

/* Waits for a child at most limit_ms; gives its wait status. */
static inline int built_wait(int pid, int limit_ms)
{
	int64_t end = lh_clock_us() + (int64_t)limit_ms * 1000;
	int status, rc;

	while ((rc = waitpid(pid, &status, WNOHANG)) == 0) {
		if (lh_clock_us() > end)
			fail_msg("process %d does not end", pid);
		usleep(2000);
	}
	assert_int_equal(rc, pid);
	return status;
}

#endif

/* launch.c: see launch.h. */
#include "jobs/launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LAUNCHER "mpiexec.hydra"

/* DIR/NAME of the first `bytes` of dir, if it can be run. Heap. */
static char *in_dir(const char *dir, size_t bytes, const char *name)
{
	char *path = lh_asprintf("%.*s/%s", (int)bytes, dir, name);

	if (!access(path, X_OK))
		return path;
	free(path);
	return NULL;
}

char *lh_launch_find(const char *name, const char *bin_dir)
{
	const char *dir = getenv("PATH"), *end;
	char *path = in_dir(bin_dir, strlen(bin_dir), name);

	for (; !path && dir && *dir; dir = *end ? end + 1 : end) {
		end = strchrnul(dir, ':');
		if (*dir == '/')
			path = in_dir(dir, (size_t)(end - dir), name);
	}
	return path;
}

/* A batch system around lhd has no say in where ranks run: here. */
static int add_launcher(struct lh_launch *l, int n)
{
	static char *const before[] = { "-launcher", "fork", "-rmk", "user", "-hosts",
					"localhost", "-n" };

	l->args[n++] = l->launcher;
	for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++)
		l->args[n++] = before[i];
	l->args[n++] = l->count;
	return n;
}

static int no_launcher(const struct lh_job *job, struct lh_err *err)
{
	lh_err_set(err, LH_EUNSUPPORTED, "devices: %d need MPI's launcher, and there is no "
		   LAUNCHER, job->devices);
	return lh_err_hint(err, "on Debian: apt-get install mpich; or devices: 1");
}

int lh_launch_check(const struct lh_job *job, const char *bin_dir, struct lh_err *err)
{
	char *launcher = job->devices > 1 ? lh_launch_find(LAUNCHER, bin_dir) : NULL;
	bool found = launcher;

	free(launcher);
	return found || job->devices == 1 ? 0 : no_launcher(job, err);
}

int lh_launch_init(struct lh_launch *l, const struct lh_job *job, const char *bin_dir,
		   char *dir, struct lh_err *err)
{
	int n = 0;

	memset(l, 0, sizeof(*l));
	l->keeper = lh_asprintf("%s/lhkeeper", bin_dir);
	l->worker = lh_asprintf("%s/lhworker-%s", bin_dir,
				job->device == LH_DEVICE_CUDA ? "cuda" : "cpu");
	snprintf(l->count, sizeof(l->count), "%d", job->devices);
	if (job->devices > 1) {
		l->launcher = lh_launch_find(LAUNCHER, bin_dir);
		if (!l->launcher)
			return no_launcher(job, err);
	}
	l->args[n++] = l->keeper;
	l->args[n++] = dir;
	l->args[n++] = "--";
	if (l->launcher && !*job->join)
		n = add_launcher(l, n);
	l->args[n++] = l->worker;
	l->args[n++] = *job->join ? "--gather" : "--attempt";
	l->args[n++] = dir;
	if (*job->join)
		l->args[n++] = l->launcher;
	LH_ASSERT(n < LH_LAUNCH_ARGS);
	return 0;
}

void lh_launch_release(struct lh_launch *l)
{
	free(l->keeper);
	free(l->launcher);
	free(l->worker);
	memset(l, 0, sizeof(*l));
}

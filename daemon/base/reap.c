/* reap.c: see reap.h. */
#include "base/reap.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

enum { PIDS_MAX = 64 };

static FILE *open_children(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	return fopen(path, "re");
}

int lh_reap_is_due(void)
{
	FILE *f = open_children();
	int pid, due = getpid() == 1;

	if (f) {
		due |= fscanf(f, "%d", &pid) == 1;
		fclose(f);
	}
	return due;
}

static bool is_zombie(int pid)
{
	char path[64], text[512], *p;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	p = strrchr(text, ')');
	return p && p[1] == ' ' && p[2] == 'Z';
}

/* Children of this process that are zombies; those beyond PIDS_MAX come next time. */
static int list_zombies(int *pids)
{
	FILE *f = open_children();
	int count = 0, pid;

	if (!f)
		return 0;
	while (count < PIDS_MAX && fscanf(f, "%d", &pid) == 1)
		if (is_zombie(pid))
			pids[count++] = pid;
	fclose(f);
	return count;
}

int lh_reap_orphans(void)
{
	static int seen[PIDS_MAX], seen_count;
	int now[PIDS_MAX], now_count = list_zombies(now), reaped = 0;

	for (int i = 0; i < now_count; i++)
		for (int k = 0; k < seen_count; k++)
			if (now[i] == seen[k] && waitpid(now[i], NULL, WNOHANG) == now[i]) {
				lh_info("process %d, whose parent was lost, has ended",
					now[i]);
				reaped++;
			}
	memcpy(seen, now, sizeof(seen));
	seen_count = now_count;
	return reaped;
}

/* False: who they are cannot be known. */
static bool kill_children(void)
{
	FILE *f = open_children();
	int pid;

	if (!f)
		return false;
	while (fscanf(f, "%d", &pid) == 1)
		kill(pid, SIGKILL); /* not waited for yet: the number is theirs */
	fclose(f);
	return true;
}

/* The children of one that ends are there before it can be waited for. */
void lh_reap_kill(void)
{
	while (kill_children() && (waitpid(-1, NULL, 0) > 0 || errno == EINTR))
		;
}

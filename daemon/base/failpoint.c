/* failpoint.c: see failpoint.h. */
#include "base/failpoint.h"

#ifdef LH_FAILPOINTS

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POINTS_MAX = 128, ORDERS_MAX = 16, NAME_BYTES = 48 };

struct order {
	char name[NAME_BYTES], action[8];
	int at;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static bool is_read;
static const char *dir, *plant;
static struct order orders[ORDERS_MAX];
static int order_count;
static struct {
	const char *name;
	int hits;
} points[POINTS_MAX];
static int point_count;

/* False if it is there already. Short of memory or disk is not tested here. */
static bool make_note(const char *kind, const char *name, const char *action)
{
	char path[512];
	int fd;

	if (!dir)
		return true;
	snprintf(path, sizeof(path), "%s/%s-%s%s%s", dir, kind, name, *action ? "-" : "",
		 action);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void read_orders(void)
{
	const char *text = getenv("LH_FAILPOINTS");
	char *all = text ? strdup(text) : NULL, *save, *one;

	is_read = true;
	dir = getenv("LH_FAILPOINT_DIR");
	plant = getenv("LH_PLANT");
	for (one = all ? strtok_r(all, ",", &save) : NULL; one; one = strtok_r(NULL, ",", &save)) {
		struct order *o = &orders[order_count];

		if (order_count == ORDERS_MAX ||
		    sscanf(one, "%47[^=]=%7[^@]@%d", o->name, o->action, &o->at) != 3) {
			fprintf(stderr, "LH_FAILPOINTS: '%s' is no order\n", one);
			_exit(2);
		}
		order_count++;
	}
	free(all);
}

static int count_hit(const char *name)
{
	int i = 0;

	while (i < point_count && strcmp(points[i].name, name))
		i++;
	if (i == POINTS_MAX)
		abort();
	if (i == point_count) {
		points[point_count++].name = name;
		make_note("hit", name, "");
	}
	return ++points[i].hits;
}

static void hold(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/free-%s", dir ? dir : ".", name);
	while (access(path, F_OK))
		usleep(2000);
}

/* The action that is due at this hit, or "". */
static const char *act(const char *name)
{
	const char *action = "";
	int hits;

	pthread_mutex_lock(&mutex);
	if (!is_read)
		read_orders();
	hits = count_hit(name);
	for (int i = 0; i < order_count; i++)
		if (!strcmp(orders[i].name, name) && orders[i].at == hits &&
		    make_note("done", name, orders[i].action))
			action = orders[i].action;
	pthread_mutex_unlock(&mutex);
	if (!strcmp(action, "kill"))
		kill(getpid(), SIGKILL);
	else if (!strcmp(action, "stop"))
		kill(getpid(), SIGSTOP);
	else if (!strcmp(action, "hold"))
		hold(name);
	return action;
}

void lh_failpoint(const char *name)
{
	act(name);
}

bool lh_failpoint_fails(const char *name)
{
	if (strcmp(act(name), "error"))
		return false;
	errno = ENOSPC;
	return true;
}

bool lh_failpoint_spoils(const char *name)
{
	return !strcmp(act(name), "spoil");
}

bool lh_failpoint_planted(const char *bug)
{
	pthread_mutex_lock(&mutex);
	if (!is_read)
		read_orders();
	pthread_mutex_unlock(&mutex);
	return plant && !strcmp(plant, bug);
}

#else
typedef int lh_failpoint_none; /* ISO C wants a declaration */
#endif

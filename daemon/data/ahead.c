/* ahead.c: see ahead.h. The thread touches no file's memory, it only asks for it: a map
 * that was closed meanwhile is none of its concern. */
#include "data/ahead.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { AHEAD_BYTES = 32 << 20, ASK_BYTES = 2 << 20 };

struct lh_ahead {
	pthread_t thread;
	bool runs;          /* there was a thread to be had */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* under the lock */
	uintptr_t from, to; /* to be asked for */
	bool ending;
};

static void *run(void *arg)
{
	struct lh_ahead *a = arg;

	pthread_mutex_lock(&a->lock);
	while (!a->ending) {
		uintptr_t at = a->from, left = a->to - at;
		size_t bytes = left < ASK_BYTES ? left : ASK_BYTES;

		if (at >= a->to) {
			pthread_cond_wait(&a->wake, &a->lock);
			continue;
		}
		a->from += bytes;
		pthread_mutex_unlock(&a->lock);
		madvise((void *)at, bytes, MADV_WILLNEED);
		pthread_mutex_lock(&a->lock);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

void lh_ahead_new(struct lh_ahead **out)
{
	struct lh_ahead *a = lh_calloc(1, sizeof(*a));

	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->wake, NULL);
	a->runs = !pthread_create(&a->thread, NULL, run, a);
	*out = a;
}

void lh_ahead_look(struct lh_ahead *a, const struct lh_safetensors *st, const void *data)
{
	uintptr_t from = (uintptr_t)data & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
	uintptr_t end = (uintptr_t)st->map + (uintptr_t)st->map_bytes;
	uintptr_t to = end - from < AHEAD_BYTES ? end : from + AHEAD_BYTES;

	LH_ASSERT((uintptr_t)data >= (uintptr_t)st->map && (uintptr_t)data <= end);
	pthread_mutex_lock(&a->lock);
	/* On from where it is, unless that is elsewhere. */
	if (a->from < from || a->from > to)
		a->from = from;
	a->to = to;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
}

void lh_ahead_free(struct lh_ahead *a)
{
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->ending = true;
	pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
	if (a->runs)
		pthread_join(a->thread, NULL);
	pthread_cond_destroy(&a->wake);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* loop_gpu.c: the GPU is another lhd's until that one's job has ended; see gpulock.h
 * and loop_int.h.
 *
 * The worker waits, and not lhd: it takes the GPU the moment it is free, no attempt is
 * counted as lost, and the job can be cancelled or stopped like any that starts. Of
 * several ranks the first one takes those of all, and the others wait for it (team.h). */
#include "train/loop_int.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/gpulock.h"

enum { ASK_AGAIN_US = 200000 };

/* Once for each owner. */
static void tell(struct lh_loop *l, const struct lh_err *busy, struct lh_err *told)
{
	char reason[sizeof(busy->text) + 16];

	if (!strcmp(busy->text, told->text))
		return;
	*told = *busy;
	snprintf(reason, sizeof(reason), "waits: %s", busy->text);
	lh_loop_post_state(l, "starting", reason, 0);
	lh_loop_tell(l, "warn", "%s (hint: %s)", reason, busy->hint);
}

/* An fd, or as lh_gpulock_take. */
static int take(struct lh_loop *l, const char *uuid, struct lh_err *told)
{
	struct lh_err why;
	int fd;

	while ((fd = lh_gpulock_take(uuid, l->c->state_dir, &why)) == LH_EBUSY &&
	       !lh_loop_is_told(l)) {
		tell(l, &why, told);
		lh_loop_status(l, "waiting");
		usleep(ASK_AGAIN_US);
	}
	if (fd == LH_EIO)
		lh_loop_tell(l, "warn", "another lhd could use the same GPU: %s", why.text);
	return fd;
}

static int by_text(const void *x, const void *y)
{
	return strcmp(x, y);
}

int lh_loop_take_gpu(struct lh_loop *l, struct lh_err *err)
{
	struct lh_device_info info[LH_DEVICES_MAX] = { 0 };
	char uuids[LH_DEVICES_MAX][sizeof(info->uuid)];
	struct lh_err told = LH_ERR_INIT;
	int fd = -1, n = l->c->devices;

	for (int i = 0; i < n; i++) {
		int rc = l->c->ops->probe(i, &info[i], err);

		if (rc)
			return n > 1 ? lh_err_prefix(err, "the GPU of rank %d", i) : rc;
		if (!*info[i].uuid) /* shared */
			return 0;
		memcpy(uuids[i], info[i].uuid, sizeof(uuids[i]));
	}
	/* In one order for all: two jobs that each have one of two would wait for ever. */
	qsort(uuids, (size_t)n, sizeof(uuids[0]), by_text);
	for (int i = 0; i < n && fd != LH_EBUSY; i++) {
		fd = take(l, uuids[i], &told);
		if (fd >= 0)
			l->gpu_locks[l->gpu_lock_count++] = fd;
	}
	if (*told.text && fd != LH_EBUSY)
		lh_loop_post_state(l, "starting", n > 1 ? "the GPUs are free" :
						    "the GPU is free", 0);
	lh_loop_status(l, "starting");
	return 0;
}

void lh_loop_give_back_gpu(struct lh_loop *l)
{
	while (l->gpu_lock_count)
		close(l->gpu_locks[--l->gpu_lock_count]);
}

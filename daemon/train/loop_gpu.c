/* loop_gpu.c: the GPU is another lhd's until that one's job has ended; see gpulock.h
 * and loop_int.h.
 *
 * The worker waits, and not lhd: it takes the GPU the moment it is free, no attempt is
 * counted as lost, and the job can be cancelled or stopped like any that starts. */
#include "train/loop_int.h"

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

int lh_loop_take_gpu(struct lh_loop *l, struct lh_err *err)
{
	struct lh_err why, told = LH_ERR_INIT;
	struct lh_device_info info;
	int rc = l->c->ops->probe(&info, err);

	if (rc || !*info.uuid)
		return rc;
	while ((l->gpu_lock = lh_gpulock_take(info.uuid, l->c->state_dir, &why)) == LH_EBUSY &&
	       !lh_loop_is_told(l)) {
		tell(l, &why, &told);
		lh_loop_status(l, "waiting");
		usleep(ASK_AGAIN_US);
	}
	if (*told.text && l->gpu_lock != LH_EBUSY)
		lh_loop_post_state(l, "starting", "the GPU is free", 0);
	lh_loop_status(l, "starting");
	if (l->gpu_lock == LH_EIO)
		lh_loop_tell(l, "warn", "another lhd could use the same GPU: %s", why.text);
	return 0;
}

void lh_loop_give_back_gpu(struct lh_loop *l)
{
	if (l->gpu_lock >= 0)
		close(l->gpu_lock);
	l->gpu_lock = -1;
}

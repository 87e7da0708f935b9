/* frozen.h: CPU ops whose Lighthouse selection can be recorded and replayed, so
 * that a test can move parameters or tokens while the selection stays. */
#ifndef LIGHTHOUSE_TEST_FROZEN_H
#define LIGHTHOUSE_TEST_FROZEN_H

#include <stdlib.h>
#include <string.h>

#include "lighthouse/ops.h"

static struct {
	int32_t *index[64]; /* of each call of a pass */
	int count, next;
	bool replay;
} frozen;

static void frozen_select(struct lh_dev *dev, const struct lh_lighthouse *g,
			  const struct lh_heads *h, int32_t *index, const float *sq,
			  const float *sk)
{
	size_t bytes = (size_t)(h->batch * h->heads * lh_lighthouse_selected(g)) *
		       sizeof(*index);

	if (frozen.replay) {
		memcpy(index, frozen.index[frozen.next++ % frozen.count], bytes);
		return;
	}
	lh_ops_cpu.lighthouse_select(dev, g, h, index, sq, sk);
	frozen.index[frozen.count] = lh_alloc(bytes);
	memcpy(frozen.index[frozen.count++], index, bytes);
}

/* Forgets what was recorded and records the next pass. */
static void frozen_record(void)
{
	while (frozen.count)
		free(frozen.index[--frozen.count]);
	frozen.next = 0;
	frozen.replay = false;
}

static void frozen_replay(bool on)
{
	frozen.replay = on && frozen.count;
	frozen.next = 0;
}

static struct lh_ops frozen_ops(void)
{
	struct lh_ops ops = lh_ops_cpu;

	ops.lighthouse_select = frozen_select;
	return ops;
}

#endif

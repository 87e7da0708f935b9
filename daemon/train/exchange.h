/* exchange.h: how long the devices of a job take to hand each other what they share, by
 * counting bytes.
 *
 * A step sums the gradient and hands out new weights; where gradients are divided, every
 * micro-batch sums them, and where weights are, it gathers them twice. Devices that share
 * sequences hand each other keys and values of every layer, forward and backward, and their
 * gradients. Nothing of it is taken to run beside the computation, and all devices to be
 * equally fast.
 *
 * Pure arithmetic. tests/bench/results/ranks.md has what was measured.
 */
#ifndef LIGHTHOUSE_EXCHANGE_H
#define LIGHTHOUSE_EXCHANGE_H

#include "train/estimate.h"

/* Seconds of a step, in the attention of `mode`. act_bytes: of an activation. */
double lh_exchange_s(const struct lh_job *job, const struct lh_attention_mode *mode,
		     const struct lh_chip *chip, size_t act_bytes);

#endif

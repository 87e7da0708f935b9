/* exchange.h: how long the devices of a job take to hand each other what they share, by
 * counting bytes.
 *
 * A step sums the gradient and hands out new weights; where gradients are divided, every
 * micro-batch sums them, and where weights are, it gathers them twice. What it gathers and
 * sums of a layer has the time of the layer that is computed meanwhile (windows.c), and only
 * what it takes beyond that is counted; that it takes processors from that layer is not. The
 * first and the last of a pass, embedding and gains run beside nothing. Devices that share
 * sequences hand each other keys and values of every layer, forward and backward beside
 * attention to their own ones (attention.h), and their gradients. All devices are taken to be
 * equally fast.
 *
 * Pure arithmetic. tests/bench/results/ranks.md has what was measured.
 */
#ifndef LIGHTHOUSE_EXCHANGE_H
#define LIGHTHOUSE_EXCHANGE_H

#include "train/estimate.h"

/* What a device takes to compute a layer of a micro-batch. */
struct lh_layer_time {
	double forward_s, backward_s;
	double own_forward_s, own_backward_s; /* of them, attention of pieces to themselves */
};

/* Seconds that a step waits, in the attention of `mode`. act_bytes: of an activation;
 * layers: of all. */
double lh_exchange_s(const struct lh_job *job, const struct lh_attention_mode *mode,
		     const struct lh_chip *chip, size_t act_bytes,
		     const struct lh_layer_time *layers);

#endif

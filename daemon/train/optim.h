/* optim.h: the learning rate of a step. Pure functions.
 *
 * factor(step) = warm-up (linear, step s of 0.. uses (s + 1) / warmup_steps)
 * times the schedule's shape over `total_steps`:
 *   constant  1
 *   linear    1 -> final_lr_factor, from the end of warm-up to the last step
 *   cosine    the same by half a cosine
 *   wsd       1, then linear to final_lr_factor over the last decay_fraction
 */
#ifndef LIGHTHOUSE_OPTIM_H
#define LIGHTHOUSE_OPTIM_H

#include "lighthouse/job.h"

/* Learning rate of step `step` (0-based), whose peak is `lr`: o's unless it was changed.
 * total_steps: all phases as known now; -1 (not known) is allowed for the constant
 * schedule only. */
double lh_optim_lr(const struct lh_job_optimizer *o, double lr, double phase_factor,
		   int64_t step, int64_t total_steps);

#endif

/* rope.h: how fast the rotary angles turn, and how that is stretched.
 *
 * Pair d of D/2 turns by theta^(-2d/D) radians a token. A model that was trained with
 * a shorter context is taught a longer one by slower turns (`factor` times longer):
 *
 *   linear   all of them by 1/factor (position interpolation, arXiv:2306.15595)
 *   llama3   those of few turns in the context before in full, those of many not at
 *            all, between low_freq_factor and high_freq_factor turns linearly (Llama 3.1)
 *   yarn     the same by pair, between beta_slow and beta_fast turns, and rotated rows
 *            are longer by attention_factor (arXiv:2309.00071)
 *
 * The formulas are those of transformers, which models of others were trained with.
 * Pure.
 */
#ifndef LIGHTHOUSE_ROPE_H
#define LIGHTHOUSE_ROPE_H

#include "lighthouse/job.h"

/* turn (D/2) <- radians a token. */
void lh_rope_turns(const struct lh_job_model *c, double *turn);
/* The factor of cosines and sines. */
double lh_rope_length(const struct lh_job_model *c);

#endif

/* rng.h: random numbers by counter: no state, the same on every machine.
 *
 * Philox 4x32-10 (Salmon et al., SC 2011). A draw is named by (seed, stream,
 * counter), so a checkpoint has nothing to save and draws can be made in any
 * order. Pure functions.
 */
#ifndef LIGHTHOUSE_RNG_H
#define LIGHTHOUSE_RNG_H

#include <stdint.h>

/* Changes when other numbers come out: checkpoints name it. */
#define LH_RNG_NAME "philox4x32-10"

/* Streams: which use a seed's numbers are for. */
enum lh_rng_stream { LH_RNG_INIT, LH_RNG_SHUFFLE, LH_RNG_SAMPLE, LH_RNG_MIX,
		     LH_RNG_PASSKEY };

void lh_rng_block(uint64_t seed, enum lh_rng_stream stream, uint64_t counter,
		  uint32_t out[4]);
/* Four independent standard normals (Box-Muller). */
void lh_rng_normal(uint64_t seed, enum lh_rng_stream stream, uint64_t counter,
		   float out[4]);
/* Uniform in [0, 1) with 32 bits. */
double lh_rng_uniform(uint64_t seed, enum lh_rng_stream stream, uint64_t counter);

#endif

/* rng.c: Philox 4x32-10; see rng.h. */
#include "train/rng.h"

#include <math.h>

static void mul(uint32_t a, uint32_t b, uint32_t *hi, uint32_t *lo)
{
	uint64_t p = (uint64_t)a * b;

	*hi = (uint32_t)(p >> 32);
	*lo = (uint32_t)p;
}

void lh_rng_block(uint64_t seed, enum lh_rng_stream stream, uint64_t counter,
		  uint32_t out[4])
{
	uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
	uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32);
	uint32_t c2 = (uint32_t)stream, c3 = 0;

	for (int round = 0; round < 10; round++) {
		uint32_t h0, l0, h1, l1;

		mul(0xD2511F53u, c0, &h0, &l0);
		mul(0xCD9E8D57u, c2, &h1, &l1);
		c0 = h1 ^ c1 ^ k0;
		c1 = l1;
		c2 = h0 ^ c3 ^ k1;
		c3 = l0;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	out[0] = c0;
	out[1] = c1;
	out[2] = c2;
	out[3] = c3;
}

void lh_rng_normal(uint64_t seed, enum lh_rng_stream stream, uint64_t counter,
		   float out[4])
{
	uint32_t u[4];

	lh_rng_block(seed, stream, counter, u);
	for (int i = 0; i < 4; i += 2) {
		double r = sqrt(-2 * log((u[i] + 1.0) / 4294967296.0));
		double a = 2 * M_PI * u[i + 1] / 4294967296.0;

		out[i] = (float)(r * cos(a));
		out[i + 1] = (float)(r * sin(a));
	}
}

double lh_rng_uniform(uint64_t seed, enum lh_rng_stream stream, uint64_t counter)
{
	uint32_t u[4];

	lh_rng_block(seed, stream, counter, u);
	return u[0] / 4294967296.0;
}

/* noise.cuh: random activations on the GPU. Constant or repeating data would make
 * the chip draw less power and run faster than real data lets it. */
#ifndef LIGHTHOUSE_TESTS_NOISE_CUH
#define LIGHTHOUSE_TESTS_NOISE_CUH

#include "cuda.h"

/* About normal: the sum of four uniforms of a hash of the position. */
__global__ void noise_kernel(bf16 *x, int64_t n, uint64_t seed)
{
	int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
	uint64_t z = (seed << 40) + (uint64_t)i;
	float sum = 0;

	if (i >= n)
		return;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	for (int k = 0; k < 4; k++)
		sum += (float)((z >> (16 * k)) & 0xffff) / 65536.0f - 0.5f;
	x[i] = __float2bfloat16(sum * 1.7f);
}

static inline void noise_fill(struct lh_dev *dev, void *x, int64_t n, uint64_t seed)
{
	noise_kernel<<<(unsigned)((n + 255) / 256), 256, 0, dev->stream>>>((bf16 *)x, n,
									   seed);
}

#endif

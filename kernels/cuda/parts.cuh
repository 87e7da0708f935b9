/* parts.cuh: sums over rows, in two steps: each block leaves those of its rows, and a
 * last kernel adds them in block order, so that they are the same each time. Device
 * code only. */
#ifndef LIGHTHOUSE_CUDA_PARTS_H
#define LIGHTHOUSE_CUDA_PARTS_H

#include "vec.cuh"

/* sum (C) += part (parts, C), parts ascending in four interleaved chains. */
static __global__ void __launch_bounds__(128)
add_parts_kernel(float *sum, const float *__restrict__ part, int parts, int64_t C)
{
	__shared__ float rows[4][32];
	int64_t c = (int64_t)blockIdx.x * 32 + threadIdx.x % 32;
	int row = threadIdx.x / 32;
	float own = 0;

	for (int p = row; p < parts && c < C; p += 4)
		own += part[p * C + c];
	rows[row][threadIdx.x % 32] = own;
	__syncthreads();
	if (row == 0 && c < C)
		sum[c] += (rows[0][threadIdx.x] + rows[1][threadIdx.x]) +
			  (rows[2][threadIdx.x] + rows[3][threadIdx.x]);
}

static inline void add_parts(struct lh_dev *dev, float *sum, const float *part, int parts,
			     int64_t C)
{
	add_parts_kernel<<<(unsigned)lh_ceil(C, 32), 128, 0, dev->stream>>>(sum, part, parts,
									    C);
}

/* How many parts R rows come in, `rows` a block at a time. Of the shape alone, not of
 * the card: the sums' order follows from it. */
static inline int parts_of(int64_t R, int64_t rows)
{
	int64_t blocks = lh_ceil(R, rows), most = LH_CUDA_NORM_PARTS;

	return (int)(blocks < most ? blocks : most);
}

#endif

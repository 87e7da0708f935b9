/* sizes.h: bytes that the CUDA ops need besides their tensors.
 *
 * Plain C without CUDA, built everywhere: a job is checked and estimated where
 * there may be no GPU. `e` is the size of an activation in bytes. The tables are
 * lh_sizes_cuda and lh_sizes_cuda_f32 of lighthouse/ops.h. */
#ifndef LIGHTHOUSE_CUDA_SIZES_H
#define LIGHTHOUSE_CUDA_SIZES_H

#include "lighthouse/ops.h"

enum {
	/* cuDNN's fused attention works on tiles of so many tokens; fewer queries
	 * go to the slow kernels, other numbers are padded. */
	LH_CUDA_SDPA_TILE = 128,
	/* Windows up to this have their means left by the scorer. */
	LH_CUDA_MEAN_WINDOW = 64,
};

/* Whether cuDNN takes heads of this width. */
bool lh_cuda_sdpa_fused_width(int head_dim);

/* cuDNN's backward counts elements in 32 bits: tensors that reach over 2^31 of them
 * go through contiguous copies, of as many sequences and heads at once as stay
 * below (the piece). */
bool lh_cuda_sdpa_is_wide(const struct lh_sdpa *s);
struct lh_sdpa lh_cuda_sdpa_piece(const struct lh_sdpa *s);

/* lh_cuda_xent: rows of nats come first, then logits with rows of `stride`. */
int64_t lh_cuda_xent_stride(int64_t V);
size_t lh_cuda_xent_nats_bytes(int64_t R);

#endif

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
	/* Heads that cuDNN's kernels take, of a width that 8 divides. */
	LH_CUDA_SDPA_HEAD_MIN = 32,
	LH_CUDA_SDPA_HEAD_MAX = 256,
	/* Windows up to this have their means left by the scorer. */
	LH_CUDA_MEAN_WINDOW = 64,
	/* A tile of the selection that needs more shared memory is kept in scratch. */
	LH_CUDA_SELECT_SHARED_BYTES = 200 << 10,
	/* Blocks that a grid has in its second and third direction. */
	LH_CUDA_GRID_Y = 65535,
	/* Documents that go to cuDNN at once, and rows that they make up. */
	LH_CUDA_BUCKET_DOCUMENTS = 64,
	LH_CUDA_BUCKET_ROWS = LH_CUDA_BUCKET_DOCUMENTS * LH_CUDA_SDPA_TILE,
	/* Partial sums of a gain's gradient. */
	LH_CUDA_NORM_PARTS = 528,
};

/* Whether cuDNN takes heads of this width. */
bool lh_cuda_sdpa_fused_width(int head_dim);

/* What cuDNN's repeatable backward may take for the scores' gradients, which it
 * writes out whole: 2 bytes a query and key, of as many heads at once as this
 * allows, but of one in any case. Where few fit, sequences are so long that few fill
 * the chip. */
static const int64_t LH_CUDA_SDPA_SQUARE_BYTES = (int64_t)4 << 30;

/* A backward is done in pieces, each one call of cuDNN: all of `s` where nothing
 * stands against it, else of one sequence whole KV groups, as many as divide them
 * evenly; or a single query head, whose dk and dv are then added up by us.
 *
 * What may stand against it: cuDNN counts elements in 32 bits, so that tensors that
 * reach over 2^31 of them (wide) go through contiguous copies that stay below; and
 * the bound above, where bits are to repeat. A head that does not stay below is not
 * supported. */
bool lh_cuda_sdpa_is_wide(const struct lh_sdpa *s);
struct lh_sdpa lh_cuda_sdpa_piece(const struct lh_sdpa *s, bool deterministic);
/* Whether pieces are parts of KV groups. */
bool lh_cuda_sdpa_splits_groups(const struct lh_sdpa *s, const struct lh_sdpa *piece);
/* Elements of the largest tensor that cuDNN's backward makes or is given for it. */
int64_t lh_cuda_sdpa_elements(const struct lh_sdpa *piece);

/* Queries at the end of longer keys, of one sequence, whose keys before them are whole tiles:
 * two calls of cuDNN, of their own keys and of those before (sdpa_tail.cu). */
bool lh_cuda_sdpa_is_tail(const struct lh_sdpa *s);
struct lh_sdpa lh_cuda_tail_own(const struct lh_sdpa *s);
struct lh_sdpa lh_cuda_tail_before(const struct lh_sdpa *s);
/* What is kept of one of them until the other is there. */
size_t lh_cuda_tail_bytes(const struct lh_sdpa *s, bool backward);

/* Documents of any length share a few plans: bucket k takes those of up to 128 * 2^k
 * tokens, the last one those up to the sequence's. `documents` of them are one call,
 * each padded to `tokens` rows. False past the last one. */
struct lh_cuda_bucket {
	int64_t tokens;
	int documents;
};
bool lh_cuda_bucket(const struct lh_heads *h, int k, struct lh_cuda_bucket *b);
/* A call's attention, of contiguous rows, each document a sequence. */
struct lh_sdpa lh_cuda_bucket_sdpa(const struct lh_sdpa *s, const struct lh_cuda_bucket *b);
/* What the copies of a call take. */
size_t lh_cuda_documents_bytes(const struct lh_sdpa *s, bool backward);

/* The attention of one residue class of the dilated scorer. */
struct lh_sdpa lh_cuda_class_sdpa(const struct lh_lighthouse *g, const struct lh_heads *h);
/* What the selection of a tile works in: candidates of a level at most, bytes. */
int lh_cuda_select_candidates(const struct lh_lighthouse *g);
size_t lh_cuda_select_tile_bytes(const struct lh_lighthouse *g);

/* lh_cuda_xent: rows of nats come first, then logits with rows of `stride`. */
int64_t lh_cuda_xent_stride(int64_t V);
size_t lh_cuda_xent_nats_bytes(int64_t R);

#endif

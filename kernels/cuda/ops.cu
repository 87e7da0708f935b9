/* ops.cu: the two tables of the CUDA backend, from one set of templates. */
#include "cuda.h"

extern "C" {
#include "lighthouse/comm.h"
}

#define TABLE(NAME, T, SIZES, OPEN)                                                   \
	{                                                                             \
		.name = NAME, .sizes = &SIZES, .comm = &lh_comm_nccl,                 \
		.choose = lh_cuda_choose, .probe = lh_cuda_probe,                     \
		.open = OPEN, .close = lh_cuda_close,                                 \
		.describe = lh_cuda_describe,                                         \
		.set_deterministic = lh_cuda_set_deterministic,                       \
		.cache = lh_cuda_cache, .rehearse = lh_cuda_rehearse,                 \
		.preparations = lh_cuda_preparations,                                 \
		.free_bytes = lh_cuda_free_bytes,                                     \
		.alloc = lh_cuda_alloc, .free = lh_cuda_free,                         \
		.host_alloc = lh_cuda_host_alloc, .host_free = lh_cuda_host_free,     \
		.put = lh_cuda_put,                                                   \
		.fetch = lh_cuda_fetch, .sync = lh_cuda_sync, .zero = lh_cuda_zero,   \
		.cast = lh_cuda_cast<T>,                                              \
		.linear = lh_cuda_linear<T>, .linear_dx = lh_cuda_linear_dx<T>,       \
		.linear_dw = lh_cuda_linear_dw<T>, .rmsnorm = lh_cuda_rmsnorm<T>,     \
		.rmsnorm_bwd = lh_cuda_rmsnorm_bwd<T>, .rope = lh_cuda_rope<T>,       \
		.bias = lh_cuda_bias<T>, .bias_bwd = lh_cuda_bias_bwd<T>,             \
		.qk_norm = lh_cuda_qk_norm<T>, .qk_norm_bwd = lh_cuda_qk_norm_bwd<T>, \
		.swiglu = lh_cuda_swiglu<T>, .swiglu_bwd = lh_cuda_swiglu_bwd<T>,     \
		.embed = lh_cuda_embed<T>, .embed_bwd = lh_cuda_embed_bwd<T>,         \
		.xent = lh_cuda_xent<T>,                                              \
		.copy_rows = lh_cuda_copy_rows<T>, .sum_rows = lh_cuda_sum_rows<T>,   \
		.sdpa = lh_cuda_sdpa<T>, .sdpa_bwd = lh_cuda_sdpa_bwd<T>,             \
		.lighthouse_score = lh_cuda_lighthouse_score<T>,                      \
		.lighthouse_select = lh_cuda_lighthouse_select,                       \
		.lighthouse_map = lh_cuda_lighthouse_map,                             \
		.lighthouse_gather = lh_cuda_lighthouse_gather<T>,                    \
		.lighthouse_gather_bwd = lh_cuda_lighthouse_gather_bwd<T>,            \
		.lighthouse_scatter = lh_cuda_lighthouse_scatter<T>,                  \
		.lighthouse_scatter_bwd = lh_cuda_lighthouse_scatter_bwd<T>,          \
		.lighthouse_halo = lh_cuda_lighthouse_halo<T>,                        \
		.lighthouse_halo_add = lh_cuda_lighthouse_halo_add<T>,                \
		.lighthouse_halo_bwd = lh_cuda_lighthouse_halo_bwd<T>,                \
		.lighthouse_halo_put = lh_cuda_lighthouse_halo_put<T>,                \
		.norm = lh_cuda_norm, .adamw = lh_cuda_adamw<T>,                      \
	}

extern "C" {
extern const struct lh_ops lh_ops_cuda =
	TABLE("cuda", bf16, lh_sizes_cuda, lh_cuda_open_bf16);
extern const struct lh_ops lh_ops_cuda_f32 =
	TABLE("cuda-f32", float, lh_sizes_cuda_f32, lh_cuda_open_f32);
}

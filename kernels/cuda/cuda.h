/* cuda.h: the device of the CUDA backend and the entries of its ops.
 *
 * Every op is a function template over the type of activations: bf16 for
 * lh_ops_cuda, float for lh_ops_cuda_f32 (tests). All work of a dev goes to one
 * stream in call order. Kernels use no float atomics: a result depends on the
 * inputs and the shape alone. Statistics and sums are float32.
 *
 * Failures: a launch or an allocation that fails is remembered (the first one
 * stands) and reported by the next fetch or sync. After it, ops do nothing that
 * matters.
 */
#ifndef LIGHTHOUSE_CUDA_H
#define LIGHTHOUSE_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

extern "C" {
#include "lighthouse/ops.h"
#include "sdpa_plan.h"
#include "sizes.h"
#include "visible.h"
}

typedef __nv_bfloat16 bf16;

enum { LH_CUDA_STAGES = 2, LH_CUDA_STAGE_BYTES = 4 << 20 };

struct lh_gemm_cache; /* gemm.cu */

struct lh_dev {
	bool deterministic;
	int sms;
	cudaStream_t stream;
	cublasLtHandle_t lt;
	void *gemm_work;          /* LH_GEMM_WORK_BYTES */
	struct lh_gemm_cache *gemms;
	struct lh_sdpa_plans *plans; /* NULL: float32, no cuDNN */
	void *scratch;            /* of the op that runs; grows, never shrinks */
	size_t scratch_bytes;
	void *packed;             /* rows of documents, likewise */
	size_t packed_bytes;
	char *stage[LH_CUDA_STAGES]; /* pinned, for put */
	cudaEvent_t staged[LH_CUDA_STAGES];
	int next_stage;
	bool rehearsing;          /* calls count, results don't */
	int64_t preparations;     /* kernels looked for, allocations */
	struct lh_err failure;    /* the first one */
	char gpu[128];            /* its name */
	char opened[280];         /* what is known from the start */
	char text[352];
};

/* Remembers a failure of `what`; detail is the library's text. */
void lh_cuda_fail(struct lh_dev *dev, const char *what, const char *detail);
/* Remembers an error as it is. */
void lh_cuda_refuse(struct lh_dev *dev, const struct lh_err *why);
/* Remembers an error of the runtime, if it is one: then false. */
bool lh_cuda_check(struct lh_dev *dev, const char *what, cudaError_t rc);
/* After a launch: remembers its error, if any. */
void lh_cuda_launched(struct lh_dev *dev, const char *what);
/* `bytes` of scratch for the op being issued, 256-byte aligned; NULL after
 * remembering that there is no memory. The next op may overwrite it. */
void *lh_cuda_scratch(struct lh_dev *dev, size_t bytes);
/* The same of other memory, for an op that calls others. */
void *lh_cuda_packed(struct lh_dev *dev, size_t bytes);

int lh_cuda_probe(int number, struct lh_device_info *info, struct lh_err *err);
int lh_cuda_open_bf16(struct lh_dev **dev, int threads, struct lh_err *err);
int lh_cuda_open_f32(struct lh_dev **dev, int threads, struct lh_err *err);
void lh_cuda_close(struct lh_dev *dev);
const char *lh_cuda_describe(struct lh_dev *dev);
int64_t lh_cuda_free_bytes(struct lh_dev *dev);
void lh_cuda_set_deterministic(struct lh_dev *dev);
void lh_cuda_cache(struct lh_dev *dev, const char *dir);
void lh_cuda_rehearse(struct lh_dev *dev, bool on);
int64_t lh_cuda_preparations(struct lh_dev *dev);
int lh_cuda_alloc(struct lh_dev *dev, void **p, size_t bytes, struct lh_err *err);
void lh_cuda_free(struct lh_dev *dev, void *p);
void *lh_cuda_host_alloc(struct lh_dev *dev, size_t bytes);
void lh_cuda_host_free(struct lh_dev *dev, void *p);
void lh_cuda_put(struct lh_dev *dev, void *dst, const void *host, size_t bytes);
int lh_cuda_fetch(struct lh_dev *dev, void *host, const void *src, size_t bytes,
		  struct lh_err *err);
int lh_cuda_sync(struct lh_dev *dev, struct lh_err *err);
void lh_cuda_zero(struct lh_dev *dev, void *p, size_t bytes);

/* gemm.cu: one GEMM, row-major: d (m,n; stride ldd) = op(a) op(b) [+ c, like d
 * and may be d]. a is (m,k) or, transposed, (k,m); b (k,n) or, transposed, (n,k). */
enum { LH_GEMM_WORK_BYTES = 64 << 20 };
struct lh_gemm {
	int64_t m, n, k;
	int64_t lda, ldb, ldd;
	bool ta, tb;
	cudaDataType_t in, out;
};
void lh_cuda_gemm(struct lh_dev *dev, const struct lh_gemm *g, void *d, const void *a,
		  const void *b, const void *c);
/* Keeps choices in a file of `dir`, and takes those that are there. A
 * deterministic device has none: it takes the library's first guess. */
void lh_cuda_gemms_cache(struct lh_dev *dev, const char *dir, const char *gpu);
void lh_cuda_gemms_free(struct lh_dev *dev);

template <typename T> constexpr cudaDataType_t lh_cuda_type =
	sizeof(T) == 2 ? CUDA_R_16BF : CUDA_R_32F;

/* Sums x (n) in a fixed order, *out (1) += scale * sum (adamw.cu). */
void lh_cuda_sum(struct lh_dev *dev, float *out, const float *x, int64_t n, float scale);

/* lighthouse_score.cu: where the scorer leaves the coarsest means in its
 * scratch, if it does: (B,N_{L-1},H,D) of q, then (B,N_{L-1},G,D) of k. */
template <typename T>
bool lh_cuda_means(const struct lh_lighthouse *g, const struct lh_heads *h, const T *q,
		   const T *k);

template <typename T>
void lh_cuda_cast(struct lh_dev *dev, lh_act *dst, const float *src, int64_t n);
template <typename T>
void lh_cuda_linear(struct lh_dev *dev, const struct lh_linear *s, lh_act *y,
		    const lh_act *x, const lh_act *w, const lh_act *add);
template <typename T>
void lh_cuda_linear_dx(struct lh_dev *dev, const struct lh_linear *s, lh_act *dx,
		       const lh_act *dy, const lh_act *w);
template <typename T>
void lh_cuda_linear_dw(struct lh_dev *dev, const struct lh_linear *s, float *dw,
		       const lh_act *dy, const lh_act *x);
template <typename T>
void lh_cuda_rmsnorm(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y, float *rstd,
		     const lh_act *x, const lh_act *w, float eps);
template <typename T>
void lh_cuda_rmsnorm_bwd(struct lh_dev *dev, int64_t R, int64_t C, lh_act *dx, float *dw,
			 const lh_act *dy, const lh_act *x, const lh_act *w,
			 const float *rstd);
template <typename T>
void lh_cuda_rope(struct lh_dev *dev, int B, int64_t T_, int heads, int D, lh_act *x,
		  int64_t row, const struct lh_rope *rope, const int32_t *start,
		  bool inverse);
template <typename T>
void lh_cuda_bias(struct lh_dev *dev, int64_t R, int64_t N, lh_act *x, const lh_act *b);
template <typename T>
void lh_cuda_bias_bwd(struct lh_dev *dev, int64_t R, int64_t N, float *db,
		      const lh_act *dy);
template <typename T>
void lh_cuda_qk_norm(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *x,
		     int64_t row, const lh_act *w, float eps);
template <typename T>
void lh_cuda_qk_norm_bwd(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *dx,
			 float *dw, const lh_act *x, int64_t row, const lh_act *w,
			 float eps);
template <typename T>
void lh_cuda_swiglu(struct lh_dev *dev, int64_t R, int64_t F, lh_act *y,
		    const lh_act *gu);
template <typename T>
void lh_cuda_swiglu_bwd(struct lh_dev *dev, int64_t R, int64_t F, lh_act *dgu,
			const lh_act *dy, const lh_act *gu);
template <typename T>
void lh_cuda_embed(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y,
		   const int32_t *tokens, const lh_act *w);
template <typename T>
void lh_cuda_embed_bwd(struct lh_dev *dev, int64_t R, int64_t C, int64_t V, float *dw,
		       const lh_act *dy, const int32_t *tokens);
template <typename T>
void lh_cuda_xent(struct lh_dev *dev, int64_t R, int64_t C, int64_t V, float *loss,
		  float *row_loss, lh_act *dx, float *dw, const lh_act *x,
		  const lh_act *w, const int32_t *targets, float scale, void *scratch,
		  size_t scratch_bytes);
template <typename T>
void lh_cuda_copy_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		       int64_t to_row, const lh_act *from, int64_t from_row);
template <typename T>
void lh_cuda_sum_rows(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
		      int64_t to_row, const lh_act *const *from, int64_t from_row,
		      int count);
template <typename T>
void lh_cuda_sdpa(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *o, float *lse,
		  const lh_act *q, const lh_act *k, const lh_act *v);
template <typename T>
void lh_cuda_sdpa_bwd(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *dq,
		      lh_act *dk, lh_act *dv, const lh_act *dout, const lh_act *q,
		      const lh_act *k, const lh_act *v, const lh_act *o,
		      const float *lse);
template <typename T>
void lh_cuda_lighthouse_score(struct lh_dev *dev, const struct lh_lighthouse *g,
			      const struct lh_heads *h, float *score_q, float *score_k,
			      const lh_act *q, const lh_act *k, const lh_act *v,
			      const struct lh_rope *rope, void *scratch);
/* bf16 by cuDNN, where it takes the shape. aligned: 16-byte accesses are possible; all: every
 * query sees every key, 128 of which are a tile, and causal otherwise. */
struct lh_cuda_sdpa_grads {
	void *dq;
	int64_t dq_row;
	void *dk, *dv;
	const void *dout, *q, *k, *v, *o;
	const float *lse;
};
void lh_cuda_sdpa_fused(struct lh_dev *dev, const struct lh_sdpa *s, bool all, void *o,
			float *lse, const void *q, const void *k, const void *v,
			bool aligned);
void lh_cuda_sdpa_fused_bwd(struct lh_dev *dev, const struct lh_sdpa *s, bool all,
			    const struct lh_cuda_sdpa_grads *c, bool aligned);
/* The same of queries at the end of longer keys (lh_cuda_sdpa_is_tail). */
void lh_cuda_sdpa_tail(struct lh_dev *dev, const struct lh_sdpa *s, void *o, float *lse,
		       const void *q, const void *k, const void *v, bool aligned);
void lh_cuda_sdpa_tail_bwd(struct lh_dev *dev, const struct lh_sdpa *s,
			   const struct lh_cuda_sdpa_grads *c, bool aligned);
/* Of documents, where cuDNN takes the shape. aligned: 16-byte accesses are possible. */
void lh_cuda_sdpa_documents(struct lh_dev *dev, const struct lh_sdpa *s, void *o, float *lse,
			    const void *q, const void *k, const void *v, bool aligned);
void lh_cuda_sdpa_documents_bwd(struct lh_dev *dev, const struct lh_sdpa *s, void *dq,
				void *dk, void *dv, const void *dout, const void *q,
				const void *k, const void *v, const void *o,
				const float *lse, bool aligned);
void lh_cuda_lighthouse_select(struct lh_dev *dev, const struct lh_lighthouse *g,
			       const struct lh_heads *h, int32_t *index,
			       const float *score_q, const float *score_k);
void lh_cuda_lighthouse_map(struct lh_dev *dev, const struct lh_lighthouse *g,
			    int64_t BH, int32_t *map, const int32_t *index);
template <typename T>
void lh_cuda_lighthouse_gather(struct lh_dev *dev, const struct lh_lighthouse *g,
			       const struct lh_heads *h, lh_act *qs, lh_act *ks,
			       lh_act *vs, const lh_act *q, const lh_act *k,
			       const lh_act *v, const struct lh_rope *rope,
			       const int32_t *index, const void *scored);
template <typename T>
void lh_cuda_lighthouse_gather_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				   const struct lh_heads *h, lh_act *dq, lh_act *dk,
				   lh_act *dv, const lh_act *dqs, const lh_act *dks,
				   const lh_act *dvs, const struct lh_rope *rope,
				   const int32_t *map);
template <typename T>
void lh_cuda_lighthouse_scatter(struct lh_dev *dev, const struct lh_lighthouse *g,
				const struct lh_heads *h, lh_act *o, const lh_act *os,
				const int32_t *map);
template <typename T>
void lh_cuda_lighthouse_scatter_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				    const struct lh_heads *h, lh_act *dos,
				    const lh_act *dout, const int32_t *index);
template <typename T>
void lh_cuda_lighthouse_halo(struct lh_dev *dev, const struct lh_lighthouse *g,
			     const struct lh_heads *h, lh_act *halo, const lh_act *os,
			     const int32_t *map);
template <typename T>
void lh_cuda_lighthouse_halo_add(struct lh_dev *dev, const struct lh_lighthouse *g,
				 const struct lh_heads *h, lh_act *o, const lh_act *halo);
template <typename T>
void lh_cuda_lighthouse_halo_bwd(struct lh_dev *dev, const struct lh_lighthouse *g,
				 const struct lh_heads *h, float *dhalo,
				 const lh_act *dout);
template <typename T>
void lh_cuda_lighthouse_halo_put(struct lh_dev *dev, const struct lh_lighthouse *g,
				 const struct lh_heads *h, lh_act *dos,
				 const float *dhalo, const int32_t *map);
void lh_cuda_norm(struct lh_dev *dev, float *out, const float *x, int64_t n);
template <typename T>
void lh_cuda_adamw(struct lh_dev *dev, const struct lh_adamw *s, int64_t n, float *param,
		   lh_act *copy, float *m, float *v, const float *grad,
		   const float *grad_norm);

#endif

/* ops.h: the boundary between training code and a compute backend.
 *
 * Above it nothing knows streams, handles or where memory lives; below it
 * nothing knows models, jobs or files. A backend is one `const struct lh_ops`
 * (lh_ops_cpu, the reference; lh_ops_cuda) over one `struct lh_dev`.
 *
 * Dimensions: B sequences, T tokens a sequence, R = B*T rows, C model width,
 * F FFN width, V vocabulary, H query heads, G KV heads (G divides H), D head
 * width (even), and N, L, P, S of lighthouse.h. Row-major, last index fastest.
 *
 * Types. `lh_act` tensors hold ops->sizes->act_type (float32 on the CPU, bf16 on
 * CUDA): activations, their gradients and the compute copy of weights. `float`
 * tensors are float32 everywhere: master weights, weight gradients (always
 * accumulated: "+="), moments, statistics, losses. Token ids are int32.
 * All tensor arguments are backend memory from ops->alloc.
 *
 * Order. Calls on one dev run in the order given, as if each had finished
 * before the next began; only `fetch` and `sync` wait. Outputs never alias
 * inputs unless a comment says in place. Shapes are asserted (LH_BUG): bad
 * shapes are refused long before, when a job is checked.
 *
 * Determinism. Same inputs, same thread count: same bits, in every op; but on CUDA
 * only after set_deterministic, see there.
 *
 * Errors: functions returning int give 0 or LH_E* (memory, device); those
 * returning void cannot fail, or a device reports at the next fetch or sync.
 * One thread at a time may use a dev.
 */
#ifndef LIGHTHOUSE_OPS_H
#define LIGHTHOUSE_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lighthouse/err.h"
#include "lighthouse/lighthouse.h"

typedef void lh_act; /* elements of ops->sizes->act_type */

/* Tensors that lh_ops.sum_rows adds up at once. */
enum { LH_SUM_MAX = 128 };

enum lh_dtype { LH_F32, LH_BF16, LH_I32, LH_DTYPE_COUNT };

static inline size_t lh_dtype_bytes(enum lh_dtype t)
{
	return t == LH_BF16 ? 2 : 4;
}

struct lh_comm_ops; /* lighthouse/comm.h */
struct lh_dev; /* owned by the backend: threads, streams, handles, scratch */

/* Rotary embedding tables, half-split order: dimension d < D/2 of a head pairs
 * with d + D/2. NULL wherever a `rope` is taken means: already rotated. */
struct lh_rope {
	const float *cos; /* (T, D/2) */
	const float *sin; /* (T, D/2) */
};

/* Heads of one attention call. Rows may be slices of a packed (R, (H+2G)*D)
 * projection: a row stride is in elements, from one token to the next; heads of
 * a row are contiguous, and sequences follow each other: sequence b starts at
 * row b*T. */
struct lh_heads {
	int batch;    /* B */
	int64_t tokens; /* T */
	int heads;    /* H */
	int kv_heads; /* G */
	int head_dim; /* D */
	int64_t q_row;  /* stride of q and dq rows, >= H*D */
	int64_t kv_row; /* stride of k, v, dk, dv rows, >= G*D */
	int64_t o_row;  /* stride of o and do rows, >= H*D */
	/* (B,T) the row of the sequence at which each row's document begins; NULL:
	 * a sequence is one document. A row sees no other document, and is rotated
	 * by its place in its own. (optional: has_documents) */
	const int32_t *start;
	const int32_t *start_host; /* the same in host memory, while the call lasts */
};

/* Causal scaled-dot-product attention: query i of a sequence sees keys
 * 0 .. kv_tokens - heads.tokens + i (bottom-right aligned), so that a slice of
 * queries at the end of a longer key sequence is the same call.
 * heads.tokens counts queries; kv_tokens >= heads.tokens counts keys. With
 * documents there are as many of both, and it sees none before its own. */
struct lh_sdpa {
	struct lh_heads heads;
	int64_t kv_tokens;
	float scale; /* usually 1/sqrt(D) */
	/* With more keys than queries, where those before the queries' own may still be on
	 * their way: called before anything is issued that reads them, and as late as may
	 * be. NULL: they are there. */
	void (*await_before)(void *arg);
	void *arg;
};

static inline void lh_sdpa_await_before(const struct lh_sdpa *s)
{
	if (s->await_before && s->kv_tokens > s->heads.tokens)
		s->await_before(s->arg);
}

/* A linear map's shape: y (rows, out) = x (rows, in) . w (out, in)^T. */
struct lh_linear {
	int64_t rows;
	int64_t in;
	int64_t out;
};

struct lh_adamw {
	float lr, beta1, beta2, eps, weight_decay;
	int64_t step;     /* 1 for the first update: bias correction */
	float clip;       /* max global gradient norm; 0 = never clip */
	float grad_scale; /* gradients are multiplied by this first */
};

/* What a backend's ops need besides their tensors, in formulas: in every build,
 * so that a job can be checked where its device is not. */
struct lh_ops_sizes {
	enum lh_dtype act_type;
	/* Scratch that the caller gives to xent and lighthouse_score. */
	size_t (*xent_bytes)(int64_t R, int64_t C, int64_t V);
	size_t (*score_bytes)(const struct lh_lighthouse *g, const struct lh_heads *h);
	/* What sdpa, or sdpa_bwd, makes the device hold for itself; deterministic:
	 * a device that set_deterministic was called for. Of heads.start alone that
	 * there is one counts. */
	size_t (*sdpa_bytes)(const struct lh_sdpa *s, bool backward,
			     bool deterministic);
	/* So do lighthouse_score and lighthouse_select, */
	size_t (*lighthouse_bytes)(const struct lh_lighthouse *g,
				   const struct lh_heads *h);
	/* and rmsnorm_bwd, embed_bwd, bias_bwd and qk_norm_bwd of R rows, C (N, D)
	 * wide. It is one memory: the most of
	 * these is held. */
	size_t (*rows_bytes)(int64_t R, int64_t C);
	/* What the device holds from the start: code, libraries, their buffers; and where it
	 * is one of several `ranks`, and one of `context` that share sequences, what these
	 * speak through. */
	size_t (*open_bytes)(int ranks, int context);
	/* Whether the backend has these ops: a job that needs one is refused. */
	bool has_bias, has_qk_norm, has_documents;
	/* Whether the ops of a layer can do attention of this shape.
	 * LH_EUNSUPPORTED tells the number that is out of bounds, and the bound. */
	int (*supports)(const struct lh_sdpa *s, struct lh_err *err);
};

/* A device before it is opened. */
struct lh_device_info {
	char name[128];       /* "NVIDIA H100 80GB HBM3" */
	int64_t memory_bytes; /* of the whole device */
	char uuid[48];        /* "GPU-" and 36 characters; "": nobody need own it */
	int count;            /* of them there are, alike, one after the other */
};

struct lh_ops {
	const char *name;          /* "cpu", "cuda" */
	const struct lh_ops_sizes *sizes;
	const struct lh_comm_ops *comm; /* between ranks; NULL: there can be but one */

	/* -- device and memory ------------------------------------------------ */
	/* This process is to use device `number` of the first `count` that it sees, and sees
	 * the others behind it. Before any other call, where no other thread runs. */
	void (*choose)(int number, int count);
	/* Whether open would find what it needs; takes no memory of the device. `number`: 0
	 * is the one that open takes. */
	int (*probe)(int number, struct lh_device_info *info, struct lh_err *err);
	/* threads: CPU threads to use, 0 = all the process may run on. */
	int (*open)(struct lh_dev **dev, int threads, struct lh_err *err);
	void (*close)(struct lh_dev *dev); /* NULL is allowed */
	/* One line about the device and its libraries, valid until close. */
	const char *(*describe)(struct lh_dev *dev);
	/* From here on every op gives the same bits, in this process and in any other
	 * on the same device model and libraries: sums in a fixed order, and nothing
	 * that is measured decides how one is computed. Costs time and memory where
	 * it is not so anyway (sdpa_bwd on CUDA). To be called before `cache`. */
	void (*set_deterministic)(struct lh_dev *dev);
	/* Where what is found out about the device may be kept from run to run: an
	 * existing directory. What is in it and does not fit is replaced. */
	void (*cache)(struct lh_dev *dev, const char *dir);
	/* While it is on, calls are made for their shapes: the device finds the
	 * kernels and takes the memory that the same calls will need, so that none
	 * of them waits for that later. What they compute means nothing (attention
	 * may be left out), but stays inside their outputs; ids must be valid. What
	 * cannot be had is told by the next sync. (optional: nothing to find) */
	void (*rehearse)(struct lh_dev *dev, bool on);
	/* How many kernels have been looked for and allocations made since open: it
	 * stands still once all has been rehearsed. (optional) */
	int64_t (*preparations)(struct lh_dev *dev);
	/* Bytes that could be allocated now. */
	int64_t (*free_bytes)(struct lh_dev *dev);
	/* 256-byte aligned, not zeroed. LH_ETOOBIG when it does not fit. */
	int (*alloc)(struct lh_dev *dev, void **p, size_t bytes, struct lh_err *err);
	void (*free)(struct lh_dev *dev, void *p); /* NULL is allowed */
	/* Host memory that fetch is fastest to; NULL when it is not to be had. */
	void *(*host_alloc)(struct lh_dev *dev, size_t bytes);
	void (*host_free)(struct lh_dev *dev, void *p);
	void (*put)(struct lh_dev *dev, void *dst, const void *host, size_t bytes);
	/* Waits until `src` is computed, then copies it out. */
	int (*fetch)(struct lh_dev *dev, void *host, const void *src, size_t bytes,
		     struct lh_err *err);
	int (*sync)(struct lh_dev *dev, struct lh_err *err);
	void (*zero)(struct lh_dev *dev, void *p, size_t bytes);
	/* dst (n) act <- src (n) float: refreshes the compute copy of weights. */
	void (*cast)(struct lh_dev *dev, lh_act *dst, const float *src, int64_t n);

	/* -- linear maps ------------------------------------------------------ */
	/* y (rows,out) <- x (rows,in) . w (out,in)^T [+ add (rows,out)]: the GEMM
	 * adds the residual stream itself. add may be NULL, and may be y. */
	void (*linear)(struct lh_dev *dev, const struct lh_linear *s, lh_act *y,
		       const lh_act *x, const lh_act *w, const lh_act *add);
	/* dx (rows,in) <- dy (rows,out) . w (out,in) */
	void (*linear_dx)(struct lh_dev *dev, const struct lh_linear *s, lh_act *dx,
			  const lh_act *dy, const lh_act *w);
	/* dw (out,in) += dy (rows,out)^T . x (rows,in) */
	void (*linear_dw)(struct lh_dev *dev, const struct lh_linear *s, float *dw,
			  const lh_act *dy, const lh_act *x);

	/* -- pieces of a decoder layer ---------------------------------------- */
	/* y (R,C) <- x * rstd * w; rstd (R) <- 1/sqrt(mean(x^2) + eps) */
	void (*rmsnorm)(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y,
			float *rstd, const lh_act *x, const lh_act *w, float eps);
	/* dx (R,C) += gradient; dw (C) += gradient. In place: dx holds the
	 * residual stream's gradient already. */
	void (*rmsnorm_bwd)(struct lh_dev *dev, int64_t R, int64_t C, lh_act *dx,
			    float *dw, const lh_act *dy, const lh_act *x,
			    const lh_act *w, const float *rstd);
	/* Rotates (inverse: rotates back) `heads` heads of every row in place.
	 * x: B*T rows of stride `row`; token t of a sequence uses table row t, or
	 * t - start[t], start (B,T) as in lh_heads. */
	void (*rope)(struct lh_dev *dev, int B, int64_t T, int heads, int D, lh_act *x,
		     int64_t row, const struct lh_rope *rope, const int32_t *start,
		     bool inverse);
	/* x (R,N) += b (N), to every row. (optional: has_bias) */
	void (*bias)(struct lh_dev *dev, int64_t R, int64_t N, lh_act *x, const lh_act *b);
	/* db (N) += dy (R,N), rows added in ascending order (optional: has_bias) */
	void (*bias_bwd)(struct lh_dev *dev, int64_t R, int64_t N, float *db,
			 const lh_act *dy);
	/* RMSNorm of `heads` heads of every row, in place, one gain w (D) for all:
	 * x: R rows of stride `row`. (optional: has_qk_norm) */
	void (*qk_norm)(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *x,
			int64_t row, const lh_act *w, float eps);
	/* dx, in place: from the gradient of the result to that of x, the rows before
	 * the norm; both of stride `row`. dw (D) += gradient. (optional: has_qk_norm) */
	void (*qk_norm_bwd)(struct lh_dev *dev, int64_t R, int heads, int D, lh_act *dx,
			    float *dw, const lh_act *x, int64_t row, const lh_act *w,
			    float eps);
	/* y (R,F) <- silu(gu[:, :F]) * gu[:, F:], gu (R,2F) */
	void (*swiglu)(struct lh_dev *dev, int64_t R, int64_t F, lh_act *y,
		       const lh_act *gu);
	/* dgu (R,2F) <- gradient; dgu may be gu. */
	void (*swiglu_bwd)(struct lh_dev *dev, int64_t R, int64_t F, lh_act *dgu,
			   const lh_act *dy, const lh_act *gu);
	/* y (R,C) <- w[tokens] ; w (V,C) */
	void (*embed)(struct lh_dev *dev, int64_t R, int64_t C, lh_act *y,
		      const int32_t *tokens, const lh_act *w);
	/* dw (V,C)[tokens] += dy (R,C), rows added in ascending order */
	void (*embed_bwd)(struct lh_dev *dev, int64_t R, int64_t C, int64_t V,
			  float *dw, const lh_act *dy, const int32_t *tokens);
	/* Linear + softmax cross-entropy in row chunks: logits are never whole.
	 * x (R,C), w (V,C), targets (R), -1 = no loss there.
	 * loss (1) += scale * sum of nats; row_loss (R) <- nats, 0 where ignored
	 * (optional, NULL); dx (R,C) <- and dw (V,C) += gradients of scale * sum
	 * (both NULL: loss only).
	 * scratch: >= sizes->xent_bytes; it also decides the chunk. */
	void (*xent)(struct lh_dev *dev, int64_t R, int64_t C, int64_t V, float *loss,
		     float *row_loss, lh_act *dx, float *dw, const lh_act *x,
		     const lh_act *w, const int32_t *targets, float scale,
		     void *scratch, size_t scratch_bytes);

	/* -- rows that are shared with other ranks ------------------------------ */
	/* rows of `width` elements, to_row and from_row apart: to <- from. */
	void (*copy_rows)(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
			  int64_t to_row, const lh_act *from, int64_t from_row);
	/* to <- the float32 sum of from[0], from[1], ..., whose rows are from_row apart; 1 to
	 * LH_SUM_MAX of them. */
	void (*sum_rows)(struct lh_dev *dev, int64_t rows, int64_t width, lh_act *to,
			 int64_t to_row, const lh_act *const *from, int64_t from_row,
			 int count);

	/* -- attention -------------------------------------------------------- */
	/* o <- softmax(scale q k^T + causal) v; lse (B,H,T) <- log-sum-exp of the
	 * scaled, masked scores (NULL: not wanted). */
	void (*sdpa)(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *o, float *lse,
		     const lh_act *q, const lh_act *k, const lh_act *v);
	/* dq, dk, dv <- gradients; dk, dv of a KV head are float32 sums over its
	 * query heads in ascending order. */
	void (*sdpa_bwd)(struct lh_dev *dev, const struct lh_sdpa *s, lh_act *dq,
			 lh_act *dk, lh_act *dv, const lh_act *dout, const lh_act *q,
			 const lh_act *k, const lh_act *v, const lh_act *o,
			 const float *lse);

	/* Lighthouse attention, step by step; heads.tokens == g->tokens == N.
	 * q, k, v are raw rows (rotated on the fly by `rope`, or already rotated
	 * when rope is NULL); H heads after the gather, also for K and V.
	 * Documents: lighthouse.h. */

	/* score_q, score_k (B,H,P): level 0 from the scorer, level l the maximum
	 * over the window. `v` is read by the dilated scorer only. scratch:
	 * >= sizes->score_bytes; whatever it holds afterwards may spare the
	 * gather a reading of q and k. */
	void (*lighthouse_score)(struct lh_dev *dev, const struct lh_lighthouse *g,
				 const struct lh_heads *h, float *score_q,
				 float *score_k, const lh_act *q, const lh_act *k,
				 const lh_act *v, const struct lh_rope *rope,
				 void *scratch);
	/* index (B,H,S): flat pyramid indices in causal order. NaN ranks as +inf,
	 * ties go to the smaller index. Of h: batch, heads, tokens and start. */
	void (*lighthouse_select)(struct lh_dev *dev, const struct lh_lighthouse *g,
				  const struct lh_heads *h, int32_t *index,
				  const float *score_q, const float *score_k);
	/* map (BH,P): row in the sub-sequence of each entry, -1 if absent. */
	void (*lighthouse_map)(struct lh_dev *dev, const struct lh_lighthouse *g,
			       int64_t BH, int32_t *map, const int32_t *index);
	/* qs, ks, vs (B,S,H,D) <- window means of the rotated rows at `index`.
	 * scored: the untouched scratch of lighthouse_score called with the same
	 * g, h, q, k and rope, or NULL when there is none; results are the same. */
	void (*lighthouse_gather)(struct lh_dev *dev, const struct lh_lighthouse *g,
				  const struct lh_heads *h, lh_act *qs, lh_act *ks,
				  lh_act *vs, const lh_act *q, const lh_act *k,
				  const lh_act *v, const struct lh_rope *rope,
				  const int32_t *index, const void *scored);
	/* dq, dk, dv <- gradients of the raw rows (rotated back by `rope`),
	 * strides of h; dqs, dks, dvs (B,S,H,D). */
	void (*lighthouse_gather_bwd)(struct lh_dev *dev, const struct lh_lighthouse *g,
				      const struct lh_heads *h, lh_act *dq, lh_act *dk,
				      lh_act *dv, const lh_act *dqs, const lh_act *dks,
				      const lh_act *dvs, const struct lh_rope *rope,
				      const int32_t *map);
	/* o (B,N,H,D; stride h->o_row) <- sum of the rows os (B,S,H,D) whose
	 * shifted window [i*c+c-1, i*c+2c-2] holds the token, as far as the entry's
	 * document goes; else zero. */
	void (*lighthouse_scatter)(struct lh_dev *dev, const struct lh_lighthouse *g,
				   const struct lh_heads *h, lh_act *o,
				   const lh_act *os, const int32_t *map);
	/* dos (B,S,H,D) <- sum of dout over the tokens a row was added to. */
	void (*lighthouse_scatter_bwd)(struct lh_dev *dev,
				       const struct lh_lighthouse *g,
				       const struct lh_heads *h, lh_act *dos,
				       const lh_act *dout, const int32_t *index);

	/* A sequence in pieces: N tokens each, selected for themselves, B = 1 and no
	 * documents. A row of the last entry of a level belongs to the first c_l - 1
	 * tokens of the next piece, too: its halo, of levels 1 .. L-1. */

	/* halo (L-1,H,D) <- rows of os (S,H,D); zero where none is selected. */
	void (*lighthouse_halo)(struct lh_dev *dev, const struct lh_lighthouse *g,
				const struct lh_heads *h, lh_act *halo,
				const lh_act *os, const int32_t *map);
	/* o (N,H,D; stride h->o_row) += the halo (L-1,H,D) of the piece before, levels
	 * ascending: what lighthouse_scatter of both would give. */
	void (*lighthouse_halo_add)(struct lh_dev *dev, const struct lh_lighthouse *g,
				    const struct lh_heads *h, lh_act *o,
				    const lh_act *halo);
	/* dhalo (L-1,H,D) <- sum of dout over the tokens it was added to, ascending. */
	void (*lighthouse_halo_bwd)(struct lh_dev *dev, const struct lh_lighthouse *g,
				    const struct lh_heads *h, float *dhalo,
				    const lh_act *dout);
	/* dos (S,H,D) += dhalo (L-1,H,D) of the piece behind, where one is selected. */
	void (*lighthouse_halo_put)(struct lh_dev *dev, const struct lh_lighthouse *g,
				    const struct lh_heads *h, lh_act *dos,
				    const float *dhalo, const int32_t *map);

	/* -- optimizer -------------------------------------------------------- */
	/* out (1) <- L2 norm of x (n), summed in a fixed order. */
	void (*norm)(struct lh_dev *dev, float *out, const float *x, int64_t n);
	/* One AdamW update with decoupled weight decay (Loshchilov & Hutter 2019,
	 * algorithm 2) of n parameters. grad_norm (1) is the global norm before
	 * grad_scale: gradients are scaled by grad_scale, then clipped to a norm
	 * of `clip`. Nothing changes when grad_norm is not finite. `copy` (n)
	 * receives the compute copy; NULL where activations are float32. */
	void (*adamw)(struct lh_dev *dev, const struct lh_adamw *s, int64_t n,
		      float *param, lh_act *copy, float *m, float *v,
		      const float *grad, const float *grad_norm);
};

extern const struct lh_ops_sizes lh_sizes_cpu, lh_sizes_cuda, lh_sizes_cuda_f32;
extern const struct lh_ops lh_ops_cpu;
extern const struct lh_ops lh_ops_cuda;
/* The same kernels with float32 activations and slow attention: for tests. */
extern const struct lh_ops lh_ops_cuda_f32;

#endif

/* sdpa_plan.h: fused attention of cuDNN, as plans kept per shape.
 *
 * cuDNN is opened with dlopen at lh_sdpa_plans_new: a program that links this
 * runs without the library until it asks for attention, and is then told which
 * library is missing or too old. Plans cost about a second each to build and are
 * kept until free; pointers and scale are arguments of each run.
 *
 * All tensors bf16, [batch, heads, tokens, head_dim] with unit stride along
 * head_dim, rows of a token `*_row` elements apart, sequences following each
 * other; lse and delta float32 [batch, heads, tokens]. Addresses and strides are
 * multiples of 16 bytes, tokens and kv_tokens multiples of 128;
 * head_dim as lh_cuda_sdpa_fused_width (sizes.h) allows. Plain C, no CUDA types; one thread per object.
 */
#ifndef LIGHTHOUSE_CUDA_SDPA_PLAN_H
#define LIGHTHOUSE_CUDA_SDPA_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lighthouse/err.h"

/* Oldest version known to be right: 9.10 and before are not, 9.14 is tested. */
#define LH_CUDNN_MIN_VERSION 91400

enum lh_sdpa_mask {
	LH_SDPA_TOP_LEFT,     /* query i sees keys 0 .. i; tokens == kv_tokens */
	LH_SDPA_BOTTOM_RIGHT, /* 0 .. kv_tokens - tokens + i */
	LH_SDPA_SHIFTED,      /* 0 .. shift + i, shift given at run */
	LH_SDPA_ALL,          /* all */
};

struct lh_sdpa_shape {
	int32_t batch, heads, kv_heads, head_dim;
	int64_t tokens, kv_tokens;
	int64_t q_row, kv_row, o_row; /* of q; of k, v and their gradients; of o and dout */
	int64_t dq_row;   /* backward alone */
	int32_t mask;     /* enum lh_sdpa_mask */
	int32_t backward;
	int32_t deterministic; /* backward alone: bits that repeat, see sdpa_graph.c */
};

struct lh_sdpa_tensors {
	const void *q, *k, *v;
	void *o;      /* forward: written; backward: read */
	void *lse;    /* likewise */
	const void *dout;
	void *dq, *dk, *dv;
	void *delta;  /* float32 (B,H,T) scratch */
	void *dq_sum; /* float32 (B,H,T,D) scratch; not if deterministic */
	void *workspace; /* 256-byte aligned */
	float scale;
	int32_t shift;
};

struct lh_sdpa_plans;
struct lh_sdpa_plan;

/* Whether cuDNN is there and new enough; errors as of lh_sdpa_plans_new. */
int lh_sdpa_check_library(struct lh_err *err);
/* Opens cuDNN; `stream` is a cudaStream_t. LH_EUNSUPPORTED names the library,
 * the version found and the one needed. */
int lh_sdpa_plans_new(struct lh_sdpa_plans **plans, void *stream, struct lh_err *err);
void lh_sdpa_plans_free(struct lh_sdpa_plans *plans); /* NULL is allowed */
/* "cuDNN 9.19.0, attention engines 2 forward, 6 backward", of the plans so far. */
void lh_sdpa_plans_describe(const struct lh_sdpa_plans *plans, char *text, size_t bytes);
/* Plans so far. */
int lh_sdpa_plans_count(const struct lh_sdpa_plans *plans);

/* Keeps plans as files of `dir`: reloading one takes milliseconds. */
void lh_sdpa_plans_cache(struct lh_sdpa_plans *plans, const char *dir, const char *gpu);
/* Finds or builds the plan of a shape (compared as bytes: zero it first). The log
 * is told, once a direction, when it is by none of cuDNN's fast engines. */
int lh_sdpa_plans_get(struct lh_sdpa_plans *plans, const struct lh_sdpa_shape *shape,
		      const struct lh_sdpa_plan **plan, struct lh_err *err);
size_t lh_sdpa_plan_workspace_bytes(const struct lh_sdpa_plan *plan);
/* Enqueues; nothing waits. */
int lh_sdpa_plan_run(struct lh_sdpa_plans *plans, const struct lh_sdpa_plan *plan,
		     const struct lh_sdpa_tensors *t, struct lh_err *err);

/* Without a GPU: the engine cuDNN would choose on the device that `device_json`
 * describes (cuDNN's DEVICEPROP form), and its workspace. For tests. */
int lh_sdpa_probe(const char *device_json, const struct lh_sdpa_shape *shape,
		  int64_t *engine, int64_t *workspace_bytes, struct lh_err *err);

#endif

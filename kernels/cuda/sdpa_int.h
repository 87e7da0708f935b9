/* sdpa_int.h: what sdpa_plan.c and sdpa_graph.c share: cuDNN's functions as
 * loaded, and the graph of one shape. */
#ifndef LIGHTHOUSE_CUDA_SDPA_INT_H
#define LIGHTHOUSE_CUDA_SDPA_INT_H

#include <cudnn.h>

#include "sdpa_plan.h"

struct lh_cudnn {
	void *library;
	size_t number; /* 91900 */
	char version[24];
	__typeof__(cudnnGetVersion) *get_version;
	__typeof__(cudnnGetErrorString) *error_string;
	__typeof__(cudnnGetLastErrorString) *last_error;
	__typeof__(cudnnCreate) *create;
	__typeof__(cudnnDestroy) *destroy;
	__typeof__(cudnnSetStream) *set_stream;
	__typeof__(cudnnBackendCreateDescriptor) *make;
	__typeof__(cudnnBackendDestroyDescriptor) *unmake;
	__typeof__(cudnnBackendSetAttribute) *set;
	__typeof__(cudnnBackendGetAttribute) *get;
	__typeof__(cudnnBackendFinalize) *finalize;
	__typeof__(cudnnBackendExecute) *execute;
};

/* Unique ids of the tensors a run passes. */
enum lh_sdpa_uid {
	LH_SDPA_Q = 1, LH_SDPA_K, LH_SDPA_V, LH_SDPA_O, LH_SDPA_LSE, LH_SDPA_DOUT,
	LH_SDPA_DQ, LH_SDPA_DK, LH_SDPA_DV, LH_SDPA_DELTA, LH_SDPA_DQ_SUM,
	LH_SDPA_SCALE, LH_SDPA_NINF, LH_SDPA_ONE, LH_SDPA_KV_LEN, LH_SDPA_Q_LEN,
	LH_SDPA_SHIFT, LH_SDPA_UIDS
};

enum { LH_GRAPH_OPS = 32, LH_GRAPH_DESCRIPTORS = 128 };

/* A graph under construction; the first failure stands and later calls do
 * nothing. Descriptors live until the plan is gone. */
struct lh_sdpa_graph {
	const struct lh_cudnn *cudnn;
	cudnnHandle_t handle;      /* NULL: planned for a described device */
	struct lh_err *err;
	int failed;
	cudnnBackendDescriptor_t all[LH_GRAPH_DESCRIPTORS];
	int count;
	cudnnBackendDescriptor_t ops[LH_GRAPH_OPS];
	int op_count;
	int64_t next_uid;          /* of virtual tensors */
	bool uses[LH_SDPA_UIDS];   /* what a run has to pass */
	cudnnBackendDescriptor_t graph;
};

/* Checks a status; records what failed. True when all is well. */
bool lh_sdpa_ok(struct lh_sdpa_graph *g, cudnnStatus_t rc, const char *what);
/* A new descriptor that the graph owns, or NULL. */
cudnnBackendDescriptor_t lh_sdpa_make(struct lh_sdpa_graph *g,
				      cudnnBackendDescriptorType_t type);
void lh_sdpa_set(struct lh_sdpa_graph *g, cudnnBackendDescriptor_t d,
		 cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
		 int64_t count, const void *values);
void lh_sdpa_finalize(struct lh_sdpa_graph *g, cudnnBackendDescriptor_t d,
		      const char *what);

/* Builds the operation graph of a shape into g->graph. */
int lh_sdpa_graph_build(struct lh_sdpa_graph *g, const struct lh_sdpa_shape *s);
void lh_sdpa_graph_release(struct lh_sdpa_graph *g);

#endif

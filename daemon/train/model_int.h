/* model_int.h: the model's insides, for model.c, forward.c, windows.c, update.c and
 * decode.c only. Shapes: R rows, B*T or a rank's part of T; see lighthouse/ops.h for the
 * letters. */
#ifndef LIGHTHOUSE_MODEL_INT_H
#define LIGHTHOUSE_MODEL_INT_H

#include "train/layout.h"
#include "train/model.h"
#include "train/params.h"

/* Of divided parameters those that a pass is at: first .. first + count - 1, whole. */
struct lh_window {
	int64_t first, count;
	void *at;
	int slot;       /* of a comm, in which it is gathered or summed */
	bool under_way; /* there: not to be touched */
};

/* A layer's matrices, of two layers in turn; the embedding or the output; and gains and
 * biases. */
struct lh_windows {
	struct lh_window layer[2], ends, gains;
};
enum { LH_WINDOWS = 4 };

/* The one that a layer has: its neighbours have the other. */
static inline struct lh_window *lh_layer_window(struct lh_windows *w, int layer)
{
	return &w->layer[layer % 2];
}

struct lh_model {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	struct lh_job_model c;
	int B;
	int64_t T;
	struct lh_params params;

	/* The rank that this is, and what it updates: `shard` parameters from
	 * first on. The last shards may end behind the parameters, or lie there. */
	struct lh_comm comm;
	struct lh_comm context; /* ranks that share each sequence; alone: it is whole */
	int64_t shard, first;
	/* What is divided besides moments; then of several ranks. */
	bool divided_grads, divided_weights;
	bool leads;          /* passes are this rank's alone */

	void *state_arena;
	/* (size * shard), or of what is divided this rank's (shard). */
	float *param, *grad;
	float *m, *v;        /* (shard) */
	lh_act *weight;              /* compute copy of param; == param for float32 */
	struct lh_windows grads;     /* of divided gradients, float */
	struct lh_windows weights;   /* of divided weights, compute copies */
	float *loss;                 /* (1) of the optimizer step */
	float *eval_loss;            /* (1) */
	float *grad_norm;            /* (1) */

	void *act_arena;
	int64_t act_bytes;
	struct lh_layout layout;     /* of `acts`; its mode is that of the pass */
	struct lh_acts acts;
};

/* Floats of a state that this rank has, from number `first` of them all on. */
struct lh_held {
	float *at;
	int64_t first, count;
};
struct lh_held lh_model_held(const struct lh_model *m, enum lh_model_state which);

/* Gives `acts` the places of a pass in this mode. */
void lh_model_lay_out(struct lh_model *m, const struct lh_attention_mode *mode,
		      bool train);

/* Rotary tables of positions 0 .. tokens-1 into backend memory (tokens, D/2): angles
 * t * turn[d] of rope.h, in double so that long positions keep their precision. */
void lh_model_fill_rope(struct lh_model *m, const struct lh_rope *rope, int64_t tokens);

/* The norms of a layer's q and k, of a model that has them. */
struct lh_attention_norm lh_model_norm_of(const struct lh_model *m, int layer);

/* n activations to the host, as float32. */
int lh_model_fetch(struct lh_model *m, float *host, const lh_act *src, int64_t n,
		   struct lh_err *err);

/* A pass comes to the embedding, to a layer, to the output: their weights are there until it
 * comes to the next, those of gains all along. It comes to layer 0 after the embedding, and
 * from a layer to `next`: a layer, or the output, which is the number of layers, or -1, to
 * none. For weights that are not divided nothing. Collective. */
void lh_model_use_embedding(struct lh_model *m);
void lh_model_use_layer(struct lh_model *m, int layer, int next);
void lh_model_use_output(struct lh_model *m);
/* Compute copy of the tensor at a parameter offset. */
lh_act *weight_at(const struct lh_model *m, int64_t offset);

/* Parameters first .. first + count - 1 are what a pass makes gradients of next, in a window
 * that starts at zero; and they are made: their sums over ranks begin to go to the shards.
 * When a pass has made all, it waits for the sums of all windows. For gradients that are not
 * divided nothing. Collective. */
void lh_model_open_window(struct lh_model *m, struct lh_window *w, int64_t first,
			  int64_t count);
void lh_model_close_window(struct lh_model *m, struct lh_window *w);
void lh_model_await_windows(struct lh_model *m);
/* Where the gradient of the tensor at a parameter offset is to be added. */
float *lh_model_grad_at(const struct lh_model *m, int64_t offset);
/* Of a gradient that is whole: this rank's part <- its sum over ranks; the rest is lost. */
void lh_model_sum(struct lh_model *m);

/* This rank's part of the gradient, once it is measured: (shard). */
static inline float *own_grad(const struct lh_model *m)
{
	return m->divided_grads ? m->grad : m->grad + m->first;
}

/* Parameters of this rank's shard, from m->first on: 0 where it lies behind them. */
static inline int64_t shard_count(const struct lh_model *m)
{
	int64_t rest = m->params.floats - m->first;

	return rest < 0 ? 0 : rest < m->shard ? rest : m->shard;
}

/* Parameters whose weights this rank has: so many, from this one on. */
static inline int64_t held_first(const struct lh_model *m)
{
	return m->divided_weights ? m->first : 0;
}

static inline int64_t held_count(const struct lh_model *m)
{
	return m->divided_weights ? shard_count(m) : m->params.floats;
}

#endif

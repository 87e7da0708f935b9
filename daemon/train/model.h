/* model.h: a Llama-style decoder over lh_ops: parameters, loss and gradient.
 *
 * RMSNorm -> attention -> + ; RMSNorm -> SwiGLU FFN -> + ; final RMSNorm, output
 * matrix (or the embedding, when tied). Rotary positions, grouped KV heads; if the
 * job says so biases of q, k, v, and norms of q and k before they are rotated.
 * Attention of each layer is full or Lighthouse as the given mode says; both use the
 * same parameters.
 *
 * Memory. Two arenas made at `new`: parameters with gradients and moments; and
 * activations of one micro-batch, sized for the largest of the modes given, see
 * layout.h. Nothing is allocated later: changing the mode is free.
 *
 * Parameters lie in one flat float32 array, see params.h.
 *
 * Ranks. A model may be one of several that are equal, one a rank, each given its part
 * of a batch. Moments are divided: each rank has those of a shard of the parameters, and
 * updates it. Gradients are whole, and summed when they are measured; or they are divided,
 * too: a pass has those of a layer at a time, which are summed where they belong while it is
 * at the next. Weights are whole everywhere; or with gradients they are divided, too: a pass
 * gathers those of a layer while it is at the one before. All ranks call what is collective,
 * alike (comm.h): measure, apply, read_any and prepare; with divided gradients
 * forward_backward, with divided weights every pass, and a rank that has none to make goes
 * along.
 *
 * Ranks may also share each sequence: all of a `context` are given the same one, whole, and
 * each takes its part of the tokens (context.h). Then every pass over T tokens is collective
 * among them, and all have what comes of it, unless one has an error: it is that one's alone.
 * A pass over no more tokens than a rank's part is its own.
 *
 * One thread (the training thread). The device outlives the model.
 */
#ifndef LIGHTHOUSE_MODEL_H
#define LIGHTHOUSE_MODEL_H

#include "lighthouse/comm.h"
#include "lighthouse/job.h"
#include "lighthouse/ops.h"
#include "train/params.h"

/* How attention is done: a phase of the job, without its limits. */
struct lh_attention_mode {
	enum lh_attention attention;
	enum lh_recompute recompute;    /* of its training steps */
	struct lh_lighthouse geometry;  /* tokens = T of the model */
	bool dense[LH_LAYERS_MAX];  /* layers that stay full */
};
/* Full attention everywhere: evaluation, recovery, sampling; none recomputed. */
extern const struct lh_attention_mode lh_attention_full;
void lh_attention_mode_of(struct lh_attention_mode *mode, const struct lh_job *job,
			  int phase);

struct lh_model;

/* Of the ranks of a model. */
struct lh_division {
	struct lh_comm comm;
	enum lh_divide divide;
	struct lh_comm context; /* those with which this one shares sequences; size 0: none */
};

/* `B` sequences of `T` tokens a micro-batch at most; `modes` (recompute chosen)
 * are all that forward_backward may be given, the loss may also be of full
 * attention. Weights are zero until init or load. `division` (copied): NULL is alone. */
int lh_model_new(struct lh_model **model, const struct lh_ops *ops, struct lh_dev *dev,
		 const struct lh_division *division,
		 const struct lh_job_model *config, int B, int64_t T,
		 const struct lh_attention_mode *modes, int mode_count,
		 struct lh_err *err);
void lh_model_free(struct lh_model *model);

/* Normal(0, init_std) by a counter-based generator, gains 1, biases 0: the same
 * weights for a seed on every backend. */
void lh_model_init(struct lh_model *model, uint64_t seed);

const struct lh_param *lh_model_params(const struct lh_model *model, int *count);
int64_t lh_model_param_count(const struct lh_model *model);

/* Flat state of param_count floats each, for checkpoints and tests. */
enum lh_model_state { LH_STATE_PARAM, LH_STATE_MOMENT1, LH_STATE_MOMENT2,
		      LH_STATE_GRAD };
/* host (count) <- parameters from `offset` on, whichever ranks have them: each asks for what
 * it wants, which may be none. Collective; an error is every rank's. Not within a pass,
 * whose memory it takes. */
int lh_model_read_any(struct lh_model *model, enum lh_model_state which, int64_t offset,
		      int64_t count, float *host, struct lh_err *err);
/* Of what is divided a rank reads and writes what is its own: reading others is a bug,
 * writing them nothing. */
int lh_model_read(struct lh_model *model, enum lh_model_state which, int64_t offset,
		  int64_t count, float *host, struct lh_err *err);
void lh_model_write(struct lh_model *model, enum lh_model_state which, int64_t offset,
		    int64_t count, const float *host);
/* After writing parameters: refreshes compute copies. */
void lh_model_weights_changed(struct lh_model *model);

void lh_model_zero_grad(struct lh_model *model); /* and the loss sum */
/* tokens, targets (B,T) host; targets -1 = no loss there. starts (B,T) host: the row of
 * the sequence at which each row's document begins, a multiple of the coarsest window of
 * Lighthouse modes; documents see nothing of each other. NULL: a sequence is one.
 * Adds scale * sum of nats to the loss, and its gradient. b <= B, t == T. Shared sequences
 * come one at a time, without starts, and a rank adds what is of its part. */
void lh_model_forward_backward(struct lh_model *model,
			       const struct lh_attention_mode *mode, int b,
			       const int32_t *tokens, const int32_t *targets,
			       const int32_t *starts, float scale);
/* Forward only; t <= T when the mode is full attention, of shared sequences T or no more
 * than a rank's part. row_loss (b,t) host or NULL: on all ranks or none. *loss = sum of
 * nats. Leaves gradients alone. */
int lh_model_loss(struct lh_model *model, const struct lh_attention_mode *mode, int b,
		  int64_t t, const int32_t *tokens, const int32_t *targets,
		  const int32_t *starts, double *loss, float *row_loss,
		  struct lh_err *err);
/* Logits (b, V) host, float32, of the token that follows row `at` of each sequence, one
 * document: forward only, t <= T as in lh_model_loss. */
int lh_model_logits(struct lh_model *model, const struct lh_attention_mode *mode, int b,
		    int64_t t, const int32_t *tokens, int64_t at, float *logits,
		    struct lh_err *err);
/* A forward pass of b sequences of T tokens in a Lighthouse mode; after each of its
 * Lighthouse layers `seen` gets the choice of the first sequence: index (H,S), host. */
int lh_model_selection(struct lh_model *model, const struct lh_attention_mode *mode, int b,
		       const int32_t *tokens, const int32_t *starts,
		       void (*seen)(void *arg, int layer, const int32_t *index), void *arg,
		       struct lh_err *err);
/* Where weights are divided; else nothing. A forward pass that other ranks make and this
 * one does not: it gives them its part of the weights. */
void lh_model_go_along(struct lh_model *model);
/* While it is on, forward passes are this rank's alone, it is 0, and the others follow: they
 * go along until it is off. */
void lh_model_lead(struct lh_model *model, bool on);
void lh_model_follow(struct lh_model *model);
/* Rehearses (ops.h) what will be run, so that no step, switch or evaluation waits
 * for a kernel or for memory: optimizer steps of `sequences` in every mode, and
 * evaluations of `evaluated` (0: none) with full attention and in every Lighthouse
 * mode, all B at a time with a smaller last one, and the logits of a row. documents:
 * but for these, all with starts. Weights stay as they are, gradients are zero after it. */
int lh_model_prepare(struct lh_model *model, const struct lh_attention_mode *modes,
		     int mode_count, int64_t sequences, int64_t evaluated, bool documents,
		     struct lh_err *err);
/* Rehearses the loss of b sequences of t tokens with full attention, too. */
int lh_model_prepare_short(struct lh_model *model, int b, int64_t t, struct lh_err *err);
/* *loss and *grad_norm of what was added up since zero_grad, by all ranks: waits for
 * it. The gradient of its shard is then the sum over ranks, the rest is lost. An error
 * is every rank's. */
int lh_model_measure(struct lh_model *model, float *loss, float *grad_norm,
		     struct lh_err *err);
/* One AdamW update with the gradient that was measured; a device applies nothing
 * of one that is not finite. */
void lh_model_apply(struct lh_model *model, const struct lh_adamw *opt);

/* Autoregressive decoding with a KV cache; full attention; one sequence. */
struct lh_decoder;
int lh_decoder_new(struct lh_decoder **d, struct lh_model *model, int64_t max_tokens,
		   struct lh_err *err);
void lh_decoder_free(struct lh_decoder *d);
/* Feeds n tokens, gives logits (V) after the last one, host float32. */
int lh_decoder_feed(struct lh_decoder *d, const int32_t *tokens, int64_t n,
		    float *logits, struct lh_err *err);

#endif

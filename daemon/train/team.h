/* team.h: what the ranks of a job do together.
 *
 * Rank 0 runs the training loop and alone decides: what it calls here, it first tells the
 * others, which do the same with their part of the data (lh_team_follow). So the ranks
 * cannot come to differ over a command, a clock or a full disk: whatever lhd says is
 * applied where rank 0 applies it, and a rank knows no phases or steps of its own. With
 * one rank nothing is told and nothing differs from a model that is alone.
 *
 * A step's sequences are divided evenly: rank r of n has the r-th n-th of those that the
 * cursor names, so the same data come whatever the number of ranks. Where `context` ranks in
 * a row share each sequence it is groups of them that have a part; all of a group read the
 * same ones whole, and the model takes each one's rows (train/context.h).
 *
 * What fails on one rank (a damaged shard, no memory) is an error on all of them, that
 * names it. Of a rank that is lost peers.h tells.
 *
 * Training thread.
 */
#ifndef LIGHTHOUSE_TEAM_H
#define LIGHTHOUSE_TEAM_H

#include "train/data.h"
#include "train/model.h"
#include "train/passkey.h"
#include "train/peers.h"
#include "train/positions.h"
#include "train/saver.h"

struct lh_team_config {
	const struct lh_job *job;
	const struct lh_ops *ops;
	const char *cache;    /* directory for what the device finds out, or NULL */
	int rank, size;
	int host_ranks;       /* that share its host's processors, it among them */
	struct lh_peers *peers; /* of several ranks; outlives the team */
	const struct lh_scan *scan; /* of rank 0, of lh_data_open; or NULL */
};

struct lh_team {
	const struct lh_team_config *c;
	const struct lh_job *job;
	struct lh_comm comm;
	struct lh_comm context;  /* those that this rank shares sequences with; alone: none */
	struct lh_dev *dev;
	int64_t free_bytes;      /* of the device that has the least, once all are open */
	struct lh_data data;     /* its mix is set on rank 0: the others follow */
	struct lh_passkey_words words; /* none where the job has none */
	struct lh_model *model;
	struct lh_saver *saver;
	char *saved_in;          /* of a rank but 0: where that saves */
	/* By phase; rank 0 chooses what is recomputed, before the model is made. */
	struct lh_attention_mode modes[LH_PHASES_MAX];
	int micro;               /* sequences of a rank's micro-batch */
	int64_t share;           /* sequences of a rank's step, or of its group's */
	int32_t *tokens, *targets; /* (micro, seq_len) */
	int32_t *starts;         /* (micro, seq_len), NULL: documents are not kept apart */
	float *row_loss;         /* (micro, seq_len) */
	struct lh_err trouble;   /* of this rank, until all are asked */
	bool together;           /* the others wait for orders */
};

/* ---- every rank ------------------------------------------------------------ */
/* Device, data and the others; no model yet. *t is to be closed whatever comes. */
int lh_team_open(struct lh_team *t, const struct lh_team_config *c, struct lh_err *err);
/* Rank 0's: a save that is under way is waited for, and the others end, too. */
void lh_team_close(struct lh_team *t);

/* Sequence number `draw` of training becomes number s of this rank's micro-batch; or
 * sequence i of n of a validation set. */
int lh_team_read_train(struct lh_team *t, int64_t draw, int s, struct lh_err *err);
int lh_team_read_validation(struct lh_team *t, int set, int64_t i, int64_t n, int s,
			    struct lh_err *err);

/* ---- ranks but 0 ----------------------------------------------------------- */
/* Does what rank 0 says until it closes. */
int lh_team_follow(const struct lh_team_config *c, struct lh_err *err);

/* ---- rank 0 ---------------------------------------------------------------- */
int lh_team_make_model(struct lh_team *t, struct lh_err *err);
/* lh_model_prepare of one phase. */
int lh_team_prepare(struct lh_team *t, int phase, struct lh_err *err);
void lh_team_init(struct lh_team *t, uint64_t seed);
/* The others take the checkpoint that this rank has taken; without moments: its weights
 * alone. */
int lh_team_load(struct lh_team *t, const char *path, bool moments, struct lh_err *err);

/* A step: begin, a micro-batch for every `at` (0, micro, ... < share), measure, and apply
 * or not. It may be left off at any place. `step` is the one that is being made; `scale`
 * as in model.h, for all ranks. */
void lh_team_begin(struct lh_team *t, int64_t step);
int lh_team_micro(struct lh_team *t, int phase, int64_t cursor, int64_t at, float scale,
		  struct lh_err *err);
int lh_team_measure(struct lh_team *t, float *loss, float *norm, struct lh_err *err);
void lh_team_apply(struct lh_team *t, const struct lh_adamw *opt);

/* What follows has a `mode`: full attention (lh_attention_full) or a phase's, of t->modes.
 * No state of training is touched. */
struct lh_losses {
	double nats;
	int64_t tokens;
	struct lh_positions by_place; /* where evaluation.positions says so */
	int64_t by_place_us;          /* what telling them apart took on this rank */
};
/* Adds the losses of validation sequences i, i + 1, ...: of a round of them, less those
 * behind evaluation.sequences. */
int64_t lh_team_round(const struct lh_team *t);
int lh_team_evaluate(struct lh_team *t, int set, const struct lh_attention_mode *mode,
		     int64_t i, struct lh_losses *sum, struct lh_err *err);

struct lh_team_passkey { /* passkey.h */
	const struct lh_attention_mode *mode;
	int64_t context;
	int depth_percent;
	int64_t sample; /* the first one of a round */
};
/* Sequences of a pass that is no step: of the shape of an evaluation's, which was
 * rehearsed, on one rank and on all of them. */
int lh_team_look_batch(const struct lh_team *t);
int64_t lh_team_look_round(const struct lh_team *t);
/* Adds how many digits of a round are found, less those behind the job's samples. */
int lh_team_passkey(struct lh_team *t, const struct lh_team_passkey *p, int64_t *found,
		    struct lh_err *err);
/* Of what is in t->tokens, t->targets, of this rank's choosing: t->row_loss <- that of b
 * sequences of `tokens` each, seq_len or lh_team_own_tokens at most; and lh_model_selection
 * of b sequences. */
int lh_team_loss(struct lh_team *t, const struct lh_attention_mode *mode, int b,
		 int64_t tokens, struct lh_err *err);
int lh_team_selection(struct lh_team *t, const struct lh_attention_mode *mode, int b,
		      void (*seen)(void *arg, int layer, const int32_t *index), void *arg,
		      struct lh_err *err);
/* The most tokens of a sequence that a rank has to itself. */
int64_t lh_team_own_tokens(const struct lh_team *t);
/* While it is on, forward passes of the model are this rank's alone: lh_model_lead. Of shared
 * sequences those of lh_team_own_tokens at most. */
void lh_team_lead(struct lh_team *t, bool on);

/* Checkpoints, as in saver.h. `config` names what is rank 0's, and the directory. */
int lh_team_open_saver(struct lh_team *t, const struct lh_saver_config *config,
		       struct lh_err *err);
int lh_team_begin_save(struct lh_team *t, const struct lh_progress *p, const char *reason,
		       struct lh_err *err);
bool lh_team_is_saving(const struct lh_team *t);
bool lh_team_take_save(struct lh_team *t, bool wait, struct lh_saved *saved);

#endif

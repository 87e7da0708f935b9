/* job.h: a training job as resolved from its job file.
 *
 * The job file is YAML; schema/job.json is the one table of its keys (type,
 * range, default, meaning), from which the loader's table and the reference are
 * generated. `lhd` resolves a file once, at submit, and hands the result to the
 * worker as JSON (job.json in the job's directory), so that both read the same
 * values. Loader: daemon/jobs/jobfile.h.
 *
 * A plain struct, owned by its holder; strings are heap memory it owns.
 */
#ifndef LIGHTHOUSE_JOB_H
#define LIGHTHOUSE_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/lighthouse.h"
#include "lighthouse/shard.h"

#define LH_PHASES_MAX 16
#define LH_DEVICES_MAX 64
#define LH_RULES_MAX 32
#define LH_SOURCES_MAX 32
#define LH_WEIGHT_MAX 1e6 /* of a source */
#define LH_LAYERS_MAX 128
#define LH_SETS_MAX 16
#define LH_SET_NAME "validation" /* of the one that has none */
#define LH_CHOICES_NAME "choices" /* of a file of multiple choice that has none */

enum lh_device { LH_DEVICE_AUTO, LH_DEVICE_CPU, LH_DEVICE_CUDA };
enum lh_schedule { LH_SCHEDULE_CONSTANT, LH_SCHEDULE_LINEAR, LH_SCHEDULE_COSINE,
		   LH_SCHEDULE_WSD };
enum lh_attention { LH_ATTENTION_FULL, LH_ATTENTION_LIGHTHOUSE };
/* What backward computes again instead of keeping it, ever more: see
 * daemon/train/layout.h. */
enum lh_recompute { LH_RECOMPUTE_AUTO, LH_RECOMPUTE_NONE, LH_RECOMPUTE_CHEAP,
		    LH_RECOMPUTE_MLP, LH_RECOMPUTE_LAYER };
/* What several devices have parts of beside the batch: each with what is before it. */
enum lh_divide { LH_DIVIDE_MOMENTS, LH_DIVIDE_GRADIENTS, LH_DIVIDE_WEIGHTS };
/* How ids become text; a file's is known to lhctl alone. */
enum lh_tokenizer { LH_TOKENIZER_BYTES, LH_TOKENIZER_NONE, LH_TOKENIZER_FILE };

/* Of a sequence: tokens see all before them, or those of their own document alone. */
enum lh_documents { LH_DOCUMENTS_ATTEND, LH_DOCUMENTS_SEPARATE };

/* Slower rotary angles for a longer context: daemon/train/rope.h. */
enum lh_rope_scaling { LH_ROPE_NONE, LH_ROPE_LINEAR, LH_ROPE_LLAMA3, LH_ROPE_YARN };
struct lh_job_rope_scaling {
	enum lh_rope_scaling type;
	double factor;           /* how many times longer */
	int64_t original_tokens; /* the context before; llama3, yarn */
	double low_freq_factor, high_freq_factor; /* llama3: turns in it */
	double beta_fast, beta_slow;              /* yarn: the same */
	double attention_factor; /* yarn; 0: 0.1 ln(factor) + 1 */
};

struct lh_job_model {
	char *preset;       /* "" or a preset that filled the rest */
	char *from;         /* absolute path of a checkpoint to start from, or "" */
	int64_t vocab;      /* V */
	int64_t dim;        /* C */
	int layers;
	int heads;          /* H */
	int kv_heads;       /* G, divides H */
	int head_dim;       /* D, even; 0 in the file: dim / heads */
	int64_t ffn_dim;    /* F */
	bool tied;          /* output matrix = embedding */
	bool qkv_bias;      /* of q, k, v */
	bool qk_norm;       /* heads of q, k are normalized before the rotation */
	double rope_theta;
	struct lh_job_rope_scaling rope_scaling;
	double norm_eps;
	double init_std;    /* residual projections: / sqrt(2 * layers) */
};

/* One of a mixture: the next `shards` of data.train, drawn from by weight. */
struct lh_job_source {
	double weight;      /* 0: not before one is set live */
	int shards;
	char *name;         /* its place from 1 unless the file gives one */
};

/* A file to be evaluated on: a shard, or multiple choice. */
struct lh_job_set {
	char *name;         /* LH_SET_NAME, LH_CHOICES_NAME unless the file gives one */
	char *path;         /* absolute */
};

struct lh_job_data {
	char **train;       /* absolute paths of shards, globs expanded; of each source
			     * sorted */
	int train_count;
	struct lh_job_source sources[LH_SOURCES_MAX];
	int source_count;   /* 0: no mixture, all shards are alike */
	struct lh_job_set validation[LH_SETS_MAX]; /* the first is what rules mean */
	int validation_count;
	enum lh_shard_format format; /* of all of them */
	enum lh_documents documents;
	char *tokenizer;    /* "bytes", "none", or the absolute path of a file */
	int64_t seq_len;    /* N tokens a sequence */
	int64_t shuffle_seed;
};

struct lh_job_batch {
	int64_t sequences;       /* per optimizer step */
	int64_t micro_sequences; /* per forward/backward of a rank; 0 = all of its own, but
				  * of shared ones one */
};

struct lh_job_optimizer {
	double lr, beta1, beta2, eps, weight_decay;
	double clip;             /* 0 = off */
	int64_t warmup_steps;
	enum lh_schedule schedule;
	double final_lr_factor;  /* lr at the end / lr (linear, cosine, wsd) */
	double decay_fraction;   /* wsd: last share of all steps that decays */
};

/* When a phase ends by itself: the first of the limits that is reached; a value
 * of 0 is no limit. `manual`: none, only `lhctl switch` ends it. */
struct lh_job_until {
	int64_t steps;
	int64_t tokens;
	double minutes;
	bool manual;
};

struct lh_job_phase {
	char *name;
	enum lh_attention attention;
	/* lighthouse only; its tokens field is data.seq_len */
	struct lh_lighthouse lighthouse;
	int dense_layers[LH_LAYERS_MAX]; /* 0 .. layers-1, sorted, unique */
	int dense_count;
	double lr_factor;
	struct lh_job_until until;
};

/* When a condition holds or an event comes, do a command: daemon/jobs/rule.h. */
struct lh_job_rule {
	char *name;
	char *when;          /* SQL condition, or "" */
	char *on;            /* glob over kinds of events, or "" */
	char *action;        /* "switch recovery" */
	bool repeat;
	double cooldown_s;
};

struct lh_job_evaluation {
	int64_t every_steps; /* 0 = only at the start, around switches, at the end */
	int64_t sequences;   /* of the validation split, each time */
	bool gap;            /* find out what a switch would gain and cost */
	bool selection;      /* look at what Lighthouse attention selects */
	bool positions;      /* tell the loss by place in the sequence */
	struct {
		int64_t every_steps; /* 0 = by command only */
		char *file;          /* absolute path of words in ids, or "" */
		int64_t from_tokens; /* shortest context; they double from there */
		int64_t samples;     /* of each context and depth */
		int64_t seed;
	} passkey;           /* hidden digits, train/passkey.h */
	struct {
		int64_t every_steps; /* 0 = by command only */
		struct lh_job_set files[LH_SETS_MAX];
		int file_count;
		int64_t items;       /* of each file */
	} choices;           /* several endings, train/choices.h */
};

/* What is done about a step that is not sane (train/watch.h). It is never applied,
 * but for a spike that is to be ignored. */
enum lh_instability_action { LH_INSTABILITY_STOP, LH_INSTABILITY_SKIP,
			     LH_INSTABILITY_LOWER_LR, LH_INSTABILITY_PAUSE,
			     LH_INSTABILITY_ROLLBACK, LH_INSTABILITY_IGNORE };
struct lh_job_instability {
	enum lh_instability_action nan, loss_spike, gradient_spike; /* by cause */
	int64_t max;       /* of one cause, not forgiven, before the job fails */
	double loss_z;     /* standard deviations that make a spike */
	double gradient_z;
};

/* A switch is taken back when its first steps go wrong (train/rewind.h). */
struct lh_job_switch {
	int64_t watch_steps; /* that are watched, 0 = none */
	double loss_ceiling; /* a loss above it goes wrong; 0 = none does */
};

struct lh_job_checkpoint {
	int64_t every_steps; /* 0 = only at switches, pauses and the end */
	int keep;            /* newest ones that stay */
	int64_t keep_every;  /* steps; those at multiples stay too, 0 = none */
};

struct lh_job {
	char *name;
	enum lh_device device;
	int64_t seed;
	int devices;         /* ranks: a worker each */
	bool all_devices;    /* as many as there are: 1 until a place is found (jobs/gpu.h) */
	char *join;          /* "HOST:PORT" where they meet that the user starts; "": lhd does */
	enum lh_divide divide; /* among them */
	int context;         /* of them, in a row, those that share each sequence */
	int threads;         /* CPU threads of a worker, 0 = all, or its share of them */
	int restarts;        /* worker losses survived before FAILED */
	bool preemptible;    /* a job of higher priority may take its place */
	bool deterministic;  /* the device is set so */
	enum lh_recompute recompute;
	struct lh_job_model model;
	struct lh_job_data data;
	struct lh_job_batch batch;
	struct lh_job_optimizer optimizer;
	struct lh_job_phase phases[LH_PHASES_MAX];
	int phase_count;
	struct lh_job_rule rules[LH_RULES_MAX];
	int rule_count;
	struct lh_job_evaluation evaluation;
	struct lh_job_checkpoint checkpoint;
	struct lh_job_switch switching;
	struct lh_job_instability instability;
};

/* Frees everything the job owns and zeroes it. A zeroed job is empty. */
void lh_job_release(struct lh_job *job);

/* Those that have sequences of their own: groups of `context` ranks, or ranks. */
int lh_job_groups(const struct lh_job *job);
/* Sequences of a step that a group takes. */
int64_t lh_job_share(const struct lh_job *job);
/* Sequences of a group's micro-batch: micro_sequences, or its whole part of a step; of
 * shared ones 1. */
int64_t lh_job_micro_sequences(const struct lh_job *job);

enum lh_tokenizer lh_job_tokenizer(const struct lh_job *job);

/* Parameters of the model, and how many of them are embedding or output. */
int64_t lh_job_model_params(const struct lh_job_model *m);

/* Names of a job's states, in the order of enum lh_job_state (daemon/jobs/job.h). */
#define LH_JOB_STATE_NAMES                                              \
	"QUEUED", "STARTING", "RUNNING", "PAUSED", "SWITCHING",         \
	"STOPPING", "RESTARTING", "DONE", "FAILED", "CANCELLED"

#endif

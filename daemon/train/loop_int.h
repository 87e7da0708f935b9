/* loop_int.h: what the files of the training loop share behind loop.h.
 *
 *   loop.c      boundaries, and from the first step to the end
 *   loop_open.c what training depends on: device, model, the state to go on from
 *   loop_step.c a step
 *   loop_tell.c what lhd is told
 *   steer.c     commands, calls, and the phase that a switch enters
 *   unstable.c  steps that are not sane
 *   rewind.c    going back to a checkpoint
 *   loop_save.c checkpoints and evaluations
 *   look.c      what they tell, and what that costs
 *   look_more.c what else is looked at with them: selections, passkeys
 *   look_choices.c  multiple choice
 *   pace.c      what steps of phases to come would take
 *   loop_gpu.c  the GPU that is to be its own
 *
 * Training thread only.
 */
#ifndef LIGHTHOUSE_LOOP_INT_H
#define LIGHTHOUSE_LOOP_INT_H

#include "train/checkpoint.h"
#include "train/choices.h"
#include "train/estimate.h"
#include "train/loop.h"
#include "train/origin.h"
#include "train/selection.h"
#include "train/team.h"
#include "train/trial.h"

/* What is looked at beside training, each with its own cost. */
enum lh_look { LH_LOOK_LOSS, LH_LOOK_SELECTION, LH_LOOK_POSITIONS, LH_LOOK_PASSKEY,
	       LH_LOOK_CHOICES, LH_LOOK_COUNT };

enum lh_ending { LH_END_NOT, LH_END_DONE, LH_END_CANCELLED, LH_END_STOPPED,
		 LH_END_FAILED, LH_END_REWOUND, LH_END_HELD };

struct lh_loop {
	const struct lh_loop_config *c;
	const struct lh_job *job;
	struct lh_link *link;
	int gpu_locks[LH_DEVICES_MAX]; /* gpulock.h */
	int gpu_lock_count;
	struct lh_team_config team_config;
	struct lh_team team;
	struct lh_choices choices[LH_SETS_MAX];
	int choices_count;
	json_t *origin;          /* of this attempt */
	bool data_changed;       /* since the checkpoint that it goes on from */
	struct lh_estimate plan;
	struct lh_progress p;
	int64_t saved_step;      /* of the newest checkpoint, begun at least; -1 none */
	bool paused;
	char *trial_path;
	struct lh_trial trial;   /* while p.trial, and of one that is taken back */
	bool abandoned;          /* an evaluation, because the worker is to end */
	double trained_ms;       /* in steps of this attempt */
	double look_ms[LH_LOOK_COUNT];
	struct lh_selection *selection; /* of the phase that was looked at last, or NULL */
	struct lh_set {
		int64_t id, step;
	} sets[LH_VOIDED_MAX];   /* applied by this attempt, the newest ones */
	int set_count;
	json_t *waiting;         /* messages that came during a step, or are for later */
	enum lh_ending ending;
	char why[400];           /* of LH_END_REWOUND */
};

/* ---- loop_tell.c ----------------------------------------------------------- */
/* Takes a record's fields; kind and step are added. */
void lh_loop_post_take(struct lh_loop *l, const char *kind, json_t *fields);
/* An event of `level` "info" or "warn", and a line of the log. */
void lh_loop_tell(struct lh_loop *l, const char *level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void lh_loop_status(struct lh_loop *l, const char *doing);
void lh_loop_post_state(struct lh_loop *l, const char *state, const char *reason,
			int64_t command);
/* Paths and messages may hold any bytes, JSON holds UTF-8. */
json_t *lh_loop_text_json(const char *text);
void lh_loop_post_settings(struct lh_loop *l);

/* ---- loop.c ---------------------------------------------------------------- */
/* Steps over all phases as planned from here; -1 when one is open. */
int64_t lh_loop_plan_total(const struct lh_loop *l);
/* Told to end: what is under way is left, the next boundary does the rest. */
bool lh_loop_is_told(const struct lh_loop *l);
/* By its own limit. */
bool lh_loop_phase_is_over(const struct lh_loop *l);

/* ---- loop_open.c ----------------------------------------------------------- */
/* All that a step depends on, or l->ending when the worker is told to end before. To be
 * closed after a failure too. */
int lh_loop_open(struct lh_loop *l, struct lh_err *err);
void lh_loop_close(struct lh_loop *l);
/* Newest good checkpoint of step `up_to` at most into model and *p; the settings that
 * it lacks are the job's. As lh_checkpoint_load_newest. */
int lh_loop_load(struct lh_loop *l, int64_t up_to, struct lh_progress *p, char **path,
		 struct lh_err *err);

/* ---- loop_step.c ----------------------------------------------------------- */
/* l->p.step is one more, or the step comes again; an error is the job's end. */
int lh_loop_step(struct lh_loop *l, struct lh_err *err);

/* ---- unstable.c ------------------------------------------------------------ */
/* A step that was measured and is not to be applied; an error is the job's end. */
int lh_loop_refuse_step(struct lh_loop *l, enum lh_cause cause, double loss, double norm,
			double z, struct lh_err *err);
/* It needs somewhere to go back to, from the first step on. */
bool lh_loop_may_roll_back(const struct lh_job *job);

/* ---- loop_save.c ----------------------------------------------------------- */
/* A save that fails is told of, and is no reason to end the job. */
/* Begins to write the state of this boundary. `reason` is a literal. */
int lh_loop_begin_save(struct lh_loop *l, const char *reason, struct lh_err *why);
/* Tells of a save that has ended; `wait`: of the one under way. */
int lh_loop_take_save(struct lh_loop *l, bool wait, struct lh_err *why);
/* This boundary's state safe on disk before anything else happens. */
int lh_loop_save(struct lh_loop *l, const char *reason, struct lh_err *why);
/* Full attention over the validation sets; training state is not touched. Told to
 * end, it leaves off, records nothing and sets l->abandoned. */
int lh_loop_evaluate(struct lh_loop *l, const char *reason, struct lh_err *err);
/* The same with the attention of the phase. */
int lh_loop_evaluate_own(struct lh_loop *l, const char *reason, struct lh_err *err);
/* What comes with the step just done, if anything. One that is abandoned is owed: the
 * next attempt begins with it. */
int lh_loop_evaluate_step(struct lh_loop *l, struct lh_err *err);

/* Compares this attempt's origin with that of the checkpoint it goes on from: tells of
 * what differs, sets data_changed. */
void lh_loop_compare_origin(struct lh_loop *l, const json_t *manifest);

/* ---- look.c ---------------------------------------------------------------- */
/* "full" or "lighthouse", as records have it. */
const char *lh_look_attention(const struct lh_attention_mode *mode);
/* Records of one evaluation are told together: what is abandoned is made again as a
 * whole, and a part of it would be told of twice. `told`: a JSON array of theirs. */
void lh_told_add_take(json_t *told, const char *kind, json_t *fields);
/* Posts them, unless `rc` or l->abandoned says that some are missing. Takes it. */
void lh_told_post_take(struct lh_loop *l, json_t *told, int rc);
/* Adds `ms` to what looks of this kind took; their share of the time of this attempt's
 * steps, or null before the first. */
json_t *lh_loop_cost(struct lh_loop *l, enum lh_look look, double ms);
/* Before a pass: told to end, it sets l->abandoned. */
bool lh_look_is_called_away(struct lh_loop *l);
double lh_look_ms_since(int64_t start_us);
/* Adds a record of a look that took `ms`; takes `data`. */
void lh_look_add_take(struct lh_loop *l, json_t *told, enum lh_look look,
		      const struct lh_attention_mode *mode, const char *reason, double ms,
		      json_t *data);

/* ---- look_more.c ----------------------------------------------------------- */
/* What the phase's Lighthouse attention selects; nothing in a phase of full attention.
 * No state of training is touched, in all of these. */
int lh_loop_look_selection(struct lh_loop *l, const char *reason, json_t *told,
			   struct lh_err *err);
/* Whether the job has words to hide digits in, and sequences long enough; LH_ESTATE. */
int lh_loop_may_passkey(const struct lh_loop *l, struct lh_err *err);
/* Contexts by depths; told to end, it leaves off and sets l->abandoned. */
int lh_loop_look_passkey(struct lh_loop *l, const struct lh_attention_mode *mode,
			 const char *reason, json_t *told, struct lh_err *err);

/* ---- look_choices.c -------------------------------------------------------- */
/* The job's files into memory. To be closed after a failure too. */
int lh_loop_open_choices(struct lh_loop *l, struct lh_err *err);
void lh_loop_close_choices(struct lh_loop *l);
/* Tokens of a pass with full attention, to be rehearsed; 0: there are no files. */
int64_t lh_loop_choices_tokens(const struct lh_loop *l);
/* Whether there is something to choose from; LH_ESTATE. */
int lh_loop_may_choose(const struct lh_loop *l, struct lh_err *err);
/* All files; told to end, it leaves off and sets l->abandoned. No state of training is
 * touched. */
int lh_loop_look_choices(struct lh_loop *l, const struct lh_attention_mode *mode,
			 const char *reason, json_t *told, struct lh_err *err);

/* ---- pace.c ---------------------------------------------------------------- */
/* Tells what a step of each phase to come would take: one micro-batch of it is done
 * and not applied. That it cannot be had is told, and is no reason to end a job. */
void lh_loop_pace(struct lh_loop *l);

/* ---- loop_gpu.c ------------------------------------------------------------ */
/* Waits until no other lhd's worker has the GPU, or this one is told to end; tells what
 * it waits for. Where there is no lock to be had, it goes on without. */
int lh_loop_take_gpu(struct lh_loop *l, struct lh_err *err);
void lh_loop_give_back_gpu(struct lh_loop *l);

/* ---- steer.c --------------------------------------------------------------- */
/* A checkpoint is there, or tried, before. */
void lh_loop_pause(struct lh_loop *l, const char *reason, int64_t command);
struct lh_switch {
	int phase;           /* to be entered */
	const char *reason;  /* literal */
	int64_t command;     /* that asked for it, 0: the phase is over */
	bool again;          /* an earlier attempt did it: it is not refused now */
	bool now;            /* nothing is evaluated before it */
};
/* Does it, unless the phase does not fit or cannot be evaluated: 0, or why not. 0 and
 * the phase is the old one still: its evaluation was abandoned. */
int lh_loop_switch(struct lh_loop *l, const struct lh_switch *s, struct lh_err *no);
/* Seconds that a step of the phase would take; 0: not known. */
double lh_loop_predict_s(const struct lh_loop *l, int phase);
/* The next message to be dealt with at this boundary, within wait_ms; NULL: none. New
 * reference. */
json_t *lh_loop_next_message(struct lh_loop *l, int wait_ms);
/* Within a step: takes what has come; whether the step is to be abandoned. */
bool lh_loop_is_called_off(struct lh_loop *l);
/* What lhd sent; an error is the job's end. */
int lh_loop_on_message(struct lh_loop *l, const json_t *m, struct lh_err *err);
/* Commands that earlier attempts applied at this step. */
void lh_loop_replay(struct lh_loop *l);

/* ---- rewind.c -------------------------------------------------------------- */
/* l->p is in a phase on trial since now; `from`: the one before, `held` if that had
 * been held. Without a record of it l->p.trial is false. */
void lh_rewind_begin(struct lh_loop *l, int from, bool held);
/* The checkpoint it would go back to was not written: the switch is kept. */
void lh_rewind_forgo(struct lh_loop *l);
/* l->p, of a checkpoint, is in one: it goes on. */
void lh_rewind_go_on(struct lh_loop *l);
/* After a step of one: whether the switch is now kept. */
void lh_rewind_watch(struct lh_loop *l, double loss);
/* Something went wrong in one, `why` says what: sets l->ending, the next attempt
 * takes the switch back. */
int lh_rewind_switch(struct lh_loop *l, const char *why, struct lh_err *err);
/* At the start: whether the last trial failed, and l->p is to be the checkpoint of
 * l->trial.step; once it is, takes the switch back. */
bool lh_rewind_is_due(struct lh_loop *l);
int lh_rewind_take_back(struct lh_loop *l, struct lh_err *err);
/* At an end of the worker's own. */
void lh_rewind_end(struct lh_loop *l);

/* To the newest checkpoint, written anew; the data that were read since are passed
 * over, the batch that would come next too. Sets l->ending: another attempt goes on
 * from it, because steps come again. */
int lh_rewind_instability(struct lh_loop *l, const char *why, struct lh_err *err);
/* Whether a command was taken back. */
bool lh_rewind_is_void(const struct lh_loop *l, int64_t command);
void lh_rewind_tell_void(struct lh_loop *l, int64_t command, const char *why);
/* A set was applied here: a rollback from instability takes it back. */
void lh_rewind_note_set(struct lh_loop *l, int64_t command);

#endif

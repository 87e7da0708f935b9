/* jobs_int.h: what the files of daemon/jobs share behind jobs.h.
 *
 *   jobs.c     opening, draining, closing; work on the thread pool
 *   load.c     jobs, attempts and pending commands out of the store
 *   view.c     what is asked about jobs, from memory
 *   request.c  a caller's request until it is answered; request ids
 *   submit.c   new jobs
 *   replay.c   new jobs that do what another did
 *   command.c  steering: journal, delivery, outcome
 *   command_check.c  what a state allows of a command
 *   command_own.c    those that lhd does itself
 *   set.c      settings of jobs that run
 *   queue.c    which job starts next, and starting it
 *   wait.c     what one in the queue waits for
 *   worker.c   one attempt's processes: spawn, watch, kill
 *   hang.c     workers that live and get nowhere
 *   finish.c   an attempt whose process is gone: last records, verdict
 *   loss.c     how an attempt ended, and what its loss costs
 *   wire.c     worker.sock and what is said over it
 *   foreign.c  workers that are not this lhd's
 *   record.c   records into the store and into the job
 *   sample.c   text from a worker or a checkpoint
 *   rule*.c    rules (rule.h, rule_int.h)
 *
 * All of it runs on the loop thread but the `work` functions of tasks. Memory
 * that a batch's callback is given belongs to struct lh_jobs, because after
 * closing there are no such callbacks.
 */
#ifndef LIGHTHOUSE_JOBS_INT_H
#define LIGHTHOUSE_JOBS_INT_H

#include "base/frame.h"
#include "base/listener.h"
#include "jobs/job.h"
#include "jobs/jobs.h"

enum {
	LH_TOKEN_BYTES = 33,              /* 32 hexadecimal digits and a NUL */
	LH_PENDING_MAX = 64,              /* commands of a job without outcome */
	LH_QUEUED_MAX = 1000,             /* jobs that wait */
	LH_SAMPLE_PROCESSES = 2,          /* at once, from checkpoints */
	LH_UNCOMMITTED_MAX = 16384,       /* records of one worker in the store's queue */
	LH_WIRE_QUEUE_MAX_BYTES = 8 << 20, /* unread by a worker: it hangs */
	LH_SAFE_MS = 1000,                /* longest time between two durable batches of
					   * a worker that sends records */
};

struct lh_jobs {
	/* set at open */
	uv_loop_t *loop;
	struct lh_store *store;
	struct lh_journal *journal;
	char *state_dir, *bin_dir, *socket_path;
	struct lh_gpu gpu; /* found at the start, then only read */
	int slots;
	int64_t stop_grace_ms, kill_grace_ms, hang_ms, generation;
	int proto;                   /* version of proto.h that is spoken */
	char *oom_file;              /* base/oom.h, or NULL */
	int64_t oom_kills;           /* when last looked at, -1: not known */

	/* jobs, ascending by id */
	struct lh_job_run **run;
	int count, cap;
	int64_t last_job, last_command; /* ids given out */

	struct lh_wire *wires;
	struct lh_foreign *foreigners;
	struct {
		int pid;
		uint64_t start_time;
	} told[16];                  /* the newest of them that were told of */
	size_t told_next;            /* where the next one goes */
	struct lh_request *requests;
	struct lh_sample *samples;
	int64_t last_sample;
	struct lh_rules *rules;
	struct lh_listener listener;
	uv_timer_t timer;            /* next restart that is due, or time that comes */
	uv_timer_t drain_timer;
	int64_t drain_end_ms;        /* on the loop's clock */
	uv_timer_t hang_timer;
	int64_t hang_looked_ms;      /* on the loop's clock */

	bool draining, closing;
	void (*drained)(void *arg);
	void *drained_arg;
	void (*closed)(void *arg);
	void *closed_arg;
	int handles;                 /* open libuv handles */
	int tasks;                   /* on the thread pool, and reads */
};

/* One attempt: its processes, its line, its records. */
struct lh_worker {
	/* set at creation */
	struct lh_jobs *jobs;
	struct lh_job_run *run;      /* NULL once the attempt is over */
	int64_t attempt;
	char token[LH_TOKEN_BYTES];
	char *dir;                   /* jobs/<id>/attempt-<n>, absolute */
	bool adopted;                /* started by an earlier lhd */

	/* what is known of it */
	int proto;                   /* version that it speaks, 0: it has not dialled */
	int pid;                     /* 0 = not yet */
	uint64_t start_time;
	int64_t first_step;          /* -1 = not yet */
	bool stepped;                /* a step record came: first_step is certain */
	char outcome[16];            /* of the end record, "" */
	char end_text[400];          /* why it failed */
	char trouble[256];           /* why it could not be started, "" */
	char fault[256];             /* which of its ranks was lost, "" */
	bool stop_asked;             /* by lhd: it is to save and end */
	bool stop_sent;              /* over the present wire */
	bool greeted;                /* adopted, and its line is open again */
	bool foreign;                /* not ours to steer: see foreign.c */

	/* whether it gets anywhere */
	char doing[32];              /* as it last said, "" */
	int64_t beat;                /* its counter, -1: has none yet */
	int64_t beat_at_ms;          /* when it last moved, loop's clock; 0: not begun */
	int64_t hung_ms;             /* killed after standing still that long */

	/* records */
	int64_t received_seq;        /* applied here */
	int64_t stored_seq;          /* committed */
	int64_t safe_seq;            /* and a power cut leaves them: acknowledged */
	int64_t safe_at_ms;          /* loop's clock, of the last durable batch */
	struct lh_span *spans, **spans_end; /* on their way, in order */
	int spool_fd;                /* being imported, after the process went; -1 */
	struct lh_frame spool_in;    /* read of it; while importing, the task's */
	bool importing;              /* a task reads it */
	bool import_waits;           /* it could not be read so far, and was told of */
	bool imported;               /* nothing is left in it */

	/* processes */
	struct lh_wire *wire;        /* NULL: not connected */
	bool spawned;                /* by this lhd */
	uv_process_t keeper;
	bool keeper_runs;            /* our child, not yet reaped */
	uv_poll_t watch;             /* on pidfd */
	int pidfd;                   /* -1: none */
	bool watching;
	uv_timer_t look_timer;       /* looks again when there is no pidfd; at last
				      * reads the spool again */
	uv_timer_t kill_timer;
	int kill_stage;              /* 0 not asked, 1 asked, 2 SIGTERM, 3 SIGKILL */
	bool gone;                   /* lh_worker_gone was called */
	bool pid_awaited;            /* looked once without a pid.json */
	int exit_code, exit_signal;  /* -1: not known */
	bool killed;                 /* by lhd */
	bool oom_killed;             /* by the kernel, for want of memory */
	json_t *log;                 /* last lines of its log; NULL: not read */
	int refs;                    /* the job, handles, tasks */
};

/* What a process left behind; see lh_loss_read. */
struct lh_remains {
	int exit_code, exit_signal;  /* -1: not known */
	json_t *log;                 /* array of lines, ours */
	char fault[256];             /* LH_ATTEMPT_FAULT, "" */
	int64_t oom_kills;
};

/* Records that were given to the store together. */
struct lh_span {
	struct lh_span *next;
	int64_t first, last;
	bool durable;
};

struct lh_command {
	struct lh_command *next;
	int64_t id;
	char verb[16];
	json_t *args;                /* as the worker gets them */
	bool sent;                   /* over the present wire */
};

/* A submit or a command between the call and its answer. */
struct lh_request {
	struct lh_request *next;     /* in jobs->requests */
	struct lh_jobs *jobs;
	char *request_id;            /* NULL: none */
	const char *method;          /* literal, "job.switch" */
	int64_t job;                 /* 0 for a submit until it has one */
	json_t *args;                /* as the caller gave them */
	json_t *stored;              /* as journalled; commands only */
	int64_t uid, pid;
	char *program, *message;
	lh_jobs_reply reply;
	void *arg;
	struct lh_request *same;     /* retries that came before the answer */
	int64_t command;             /* id once it has one */
	struct lh_firing *firing;    /* a rule asks; NULL: somebody does */
	int64_t accepted_ms;
	void (*go)(struct lh_request *r); /* when the request id is new */
	/* found in the journal: {id, job, method, args}, or NULL */
	json_t *seen;
	/* submit only */
	struct lh_job *spec;
	json_t *spec_json;
	char *yaml;
	struct lh_submission how;
	json_t *past;                /* commands to be given again; NULL: no replay */
	int64_t first_rule;          /* id of the rule that it makes, or of the first */
	struct lh_err err;
};

/* ---- jobs.c ---------------------------------------------------------------- */
struct lh_job_run *lh_jobs_find(struct lh_jobs *jobs, int64_t job); /* or NULL */
void lh_jobs_add(struct lh_jobs *jobs, struct lh_job_run *run);     /* highest id */
/* `work` on the pool, then `after` on the loop, always, also while closing. */
void lh_jobs_task(struct lh_jobs *jobs, void (*work)(void *arg),
		  void (*after)(void *arg), void *arg);
/* lh_store_read, counted like a task. */
void lh_jobs_read(struct lh_jobs *jobs, lh_store_work work, lh_store_read_done after,
		  void *arg);
/* Calls `drained` or `closed` once it is true. */
void lh_jobs_settle(struct lh_jobs *jobs);
char *lh_jobs_path(struct lh_jobs *jobs, int64_t job, const char *name); /* heap */

/* ---- load.c ---------------------------------------------------------------- */
int lh_jobs_load(struct lh_jobs *jobs, int64_t *last_event, struct lh_err *err);

/* ---- request.c ------------------------------------------------------------- */
struct lh_request *lh_request_new(struct lh_jobs *jobs, const char *method, int64_t job,
				  const struct lh_caller *who, lh_jobs_reply reply,
				  void *arg);
/* Answers a repeated request id, or calls r->go. r->args must be set. */
void lh_request_begin(struct lh_request *r);
/* Adds the journal row to a batch and gives r->command its id. `args` are
 * stored: what the caller gave and what became of it. */
void lh_request_journal(struct lh_request *r, struct lh_batch *batch, const json_t *args);
/* The row of one that is done with as it is accepted; step -1: it has none. */
void lh_request_journal_done(struct lh_request *r, struct lh_batch *batch,
			     const char *outcome, int64_t step, const char *text);
/* Replies (to its retries too) and frees. Exactly one of them is given. */
void lh_request_answer_take(struct lh_request *r, json_t *result, const struct lh_err *err);
void lh_request_free(struct lh_request *r);

/* ---- submit.c -------------------------------------------------------------- */
/* The answer to a submit, new reference. */
json_t *lh_submit_result(struct lh_job_run *run, int64_t command);

/* A submit once its request id is new: r->spec, spec_json, yaml and how are set. */
void lh_submit_go(struct lh_request *r);
/* Whether the queue takes another job. LH_ESTATE, LH_ETOOBIG. */
int lh_submit_check(const struct lh_jobs *jobs, struct lh_err *err);

/* ---- replay.c -------------------------------------------------------------- */
/* Of a submit with r->past; nothing without. Why the job is in the queue; rows of the
 * journal; the same in memory. */
void lh_replay_describe(const struct lh_request *r, char *text, size_t text_bytes);
void lh_replay_add(struct lh_request *r, struct lh_batch *b);
void lh_replay_begin(struct lh_request *r, struct lh_job_run *run);

/* ---- command.c ------------------------------------------------------------- */
/* Adds a pending command to the job, e.g. one loaded from the store. */
void lh_command_add(struct lh_job_run *run, int64_t id, const char *verb, json_t *args);
/* Sends what is pending over the job's wire. */
void lh_command_deliver(struct lh_job_run *run);
/* The wire is new: everything pending must be sent again. */
void lh_command_resend(struct lh_job_run *run);
/* `held` of start.json, new reference. */
json_t *lh_command_held(const struct lh_job_run *run);
/* Ends a pending command: row and event into the batch. False if not pending. */
bool lh_command_outcome(struct lh_job_run *run, struct lh_batch *batch, int64_t id,
			bool applied, int64_t step, const char *text, const char *hint);
/* The row and event of an outcome, of any command. */
void lh_command_add_outcome(const struct lh_job_run *run, struct lh_batch *batch, int64_t id,
			    const char *verb, const char *outcome, int64_t step,
			    const char *text, const char *hint);
/* The job is in the queue: its pauses and resumes that are pending are done there. */
void lh_command_do_queued(struct lh_job_run *run);
/* The job has ended: cancel was applied if that is how, all else is refused. */
void lh_command_end_all(struct lh_job_run *run, struct lh_batch *batch);
/* lh_jobs_command for a rule that fires: takes the firing, which is journalled
 * with it. */
void lh_command_ask(struct lh_jobs *jobs, int64_t job, const char *verb,
		    const json_t *args, const struct lh_caller *who,
		    struct lh_firing *firing, lh_jobs_reply reply, void *arg);
/* lhd's own, of a job with a worker: STOPPING, and the worker is told to save and
 * end, now or as soon as it has a line; its time runs. Journalled, but not waited
 * for. Once more: its time begins anew. */
void lh_command_stop(struct lh_job_run *run, const char *why);
/* Arguments for the worker out of a journal row's. New reference. */
json_t *lh_command_worker_args(const json_t *stored);
void lh_command_free_all(struct lh_job_run *run);

#define LH_TOO_OLD "its worker is of a version that cannot wait for a step"
#define LH_TOO_OLD_HINT "pause the job with release and resume it, then ask again"
/* A worker of the version before would do at once what is for a later step. */
bool lh_command_is_too_old(const struct lh_worker *w, const json_t *args);

/* ---- command_check.c ------------------------------------------------------- */
/* 0 and the args to be journalled (new reference), or the refusal. */
int lh_command_check(const struct lh_job_run *run, const char *verb, const json_t *args,
		     json_t **stored, struct lh_err *err);

/* ---- command_own.c --------------------------------------------------------- */
bool lh_command_is_own(const struct lh_request *r);
/* What it does and its outcome, into the batch that journals it; then in memory. */
void lh_command_own_add(const struct lh_request *r, const struct lh_job_run *run,
			struct lh_batch *b);
void lh_command_own_done(const struct lh_request *r, struct lh_job_run *run);

/* ---- set.c ----------------------------------------------------------------- */
/* 0 and the args to be journalled of a set in `phase`, or the refusal. */
int lh_set_check(const struct lh_job_run *run, int phase, const json_t *args,
		 json_t **stored, struct lh_err *err);
/* The worker told them: an event if they are others. */
void lh_set_told(struct lh_worker *w, struct lh_batch *b, int64_t step,
		 const json_t *settings);
/* Out of such an event. */
void lh_set_load(struct lh_job_run *run, const json_t *settings);

/* ---- queue.c --------------------------------------------------------------- */
/* Starts what can be started; call after anything that may free a slot. */
void lh_queue_run(struct lh_jobs *jobs);

/* ---- wait.c ---------------------------------------------------------------- */
/* Whether it waits for nothing but room. */
bool lh_wait_is_over(const struct lh_job_run *run);
/* Tells of what has come. Milliseconds until it is to be called again; -1: no need. */
int64_t lh_wait_look(struct lh_jobs *jobs);
/* A new job may come after that one; 0 is none. LH_ENOTFOUND, LH_ESTATE. */
int lh_wait_check(struct lh_jobs *jobs, int64_t after_job, struct lh_err *err);
/* It waits for nothing any more; false: it did not. Row into the batch. */
bool lh_wait_end(struct lh_job_run *run, struct lh_batch *b);
/* Why a new job is in the queue. */
void lh_wait_describe(struct lh_jobs *jobs, const struct lh_submission *how, char *text,
		      size_t text_bytes);

/* ---- worker.c -------------------------------------------------------------- */
struct lh_worker *lh_worker_new(struct lh_job_run *run, int64_t attempt,
				const char *token);
/* Spawns keeper and worker; the attempt's directory is ready. */
void lh_worker_spawn(struct lh_worker *w);
/* Finds out whether its processes live, and watches them. */
void lh_worker_look(struct lh_worker *w);
/* SIGTERM after stop_grace_ms, SIGKILL kill_grace_ms later, unless it is gone.
 * The time begins anew as long as it was not over. */
void lh_worker_arm_kill(struct lh_worker *w);
/* Whether it still waits for ranks that the user starts, or for the line of one. */
bool lh_worker_awaits_ranks(const struct lh_worker *w);
/* Whether some process of it may be left. */
bool lh_worker_has_process(const struct lh_worker *w);
/* Sends the worker's process a signal, if it lives. */
void lh_worker_kill(struct lh_worker *w, int signal);
/* Nobody asked it to end: no end record, or one of a transient error. */
bool lh_worker_is_lost(const struct lh_worker *w);
/* The job lets go of it: closes handles; freed when nothing refers to it. */
void lh_worker_depart(struct lh_worker *w);
void lh_worker_ref(struct lh_worker *w);
void lh_worker_unref(struct lh_worker *w);

/* ---- hang.c ---------------------------------------------------------------- */
void lh_hang_begin(struct lh_jobs *jobs);
/* It moved: a record, a new line, a process just started. */
void lh_hang_alive(struct lh_worker *w);
void lh_hang_progress(struct lh_worker *w, const json_t *message);

/* ---- finish.c -------------------------------------------------------------- */
/* No process of the attempt is left (or was ever started). Once. */
void lh_worker_gone(struct lh_worker *w);
/* Records of an attempt that is gone were committed: goes on with the rest. */
void lh_worker_drain(struct lh_worker *w);

/* ---- loss.c ---------------------------------------------------------------- */
/* Reads what the attempt left; on the pool. */
void lh_loss_read(const struct lh_worker *w, struct lh_remains *r);
/* Moves it into the worker. */
void lh_loss_take(struct lh_worker *w, struct lh_remains *r);
/* How it ended, one sentence; heap. And a remedy, or "". */
char *lh_loss_story(const struct lh_worker *w);
const char *lh_loss_hint(const struct lh_worker *w);
/* Both, the log and what it was doing into the attempt's row. */
void lh_loss_store(const struct lh_worker *w, struct lh_batch *b, const char *story);
/* Pause before the next start, given how many were lost. */
int64_t lh_loss_pause_ms(const struct lh_job_run *run);
/* One more counts; and a checkpoint that may make up for all. */
void lh_loss_count(struct lh_job_run *run);
void lh_loss_forgive(struct lh_worker *w, struct lh_batch *b, int64_t saved_step);

/* ---- wire.c ---------------------------------------------------------------- */
/* Opens jobs->listener, which is to be closed after a failure too. */
int lh_wire_listen(struct lh_jobs *jobs, struct lh_err *err);
void lh_wire_send_take(struct lh_wire *wire, json_t *message);
/* Forgets the worker at once, closes and frees later. NULL is allowed. */
void lh_wire_close(struct lh_wire *wire);
/* Reading stops while a worker's records wait for the store. */
void lh_wire_throttle(struct lh_wire *wire, bool wait);
bool lh_wire_is_throttled(const struct lh_wire *wire);

/* ---- foreign.c ------------------------------------------------------------- */
/* Lists a worker that is left alone, and tells of it once: `hello` is what it said,
 * `pid` its process, 0 if it is not known here. Until its line is closed. */
struct lh_foreign *lh_foreign_add(struct lh_jobs *jobs, const json_t *hello, int pid,
				  const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void lh_foreign_remove(struct lh_foreign *f);
bool lh_foreign_trains(const struct lh_jobs *jobs, int64_t job);

/* ---- record.c -------------------------------------------------------------- */
/* Applies records (seq beyond received_seq) and gives them to the store.
 * LH_EPROTO: a gap or nonsense; nothing after it was taken. */
int lh_record_take_all(struct lh_worker *w, const json_t *records, struct lh_err *err);

/* ---- sample.c -------------------------------------------------------------- */
void lh_sample_on_piece(struct lh_jobs *jobs, const json_t *message);
void lh_sample_on_reply(struct lh_jobs *jobs, const json_t *message);
void lh_sample_worker_lost(struct lh_worker *w);
void lh_sample_close_all(struct lh_jobs *jobs);

#endif

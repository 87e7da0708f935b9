/* jobs.h: all jobs of this lhd: queue, workers, commands, events.
 *
 * The manager owns every struct lh_job_run (jobs/job.h: one job's state machine)
 * and the only mapping from job to worker. It starts the queued job with the
 * highest priority (then the oldest) whenever a slot is free, or makes a job of
 * lower priority leave its slot, spawns workers through lhkeeper, adopts the ones a previous lhd left, feeds their records to
 * the store and acknowledges them once committed, restarts a lost worker from
 * its last checkpoint, and ends them with kill timers.
 *
 * Commands: journalled durably first, answered "accepted", then done or sent to
 * the worker; the outcome comes as an event. All functions: loop thread.
 */
#ifndef LIGHTHOUSE_JOBS_H
#define LIGHTHOUSE_JOBS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "jobs/gpu.h"
#include "lighthouse/err.h"
#include "lighthouse/job.h"
#include "store/store.h"

struct lh_jobs;

struct lh_jobs_config {
	const char *state_dir;   /* absolute */
	const char *bin_dir;     /* absolute; lhkeeper and lhworker-* live here */
	int slots;               /* jobs that may run at once */
	int64_t stop_grace_ms;   /* from a stop request to SIGTERM */
	int64_t kill_grace_ms;   /* from SIGTERM to SIGKILL */
	int64_t hang_ms;         /* least time without progress; 0: wait for ever */
	int64_t generation;      /* of this lhd */
	int proto;               /* LH_PROTO_VERSION; tests play a newer lhd */
	const char *oom_file;    /* base/oom.h; NULL: not known */
};

/* One thing that happened, as pushed to subscribers; borrowed for the call. */
struct lh_event {
	int64_t id;       /* of the events table; 0 for a step */
	int64_t job;      /* 0 = none */
	bool is_step;
	json_t *json;     /* as in the result of job.events / job.steps (+ "job") */
};
typedef void (*lh_event_sink)(void *arg, const struct lh_event *ev);

/* Who asks. Strings are borrowed for the call. */
struct lh_caller {
	int64_t uid;
	int64_t pid;
	const char *program;     /* "" if it does not say */
	const char *request_id;  /* NULL if none */
	const char *message;     /* "" if none */
};

/* Loads jobs and attempts from the store (blocking), opens worker.sock, adopts
 * or gives up workers; the queue starts when the loop turns. */
int lh_jobs_open(struct lh_jobs **jobs, uv_loop_t *loop, struct lh_store *store,
		 const struct lh_jobs_config *config, lh_event_sink sink,
		 void *sink_arg, struct lh_err *err);
/* Tells every worker to checkpoint and stop; `drained` when none is left. That does
 * not wait for the store. A worker that does not end, or cannot be reached, gets
 * SIGTERM after stop_grace_ms, to which it does the same, and SIGKILL
 * kill_grace_ms later; a process that survives even that is left to the next lhd,
 * 5 s later. So are records that a locked or full database does not take: no
 * process is left then, and the next lhd reads them from the workers' spools. */
void lh_jobs_drain(struct lh_jobs *jobs, void (*drained)(void *arg), void *arg);
/* Takes no request from here on, and answers those that still wait for the store
 * with LH_ESTATE: whoever waits for the answers would wait as long as it does. */
void lh_jobs_give_up_requests(struct lh_jobs *jobs);
/* Closes sockets and timers and frees; workers still alive are left alone. */
void lh_jobs_close(struct lh_jobs *jobs, void (*closed)(void *arg), void *arg);

/* Answers of commands come through this, once, on the loop; `result` is
 * borrowed, NULL on error. */
typedef void (*lh_jobs_reply)(void *arg, json_t *result, const struct lh_err *err);

/* How a new job stands in the queue. */
struct lh_submission {
	int priority;
	int64_t not_before_ms;   /* Unix; 0: at once */
	int64_t after_job;       /* once that one is DONE; 0: without */
};
/* job.submit, after the job file was resolved; takes the contents of `job`. */
void lh_jobs_submit_take(struct lh_jobs *jobs, struct lh_job *job, const char *yaml,
			 const struct lh_submission *how, const struct lh_caller *who,
			 lh_jobs_reply reply, void *arg);
/* job.replay: a new job with the file of `job` and what shaped its training, at the same
 * steps. LH_ENOTFOUND, LH_ESTATE: it cannot be repeated. */
void lh_jobs_replay(struct lh_jobs *jobs, int64_t job, int priority,
		    const struct lh_caller *who, lh_jobs_reply reply, void *arg);
/* job.switch, job.set, job.pause, job.resume, job.checkpoint, job.eval, job.cancel,
 * job.priority, job.annotate. `args` is the verb's (proto.h), borrowed; the switch phase as its caller wrote it, or
 * absent. Refused at once (LH_ENOTFOUND, LH_ESTATE, LH_EPARAMS) or journalled. A request
 * id seen before gives the first answer again; with other args LH_ECONFLICT. */
void lh_jobs_command(struct lh_jobs *jobs, int64_t job, const char *verb,
		     const json_t *args, const struct lh_caller *who,
		     lh_jobs_reply reply, void *arg);
/* Journals a call that its caller may not make, and how many went untold before. */
void lh_jobs_note_denied(struct lh_jobs *jobs, const struct lh_caller *who,
			 const char *method, int untold);
/* daemon.restart: who asked goes into the journal and the answer comes; all else is
 * the caller's. */
void lh_jobs_restart(struct lh_jobs *jobs, const struct lh_caller *who,
		     lh_jobs_reply reply, void *arg);
/* job.sample: pieces as {text} or {ids}, then the reply. Returns a handle for abandon. */
typedef void (*lh_jobs_piece)(void *arg, json_t *piece);
int64_t lh_jobs_sample(struct lh_jobs *jobs, int64_t job, const json_t *args,
		       lh_jobs_piece piece, lh_jobs_reply reply, void *arg);
/* job.switch with dry_run: what the worker's preflight says (proto.h). A handle as that
 * of a sample. */
int64_t lh_jobs_preflight(struct lh_jobs *jobs, int64_t job, const json_t *args,
			  lh_jobs_reply reply, void *arg);
/* The caller went away: no more callbacks of that sample. */
void lh_jobs_sample_abandon(struct lh_jobs *jobs, int64_t handle);

/* From memory. New references; get and find give NULL when there is no such
 * job. `summary` is the result of job.get; list is an array of them. */
json_t *lh_jobs_get(struct lh_jobs *jobs, int64_t job);
json_t *lh_jobs_list(struct lh_jobs *jobs, const char *state /* or NULL */);
/* phases of job.show: [{name, attention, steps, first_step}]. */
json_t *lh_jobs_phases(struct lh_jobs *jobs, int64_t job);
/* settings of job.show: what was set otherwise than the job file says. */
json_t *lh_jobs_settings(struct lh_jobs *jobs, int64_t job);
json_t *lh_jobs_spec(struct lh_jobs *jobs, int64_t job);
char *lh_jobs_dir(struct lh_jobs *jobs, int64_t job); /* heap, or NULL */
bool lh_jobs_exists(struct lh_jobs *jobs, int64_t job);
int lh_jobs_count(const struct lh_jobs *jobs);
int lh_jobs_workers(const struct lh_jobs *jobs);   /* connected */
/* The processes of those: [{job, name, pid}]. */
json_t *lh_jobs_processes(const struct lh_jobs *jobs);
/* Connected and left alone; as foreign_workers of daemon.info. */
json_t *lh_jobs_foreign_workers(const struct lh_jobs *jobs);
const struct lh_gpu *lh_jobs_gpu(const struct lh_jobs *jobs); /* any thread */
/* Where lh_jobs_config said that programs lie; any thread. */
const char *lh_jobs_bin_dir(const struct lh_jobs *jobs);
int64_t lh_jobs_last_event(const struct lh_jobs *jobs);

#endif

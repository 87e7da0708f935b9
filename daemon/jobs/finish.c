/* finish.c: an attempt none of whose processes lives: its last records, how it
 * ended, and what becomes of the job.
 *
 *   lh_worker_gone -> what it left (loss.c) and its spool: on the pool, records
 *        in batches of LH_PROTO_BATCH, each given to the store like any other
 *        -> all committed -> decide
 *
 * The spool is what the worker had not got acknowledged, so whatever was lost on
 * the socket is in it; records that were stored already are told by their seq. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"
#include "lighthouse/proto.h"

struct import {
	struct lh_worker *w;
	int64_t after_seq;
	json_t *records;
	struct lh_remains remains; /* read with the first records; else no log */
};

/* ---- on the pool ----------------------------------------------------------- */

/* The next records beyond after_seq. A line without its newline was being
 * written when the machine stopped: it was never sent, and is left out. */
static void read_spool(struct import *im)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;

	while (im->w->spool && json_array_size(im->records) < LH_PROTO_BATCH &&
	       (n = getline(&line, &cap, im->w->spool)) > 0) {
		json_t *r = line[n - 1] == '\n' ? json_loadb(line, (size_t)n, 0, NULL) : NULL;

		if (r && json_integer_value(json_object_get(r, "seq")) > im->after_seq)
			json_array_append(im->records, r);
		json_decref(r);
	}
	free(line);
}

static void import_work(void *arg)
{
	struct import *im = arg;
	char *path;

	LH_FAILPOINT("spool.import");
	if (!im->w->spool) { /* the first time */
		lh_loss_read(im->w, &im->remains);
		lh_fs_remove_torn(im->w->dir);
		path = lh_asprintf("%s/%s", im->w->dir, LH_ATTEMPT_SPOOL);
		im->w->spool = fopen(path, "re");
		free(path);
	}
	read_spool(im);
}

/* ---- verdict --------------------------------------------------------------- */

static void store_end(const struct lh_worker *w, struct lh_batch *b, const char *how)
{
	const char *outcome = *w->outcome ? w->outcome : "lost";
	bool lost = lh_worker_is_lost(w);
	int64_t job = w->run->id;

	lh_batch_add(b, LH_STMT_ATTEMPT_END,
		     (struct lh_bind[]){ LH_INT(job), LH_INT(w->attempt),
					 LH_INT(lh_time_ms()),
					 w->exit_code >= 0 ? LH_INT(w->exit_code) : LH_NULL,
					 w->exit_signal > 0 ? LH_INT(w->exit_signal) :
							      LH_NULL,
					 LH_TEXT(outcome) },
		     6);
	lh_loss_store(w, b, how);
	lh_batch_event_take(b, job, w->attempt, w->run->step,
			    lost ? "attempt.lost" : "attempt.ended",
			    json_pack("{s:s, s:i, s:i, s:s, s:s, s:O*}", "outcome", outcome,
				      "exit_code", w->exit_code, "exit_signal",
				      w->exit_signal, "doing", w->doing, "hint",
				      lh_loss_hint(w), "log", lost ? w->log : NULL),
			    "attempt %" PRId64 " ended: %s; %s", w->attempt, outcome, how);
}

/* Nobody asked for it: another attempt, or none is left. */
static void lost(struct lh_job_run *run, const struct lh_worker *w, struct lh_batch *b,
		 const char *how)
{
	/* An lhd that was killed before it could spawn is not the worker's loss. */
	bool counts = !(w->adopted && w->pid_awaited && w->exit_code < 0 &&
			w->exit_signal < 0 && !w->received_seq);
	int64_t pause_ms;

	if (counts)
		lh_loss_count(run);
	pause_ms = lh_loss_pause_ms(run);
	if (counts && run->restarts <= run->spec.restarts)
		lh_job_set_state(run, b, LH_JOB_RESTARTING, "restart %d of %d in %.2g s: %s",
				 run->restarts, run->spec.restarts, (double)pause_ms / 1000,
				 how);
	else
		lh_job_set_state(run, b, LH_JOB_RESTARTING, "%s", how);
	if (run->restarts > run->spec.restarts)
		lh_job_set_state(run, b, LH_JOB_FAILED,
				 "the worker was lost %d times without getting past step "
				 "%" PRId64 ", %d allowed; the last one: %s",
				 run->restarts, run->lost_step, run->spec.restarts, how);
	else if (run->jobs->draining)
		lh_job_set_state(run, b, LH_JOB_QUEUED,
				 "lhd was told to stop while the worker was lost");
	else
		run->restart_at_ms = (int64_t)uv_now(run->jobs->loop) + pause_ms;
}

/* No loss: the worker ended so that the steps to come are another attempt's. */
static void go_on_rewound(struct lh_job_run *run, struct lh_batch *b, const char *why)
{
	lh_job_set_state(run, b, LH_JOB_RESTARTING, "%s", why);
	run->restart_at_ms = 0;
}

/* The worker cannot go on, and waiting does not help: somebody is to see to it. */
static void hold(struct lh_job_run *run, struct lh_batch *b, const char *why)
{
	run->wanted = LH_WANT_PAUSE;
	lh_job_set_state(run, b, LH_JOB_QUEUED, "held, resume tries again: %s", why);
}

/* The next start goes on from its checkpoint. */
static void put_back(struct lh_job_run *run, const struct lh_worker *w,
		     struct lh_batch *b, const char *why)
{
	if (run->wanted == LH_WANT_PAUSE)
		lh_job_set_state(run, b, LH_JOB_QUEUED, "paused at step %" PRId64 " and "
				 "released; resume starts it from its checkpoint",
				 run->step);
	else
		lh_job_set_state(run, b, LH_JOB_QUEUED, "stopped at step %" PRId64
				 "%s%.300s%s; goes on from its checkpoint", run->step,
				 w->stop_asked ? " (" : "", w->stop_asked ? why : "",
				 w->stop_asked ? ")" : "");
}

static void set_verdict(struct lh_job_run *run, const struct lh_worker *w,
			struct lh_batch *b, const char *how)
{
	const char *o = w->outcome;
	bool cancel = run->wanted == LH_WANT_CANCEL;
	char why[sizeof(run->reason)]; /* run->reason is written by the setter */

	memcpy(why, run->reason, sizeof(why));
	if (!strcmp(o, "done"))
		lh_job_set_state(run, b, LH_JOB_DONE, "all phases ended, at step %" PRId64,
				 run->step);
	else if (!strcmp(o, "failed"))
		lh_job_set_state(run, b, LH_JOB_FAILED, "%s", w->end_text);
	else if (!strcmp(o, "cancelled") || (*o && cancel))
		lh_job_set_state(run, b, LH_JOB_CANCELLED, "%s", why);
	else if (cancel)
		lh_job_set_state(run, b, LH_JOB_CANCELLED, "%.250s; %.250s", why, how);
	else if (!strcmp(o, "rewound") && !w->stop_asked && !run->jobs->draining)
		go_on_rewound(run, b, why);
	else if (!strcmp(o, "held"))
		hold(run, b, w->end_text);
	else if (w->stop_asked || !lh_worker_is_lost(w))
		put_back(run, w, b, why);
	else
		lost(run, w, b, how);
}

static void decide(struct lh_worker *w)
{
	struct lh_job_run *run = w->run;
	struct lh_jobs *jobs = w->jobs;
	struct lh_batch *b = lh_batch_new(run->journal);
	char *how = lh_loss_story(w);
	struct lh_command *c, *next;

	LH_FAILPOINT("attempt.over");
	lh_info("job %" PRId64 ": attempt %" PRId64 " is over (%s): %s", run->id, w->attempt,
		*w->outcome ? w->outcome : "lost", how);
	store_end(w, b, how);
	lh_worker_depart(w); /* its memory lives until its handles are closed */
	set_verdict(run, w, b, how);
	/* What asked this attempt to end has been done, whoever did it. */
	for (c = run->commands; c; c = next) {
		next = c->next;
		if (!strcmp(c->verb, "stop"))
			lh_command_outcome(run, b, c->id, true, run->step, "", "");
	}
	if (lh_job_has_ended(run->state))
		lh_command_end_all(run, b);
	lh_batch_commit(b, false, NULL, NULL);
	free(how);
	lh_queue_run(jobs);
	lh_jobs_settle(jobs);
}

/* ---- on the loop ----------------------------------------------------------- */

static void import_after(void *arg)
{
	struct import *im = arg;
	struct lh_worker *w = im->w;
	struct lh_err err = LH_ERR_INIT;

	w->importing = false;
	if (w->run) {
		if (im->remains.log)
			lh_loss_take(w, &im->remains);
		w->imported = !json_array_size(im->records);
		if (!w->imported && lh_record_take_all(w, im->records, &err)) {
			lh_log_err(LH_LOG_ERROR, "reading a spool", &err);
			w->imported = true;
		}
		lh_worker_drain(w);
	}
	json_decref(im->remains.log);
	json_decref(im->records);
	free(im);
	lh_worker_unref(w);
}

void lh_worker_drain(struct lh_worker *w)
{
	struct import *im;

	if (!w->gone || w->spans || w->importing || w->jobs->closing)
		return;
	if (w->imported) {
		decide(w);
		return;
	}
	im = lh_calloc(1, sizeof(*im));
	im->w = w;
	im->after_seq = w->received_seq;
	im->records = json_array();
	w->importing = true;
	lh_worker_ref(w);
	lh_jobs_task(w->jobs, import_work, import_after, im);
}

void lh_worker_gone(struct lh_worker *w)
{
	if (w->gone)
		return;
	w->gone = true;
	lh_wire_close(w->wire);
	lh_worker_drain(w);
}

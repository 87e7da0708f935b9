/* finish.c: an attempt none of whose processes lives: its last records, how it
 * ended, and what becomes of the job.
 *
 *   lh_worker_gone -> what it left (loss.c) and its spool: on the pool, records
 *        in batches of LH_PROTO_BATCH, each given to the store like any other
 *        -> all committed -> decide
 *
 * The spool is what the worker had not got acknowledged, so whatever was lost on
 * the socket is in it; records that were stored already are told by their seq. While
 * lhd lacks the files or the memory to read it, the attempt is not over: it tries
 * again. What cannot be had at all is told of as lost. */
#include "jobs/jobs_int.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/io.h"
#include "base/log.h"
#include "lighthouse/proto.h"

enum { READ_BYTES = 1 << 16, AGAIN_MS = 500 };

struct import {
	struct lh_worker *w;
	int64_t after_seq;
	json_t *records;
	struct lh_remains remains; /* read with the first records; else no log */
	bool again;                /* err is lhd's own want, which passes */
	struct lh_err err;         /* nothing is read after `records` */
};

/* ---- on the pool ----------------------------------------------------------- */

static void fail(struct import *im, const char *what)
{
	im->again = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
	lh_err_set(&im->err, LH_EIO, "cannot %s '%s/%s': %s", what, im->w->dir,
		   LH_ATTEMPT_SPOOL, strerror(errno));
}

/* False: there is none, or it cannot be had. */
static bool open_spool(struct import *im)
{
	char *path = lh_asprintf("%s/%s", im->w->dir, LH_ATTEMPT_SPOOL);

	im->w->spool_fd = lh_io->open(path, O_RDONLY | O_CLOEXEC, 0);
	if (im->w->spool_fd < 0 && errno != ENOENT)
		fail(im, "open");
	free(path);
	return im->w->spool_fd >= 0;
}

static void take_line(struct import *im, const char *line, size_t bytes)
{
	json_t *r = json_loadb(line, bytes, 0, NULL);

	if (r && json_integer_value(json_object_get(r, "seq")) > im->after_seq)
		json_array_append(im->records, r);
	json_decref(r);
}

/* False: there is nothing more, or it cannot be had. */
static bool read_more(struct import *im)
{
	char *data = lh_alloc(READ_BYTES);
	ssize_t n;

	do
		n = lh_io->read(im->w->spool_fd, data, READ_BYTES);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		fail(im, "read");
	if (n > 0)
		lh_frame_push(&im->w->spool_in, data, (size_t)n);
	free(data);
	return n > 0;
}

/* The next records beyond after_seq. A line without its newline was being
 * written when the machine stopped: it was never sent, and is left out. One longer
 * than a worker may send is none: the next record shows that it is missing. */
static void read_spool(struct import *im)
{
	bool more = true;
	size_t bytes;
	char *line;
	int rc;

	while (more && json_array_size(im->records) < LH_PROTO_BATCH) {
		rc = lh_frame_next(&im->w->spool_in, &line, &bytes);
		if (rc > 0)
			take_line(im, line, bytes);
		else if (!rc)
			more = read_more(im);
	}
}

static void import_work(void *arg)
{
	struct import *im = arg;
	struct lh_worker *w = im->w;

	LH_FAILPOINT("spool.import");
	if (w->spool_fd < 0 && !open_spool(im) && im->again)
		return;
	if (!w->log) { /* the first time */
		lh_loss_read(w, &im->remains);
		lh_fs_remove_torn(w->dir);
	}
	if (w->spool_fd >= 0)
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

static void on_again(uv_timer_t *timer)
{
	lh_worker_drain(timer->data);
}

/* Nobody watches a process any more, so the timer for that is free. */
static void try_again(struct lh_worker *w, const struct lh_err *err)
{
	if (!w->import_waits)
		lh_log_err(LH_LOG_ERROR, "records wait", err);
	w->import_waits = true;
	uv_timer_start(&w->look_timer, on_again, AGAIN_MS, 0);
}

static void tell_lost(const struct lh_worker *w, const struct lh_err *err)
{
	struct lh_batch *b = lh_batch_new(w->run->journal);

	lh_log_err(LH_LOG_ERROR, "reading a spool", err);
	lh_batch_event_take(b, w->run->id, w->attempt, w->run->step, "worker.warn", NULL,
			    "the worker's records after %" PRId64 ", if any, are lost: %s",
			    w->received_seq, err->text);
	lh_batch_commit(b, false, NULL, NULL);
}

/* What was read goes to the store; w->imported once there is no more. */
static void take(struct import *im)
{
	struct lh_worker *w = im->w;
	bool some = json_array_size(im->records);

	if (im->remains.log)
		lh_loss_take(w, &im->remains);
	if (some && lh_record_take_all(w, im->records, &im->err))
		im->again = false;
	if (im->again) {
		try_again(w, &im->err);
		return;
	}
	if (im->err.code)
		tell_lost(w, &im->err);
	w->imported = im->err.code || !some;
	lh_worker_drain(w);
}

static void import_after(void *arg)
{
	struct import *im = arg;
	struct lh_worker *w = im->w;

	w->importing = false;
	if (w->run)
		take(im);
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

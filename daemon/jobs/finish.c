/* finish.c: an attempt none of whose processes lives: its last records, how it
 * ended, and what becomes of the job.
 *
 *   lh_worker_gone -> exit.json, last line of the log, spool: on the pool, records
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

enum { SMALL_FILE_BYTES = 1 << 16, TAIL_BYTES = 4096, PAUSE_MS = 250,
       PAUSE_MAX_MS = 10000 };

struct import {
	struct lh_worker *w;
	int64_t after_seq;
	json_t *records;
	int exit_code, exit_signal;
	char last_words[200];
};

/* ---- on the pool ----------------------------------------------------------- */

static char *attempt_path(const struct lh_worker *w, const char *name)
{
	return lh_asprintf("%s/%s", w->dir, name);
}

static void read_exit(struct import *im)
{
	char *path = attempt_path(im->w, LH_ATTEMPT_EXIT), *text;
	json_t *exit = NULL;
	size_t bytes;

	if (!lh_fs_read(path, SMALL_FILE_BYTES, &text, &bytes, NULL)) {
		exit = json_loadb(text, bytes, 0, NULL);
		free(text);
	}
	free(path);
	im->exit_code = im->exit_signal = -1;
	if (!exit)
		return;
	im->exit_signal = (int)json_integer_value(json_object_get(exit, "signal"));
	if (!im->exit_signal)
		im->exit_code = (int)json_integer_value(json_object_get(exit, "code"));
	json_decref(exit);
}

static void read_last_words(struct import *im)
{
	char *path = attempt_path(im->w, LH_ATTEMPT_LOG), tail[TAIL_BYTES + 1], *line;
	FILE *f = fopen(path, "re");
	size_t n;

	free(path);
	if (!f)
		return;
	if (fseek(f, -TAIL_BYTES, SEEK_END))
		rewind(f);
	n = fread(tail, 1, TAIL_BYTES, f);
	fclose(f);
	while (n && (tail[n - 1] == '\n' || tail[n - 1] == '\0'))
		n--;
	tail[n] = '\0';
	line = strrchr(tail, '\n');
	lh_escape(im->last_words, sizeof(im->last_words), line ? line + 1 : tail);
}

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
		read_exit(im);
		read_last_words(im);
		path = attempt_path(im->w, LH_ATTEMPT_SPOOL);
		im->w->spool = fopen(path, "re");
		free(path);
	}
	read_spool(im);
}

/* ---- verdict --------------------------------------------------------------- */

static int64_t restart_pause_ms(int restarts)
{
	int64_t ms = PAUSE_MS;

	while (--restarts > 0 && ms < PAUSE_MAX_MS)
		ms *= 2;
	return ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
}

/* "was killed by signal 9 (Killed) while training after step 57; its last words:
 * '...'" */
static char *how_it_went(const struct lh_worker *w)
{
	char how[128], doing[96] = "", hung[64] = "";

	if (*w->trouble)
		return lh_strdup(w->trouble);
	if (w->exit_signal > 0)
		snprintf(how, sizeof(how), "was killed by signal %d (%s)", w->exit_signal,
			 strsignal(w->exit_signal));
	else if (w->exit_code >= 0)
		snprintf(how, sizeof(how), "exited with code %d", w->exit_code);
	else
		snprintf(how, sizeof(how), "ended and nothing tells how");
	if (!*w->outcome && *w->doing)
		snprintf(doing, sizeof(doing), " while %s after step %" PRId64, w->doing,
			 w->run->step);
	if (w->hung_ms)
		snprintf(hung, sizeof(hung), "made no progress for %.1f s and ",
			 (double)w->hung_ms / 1000);
	return lh_asprintf("the worker %s%s%s%s%s%s", hung, how, doing,
			   *w->last_words ? "; its last words: '" : "", w->last_words,
			   *w->last_words ? "'" : "");
}

static void store_end(const struct lh_worker *w, int64_t job, int64_t step,
		      struct lh_batch *b, const char *how)
{
	const char *outcome = *w->outcome ? w->outcome : "lost";

	lh_batch_add(b, LH_STMT_ATTEMPT_END,
		     (struct lh_bind[]){ LH_INT(job), LH_INT(w->attempt),
					 LH_INT(lh_time_ms()),
					 w->exit_code >= 0 ? LH_INT(w->exit_code) : LH_NULL,
					 w->exit_signal > 0 ? LH_INT(w->exit_signal) :
							      LH_NULL,
					 LH_TEXT(outcome) },
		     6);
	lh_batch_event_take(b, job, w->attempt, step,
			    *w->outcome ? "attempt.ended" : "attempt.lost",
			    json_pack("{s:s, s:i, s:i}", "outcome", outcome, "exit_code",
				      w->exit_code, "exit_signal", w->exit_signal),
			    "attempt %" PRId64 " ended: %s; %s", w->attempt, outcome, how);
}

/* Nobody asked for it: another attempt, or none is left. */
static void lost(struct lh_job_run *run, const struct lh_worker *w, struct lh_batch *b,
		 const char *how)
{
	/* An lhd that was killed before it could spawn is not the worker's loss. */
	bool counts = !(w->adopted && w->pid_awaited && w->exit_code < 0 &&
			w->exit_signal < 0 && !w->received_seq);

	run->restarts += counts;
	lh_job_set_state(run, b, LH_JOB_RESTARTING, "%s", how);
	if (run->restarts > run->spec.restarts) {
		lh_job_set_state(run, b, LH_JOB_FAILED,
				 "the worker was lost %d times, %d allowed; the last one: %s",
				 run->restarts, run->spec.restarts, how);
	} else if (run->jobs->draining) {
		lh_job_set_state(run, b, LH_JOB_QUEUED,
				 "lhd was told to stop while the worker was lost");
	} else {
		run->restart_at_ms = (int64_t)uv_now(run->jobs->loop) +
				     restart_pause_ms(run->restarts);
	}
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
	else if (*o || w->stop_asked)
		put_back(run, w, b, why);
	else
		lost(run, w, b, how);
}

static void decide(struct lh_worker *w)
{
	struct lh_job_run *run = w->run;
	struct lh_jobs *jobs = w->jobs;
	struct lh_batch *b = lh_batch_new(run->journal);
	char *how = how_it_went(w);
	struct lh_command *c, *next;

	LH_FAILPOINT("attempt.over");
	lh_info("job %" PRId64 ": attempt %" PRId64 " is over (%s): %s", run->id, w->attempt,
		*w->outcome ? w->outcome : "lost", how);
	store_end(w, run->id, run->step, b, how);
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
		if (w->exit_code < 0 && w->exit_signal < 0) {
			w->exit_code = im->exit_code;
			w->exit_signal = im->exit_signal;
			memcpy(w->last_words, im->last_words, sizeof(w->last_words));
		}
		w->imported = !json_array_size(im->records);
		if (!w->imported && lh_record_take_all(w, im->records, &err)) {
			lh_log_err(LH_LOG_ERROR, "reading a spool", &err);
			w->imported = true;
		}
		lh_worker_drain(w);
	}
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
	im->exit_code = w->exit_code;
	im->exit_signal = w->exit_signal;
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

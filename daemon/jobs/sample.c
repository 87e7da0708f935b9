/* sample.c: what a worker is asked between two steps and answers itself, most of all
 * text from a model: of the worker that has it in memory, or, when the job has none, of
 * its newest checkpoint in a process of its own.
 *
 * Both speak the same lines: pieces, then one reply. A caller that went away is
 * forgotten at once; its process is killed. */
#include "jobs/jobs_int.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "lighthouse/proto.h"

enum { LINE_MAX_BYTES = 4 << 20, READ_BYTES = 16384 };

struct lh_sample {
	struct lh_sample *next;  /* in jobs->samples */
	struct lh_jobs *jobs;
	int64_t handle;          /* also the call's number */
	int64_t job;
	lh_jobs_piece piece;     /* both NULL once answered or abandoned */
	lh_jobs_reply reply;
	void *arg;
	struct lh_worker *w;     /* asked over its line; else a process */

	/* process */
	json_t *args;
	int64_t step;            /* of the checkpoint that is wanted; -1: the newest */
	char *checkpoint;        /* or NULL */
	bool looking;            /* a task finds it */
	uv_process_t process;
	uv_pipe_t in, out;       /* its stdin and stdout */
	uv_write_t write;
	char *input;
	struct lh_frame lines;
	char buf[READ_BYTES];
	bool spawned, out_ended, exited;
	int handles;
};

/* ---- lifetime -------------------------------------------------------------- */

static void free_sample(struct lh_sample *s)
{
	struct lh_sample **p = &s->jobs->samples;

	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	lh_frame_release(&s->lines);
	json_decref(s->args);
	free(s->checkpoint);
	free(s->input);
	free(s);
}

/* Once; nobody is called after it. Either result or err. */
static void answer(struct lh_sample *s, json_t *result, const struct lh_err *err)
{
	lh_jobs_reply reply = s->reply;

	s->reply = NULL;
	s->piece = NULL;
	if (reply)
		reply(s->arg, result, err);
}

/* Frees it when nothing of it is left on the loop or the pool. */
static void settle(struct lh_sample *s)
{
	if (!s->reply && !s->looking && !s->handles)
		free_sample(s);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct lh_sample *s = handle->data;
	struct lh_jobs *jobs = s->jobs;

	s->handles--;
	jobs->handles--;
	settle(s);
	lh_jobs_settle(jobs);
}

static void close_handle(uv_handle_t *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, on_handle_closed);
}

/* The process goes, if there is one; its exit still has to be collected. */
static void end_process(struct lh_sample *s)
{
	if (!s->spawned)
		return;
	if (!s->exited)
		uv_process_kill(&s->process, SIGKILL);
	close_handle((uv_handle_t *)&s->in);
	close_handle((uv_handle_t *)&s->out);
}

static struct lh_sample *find(struct lh_jobs *jobs, int64_t handle)
{
	struct lh_sample *s = jobs->samples;

	while (s && s->handle != handle)
		s = s->next;
	return s;
}

void lh_jobs_sample_abandon(struct lh_jobs *jobs, int64_t handle)
{
	struct lh_sample *s = find(jobs, handle);

	/* Answered already: it goes by itself, and may be in its own reply now. */
	if (!s || !s->reply)
		return;
	s->reply = NULL;
	s->piece = NULL;
	end_process(s);
	settle(s);
}

void lh_sample_close_all(struct lh_jobs *jobs)
{
	struct lh_sample *s, *next;

	for (s = jobs->samples; s; s = next) {
		next = s->next;
		s->reply = NULL;
		s->piece = NULL;
		end_process(s);
		if (s->spawned && !s->exited)
			close_handle((uv_handle_t *)&s->process);
		settle(s);
	}
}

/* ---- lines of either ------------------------------------------------------- */

static void on_piece(struct lh_sample *s, const json_t *m)
{
	json_t *text = json_object_get(m, "text"), *ids = json_object_get(m, "ids"), *piece;

	if (!s->piece || (!json_is_string(text) && !json_is_array(ids)))
		return;
	piece = json_is_string(text) ? json_pack("{s:O}", "text", text) :
				       json_pack("{s:O}", "ids", ids);
	s->piece(s->arg, piece);
	json_decref(piece);
}

static void on_reply(struct lh_sample *s, const json_t *m)
{
	json_t *result = json_object_get(m, "result"), *error = json_object_get(m, "error");
	const char *code, *text, *hint;
	struct lh_err err = LH_ERR_INIT;

	if (result) {
		answer(s, result, NULL);
		return;
	}
	code = json_string_value(json_object_get(error, "code"));
	text = json_string_value(json_object_get(error, "text"));
	hint = json_string_value(json_object_get(error, "hint"));
	err.code = code ? lh_err_from_name(code) : 0;
	lh_err_set(&err, err.code ? err.code : LH_EWORKER, "%s",
		   text ? text : "the worker gave no answer");
	if (hint)
		lh_err_hint(&err, "%s", hint);
	answer(s, NULL, &err);
}

void lh_sample_on_piece(struct lh_jobs *jobs, const json_t *m)
{
	struct lh_sample *s = find(jobs, json_integer_value(json_object_get(m, "call")));

	if (s)
		on_piece(s, m);
}

void lh_sample_on_reply(struct lh_jobs *jobs, const json_t *m)
{
	struct lh_sample *s = find(jobs, json_integer_value(json_object_get(m, "call")));

	if (!s)
		return;
	on_reply(s, m);
	settle(s);
}

void lh_sample_worker_lost(struct lh_worker *w)
{
	struct lh_sample *s;
	struct lh_err err = LH_ERR_INIT;

	lh_err_set(&err, LH_EWORKER, "the line to the worker broke before it had answered");
	lh_err_hint(&err, "ask again");
	/* From the head each time: an answer may make its caller abandon others. */
	for (;;) {
		for (s = w->jobs->samples; s && s->w != w; s = s->next)
			;
		if (!s)
			return;
		s->w = NULL;
		answer(s, NULL, &err);
		settle(s);
	}
}

/* ---- a process over a checkpoint ------------------------------------------- */

/* Names sort like their steps: digits of one width. */
static void find_checkpoint(void *arg)
{
	struct lh_sample *s = arg;
	char *dir = lh_jobs_path(s->jobs, s->job, LH_JOB_CHECKPOINTS), newest[NAME_MAX + 1] = "", c;
	DIR *d = opendir(dir);
	struct dirent *e;
	long long step;

	while (d && (e = readdir(d)))
		if (sscanf(e->d_name, "step-%10lld%c", &step, &c) == 1 &&
		    strlen(e->d_name) == strlen("step-") + 10 &&
		    (s->step < 0 ? strcmp(e->d_name, newest) > 0 : step == s->step))
			strcpy(newest, e->d_name);
	if (d)
		closedir(d);
	if (*newest)
		s->checkpoint = lh_asprintf("%s/%s", dir, newest);
	free(dir);
}

static void answer_silence(struct lh_sample *s)
{
	struct lh_err err = LH_ERR_INIT;

	if (!s->reply)
		return;
	lh_err_set(&err, LH_EWORKER, "sampling from '%s' ended without an answer",
		   s->checkpoint);
	answer(s, NULL, &err);
}

static void on_process_exit(uv_process_t *process, int64_t code, int sig)
{
	struct lh_sample *s = process->data;

	(void)code, (void)sig;
	s->exited = true;
	if (s->out_ended)
		answer_silence(s);
	close_handle((uv_handle_t *)process);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct lh_sample *s = handle->data;

	(void)suggested;
	*buf = uv_buf_init(s->buf, sizeof(s->buf));
}

static void on_line(struct lh_sample *s, const char *line, size_t len)
{
	json_t *m = json_loadb(line, len, 0, NULL);
	const char *name = json_string_value(json_object_get(m, "m"));

	if (name && !strcmp(name, "piece"))
		on_piece(s, m);
	else if (name && !strcmp(name, "reply"))
		on_reply(s, m);
	json_decref(m);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct lh_sample *s = stream->data;
	char *line;
	size_t len;

	if (n < 0) {
		s->out_ended = true;
		if (s->exited)
			answer_silence(s);
		close_handle((uv_handle_t *)&s->in);
		close_handle((uv_handle_t *)&s->out);
		return;
	}
	lh_frame_push(&s->lines, buf->base, (size_t)n);
	while (lh_frame_next(&s->lines, &line, &len) > 0)
		on_line(s, line, len);
}

static void on_input_written(uv_write_t *req, int status)
{
	struct lh_sample *s = req->handle->data;

	(void)status; /* a process that reads nothing ends without an answer */
	close_handle((uv_handle_t *)&s->in);
}

static void give_input(struct lh_sample *s)
{
	uv_buf_t buf;

	s->input = json_dumps(s->args, JSON_COMPACT);
	buf = uv_buf_init(s->input, (unsigned)strlen(s->input));
	if (uv_write(&s->write, (uv_stream_t *)&s->in, &buf, 1, on_input_written))
		close_handle((uv_handle_t *)&s->in);
	uv_read_start((uv_stream_t *)&s->out, on_alloc, on_read);
}

static int spawn(struct lh_sample *s)
{
	/* The CPU's: a GPU may be full of another job. */
	char *program = lh_asprintf("%s/lhworker-cpu", s->jobs->bin_dir);
	char *args[] = { program, "--sample", s->checkpoint, NULL };
	uv_stdio_container_t io[3] = {
		{ .flags = UV_CREATE_PIPE | UV_READABLE_PIPE,
		  .data.stream = (uv_stream_t *)&s->in },
		{ .flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE,
		  .data.stream = (uv_stream_t *)&s->out },
		{ .flags = UV_IGNORE },
	};
	uv_process_options_t o = { .file = program, .args = args, .exit_cb = on_process_exit,
				   .stdio = io, .stdio_count = 3 };
	int rc;

	uv_pipe_init(s->jobs->loop, &s->in, 0);
	uv_pipe_init(s->jobs->loop, &s->out, 0);
	s->in.data = s->out.data = s->process.data = s;
	rc = uv_spawn(s->jobs->loop, &s->process, &o);
	s->spawned = true;
	s->handles = 3;
	s->jobs->handles += 3;
	free(program);
	return rc;
}

static int count_processes(const struct lh_jobs *jobs)
{
	int n = 0;

	for (const struct lh_sample *s = jobs->samples; s; s = s->next)
		n += s->spawned && !s->exited;
	return n;
}

static void checkpoint_found(void *arg)
{
	struct lh_sample *s = arg;
	struct lh_err err = LH_ERR_INIT;
	int rc;

	s->looking = false;
	if (!s->reply) {
		/* Abandoned meanwhile. */
	} else if (!s->checkpoint && s->step >= 0) {
		lh_err_set(&err, LH_ENOTFOUND, "job %" PRId64 " has no checkpoint of step %"
			   PRId64, s->job, s->step);
		lh_err_hint(&err, "'lhctl checkpoints %" PRId64 "' has those that remain",
			    s->job);
	} else if (!s->checkpoint) {
		lh_err_set(&err, LH_ESTATE, "job %" PRId64 " has no checkpoint to sample from",
			   s->job);
		lh_err_hint(&err, "ask again once it runs");
	} else if (count_processes(s->jobs) >= LH_SAMPLE_PROCESSES) {
		lh_err_set(&err, LH_EBUSY, "%d samples are being drawn from checkpoints already",
			   LH_SAMPLE_PROCESSES);
		lh_err_hint(&err, "ask again in a moment");
	} else {
		rc = spawn(s);
		if (rc) {
			lh_err_set(&err, LH_EWORKER, "cannot start a worker: %s",
				   uv_strerror(rc));
			s->exited = true;
			close_handle((uv_handle_t *)&s->process);
			end_process(s);
		} else {
			give_input(s);
		}
	}
	if (err.code)
		answer(s, NULL, &err);
	settle(s);
}

/* ---- the call -------------------------------------------------------------- */

static bool can_answer(const struct lh_job_run *run)
{
	return run->worker && run->worker->wire &&
	       (run->state == LH_JOB_RUNNING || run->state == LH_JOB_PAUSED ||
		run->state == LH_JOB_SWITCHING);
}

static struct lh_sample *new_sample(struct lh_jobs *jobs, int64_t job, const json_t *args,
				    lh_jobs_piece piece, lh_jobs_reply reply, void *arg)
{
	struct lh_sample *s = lh_calloc(1, sizeof(*s));

	s->jobs = jobs;
	s->handle = ++jobs->last_sample;
	s->job = job;
	s->piece = piece;
	s->reply = reply;
	s->arg = arg;
	s->args = args ? json_deep_copy(args) : json_object();
	s->step = json_is_integer(json_object_get(args, "step")) ?
			  json_integer_value(json_object_get(args, "step")) : -1;
	lh_frame_init(&s->lines, LINE_MAX_BYTES);
	s->next = jobs->samples;
	jobs->samples = s;
	return s;
}

static int64_t ask_worker(struct lh_sample *s, struct lh_worker *w, const char *method)
{
	int64_t handle = s->handle; /* sending may end it */

	s->w = w;
	lh_wire_send_take(w->wire, json_pack("{s:s, s:I, s:s, s:O}", "m", "call", "call",
					     (json_int_t)handle, "method", method, "args",
					     s->args));
	return handle;
}

/* 0, the handle of no sample, after it was answered. */
static int64_t refuse(lh_jobs_reply reply, void *arg, const struct lh_err *err)
{
	reply(arg, NULL, err);
	return 0;
}

static int64_t refuse_unknown(int64_t job, lh_jobs_reply reply, void *arg)
{
	struct lh_err err = LH_ERR_INIT;

	lh_err_set(&err, LH_ENOTFOUND, "there is no job %" PRId64, job);
	lh_err_hint(&err, "job.list names all");
	return refuse(reply, arg, &err);
}

int64_t lh_jobs_sample(struct lh_jobs *jobs, int64_t job, const json_t *args,
		       lh_jobs_piece piece, lh_jobs_reply reply, void *arg)
{
	struct lh_job_run *run = lh_jobs_find(jobs, job);
	struct lh_sample *s;

	if (!run)
		return refuse_unknown(job, reply, arg);
	s = new_sample(jobs, job, args, piece, reply, arg);
	if (s->step < 0 && can_answer(run))
		return ask_worker(s, run->worker, "sample");
	s->looking = true;
	lh_jobs_task(jobs, find_checkpoint, checkpoint_found, s);
	return s->handle;
}

int64_t lh_jobs_preflight(struct lh_jobs *jobs, int64_t job, const json_t *args,
			  lh_jobs_reply reply, void *arg)
{
	struct lh_job_run *run = lh_jobs_find(jobs, job);
	struct lh_err err = LH_ERR_INIT;

	if (!run)
		return refuse_unknown(job, reply, arg);
	if (can_answer(run))
		return ask_worker(new_sample(jobs, job, args, NULL, reply, arg), run->worker,
				  "preflight");
	lh_err_set(&err, LH_ESTATE, "job %" PRId64 " is %s: no worker can say what a switch "
		   "would meet", job, lh_job_state_name(run->state));
	lh_err_hint(&err, "ask again once it runs; 'lhctl estimate' needs no worker");
	return refuse(reply, arg, &err);
}

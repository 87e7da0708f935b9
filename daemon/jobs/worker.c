/* worker.c: the processes of one attempt: started, watched, killed.
 *
 * lhd starts lhkeeper, which starts the worker and outlives it by a moment to
 * write down how it ended. So the attempt is over when neither of them lives:
 *
 *   spawned: the keeper is our child; when it is reaped, look
 *   adopted: look at once
 *   look:    pid.json on the pool, without one what the worker's hello said; keeper
 *            alive -> watch it by a pidfd, look again when it ends; else worker
 *            alive -> likewise; else gone
 *
 * A process is known by pid and start time, so a pid that was given to somebody
 * else counts as ended and is never sent a signal. */
#include "jobs/jobs_int.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "jobs/launch.h"
#include "lighthouse/proto.h"

enum {
	LOOK_AGAIN_MS = 500,  /* without a pidfd */
	PID_WAIT_MS = 2000,   /* an lhd or a keeper that was killed may just have
			       * started it */
	SMALL_FILE_BYTES = 1 << 16,
};

/* ---- lifetime -------------------------------------------------------------- */

void lh_worker_ref(struct lh_worker *w)
{
	w->refs++;
}

void lh_worker_unref(struct lh_worker *w)
{
	struct lh_span *s;

	if (--w->refs)
		return;
	while ((s = w->spans)) {
		w->spans = s->next;
		free(s);
	}
	if (w->spool_fd >= 0)
		lh_io->close(w->spool_fd);
	lh_frame_release(&w->spool_in);
	json_decref(w->log);
	free(w->dir);
	free(w);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct lh_worker *w = handle->data;
	struct lh_jobs *jobs = w->jobs;

	jobs->handles--;
	lh_worker_unref(w);
	lh_jobs_settle(jobs);
}

static void own_handle(struct lh_worker *w, uv_handle_t *handle)
{
	handle->data = w;
	w->jobs->handles++;
	lh_worker_ref(w);
}

struct lh_worker *lh_worker_new(struct lh_job_run *run, int64_t attempt,
				const char *token)
{
	struct lh_worker *w = lh_calloc(1, sizeof(*w));
	char name[48];

	w->jobs = run->jobs;
	w->run = run;
	w->attempt = attempt;
	snprintf(w->token, sizeof(w->token), "%s", token);
	snprintf(name, sizeof(name), "attempt-%" PRId64, attempt);
	w->dir = lh_jobs_path(run->jobs, run->id, name);
	w->first_step = -1;
	w->pidfd = -1;
	w->spool_fd = -1;
	lh_frame_init(&w->spool_in, LH_PROTO_LINE_MAX_BYTES);
	w->beat = -1;
	w->exit_code = w->exit_signal = -1;
	w->spans_end = &w->spans;
	uv_timer_init(w->jobs->loop, &w->look_timer);
	uv_timer_init(w->jobs->loop, &w->kill_timer);
	own_handle(w, (uv_handle_t *)&w->look_timer);
	own_handle(w, (uv_handle_t *)&w->kill_timer);
	lh_worker_ref(w); /* the job's */
	run->worker = w;
	return w;
}

static void on_watch_closed(uv_handle_t *handle)
{
	struct lh_worker *w = handle->data;

	close(w->pidfd);
	w->pidfd = -1;
	on_handle_closed(handle);
}

static void stop_watching(struct lh_worker *w)
{
	if (!w->watching)
		return;
	w->watching = false;
	uv_close((uv_handle_t *)&w->watch, on_watch_closed);
}

bool lh_worker_is_lost(const struct lh_worker *w)
{
	return !*w->outcome || !strcmp(w->outcome, "lost");
}

void lh_worker_depart(struct lh_worker *w)
{
	w->run->worker = NULL;
	w->run = NULL;
	lh_wire_close(w->wire);
	stop_watching(w);
	if (w->keeper_runs)
		uv_close((uv_handle_t *)&w->keeper, on_handle_closed);
	w->keeper_runs = false;
	uv_close((uv_handle_t *)&w->look_timer, on_handle_closed);
	uv_close((uv_handle_t *)&w->kill_timer, on_handle_closed);
	lh_worker_unref(w);
}

/* ---- looking and watching -------------------------------------------------- */

struct look {
	struct lh_worker *w;
	int signal;               /* to be sent to the worker, or 0 */
	int said_pid;             /* by its hello, 0: no hello yet */
	uint64_t said_start_time;
	bool known;               /* pid.json is there */
	int pid, keeper_pid;      /* 0: not alive */
	uint64_t start_time;
	struct lh_err err;
};

static int alive(const json_t *pids, const char *pid_key, const char *start_key,
		 uint64_t *start_time)
{
	int pid = (int)json_integer_value(json_object_get(pids, pid_key));

	*start_time = (uint64_t)json_integer_value(json_object_get(pids, start_key));
	return pid > 0 && *start_time && lh_proc_start_time(pid) == *start_time ? pid : 0;
}

static void look_work(void *arg)
{
	struct look *l = arg;
	uint64_t keeper_start;
	json_t *pids;

	lh_json_read(l->w->dir, LH_ATTEMPT_PID, SMALL_FILE_BYTES, &pids, NULL);
	l->known = pids != NULL;
	l->keeper_pid = alive(pids, "keeper_pid", "keeper_start_time", &keeper_start);
	l->pid = alive(pids, "pid", "start_time", &l->start_time);
	if (!l->known && l->said_pid &&
	    lh_proc_start_time(l->said_pid) == l->said_start_time)
		l->pid = l->said_pid;
	if (l->pid && l->signal)
		kill(l->pid, l->signal);
	json_decref(pids);
}

static void on_watch(uv_poll_t *watch, int status, int events)
{
	struct lh_worker *w = watch->data;

	(void)status, (void)events;
	stop_watching(w);
	lh_worker_look(w);
}

static void on_look_timer(uv_timer_t *timer)
{
	lh_worker_look(timer->data);
}

static void watch_pid(struct lh_worker *w, int pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	/* No pidfd: it has just ended, or this kernel has none. The handle of an
	 * earlier one may still be closing. */
	if (fd < 0 || w->pidfd >= 0) {
		if (fd >= 0)
			close(fd);
		uv_timer_start(&w->look_timer, on_look_timer, LOOK_AGAIN_MS, 0);
		return;
	}
	w->pidfd = fd;
	if (uv_poll_init(w->jobs->loop, &w->watch, fd))
		LH_BUG("a pidfd cannot be polled");
	own_handle(w, (uv_handle_t *)&w->watch);
	w->watching = true;
	uv_poll_start(&w->watch, UV_READABLE, on_watch);
}

static void looked(void *arg)
{
	struct look *l = arg;
	struct lh_worker *w = l->w;

	if (!w->run || w->gone || w->keeper_runs || w->watching) {
		/* Nothing to decide: it is over, or somebody watches. */
	} else if (l->keeper_pid || l->pid) {
		watch_pid(w, l->keeper_pid ? l->keeper_pid : l->pid);
	} else if (!l->known && !w->pid_awaited && !*w->trouble) {
		/* A keeper that was killed may have left a worker: it dials in. */
		w->pid_awaited = true;
		uv_timer_start(&w->look_timer, on_look_timer, PID_WAIT_MS, 0);
	} else {
		lh_worker_gone(w);
	}
	free(l);
	lh_worker_unref(w);
}

static void look(struct lh_worker *w, int signal)
{
	struct look *l = lh_calloc(1, sizeof(*l));

	l->w = w;
	l->signal = signal;
	l->said_pid = w->pid;
	l->said_start_time = w->start_time;
	lh_worker_ref(w);
	lh_jobs_task(w->jobs, look_work, looked, l);
}

void lh_worker_look(struct lh_worker *w)
{
	look(w, 0);
}

void lh_worker_kill(struct lh_worker *w, int signal)
{
	w->killed |= signal == SIGKILL;
	look(w, signal);
}

/* ---- spawning -------------------------------------------------------------- */

static void on_keeper_exit(uv_process_t *process, int64_t code, int signal)
{
	struct lh_worker *w = process->data;

	if (code || signal)
		lh_warn("job %" PRId64 ": its keeper ended with code %" PRId64
			", signal %d", w->run->id, code, signal);
	w->keeper_runs = false;
	uv_close((uv_handle_t *)process, on_handle_closed);
	lh_worker_look(w);
}

static int spawn_keeper(struct lh_worker *w, struct lh_err *err)
{
	struct lh_launch l;
	uv_process_options_t o = { .exit_cb = on_keeper_exit,
				   .flags = UV_PROCESS_DETACHED };
	int rc = lh_launch_init(&l, &w->run->spec, w->jobs->bin_dir, w->dir, err);

	if (!rc) {
		o.file = l.keeper;
		o.args = l.args;
		rc = uv_spawn(w->jobs->loop, &w->keeper, &o);
		own_handle(w, (uv_handle_t *)&w->keeper);
		w->keeper_runs = !rc;
		if (rc) {
			rc = lh_err_set(err, LH_EWORKER, "cannot run '%.150s': %s", l.keeper,
					uv_strerror(rc));
			uv_close((uv_handle_t *)&w->keeper, on_handle_closed);
		}
	}
	lh_launch_release(&l);
	return rc;
}

void lh_worker_spawn(struct lh_worker *w)
{
	struct lh_err err = LH_ERR_INIT;
	int rc = spawn_keeper(w, &err);

	LH_FAILPOINT("worker.spawned");
	w->spawned = true;
	lh_hang_alive(w);
	if (!rc)
		return;
	snprintf(w->trouble, sizeof(w->trouble), "%.190s%s%.50s%s", err.text,
		 *err.hint ? " (" : "", err.hint, *err.hint ? ")" : "");
	lh_error("job %" PRId64 ": %s", w->run->id, w->trouble);
	lh_worker_gone(w);
}

/* ---- ending ---------------------------------------------------------------- */

/* A save that moves is worth its time, unless lhd itself is to end in time. */
static bool may_take_longer(const struct lh_worker *w)
{
	return w->kill_stage == 1 && !w->jobs->draining && w->wire &&
	       !strcmp(w->doing, "saving") &&
	       (int64_t)uv_now(w->jobs->loop) - w->beat_at_ms < w->jobs->stop_grace_ms;
}

static void on_kill_timer(uv_timer_t *timer)
{
	struct lh_worker *w = timer->data;
	int signal = w->kill_stage == 1 ? SIGTERM : SIGKILL;
	struct lh_batch *b;

	if (w->gone)
		return;
	if (may_take_longer(w)) {
		lh_worker_arm_kill(w);
		return;
	}
	b = lh_batch_new(w->run->journal);
	lh_warn("job %" PRId64 ": the worker has not ended; signal %d", w->run->id, signal);
	lh_batch_event_take(b, w->run->id, w->attempt, w->run->step, "worker.kill",
			    json_pack("{s:i}", "signal", signal),
			    "the worker did not end in time and was sent signal %d", signal);
	lh_batch_commit(b, false, NULL, NULL);
	lh_worker_kill(w, signal);
	if (++w->kill_stage < 3)
		uv_timer_start(timer, on_kill_timer, (uint64_t)w->jobs->kill_grace_ms, 0);
}

bool lh_worker_has_process(const struct lh_worker *w)
{
	return !w->gone && (w->spawned || w->adopted);
}

bool lh_worker_awaits_ranks(const struct lh_worker *w)
{
	return *w->run->spec.join && !w->wire && w->beat < 0;
}

void lh_worker_arm_kill(struct lh_worker *w)
{
	/* There is nobody yet who could hear of an end, but the door. */
	int64_t grace_ms = lh_worker_awaits_ranks(w) ? 0 : w->jobs->stop_grace_ms;

	/* One that is still being started will not be: see queue.c. */
	if (w->kill_stage > 1 || !lh_worker_has_process(w))
		return;
	w->kill_stage = 1;
	uv_timer_start(&w->kill_timer, on_kill_timer, (uint64_t)grace_ms, 0);
}

/* jobs.c: opening, draining and closing the manager; work on the thread pool.
 *
 * Closing lets go of everything at once (timers, sockets, children) and is done
 * when the last handle and the last task are back. Workers are left alone: they
 * keep training, keep their records and keep dialling. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/oom.h"
#include "jobs/rule.h"
#include "lighthouse/proto.h"

enum {
	DRAIN_LOOK_MS = 100,   /* nobody tells when the store has trouble */
	DRAIN_SLACK_MS = 5000, /* for what was killed to be noticed */
};

struct lh_job_run *lh_jobs_find(struct lh_jobs *jobs, int64_t job)
{
	int low = 0, high = jobs->count;

	while (low < high) {
		int mid = (low + high) / 2;

		if (jobs->run[mid]->id < job)
			low = mid + 1;
		else
			high = mid;
	}
	return low < jobs->count && jobs->run[low]->id == job ? jobs->run[low] : NULL;
}

void lh_jobs_add(struct lh_jobs *jobs, struct lh_job_run *run)
{
	int at = jobs->count;

	if (jobs->count == jobs->cap) {
		jobs->cap = jobs->cap ? 2 * jobs->cap : 16;
		jobs->run = lh_realloc(jobs->run,
				       (size_t)jobs->cap * sizeof(*jobs->run));
	}
	/* Two submits may be committed in the other order than they got ids. */
	while (at > 0 && jobs->run[at - 1]->id > run->id) {
		jobs->run[at] = jobs->run[at - 1];
		at--;
	}
	run->jobs = jobs;
	jobs->run[at] = run;
	jobs->count++;
}

char *lh_jobs_path(struct lh_jobs *jobs, int64_t job, const char *name)
{
	return lh_asprintf("%s/%s/%" PRId64 "%s%s", jobs->state_dir, LH_STATE_JOBS, job,
			   *name ? "/" : "", name);
}

/* ---- tasks ----------------------------------------------------------------- */

struct task {
	uv_work_t req;
	struct lh_jobs *jobs;
	void (*work)(void *arg);
	void (*after)(void *arg);
	lh_store_work read;
	lh_store_read_done read_done;
	void *arg;
};

static void task_work(uv_work_t *req)
{
	struct task *t = req->data;

	t->work(t->arg);
}

static void task_after(uv_work_t *req, int status)
{
	struct task *t = req->data;
	struct lh_jobs *jobs = t->jobs;

	(void)status; /* never cancelled */
	t->after(t->arg);
	free(t);
	jobs->tasks--;
	lh_jobs_settle(jobs);
}

void lh_jobs_task(struct lh_jobs *jobs, void (*work)(void *arg),
		  void (*after)(void *arg), void *arg)
{
	struct task *t = lh_calloc(1, sizeof(*t));

	t->req.data = t;
	t->jobs = jobs;
	t->work = work;
	t->after = after;
	t->arg = arg;
	jobs->tasks++;
	if (uv_queue_work(jobs->loop, &t->req, task_work, task_after))
		LH_BUG("the thread pool refuses work");
}

static void read_after(void *arg, int rc, const struct lh_err *err)
{
	struct task *t = arg;
	struct lh_jobs *jobs = t->jobs;

	t->read_done(t->arg, rc, err);
	free(t);
	jobs->tasks--;
	lh_jobs_settle(jobs);
}

static int read_work(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct task *t = arg;

	return t->read(db, t->arg, err);
}

void lh_jobs_read(struct lh_jobs *jobs, lh_store_work work, lh_store_read_done after,
		  void *arg)
{
	struct task *t = lh_calloc(1, sizeof(*t));

	t->jobs = jobs;
	t->read = work;
	t->read_done = after;
	t->arg = arg;
	jobs->tasks++;
	lh_store_read(jobs->store, read_work, read_after, t);
}

/* ---- opening --------------------------------------------------------------- */

/* Jobs that had a worker when the last lhd ended: find out what it does. */
static void adopt(struct lh_jobs *jobs)
{
	for (int i = 0; i < jobs->count; i++)
		if (jobs->run[i]->worker) {
			lh_hang_alive(jobs->run[i]->worker);
			lh_worker_look(jobs->run[i]->worker);
		}
}

/* Not before: lhd may have been told to end while it opened. */
static void on_first_turn(uv_timer_t *timer)
{
	lh_queue_run(timer->data);
}

static void free_all(struct lh_jobs *jobs)
{
	while (jobs->requests)
		lh_request_free(jobs->requests);
	for (int i = 0; i < jobs->count; i++) {
		lh_command_free_all(jobs->run[i]);
		lh_job_run_free(jobs->run[i]);
	}
	lh_rules_free(jobs);
	free(jobs->run);
	free(jobs->state_dir);
	free(jobs->bin_dir);
	free(jobs->socket_path);
	free(jobs->oom_file);
	free(jobs);
}

const struct lh_gpu *lh_jobs_gpu(const struct lh_jobs *jobs)
{
	return &jobs->gpu;
}

const char *lh_jobs_bin_dir(const struct lh_jobs *jobs)
{
	return jobs->bin_dir;
}

int lh_jobs_open(struct lh_jobs **out, uv_loop_t *loop, struct lh_store *store,
		 const struct lh_jobs_config *config, lh_event_sink sink,
		 void *sink_arg, struct lh_err *err)
{
	struct lh_jobs *jobs = lh_calloc(1, sizeof(*jobs));
	int64_t last_event;
	int rc;

	jobs->loop = loop;
	jobs->store = store;
	jobs->state_dir = lh_strdup(config->state_dir);
	jobs->bin_dir = lh_strdup(config->bin_dir);
	jobs->socket_path = lh_asprintf("%s/%s", config->state_dir,
					LH_STATE_WORKER_SOCKET);
	lh_gpu_find(&jobs->gpu, config->bin_dir);
	if (jobs->gpu.usable)
		lh_info("GPU: %s, %.1f GiB", jobs->gpu.name,
			(double)jobs->gpu.memory_bytes / (1 << 30));
	else
		lh_info("no GPU: %s", jobs->gpu.why.text);
	jobs->slots = config->slots;
	jobs->stop_grace_ms = config->stop_grace_ms;
	jobs->kill_grace_ms = config->kill_grace_ms;
	jobs->hang_ms = config->hang_ms;
	jobs->generation = config->generation;
	jobs->proto = config->proto;
	jobs->oom_file = config->oom_file ? lh_strdup(config->oom_file) : NULL;
	jobs->oom_kills = lh_oom_kills(jobs->oom_file);
	uv_timer_init(loop, &jobs->timer);
	uv_timer_init(loop, &jobs->drain_timer);
	uv_timer_init(loop, &jobs->hang_timer);
	jobs->timer.data = jobs->drain_timer.data = jobs->hang_timer.data = jobs;
	jobs->handles = 4;
	lh_rules_open(jobs);
	rc = lh_wire_listen(jobs, err);
	if (!rc)
		rc = lh_jobs_load(jobs, &last_event, err);
	if (!rc)
		rc = lh_rules_load(jobs, err);
	if (rc) {
		/* Handles are on the loop: the memory goes once they are closed. */
		lh_jobs_close(jobs, NULL, NULL);
		return rc;
	}
	jobs->journal = lh_journal_new(store, last_event, sink, sink_arg);
	for (int i = 0; i < jobs->count; i++)
		jobs->run[i]->journal = jobs->journal;
	adopt(jobs);
	lh_hang_begin(jobs);
	uv_timer_start(&jobs->timer, on_first_turn, 0, 0);
	lh_rules_begin(jobs);
	*out = jobs;
	return 0;
}

/* ---- draining and closing -------------------------------------------------- */

/* Nothing is left to wait for: no job is live; or no process is, and the store
 * takes nothing; or it has been long enough. */
static bool is_drained(const struct lh_jobs *jobs)
{
	bool live = false, process = false;

	for (int i = 0; i < jobs->count; i++) {
		const struct lh_job_run *run = jobs->run[i];

		live |= lh_job_is_live(run->state);
		process |= run->worker && lh_worker_has_process(run->worker);
	}
	return !live || (!process && *lh_store_trouble(jobs->store)) ||
	       (int64_t)uv_now(jobs->loop) >= jobs->drain_end_ms;
}

void lh_jobs_settle(struct lh_jobs *jobs)
{
	void (*call)(void *arg);
	void *arg;

	if (jobs->closing) {
		if (jobs->handles || jobs->tasks)
			return;
		call = jobs->closed;
		arg = jobs->closed_arg;
		free_all(jobs);
		if (call)
			call(arg);
	} else if (jobs->draining && jobs->drained && is_drained(jobs)) {
		call = jobs->drained;
		jobs->drained = NULL;
		uv_timer_stop(&jobs->drain_timer);
		call(jobs->drained_arg);
	}
}

static void on_drain_timer(uv_timer_t *timer)
{
	lh_jobs_settle(timer->data);
}

void lh_jobs_drain(struct lh_jobs *jobs, void (*drained)(void *arg), void *arg)
{
	LH_ASSERT(!jobs->draining);
	jobs->draining = true;
	jobs->drained = drained;
	jobs->drained_arg = arg;
	jobs->drain_end_ms = (int64_t)uv_now(jobs->loop) + jobs->stop_grace_ms +
			     jobs->kill_grace_ms + DRAIN_SLACK_MS;
	for (int i = 0; i < jobs->count; i++) {
		struct lh_job_run *run = jobs->run[i];

		if (run->state == LH_JOB_RESTARTING)
			lh_job_set_state(run, NULL, LH_JOB_QUEUED,
					 "lhd was told to stop before the worker was "
					 "started again");
		else if (run->worker)
			lh_command_stop(run, "lhd was told to stop");
	}
	/* `drained` must not be called from inside this call. */
	uv_timer_start(&jobs->drain_timer, on_drain_timer, 0, DRAIN_LOOK_MS);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct lh_jobs *jobs = handle->data;

	jobs->handles--;
	lh_jobs_settle(jobs);
}

static void on_listener_closed(void *arg)
{
	struct lh_jobs *jobs = arg;

	jobs->handles--;
	lh_jobs_settle(jobs);
}

void lh_jobs_close(struct lh_jobs *jobs, void (*closed)(void *arg), void *arg)
{
	LH_ASSERT(!jobs->closing);
	jobs->closing = true;
	jobs->closed = closed;
	jobs->closed_arg = arg;
	if (jobs->journal)
		lh_journal_close(jobs->journal);
	lh_sample_close_all(jobs);
	lh_rules_close(jobs);
	while (jobs->wires)
		lh_wire_close(jobs->wires);
	for (int i = 0; i < jobs->count; i++)
		if (jobs->run[i]->worker)
			lh_worker_depart(jobs->run[i]->worker);
	lh_listener_close(&jobs->listener, on_listener_closed);
	uv_close((uv_handle_t *)&jobs->timer, on_handle_closed);
	uv_close((uv_handle_t *)&jobs->drain_timer, on_handle_closed);
	uv_close((uv_handle_t *)&jobs->hang_timer, on_handle_closed);
}

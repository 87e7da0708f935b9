/* queue.c: which job starts next, whose place it takes, the steps of starting it.
 *
 *   lh_queue_run -> start: attempt row, state STARTING, durable
 *        -> commands to be repeated are read -> attempt directory, start.json
 *        -> lh_worker_spawn
 *
 * A job that lost its worker keeps its slot and starts before any queued one. A
 * cancel or stop may come between any two steps; then nothing is spawned and the
 * attempt is over.
 *
 * A GPU is one job's: each may fit alone and two not. Where a queued job has no room,
 * it takes the place of the live one of lowest priority, if that is lower than its
 * own and lets it: that one is told to stop as when lhd ends, waits in the queue, and
 * goes on from its checkpoint. One at a time, and not while a job is about to end
 * anyway. Equals wait for each other, so that no two take turns. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"
#include "lighthouse/proto.h"

struct starting {
	struct lh_worker *w;
	int64_t job;         /* w->run may go while this is on the pool */
	json_t *replay;
	bool saved;          /* a checkpoint was written */
	char *path, *text;   /* of start.json */
	char *spec_path, *spec; /* of job.json, which a resume may have changed */
	struct lh_err err;
};

/* ---- steps ----------------------------------------------------------------- */

static void starting_free(struct starting *s)
{
	lh_worker_unref(s->w);
	json_decref(s->replay);
	free(s->path);
	free(s->text);
	free(s->spec_path);
	free(s->spec);
	free(s);
}

/* Ends the start when it failed or is not wanted any more. */
static bool is_over(struct lh_worker *w, const struct lh_err *err)
{
	if (w->jobs->closing || !w->run)
		return true;
	if (err && err->code) {
		snprintf(w->trouble, sizeof(w->trouble), "%.250s", err->text);
		lh_log_err(LH_LOG_ERROR, "starting a worker", err);
	}
	if (!*w->trouble && w->run->state == LH_JOB_STARTING)
		return false;
	lh_worker_gone(w);
	return true;
}

static void write_start(void *arg)
{
	struct starting *s = arg;

	s->err.code = lh_fs_mkdirs(s->w->dir, &s->err);
	if (!s->err.code)
		s->err.code = lh_fs_write_atomic(s->spec_path, s->spec, strlen(s->spec),
						 &s->err);
	if (!s->err.code)
		s->err.code = lh_fs_write_atomic(s->path, s->text, strlen(s->text), &s->err);
}

static void start_written(void *arg)
{
	struct starting *s = arg;

	LH_FAILPOINT("start.written");
	if (!is_over(s->w, &s->err))
		lh_worker_spawn(s->w);
	starting_free(s);
}

static int read_saved(sqlite3 *db, struct starting *s, struct lh_err *err)
{
	bool more;
	json_t *rows = lh_store_rows(db, "SELECT 1 FROM checkpoints WHERE job = ?",
				     (struct lh_bind[]){ LH_INT(s->job) }, 1, 1, &more, err);

	s->saved = json_array_size(rows);
	json_decref(rows);
	return rows ? 0 : LH_ESTORE;
}

#define OR_METHOD(verb) ", 'job." verb "'"
/* What was applied in earlier attempts and shapes training: it is done again at
 * its step. Pauses are in `paused`, checkpoints and ends are over. */
static int read_past(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct starting *s = arg;
	json_t *rows, *row, *args;
	bool more;
	size_t i;

	rows = lh_store_rows(db, "SELECT id, substr(method, 5) AS verb, args_json, step FROM "
			     "commands WHERE job = ? AND outcome = 'applied' AND method IN "
			     "('' " LH_PROTO_SHAPING_VERBS(OR_METHOD) ") ORDER BY id",
			     (struct lh_bind[]){ LH_INT(s->job) }, 1, INT64_MAX,
			     &more, err);
	if (!rows)
		return LH_ESTORE;
	json_array_foreach (rows, i, row) {
		args = lh_command_worker_args(json_object_get(row, "args"));
		json_object_set_new(row, "args", args);
	}
	s->replay = rows;
	return read_saved(db, s, err);
}

static void past_read(void *arg, int rc, const struct lh_err *err)
{
	struct starting *s = arg;
	struct lh_worker *w = s->w;
	char *cache;
	json_t *start;

	if (is_over(w, rc ? err : NULL)) {
		starting_free(s);
		return;
	}
	cache = lh_asprintf("%s/%s", w->jobs->state_dir, LH_STATE_CACHE);
	start = json_pack("{s:I, s:I, s:s, s:I, s:s, s:s, s:b, s:b, s:O, s:o}", "job",
			  (json_int_t)w->run->id, "attempt", (json_int_t)w->attempt, "token",
			  w->token, "generation", (json_int_t)w->jobs->generation, "socket",
			  w->jobs->socket_path, "cache", cache, "paused", w->run->wanted == LH_WANT_PAUSE,
			  "saved", s->saved, "replay", s->replay, "held",
			  lh_command_held(w->run));
	LH_ASSERT(start);
	free(cache);
	s->text = json_dumps(start, JSON_INDENT(1));
	s->path = lh_asprintf("%s/%s", w->dir, LH_ATTEMPT_START);
	s->spec = json_dumps(w->run->spec_json, JSON_INDENT(1));
	s->spec_path = lh_jobs_path(w->jobs, w->run->id, LH_JOB_SPEC);
	json_decref(start);
	lh_jobs_task(w->jobs, write_start, start_written, s);
}

static void attempt_stored(void *arg, int rc, const struct lh_err *err)
{
	struct lh_worker *w = arg;
	struct starting *s;

	LH_FAILPOINT("start.stored");
	if (is_over(w, rc ? err : NULL))
		return;
	s = lh_calloc(1, sizeof(*s));
	s->w = w;
	s->job = w->run->id;
	lh_worker_ref(w);
	lh_jobs_read(w->jobs, read_past, past_read, s);
}

static bool wants_gpu(const struct lh_job_run *run)
{
	return run->spec.device == LH_DEVICE_CUDA;
}

static void set_starting(struct lh_job_run *run, struct lh_batch *b)
{
	char *file;

	if (!*run->spec.join) {
		lh_job_set_state(run, b, LH_JOB_STARTING, "attempt %" PRId64, run->attempt);
		return;
	}
	file = lh_jobs_path(run->jobs, run->id, LH_JOB_JOIN);
	lh_job_set_state(run, b, LH_JOB_STARTING, "attempt %" PRId64 " waits for %d ranks: "
			 "lhworker-%s --join %s", run->attempt, run->spec.devices,
			 wants_gpu(run) ? "cuda" : "cpu", file);
	free(file);
}

static void start(struct lh_job_run *run)
{
	struct lh_batch *b = lh_batch_new(run->journal);
	unsigned char noise[(LH_TOKEN_BYTES - 1) / 2];
	char token[LH_TOKEN_BYTES];

	if (getrandom(noise, sizeof(noise), 0) != (ssize_t)sizeof(noise))
		LH_BUG("the kernel gives no random bytes");
	for (size_t i = 0; i < sizeof(noise); i++)
		snprintf(token + 2 * i, 3, "%02x", noise[i]);
	if (run->taken_attempt > run->attempt)
		run->attempt = run->taken_attempt;
	run->attempt++;
	lh_job_add_token(run, run->attempt, token);
	lh_worker_new(run, run->attempt, token);
	lh_batch_add(b, LH_STMT_ATTEMPT_INSERT,
		     (struct lh_bind[]){ LH_INT(run->id), LH_INT(run->attempt),
					 LH_TEXT(token), LH_INT(lh_time_ms()) },
		     4);
	set_starting(run, b);
	lh_batch_commit(b, true, attempt_stored, run->worker);
}

/* ---- the queue ------------------------------------------------------------- */

static int live_count(const struct lh_jobs *jobs)
{
	int n = 0;

	for (int i = 0; i < jobs->count; i++)
		n += lh_job_is_live(jobs->run[i]->state);
	return n;
}

static bool gpu_is_taken(const struct lh_jobs *jobs)
{
	for (int i = 0; i < jobs->count; i++)
		if (lh_job_is_live(jobs->run[i]->state) && wants_gpu(jobs->run[i]))
			return true;
	return false;
}

static bool has_room(const struct lh_jobs *jobs, const struct lh_job_run *run)
{
	return live_count(jobs) < jobs->slots && !(wants_gpu(run) && gpu_is_taken(jobs));
}

static bool waits(const struct lh_job_run *run)
{
	return run->state == LH_JOB_QUEUED && run->wanted == LH_WANT_RUN &&
	       lh_wait_is_over(run);
}

/* With room: highest priority, then oldest; jobs stand in the order of their ids. One
 * that a foreign worker trains waits for it to end: two must not write its
 * checkpoints. */
static struct lh_job_run *next_queued(const struct lh_jobs *jobs)
{
	struct lh_job_run *best = NULL;

	for (int i = 0; i < jobs->count; i++) {
		struct lh_job_run *run = jobs->run[i];

		if (waits(run) && (!best || run->priority > best->priority) &&
		    !lh_foreign_trains(jobs, run->id) && has_room(jobs, run))
			best = run;
	}
	return best;
}

/* ---- taking another's place ------------------------------------------------ */

/* Lowest priority, then newest, or NULL. */
static struct lh_job_run *victim_of(const struct lh_jobs *jobs, const struct lh_job_run *run)
{
	bool gpu = wants_gpu(run) && gpu_is_taken(jobs);
	struct lh_job_run *victim = NULL;

	for (int i = 0; i < jobs->count; i++) {
		struct lh_job_run *other = jobs->run[i];

		if (lh_job_is_live(other->state) && other->spec.preemptible &&
		    other->priority < run->priority && (!gpu || wants_gpu(other)) &&
		    (!victim || other->priority <= victim->priority))
			victim = other;
	}
	return victim;
}

static void take_place(const struct lh_job_run *run, struct lh_job_run *victim)
{
	struct lh_batch *b = lh_batch_new(victim->journal);
	char why[160];

	snprintf(why, sizeof(why), "job %" PRId64 " '%s' of priority %d takes its place",
		 run->id, run->spec.name, run->priority);
	lh_batch_event_take(b, victim->id, victim->attempt, victim->step, "job.preempted",
			    json_pack("{s:I, s:s, s:i}", "by", (json_int_t)run->id, "name",
				      run->spec.name, "priority", run->priority),
			    "%s", why);
	if (!victim->worker)
		lh_job_set_state(victim, b, LH_JOB_QUEUED, "%s", why);
	lh_batch_commit(b, false, NULL, NULL);
	if (victim->worker)
		lh_command_stop(victim, why);
}

/* The waiting job of highest priority that can have a place gets it made free. */
static void preempt(struct lh_jobs *jobs)
{
	struct lh_job_run *best = NULL, *victim = NULL, *of;

	for (int i = 0; i < jobs->count; i++) {
		struct lh_job_run *run = jobs->run[i];

		if (run->state == LH_JOB_STOPPING)
			return;
		if (!waits(run) || (best && run->priority <= best->priority))
			continue;
		of = victim_of(jobs, run);
		if (of) {
			best = run;
			victim = of;
		}
	}
	if (best)
		take_place(best, victim);
}

static void on_timer(uv_timer_t *timer)
{
	lh_queue_run(timer->data);
}

/* Starts the restarts that are due, arms the timer for the next one, or for a time
 * that a job waits for. */
static void run_due(struct lh_jobs *jobs)
{
	int64_t now_ms = (int64_t)uv_now(jobs->loop), next_ms = lh_wait_look(jobs);

	if (next_ms >= 0)
		next_ms += now_ms;

	for (int i = 0; i < jobs->count; i++) {
		struct lh_job_run *run = jobs->run[i];

		if (run->state != LH_JOB_RESTARTING || lh_foreign_trains(jobs, run->id))
			continue;
		if (run->restart_at_ms <= now_ms)
			start(run);
		else if (next_ms < 0 || run->restart_at_ms < next_ms)
			next_ms = run->restart_at_ms;
	}
	if (next_ms >= 0)
		uv_timer_start(&jobs->timer, on_timer, (uint64_t)(next_ms - now_ms), 0);
	else
		uv_timer_stop(&jobs->timer);
}

/* Some may be of a worker that ended before it came to them. */
static void do_commands(struct lh_jobs *jobs)
{
	for (int i = 0; i < jobs->count; i++)
		if (jobs->run[i]->state == LH_JOB_QUEUED)
			lh_command_do_queued(jobs->run[i]);
}

void lh_queue_run(struct lh_jobs *jobs)
{
	struct lh_job_run *run;

	if (jobs->closing || jobs->draining)
		return;
	do_commands(jobs);
	run_due(jobs);
	do {
		while ((run = next_queued(jobs)))
			start(run);
		preempt(jobs);
	} while (next_queued(jobs)); /* one between two workers left at once */
}

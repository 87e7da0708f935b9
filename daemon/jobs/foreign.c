/* foreign.c: workers that dial in and are not this lhd's: listed, left alone.
 *
 * Of a job or an attempt that the store does not know, because the state directory
 * was restored from a backup; of an lhd newer than this one; of a protocol version
 * that is not spoken. Such a worker gets no answer. It trains on, keeps its records
 * and its checkpoints, and ends by itself; its open line is how it is known to live.
 * While it does, no attempt of its job is started here, and none gets its number:
 * the next one goes on from the checkpoints that it leaves.
 *
 * Only one whose attempt is known, by its token, to be over is sent away (wire.c). */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct lh_foreign {
	struct lh_foreign *next;     /* in jobs->foreigners */
	struct lh_jobs *jobs;
	int pid;
	uint64_t start_time;
	int64_t job, attempt, step, generation, proto;
	char why[160];
};

static int64_t integer(const json_t *m, const char *key)
{
	return json_integer_value(json_object_get(m, key));
}

/* Once a process, however often it dials. */
static bool was_told(struct lh_jobs *jobs, const struct lh_foreign *f)
{
	size_t n = sizeof(jobs->told) / sizeof(*jobs->told);

	for (size_t i = 0; i < n; i++)
		if (jobs->told[i].pid == f->pid && jobs->told[i].start_time == f->start_time)
			return true;
	jobs->told[jobs->told_next].pid = f->pid;
	jobs->told[jobs->told_next].start_time = f->start_time;
	jobs->told_next = (jobs->told_next + 1) % n;
	return false;
}

static json_t *describe(const struct lh_foreign *f)
{
	json_t *d = json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:s}", "pid", f->pid, "job",
			      (json_int_t)f->job, "attempt", (json_int_t)f->attempt, "step",
			      (json_int_t)f->step, "generation", (json_int_t)f->generation,
			      "protocol", (json_int_t)f->proto, "why", f->why);

	LH_ASSERT(d);
	return d;
}

static void tell(const struct lh_foreign *f)
{
	struct lh_batch *b = lh_batch_new(f->jobs->journal);
	bool known = lh_jobs_find(f->jobs, f->job) != NULL;

	lh_warn("process %d trains job %" PRId64 ", attempt %" PRId64
		", and is left alone: %s", f->pid, f->job, f->attempt, f->why);
	lh_batch_event_take(b, known ? f->job : 0, f->attempt, f->step, "worker.foreign",
			    describe(f), "process %d trains job %" PRId64 ", attempt %" PRId64
			    ", and is left alone: %s", f->pid, f->job, f->attempt, f->why);
	lh_batch_commit(b, false, NULL, NULL);
}

struct lh_foreign *lh_foreign_add(struct lh_jobs *jobs, const json_t *hello, int pid,
				  const char *fmt, ...)
{
	struct lh_foreign *f = lh_calloc(1, sizeof(*f));
	struct lh_job_run *run;
	va_list ap;

	f->jobs = jobs;
	f->pid = pid;
	f->start_time = (uint64_t)integer(hello, "start_time");
	f->job = integer(hello, "job");
	f->attempt = integer(hello, "attempt");
	f->step = integer(hello, "step");
	f->generation = integer(hello, "generation");
	f->proto = integer(hello, "proto");
	va_start(ap, fmt);
	vsnprintf(f->why, sizeof(f->why), fmt, ap);
	va_end(ap);
	f->next = jobs->foreigners;
	jobs->foreigners = f;
	run = lh_jobs_find(jobs, f->job);
	if (run && f->attempt > run->taken_attempt)
		run->taken_attempt = f->attempt;
	if (!was_told(jobs, f))
		tell(f);
	return f;
}

void lh_foreign_remove(struct lh_foreign *f)
{
	struct lh_foreign **p = &f->jobs->foreigners;

	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
	lh_info("process %d, a foreign worker of job %" PRId64 ", has left", f->pid, f->job);
	free(f);
}

bool lh_foreign_trains(const struct lh_jobs *jobs, int64_t job)
{
	const struct lh_foreign *f = jobs->foreigners;

	while (f && f->job != job)
		f = f->next;
	return f != NULL;
}

json_t *lh_jobs_foreign_workers(const struct lh_jobs *jobs)
{
	json_t *list = json_array();

	for (const struct lh_foreign *f = jobs->foreigners; f; f = f->next)
		json_array_append_new(list, describe(f));
	return list;
}

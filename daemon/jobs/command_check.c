/* command_check.c: what a job's state allows of a command; see command.c.
 *
 * What is pending counts as done: two that are at odds are not both accepted. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "jobs/jobfile.h"
#include "lighthouse/proto.h"

static bool is(const char *verb, const char *name)
{
	return !strcmp(verb, name);
}

static int refuse(struct lh_err *err, const struct lh_job_run *run, const char *what,
		  const char *hint)
{
	lh_err_set(err, LH_ESTATE, "job %" PRId64 " %s", run->id, what);
	return lh_err_hint(err, "%s", hint);
}

/* As it will be once everything pending was applied. */
static bool will_be_paused(const struct lh_job_run *run)
{
	bool paused = run->wanted == LH_WANT_PAUSE || run->state == LH_JOB_PAUSED;

	for (const struct lh_command *c = run->commands; c; c = c->next)
		paused = is(c->verb, "pause") || (paused && !is(c->verb, "resume"));
	return paused;
}

/* A worker that is paused still has its GPU. */
static bool may_release(const struct lh_job_run *run, const json_t *args)
{
	return json_is_true(json_object_get(args, "release")) && run->worker;
}

static bool still_waits(const struct lh_job_run *run)
{
	return run->state == LH_JOB_QUEUED && !lh_wait_is_over(run);
}

/* At the next step boundary. */
static int phase_to_be(const struct lh_job_run *run)
{
	int phase = run->phase;

	for (const struct lh_command *c = run->commands; c; c = c->next)
		if (is(c->verb, "switch") && !json_object_get(c->args, "at_step"))
			lh_jobfile_find_phase(
				&run->spec,
				json_string_value(json_object_get(c->args, "phase")),
				&phase, NULL);
	return phase;
}

/* When a switch is to be done. */
static int check_when(const struct lh_job_run *run, const json_t *args, struct lh_err *err)
{
	json_int_t at = json_integer_value(json_object_get(args, "at_step"));
	char what[80];

	if (!json_object_get(args, "at_step"))
		return 0;
	if (json_is_true(json_object_get(args, "now"))) {
		lh_err_set(err, LH_EPARAMS, "a switch is done now or at a step, not both");
		return lh_err_hint(err, "leave one of them out");
	}
	snprintf(what, sizeof(what), "has done %" PRId64 " steps: step %" JSON_INTEGER_FORMAT
		 " is past", run->step, at);
	if (at < run->step)
		return refuse(err, run, what, "name a step to come");
	if (run->worker && lh_command_is_too_old(run->worker, args)) {
		lh_err_set(err, LH_ESTATE, LH_TOO_OLD);
		return lh_err_hint(err, LH_TOO_OLD_HINT);
	}
	return 0;
}

static int check_switch(const struct lh_job_run *run, const json_t *args, json_t **stored,
			struct lh_err *err)
{
	const char *asked = json_string_value(json_object_get(args, "phase")), *name;
	int now = phase_to_be(run), to = now + 1, rc = check_when(run, args, err);

	if (rc)
		return rc;

	if (run->state == LH_JOB_QUEUED)
		return refuse(err, run, "waits in the queue; there is nothing to switch",
			      "switch it once it runs");
	if (asked) {
		rc = lh_jobfile_find_phase(&run->spec, asked, &to, err);
		if (rc)
			return rc;
	}
	if (to >= run->spec.phase_count)
		return refuse(err, run, "is in its last phase",
			      "name the phase to switch to");
	name = run->spec.phases[to].name;
	/* Which phase it will be in at a later step, nobody knows. */
	if (to == now && !json_object_get(args, "at_step")) {
		lh_err_set(err, LH_ESTATE,
			   run->phase == to ? "job %" PRId64 " is in phase '%s' already" :
					      "job %" PRId64 " switches to '%s' already",
			   run->id, name);
		return lh_err_hint(err, "name another phase of the job");
	}
	*stored = json_copy((json_t *)args);
	json_object_set_new(*stored, "phase", json_string(name));
	if (!asked || strcmp(asked, name))
		json_object_set_new(*stored, "asked",
				    asked ? json_string(asked) : json_null());
	return 0;
}

/* Those for a later step may be many, of a replay: they are in nobody's way. */
static int count_pending(const struct lh_job_run *run, bool for_later)
{
	int n = 0;

	for (const struct lh_command *c = run->commands; c; c = c->next)
		n += for_later == (json_object_get(c->args, "at_step") != NULL);
	return n;
}

/* Another size of micro-batches: memory is laid out when a worker starts. */
static int check_micro(const struct lh_job_run *run, const json_t *args,
		       struct lh_err *err)
{
	json_int_t n = json_integer_value(json_object_get(args, "micro_sequences"));
	struct lh_job job = run->spec; /* borrows */
	int64_t share = lh_job_share(&job);

	if (!json_object_get(args, "micro_sequences"))
		return 0;
	if (run->state != LH_JOB_QUEUED && run->state != LH_JOB_STOPPING)
		return refuse(err, run, "has a worker, whose micro-batches are fixed",
			      "pause it with release first");
	if (n > 1 && job.context > 1) {
		lh_err_set(err, LH_EPARAMS, "micro_sequences %" JSON_INTEGER_FORMAT " of "
			   "sequences that devices share, which come one at a time", n);
		return lh_err_hint(err, "0 and 1 mean that");
	}
	if (n && share % n) {
		lh_err_set(err, LH_EPARAMS, "micro_sequences %" JSON_INTEGER_FORMAT " does "
			   "not divide the %" PRId64 " sequences of a step%s", n, share,
			   job.devices > 1 ? " on a device" : "");
		return lh_err_hint(err, "0 means all of them at once");
	}
	job.batch.micro_sequences = n;
	return lh_gpu_place(&run->jobs->gpu, &job, err);
}

static int check_priority(const struct lh_job_run *run, const json_t *args,
			  struct lh_err *err)
{
	json_int_t priority = json_integer_value(json_object_get(args, "priority"));
	char what[64];

	if (priority != run->priority)
		return 0;
	snprintf(what, sizeof(what), "has priority %d already", run->priority);
	return refuse(err, run, what, "give it another");
}

/* In any state: what became of a job is worth a note, too. */
static int check_note(const json_t *args, json_t **stored, struct lh_err *err)
{
	const char *text = json_string_value(json_object_get(args, "text"));

	if (!text || !*text) {
		lh_err_set(err, LH_EPARAMS, "the note is empty");
		return lh_err_hint(err, "say what is to be remembered");
	}
	*stored = json_copy((json_t *)args);
	return 0;
}

int lh_command_check(const struct lh_job_run *run, const char *verb, const json_t *args,
		     json_t **stored, struct lh_err *err)
{
	char what[64];
	bool paused = will_be_paused(run);

	if (is(verb, "annotate"))
		return check_note(args, stored, err);
	if (lh_job_has_ended(run->state)) {
		snprintf(what, sizeof(what), "has ended: %s", lh_job_state_name(run->state));
		return refuse(err, run, what, "submit its job file again for another run");
	}
	if (is(verb, "cancel") && run->wanted == LH_WANT_CANCEL)
		return refuse(err, run, "is being cancelled already",
			      "wait for it to end");
	if (count_pending(run, json_object_get(args, "at_step")) >= LH_PENDING_MAX) {
		refuse(err, run, "has as many commands pending as one may have",
		       "wait until its worker has come to them");
		return err->code = LH_EBUSY;
	}
	/* One that is paused goes back into the queue. */
	if (run->state == LH_JOB_STOPPING && !is(verb, "cancel") &&
	    !(is(verb, "resume") && paused && run->wanted != LH_WANT_CANCEL))
		return refuse(err, run, "is stopping", "wait for it to end");
	if (is(verb, "pause") && paused && !may_release(run, args))
		return refuse(err, run, "is paused already, or about to be",
			      "resume makes it go on");
	if (is(verb, "resume") && !paused && !still_waits(run))
		return refuse(err, run, "is not paused", "pause it first");
	if (is(verb, "checkpoint") && run->state == LH_JOB_QUEUED)
		return refuse(err, run, "waits in the queue; there is nothing to save",
			      "ask once it runs");
	if (is(verb, "eval") && run->state == LH_JOB_QUEUED)
		return refuse(err, run, "waits in the queue; there is nothing to evaluate",
			      "ask once it runs");
	if (is(verb, "eval") && json_is_true(json_object_get(args, "passkey")) &&
	    json_is_true(json_object_get(args, "choices"))) {
		lh_err_set(err, LH_EPARAMS, "passkeys and multiple choice at once");
		return lh_err_hint(err, "ask for one after the other");
	}
	if (is(verb, "set") && run->state == LH_JOB_QUEUED)
		return refuse(err, run, "waits in the queue; it has nothing to be set yet",
			      "set it once it runs");
	if (is(verb, "resume") && check_micro(run, args, err))
		return err->code;
	if (is(verb, "priority") && check_priority(run, args, err))
		return err->code;
	if (is(verb, "switch"))
		return check_switch(run, args, stored, err);
	if (is(verb, "set"))
		return lh_set_check(run, phase_to_be(run), args, stored, err);
	*stored = json_copy((json_t *)args);
	return 0;
}

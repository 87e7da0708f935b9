/* replay.c: a new job that does what another did: the same file, and what shaped its
 * training given again at the steps at which it was applied.
 *
 * These commands are journalled with the new job, pending until it comes to their
 * steps, so they outlive workers and daemons as any switch for a later step does. What
 * was taken back is not given again, and the rules stay behind: what they did is in
 * the journal. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "jobs/jobfile.h"
#include "lighthouse/proto.h"

enum { REPLAY_MAX = 1000 }; /* commands */

#define OR_METHOD(verb) ", 'job." verb "'"
static const char past_sql[] =
	"SELECT id, method, args_json, step FROM commands WHERE job = ? AND outcome = 'applied' AND method IN "
	"('' " LH_PROTO_SHAPING_VERBS(OR_METHOD) ") ORDER BY id";

static int64_t job_of(const struct lh_request *r)
{
	return json_integer_value(json_object_get(r->args, "of"));
}

/* ---- what is to be done again ---------------------------------------------- */

static int read_past(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct lh_request *r = arg;
	const struct lh_bind job[] = { LH_INT(job_of(r)) };
	bool more;
	json_t *file = lh_store_rows(db, "SELECT spec_yaml FROM jobs WHERE id = ?", job, 1, 1,
				     &more, err);
	const char *yaml = json_string_value(json_object_get(json_array_get(file, 0),
							     "spec_yaml"));

	r->yaml = lh_strdup(yaml ? yaml : "");
	json_decref(file);
	r->past = file ? lh_store_rows(db, past_sql, job, 1, REPLAY_MAX, &more, err) : NULL;
	if (!r->past)
		return LH_ESTORE;
	if (!more)
		return 0;
	json_decref(r->past);
	r->past = NULL;
	return lh_err_set(err, LH_ETOOBIG, "job %" PRId64 " had more than %d commands that "
			  "shaped its training", job_of(r), REPLAY_MAX);
}

/* As the worker is to get it: for that step, and not sooner. */
static void set_step(json_t *row)
{
	json_t *args = lh_command_worker_args(json_object_get(row, "args"));

	json_object_del(args, "now");
	json_object_set(args, "at_step", json_object_get(row, "step"));
	json_object_set_new(row, "args", args);
}

void lh_replay_describe(const struct lh_request *r, char *text, size_t text_bytes)
{
	size_t n = json_array_size(r->past);

	snprintf(text, text_bytes, "it does what job %" PRId64 " did, with %zu of its commands",
		 job_of(r), n);
}

void lh_replay_add(struct lh_request *r, struct lh_batch *b)
{
	json_t *row;
	size_t i;

	json_array_foreach (r->past, i, row) {
		char *args = json_dumps(json_object_get(row, "args"), JSON_COMPACT), why[80];

		snprintf(why, sizeof(why), "as command %" JSON_INTEGER_FORMAT " of job %" PRId64,
			 json_integer_value(json_object_get(row, "id")), job_of(r));
		json_object_set_new(row, "id", json_integer(++r->jobs->last_command));
		lh_batch_add(b, LH_STMT_COMMAND_INSERT,
			     (struct lh_bind[]){
				     LH_INT(r->jobs->last_command), LH_NULL, LH_INT(r->job),
				     LH_TEXT(json_string_value(json_object_get(row, "method"))),
				     LH_TEXT(args), LH_INT(r->uid), LH_INT(r->pid),
				     LH_TEXT(r->program), LH_TEXT(why),
				     LH_INT(r->accepted_ms) },
			     10);
		free(args);
	}
}

void lh_replay_begin(struct lh_request *r, struct lh_job_run *run)
{
	json_t *row;
	size_t i;

	json_array_foreach (r->past, i, row)
		lh_command_add(run, json_integer_value(json_object_get(row, "id")),
			       json_string_value(json_object_get(row, "method")) +
				       strlen("job."),
			       json_incref(json_object_get(row, "args")));
}

/* ---- the new job ----------------------------------------------------------- */

static void resolve(struct lh_request *r, const struct lh_job_run *of)
{
	struct lh_err err = LH_ERR_INIT;
	char name[65]; /* as long as a name may be */

	r->spec_json = json_deep_copy(of->spec_json);
	snprintf(name, sizeof(name), "%.57s-replay", of->spec.name);
	json_object_set_new(r->spec_json, "name", json_string(name));
	json_object_set_new(r->spec_json, "rules", json_array());
	r->spec = lh_calloc(1, sizeof(*r->spec));
	if (lh_jobfile_from_json(r->spec, r->spec_json, &err))
		LH_BUG("job %" PRId64 " cannot be read again: %s", of->id, err.text);
}

static void past_read(void *arg, int rc, const struct lh_err *err)
{
	struct lh_request *r = arg;
	json_t *row;
	size_t i;

	if (r->jobs->closing)
		return; /* freed with the rest */
	if (rc) {
		lh_request_answer_take(r, NULL, err);
		return;
	}
	json_array_foreach (r->past, i, row)
		set_step(row);
	resolve(r, lh_jobs_find(r->jobs, job_of(r)));
	lh_submit_go(r);
}

static void go(struct lh_request *r)
{
	lh_jobs_read(r->jobs, read_past, past_read, r);
}

/* No two runs come to the end of so many minutes at the same step. */
static int check(struct lh_jobs *jobs, int64_t job, struct lh_err *err)
{
	const struct lh_job_run *of = lh_jobs_find(jobs, job);

	if (!of) {
		lh_err_set(err, LH_ENOTFOUND, "there is no job %" PRId64, job);
		return lh_err_hint(err, "job.list names all");
	}
	for (int i = 0; i < of->spec.phase_count; i++)
		if (of->spec.phases[i].until.minutes > 0) {
			lh_err_set(err, LH_ESTATE, "phase '%s' of job %" PRId64 " ends after "
				   "%g minutes, which no other run does at the same step",
				   of->spec.phases[i].name, job,
				   of->spec.phases[i].until.minutes);
			return lh_err_hint(err, "submit its job file for another run");
		}
	return lh_submit_check(jobs, err);
}

void lh_jobs_replay(struct lh_jobs *jobs, int64_t job, int priority,
		    const struct lh_caller *who, lh_jobs_reply reply, void *arg)
{
	struct lh_request *r = lh_request_new(jobs, "job.replay", 0, who, reply, arg);
	struct lh_err err = LH_ERR_INIT;

	r->how.priority = priority;
	r->args = json_pack("{s:I, s:i}", "of", (json_int_t)job, "priority", priority);
	r->go = go;
	if (check(jobs, job, &err))
		lh_request_answer_take(r, NULL, &err);
	else
		lh_request_begin(r);
}

/* request.c: a caller's request from its call to its answer.
 *
 * With a request id, the journal is asked first: what was accepted before is
 * answered as it was then, whatever the job's state is by now. A retry that comes
 * while the first is still under way shares its answer. Requests that are
 * refused leave no trace, so their retry is judged anew. */
#include "jobs/jobs_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "jobs/rule.h"

struct lh_request *lh_request_new(struct lh_jobs *jobs, const char *method, int64_t job,
				  const struct lh_caller *who, lh_jobs_reply reply,
				  void *arg)
{
	struct lh_request *r = lh_calloc(1, sizeof(*r));

	r->jobs = jobs;
	r->method = method;
	r->job = job;
	r->uid = who->uid;
	r->pid = who->pid;
	r->program = lh_strdup(who->program ? who->program : "");
	r->message = lh_strdup(who->message ? who->message : "");
	r->request_id = who->request_id ? lh_strdup(who->request_id) : NULL;
	r->reply = reply;
	r->arg = arg;
	r->next = jobs->requests;
	jobs->requests = r;
	return r;
}

static void unlink_request(struct lh_request *r)
{
	struct lh_request **p = &r->jobs->requests;

	while (*p && *p != r)
		p = &(*p)->next;
	if (*p)
		*p = r->next;
}

void lh_request_free(struct lh_request *r)
{
	struct lh_request *same = r->same, *next;

	unlink_request(r); /* a retry is in no list but its first one's */
	for (; same; same = next) {
		next = same->same;
		same->same = NULL;
		lh_request_free(same);
	}
	if (r->spec) {
		lh_job_release(r->spec);
		free(r->spec);
	}
	json_decref(r->spec_json);
	json_decref(r->args);
	json_decref(r->stored);
	json_decref(r->seen);
	json_decref(r->past);
	lh_firing_free(r->firing);
	free(r->yaml);
	free(r->request_id);
	free(r->program);
	free(r->message);
	free(r);
}

void lh_request_answer_take(struct lh_request *r, json_t *result, const struct lh_err *err)
{
	LH_ASSERT(!result != !err);
	unlink_request(r);
	for (struct lh_request *each = r; each; each = each->same)
		if (each->reply)
			each->reply(each->arg, result, err);
	json_decref(result);
	lh_request_free(r);
}

void lh_jobs_give_up_requests(struct lh_jobs *jobs)
{
	struct lh_err err = LH_ERR_INIT;

	lh_err_set(&err, LH_ESTATE, "lhd ends and has not stored this; it may still");
	lh_err_hint(&err, "once lhd was started again, ask again with the same request id");
	jobs->draining = true;
	for (struct lh_request *r = jobs->requests; r; r = r->next)
		for (struct lh_request *each = r; each; each = each->same) {
			lh_jobs_reply reply = each->reply;

			each->reply = NULL; /* the store may come back to it */
			if (reply)
				reply(each->arg, NULL, &err);
		}
}

/* ---- request ids ----------------------------------------------------------- */

/* What the caller gave, out of what the journal keeps: a switch keeps the phase
 * it resolved to, and in `asked` what stood there before. New reference. */
static json_t *asked_args(const json_t *stored)
{
	json_t *args = json_copy((json_t *)stored);
	const json_t *asked = json_object_get(args, "asked");

	if (json_is_null(asked))
		json_object_del(args, "phase");
	else if (asked)
		json_object_set(args, "phase", (json_t *)asked);
	json_object_del(args, "asked");
	return args;
}

static bool same_request(const struct lh_request *r, const char *method, int64_t job,
			 const json_t *args)
{
	/* A submit has no job before its answer; its args tell jobs apart. */
	return !strcmp(r->method, method) && (!r->job || r->job == job) &&
	       json_equal(r->args, args);
}

static void answer_conflict(struct lh_request *r)
{
	struct lh_err err = LH_ERR_INIT;

	lh_err_set(&err, LH_ECONFLICT,
		   "request id '%s' was used for another request", r->request_id);
	lh_err_hint(&err, "give every new request an id of its own");
	lh_request_answer_take(r, NULL, &err);
}

static int look_up(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct lh_request *r = arg;
	bool more;
	json_t *rows = lh_store_rows(db, "SELECT id, job, method, args_json FROM commands "
				     "WHERE request_id = ?",
				     (struct lh_bind[]){ LH_TEXT(r->request_id) }, 1, 1,
				     &more, err);

	if (!rows)
		return LH_ESTORE;
	r->seen = json_incref(json_array_get(rows, 0));
	json_decref(rows);
	return 0;
}

static void answer_seen(struct lh_request *r)
{
	int64_t id = json_integer_value(json_object_get(r->seen, "id"));
	int64_t job = json_integer_value(json_object_get(r->seen, "job"));
	const char *method = json_string_value(json_object_get(r->seen, "method"));
	json_t *args = asked_args(json_object_get(r->seen, "args"));
	struct lh_job_run *run = lh_jobs_find(r->jobs, job);

	if (!run || !same_request(r, method, job, args))
		answer_conflict(r);
	else if (!strcmp(method, "job.submit") || !strcmp(method, "job.replay"))
		lh_request_answer_take(r, lh_submit_result(run, id), NULL);
	else
		lh_request_answer_take(r, json_pack("{s:I, s:I, s:s}", "command",
						    (json_int_t)id, "job",
						    (json_int_t)job, "state", "accepted"),
				       NULL);
	json_decref(args);
}

static void looked_up(void *arg, int rc, const struct lh_err *err)
{
	struct lh_request *r = arg;

	if (r->jobs->closing)
		return; /* freed with the rest */
	if (rc)
		lh_request_answer_take(r, NULL, err);
	else if (r->seen)
		answer_seen(r);
	else
		r->go(r);
}

/* Another request under way with the same id, or NULL. */
static struct lh_request *twin(const struct lh_request *r)
{
	struct lh_request *other = r->jobs->requests;

	for (; other; other = other->next)
		if (other != r && other->request_id &&
		    !strcmp(other->request_id, r->request_id))
			return other;
	return NULL;
}

void lh_request_begin(struct lh_request *r)
{
	struct lh_request *first;

	if (!r->request_id) {
		r->go(r);
		return;
	}
	first = twin(r);
	if (!first) {
		lh_jobs_read(r->jobs, look_up, looked_up, r);
	} else if ((r->job && r->job != first->job) || strcmp(r->method, first->method) ||
		   !json_equal(r->args, first->args)) {
		answer_conflict(r);
	} else {
		unlink_request(r);
		r->same = first->same;
		first->same = r;
	}
}

void lh_request_journal(struct lh_request *r, struct lh_batch *batch, const json_t *args)
{
	char *text = json_dumps(args, JSON_COMPACT);

	r->command = ++r->jobs->last_command;
	lh_batch_add(batch, LH_STMT_COMMAND_INSERT,
		     (struct lh_bind[]){ LH_INT(r->command),
					 r->request_id ? LH_TEXT(r->request_id) : LH_NULL,
					 r->job ? LH_INT(r->job) : LH_NULL,
					 LH_TEXT(r->method), LH_TEXT(text), LH_INT(r->uid),
					 LH_INT(r->pid), LH_TEXT(r->program),
					 LH_TEXT(r->message), LH_INT(r->accepted_ms) },
		     10);
	free(text);
}

void lh_request_journal_done(struct lh_request *r, struct lh_batch *batch,
			     const char *outcome, int64_t step, const char *text)
{
	lh_request_journal(r, batch, r->args);
	lh_batch_add(batch, LH_STMT_COMMAND_OUTCOME,
		     (struct lh_bind[]){ LH_INT(r->command), LH_TEXT(outcome),
					 LH_INT(r->accepted_ms),
					 step >= 0 ? LH_INT(step) : LH_NULL,
					 LH_TEXT(text) },
		     5);
}

/* ---- lhd itself ------------------------------------------------------------ */

static void restart_stored(void *arg, int rc, const struct lh_err *err)
{
	struct lh_request *r = arg;

	lh_request_answer_take(r, rc ? NULL : json_pack("{s:I, s:s}", "command",
							(json_int_t)r->command, "state",
							"restarting"),
			       rc ? err : NULL);
}

void lh_jobs_restart(struct lh_jobs *jobs, const struct lh_caller *who,
		     lh_jobs_reply reply, void *arg)
{
	struct lh_request *r = lh_request_new(jobs, "daemon.restart", 0, who, reply, arg);
	struct lh_err err = LH_ERR_INIT;
	struct lh_batch *b;

	if (jobs->draining) {
		lh_err_set(&err, LH_ESTATE, "lhd is stopping already");
		lh_err_hint(&err, "start it once it has ended");
		lh_request_answer_take(r, NULL, &err);
		return;
	}
	b = lh_batch_new(jobs->journal);
	r->args = json_object();
	r->accepted_ms = lh_time_ms();
	lh_request_journal_done(r, b, "applied", -1, "workers go on");
	lh_batch_event_take(b, 0, 0, -1, "daemon.restart",
			    json_pack("{s:I}", "command", (json_int_t)r->command),
			    "lhd restarts, by uid %lld%s%s; workers go on",
			    (long long)r->uid, *r->message ? ": " : "", r->message);
	lh_batch_commit(b, true, restart_stored, r);
}

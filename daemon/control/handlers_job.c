/* handlers_job.c: methods that make, steer or question a job.
 *
 * job.submit reads the job file on the thread pool, since that opens data files;
 * everything else goes to the job manager, which answers when its journal is
 * committed or the worker has spoken. */
#include <stdlib.h>
#include <string.h>

#include "control/control.h"
#include "jobs/jobfile.h"
#include "jobs/launch.h"
#include "jobs/rule.h"
#include "rpc_table.h"

/* ---- job.submit ----------------------------------------------------------- */

struct submit {
	uv_work_t req;
	struct lh_call *call;
	const struct lh_gpu *gpu;
	const char *bin_dir;
	struct lh_jobfile_source src; /* strings are the call's */
	const char **set;
	struct lh_job job;
	int rc;
	struct lh_err err;
};

static void submit_free(struct submit *s)
{
	lh_job_release(&s->job);
	free(s->set);
	free(s);
}

static void resolve(uv_work_t *req)
{
	struct submit *s = req->data;

	s->rc = lh_jobfile_load(&s->job, &s->src, &s->err);
	if (!s->rc)
		s->rc = lh_rules_check(&s->job, &s->err);
	if (!s->rc)
		s->rc = lh_gpu_place(s->gpu, &s->job, &s->err);
	if (!s->rc)
		s->rc = lh_launch_check(&s->job, s->bin_dir, &s->err);
}

static void reply_checked(struct submit *s)
{
	lh_reply_ok(s->call,
		    json_pack("{s:n,s:s,s:s,s:n,s:o,s:I}", "job", "name",
			      s->job.name, "state", "checked", "command", "spec",
			      lh_jobfile_to_json(&s->job), "params",
			      (json_int_t)lh_job_model_params(&s->job.model)));
}

static void resolved(uv_work_t *req, int status)
{
	struct submit *s = req->data;
	struct lh_caller who = lh_control_caller(s->call);
	const struct lh_submission how = {
		.priority = (int)lh_call_int(s->call, "priority", 0),
		.not_before_ms = lh_call_int(s->call, "not_before_ms", 0),
		.after_job = lh_call_int(s->call, "after", 0),
	};

	(void)status; /* never cancelled */
	if (s->rc)
		lh_reply_err(s->call, &s->err);
	else if (lh_call_bool(s->call, "dry_run", false))
		reply_checked(s);
	else
		lh_jobs_submit_take(lh_control_of(s->call)->jobs, &s->job,
				    s->src.yaml, &how, &who, lh_control_answer, s->call);
	submit_free(s);
}

/* The overrides as C strings; they live as long as the call. */
static const char **overrides(const struct lh_call *call, int *count)
{
	json_t *all = json_object_get(call->params, "set"), *one;
	const char **set = lh_calloc(json_array_size(all), sizeof(*set));
	size_t i;

	json_array_foreach (all, i, one)
		set[i] = json_string_value(one);
	*count = (int)json_array_size(all);
	return set;
}

void rpc_job_submit(struct lh_call *call)
{
	struct lh_err err = LH_ERR_INIT;
	struct submit *s;

	if (lh_call_str(call, "base_dir", "")[0] != '/') {
		lh_err_set(&err, LH_EPARAMS, "parameter 'base_dir' is '%.100s'; it "
			   "must be an absolute path",
			   lh_call_str(call, "base_dir", ""));
		lh_reply_err(call, &err);
		return;
	}
	s = lh_calloc(1, sizeof(*s));
	s->req.data = s;
	s->call = call;
	s->gpu = lh_jobs_gpu(lh_control_of(call)->jobs);
	s->bin_dir = lh_jobs_bin_dir(lh_control_of(call)->jobs);
	s->src.yaml = lh_call_str(call, "yaml", "");
	s->src.yaml_bytes = strlen(s->src.yaml);
	s->src.file = lh_call_str(call, "file", NULL);
	s->src.base_dir = lh_call_str(call, "base_dir", "");
	s->set = overrides(call, &s->src.set_count);
	s->src.set = s->set;
	if (uv_queue_work(lh_control_of(call)->loop, &s->req, resolve, resolved))
		LH_BUG("the thread pool refuses work");
}

void rpc_job_replay(struct lh_call *call)
{
	struct lh_caller who = lh_control_caller(call);

	lh_jobs_replay(lh_control_of(call)->jobs, lh_call_int(call, "job", 0),
		       (int)lh_call_int(call, "priority", 0), &who, lh_control_answer, call);
}

/* What is the verb's own. New reference. */
static json_t *args_of(const struct lh_call *call)
{
	static const char *const not_args[] = { "job", "request_id", "message", "program",
						"dry_run" };
	json_t *args = json_copy(call->params);

	for (size_t i = 0; i < sizeof(not_args) / sizeof(*not_args); i++)
		json_object_del(args, not_args[i]);
	return args;
}

/* ---- what a worker answers itself: job.sample, a dry run ------------------- */

/* A question under way. The manager may answer before it has returned the handle,
 * so this outlives both, whichever comes last. */
struct sample {
	struct lh_call *call;
	int64_t handle;
	bool starting, ended;
};

static void sample_end(struct sample *s)
{
	s->ended = true;
	if (!s->starting)
		free(s);
}

static void on_piece(void *arg, json_t *piece)
{
	struct sample *s = arg;

	lh_call_piece(s->call, "sample", piece);
}

static void on_sampled(void *arg, json_t *result, const struct lh_err *err)
{
	struct sample *s = arg;

	s->call->gone = NULL;
	lh_control_answer(s->call, result, err);
	sample_end(s);
}

static void on_sample_gone(struct lh_call *call)
{
	struct sample *s = call->handler_data;

	lh_jobs_sample_abandon(lh_control_of(call)->jobs, s->handle);
	lh_call_drop(call);
	sample_end(s);
}

/* With the arguments that are left once the caller's own are taken. */
static struct sample *begin(struct lh_call *call, int64_t *job, json_t **args)
{
	struct sample *s;

	if (!lh_control_find_job(call, job))
		return NULL;
	*args = args_of(call);
	s = lh_calloc(1, sizeof(*s));
	s->call = call;
	s->starting = true;
	return s;
}

static void started(struct sample *s)
{
	s->starting = false;
	if (s->ended) {
		free(s);
		return;
	}
	s->call->gone = on_sample_gone;
	s->call->handler_data = s;
}

void rpc_job_sample(struct lh_call *call)
{
	struct sample *s;
	json_t *args;
	int64_t job;

	s = begin(call, &job, &args);
	if (!s)
		return;
	s->handle = lh_jobs_sample(lh_control_of(call)->jobs, job, args, on_piece,
				   on_sampled, s);
	json_decref(args);
	started(s);
}

static void on_preflight(void *arg, json_t *result, const struct lh_err *err)
{
	struct sample *s = arg;
	json_t *answer = NULL;

	if (result)
		answer = json_pack("{s:n, s:I, s:s, s:O}", "command", "job",
				   (json_int_t)lh_call_int(s->call, "job", 0), "state",
				   "checked", "preflight", result);
	on_sampled(arg, answer, err);
	json_decref(answer);
}

static void preflight(struct lh_call *call)
{
	struct sample *s;
	json_t *args;
	int64_t job;

	s = begin(call, &job, &args);
	if (!s)
		return;
	/* When it would be done: a worker would wait for it, or leave off what it does. */
	json_object_del(args, "at_step");
	json_object_del(args, "now");
	s->handle = lh_jobs_preflight(lh_control_of(call)->jobs, job, args, on_preflight, s);
	json_decref(args);
	started(s);
}

/* ---- commands ------------------------------------------------------------- */

static void command(struct lh_call *call, const char *verb)
{
	struct lh_caller who = lh_control_caller(call);
	json_t *args = args_of(call);

	lh_jobs_command(lh_control_of(call)->jobs, lh_call_int(call, "job", 0),
			verb, args, &who, lh_control_answer, call);
	json_decref(args);
}

void rpc_job_switch(struct lh_call *call)
{
	if (lh_call_bool(call, "dry_run", false))
		preflight(call);
	else
		command(call, "switch");
}

void rpc_job_set(struct lh_call *call)
{
	command(call, "set");
}

void rpc_job_pause(struct lh_call *call)
{
	command(call, "pause");
}

void rpc_job_resume(struct lh_call *call)
{
	command(call, "resume");
}

void rpc_job_checkpoint(struct lh_call *call)
{
	command(call, "checkpoint");
}

void rpc_job_eval(struct lh_call *call)
{
	command(call, "eval");
}

void rpc_job_priority(struct lh_call *call)
{
	command(call, "priority");
}

void rpc_job_annotate(struct lh_call *call)
{
	command(call, "annotate");
}

void rpc_job_cancel(struct lh_call *call)
{
	command(call, "cancel");
}

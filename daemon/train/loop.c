/* loop.c: see loop.h.
 *
 *   open -> [start evaluation] -> boundary -> step -> boundary -> ... -> end
 *
 * The loop's state is struct lh_progress plus the model; both are in every
 * checkpoint. Outcomes: done, cancelled, stopped, failed. */
#include "train/loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "jobs/jobfile.h"
#include "train/checkpoint.h"
#include "train/data.h"
#include "train/estimate.h"
#include "train/model.h"
#include "train/optim.h"
#include "train/sample.h"
#include "train/saver.h"

enum ending { GOING, DONE, CANCELLED, STOPPED, FAILED };
static const char *const ending_names[] = { "", "done", "cancelled", "stopped",
					    "failed" };
enum { PAUSE_POLL_MS = 200 };

struct loop {
	const struct lh_loop_config *c;
	const struct lh_job *job;
	struct lh_link *link;
	struct lh_dev *dev;
	struct lh_model *model;
	struct lh_saver *saver;
	struct lh_data data;
	struct lh_attention_mode modes[LH_PHASES_MAX];
	int micro;               /* sequences of a micro-batch */
	int32_t *tokens, *targets; /* (micro, seq_len) */
	struct lh_progress p;
	int64_t saved_step;      /* of the newest checkpoint, begun at least; -1 none */
	bool paused;
	enum ending ending;
};

/* ---- records --------------------------------------------------------------- */

static void post(struct loop *l, const char *kind, json_t *fields)
{
	LH_ASSERT(fields);
	json_object_set_new(fields, "t", json_string(kind));
	json_object_set_new(fields, "step", json_integer(l->p.step));
	lh_link_post_take(l->link, fields);
}

/* Paths and messages may hold any bytes, JSON holds UTF-8. */
static json_t *text_json(const char *text)
{
	char safe[4 * sizeof(((struct lh_err *)0)->text)];
	json_t *s = json_string(text);

	return s ? s : json_string(lh_escape(safe, sizeof(safe), text));
}

static void post_warning(struct loop *l, const char *text)
{
	lh_warn("%s", text);
	post(l, "event", json_pack("{s:s, s:o}", "level", "warn", "text",
				   text_json(text)));
}

static void post_plan(struct loop *l, const char *phase,
		      const struct lh_estimate_phase *p)
{
	const struct lh_layout_bytes *b = &p->bytes;
	char text[256];

	snprintf(text, sizeof(text), "phase '%.60s': recompute %s, %.2f GiB (state %.2f, "
		 "kept %.2f, scratch %.2f, logits %.2f, device %.2f)", phase, lh_recompute_name(p->recompute),
		 (double)b->total / (1 << 30), (double)b->state / (1 << 30),
		 (double)b->kept / (1 << 30), (double)b->scratch / (1 << 30),
		 (double)b->loss / (1 << 30), (double)b->device / (1 << 30));
	lh_info("%s", text);
	post(l, "event", json_pack("{s:s, s:o}", "level", "info", "text",
				   text_json(text)));
}

static void status(struct loop *l, const char *doing)
{
	lh_link_status(l->link, l->p.step, l->p.phase, l->paused ? "paused" : "running",
		       doing);
}

static void post_state(struct loop *l, const char *state, const char *reason,
		       int64_t command)
{
	post(l, "state", json_pack("{s:s, s:s, s:I}", "state", state, "reason", reason,
				   "command", (json_int_t)command));
}

/* ---- checkpoints and evaluation -------------------------------------------- */

/* Training goes on without it: the checkpoint before is still there. */
static int tell_failed_save(struct loop *l, int64_t step, const struct lh_err *why,
			    struct lh_err *err)
{
	char *text = lh_asprintf("no checkpoint of step %" PRId64 ": %s%s%s%s", step,
				 why->text, *why->hint ? " (hint: " : "", why->hint,
				 *why->hint ? ")" : "");

	post_warning(l, text);
	free(text);
	l->saved_step = -1;
	*err = *why;
	return why->code;
}

/* Tells of a save that has ended; `wait`: of the one under way. What it returns
 * is how the save went: no reason to end the job. */
static int take_save(struct loop *l, bool wait, struct lh_err *err)
{
	struct lh_saved s;
	json_t *record;

	if (!lh_saver_take(l->saver, wait, &s))
		return 0;
	if (s.rc)
		return tell_failed_save(l, s.step, &s.err, err);
	record = json_pack("{s:s, s:I, s:o, s:I, s:f, s:f, s:s}", "t", "checkpoint", "step",
			   (json_int_t)s.step, "path", text_json(s.path), "bytes",
			   (json_int_t)s.bytes, "duration_ms", s.duration_ms, "stall_ms",
			   s.stall_ms, "reason", s.reason);
	LH_ASSERT(record);
	lh_link_post_take(l->link, record);
	free(s.path);
	return 0;
}

/* The state of this boundary; written while training goes on. */
static int begin_save(struct loop *l, const char *reason, struct lh_err *err)
{
	struct lh_err why = LH_ERR_INIT;

	status(l, "saving");
	take_save(l, true, err);
	if (lh_saver_begin(l->saver, &l->p, reason, &why))
		return tell_failed_save(l, l->p.step, &why, err);
	l->saved_step = l->p.step;
	return 0;
}

/* This boundary's state safe on disk before anything else happens. */
static int save(struct loop *l, const char *reason, struct lh_err *err)
{
	int rc = l->saved_step == l->p.step ? 0 : begin_save(l, reason, err);

	return rc ? rc : take_save(l, true, err);
}

/* Full attention over the validation split; training state is not touched. */
static int evaluate(struct loop *l, const char *reason, struct lh_err *err)
{
	int64_t n = l->job->evaluation.sequences, T = l->job->data.seq_len, count = 0;
	double sum = 0;

	if (!lh_data_has_validation(&l->data) || !n)
		return 0;
	status(l, "evaluating");
	for (int64_t i = 0; i < n; i += l->micro) {
		int b = n - i < l->micro ? (int)(n - i) : l->micro;
		double loss;
		int rc = 0;

		for (int s = 0; !rc && s < b; s++)
			rc = lh_data_validation(&l->data, i + s, n, l->tokens + s * T,
						l->targets + s * T, err);
		if (!rc)
			rc = lh_model_loss(l->model, &lh_attention_full, b, T, l->tokens,
					   l->targets, &loss, NULL, err);
		if (rc)
			return rc;
		sum += loss;
		lh_link_beat(l->link);
		for (int64_t t = 0; t < b * T; t++)
			count += l->targets[t] >= 0;
	}
	post(l, "eval", json_pack("{s:i, s:s, s:o, s:I, s:s}", "phase", l->p.phase,
				  "attention", "full", "loss",
				  isfinite(sum) ? json_real(sum / (double)count) :
						  json_null(),
				  "tokens", (json_int_t)count, "reason", reason));
	return 0;
}

/* ---- phases ---------------------------------------------------------------- */

/* Steps over all phases as planned from here; -1 when one is open. */
static int64_t plan_total(const struct loop *l)
{
	int64_t total = l->p.phase_step;

	for (int i = l->p.phase; i < l->job->phase_count; i++) {
		int64_t n = lh_jobfile_phase_steps(l->job, i);

		if (n < 0)
			return -1;
		total += n;
	}
	return total;
}

static int enter_phase(struct loop *l, int phase, const char *reason, int64_t command,
		       struct lh_err *err)
{
	struct lh_err why;
	int rc;

	post_state(l, "switching", reason, command);
	if (l->saved_step != l->p.step)
		begin_save(l, "switch", &why);
	rc = evaluate(l, "before_switch", err);
	if (rc)
		return rc;
	l->p.phase = phase;
	l->p.phase_step = l->p.step;
	l->p.phase_tokens = 0;
	l->p.phase_ms = 0;
	l->p.total_steps = plan_total(l);
	lh_watch_forget(&l->p.watch);
	post(l, "phase", json_pack("{s:i, s:s, s:s, s:I}", "phase", phase, "name",
				   l->job->phases[phase].name, "reason", reason,
				   "command", (json_int_t)command));
	post_state(l, l->paused ? "paused" : "running", reason, command);
	return 0;
}

static bool phase_is_over(const struct loop *l)
{
	const struct lh_job_until *u = &l->job->phases[l->p.phase].until;

	return (u->steps && l->p.step - l->p.phase_step >= u->steps) ||
	       (u->tokens && l->p.phase_tokens >= u->tokens) ||
	       (u->minutes > 0 && l->p.phase_ms >= u->minutes * 60000);
}

/* ---- commands -------------------------------------------------------------- */

static void resolve(struct loop *l, int64_t id, const struct lh_err *err,
		    const char *text)
{
	post(l, "command",
	     json_pack("{s:I, s:s, s:o, s:o}", "command", (json_int_t)id, "outcome",
		       err->code ? "refused" : "applied", "text",
		       text_json(err->code ? err->text : text), "hint",
		       text_json(err->code ? err->hint : "")));
}

/* A failure of `rc` is the job's; a refusal is in `no`. */
static int do_switch(struct loop *l, int64_t id, const json_t *args, char *text,
		     size_t text_bytes, struct lh_err *no, struct lh_err *err)
{
	const char *name = json_string_value(json_object_get(args, "phase"));
	int phase = l->p.phase + 1, rc;

	if (name && lh_jobfile_find_phase(l->job, name, &phase, no))
		return 0;
	if (phase >= l->job->phase_count) {
		lh_err_set(no, LH_ESTATE, "phase '%s' is the last one",
			   l->job->phases[l->p.phase].name);
		lh_err_hint(no, "name the phase to go back to");
		return 0;
	}
	if (phase == l->p.phase) {
		lh_err_set(no, LH_ESTATE, "the job is in phase '%s' already",
			   l->job->phases[phase].name);
		return 0;
	}
	rc = enter_phase(l, phase, "by command", id, err);
	snprintf(text, text_bytes, "in phase '%s' from step %" PRId64,
		 l->job->phases[phase].name, l->p.step + 1);
	return rc;
}

static void pause_here(struct loop *l, const char *reason, int64_t command)
{
	struct lh_err why;

	/* It may last, and the machine may not. */
	save(l, "pause", &why);
	l->paused = true;
	post_state(l, "paused", reason, command);
}

static void set_paused(struct loop *l, bool paused, int64_t id, struct lh_err *no)
{
	if (l->paused == paused) {
		lh_err_set(no, LH_ESTATE, "the job is %s",
			   paused ? "paused already" : "not paused");
	} else if (paused) {
		pause_here(l, "by command", id);
	} else {
		l->paused = false;
		post_state(l, "running", "by command", id);
	}
}

/* Also where there is one already: the new one proves that the disk takes it. */
static void save_by_command(struct loop *l, struct lh_err *no)
{
	if (!begin_save(l, "by command", no))
		take_save(l, true, no);
}

/* Applies a command here; 0, or the error that fails the job. */
static int apply(struct loop *l, int64_t id, const char *verb, const json_t *args,
		 bool replay, struct lh_err *err)
{
	struct lh_err no = LH_ERR_INIT;
	char text[128] = "";
	int rc = 0;

	if (!strcmp(verb, "switch")) {
		rc = do_switch(l, id, args, text, sizeof(text), &no, err);
	} else if (!strcmp(verb, "pause")) {
		set_paused(l, true, id, &no);
		snprintf(text, sizeof(text), "paused after step %" PRId64, l->p.step);
	} else if (!strcmp(verb, "resume")) {
		set_paused(l, false, id, &no);
		snprintf(text, sizeof(text), "going on after step %" PRId64, l->p.step);
	} else if (!strcmp(verb, "checkpoint")) {
		save_by_command(l, &no);
		snprintf(text, sizeof(text), "saved at step %" PRId64, l->p.step);
	} else if (!strcmp(verb, "cancel") || !strcmp(verb, "stop")) {
		l->ending = *verb == 'c' ? CANCELLED : STOPPED;
		snprintf(text, sizeof(text), "ended after step %" PRId64, l->p.step);
	} else {
		lh_err_set(&no, LH_EUNSUPPORTED, "this worker has no command '%s'", verb);
		lh_err_hint(&no, "it was started by another version of lighthouse");
	}
	if (!rc && !no.code)
		l->p.command = id;
	if (!rc && !replay)
		resolve(l, id, &no, text);
	return rc;
}

struct caller {
	struct loop *l;
	const json_t *call;
};

static int on_piece(void *arg, const char *text)
{
	const struct caller *c = arg;

	lh_link_beat(c->l->link);
	return !lh_link_answer_take(c->l->link, c->call,
				    json_pack("{s:s, s:s}", "m", "piece", "text", text));
}

static void answer_call(struct loop *l, const json_t *m)
{
	const char *method = json_string_value(json_object_get(m, "method"));
	struct caller c = { l, m };
	struct lh_err err = LH_ERR_INIT;
	struct lh_sample_args args;
	json_t *reply, *result = NULL;
	int rc;

	status(l, "sampling");
	if (!method || strcmp(method, "sample"))
		rc = lh_err_set(&err, LH_EUNSUPPORTED, "this worker has no such call");
	else
		rc = lh_sample_parse(&args, json_object_get(m, "args"), &err);
	if (!rc)
		rc = lh_sample_run(l->model, l->job->model.vocab, l->p.step, &args,
				   on_piece, &c, &result, &err);
	if (!rc)
		reply = json_pack("{s:s, s:o}", "m", "reply", "result", result);
	else
		reply = json_pack("{s:s, s:{s:s, s:o, s:o}}", "m", "reply", "error", "code",
				  lh_err_name(rc), "text", text_json(err.text), "hint",
				  text_json(err.hint));
	lh_link_answer_take(l->link, m, reply);
}

static int on_message(struct loop *l, const json_t *m, struct lh_err *err)
{
	const char *name = json_string_value(json_object_get(m, "m"));
	const char *verb = json_string_value(json_object_get(m, "verb"));
	const char *text = json_string_value(json_object_get(m, "text"));

	if (!strcmp(name, "call"))
		answer_call(l, m);
	else if (!strcmp(name, "refuse"))
		return lh_err_set(err, LH_EPROTO, "lhd does not want this worker: %s",
				  text ? text : "it does not say why");
	else if (verb)
		return apply(l, json_integer_value(json_object_get(m, "id")), verb,
			     json_object_get(m, "args"), false, err);
	return 0;
}

/* Commands that earlier attempts applied at this step, less those that this
 * checkpoint has in it. Only what steers training: pauses are over, and an end
 * that was reached would not have been resumed. The list is in the order of ids,
 * not of steps: a later command may have come to an earlier step of a run that
 * had gone back. */
static int replay_here(struct loop *l, struct lh_err *err)
{
	const json_t *r;
	size_t i;
	int rc = 0;

	json_array_foreach (l->c->replay, i, r) {
		int64_t id = json_integer_value(json_object_get(r, "id"));
		int64_t step = json_integer_value(json_object_get(r, "step"));
		const char *verb = json_string_value(json_object_get(r, "verb"));

		if (!rc && step == l->p.step && id > l->p.command && verb &&
		    !strcmp(verb, "switch"))
			rc = apply(l, id, verb, json_object_get(r, "args"), true, err);
	}
	return rc;
}

/* ---- a step ---------------------------------------------------------------- */

/* A step that is not sane: nothing of it is applied, its data are passed over. */
static int refuse_step(struct loop *l, enum lh_cause cause, double loss, double norm,
		       double z, struct lh_err *err)
{
	static const char *const done[] = { "", "its data are passed over",
					    "its data are passed over and the learning "
					    "rate is halved", "its data are passed over; "
					    "paused" };
	const struct lh_job_instability *c = &l->job->instability;
	struct lh_watch *w = &l->p.watch;
	int64_t times = 0;
	char text[300];

	w->times[cause]++;
	for (int i = 0; i < LH_CAUSES; i++)
		times += w->times[i];
	if (c->action == LH_INSTABILITY_STOP || times > c->limit) {
		lh_err_set(err, cause == LH_CAUSE_NONFINITE ? LH_ENONFINITE : LH_EUNSTABLE,
			   "%s (loss %g, gradient norm %g, %.1f deviations) for the %"
			   PRId64 ". time; nothing was applied", lh_cause_name(cause),
			   loss, norm, z, times);
		return lh_err_hint(err, "a lower lr, a longer warm-up, clip, or "
				   "instability: { action: skip }");
	}
	l->p.cursor += l->job->batch.sequences;
	l->saved_step = -1; /* a checkpoint of this step has not passed over them */
	if (c->action == LH_INSTABILITY_LOWER_LR)
		w->lr_scale /= 2;
	snprintf(text, sizeof(text), "step %" PRId64 " met %s (loss %g, gradient norm %g, "
		 "%.1f deviations), %" PRId64 " of %" PRId64 " times: nothing was applied, %s",
		 l->p.step + 1, lh_cause_name(cause), loss, norm, z, times, c->limit,
		 done[c->action]);
	post_warning(l, text);
	if (c->action == LH_INSTABILITY_PAUSE)
		pause_here(l, lh_cause_name(cause), 0);
	return 0;
}

static int train_step(struct loop *l, struct lh_err *err)
{
	const struct lh_job *job = l->job;
	const struct lh_job_phase *phase = &job->phases[l->p.phase];
	int64_t T = job->data.seq_len, n = job->batch.sequences, tokens = n * T;
	double lr = l->p.watch.lr_scale * lh_optim_lr(&job->optimizer, phase->lr_factor,
						      l->p.step, l->p.total_steps);
	struct lh_adamw opt = {
		.lr = (float)lr, .beta1 = (float)job->optimizer.beta1,
		.beta2 = (float)job->optimizer.beta2, .eps = (float)job->optimizer.eps,
		.weight_decay = (float)job->optimizer.weight_decay,
		.clip = (float)job->optimizer.clip, .grad_scale = 1,
		.step = l->p.step + 1 };
	int64_t epoch = l->p.cursor / lh_data_windows(&l->data);
	int64_t start_us = lh_clock_us();
	enum lh_cause cause;
	float loss, norm;
	double ms, z;
	int rc = 0;

	lh_model_zero_grad(l->model);
	for (int64_t i = 0; i < n; i += l->micro) {
		int b = n - i < l->micro ? (int)(n - i) : l->micro;

		for (int s = 0; !rc && s < b; s++)
			rc = lh_data_train(&l->data, l->p.cursor + i + s,
					   l->tokens + s * T, l->targets + s * T, err);
		if (rc)
			return rc;
		lh_model_forward_backward(l->model, &l->modes[l->p.phase], b, l->tokens,
					  l->targets, 1 / (float)tokens);
		lh_link_beat(l->link);
	}
	rc = lh_model_measure(l->model, &loss, &norm, err);
	if (rc)
		return rc;
	cause = lh_watch_judge(&l->p.watch, &job->instability, loss, norm, &z);
	if (cause)
		return refuse_step(l, cause, loss, norm, z, err);
	lh_watch_accept(&l->p.watch, loss, norm);
	lh_model_apply(l->model, &opt);
	ms = (double)(lh_clock_us() - start_us) / 1000;
	l->p.step++;
	l->p.command = 0;
	l->p.cursor += n;
	l->p.phase_tokens += tokens;
	l->p.phase_ms += ms;
	post(l, "step", json_pack("{s:i, s:f, s:f, s:f, s:I, s:f, s:f, s:I}", "phase",
				  l->p.phase, "loss", (double)loss, "grad_norm",
				  (double)norm, "lr", lr, "tokens", (json_int_t)tokens,
				  "step_ms", ms, "tokens_per_s",
				  (double)tokens / ms * 1000, "data_epoch",
				  (json_int_t)epoch));
	return 0;
}

/* What is owed after a step. */
static int after_step(struct loop *l, struct lh_err *err)
{
	int64_t every = l->job->evaluation.every_steps;

	/* The first step of a phase that was switched to. */
	if (l->p.step == l->p.phase_step + 1 && (l->p.phase_step || l->p.phase))
		return evaluate(l, "after_switch", err);
	return every && l->p.step % every == 0 ? evaluate(l, "interval", err) : 0;
}

/* Everything between two steps; see loop.h for the order. */
static int boundary(struct loop *l, struct lh_err *err)
{
	int64_t every = l->job->checkpoint.every_steps;
	struct lh_err why;
	json_t *m;
	int rc;

	if (every && l->p.step % every == 0 && l->p.step && l->saved_step != l->p.step)
		begin_save(l, "interval", &why);
	take_save(l, false, &why);
	rc = replay_here(l, err);
	while (!rc && !l->ending &&
	       ((m = lh_link_take(l->link, l->paused ? PAUSE_POLL_MS : 0)) || l->paused)) {
		if (m)
			rc = on_message(l, m, err);
		json_decref(m);
		if (*l->c->stop)
			break;
		status(l, l->paused ? "paused" : "training");
	}
	if (*l->c->stop && !l->ending)
		l->ending = STOPPED;
	if (rc || l->ending || !phase_is_over(l))
		return rc;
	if (l->p.phase + 1 < l->job->phase_count)
		return enter_phase(l, l->p.phase + 1, "the phase's own limit", 0, err);
	l->ending = DONE;
	return 0;
}

/* ---- start and end --------------------------------------------------------- */

static void on_damaged(void *arg, const char *path, const struct lh_err *why)
{
	struct loop *l = arg;
	char *text = lh_asprintf("checkpoint '%s' is damaged and passed over: %s", path,
				 why->text);

	post_warning(l, text);
	free(text);
}

static int restore(struct loop *l, struct lh_err *err)
{
	char *path = NULL;
	int rc = lh_checkpoint_load_newest(l->c->checkpoints, l->model, &l->p, &path,
					   on_damaged, l, err);

	if (!rc) {
		l->saved_step = l->p.step;
		lh_info("resuming from '%s'", path);
		free(path);
		if (l->p.phase >= l->job->phase_count)
			return lh_err_set(err, LH_ECORRUPT, "the checkpoint is in phase %d, "
					  "the job has %d", l->p.phase,
					  l->job->phase_count);
		l->p.attempt = l->c->attempt;
		return 0;
	}
	if (rc != LH_ENOTFOUND)
		return rc;
	l->p = (struct lh_progress){ .attempt = l->c->attempt };
	lh_watch_init(&l->p.watch);
	l->p.total_steps = plan_total(l);
	lh_model_init(l->model, (uint64_t)l->job->seed);
	return 0;
}

/* Its own entry must last, or all that is synced in it is lost with it. */
static int make_checkpoints_dir(const char *dir, struct lh_err *err)
{
	char *parent = lh_asprintf("%s/..", dir);
	int rc = lh_fs_mkdirs(dir, err);

	if (!rc)
		rc = lh_fs_sync_dir(parent, err);
	free(parent);
	return rc;
}

/* What each phase computes again, so that all of them fit. */
static int choose_memory(struct loop *l, struct lh_err *err)
{
	const struct lh_ops *ops = l->c->ops;
	int64_t memory = ops->free_bytes(l->dev) + (int64_t)ops->sizes->open_bytes;
	struct lh_estimate e;
	int rc = lh_estimate_job(&e, l->job, ops->sizes, NULL, memory, err);

	for (int i = 0; !rc && i < l->job->phase_count; i++) {
		l->modes[i].recompute = e.phase[i].recompute;
		post_plan(l, l->job->phases[i].name, &e.phase[i]);
	}
	return rc;
}

static int open_saver(struct loop *l, struct lh_err *err)
{
	struct lh_saver_config c = { .ops = l->c->ops, .dev = l->dev, .model = l->model,
				     .dir = l->c->checkpoints, .spec = l->c->spec,
				     .keep = l->job->checkpoint.keep,
				     .keep_every = l->job->checkpoint.keep_every };

	return lh_saver_new(&l->saver, &c, err);
}

static int open_all(struct loop *l, struct lh_err *err)
{
	const struct lh_job *job = l->job;
	int64_t T = job->data.seq_len;
	int rc;

	l->micro = (int)(job->batch.micro_sequences ? job->batch.micro_sequences :
						      job->batch.sequences);
	for (int i = 0; i < job->phase_count; i++)
		lh_attention_mode_of(&l->modes[i], job, i);
	rc = make_checkpoints_dir(l->c->checkpoints, err);
	if (!rc)
		rc = l->c->ops->open(&l->dev, job->threads, err);
	/* Only time is lost without it. */
	if (!rc && l->c->cache && !lh_fs_mkdirs(l->c->cache, NULL))
		l->c->ops->cache(l->dev, l->c->cache);
	if (!rc)
		rc = lh_data_open(&l->data, job, err);
	if (!rc)
		rc = choose_memory(l, err);
	if (!rc)
		rc = lh_model_new(&l->model, l->c->ops, l->dev, &job->model, l->micro, T,
				  l->modes, job->phase_count, err);
	if (rc)
		return rc;
	lh_info("%s; %" PRId64 " parameters", l->c->ops->describe(l->dev),
		lh_model_param_count(l->model));
	rc = lh_model_prepare(l->model, l->modes, job->phase_count, err);
	if (!rc)
		rc = open_saver(l, err);
	if (rc)
		return rc;
	l->tokens = lh_calloc((size_t)(l->micro * T), sizeof(*l->tokens));
	l->targets = lh_calloc((size_t)(l->micro * T), sizeof(*l->targets));
	rc = restore(l, err);
	if (rc)
		return rc;
	post_state(l, l->paused ? "paused" : "running",
		   l->p.step ? "resumed from a checkpoint" : "started", 0);
	return l->p.step || l->saved_step >= 0 ? 0 : evaluate(l, "start", err);
}

static void close_all(struct loop *l)
{
	free(l->tokens);
	free(l->targets);
	lh_saver_free(l->saver);
	lh_model_free(l->model);
	lh_data_close(&l->data);
	l->c->ops->close(l->dev);
}

/* The last checkpoint of a job that did not fail. One that is done is nothing
 * without it and waits, paused; one that was told to end has those before. */
static bool save_the_end(struct loop *l)
{
	struct lh_err why;

	if (!save(l, "end", &why) || l->ending != DONE)
		return true;
	l->ending = GOING;
	l->paused = true;
	post_state(l, "paused", "the last checkpoint cannot be written; resume tries "
		   "again", 0);
	return false;
}

static int finish(struct loop *l, struct lh_err *err)
{
	post_state(l, "stopping", ending_names[l->ending], 0);
	return l->ending == DONE ? evaluate(l, "end", err) : 0;
}

int lh_loop_run(const struct lh_loop_config *config, struct lh_err *err)
{
	struct loop l = { .c = config, .job = config->job, .link = config->link,
			  .saved_step = -1, .paused = config->paused };
	int64_t step;
	int rc = open_all(&l, err);

	while (!rc) {
		rc = boundary(&l, err);
		if (rc || (l.ending && save_the_end(&l)))
			break;
		if (l.paused)
			continue;
		status(&l, "training");
		step = l.p.step;
		rc = train_step(&l, err);
		if (rc)
			lh_err_prefix(err, "step %" PRId64, step + 1);
		else if (l.p.step > step)
			rc = after_step(&l, err);
	}
	if (!rc)
		rc = finish(&l, err);
	if (rc) {
		l.ending = FAILED;
		lh_log_err(LH_LOG_ERROR, "the job failed", err);
	}
	post(&l, "end", json_pack("{s:s, s:s, s:o, s:o}", "outcome",
				  ending_names[l.ending], "code",
				  rc ? lh_err_name(rc) : "", "text",
				  text_json(rc ? err->text : ""), "hint",
				  text_json(rc ? err->hint : "")));
	close_all(&l);
	return rc;
}

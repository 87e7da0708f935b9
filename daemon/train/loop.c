/* loop.c: see loop.h.
 *
 *   open -> [evaluation] -> boundary -> step -> [evaluation] -> boundary -> ... -> end
 *
 * The loop's state is struct lh_progress plus the model; both are in every
 * checkpoint. Outcomes: done, cancelled, stopped, failed, rewound. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"
#include "jobs/jobfile.h"
#include "lighthouse/proto.h"
#include "train/checkpoint.h"
#include "train/optim.h"

static const char *const ending_names[] = { "", "done", "cancelled", "stopped",
					    "failed", "rewound", "held" };
enum { PAUSE_POLL_MS = 200 };

/* ---- records --------------------------------------------------------------- */

void lh_loop_post_take(struct lh_loop *l, const char *kind, json_t *fields)
{
	LH_ASSERT(fields);
	json_object_set_new(fields, "t", json_string(kind));
	json_object_set_new(fields, "step", json_integer(l->p.step));
	lh_link_post_take(l->link, fields);
}

/* Paths and messages may hold any bytes, JSON holds UTF-8. */
json_t *lh_loop_text_json(const char *text)
{
	char safe[4 * sizeof(((struct lh_err *)0)->text)];
	json_t *s = json_string(text);

	return s ? s : json_string(lh_escape(safe, sizeof(safe), text));
}

void lh_loop_tell(struct lh_loop *l, const char *level, const char *fmt, ...)
{
	char *text;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	LH_ASSERT(n >= 0);
	lh_log(*level == 'w' ? LH_LOG_WARN : LH_LOG_INFO, "%s", text);
	lh_loop_post_take(l, "event", json_pack("{s:s, s:o}", "level", level, "text",
						lh_loop_text_json(text)));
	free(text);
}

static void post_plan(struct lh_loop *l, const char *phase,
		      const struct lh_estimate_phase *p, bool known)
{
	const struct lh_layout_bytes *b = &p->bytes;
	char time[40] = "";

	if (known)
		snprintf(time, sizeof(time), ", %.3g s a step", p->step_s);
	lh_loop_tell(l, "info", "phase '%.60s': recompute %s, %.2f GiB (state %.2f, "
		     "kept %.2f, scratch %.2f, logits %.2f, device %.2f)%s", phase,
		     lh_recompute_name(p->recompute), (double)b->total / (1 << 30),
		     (double)b->state / (1 << 30), (double)b->kept / (1 << 30),
		     (double)b->scratch / (1 << 30), (double)b->loss / (1 << 30),
		     (double)b->device / (1 << 30), time);
}

void lh_loop_status(struct lh_loop *l, const char *doing)
{
	lh_link_status(l->link, l->p.step, l->p.phase, l->paused ? "paused" : "running",
		       doing);
}

void lh_loop_post_state(struct lh_loop *l, const char *state, const char *reason,
		       int64_t command)
{
	lh_loop_post_take(l, "state", json_pack("{s:s, s:o, s:I}", "state", state, "reason",
				   lh_loop_text_json(reason), "command",
				   (json_int_t)command));
}

void lh_loop_post_settings(struct lh_loop *l)
{
	lh_loop_post_take(l, "settings", json_pack("{s:o}", "settings",
						   lh_settings_to_json(&l->p.settings)));
}

/* ---- phases ---------------------------------------------------------------- */

int64_t lh_loop_plan_total(const struct lh_loop *l)
{
	int64_t total = l->p.phase_step;

	for (int i = l->p.phase; i < l->job->phase_count; i++) {
		int64_t n = lh_settings_phase_steps(&l->p.settings, l->job, i);

		if (n < 0)
			return -1;
		total += n;
	}
	return total;
}

bool lh_loop_phase_is_over(const struct lh_loop *l)
{
	struct lh_job_until u = lh_settings_until(&l->p.settings, l->job, l->p.phase);

	if (l->p.held) /* its switch was taken back */
		return false;
	return (u.steps && l->p.step - l->p.phase_step >= u.steps) ||
	       (u.tokens && l->p.phase_tokens >= u.tokens) ||
	       (u.minutes > 0 && l->p.phase_ms >= u.minutes * 60000);
}

/* ---- a step ---------------------------------------------------------------- */

/* A step that could not be computed, e.g. for lack of memory. */
static int failed_step(struct lh_loop *l, struct lh_err *err)
{
	struct lh_err why = *err;

	if (!l->p.trial)
		return err->code;
	return lh_rewind_switch(l, why.text, err);
}

static int measure(struct lh_loop *l, float *loss, float *norm, struct lh_err *err)
{
	int rc = lh_model_measure(l->model, loss, norm, err);

	if (LH_SPOILS("loss.nan"))
		*loss = NAN;
	if (LH_SPOILS("norm.infinite"))
		*norm = INFINITY;
	if (LH_SPOILS("norm.spike"))
		*norm *= 1000;
	if (LH_SPOILS("step.memory"))
		rc = lh_err_set(err, LH_ETOOBIG, "no memory is left, says a test");
	return rc;
}

static bool is_above_ceiling(const struct lh_loop *l, double loss)
{
	double ceiling = l->job->switching.loss_ceiling;

	return l->p.trial && ceiling > 0 && loss > ceiling;
}

/* Of the step that comes. */
static double learning_rate(const struct lh_loop *l)
{
	const struct lh_settings *s = &l->p.settings;

	return l->p.watch.lr_scale * lh_optim_lr(&l->job->optimizer, s->lr,
						 s->lr_factor[l->p.phase], l->p.step,
						 l->p.total_steps);
}

static int train_step(struct lh_loop *l, struct lh_err *err)
{
	const struct lh_job *job = l->job;
	int64_t T = job->data.seq_len, n = job->batch.sequences, tokens = n * T;
	double lr = learning_rate(l);
	struct lh_adamw opt = {
		.lr = (float)lr, .beta1 = (float)job->optimizer.beta1,
		.beta2 = (float)job->optimizer.beta2, .eps = (float)job->optimizer.eps,
		.weight_decay = (float)l->p.settings.weight_decay,
		.clip = (float)l->p.settings.clip, .grad_scale = 1,
		.step = l->p.step + 1 };
	int64_t epoch = lh_data_epoch(&l->data, l->p.cursor);
	int64_t start_us = lh_clock_us();
	enum lh_cause cause;
	float loss, norm;
	double ms, z;
	char text[128];
	int rc = 0;

	lh_model_zero_grad(l->model);
	for (int64_t i = 0; i < n; i += l->micro) {
		int b = n - i < l->micro ? (int)(n - i) : l->micro;

		LH_FAILPOINT("step.micro");
		if (i && lh_loop_is_told(l))
			return 0; /* nothing was applied: it comes again */
		for (int s = 0; !rc && s < b; s++)
			rc = lh_data_train(&l->data, l->p.cursor + i + s,
					   l->tokens + s * T, l->targets + s * T, err);
		if (rc)
			return rc;
		lh_model_forward_backward(l->model, &l->modes[l->p.phase], b, l->tokens,
					  l->targets, 1 / (float)tokens);
		lh_link_beat(l->link);
		if (lh_loop_is_called_off(l))
			return 0;
	}
	rc = measure(l, &loss, &norm, err);
	if (rc)
		return failed_step(l, err);
	cause = lh_watch_judge(&l->p.watch, &job->instability, job->model.vocab, loss, norm,
			       &z);
	if (cause)
		return lh_loop_refuse_step(l, cause, loss, norm, z, err);
	if (is_above_ceiling(l, loss)) {
		snprintf(text, sizeof(text), "loss %.4f at step %" PRId64 " is above "
			 "switch.loss_ceiling %g", loss, l->p.step + 1,
			 job->switching.loss_ceiling);
		return lh_rewind_switch(l, text, err);
	}
	lh_watch_accept(&l->p.watch, loss, norm);
	LH_FAILPOINT("step.measured");
	if (l->p.trial)
		LH_FAILPOINT("trial.step");
	lh_model_apply(l->model, &opt);
	LH_FAILPOINT("step.applied");
	ms = (double)(lh_clock_us() - start_us) / 1000;
	l->p.step++;
	l->p.command = 0;
	l->p.cursor += n;
	l->p.phase_tokens += tokens;
	l->p.phase_ms += ms;
	l->trained_ms += ms;
	lh_loop_post_take(l, "step", json_pack("{s:i, s:f, s:f, s:f, s:I, s:f, s:f, s:I}", "phase",
				  l->p.phase, "loss", (double)loss, "grad_norm",
				  (double)norm, "lr", lr, "tokens", (json_int_t)tokens,
				  "step_ms", ms, "tokens_per_s",
				  (double)tokens / ms * 1000, "data_epoch",
				  (json_int_t)epoch));
	LH_FAILPOINT("step.posted");
	lh_rewind_watch(l, loss);
	return 0;
}

bool lh_loop_is_told(const struct lh_loop *l)
{
	return *l->c->stop || lh_link_is_ending(l->link);
}

/* A phase has come to its own end. If the next one cannot be entered somebody is to
 * see to it: the job pauses, and tries again when it is resumed. */
static void enter_next(struct lh_loop *l)
{
	const struct lh_switch s = { .phase = l->p.phase + 1,
				     .reason = "the phase's own limit" };
	struct lh_err no = LH_ERR_INIT;
	char text[sizeof(no.text) + sizeof(no.hint) + 16];

	if (!lh_loop_switch(l, &s, &no))
		return;
	snprintf(text, sizeof(text), "%s%s%s%s", no.text, *no.hint ? " (hint: " : "", no.hint,
		 *no.hint ? ")" : "");
	lh_loop_tell(l, "warn", "%s", text);
	lh_loop_pause(l, text, 0);
}

/* Everything between two steps; see loop.h for the order. */
static int boundary(struct lh_loop *l, struct lh_err *err)
{
	int64_t every = l->p.settings.checkpoint_every_steps;
	struct lh_err why;
	json_t *m;
	int rc = 0;

	if (every && l->p.step % every == 0 && l->p.step && l->saved_step != l->p.step)
		lh_loop_begin_save(l, "interval", &why);
	lh_loop_take_save(l, false, &why);
	lh_loop_replay(l);
	while (!rc && !l->ending &&
	       ((m = lh_loop_next_message(l, l->paused ? PAUSE_POLL_MS : 0)) || l->paused)) {
		if (m)
			rc = lh_loop_on_message(l, m, err);
		json_decref(m);
		if (*l->c->stop)
			break;
		lh_loop_status(l, l->paused ? "paused" : "training");
	}
	if (*l->c->stop && !l->ending)
		l->ending = LH_END_STOPPED;
	if (rc || l->ending || !lh_loop_phase_is_over(l))
		return rc;
	if (l->p.phase + 1 == l->job->phase_count)
		l->ending = LH_END_DONE;
	else
		enter_next(l);
	return 0;
}

/* ---- start and end --------------------------------------------------------- */

static void on_damaged(void *loop, const char *path, const struct lh_err *why)
{
	lh_loop_tell(loop, "warn", "checkpoint '%s' cannot be used: %s", path, why->text);
}

int lh_loop_load(struct lh_loop *l, int64_t up_to, struct lh_progress *p, char **path,
		 struct lh_err *err)
{
	int rc = lh_checkpoint_load_newest(l->c->checkpoints, up_to, l->model, p, path,
					   on_damaged, l, err);

	if (!rc && p->settings.phases != l->job->phase_count)
		lh_settings_of_job(&p->settings, l->job);
	return rc;
}

/* Gradients of a step are summed over its micro-batches, in their order. */
static void tell_of_micro(struct lh_loop *l, json_t *manifest)
{
	json_int_t was = 0, all = 0;

	json_unpack(manifest, "{s:{s:{s:I, s:I}}}", "job", "batch", "micro_sequences", &was,
		    "sequences", &all);
	was = was ? was : all;
	if (was && was != l->micro)
		lh_loop_tell(l, "info", "micro-batches of %d sequences, of %d before: losses "
			     "are equal in exact arithmetic, not bit for bit", l->micro,
			     (int)was);
}

/* With what wrote the checkpoint that this attempt goes on from. */
static int compare(struct lh_loop *l, const char *path, struct lh_err *err)
{
	json_t *manifest = NULL;
	int rc = lh_manifest_read(path, &manifest, err);

	if (rc)
		return lh_err_prefix(err, "checkpoint '%s'", path);
	tell_of_micro(l, manifest);
	lh_loop_compare_origin(l, manifest);
	json_decref(manifest);
	return 0;
}

/* The weights of a checkpoint; all else of the model is as at any start. */
static int start_from(struct lh_loop *l, struct lh_err *err)
{
	const char *from = l->job->model.from;
	struct lh_progress theirs;
	int rc = lh_checkpoint_load(from, l->model, &theirs, false, err);

	if (rc) {
		lh_err_prefix(err, "model.from");
		return lh_err_hint(err, "'lhctl verify' says what is wrong with it");
	}
	lh_loop_tell(l, "info", "started from the weights of '%s', step %" PRId64, from,
		     theirs.step);
	return 0;
}

static int begin_anew(struct lh_loop *l, struct lh_err *err)
{
	if (l->c->saved) {
		l->ending = LH_END_HELD;
		lh_err_set(err, LH_ENOTFOUND, "the checkpoints of this job are gone from '%s'",
			   l->c->checkpoints);
		return lh_err_hint(err, "bring them back, e.g. mount their disk, and resume; or "
				   "cancel it and submit it again to start over");
	}
	l->p = (struct lh_progress){ .attempt = l->c->attempt };
	lh_watch_init(&l->p.watch);
	lh_settings_of_job(&l->p.settings, l->job);
	l->p.total_steps = lh_loop_plan_total(l);
	lh_model_init(l->model, (uint64_t)l->job->seed);
	return *l->job->model.from ? start_from(l, err) : 0;
}

/* From the newest good checkpoint of `last` or before. Without a usable one the job is
 * held, unless there never was one. */
static int load(struct lh_loop *l, int64_t last, struct lh_err *err)
{
	char *path = NULL;
	int rc = lh_loop_load(l, last, &l->p, &path, err);

	if (rc == LH_ENOTFOUND)
		return begin_anew(l, err);
	if (!rc) {
		lh_info("resuming from '%s'", path);
		rc = compare(l, path, err);
		free(path);
	}
	if (rc) {
		l->ending = LH_END_HELD;
		return rc;
	}
	l->saved_step = l->p.step;
	if (l->p.phase >= l->job->phase_count)
		return lh_err_set(err, LH_ECORRUPT, "the checkpoint is in phase %d, the job "
				  "has %d", l->p.phase, l->job->phase_count);
	l->p.attempt = l->c->attempt;
	return 0;
}

/* What was there when the last worker ended, or before a switch that failed. */
static int restore(struct lh_loop *l, struct lh_err *err)
{
	bool back = lh_rewind_is_due(l);
	int rc = load(l, back ? l->trial.step : INT64_MAX, err);

	if (rc)
		return rc;
	if (back)
		return lh_rewind_take_back(l, err);
	lh_rewind_go_on(l);
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
static int choose_memory(struct lh_loop *l, struct lh_err *err)
{
	const struct lh_ops *ops = l->c->ops;
	int64_t memory = ops->free_bytes(l->dev) + (int64_t)ops->sizes->open_bytes;
	struct lh_estimate *e = &l->plan;
	const struct lh_chip *chip = NULL;
	struct lh_device_info info;
	int rc = ops->probe(&info, err);

	if (!rc) {
		chip = lh_chip_of_device(info.name);
		rc = lh_estimate_job(e, l->job, ops->sizes, chip ? chip : &lh_chip_unknown,
				     memory, err);
	}
	for (int i = 0; !rc && i < l->job->phase_count; i++) {
		l->modes[i].recompute = e->phase[i].recompute;
		post_plan(l, l->job->phases[i].name, &e->phase[i], chip != NULL);
	}
	return rc;
}

/* In the saver's thread. */
static void on_save_moved(void *arg)
{
	lh_link_beat(arg);
}

static int open_saver(struct lh_loop *l, struct lh_err *err)
{
	struct lh_saver_config c = { .ops = l->c->ops, .dev = l->dev, .model = l->model,
				     .dir = l->c->checkpoints, .spec = l->c->spec,
				     .origin = l->origin, .link = l->link,
				     .keep = l->job->checkpoint.keep,
				     .keep_every = l->job->checkpoint.keep_every,
				     .moved = on_save_moved, .moved_arg = l->link };

	return lh_saver_new(&l->saver, &c, err);
}

static int open_device(struct lh_loop *l, struct lh_err *err)
{
	int rc = make_checkpoints_dir(l->c->checkpoints, err);

	if (!rc)
		rc = l->c->ops->open(&l->dev, l->job->threads, err);
	if (!rc && l->job->deterministic)
		l->c->ops->set_deterministic(l->dev);
	/* Only time is lost without it. */
	if (!rc && l->c->cache && !lh_fs_mkdirs(l->c->cache, NULL))
		l->c->ops->cache(l->dev, l->c->cache);
	if (!rc)
		rc = lh_data_open(&l->data, l->job, err);
	/* Now: later the text names the engines that were planned so far. */
	if (!rc)
		l->origin = lh_origin_of(l->job, &l->data, l->c->ops->describe(l->dev));
	return rc;
}

static int open_model(struct lh_loop *l, struct lh_err *err)
{
	const struct lh_job *job = l->job;
	int rc;

	l->micro = (int)(job->batch.micro_sequences ? job->batch.micro_sequences :
						      job->batch.sequences);
	for (int i = 0; i < job->phase_count; i++)
		lh_attention_mode_of(&l->modes[i], job, i);
	rc = choose_memory(l, err);
	if (!rc)
		rc = lh_model_new(&l->model, l->c->ops, l->dev, &job->model, l->micro,
				  job->data.seq_len, l->modes, job->phase_count, err);
	if (!rc)
		lh_info("%s; %" PRId64 " parameters", l->c->ops->describe(l->dev),
			lh_model_param_count(l->model));
	return rc;
}

/* Phase by phase: a library may compile for a minute. */
static int prepare(struct lh_loop *l, struct lh_err *err)
{
	int64_t evaluated = lh_loop_evaluated(l);
	int rc = 0;

	for (int i = 0; !rc && i < l->job->phase_count && !lh_loop_is_told(l); i++) {
		LH_FAILPOINT("prepare.phase");
		rc = lh_model_prepare(l->model, &l->modes[i], 1, l->job->batch.sequences,
				      evaluated, err);
		lh_link_beat(l->link);
	}
	return rc;
}

static int open_buffers(struct lh_loop *l, struct lh_err *err)
{
	size_t count = (size_t)(l->micro * l->job->data.seq_len);

	l->tokens = lh_calloc(count, sizeof(*l->tokens));
	l->targets = lh_calloc(count, sizeof(*l->targets));
	l->row_loss = lh_calloc(count, sizeof(*l->row_loss));
	return open_saver(l, err);
}

/* Told to end while there is no state of training yet: what is on disk stays, and
 * commands without an outcome go to the next attempt. */
static int end_early(struct lh_loop *l, struct lh_err *err)
{
	const char *name, *verb;
	json_t *m;
	int rc = 0;

	l->ending = LH_END_STOPPED;
	while (!rc && (m = lh_link_take(l->link, 0))) {
		name = json_string_value(json_object_get(m, "m"));
		verb = json_string_value(json_object_get(m, "verb"));
		if (!strcmp(name, "refuse"))
			rc = lh_loop_on_message(l, m, err);
		else if (verb && !strcmp(verb, "cancel"))
			l->ending = LH_END_CANCELLED;
		json_decref(m);
	}
	return rc;
}

/* What a step depends on, or l->ending when the worker is told to end before. */
static int open_all(struct lh_loop *l, struct lh_err *err)
{
	static int (*const stages[])(struct lh_loop *l, struct lh_err *err) = {
		lh_loop_take_gpu, open_device, open_model, prepare, open_buffers, restore };

	for (size_t i = 0; i < sizeof(stages) / sizeof(*stages); i++) {
		int rc = stages[i](l, err);

		if (rc || l->ending)
			return rc;
		if (lh_loop_is_told(l))
			return end_early(l, err);
	}
	return 0;
}

static int begin(struct lh_loop *l, struct lh_err *err)
{
	bool resumed = l->saved_step >= 0;
	struct lh_err no;

	lh_loop_post_settings(l);
	lh_loop_post_state(l, l->paused ? "paused" : "running",
			   resumed ? "resumed from a checkpoint" : "started", 0);
	if (l->data_changed && !l->paused)
		lh_loop_pause(l, "the data are not those of its checkpoint", 0);
	/* Somewhere to go back to, from the first step on. */
	if (lh_loop_may_roll_back(l->job) && !resumed)
		lh_loop_begin_save(l, "start", &no);
	return resumed && !l->p.owed ? 0 : lh_loop_evaluate_step(l, err);
}

static void close_all(struct lh_loop *l)
{
	json_decref(l->waiting);
	free(l->trial_path);
	free(l->tokens);
	free(l->targets);
	free(l->row_loss);
	lh_selection_free(l->selection);
	lh_saver_free(l->saver);
	lh_model_free(l->model);
	lh_data_close(&l->data);
	json_decref(l->origin);
	l->c->ops->close(l->dev);
	lh_loop_give_back_gpu(l);
}

/* The last checkpoint of a job that did not fail. One that is done is nothing
 * without it and waits, paused; one that was told to end has those before. */
static bool save_the_end(struct lh_loop *l)
{
	struct lh_err why;

	if (!lh_loop_save(l, "end", &why) || l->ending != LH_END_DONE)
		return true;
	l->ending = LH_END_NOT;
	l->paused = true;
	lh_loop_post_state(l, "paused", "the last checkpoint cannot be written; resume tries "
		   "again", 0);
	return false;
}

static int finish(struct lh_loop *l, struct lh_err *err)
{
	int rc;

	lh_loop_post_state(l, "stopping", ending_names[l->ending], 0);
	LH_FAILPOINT("end.saved");
	if (l->ending != LH_END_DONE)
		return 0;
	rc = lh_loop_evaluate(l, "end", err);
	if (l->abandoned) /* the next attempt comes to this end again */
		l->ending = LH_END_STOPPED;
	return rc;
}

/* From the state that open_all left to the end. */
static int train(struct lh_loop *l, struct lh_err *err)
{
	int64_t step;
	int rc = begin(l, err);

	while (!rc && l->ending != LH_END_REWOUND) {
		rc = boundary(l, err);
		if (rc || (l->ending && save_the_end(l)))
			break;
		if (l->paused)
			continue;
		lh_loop_status(l, "training");
		step = l->p.step;
		rc = train_step(l, err);
		if (rc)
			lh_err_prefix(err, "step %" PRId64, step + 1);
		else if (l->p.step > step)
			rc = lh_loop_evaluate_step(l, err);
	}
	lh_rewind_end(l);
	return rc ? rc : finish(l, err);
}

int lh_loop_run(const struct lh_loop_config *config, struct lh_err *err)
{
	struct lh_loop l = { .c = config, .job = config->job, .link = config->link,
			  .gpu_lock = -1, .saved_step = -1, .paused = config->paused,
			  .waiting = json_array(),
			  .trial_path = lh_asprintf("%s/../" LH_JOB_TRIAL,
						    config->checkpoints) };
	int rc = open_all(&l, err);

	if (!rc && !l.ending)
		rc = train(&l, err);
	else
		lh_rewind_end(&l);
	if (rc) {
		l.ending = l.ending == LH_END_HELD ? LH_END_HELD : LH_END_FAILED;
		lh_log_err(LH_LOG_ERROR, l.ending == LH_END_HELD ? "the job is held" :
								   "the job failed", err);
	}
	lh_loop_post_take(&l, "end", json_pack("{s:s, s:i, s:s, s:o, s:o}", "outcome",
				  ending_names[l.ending], "phase", l.p.phase, "code",
				  rc ? lh_err_name(rc) : "", "text",
				  lh_loop_text_json(rc ? err->text : l.why), "hint",
				  lh_loop_text_json(rc ? err->hint : "")));
	LH_FAILPOINT("end.posted");
	close_all(&l);
	return rc;
}

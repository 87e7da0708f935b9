/* loop_open.c: what training depends on, from the device to the state that an earlier
 * attempt left; see loop_int.h.
 *
 * In stages, because each may take long and the worker may be told to end between two of
 * them. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/log.h"
#include "train/checkpoint.h"

static void on_damaged(void *loop, const char *path, const struct lh_err *why)
{
	lh_loop_tell(loop, "warn", "checkpoint '%s' cannot be used: %s", path, why->text);
}

int lh_loop_load(struct lh_loop *l, int64_t up_to, struct lh_progress *p, char **path,
		 struct lh_err *err)
{
	int rc = lh_checkpoint_load_newest(l->c->checkpoints, up_to, l->model, p, path,
					   on_damaged, l, err);

	if (!rc)
		lh_settings_complete(&p->settings, l->job);
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
	l->data.mix = l->p.settings.mix;
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
	if (!rc)
		rc = lh_loop_open_choices(l, err);
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
		rc = lh_model_new(&l->model, l->c->ops, l->dev, NULL, &job->model, l->micro,
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
				      evaluated,
				      l->job->data.documents == LH_DOCUMENTS_SEPARATE, err);
		lh_link_beat(l->link);
	}
	if (!rc && l->choices_count)
		rc = lh_model_prepare_short(l->model, lh_look_batch(l),
					    lh_loop_choices_tokens(l), err);
	return rc;
}

static int open_buffers(struct lh_loop *l, struct lh_err *err)
{
	size_t count = (size_t)(l->micro * l->job->data.seq_len);

	l->tokens = lh_calloc(count, sizeof(*l->tokens));
	l->targets = lh_calloc(count, sizeof(*l->targets));
	if (l->job->data.documents == LH_DOCUMENTS_SEPARATE)
		l->starts = lh_calloc(count, sizeof(*l->starts));
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

int lh_loop_open(struct lh_loop *l, struct lh_err *err)
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

void lh_loop_close(struct lh_loop *l)
{
	json_decref(l->waiting);
	free(l->trial_path);
	free(l->tokens);
	free(l->targets);
	free(l->starts);
	free(l->row_loss);
	lh_selection_free(l->selection);
	lh_saver_free(l->saver);
	lh_model_free(l->model);
	lh_data_close(&l->data);
	lh_loop_close_choices(l);
	json_decref(l->origin);
	l->c->ops->close(l->dev);
	lh_loop_give_back_gpu(l);
}

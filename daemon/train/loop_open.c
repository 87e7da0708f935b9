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
	int rc = lh_checkpoint_load_newest(l->c->checkpoints, up_to, l->team.model, p, path,
					   on_damaged, l, err);

	if (!rc && lh_team_load(&l->team, *path, true, err)) {
		rc = err->code = LH_EIO; /* this rank has it: there is no starting over */
		free(*path);
	}
	if (!rc)
		lh_settings_complete(&p->settings, l->job);
	return rc;
}

/* Gradients of a step are summed over its micro-batches and ranks, in their order. */
static void tell_of_sums(struct lh_loop *l, json_t *manifest)
{
	json_int_t was = 0, all = 0, ranks = 1, context = 1;

	json_unpack(manifest, "{s:{s:{s:I, s:I}}}", "job", "batch", "micro_sequences", &was,
		    "sequences", &all);
	json_unpack(manifest, "{s:{s:I}}", "job", "devices", &ranks);
	json_unpack(manifest, "{s:{s:I}}", "job", "context", &context);
	was = context > 1 ? 1 : was ? was : all / ranks;
	if (was && was != l->team.micro)
		lh_loop_tell(l, "info", "micro-batches of %d sequences, of %d before: losses "
			     "are equal in exact arithmetic, not bit for bit", l->team.micro,
			     (int)was);
	if (ranks != l->job->devices)
		lh_loop_tell(l, "info", "%d ranks, %d before: losses are equal in exact "
			     "arithmetic, not bit for bit", l->job->devices, (int)ranks);
	if (context != l->job->context)
		lh_loop_tell(l, "info", "sequences are shared by %d ranks, by %d before: losses "
			     "are equal in exact arithmetic, not bit for bit",
			     l->job->context, (int)context);
}

/* With what wrote the checkpoint that this attempt goes on from. */
static int compare(struct lh_loop *l, const char *path, struct lh_err *err)
{
	json_t *manifest = NULL;
	int rc = lh_manifest_read(path, &manifest, err);

	if (rc)
		return lh_err_prefix(err, "checkpoint '%s'", path);
	tell_of_sums(l, manifest);
	lh_loop_compare_origin(l, manifest);
	json_decref(manifest);
	return 0;
}

/* The weights of a checkpoint; all else of the model is as at any start. */
static int start_from(struct lh_loop *l, struct lh_err *err)
{
	const char *from = l->job->model.from;
	struct lh_progress theirs;
	int rc = lh_checkpoint_load(from, l->team.model, &theirs, false, err);

	if (!rc)
		rc = lh_team_load(&l->team, from, false, err);
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
	lh_team_init(&l->team, (uint64_t)l->job->seed);
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
	l->team.data.mix = l->p.settings.mix;
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
	int64_t memory = l->team.free_bytes + (int64_t)ops->sizes->open_bytes(
							l->job->devices, l->job->context);
	struct lh_estimate *e = &l->plan;
	const struct lh_chip *chip = NULL;
	struct lh_device_info info;
	int rc = ops->probe(0, &info, err);

	if (!rc && !*info.uuid) /* the host's, which ranks share */
		memory /= l->job->devices;
	if (!rc) {
		chip = lh_chip_of_device(info.name);
		rc = lh_estimate_job(e, l->job, ops->sizes, chip ? chip : &lh_chip_unknown,
				     memory, err);
	}
	for (int i = 0; !rc && i < l->job->phase_count; i++) {
		l->team.modes[i].recompute = e->phase[i].recompute;
		post_plan(l, l->job->phases[i].name, &e->phase[i], chip != NULL);
	}
	return rc;
}

/* In the saver's thread, too. */
static void on_save_moved(void *arg)
{
	lh_link_beat(arg);
}

static int open_saver(struct lh_loop *l, struct lh_err *err)
{
	struct lh_saver_config c = { .dir = l->c->checkpoints, .spec = l->c->spec,
				     .origin = l->origin, .link = l->link,
				     .keep = l->job->checkpoint.keep,
				     .keep_every = l->job->checkpoint.keep_every,
				     .moved = on_save_moved, .moved_arg = l->link };

	return lh_team_open_saver(&l->team, &c, err);
}

/* Opening the data may take minutes: documents that have no index are looked for. */
static bool on_scanned(void *loop)
{
	struct lh_loop *l = loop;

	LH_FAILPOINT("data.open");
	lh_loop_status(l, "reading");
	return !lh_loop_is_told(l);
}

static int open_device(struct lh_loop *l, struct lh_err *err)
{
	const struct lh_scan scan = { on_scanned, l };
	int rc = make_checkpoints_dir(l->c->checkpoints, err);

	/* Only time is lost without it. */
	if (!rc && l->c->cache && !lh_fs_mkdirs(l->c->cache, NULL))
		l->team_config.cache = l->c->cache;
	l->team_config.scan = &scan;
	if (!rc)
		rc = lh_team_open(&l->team, &l->team_config, err);
	l->team_config.scan = NULL;
	if (!rc)
		rc = lh_loop_open_choices(l, err);
	/* Now: later the text names the engines that were planned so far. */
	if (!rc)
		l->origin = lh_origin_of(l->job, &l->team.data,
					 l->c->ops->describe(l->team.dev));
	return rc;
}

static int open_model(struct lh_loop *l, struct lh_err *err)
{
	int rc = choose_memory(l, err);

	if (!rc)
		rc = lh_team_make_model(&l->team, err);
	if (!rc)
		lh_info("%s; %" PRId64 " parameters", l->c->ops->describe(l->team.dev),
			lh_model_param_count(l->team.model));
	if (!rc && l->job->devices > 1)
		lh_info("%d ranks, in %d groups, which take %" PRId64 " sequences of a step each",
			l->job->devices, lh_job_groups(l->job), l->team.share);
	return rc;
}

/* Phase by phase: a library may compile for a minute. */
static int prepare(struct lh_loop *l, struct lh_err *err)
{
	int64_t tokens;
	int rc = 0;

	for (int i = 0; !rc && i < l->job->phase_count && !lh_loop_is_told(l); i++) {
		LH_FAILPOINT("prepare.phase");
		rc = lh_team_prepare(&l->team, i, err);
		lh_link_beat(l->link);
	}
	tokens = lh_loop_choices_tokens(l);
	/* A shared sequence is an evaluation's, which is prepared. */
	if (rc || !l->choices_count || tokens > lh_team_own_tokens(&l->team))
		return rc;
	lh_team_lead(&l->team, true);
	rc = lh_model_prepare_short(l->team.model, lh_team_look_batch(&l->team), tokens, err);
	lh_team_lead(&l->team, false);
	return rc;
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
		lh_loop_take_gpu, open_device, open_model, prepare, open_saver, restore };

	for (size_t i = 0; i < sizeof(stages) / sizeof(*stages); i++) {
		int rc = stages[i](l, err);

		if (rc && !l->ending && lh_loop_is_told(l))
			return end_early(l, err); /* it may be why */
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
	lh_loop_close_choices(l);
	lh_selection_free(l->selection);
	lh_team_close(&l->team);
	json_decref(l->origin);
	lh_loop_give_back_gpu(l);
}

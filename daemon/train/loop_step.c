/* loop_step.c: one optimizer step; see loop_int.h.
 *
 * Either all of it is applied and recorded or nothing: it is left when the worker is told
 * to end or to switch now, and not applied when its loss or gradient is not sane. */
#include "train/loop_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "train/optim.h"

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
	int rc = lh_team_measure(&l->team, loss, norm, err);

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

/* What the loss is a mean over: tokens that are predicted in the step that comes. */
static int64_t targets_of_step(const struct lh_loop *l)
{
	int64_t sum = 0;

	for (int64_t i = 0; i < l->job->batch.sequences; i++)
		sum += lh_data_targets(&l->team.data, l->p.cursor + i);
	return sum ? sum : 1;
}

int lh_loop_step(struct lh_loop *l, struct lh_err *err)
{
	const struct lh_job *job = l->job;
	int64_t n = job->batch.sequences, tokens = n * job->data.seq_len;
	double lr = learning_rate(l);
	struct lh_adamw opt = {
		.lr = (float)lr, .beta1 = (float)job->optimizer.beta1,
		.beta2 = (float)job->optimizer.beta2, .eps = (float)job->optimizer.eps,
		.weight_decay = (float)l->p.settings.weight_decay,
		.clip = (float)l->p.settings.clip, .grad_scale = 1,
		.step = l->p.step + 1 };
	int64_t epoch = lh_data_epoch(&l->team.data, l->p.cursor);
	float scale = 1 / (float)targets_of_step(l);
	int64_t start_us = lh_clock_us();
	enum lh_cause cause;
	float loss, norm;
	double ms, z;
	char text[128];
	int rc = 0;

	lh_team_begin(&l->team, l->p.step + 1);
	for (int64_t i = 0; i < l->team.share; i += l->team.micro) {
		LH_FAILPOINT("step.micro");
		if (i && lh_loop_is_told(l))
			return 0; /* nothing was applied: it comes again */
		rc = lh_team_micro(&l->team, l->p.phase, l->p.cursor, i, scale, err);
		if (rc)
			return rc;
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
	lh_team_apply(&l->team, &opt);
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

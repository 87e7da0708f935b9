/* optim.c: learning-rate schedules; see optim.h. */
#include "train/optim.h"

#include <math.h>

#include "lighthouse/err.h"

/* Share of the way from step `from` to the last step, 0 to 1. */
static double progress(int64_t step, int64_t from, int64_t total)
{
	if (step <= from)
		return 0;
	if (step >= total - 1 || total - 1 <= from)
		return 1;
	return (double)(step - from) / (double)(total - 1 - from);
}

static double shape(const struct lh_job_optimizer *o, int64_t step, int64_t total)
{
	double end = o->final_lr_factor, t;

	if (o->schedule == LH_SCHEDULE_CONSTANT)
		return 1;
	LH_ASSERT(total >= 0);
	switch (o->schedule) {
	case LH_SCHEDULE_LINEAR:
		return 1 - (1 - end) * progress(step, o->warmup_steps, total);
	case LH_SCHEDULE_COSINE:
		t = progress(step, o->warmup_steps, total);
		return end + (1 - end) * (1 + cos(M_PI * t)) / 2;
	default:
		t = progress(step, (int64_t)((double)total * (1 - o->decay_fraction)),
			     total);
		return 1 - (1 - end) * t;
	}
}

double lh_optim_lr(const struct lh_job_optimizer *o, double lr, double phase_factor,
		   int64_t step, int64_t total_steps)
{
	lr = lr * phase_factor * shape(o, step, total_steps);
	if (step < o->warmup_steps)
		lr *= (double)(step + 1) / (double)o->warmup_steps;
	return lr;
}

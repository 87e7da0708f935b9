/* rope.c: see rope.h. */
#include "train/rope.h"

#include <math.h>

#include "lighthouse/err.h"

static double between(double x, double low, double high)
{
	return x < low ? low : x > high ? high : x;
}

/* Share of a pair's own speed that it keeps: 0 in full slowed down, 1 not at all. */
static double kept_llama3(const struct lh_job_rope_scaling *s, double turn)
{
	double turns = (double)s->original_tokens * turn / (2 * M_PI);

	return between((turns - s->low_freq_factor) /
			       (s->high_freq_factor - s->low_freq_factor), 0, 1);
}

/* The pair, a real number, that makes so many turns in the context before. */
static double pair_of(const struct lh_job_model *c, double turns)
{
	double tokens = (double)c->rope_scaling.original_tokens;

	return c->head_dim * log(tokens / (turns * 2 * M_PI)) / (2 * log(c->rope_theta));
}

static double kept_yarn(const struct lh_job_model *c, int d)
{
	double first = fmax(floor(pair_of(c, c->rope_scaling.beta_fast)), 0);
	double last = fmin(ceil(pair_of(c, c->rope_scaling.beta_slow)), c->head_dim - 1);

	if (first == last)
		last += 0.001; /* as transformers has it */
	return 1 - between((d - first) / (last - first), 0, 1);
}

static double slowed(const struct lh_job_model *c, int d, double turn)
{
	const struct lh_job_rope_scaling *s = &c->rope_scaling;
	double kept;

	switch (s->type) {
	case LH_ROPE_NONE:
		return turn;
	case LH_ROPE_LINEAR:
		return turn / s->factor;
	case LH_ROPE_LLAMA3:
		kept = kept_llama3(s, turn);
		break;
	case LH_ROPE_YARN:
		kept = kept_yarn(c, d);
		break;
	default:
		LH_BUG("no such rope scaling %d", (int)s->type);
	}
	return turn / s->factor * (1 - kept) + turn * kept;
}

void lh_rope_turns(const struct lh_job_model *c, double *turn)
{
	int half = c->head_dim / 2;

	for (int d = 0; d < half; d++)
		turn[d] = slowed(c, d, pow(c->rope_theta, -(double)d / half));
}

double lh_rope_length(const struct lh_job_model *c)
{
	const struct lh_job_rope_scaling *s = &c->rope_scaling;

	if (s->type != LH_ROPE_YARN)
		return 1;
	return s->attention_factor > 0 ? s->attention_factor : 0.1 * log(s->factor) + 1;
}

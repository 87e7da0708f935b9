/* pace.c: what a step of a phase to come would take; see loop_int.h.
 *
 * A step is its micro-batches: one of them, forward and backward, with the data that
 * come next. Its gradient is never applied, since every step begins with none, and no
 * draw or cursor moves: losses are the same with it and without. */
#include "train/loop_int.h"

#include "base/fs.h"

/* Twice the device is waited for: what is under way is not to be counted. */
static int time_micro(struct lh_loop *l, int phase, double *step_ms, struct lh_err *err)
{
	int64_t share = l->team.share, tokens = l->job->batch.sequences * l->job->data.seq_len;
	int b = share < l->team.micro ? (int)share : l->team.micro, rc;
	int64_t start_us;
	float loss, norm;

	rc = lh_team_measure(&l->team, &loss, &norm, err);
	if (rc)
		return rc;
	start_us = lh_clock_us();
	rc = lh_team_micro(&l->team, phase, l->p.cursor, 0, 1 / (float)tokens, err);
	if (!rc)
		rc = lh_team_measure(&l->team, &loss, &norm, err);
	*step_ms = (double)(lh_clock_us() - start_us) / 1000 * (double)share / b;
	lh_link_beat(l->link);
	return rc;
}

void lh_loop_pace(struct lh_loop *l)
{
	for (int i = l->p.phase + 1; i < l->job->phase_count; i++) {
		struct lh_err why = LH_ERR_INIT;
		double step_ms;

		lh_loop_status(l, "measuring");
		if (time_micro(l, i, &step_ms, &why)) {
			lh_loop_tell(l, "warn", "the pace of phase '%s' is not known: %s",
				     l->job->phases[i].name, why.text);
			return;
		}
		lh_loop_post_take(l, "pace", json_pack("{s:i, s:f}", "phase", i, "step_ms",
						       step_ms));
	}
}

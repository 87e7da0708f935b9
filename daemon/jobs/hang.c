/* hang.c: workers that live and get nowhere.
 *
 * A worker's progress messages carry a counter that its training thread alone
 * advances: at every step, micro-batch, batch of an evaluation and turn of a
 * pause. When that has stood still for longer than the work at hand explains,
 * the worker is killed, and is then lost like any other:
 *
 *   training, pace known   max(hang_ms, LH_HANG_STEPS * a step's time)
 *   paused                 hang_ms
 *   anything else          LH_HANG_SLOW * hang_ms: starting, compiling, saving,
 *                          evaluating, measuring (train/pace.c), the first step of a
 *                          phase; no line to it
 *
 * Measured by the loop's clock, which nobody sets. When lhd itself did not run
 * for a while (stopped, or its machine asleep), nobody is blamed for that time. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "base/log.h"

enum { LOOK_EVERY_MS = 500, LH_HANG_STEPS = 5, LH_HANG_SLOW = 60 };

static int64_t limit_ms(const struct lh_worker *w)
{
	int64_t least = w->jobs->hang_ms;
	double step = w->run->pace_ms;

	if (w->wire && !strcmp(w->doing, "paused"))
		return least;
	if (!w->wire || strcmp(w->doing, "training") || !(step > 0))
		return LH_HANG_SLOW * least;
	return step * LH_HANG_STEPS > (double)least ? (int64_t)(step * LH_HANG_STEPS) : least;
}

static void give_up(struct lh_worker *w, int64_t still_ms)
{
	struct lh_batch *b = lh_batch_new(w->run->journal);

	w->hung_ms = still_ms;
	lh_warn("job %" PRId64 ": no progress for %.1f s (%s after step %" PRId64
		"); its worker is killed", w->run->id, (double)still_ms / 1000, w->doing,
		w->run->step);
	lh_batch_event_take(b, w->run->id, w->attempt, w->run->step, "worker.hung",
			    json_pack("{s:I, s:s, s:f}", "still_ms", (json_int_t)still_ms,
				      "doing", w->doing, "step_ms", w->run->pace_ms),
			    "no progress for %.1f s while %s after step %" PRId64
			    " (a step takes %.1f s); the worker is killed",
			    (double)still_ms / 1000, w->doing, w->run->step,
			    w->run->pace_ms / 1000);
	lh_batch_commit(b, false, NULL, NULL);
	lh_worker_kill(w, SIGKILL);
}

static void look_at(struct lh_worker *w, int64_t now_ms)
{
	int64_t still_ms = now_ms - w->beat_at_ms;

	/* Not spawned yet, gone, left alone as foreign, or without a counter. What
	 * it says is not read while it waits for the store. A user's launcher may take days
	 * to start its ranks. */
	if (!w->beat_at_ms || w->gone || w->foreign || w->hung_ms ||
	    (w->wire && w->beat < 0) || lh_worker_awaits_ranks(w))
		return;
	if (w->wire && lh_wire_is_throttled(w->wire))
		w->beat_at_ms = now_ms;
	else if (still_ms > limit_ms(w))
		give_up(w, still_ms);
}

static void on_timer(uv_timer_t *timer)
{
	struct lh_jobs *jobs = timer->data;
	int64_t now_ms = (int64_t)uv_now(jobs->loop);
	int64_t late_ms = now_ms - jobs->hang_looked_ms - LOOK_EVERY_MS;

	jobs->hang_looked_ms = now_ms;
	for (int i = 0; i < jobs->count; i++) {
		struct lh_worker *w = jobs->run[i]->worker;

		if (!w)
			continue;
		if (late_ms > LOOK_EVERY_MS && w->beat_at_ms)
			w->beat_at_ms += late_ms;
		look_at(w, now_ms);
	}
}

void lh_hang_begin(struct lh_jobs *jobs)
{
	jobs->hang_looked_ms = (int64_t)uv_now(jobs->loop);
	if (jobs->hang_ms)
		uv_timer_start(&jobs->hang_timer, on_timer, LOOK_EVERY_MS, LOOK_EVERY_MS);
}

void lh_hang_alive(struct lh_worker *w)
{
	w->beat_at_ms = (int64_t)uv_now(w->jobs->loop);
}

void lh_hang_progress(struct lh_worker *w, const json_t *message)
{
	const json_t *beat = json_object_get(message, "beat");
	const char *doing = json_string_value(json_object_get(message, "doing"));

	if (doing)
		lh_escape(w->doing, sizeof(w->doing), doing);
	if (!json_is_integer(beat) || json_integer_value(beat) == w->beat)
		return;
	w->beat = json_integer_value(beat);
	lh_hang_alive(w);
}

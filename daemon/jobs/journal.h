/* journal.h: what happened, on its way into the store and to subscribers.
 *
 * A batch is one write of the store plus the events in it. Events get their ids
 * here, in order; they are pushed to the sink once they are committed, so that
 * nobody is told what a crash could take back.
 *
 *   struct lh_batch *b = lh_batch_new(journal);
 *   lh_batch_add(b, LH_STMT_..., binds, n);
 *   lh_batch_event_take(b, job, attempt, step, "job.phase", data, "sentence %s", s);
 *   lh_batch_commit(b, durable, done, arg);
 *
 * Loop thread only. The journal outlives batches in flight: after
 * lh_journal_close their writes still happen, their callbacks do not.
 */
#ifndef LIGHTHOUSE_JOURNAL_H
#define LIGHTHOUSE_JOURNAL_H

#include "jobs/jobs.h"

struct lh_journal;
struct lh_batch;

/* `last_event` is the highest id in the store. */
struct lh_journal *lh_journal_new(struct lh_store *store, int64_t last_event,
				  lh_event_sink sink, void *sink_arg);
/* No callback and no push after this. Frees when the last batch is through. */
void lh_journal_close(struct lh_journal *journal);
/* Newest event that was pushed. */
int64_t lh_journal_last_event(const struct lh_journal *journal);
/* A step, straight to the sink; takes `json`. */
void lh_journal_push_step_take(struct lh_journal *journal, int64_t job, json_t *json);

struct lh_batch *lh_batch_new(struct lh_journal *journal);
void lh_batch_add(struct lh_batch *batch, enum lh_stmt stmt, const struct lh_bind *binds,
		  int count);
/* attempt 0: none. step < 0: none. Takes `data`; NULL is {}. */
void lh_batch_event_take(struct lh_batch *batch, int64_t job, int64_t attempt,
			 int64_t step, const char *kind, json_t *data, const char *fmt,
			 ...) __attribute__((format(printf, 7, 8)));
bool lh_batch_has_event(const struct lh_batch *batch);
/* Somebody waits for it and can ask again: see lh_write_may_fail. Not empty. */
void lh_batch_may_fail(struct lh_batch *batch);
/* Hands over and frees. A batch with an event is durable without asking. An
 * empty batch is answered at once. `done` may be NULL;
 * rc is 0 or LH_ESTORE. */
typedef void (*lh_batch_done)(void *arg, int rc, const struct lh_err *err);
void lh_batch_commit(struct lh_batch *batch, bool durable, lh_batch_done done, void *arg);

#endif

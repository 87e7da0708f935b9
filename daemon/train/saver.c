/* saver.c: see saver.h. One thread for each save: they are seconds apart at
 * least. */
#include "train/saver.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"

struct lh_saver {
	struct lh_saver_config c;
	/* The thread's own: references are not counted atomically. */
	json_t *spec, *origin;
	struct lh_snapshot snapshot;
	struct lh_progress progress;
	pthread_t thread;
	bool busy;            /* a thread is to be joined */
	atomic_bool written;  /* and has nothing left to do */
	atomic_bool awaited;  /* by lh_saver_take */
	int64_t start_us;
	struct lh_saved saved;
};

/* A save in the background is no sign of life of the training thread. */
static void on_wrote(void *arg)
{
	struct lh_saver *s = arg;

	if (s->c.moved && atomic_load(&s->awaited))
		s->c.moved(s->c.moved_arg);
}

int lh_saver_new(struct lh_saver **out, const struct lh_saver_config *config,
		 struct lh_err *err)
{
	struct lh_saver *s = lh_calloc(1, sizeof(*s));
	int rc;

	s->c = *config;
	lh_fs_remove_torn(s->c.dir);
	s->spec = json_deep_copy(config->spec);
	s->origin = json_deep_copy(config->origin);
	rc = lh_snapshot_new(&s->snapshot, config->ops, config->dev, config->model, err);
	s->snapshot.wrote = on_wrote;
	s->snapshot.wrote_arg = s;
	if (rc) {
		lh_saver_free(s);
		s = NULL;
	}
	*out = s;
	return rc;
}

void lh_saver_free(struct lh_saver *s)
{
	if (!s)
		return;
	if (s->busy) {
		pthread_join(s->thread, NULL);
		free(s->saved.path);
	}
	lh_snapshot_free(&s->snapshot);
	json_decref(s->spec);
	json_decref(s->origin);
	free(s);
}

static void *write_out(void *arg)
{
	struct lh_saver *s = arg;
	struct lh_err why;

	/* Records are worth less than the state they tell of. */
	if (s->c.link && lh_link_sync(s->c.link, &why))
		lh_log_err(LH_LOG_WARN, "records", &why);
	s->saved.rc = lh_checkpoint_save(s->c.dir, &s->snapshot, &s->progress, s->spec,
					 s->origin, &s->saved.path, &s->saved.bytes,
					 &s->saved.err);
	if (!s->saved.rc)
		lh_checkpoint_retain(s->c.dir, s->progress.step, s->c.keep,
				     s->c.keep_every,
				     s->progress.trial ? s->progress.phase_step : -1);
	s->saved.duration_ms = (double)(lh_clock_us() - s->start_us) / 1000;
	atomic_store(&s->written, true);
	return NULL;
}

int lh_saver_begin(struct lh_saver *s, const struct lh_progress *p, const char *reason,
		   struct lh_err *err)
{
	int rc;

	LH_ASSERT(!s->busy);
	s->start_us = lh_clock_us();
	rc = lh_snapshot_take(&s->snapshot, err);
	if (rc)
		return rc;
	s->progress = *p;
	s->saved = (struct lh_saved){ .step = p->step, .reason = reason,
				      .err = LH_ERR_INIT };
	s->saved.stall_ms = (double)(lh_clock_us() - s->start_us) / 1000;
	atomic_store(&s->written, false);
	rc = pthread_create(&s->thread, NULL, write_out, s);
	if (rc)
		return lh_err_set(err, LH_EIO, "no thread for a checkpoint: %s",
				  strerror(rc));
	s->busy = true;
	return 0;
}

bool lh_saver_is_busy(const struct lh_saver *s)
{
	return s->busy;
}

bool lh_saver_take(struct lh_saver *s, bool wait, struct lh_saved *saved)
{
	if (!s->busy || (!wait && !atomic_load(&s->written)))
		return false;
	atomic_store(&s->awaited, true);
	pthread_join(s->thread, NULL);
	atomic_store(&s->awaited, false);
	s->busy = false;
	*saved = s->saved;
	return true;
}

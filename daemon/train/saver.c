/* saver.c: see saver.h. One thread for each save: they are seconds apart at
 * least. */
#include "train/saver.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"

enum stage { IDLE, WRITING /* this rank's part, of several */, FINISHING };

struct lh_saver {
	struct lh_saver_config c;
	struct lh_comm comm;
	/* The thread's own: references are not counted atomically. */
	json_t *spec, *origin;
	json_t *files;        /* written: of this rank, then of all */
	struct lh_snapshot snapshot;
	struct lh_progress progress;
	enum stage stage;
	pthread_t thread;
	bool runs;            /* it is to be joined */
	atomic_bool written;  /* it has nothing left to do */
	atomic_bool awaited;  /* by lh_saver_take */
	atomic_long moves;    /* pieces written */
	int64_t moves_told;   /* of all ranks */
	int64_t start_us;
	struct lh_saved saved;
};

/* A save in the background is no sign of life of the training thread. */
static void on_wrote(void *arg)
{
	struct lh_saver *s = arg;

	atomic_fetch_add(&s->moves, 1);
	if (s->c.moved && atomic_load(&s->awaited))
		s->c.moved(s->c.moved_arg);
}

/* ---- who writes -------------------------------------------------------------- */

/* `own`: this rank's number among those that write a part, who are returned; as many as
 * there are: it writes none. A name that was never asked for is looked up afresh, also over a
 * network. */
static int find_writers(const struct lh_saver *s, int *own)
{
	char name[64] = "", *path;
	bool *sees = lh_calloc((size_t)s->comm.size, sizeof(*sees));
	int n = 0;

	if (!s->comm.rank)
		snprintf(name, sizeof(name), "seen-%d-%lld.tmp", getpid(),
			 (long long)lh_clock_us());
	lh_comm_share(&s->comm, "a name in the directory", name, sizeof(name));
	path = lh_asprintf("%s/%s", s->c.dir, name);
	/* On a disk that takes nothing rank 0 writes alone, and says why. */
	if (!s->comm.rank && !lh_fs_mkdirs(s->c.dir, NULL))
		lh_fs_write_atomic(path, "", 0, NULL);
	lh_comm_collect(&s->comm, "a file in the directory", sees, sizeof(*sees)); /* is there */
	sees[s->comm.rank] = !s->comm.rank || lh_fs_exists(path);
	lh_comm_collect(&s->comm, "who sees the directory", sees, sizeof(*sees));
	if (!s->comm.rank)
		unlink(path);
	for (int r = 0; r < s->comm.size; n += sees[r++])
		if (r == s->comm.rank)
			*own = n;
	if (!sees[s->comm.rank])
		*own = n;
	free(path);
	free(sees);
	return n;
}

int lh_saver_new(struct lh_saver **out, const struct lh_saver_config *config,
		 struct lh_err *err)
{
	struct lh_saver *s = lh_calloc(1, sizeof(*s));
	int rc, writers = 1, own = 0;

	s->c = *config;
	s->comm = config->comm ? *config->comm : LH_COMM_ALONE;
	if (!s->comm.rank)
		lh_fs_remove_torn(s->c.dir);
	s->spec = json_deep_copy(config->spec);
	s->origin = json_deep_copy(config->origin);
	if (s->comm.size > 1) /* else nobody is asked */
		writers = find_writers(s, &own);
	rc = lh_snapshot_new(&s->snapshot, config->ops, config->dev, config->model, own,
			     writers, err);
	s->snapshot.wrote = on_wrote;
	s->snapshot.wrote_arg = s;
	if (rc) {
		lh_saver_free(s);
		s = NULL;
	}
	*out = s;
	return rc;
}

static void join(struct lh_saver *s)
{
	if (s->runs)
		pthread_join(s->thread, NULL);
	s->runs = false;
}

/* Of a thread that cannot be had the save says so. */
static void start(struct lh_saver *s, void *(*run)(void *arg))
{
	int rc;

	atomic_store(&s->written, false);
	rc = pthread_create(&s->thread, NULL, run, s);
	s->runs = !rc;
	if (!rc)
		return;
	s->saved.rc = lh_err_set(&s->saved.err, LH_EIO, "no thread for a checkpoint: %s",
				 strerror(rc));
	atomic_store(&s->written, true);
}

void lh_saver_free(struct lh_saver *s)
{
	if (!s)
		return;
	join(s);
	if (s->stage != IDLE)
		free(s->saved.path);
	lh_snapshot_free(&s->snapshot);
	json_decref(s->files);
	json_decref(s->spec);
	json_decref(s->origin);
	free(s);
}

/* ---- the threads ------------------------------------------------------------ */

/* Records are worth less than the state they tell of. */
static void sync_records(struct lh_saver *s)
{
	struct lh_err why;

	if (s->c.link && lh_link_sync(s->c.link, &why))
		lh_log_err(LH_LOG_WARN, "records", &why);
}

static void retain(struct lh_saver *s)
{
	if (!s->saved.rc)
		lh_checkpoint_retain(s->c.dir, s->progress.step, s->c.keep,
				     s->c.keep_every,
				     s->progress.trial ? s->progress.phase_step : -1);
	s->saved.duration_ms = (double)(lh_clock_us() - s->start_us) / 1000;
}

static void *write_all(void *arg)
{
	struct lh_saver *s = arg;

	sync_records(s);
	s->saved.rc = lh_checkpoint_save(s->c.dir, &s->snapshot, &s->progress, s->spec,
					 s->origin, &s->saved.path, &s->saved.bytes,
					 &s->saved.err);
	retain(s);
	atomic_store(&s->written, true);
	return NULL;
}

static void *write_part(void *arg)
{
	struct lh_saver *s = arg;

	sync_records(s);
	s->saved.rc = lh_checkpoint_write(s->c.dir, s->progress.step, &s->snapshot, s->files,
					  &s->saved.bytes, &s->saved.err);
	atomic_store(&s->written, true);
	return NULL;
}

/* Of all ranks' files, or of what is left of one that could not write its own. */
static void *finish(void *arg)
{
	struct lh_saver *s = arg;

	if (s->saved.rc)
		lh_checkpoint_abandon(s->c.dir, s->progress.step);
	else
		s->saved.rc = lh_checkpoint_finish(s->c.dir, &s->progress, s->spec, s->origin,
						   s->files, &s->saved.path, &s->saved.bytes,
						   &s->saved.err);
	retain(s);
	atomic_store(&s->written, true);
	return NULL;
}

/* ---- beginning --------------------------------------------------------------- */

/* The place is there before any rank writes. */
static int take_part(struct lh_saver *s, int64_t step, struct lh_err *err)
{
	struct lh_err own = LH_ERR_INIT;
	int rc;

	if (!s->comm.rank)
		lh_checkpoint_begin(s->c.dir, step, &own);
	rc = lh_comm_agree(&s->comm, "whether to save", &own, err);
	if (!rc)
		rc = lh_snapshot_take(&s->snapshot, err);
	if (rc && !s->comm.rank)
		lh_checkpoint_abandon(s->c.dir, step);
	return rc;
}

int lh_saver_begin(struct lh_saver *s, const struct lh_progress *p, const char *reason,
		   struct lh_err *err)
{
	bool alone = s->comm.size == 1;
	int rc;

	LH_ASSERT(s->stage == IDLE);
	s->start_us = lh_clock_us();
	rc = alone ? lh_snapshot_take(&s->snapshot, err) : take_part(s, p->step, err);
	if (rc)
		return rc;
	s->progress = *p;
	s->saved = (struct lh_saved){ .step = p->step, .reason = reason,
				      .err = LH_ERR_INIT };
	s->saved.stall_ms = (double)(lh_clock_us() - s->start_us) / 1000;
	s->stage = alone ? FINISHING : WRITING;
	json_decref(s->files);
	s->files = json_object();
	start(s, alone ? write_all : write_part);
	return 0;
}

/* ---- meeting ----------------------------------------------------------------- */

struct met {
	bool written;
	int64_t moves, bytes;
	size_t text_bytes; /* of its files, as JSON */
};

static struct met own_of(const struct lh_saver *s, const char *text)
{
	return (struct met){ .written = text != NULL,
			     .moves = atomic_load(&s->moves),
			     .bytes = text ? s->saved.bytes : 0,
			     .text_bytes = text ? strlen(text) + 1 : 0 };
}

/* Whether all ranks have written; what they tell of it is summed up. */
static bool add_up(struct lh_saver *s, const struct met *all, size_t *text_bytes)
{
	int64_t moves = 0, bytes = 0;
	bool written = true;

	*text_bytes = 0;
	for (int r = 0; r < s->comm.size; r++) {
		written = written && all[r].written;
		moves += all[r].moves;
		bytes += all[r].bytes;
		if (all[r].text_bytes > *text_bytes)
			*text_bytes = all[r].text_bytes;
	}
	if (s->c.moved && moves != s->moves_told)
		s->c.moved(s->c.moved_arg);
	s->moves_told = moves;
	if (written)
		s->saved.bytes = bytes;
	return written;
}

/* Files of all ranks become this one's. */
static void collect_files(struct lh_saver *s, const char *text, size_t bytes)
{
	char *all = lh_calloc((size_t)s->comm.size, bytes);

	memcpy(all + (size_t)s->comm.rank * bytes, text, strlen(text));
	lh_comm_collect(&s->comm, "files of a checkpoint", all, bytes);
	for (int r = 0; r < s->comm.size; r++) {
		json_t *files = json_loads(all + (size_t)r * bytes, 0, NULL);

		json_object_update(s->files, files);
		json_decref(files);
	}
	free(all);
}

bool lh_saver_meet(struct lh_saver *s)
{
	bool own = atomic_load(&s->written), written;
	char *text = own ? json_dumps(s->files, JSON_COMPACT) : NULL;
	struct met *all = lh_calloc((size_t)s->comm.size, sizeof(*all));
	size_t text_bytes;

	LH_ASSERT(s->stage == WRITING);
	all[s->comm.rank] = own_of(s, text);
	lh_comm_collect(&s->comm, "whether parts are written", all, sizeof(*all));
	written = add_up(s, all, &text_bytes);
	free(all);
	if (written) {
		join(s);
		collect_files(s, text, text_bytes);
		s->saved.rc = lh_comm_agree(&s->comm, "how parts were written", &s->saved.err,
					    &s->saved.err);
		s->stage = s->comm.rank ? IDLE : FINISHING;
		if (!s->comm.rank)
			start(s, finish);
	}
	free(text);
	return written;
}

bool lh_saver_is_busy(const struct lh_saver *s)
{
	return s->stage != IDLE;
}

bool lh_saver_is_written(const struct lh_saver *s)
{
	return atomic_load(&s->written);
}

bool lh_saver_has_met(const struct lh_saver *s)
{
	return s->stage != WRITING;
}

/* ---- taking ------------------------------------------------------------------ */

bool lh_saver_take(struct lh_saver *s, bool wait, struct lh_saved *saved)
{
	if (s->stage != FINISHING || (!wait && !atomic_load(&s->written)))
		return false;
	atomic_store(&s->awaited, true);
	join(s);
	atomic_store(&s->awaited, false);
	s->stage = IDLE;
	*saved = s->saved;
	return true;
}

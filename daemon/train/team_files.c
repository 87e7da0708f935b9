/* team_files.c: checkpoints of several ranks; see team.h.
 *
 * Ranks of other hosts need not share the disk that checkpoints are on. Where all see one
 * each reads it, else rank 0 reads it once more and passes on every piece. Who writes a part
 * of one is found out alike (saver.h). */
#include "train/team_int.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"
#include "train/checkpoint.h"

enum { MEET_PAUSE_US = 2000, MANIFEST_MAX_BYTES = 64 << 20 };

static void give_path(struct lh_team *t, struct order *o, const char *path)
{
	o->path_bytes = strlen(path) + 1;
	give(t, o);
	lh_comm_share(&t->comm, "a path", (char *)path, o->path_bytes);
}

/* The caller's. */
static char *receive_path(struct lh_team *t, const struct order *o)
{
	char *path = lh_calloc(o->path_bytes, 1);

	lh_comm_share(&t->comm, "a path", path, o->path_bytes);
	return path;
}

/* ---- taking one ------------------------------------------------------------- */

/* Of a checkpoint that rank 0 reads for all; the last one is empty. */
struct piece {
	enum lh_model_state which;
	int64_t offset, count;
};

static void share_piece(void *team, enum lh_model_state which, int64_t offset,
			int64_t count, const float *x)
{
	struct piece p = { which, offset, count };
	struct lh_team *t = team;

	lh_comm_share(&t->comm, "a piece of a checkpoint", &p, sizeof(p));
	if (count)
		lh_comm_share(&t->comm, "a checkpoint", (float *)x,
			      (size_t)count * sizeof(*x));
}

static void take_pieces(struct lh_team *t)
{
	struct piece p;
	float *x = NULL;

	for (;;) {
		lh_comm_share(&t->comm, "a piece of a checkpoint", &p, sizeof(p));
		if (!p.count)
			break;
		x = lh_realloc(x, (size_t)p.count * sizeof(*x));
		lh_comm_share(&t->comm, "a checkpoint", x, (size_t)p.count * sizeof(*x));
		lh_model_write(t->model, p.which, p.offset, p.count, x);
	}
	free(x);
	lh_model_weights_changed(t->model);
}

/* 0: there is none to be read. */
static uint64_t manifest_hash(const char *path)
{
	char *file = lh_asprintf("%s/" LH_MANIFEST_FILE, path), *text = NULL;
	size_t bytes;
	uint64_t hash = 0;

	if (!lh_fs_read(file, MANIFEST_MAX_BYTES, &text, &bytes, NULL))
		hash = XXH64(text, bytes, 0);
	free(text);
	free(file);
	return hash;
}

/* Whether every rank has that checkpoint there: another host may have one of its own. */
static bool all_see(struct lh_team *t, const char *path)
{
	uint64_t *sees = lh_calloc((size_t)t->comm.size, sizeof(*sees));
	bool all = true;

	sees[t->comm.rank] = manifest_hash(path);
	lh_comm_collect(&t->comm, "who sees a checkpoint", sees, sizeof(*sees));
	for (int r = 0; r < t->comm.size; r++)
		all = all && sees[r] == sees[0] && sees[r];
	free(sees);
	return all;
}

/* Rank 0 has it already. */
static int load(struct lh_team *t, const char *path, bool moments, struct lh_err *err)
{
	struct lh_progress p;
	bool all = all_see(t, path);

	if (all && t->comm.rank)
		lh_checkpoint_load(path, t->model, &p, moments, &t->trouble);
	else if (!all && t->comm.rank)
		take_pieces(t);
	else if (!all)
		lh_checkpoint_show(path, t->model, moments, share_piece, t, &t->trouble);
	if (!all && !t->comm.rank)
		share_piece(t, 0, 0, 0, NULL);
	return agree(t, err);
}

int lh_team_load(struct lh_team *t, const char *path, bool moments, struct lh_err *err)
{
	if (t->comm.size == 1)
		return 0;
	give_path(t, &(struct order){ .task = LOAD, .moments = moments }, path);
	return load(t, path, moments, err);
}

/* ---- making one ------------------------------------------------------------- */

/* `config`: of rank 0, or its directory. */
static int open_saver(struct lh_team *t, struct lh_saver_config config, struct lh_err *err)
{
	config.ops = t->c->ops;
	config.dev = t->dev;
	config.model = t->model;
	config.comm = &t->comm;
	lh_saver_new(&t->saver, &config, &t->trouble);
	return agree(t, err);
}

int lh_team_open_saver(struct lh_team *t, const struct lh_saver_config *config,
		       struct lh_err *err)
{
	give_path(t, &(struct order){ .task = OPEN_SAVER }, config->dir);
	return open_saver(t, *config, err);
}

int lh_team_begin_save(struct lh_team *t, const struct lh_progress *p, const char *reason,
		       struct lh_err *err)
{
	give(t, &(struct order){ .task = SAVE, .step = p->step });
	return lh_saver_begin(t->saver, p, reason, err);
}

bool lh_team_is_saving(const struct lh_team *t)
{
	return t->saver && lh_saver_is_busy(t->saver);
}

/* Others are asked once this rank is done: they have about as much to write. */
static bool meet_about_save(struct lh_team *t, bool wait)
{
	while (wait || lh_saver_is_written(t->saver)) {
		give(t, &(struct order){ .task = MEET });
		if (lh_saver_meet(t->saver))
			return true;
		if (!wait)
			return false;
		usleep(MEET_PAUSE_US);
	}
	return false;
}

bool lh_team_take_save(struct lh_team *t, bool wait, struct lh_saved *saved)
{
	if (!lh_saver_has_met(t->saver) && !meet_about_save(t, wait))
		return false;
	return lh_saver_take(t->saver, wait, saved);
}

/* ---- obeying ---------------------------------------------------------------- */

static void obey_load(struct lh_team *t, const struct order *o)
{
	char *path = receive_path(t, o);

	load(t, path, o->moments, NULL);
	free(path);
}

void lh_team_obey_file(struct lh_team *t, const struct order *o)
{
	struct lh_progress p = { .step = o->step };

	switch (o->task) {
	case LOAD:
		obey_load(t, o);
		break;
	case OPEN_SAVER:
		t->saved_in = receive_path(t, o);
		open_saver(t, (struct lh_saver_config){ .dir = t->saved_in }, NULL);
		break;
	case SAVE:
		lh_saver_begin(t->saver, &p, "", NULL);
		break;
	case MEET:
		lh_saver_meet(t->saver);
		break;
	default:
		LH_BUG("task %d is no file's", (int)o->task);
	}
}

/* checkpoint.c: see checkpoint.h. */
#include "train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "base/io.h"
#include "base/log.h"
#include "data/ahead.h"
#include "data/convert.h"
#include "data/safetensors.h"

static const struct part {
	enum lh_manifest_kind kind;
	int states;
	enum lh_model_state state[2];
	const char *suffix[2];
} parts[] = {
	{ LH_MANIFEST_PARAMS, 1, { LH_STATE_PARAM }, { "" } },
	{ LH_MANIFEST_MOMENTS, 2, { LH_STATE_MOMENT1, LH_STATE_MOMENT2 },
	  { ".m", ".v" } },
};
enum { PARTS = sizeof(parts) / sizeof(parts[0]), PIECE_FLOATS = 2 << 20,
       LOAD_FLOATS = 256 << 10 /* that stay in a core's cache until they are taken */ };

/* ---- saving ---------------------------------------------------------------- */

int lh_snapshot_new(struct lh_snapshot *s, const struct lh_ops *ops, struct lh_dev *dev,
		    struct lh_model *model, struct lh_err *err)
{
	size_t bytes = (size_t)lh_model_param_count(model) * 4;

	*s = (struct lh_snapshot){ .ops = ops, .dev = dev, .model = model,
				   .file_bytes = LH_CHECKPOINT_FILE_BYTES };
	for (int i = 0; i < 3; i++) {
		s->state[i] = ops->host_alloc(dev, bytes);
		if (s->state[i])
			continue;
		lh_snapshot_free(s);
		lh_err_set(err, LH_ETOOBIG, "checkpoints need %zu MiB of host memory",
			   3 * bytes >> 20);
		return lh_err_hint(err, "12 bytes a parameter; free some, or a smaller "
				   "model");
	}
	return 0;
}

void lh_snapshot_free(struct lh_snapshot *s)
{
	for (int i = 0; i < 3; i++)
		if (s->state[i])
			s->ops->host_free(s->dev, s->state[i]);
	memset(s, 0, sizeof(*s));
}

int lh_snapshot_take(struct lh_snapshot *s, struct lh_err *err)
{
	int rc = 0;

	/* All of them, whatever becomes of one: other ranks do so, too. */
	for (int i = LH_STATE_PARAM; i <= LH_STATE_MOMENT2; i++) {
		int bad = lh_model_read_whole(s->model, (enum lh_model_state)i, s->state[i],
					      rc ? NULL : err);

		rc = rc ? rc : bad;
	}
	return rc;
}

static void tell_wrote(const struct lh_snapshot *s)
{
	if (s->wrote)
		s->wrote(s->wrote_arg);
}

/* In pieces: one tensor alone may keep a slow disk busy for minutes. */
static int save_tensor(struct lh_safetensors_writer *w, const struct lh_snapshot *s,
		       const float *data, int64_t count, struct lh_err *err)
{
	int rc = 0;

	for (int64_t i = 0; !rc && i < count; i += PIECE_FLOATS) {
		int64_t n = count - i < PIECE_FLOATS ? count - i : PIECE_FLOATS;

		rc = lh_safetensors_append(w, data + i, (size_t)n * 4, err);
		tell_wrote(s);
	}
	return rc;
}

/* A part's tensors are numbered: those of its first state, then of its second. */
struct numbered {
	const struct lh_param *param;
	enum lh_model_state state;
	char name[80];
};

static int tensor_count(const struct part *part, const struct lh_model *m)
{
	int count;

	lh_model_params(m, &count);
	return part->states * count;
}

static struct numbered tensor_at(const struct part *part, const struct lh_model *m, int t)
{
	int count;
	const struct lh_param *params = lh_model_params(m, &count);
	struct numbered n = { .param = &params[t % count], .state = part->state[t / count] };

	snprintf(n.name, sizeof(n.name), "%s%s", n.param->name, part->suffix[t / count]);
	return n;
}

/* The first tensor that is not in the file that begins with tensor `from`. */
static int file_end(const struct part *part, const struct lh_snapshot *s, int from)
{
	int t = from, n = tensor_count(part, s->model);
	int64_t bytes = 0;

	do {
		bytes += tensor_at(part, s->model, t++).param->count * 4;
	} while (t < n && bytes + tensor_at(part, s->model, t).param->count * 4 <=
				  s->file_bytes);
	return t;
}

static int file_count(const struct part *part, const struct lh_snapshot *s)
{
	int n = 0;

	for (int t = 0; t < tensor_count(part, s->model); n++)
		t = file_end(part, s, t);
	return n;
}

/* Writes tensors from .. to - 1 as DIR/NAME; adds its line to `files`. */
static int save_file(const char *dir, const char *name, const struct part *part,
		     const struct lh_snapshot *s, int from, int to, json_t *files,
		     int64_t *total, struct lh_err *err)
{
	struct lh_safetensors_writer *w = lh_safetensors_writer_new();
	char *path = lh_asprintf("%s/%s", dir, name);
	int64_t bytes;
	uint64_t hash;
	int rc;

	for (int t = from; t < to; t++) {
		struct numbered n = tensor_at(part, s->model, t);
		int64_t shape[2] = { n.param->rows, n.param->cols };

		lh_safetensors_declare(w, n.name, LH_TENSOR_F32,
				       n.param->cols == 1 ? 1 : 2, shape);
	}
	rc = lh_safetensors_begin(w, path, NULL, err);
	free(path);
	for (int t = from; !rc && t < to; t++) {
		struct numbered n = tensor_at(part, s->model, t);

		rc = save_tensor(w, s, s->state[n.state] + n.param->offset, n.param->count,
				 err);
	}
	if (rc) {
		lh_safetensors_abort(w);
		return rc;
	}
	rc = lh_safetensors_commit(w, &bytes, &hash, err);
	tell_wrote(s);
	lh_manifest_add_file(files, name, bytes, hash);
	*total += bytes;
	return rc;
}

static int save_part(const char *dir, const struct part *part, const struct lh_snapshot *s,
		     json_t *files, int64_t *total, struct lh_err *err)
{
	int n = file_count(part, s), from = 0, rc = 0;

	LH_ASSERT(n <= LH_MANIFEST_FILES_MAX);
	for (int i = 0; !rc && i < n; i++) {
		char name[LH_MANIFEST_NAME_BYTES];
		int to = file_end(part, s, from);

		lh_manifest_file_name(name, part->kind, i, n);
		rc = save_file(dir, name, part, s, from, to, files, total, err);
		from = to;
	}
	return rc;
}

static int save_all(const char *tmp, const struct lh_snapshot *s,
		    const struct lh_progress *p, const json_t *spec,
		    const json_t *origin, int64_t *bytes, struct lh_err *err)
{
	json_t *files = json_object();
	int64_t manifest_bytes;
	int rc = lh_fs_mkdirs(tmp, err);

	*bytes = 0;
	for (int i = 0; !rc && i < PARTS; i++)
		rc = save_part(tmp, &parts[i], s, files, bytes, err);
	/* Last: with a manifest, all is there. */
	if (!rc)
		rc = lh_manifest_write(tmp, p, spec, origin, files, &manifest_bytes, err);
	if (!rc)
		*bytes += manifest_bytes;
	json_decref(files);
	return rc;
}

/* One of the same step (a command right after a save) is exchanged with it, so that
 * one of them is always there; a network file system that cannot exchange has
 * neither for a moment. */
static int give_name(const char *tmp, const char *final, bool *exchanged,
		     struct lh_err *err)
{
	int rc;

	*exchanged = false;
	if (!lh_io->rename(tmp, final))
		return 0;
	if (errno == EEXIST || errno == ENOTEMPTY) {
		*exchanged = !lh_io->exchange(tmp, final);
		if (*exchanged)
			return 0;
		rc = lh_fs_remove_tree(final, err);
		if (rc || !lh_io->rename(tmp, final))
			return rc;
	}
	return lh_err_set(err, LH_EIO, "cannot rename to '%s': %s", final,
			  strerror(errno));
}

/* Gives the finished directory its name, for good: what had it before goes once that
 * is on disk. */
static int publish(const char *dir, const char *tmp, const char *final,
		   struct lh_err *err)
{
	bool exchanged;
	int rc = give_name(tmp, final, &exchanged, err);

	if (rc) {
		lh_fs_remove_tree(tmp, NULL);
		return rc;
	}
	LH_FAILPOINT("checkpoint.published");
	rc = lh_fs_sync_dir(dir, err);
	LH_FAILPOINT("checkpoint.synced");
	if (!rc && exchanged)
		lh_fs_remove_tree(tmp, NULL);
	return rc;
}

int lh_checkpoint_pin(const char *path, struct lh_err *err)
{
	char *mark = lh_asprintf("%s/" LH_MANIFEST_PINNED, path);
	int rc = lh_fs_write_atomic(mark, "", 0, err);

	LH_FAILPOINT("checkpoint.pinned");
	free(mark);
	return rc;
}

char *lh_checkpoint_path(const char *dir, int64_t step)
{
	return lh_asprintf("%s/step-%010" PRId64, dir, step);
}

int lh_checkpoint_save(const char *dir, const struct lh_snapshot *s,
		       const struct lh_progress *p, const json_t *spec,
		       const json_t *origin, char **path, int64_t *bytes,
		       struct lh_err *err)
{
	char *final = lh_checkpoint_path(dir, p->step);
	char *tmp = lh_asprintf("%s.tmp", final);
	char *mark = lh_asprintf("%s/" LH_MANIFEST_PINNED, final);
	int rc;

	if (LH_PLANTED("early_rename"))
		strcpy(tmp, final);
	if (LH_PLANTED("early_retention"))
		lh_checkpoint_remove_after(dir, -1, err);
	LH_FAILPOINT("checkpoint.begin");
	rc = lh_fs_remove_tree(tmp, err);
	if (!rc)
		rc = save_all(tmp, s, p, spec, origin, bytes, err);
	if (!rc && lh_fs_exists(mark))
		rc = lh_checkpoint_pin(tmp, err);
	LH_FAILPOINT("checkpoint.written");
	if (rc) /* a full disk needs the room */
		lh_fs_remove_tree(tmp, NULL);
	else
		rc = publish(dir, tmp, final, err);
	if (rc)
		free(final);
	else
		*path = final;
	free(mark);
	free(tmp);
	return rc;
}

/* ---- loading --------------------------------------------------------------- */

struct loading {
	const struct part *part;
	struct lh_model *model;
	bool *found;             /* of the part's tensors, by their numbers */
	XXH64_state_t *hash;     /* of the file */
	struct lh_ahead *ahead;
	float *wide;             /* LOAD_FLOATS */
};

/* The number of the part's tensor that it is, or -1. */
static int number_of(const struct loading *l, const struct lh_tensor *t)
{
	for (int i = 0; i < tensor_count(l->part, l->model); i++) {
		struct numbered n = tensor_at(l->part, l->model, i);

		if (!strcmp(n.name, t->name))
			return lh_convert_can(t->type) && t->count == n.param->count ? i : -1;
	}
	return -1;
}

static void write_piece(const struct loading *l, const struct numbered *to, int64_t at,
			const void *piece, enum lh_tensor_type type, int64_t n)
{
	if (type != LH_TENSOR_F32) {
		lh_convert(l->wide, LH_TENSOR_F32, piece, type, n);
		piece = l->wide;
	}
	lh_model_write(l->model, to->state, to->param->offset + at, n, piece);
}

/* In pieces, each looked at once: for the file's sum, and by the model. */
static void load_tensor(const struct loading *l, const struct lh_safetensors *st,
			const struct lh_tensor *t)
{
	int number = number_of(l, t), width = lh_tensor_width(t->type);
	struct numbered to = number < 0 ? (struct numbered){ 0 } :
					  tensor_at(l->part, l->model, number);

	for (int64_t i = 0, n; i < t->count; i += n) {
		const char *piece = (const char *)t->data + i * width;

		n = t->count - i < LOAD_FLOATS ? t->count - i : LOAD_FLOATS;
		lh_ahead_look(l->ahead, st, piece);
		XXH64_update(l->hash, piece, (size_t)(n * width));
		if (number >= 0)
			write_piece(l, &to, i, piece, t->type, n);
		lh_safetensors_forget(st, piece, n * width);
	}
	if (number >= 0)
		l->found[number] = true;
}

/* Takes what it holds of the part's tensors; they are good if its sum is. */
static int load_file(struct loading *l, const char *path, const char *name,
		     const json_t *manifest, struct lh_err *err)
{
	char *file = lh_asprintf("%s/%s", path, name);
	struct lh_safetensors st;
	int rc = lh_safetensors_open(&st, file, err);
	const char *data;

	free(file);
	if (rc)
		return rc;
	data = st.count ? st.tensors[0].data : (const char *)st.map + st.map_bytes;
	XXH64_reset(l->hash, 0);
	XXH64_update(l->hash, st.map, (size_t)(data - (const char *)st.map));
	for (int i = 0; i < st.count; i++)
		load_tensor(l, &st, &st.tensors[i]);
	rc = lh_manifest_match(manifest, name, st.map_bytes, XXH64_digest(l->hash), err);
	lh_safetensors_close(&st);
	return rc;
}

static int load_part(const char *path, const json_t *manifest, const struct part *part,
		     struct lh_model *m, struct lh_err *err)
{
	int n = lh_manifest_file_count(manifest, part->kind), rc = 0;
	int tensors = tensor_count(part, m);
	struct loading l = { .part = part, .model = m, .hash = XXH64_createState() };

	LH_ASSERT(l.hash);
	l.found = lh_calloc((size_t)tensors, sizeof(*l.found));
	l.wide = lh_alloc(LOAD_FLOATS * sizeof(*l.wide));
	lh_ahead_new(&l.ahead);
	for (int i = 0; !rc && i < n; i++) {
		char name[LH_MANIFEST_NAME_BYTES];

		lh_manifest_file_name(name, part->kind, i, n);
		rc = load_file(&l, path, name, manifest, err);
	}
	for (int i = 0; !rc && i < tensors; i++)
		if (!l.found[i])
			rc = lh_err_set(err, LH_ECORRUPT, "tensor '%s' is missing or of "
					"another shape", tensor_at(part, m, i).name);
	lh_ahead_free(l.ahead);
	free(l.found);
	free(l.wide);
	XXH64_freeState(l.hash);
	return rc;
}

int lh_checkpoint_load(const char *path, struct lh_model *m, struct lh_progress *p,
		       bool moments, struct lh_err *err)
{
	json_t *manifest = NULL;
	int rc = lh_manifest_read(path, &manifest, err);

	if (!rc)
		rc = lh_manifest_progress(manifest, p, err);
	for (int i = 0; !rc && i < (moments ? PARTS : 1); i++)
		rc = load_part(path, manifest, &parts[i], m, err);
	json_decref(manifest);
	if (rc)
		lh_err_prefix(err, "checkpoint '%s'", path);
	else
		lh_model_weights_changed(m);
	return rc;
}

/* ---- the directory --------------------------------------------------------- */

static int is_checkpoint(const struct dirent *e)
{
	return !strncmp(e->d_name, "step-", 5) && strlen(e->d_name) == 15 &&
	       strspn(e->d_name + 5, "0123456789") == 10;
}

/* Of a name that is_checkpoint takes. */
static int64_t step_of(const struct dirent *e)
{
	return strtoll(e->d_name + 5, NULL, 10);
}

static void free_list(struct dirent **list, int n)
{
	for (int i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

/* One that was set aside, too: not what a torn first write left. */
static int was_checkpoint(const struct dirent *e)
{
	return !strncmp(e->d_name, "step-", 5) &&
	       strspn(e->d_name + 5, "0123456789") == 10 &&
	       strcmp(e->d_name + strlen(e->d_name) - strlen(".tmp"), ".tmp");
}

/* Out of the way of loading and of retention, which would count it. */
static int set_aside(const char *path, const char *why, struct lh_err *err)
{
	char *aside = lh_asprintf("%s.%s", path, why);
	int rc = lh_fs_remove_tree(aside, err); /* an older one of the same step */

	if (!rc && lh_io->rename(path, aside))
		rc = lh_err_set(err, LH_EIO, "cannot rename '%s': %s", path,
				strerror(errno));
	free(aside);
	return rc;
}

/* What is wrong with a checkpoint as the end of its name. */
static const char *ending_of(int rc)
{
	return rc == LH_ECORRUPT || rc == LH_ENOTFOUND ? "damaged" : "unread";
}

/* None could be loaded: whether there ever was one. */
static int none_loaded(const char *dir, struct lh_err *err)
{
	struct dirent **list = NULL;
	int n = scandir(dir, &list, was_checkpoint, alphasort);

	if (n < 0)
		return lh_err_set(err, LH_EIO, "cannot read '%s': %s", dir,
				  strerror(errno));
	free_list(list, n);
	if (!n)
		return lh_err_set(err, LH_ENOTFOUND, "no checkpoint in '%s'", dir);
	lh_err_set(err, LH_ECORRUPT, "none of the checkpoints in '%s' can be used", dir);
	return lh_err_hint(err, "'lhctl verify' says what is wrong with each; repair one, or "
			   "take '.damaged' or '.unread' off its name, then resume");
}

/* Sets aside those above `at` that could not be loaded; endings says as what. */
static int set_aside_above(const char *dir, struct dirent **list, int n, int at,
			   const char **endings, struct lh_err *err)
{
	int rc = 0;

	for (int i = at + 1; !rc && i < n; i++) {
		char *one = lh_asprintf("%s/%s", dir, list[i]->d_name);

		if (endings[i])
			rc = set_aside(one, endings[i], err);
		free(one);
	}
	return rc;
}

int lh_checkpoint_load_newest(const char *dir, int64_t up_to, struct lh_model *m,
			      struct lh_progress *p, char **path,
			      lh_checkpoint_damaged damaged, void *arg,
			      struct lh_err *err)
{
	struct dirent **list = NULL;
	int n = scandir(dir, &list, is_checkpoint, alphasort), at = n, rc = LH_ENOTFOUND;
	const char **endings = lh_calloc(n > 0 ? (size_t)n : 1, sizeof(*endings));
	char *one = NULL;

	while (rc && --at >= 0) {
		if (step_of(list[at]) > up_to)
			continue;
		free(one);
		one = lh_asprintf("%s/%s", dir, list[at]->d_name);
		rc = lh_checkpoint_load(one, m, p, true, err);
		endings[at] = rc ? ending_of(rc) : NULL;
		if (rc)
			damaged(arg, one, err);
	}
	/* Only now: with none to go on from, names are all that is left. */
	if (!rc)
		rc = set_aside_above(dir, list, n, at, endings, err);
	else
		rc = none_loaded(dir, err);
	if (n > 0)
		free_list(list, n);
	free(endings);
	if (rc)
		free(one);
	else
		*path = one;
	return rc;
}

/* Under another name first, for good: what bears a checkpoint's name is whole, and
 * what was removed does not come back. */
static int remove_one(const char *dir, const char *name, struct lh_err *err)
{
	char *at = lh_asprintf("%s/%s", dir, name);
	char *doomed = lh_asprintf("%s/step-removed.tmp", dir);
	int rc = lh_fs_remove_tree(doomed, err);

	LH_FAILPOINT("retention.begin");
	if (!rc && lh_io->rename(at, doomed))
		rc = lh_err_set(err, LH_EIO, "cannot rename '%s': %s", at, strerror(errno));
	LH_FAILPOINT("retention.renamed");
	if (!rc)
		rc = lh_fs_sync_dir(dir, err);
	if (!rc)
		lh_fs_remove_tree(doomed, NULL);
	LH_FAILPOINT("retention.removed");
	free(doomed);
	free(at);
	return rc;
}

static bool is_pinned(const char *dir, const char *name)
{
	char *mark = lh_asprintf("%s/%s/" LH_MANIFEST_PINNED, dir, name);
	bool pinned = lh_fs_exists(mark);

	free(mark);
	return pinned;
}

/* Removes those up to step `newest`, but the last `keep`, those at multiples of
 * keep_every and the one of step `protect`. */
static void remove_some(const char *dir, int64_t newest, int keep, int64_t keep_every,
			int64_t protect)
{
	struct dirent **list = NULL;
	int n = scandir(dir, &list, is_checkpoint, alphasort), counted = n;
	struct lh_err why;

	while (counted > 0 && step_of(list[counted - 1]) > newest)
		counted--;
	for (int i = 0; i < counted - keep; i++)
		if ((!keep_every || step_of(list[i]) % keep_every) &&
		    step_of(list[i]) != protect && !is_pinned(dir, list[i]->d_name) &&
		    remove_one(dir, list[i]->d_name, &why))
			lh_log_err(LH_LOG_WARN, "retention", &why);
	if (n > 0)
		free_list(list, n);
}

void lh_checkpoint_retain(const char *dir, int64_t newest, int keep, int64_t keep_every,
			  int64_t protect)
{
	lh_fs_remove_torn(dir);
	remove_some(dir, newest, keep < 1 ? 1 : keep, keep_every, protect);
}

int lh_checkpoint_remove_after(const char *dir, int64_t step, struct lh_err *err)
{
	struct dirent **list = NULL;
	int n = scandir(dir, &list, is_checkpoint, alphasort), rc = 0;

	/* The newest first: what is left at any moment is a line without gaps. */
	for (int i = n - 1; !rc && i >= 0 && step_of(list[i]) > step; i--) {
		char *at = lh_asprintf("%s/%s", dir, list[i]->d_name);

		rc = is_pinned(dir, list[i]->d_name) ?
			     set_aside(at, "left", err) :
			     remove_one(dir, list[i]->d_name, err);
		free(at);
	}
	if (n > 0)
		free_list(list, n);
	return rc ? rc : lh_fs_sync_dir(dir, err);
}

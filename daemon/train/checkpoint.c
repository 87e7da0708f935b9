/* checkpoint.c: see checkpoint.h; what of it is a rank's part is in snapshot.c. */
#include "train/checkpoint_int.h"

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

enum { LOAD_FLOATS = 256 << 10 /* that stay in a core's cache until they are taken */ };

/* ---- saving ---------------------------------------------------------------- */

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

char *lh_checkpoint_place(const char *dir, int64_t step)
{
	char *final = lh_checkpoint_path(dir, step), *tmp = lh_asprintf("%s.tmp", final);

	if (LH_PLANTED("early_rename"))
		strcpy(tmp, final);
	free(final);
	return tmp;
}

int lh_checkpoint_begin(const char *dir, int64_t step, struct lh_err *err)
{
	char *tmp = lh_checkpoint_place(dir, step);
	int rc;

	if (LH_PLANTED("early_retention"))
		lh_checkpoint_remove_after(dir, -1, err);
	LH_FAILPOINT("checkpoint.begin");
	rc = lh_fs_remove_tree(tmp, err);
	if (!rc)
		rc = lh_fs_mkdirs(tmp, err);
	free(tmp);
	return rc;
}

int lh_checkpoint_finish(const char *dir, const struct lh_progress *p, const json_t *spec,
			 const json_t *origin, json_t *files, char **path, int64_t *bytes,
			 struct lh_err *err)
{
	char *final = lh_checkpoint_path(dir, p->step), *tmp = lh_checkpoint_place(dir, p->step);
	char *mark = lh_asprintf("%s/" LH_MANIFEST_PINNED, final);
	int64_t manifest_bytes;
	/* Last: with a manifest, all is there. */
	int rc = lh_manifest_write(tmp, p, spec, origin, files, &manifest_bytes, err);

	if (!rc && lh_fs_exists(mark))
		rc = lh_checkpoint_pin(tmp, err);
	LH_FAILPOINT("checkpoint.written");
	if (rc)
		lh_checkpoint_abandon(dir, p->step);
	else
		rc = publish(dir, tmp, final, err);
	*bytes += manifest_bytes;
	if (rc)
		free(final);
	else
		*path = final;
	free(mark);
	free(tmp);
	return rc;
}

/* A full disk needs the room. */
void lh_checkpoint_abandon(const char *dir, int64_t step)
{
	char *tmp = lh_checkpoint_place(dir, step);

	lh_fs_remove_tree(tmp, NULL);
	free(tmp);
}

int lh_checkpoint_save(const char *dir, const struct lh_snapshot *s,
		       const struct lh_progress *p, const json_t *spec,
		       const json_t *origin, char **path, int64_t *bytes,
		       struct lh_err *err)
{
	json_t *files = json_object();
	int rc = lh_checkpoint_begin(dir, p->step, err);

	LH_ASSERT(s->ranks == 1);
	if (!rc)
		rc = lh_checkpoint_write(dir, p->step, s, files, bytes, err);
	if (rc)
		lh_checkpoint_abandon(dir, p->step);
	else
		rc = lh_checkpoint_finish(dir, p, spec, origin, files, path, bytes, err);
	json_decref(files);
	return rc;
}

/* ---- loading --------------------------------------------------------------- */

struct loading {
	const struct lh_part *part;
	struct lh_model *model;
	bool *found;             /* of the part's tensors, by their numbers */
	XXH64_state_t *hash;     /* of the file */
	struct lh_ahead *ahead;
	float *wide;             /* LOAD_FLOATS */
	lh_checkpoint_shown shown; /* or NULL */
	void *shown_arg;
};

/* The number of the part's tensor that it is, or -1. */
static int number_of(const struct loading *l, const struct lh_tensor *t)
{
	struct lh_span all = lh_span_of_all(l->model);

	for (int i = 0; i < lh_part_count(l->part, all); i++) {
		struct lh_numbered n = lh_part_tensor(l->part, l->model, all, i);

		if (!strcmp(n.name, t->name))
			return lh_convert_can(t->type) && t->count == n.param->count ? i : -1;
	}
	return -1;
}

static void write_piece(const struct loading *l, const struct lh_numbered *to, int64_t at,
			const void *piece, enum lh_tensor_type type, int64_t n)
{
	if (type != LH_TENSOR_F32) {
		lh_convert(l->wide, LH_TENSOR_F32, piece, type, n);
		piece = l->wide;
	}
	lh_model_write(l->model, to->state, to->param->offset + at, n, piece);
	if (l->shown)
		l->shown(l->shown_arg, to->state, to->param->offset + at, n, piece);
}

/* In pieces, each looked at once: for the file's sum, and by the model. */
static void load_tensor(const struct loading *l, const struct lh_safetensors *st,
			const struct lh_tensor *t)
{
	int number = number_of(l, t), width = lh_tensor_width(t->type);
	struct lh_numbered to = number < 0 ? (struct lh_numbered){ 0 } :
					  lh_part_tensor(l->part, l->model, lh_span_of_all(l->model), number);

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

static int load_part(const char *path, const json_t *manifest, const struct lh_part *part,
		     const struct loading *how, struct lh_err *err)
{
	struct lh_model *m = how->model;
	int n = lh_manifest_file_count(manifest, part->kind), rc = 0;
	int tensors = lh_part_count(part, lh_span_of_all(m));
	struct loading l = *how;

	l.part = part;
	l.hash = XXH64_createState();
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
					"another shape", lh_part_tensor(part, m, lh_span_of_all(m), i).name);
	lh_ahead_free(l.ahead);
	free(l.found);
	free(l.wide);
	XXH64_freeState(l.hash);
	return rc;
}

static int load(const char *path, const struct loading *how, struct lh_progress *p,
		bool moments, struct lh_err *err)
{
	json_t *manifest = NULL;
	int rc = lh_manifest_read(path, &manifest, err);

	if (!rc)
		rc = lh_manifest_progress(manifest, p, err);
	for (int i = 0; !rc && i < (moments ? LH_MANIFEST_KINDS : 1); i++)
		rc = load_part(path, manifest, &lh_parts[i], how, err);
	json_decref(manifest);
	if (rc)
		lh_err_prefix(err, "checkpoint '%s'", path);
	else
		lh_model_weights_changed(how->model);
	return rc;
}

int lh_checkpoint_load(const char *path, struct lh_model *m, struct lh_progress *p,
		       bool moments, struct lh_err *err)
{
	return load(path, &(struct loading){ .model = m }, p, moments, err);
}

int lh_checkpoint_show(const char *path, struct lh_model *m, bool moments,
		       lh_checkpoint_shown shown, void *arg, struct lh_err *err)
{
	struct loading how = { .model = m, .shown = shown, .shown_arg = arg };
	struct lh_progress p;

	return load(path, &how, &p, moments, err);
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

/* weights.c: see weights.h. */
#include "train/weights.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "data/ahead.h"
#include "data/convert.h"
#include "jobs/jobfile.h"

/* Of a file, before its pages are given back. */
enum { HASH_BYTES = 4 << 20 };

static uint64_t hash_of(const struct lh_safetensors *st, struct lh_ahead *ahead)
{
	XXH64_state_t *state = XXH64_createState();
	uint64_t hash;

	LH_ASSERT(state);
	XXH64_reset(state, 0);
	for (int64_t at = 0; at < st->map_bytes; at += HASH_BYTES) {
		int64_t left = st->map_bytes - at, n = left < HASH_BYTES ? left : HASH_BYTES;
		const char *piece = (const char *)st->map + at;

		lh_ahead_look(ahead, st, piece);
		XXH64_update(state, piece, (size_t)n);
		lh_safetensors_forget(st, piece, n);
	}
	hash = XXH64_digest(state);
	XXH64_freeState(state);
	return hash;
}

static int open_file(struct lh_weights *w, const char *dir, const char *name,
		     const json_t *manifest, struct lh_ahead *ahead, struct lh_err *err)
{
	struct lh_safetensors *st = &w->file[w->files];
	char *path = lh_asprintf("%s/%s", dir, name);
	int rc = lh_safetensors_open(st, path, err);

	free(path);
	if (rc)
		return rc;
	w->files++;
	return lh_manifest_match(manifest, name, st->map_bytes, hash_of(st, ahead), err);
}

static int open_files(struct lh_weights *w, const char *dir, const json_t *manifest,
		      struct lh_err *err)
{
	int n = lh_manifest_file_count(manifest, LH_MANIFEST_PARAMS), rc = 0;
	struct lh_ahead *ahead;

	w->file = lh_calloc((size_t)n, sizeof(*w->file));
	lh_ahead_new(&ahead);
	for (int i = 0; !rc && i < n; i++) {
		char name[LH_MANIFEST_NAME_BYTES];

		lh_manifest_file_name(name, LH_MANIFEST_PARAMS, i, n);
		rc = open_file(w, dir, name, manifest, ahead, err);
	}
	lh_ahead_free(ahead);
	return rc;
}

static int find(struct lh_weights *w, int i, struct lh_err *err)
{
	const struct lh_param *p = &w->params.table[i];

	for (int f = 0; f < w->files; f++) {
		const struct lh_tensor *t = lh_safetensors_find(&w->file[f], p->name);

		if (!t || !lh_convert_can(t->type) || t->count != p->count)
			continue;
		w->tensor[i] = t;
		w->in[i] = &w->file[f];
		return 0;
	}
	return lh_err_set(err, LH_ECORRUPT, "tensor '%s' is missing or of another shape",
			  p->name);
}

static int open_all(struct lh_weights *w, const char *dir, const json_t *manifest,
		    struct lh_err *err)
{
	int rc = lh_manifest_progress(manifest, &w->progress, err);

	if (!rc)
		rc = lh_jobfile_from_json(&w->job, json_object_get(manifest, "job"), err);
	if (!rc)
		rc = open_files(w, dir, manifest, err);
	if (rc)
		return rc;
	lh_params_init(&w->params, &w->job.model);
	w->tensor = lh_calloc((size_t)w->params.count, sizeof(const struct lh_tensor *));
	w->in = lh_calloc((size_t)w->params.count, sizeof(const struct lh_safetensors *));
	for (int i = 0; !rc && i < w->params.count; i++)
		rc = find(w, i, err);
	return rc;
}

int lh_weights_open(struct lh_weights *w, const char *dir, struct lh_err *err)
{
	json_t *manifest = NULL;
	int rc = lh_manifest_read(dir, &manifest, err);

	memset(w, 0, sizeof(*w));
	if (!rc)
		rc = open_all(w, dir, manifest, err);
	json_decref(manifest);
	if (!rc)
		return 0;
	lh_weights_close(w);
	return lh_err_prefix(err, "checkpoint '%s'", dir);
}

void lh_weights_close(struct lh_weights *w)
{
	for (int i = 0; i < w->files; i++)
		lh_safetensors_close(&w->file[i]);
	free(w->file);
	free(w->tensor);
	free(w->in);
	lh_params_release(&w->params);
	lh_job_release(&w->job);
	memset(w, 0, sizeof(*w));
}

/* hf_import.c: a model of somebody else as a checkpoint of ours; see hf.h.
 *
 * Every tensor is looked up and judged before the first byte is written. Those of two
 * bytes stay so: half as much is written, and read when a job starts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/publish.h"
#include "data/ahead.h"
#include "data/convert.h"
#include "jobs/jobfile.h"
#include "train/checkpoint.h"
#include "train/hf_int.h"
#include "train/manifest.h"

enum { PIECE_ELEMENTS = 1 << 20 };

/* Where a run of one of our tensors comes from. */
struct source {
	const struct lh_tensor *tensor;
	int file;
};

struct import {
	struct lh_hf_dir from;
	struct lh_job job;
	struct lh_params params;
	struct source (*source)[LH_HF_PIECES_MAX]; /* of params.table[i] */
	struct lh_publish out;
	const struct lh_hf_progress *progress;
	int64_t bytes, done_bytes; /* of theirs */
	float *buf;                /* PIECE_ELEMENTS */
	struct lh_ahead *ahead;
	struct lh_hf_written *written;
};

/* ---- judging --------------------------------------------------------------- */

static int check_shape(const struct lh_tensor *t, const struct lh_hf_piece *p,
		       struct lh_err *err)
{
	char want[64], have[LH_TENSOR_DIMS_MAX * 24] = "";
	bool same = t->dims == p->dims;

	for (int i = 0; i < t->dims; i++) {
		size_t used = strlen(have);

		same = same && t->shape[i] == p->shape[i];
		snprintf(have + used, sizeof(have) - used, i ? " x %" PRId64 : "%" PRId64,
			 t->shape[i]);
	}
	if (same)
		return 0;
	snprintf(want, sizeof(want), p->dims == 2 ? "%" PRId64 " x %" PRId64 : "%" PRId64,
		 p->shape[0], p->shape[1]);
	return lh_err_set(err, LH_ECORRUPT, "tensor '%s' is %s, by '%s' it is %s", p->name, have,
			  LH_HF_CONFIG, want);
}

static int find_piece(struct import *x, const struct lh_hf_piece *p, struct source *s,
		      struct lh_err *err)
{
	s->tensor = lh_hf_dir_find(&x->from, p->name, &s->file);
	if (!s->tensor)
		return lh_err_set(err, LH_ECORRUPT, "tensor '%s' is missing", p->name);
	if (!lh_convert_can(s->tensor->type)) {
		lh_err_set(err, LH_EUNSUPPORTED, "tensor '%s' is of integers", p->name);
		return lh_err_hint(err, "bf16, fp16 and fp32 are read; of quantized weights, "
				   "import the model they were made from");
	}
	x->bytes += s->tensor->bytes;
	return check_shape(s->tensor, p, err);
}

/* What older versions saved beside the parameters, and a copy of what is tied. */
static bool may_be_left(const struct import *x, const char *name)
{
	return strstr(name, "rotary_emb.inv_freq") ||
	       (x->job.model.tied && !strcmp(name, "lm_head.weight"));
}

static bool is_used(const struct import *x, const struct lh_tensor *t)
{
	for (int i = 0; i < x->params.count; i++)
		for (int k = 0; k < LH_HF_PIECES_MAX; k++)
			if (x->source[i][k].tensor == t)
				return true;
	return false;
}

/* One that nobody takes is of a model that computes something else. */
static int check_all_used(const struct import *x, struct lh_err *err)
{
	for (int f = 0; f < x->from.files; f++)
		for (int i = 0; i < x->from.file[f].count; i++) {
			const struct lh_tensor *t = &x->from.file[f].tensors[i];

			if (is_used(x, t) || may_be_left(x, t->name))
				continue;
			lh_err_set(err, LH_EUNSUPPORTED, "tensor '%.160s' in '%s' is of no use "
				   "to this model", t->name, x->from.name[f]);
			return lh_err_hint(err, "the model computes something that '%s' does "
					   "not tell of", LH_HF_CONFIG);
		}
	return 0;
}

static int find_all(struct import *x, struct lh_err *err)
{
	int rc = 0;

	lh_params_init(&x->params, &x->job.model);
	x->source = lh_calloc((size_t)x->params.count, sizeof(*x->source));
	for (int i = 0; !rc && i < x->params.count; i++) {
		struct lh_hf_piece piece[LH_HF_PIECES_MAX];
		int n = lh_hf_pieces(piece, &x->params.table[i], &x->job.model);

		for (int k = 0; !rc && k < n; k++)
			rc = find_piece(x, &piece[k], &x->source[i][k], err);
	}
	return rc ? rc : check_all_used(x, err);
}

/* ---- writing --------------------------------------------------------------- */

/* Of our tensor i: that of its pieces, or what holds all of them. */
static enum lh_tensor_type type_of(const struct import *x, int i)
{
	const struct source *s = x->source[i];

	for (int k = 1; k < LH_HF_PIECES_MAX && s[k].tensor; k++)
		if (s[k].tensor->type != s[0].tensor->type)
			return LH_TENSOR_F32;
	return s[0].tensor->type;
}

static int write_piece(struct import *x, const struct source *s, enum lh_tensor_type type,
		       struct lh_safetensors_writer *to, struct lh_err *err)
{
	const struct lh_tensor *t = s->tensor;
	const struct lh_safetensors *file = &x->from.file[s->file];
	int64_t size = lh_tensor_width(t->type), n;
	int rc = 0;

	for (int64_t i = 0; !rc && i < t->count; i += n) {
		const char *from = (const char *)t->data + i * size;
		const void *ours = from;

		n = t->count - i < PIECE_ELEMENTS ? t->count - i : PIECE_ELEMENTS;
		lh_ahead_look(x->ahead, file, from);
		if (type != t->type) {
			lh_convert(x->buf, type, from, t->type, n);
			ours = x->buf;
		}
		rc = lh_safetensors_append(to, ours, (size_t)(n * lh_tensor_width(type)), err);
		lh_safetensors_forget(file, from, n * size);
		x->done_bytes += n * size;
		if (x->progress->moved)
			x->progress->moved(x->progress->arg, x->done_bytes, x->bytes);
	}
	return rc;
}

/* Parameters from .. to - 1 as file `name`. */
static int write_file(struct import *x, const char *name, int from, int to, json_t *files,
		      struct lh_err *err)
{
	struct lh_safetensors_writer *w = lh_safetensors_writer_new();
	char *path = lh_asprintf("%s/%s", x->out.tmp, name);
	int64_t bytes;
	uint64_t hash;
	int rc;

	for (int i = from; i < to; i++) {
		const struct lh_param *p = &x->params.table[i];

		lh_safetensors_declare(w, p->name, type_of(x, i), p->cols == 1 ? 1 : 2,
				       (const int64_t[]){ p->rows, p->cols });
	}
	rc = lh_safetensors_begin(w, path, NULL, err);
	free(path);
	for (int i = from; !rc && i < to; i++)
		for (int k = 0; !rc && k < LH_HF_PIECES_MAX && x->source[i][k].tensor; k++)
			rc = write_piece(x, &x->source[i][k], type_of(x, i), w, err);
	if (rc) {
		lh_safetensors_abort(w);
		return rc;
	}
	rc = lh_safetensors_commit(w, &bytes, &hash, err);
	lh_manifest_add_file(files, name, bytes, hash);
	x->written->bytes += bytes;
	return rc;
}

static int64_t bytes_of(const struct import *x, int i)
{
	return x->params.table[i].count * lh_tensor_width(type_of(x, i));
}

/* The first parameter that is not in the file that begins with `from`. */
static int file_end(const struct import *x, int from)
{
	int64_t bytes = 0;
	int i = from;

	do {
		bytes += bytes_of(x, i++);
	} while (i < x->params.count && bytes + bytes_of(x, i) <= LH_CHECKPOINT_FILE_BYTES);
	return i;
}

static int write_files(struct import *x, json_t *files, struct lh_err *err)
{
	int n = 0, rc = 0;

	for (int i = 0; i < x->params.count; i = file_end(x, i))
		n++;
	for (int i = 0, from = 0; !rc && i < n; i++) {
		char name[LH_MANIFEST_NAME_BYTES];
		int to = file_end(x, from);

		lh_manifest_file_name(name, LH_MANIFEST_PARAMS, i, n);
		rc = write_file(x, name, from, to, files, err);
		from = to;
	}
	x->written->files = n;
	return rc;
}

static int write_all(struct import *x, struct lh_err *err)
{
	json_t *files = json_object(), *spec = lh_jobfile_to_json(&x->job);
	json_t *path = json_string(x->from.path); /* NULL: not UTF-8 */
	json_t *origin = json_pack("{s:b, s:o}", LH_MANIFEST_WEIGHTS_ONLY, true,
				   "imported_from", path ? path : json_null());
	struct lh_progress p = { .total_steps = -1 };
	int64_t bytes;
	int rc = write_files(x, files, err);

	lh_watch_init(&p.watch);
	lh_settings_of_job(&p.settings, &x->job);
	if (!rc)
		rc = lh_manifest_write(x->out.tmp, &p, spec, origin, files, &bytes, err);
	json_decref(origin);
	json_decref(spec);
	json_decref(files);
	return rc;
}

static int name_tokenizer(struct import *x, struct lh_err *err)
{
	char *path;
	int rc = lh_hf_tokenizer_find(x->from.path, x->job.model.vocab, &path,
				      &x->written->left_out, err);

	x->written->has_tokenizer = path;
	if (path) {
		free(x->job.data.tokenizer);
		x->job.data.tokenizer = path;
	}
	return rc;
}

static int read_all(struct import *x, const char *from, struct lh_err *err)
{
	int rc = lh_hf_dir_open(&x->from, from, err);

	if (!rc)
		rc = lh_hf_job_of(&x->job, &x->written->model, x->from.config, err);
	if (!rc)
		rc = name_tokenizer(x, err);
	if (!rc)
		rc = find_all(x, err);
	return rc ? lh_err_prefix(err, "'%s'", from) : 0;
}

int lh_hf_import(const char *from, const char *dir, bool replace,
		 const struct lh_hf_progress *progress, struct lh_hf_written *written,
		 struct lh_err *err)
{
	struct import x = { .progress = progress, .written = written };
	int rc;

	*written = (struct lh_hf_written){ 0 };
	rc = read_all(&x, from, err);
	written->parameters = x.params.floats;
	if (!rc)
		rc = lh_publish_begin(&x.out, dir, replace ? LH_MANIFEST_FILE : NULL, err);
	if (!rc) {
		x.buf = lh_alloc(PIECE_ELEMENTS * 4);
		lh_ahead_new(&x.ahead);
		rc = write_all(&x, err);
		if (rc)
			lh_publish_abort(&x.out);
		else
			rc = lh_publish_commit(&x.out, err);
	}
	lh_ahead_free(x.ahead);
	free(x.buf);
	free(x.source);
	lh_params_release(&x.params);
	lh_job_release(&x.job);
	lh_hf_dir_close(&x.from);
	return rc;
}

/* hf_export.c: a checkpoint's parameters as files of Hugging Face; see hf.h.
 *
 * Twice over the same list: files and the index name each other, so which tensor goes
 * where is decided before the first is written. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/publish.h"
#include "data/ahead.h"
#include "data/convert.h"
#include "train/hf_int.h"
#include "train/weights.h"

enum { PIECE_ELEMENTS = 1 << 20 };

/* Their tensors, in the order of ours. */
struct item {
	struct lh_hf_piece piece;
	const struct lh_tensor *ours;
	const struct lh_safetensors *file_of_ours;
	int file; /* of theirs that is to hold it, from 0 */
};

struct export {
	const struct lh_hf_export *how;
	struct lh_weights w;
	struct lh_publish out;
	struct item *item;
	int items, files;
	int64_t size; /* of an element of theirs */
	int64_t bytes, done_bytes;
	void *buf; /* PIECE_ELEMENTS */
	struct lh_ahead *ahead;
	struct lh_vocabulary vocabulary;
	bool has_tokenizer; /* a file, which the vocabulary is of */
};

static void list_items(struct export *x)
{
	const struct lh_params *p = &x->w.params;
	int64_t in_file = 0;

	x->item = lh_calloc((size_t)p->count * LH_HF_PIECES_MAX, sizeof(*x->item));
	for (int i = 0; i < p->count; i++) {
		struct lh_hf_piece piece[LH_HF_PIECES_MAX];
		int n = lh_hf_pieces(piece, &p->table[i], &x->w.job.model);

		for (int k = 0; k < n; k++) {
			struct item *it = &x->item[x->items++];
			int64_t bytes;

			it->piece = piece[k];
			it->ours = x->w.tensor[i];
			it->file_of_ours = x->w.in[i];
			bytes = it->piece.count * x->size;
			if (!x->files || in_file + bytes > x->how->file_bytes) {
				x->files++;
				in_file = 0;
			}
			it->file = x->files - 1;
			in_file += bytes;
			x->bytes += bytes;
		}
	}
}

static void file_name(const struct export *x, int file, char name[64])
{
	if (x->files == 1)
		snprintf(name, 64, LH_HF_SINGLE);
	else
		snprintf(name, 64, "model-%05d-of-%05d.safetensors", file + 1, x->files);
}

static int write_item(struct export *x, const struct item *it,
		      struct lh_safetensors_writer *to, struct lh_err *err)
{
	const struct lh_hf_progress *p = &x->how->progress;
	enum lh_tensor_type type = x->how->type, ours = it->ours->type;
	int64_t lost = 0, width = lh_tensor_width(ours), n;
	int rc = 0;

	for (int64_t i = 0; !rc && i < it->piece.count; i += n) {
		const char *from = (const char *)it->ours->data + (it->piece.from + i) * width;

		n = it->piece.count - i < PIECE_ELEMENTS ? it->piece.count - i : PIECE_ELEMENTS;
		lh_ahead_look(x->ahead, it->file_of_ours, from);
		lost += lh_convert(x->buf, type, from, ours, n);
		lh_safetensors_forget(it->file_of_ours, from, n * width);
		rc = lh_safetensors_append(to, x->buf, (size_t)(n * x->size), err);
		x->done_bytes += n * x->size;
		if (p->moved)
			p->moved(p->arg, x->done_bytes, x->bytes);
	}
	if (rc || !lost)
		return rc;
	lh_err_set(err, LH_ETOOBIG, "%" PRId64 " numbers of '%s' are too large for %s", lost,
		   it->piece.name, type == LH_TENSOR_F16 ? "fp16" : "bf16");
	return lh_err_hint(err, type == LH_TENSOR_F16 ? "--dtype bf16 has the range of fp32" :
							"--dtype fp32 keeps them");
}

/* Items from .. to - 1. transformers wants to be told the format. */
static int write_file(struct export *x, int from, int to, struct lh_err *err)
{
	struct lh_safetensors_writer *w = lh_safetensors_writer_new();
	json_t *meta = json_pack("{s:s}", "format", "pt");
	char name[64], *path;
	uint64_t hash;
	int64_t bytes;
	int rc;

	file_name(x, x->item[from].file, name);
	path = lh_asprintf("%s/%s", x->out.tmp, name);
	for (int i = from; i < to; i++)
		lh_safetensors_declare(w, x->item[i].piece.name, x->how->type,
				       x->item[i].piece.dims, x->item[i].piece.shape);
	rc = lh_safetensors_begin(w, path, meta, err);
	for (int i = from; !rc && i < to; i++)
		rc = write_item(x, &x->item[i], w, err);
	if (rc)
		lh_safetensors_abort(w);
	else
		rc = lh_safetensors_commit(w, &bytes, &hash, err);
	json_decref(meta);
	free(path);
	return rc;
}

static int write_tensors(struct export *x, struct lh_err *err)
{
	int from = 0, rc = 0;

	while (!rc && from < x->items) {
		int to = from;

		while (to < x->items && x->item[to].file == x->item[from].file)
			to++;
		rc = write_file(x, from, to, err);
		from = to;
	}
	return rc;
}

/* As transformers writes it: indented, with an end of line. */
static int write_json_take(struct export *x, const char *name, json_t *value,
			   struct lh_err *err)
{
	char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
	struct lh_buf buf = { 0 };
	int rc;

	LH_ASSERT(text);
	lh_buf_printf(&buf, "%s\n", text);
	rc = lh_publish_file(&x->out, name, buf.data, buf.used_bytes, err);
	lh_buf_release(&buf);
	free(text);
	json_decref(value);
	return rc;
}

static int write_index(struct export *x, struct lh_err *err)
{
	json_t *map = json_object();

	for (int i = 0; i < x->items; i++) {
		char name[64];

		file_name(x, x->item[i].file, name);
		json_object_set_new(map, x->item[i].piece.name, json_string(name));
	}
	return write_json_take(x, LH_HF_INDEX,
			       json_pack("{s:{s:I}, s:o}", "metadata", "total_size",
					 (json_int_t)x->bytes, "weight_map", map),
			       err);
}

/* Weights go out without a tokenizer that is gone. */
static void find_tokenizer(struct export *x, struct lh_err *left_out)
{
	const struct lh_job *job = &x->w.job;

	*left_out = (struct lh_err)LH_ERR_INIT;
	x->has_tokenizer = lh_job_tokenizer(job) == LH_TOKENIZER_FILE &&
			   !lh_vocabulary_read(&x->vocabulary, job->data.tokenizer, left_out);
}

static int write_all(struct export *x, struct lh_err *err)
{
	const struct lh_vocabulary *v = x->has_tokenizer ? &x->vocabulary : NULL;
	int rc = write_json_take(x, LH_HF_CONFIG,
				 lh_hf_config_of(&x->w.job, x->how->type, v), err);

	if (!rc)
		rc = write_json_take(x, "generation_config.json",
				     lh_hf_generation_of(&x->w.job, v), err);
	if (!rc && v)
		rc = lh_hf_tokenizer_copy(x->w.job.data.tokenizer, v, &x->out, err);
	if (!rc && x->files > 1)
		rc = write_index(x, err);
	return rc ? rc : write_tensors(x, err);
}

int lh_hf_export(const char *checkpoint, const char *dir, const struct lh_hf_export *how,
		 struct lh_hf_written *written, struct lh_err *err)
{
	struct export x = { .how = how, .size = how->type == LH_TENSOR_F32 ? 4 : 2 };
	int rc = lh_publish_begin(&x.out, dir, how->replace ? LH_HF_CONFIG : NULL, err);

	if (rc)
		return rc;
	rc = lh_weights_open(&x.w, checkpoint, err);
	if (!rc)
		rc = lh_hf_class(&x.w.job.model, &written->model, err);
	if (!rc) {
		find_tokenizer(&x, &written->left_out);
		list_items(&x);
		x.buf = lh_alloc(PIECE_ELEMENTS * 4);
		lh_ahead_new(&x.ahead);
		rc = write_all(&x, err);
	}
	if (rc)
		lh_publish_abort(&x.out);
	else
		rc = lh_publish_commit(&x.out, err);
	written->has_tokenizer = x.has_tokenizer;
	written->files = x.files;
	written->bytes = x.bytes;
	written->parameters = x.w.params.floats;
	written->step = x.w.progress.step;
	lh_ahead_free(x.ahead);
	free(x.buf);
	free(x.item);
	lh_weights_close(&x.w);
	return rc;
}

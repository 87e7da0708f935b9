/* snapshot.c: a rank's part of a checkpoint: which tensors that is, their copy in host memory,
 * and the files that it becomes; see checkpoint.h.
 *
 * Shards of moments and weights end wherever they do, files have whole tensors, so that they
 * are read as those of one rank are. What of its tensors another rank holds is gathered
 * when the copy is taken: about a tensor at either end, in the memory of activations. */
#include "train/checkpoint_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/safetensors.h"

const struct lh_part lh_parts[LH_MANIFEST_KINDS] = {
	{ LH_MANIFEST_PARAMS, 1, { LH_STATE_PARAM }, { "" } },
	{ LH_MANIFEST_MOMENTS, 2, { LH_STATE_MOMENT1, LH_STATE_MOMENT2 },
	  { ".m", ".v" } },
};
enum { PIECE_FLOATS = 2 << 20 };

/* ---- tensors --------------------------------------------------------------- */

struct lh_span lh_span_of_all(const struct lh_model *m)
{
	struct lh_span s = { 0 };

	lh_model_params(m, &s.to);
	return s;
}

int lh_part_count(const struct lh_part *part, struct lh_span s)
{
	return part->states * (s.to - s.from);
}

struct lh_numbered lh_part_tensor(const struct lh_part *part, const struct lh_model *m,
				  struct lh_span s, int t)
{
	int count, n = s.to - s.from;
	const struct lh_param *params = lh_model_params(m, &count);
	struct lh_numbered at = { .param = &params[s.from + t % n], .state = part->state[t / n] };

	snprintf(at.name, sizeof(at.name), "%s%s", at.param->name, part->suffix[t / n]);
	return at;
}

/* Where those of a rank begin: a tensor is of the rank in whose share of the parameters its
 * middle lies. */
static int begin_of(const struct lh_model *m, int rank, int ranks)
{
	int count, t = 0;
	const struct lh_param *params = lh_model_params(m, &count);
	int64_t place = lh_model_param_count(m) * rank / ranks;

	while (t < count && params[t].offset + params[t].count / 2 < place)
		t++;
	return t;
}

static struct lh_span span_of(const struct lh_snapshot *s, int rank)
{
	return (struct lh_span){ begin_of(s->model, rank, s->ranks),
				 begin_of(s->model, rank + 1, s->ranks) };
}

/* The first parameter of a tensor, or behind the last. */
static int64_t offset_of(const struct lh_model *m, int t)
{
	int count;
	const struct lh_param *params = lh_model_params(m, &count);

	return t < count ? params[t].offset : lh_model_param_count(m);
}

/* ---- the copy --------------------------------------------------------------- */

int lh_snapshot_new(struct lh_snapshot *s, const struct lh_ops *ops, struct lh_dev *dev,
		    struct lh_model *model, int rank, int ranks, struct lh_err *err)
{
	struct lh_span own;
	size_t bytes;

	*s = (struct lh_snapshot){ .ops = ops, .dev = dev, .model = model, .rank = rank,
				   .ranks = ranks, .file_bytes = LH_CHECKPOINT_FILE_BYTES };
	own = span_of(s, rank);
	s->first = offset_of(model, own.from);
	s->count = offset_of(model, own.to) - s->first;
	bytes = (size_t)(s->count ? s->count : 1) * 4;
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
		int bad = lh_model_read_any(s->model, (enum lh_model_state)i, s->first,
					    s->count, s->state[i], rc ? NULL : err);

		rc = rc ? rc : bad;
	}
	return rc;
}

/* ---- files ------------------------------------------------------------------ */

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

static int64_t bytes_of(const struct lh_part *part, const struct lh_snapshot *s,
			struct lh_span own, int t)
{
	return lh_part_tensor(part, s->model, own, t).param->count * 4;
}

/* The first tensor that is not in the file that begins with tensor `from`. */
static int file_end(const struct lh_part *part, const struct lh_snapshot *s, struct lh_span own,
		    int from)
{
	int t = from, n = lh_part_count(part, own);
	int64_t bytes = 0;

	do {
		bytes += bytes_of(part, s, own, t++);
	} while (t < n && bytes + bytes_of(part, s, own, t) <= s->file_bytes);
	return t;
}

/* Of the ranks before this one. */
static int file_count(const struct lh_part *part, const struct lh_snapshot *s, int before)
{
	int n = 0;

	for (int r = 0; r < before; r++) {
		struct lh_span own = span_of(s, r);

		for (int t = 0; t < lh_part_count(part, own); n++)
			t = file_end(part, s, own, t);
	}
	return n;
}

/* Writes tensors from .. to - 1 of its own as DIR/NAME; adds its line to `files`. */
static int save_file(const char *dir, const char *name, const struct lh_part *part,
		     const struct lh_snapshot *s, int from, int to, json_t *files,
		     int64_t *total, struct lh_err *err)
{
	struct lh_safetensors_writer *w = lh_safetensors_writer_new();
	struct lh_span own = span_of(s, s->rank);
	char *path = lh_asprintf("%s/%s", dir, name);
	int64_t bytes;
	uint64_t hash;
	int rc;

	for (int t = from; t < to; t++) {
		struct lh_numbered n = lh_part_tensor(part, s->model, own, t);
		int64_t shape[2] = { n.param->rows, n.param->cols };

		lh_safetensors_declare(w, n.name, LH_TENSOR_F32,
				       n.param->cols == 1 ? 1 : 2, shape);
	}
	rc = lh_safetensors_begin(w, path, NULL, err);
	free(path);
	for (int t = from; !rc && t < to; t++) {
		struct lh_numbered n = lh_part_tensor(part, s->model, own, t);

		rc = save_tensor(w, s, s->state[n.state] + (n.param->offset - s->first),
				 n.param->count, err);
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

static int save_part(const char *dir, const struct lh_part *part, const struct lh_snapshot *s,
		     json_t *files, int64_t *total, struct lh_err *err)
{
	int n = file_count(part, s, s->ranks), from = 0, rc = 0;
	int i = file_count(part, s, s->rank), end = file_count(part, s, s->rank + 1);

	LH_ASSERT(n <= LH_MANIFEST_FILES_MAX);
	for (; !rc && i < end; i++) {
		char name[LH_MANIFEST_NAME_BYTES];
		int to = file_end(part, s, span_of(s, s->rank), from);

		lh_manifest_file_name(name, part->kind, i, n);
		rc = save_file(dir, name, part, s, from, to, files, total, err);
		from = to;
	}
	return rc;
}

int lh_checkpoint_write(const char *dir, int64_t step, const struct lh_snapshot *s,
			json_t *files, int64_t *bytes, struct lh_err *err)
{
	char *tmp = lh_checkpoint_place(dir, step);
	int rc = 0;

	*bytes = 0;
	for (int i = 0; !rc && i < LH_MANIFEST_KINDS; i++)
		rc = save_part(tmp, &lh_parts[i], s, files, bytes, err);
	free(tmp);
	return rc;
}

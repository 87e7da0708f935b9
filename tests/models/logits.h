/* logits.h: logits of a model of Hugging Face, by our import and our CPU ops. */
#ifndef LIGHTHOUSE_TEST_LOGITS_H
#define LIGHTHOUSE_TEST_LOGITS_H

#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"
#include "train/checkpoint.h"
#include "train/hf.h"
#include "train/weights.h"

struct logits {
	struct lh_dev *dev;
	struct lh_model *model;
	int64_t vocab;
	char dir[64]; /* of what was imported, removed at close */
};

/* The model in `hf`, for sequences of `tokens`. */
static inline int logits_open(struct logits *l, const char *hf, int64_t tokens,
			      struct lh_err *err)
{
	struct lh_hf_progress nobody = { 0 };
	struct lh_hf_written written;
	struct lh_weights w = { 0 };
	struct lh_progress p;
	char *to;
	int rc;

	*l = (struct logits){ .dir = "/tmp/lighthouse-logits-XXXXXX" };
	if (!mkdtemp(l->dir))
		return lh_err_set(err, LH_EIO, "no directory");
	to = lh_asprintf("%s/imported", l->dir);
	rc = lh_hf_import(hf, to, false, &nobody, &written, err);
	if (!rc)
		rc = lh_weights_open(&w, to, err);
	if (!rc)
		rc = lh_ops_cpu.open(&l->dev, 0, err);
	if (!rc)
		rc = lh_model_new(&l->model, &lh_ops_cpu, l->dev, NULL, &w.job.model, 1, tokens,
				  NULL, 0, err);
	if (!rc)
		rc = lh_checkpoint_load(to, l->model, &p, false, err);
	l->vocab = w.job.model.vocab;
	lh_weights_close(&w);
	free(to);
	return rc;
}

static inline void logits_close(struct logits *l)
{
	lh_model_free(l->model);
	lh_ops_cpu.close(l->dev);
	lh_fs_remove_tree(l->dir, NULL);
}

/* out (n,V), token by token. */
static inline int logits_of(struct logits *l, const int32_t *tokens, int64_t n, float *out,
			    struct lh_err *err)
{
	struct lh_decoder *d;
	int rc = lh_decoder_new(&d, l->model, n, err);

	if (rc)
		return rc;
	for (int64_t t = 0; !rc && t < n; t++)
		rc = lh_decoder_feed(d, tokens + t, 1, out + t * l->vocab, err);
	lh_decoder_free(d);
	return rc;
}

#endif

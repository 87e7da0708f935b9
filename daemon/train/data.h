/* data.h: which tokens a sequence of training sees.
 *
 * The training shards are cut into windows of seq_len + 1 tokens at a stride of
 * seq_len (the last token of one is the first of the next, so every token is
 * predicted once an epoch); a shard's tail shorter than a window is left out. With
 * data.documents: separate a window is a sequence of packing.h, and nothing is left out.
 * Each epoch goes through all windows in another order, a permutation that is
 * computed, not stored. Of a mixture each source has epochs of its own, and mix.h
 * says which one gives a sequence. The only state is `cursor`, sequences drawn since
 * the start of the job, and the mixture where its weights were set. Training thread.
 */
#ifndef LIGHTHOUSE_DATA_H
#define LIGHTHOUSE_DATA_H

#include "lighthouse/job.h"
#include "lighthouse/shard.h"
#include "train/mix.h"
#include "train/packing.h"

struct lh_data {
	int64_t seq_len;
	int64_t vocab;
	uint64_t seed;
	struct lh_shard *shards;
	int64_t *first;     /* (shards + 1) windows before each shard */
	int count;
	struct lh_packing *packing; /* (count), or NULL: documents are not kept apart */
	struct lh_mix mix;  /* the job file's, until the caller has another */
	int source[LH_SOURCES_MAX + 1]; /* shards before each source of a mixture */
	struct lh_shard validation[LH_SETS_MAX];
	struct lh_packing validation_packing[LH_SETS_MAX]; /* where `packing` is */
	int validation_count;
};

/* `scan`, or NULL, is asked before each shard, and while documents are looked for; told to
 * leave off, LH_ESTATE. */
int lh_data_open(struct lh_data *d, const struct lh_job *job, const struct lh_scan *scan,
		 struct lh_err *err);
void lh_data_close(struct lh_data *d);

int64_t lh_data_windows(const struct lh_data *d); /* sequences there are */
/* Epochs completed before draw number `cursor`, of the source that has most. */
int64_t lh_data_epoch(const struct lh_data *d, int64_t cursor);
/* The window that draw number `cursor` takes. */
int64_t lh_data_window(const struct lh_data *d, int64_t cursor);

/* The shard that draw `cursor` takes its window from, which is [*from, *to). */
const struct lh_shard *lh_data_locate(const struct lh_data *d, int64_t cursor,
				      int64_t *from, int64_t *to);
/* Rows of draw `cursor` that have a target. */
int64_t lh_data_targets(const struct lh_data *d, int64_t cursor);

/* tokens, targets (seq_len) of draw `cursor`, and starts (seq_len) where documents are
 * kept apart, as in model.h; else it is not touched, and may be NULL. LH_EDATA names file
 * and position of an id that the model does not have. */
int lh_data_train(const struct lh_data *d, int64_t cursor, int32_t *tokens,
		  int32_t *targets, int32_t *starts, struct lh_err *err);
/* The same of sequence i of n of a validation set, spread evenly over it. One shorter
 * than a window gives what there is; the rest has target -1. */
int lh_data_validation(const struct lh_data *d, int set, int64_t i, int64_t n,
		       int32_t *tokens, int32_t *targets, int32_t *starts,
		       struct lh_err *err);

#endif

/* sample.h: what a model goes on with.
 *
 * Text of a model of bytes: ids 0..255 are bytes, LH_BYTES_SEPARATOR separates
 * documents; other ids are never drawn. An empty prompt starts at the separator.
 * Generation ends after max_tokens or at a separator. Text is handed out in whole UTF-8
 * characters; bytes that are none become U+FFFD.
 *
 * Or ids of any model, for whoever has its tokenizer: the prompt is ids, and so is what
 * comes out; the caller says which id ends it and which are its.
 *
 * A draw depends on the weights, the arguments and the seed alone. Training thread.
 */
#ifndef LIGHTHOUSE_SAMPLE_H
#define LIGHTHOUSE_SAMPLE_H

#include <jansson.h>

#include "lighthouse/job.h"
#include "train/model.h"

struct lh_sample_args {
	const char *prompt;   /* borrowed */
	size_t prompt_bytes;
	int64_t max_tokens;
	double temperature;   /* 0 = the likeliest */
	int64_t top_k;        /* among so many of the likeliest; 0 = all */
	double top_p;         /* and of those the fewest with this share; 1 = all */
	uint64_t seed;
	const json_t *ids;    /* the prompt, in place of text; borrowed, NULL: text */
	int64_t stop, below;  /* of ids: that ends it, -1 = none; above all that are drawn */
};

/* From JSON as in proto.h; absent keys get job.sample's defaults. Borrows
 * `json`'s strings. LH_EPARAMS names what is wrong. */
int lh_sample_parse(struct lh_sample_args *args, const json_t *json,
		    struct lh_err *err);

/* One of the ids that `logits` are of, by the arguments; draw number `position` of the
 * seed. */
int32_t lh_sample_draw(const float *logits, int64_t ids, const struct lh_sample_args *args,
		       int64_t position);

/* `piece(arg, {text} or {ids})` is called with what is new; non-zero stops early.
 * *result: {text or ids, tokens, step}, new reference. LH_EPARAMS: ids that are none of
 * the job's model, or text of a job whose tokenizer is a file. */
int lh_sample_run(struct lh_model *model, const struct lh_job *job, int64_t step,
		  const struct lh_sample_args *args,
		  int (*piece)(void *arg, json_t *piece), void *arg,
		  json_t **result, struct lh_err *err);

#endif

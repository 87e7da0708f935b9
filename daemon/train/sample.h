/* sample.h: text from a model of bytes.
 *
 * Ids 0..255 are bytes, LH_BYTES_SEPARATOR separates documents; other ids are
 * never drawn. An empty prompt starts at the separator. Generation ends after
 * max_tokens or at a separator. Text is handed out in whole UTF-8 characters;
 * bytes that are none become U+FFFD. A draw depends on the weights, the
 * arguments and the seed alone. Training thread.
 */
#ifndef LIGHTHOUSE_SAMPLE_H
#define LIGHTHOUSE_SAMPLE_H

#include <jansson.h>

#include "train/model.h"

struct lh_sample_args {
	const char *prompt;   /* borrowed */
	size_t prompt_bytes;
	int64_t max_tokens;
	double temperature;   /* 0 = the likeliest */
	int64_t top_k;        /* among so many of the likeliest; 0 = all */
	double top_p;         /* and of those the fewest with this share; 1 = all */
	uint64_t seed;
};

/* From JSON as in proto.h; absent keys get job.sample's defaults. Borrows
 * `json`'s strings. LH_EPARAMS names what is wrong. */
int lh_sample_parse(struct lh_sample_args *args, const json_t *json,
		    struct lh_err *err);

/* One of the ids that `logits` are of, by the arguments; draw number `position` of the
 * seed. At most LH_BYTES_VOCAB ids. */
int32_t lh_sample_draw(const float *logits, int ids, const struct lh_sample_args *args,
		       int64_t position);

/* `piece(arg, text)` is called with text as it grows; non-zero stops early.
 * *result: {text, tokens, step}, new reference. */
int lh_sample_run(struct lh_model *model, int64_t vocab, int64_t step,
		  const struct lh_sample_args *args,
		  int (*piece)(void *arg, const char *text), void *arg,
		  json_t **result, struct lh_err *err);

#endif

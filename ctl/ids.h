/* ids.h: the parts of `lhctl ids`: what evaluations ask a model, in ids of a tokenizer.
 *
 *   ids_passkey.c  words of texts that hide a digit (train/passkey.h)
 *   ids_choices.c  multiple choice (train/choices.h)
 *
 * `hash` is the xxh64 of the tokenizer's file, which both write down: a job refuses what
 * was made of another. Errors are those of ctl_tokenizer_encode, and LH_EDATA.
 */
#ifndef LIGHTHOUSE_CTL_IDS_H
#define LIGHTHOUSE_CTL_IDS_H

#include <stdint.h>

#include "base/buf.h"
#include "tokenizer.h"

/* Appends the file to `out`. LH_EUNSUPPORTED: the tokenizer has no id for each digit, or
 * cuts text elsewhere than between words. */
int ids_of_passkey(struct ctl_tokenizer *t, uint64_t hash, struct lh_buf *out,
		   struct lh_err *err);
/* Appends the lines of a file with their ids; *items: how many. An error names file and
 * line. */
int ids_of_choices(struct ctl_tokenizer *t, uint64_t hash, const char *path,
		   struct lh_buf *out, int64_t *items, struct lh_err *err);

#endif

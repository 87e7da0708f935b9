/* vocabulary.h: what a tokenizer's file says of its ids, without running it.
 *
 * Read are Hugging Face's tokenizer.json and SentencePiece's .model, known by their
 * contents. Which ids begin and end a text a tokenizer.json does not tell: it stands in
 * tokenizer_config.json or special_tokens_map.json beside it, if anywhere.
 *
 * The files are foreign: sizes and depth are limited, and what is read takes memory in
 * proportion to them. Nothing is made of text here, that is ctl/tokenizer.h. Blocking;
 * any thread.
 */
#ifndef LIGHTHOUSE_VOCABULARY_H
#define LIGHTHOUSE_VOCABULARY_H

#include <stdint.h>

#include "lighthouse/err.h"

enum lh_vocabulary_kind { LH_VOCABULARY_JSON, LH_VOCABULARY_SENTENCEPIECE };

struct lh_vocabulary {
	enum lh_vocabulary_kind kind;
	int64_t size;     /* ids are below it */
	int64_t bos, eos; /* that begin and end a text; -1: it is not told */
	uint64_t hash;    /* xxh64 of the file */
};

/* LH_EDATA names the file and what is wrong with it: missing, cut, neither of the two,
 * ids that are none, merges left out by chance. */
int lh_vocabulary_read(struct lh_vocabulary *v, const char *path, struct lh_err *err);

/* The id of a token by its text, as "</s>". LH_EDATA: there is none, or the file is
 * damaged. */
int lh_vocabulary_find(const char *path, const char *token, int64_t *id,
		       struct lh_err *err);

#endif

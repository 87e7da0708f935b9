/* vocabulary_int.h: SentencePiece's part of vocabulary.c. */
#ifndef LIGHTHOUSE_VOCABULARY_INT_H
#define LIGHTHOUSE_VOCABULARY_INT_H

#include "data/vocabulary.h"

/* As many ids as a model may have (model.vocab). */
#define LH__VOCABULARY_IDS_MAX (INT64_C(1) << 24)

/* 0, or -1: it is no model. */
int lh__vocabulary_read_pieces(struct lh_vocabulary *v, const char *data, size_t bytes);
/* -1: there is none. */
int64_t lh__vocabulary_find_piece(const char *data, size_t bytes, const char *token);

#endif

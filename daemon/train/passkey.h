/* passkey.h: texts that hide a digit, and what is asked of them.
 *
 * A text is `context` ids of random letters and digits, in which one sentence says the
 * digit; it ends with the beginning of that sentence, so that the next id is the answer:
 *
 *   kd82hs...0q The pass key is 7. p3m9...xw1 The pass key is
 *
 * Depth says where the sentence stands: 0 at the start, 100 right before the question.
 * Contexts double from `from` up to the length of a sequence, which is the last one.
 * Texts follow from the seed: the same at every look.
 *
 * What a text is made of are words, in ids. Where ids are bytes they are built in, and
 * filler is single characters. For any other tokenizer a file has them, which lhctl
 * makes ('lhctl ids --passkey'), since nobody else has tokenizers:
 *
 *   {"passkey": 1, "tokenizer": "16 hex digits: xxh64 of its file",
 *    "question": [ids], "digits": [10 ids], "end": [ids], "words": [[ids], ...]}
 *
 * Filler is then words of letters and digits with a blank before each: ids of one behind
 * the other are those of the text, which lhctl makes sure of. Some words have one id, so
 * that a text has as many as it is to have. `question`, a digit and `end` are the
 * sentence: a tokenizer will do that has an id for each digit in that place, and no
 * matter whether the blank before it is in that id or in the question.
 *
 * Pure but for reading the file; any thread.
 */
#ifndef LIGHTHOUSE_PASSKEY_H
#define LIGHTHOUSE_PASSKEY_H

#include <stdint.h>

#include "lighthouse/err.h"
#include "lighthouse/job.h"

#define LH_PASSKEY_DEPTHS 7
#define LH_PASSKEY_CONTEXTS_MAX 20
#define LH_PASSKEY_CONTEXT_MIN 64 /* the sentence, the question, some filler */
enum { LH_PASSKEY_SAID_IDS_MAX = 48,  /* of sentence and question */
       LH_PASSKEY_WORD_IDS_MAX = 16, LH_PASSKEY_WORDS_MAX = 1 << 14 };

extern const int lh_passkey_depths[LH_PASSKEY_DEPTHS]; /* percent */

struct lh_passkey_part {
	int32_t from, count; /* of the ids */
};

struct lh_passkey_words {
	int32_t *ids;
	struct lh_passkey_part question, end;
	int32_t digit[10];
	struct lh_passkey_part *filler; /* those of one id come first */
	int filler_count, one_id_count; /* 0: there are no words */
	uint64_t tokenizer;             /* 0: ids are bytes */
};

/* Those of a job: of its file, or bytes; none where its ids are not bytes and it names no
 * file. LH_EDATA says what is wrong with a file; LH_ENOTFOUND. None after an error. */
int lh_passkey_words_read(struct lh_passkey_words *w, const struct lh_job *job,
			  struct lh_err *err);
void lh_passkey_words_release(struct lh_passkey_words *w); /* an empty one is allowed */

/* Contexts of a job, ascending; `from` and `seq_len` at least LH_PASSKEY_CONTEXT_MIN.
 * Returns how many. */
int lh_passkey_contexts(int64_t from, int64_t seq_len,
			int64_t contexts[LH_PASSKEY_CONTEXTS_MAX]);
/* tokens (seq_len) <- sample number `sample`, zeros behind it. Returns the digit. The
 * row that predicts it is context - 1. */
int lh_passkey_text(const struct lh_passkey_words *w, uint64_t seed, int64_t sample,
		    int64_t context, int depth_percent, int64_t seq_len, int32_t *tokens);
/* The digit that logits (of all ids) rank highest; of equals the smallest. */
int lh_passkey_answer(const struct lh_passkey_words *w, const float *logits);

#endif

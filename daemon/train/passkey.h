/* passkey.h: texts that hide a digit, and what is asked of them.
 *
 * A text is `context` bytes of random letters and digits, in which one sentence says
 * the digit; it ends with the beginning of that sentence, so that the next byte is the
 * answer:
 *
 *   kd82hs...0q The pass key is 7. p3m9...xw1 The pass key is
 *
 * Depth says where the sentence stands: 0 at the start, 100 right before the question.
 * Contexts double from `from` up to the length of a sequence, which is the last one.
 * Texts follow from the seed: the same at every look. Pure; any thread.
 */
#ifndef LIGHTHOUSE_PASSKEY_H
#define LIGHTHOUSE_PASSKEY_H

#include <stdint.h>

#define LH_PASSKEY_DEPTHS 7
#define LH_PASSKEY_CONTEXTS_MAX 20
#define LH_PASSKEY_CONTEXT_MIN 64 /* the sentence, the question, some filler */

extern const int lh_passkey_depths[LH_PASSKEY_DEPTHS]; /* percent */

/* Contexts of a job, ascending; `from` and `seq_len` at least LH_PASSKEY_CONTEXT_MIN.
 * Returns how many. */
int lh_passkey_contexts(int64_t from, int64_t seq_len,
			int64_t contexts[LH_PASSKEY_CONTEXTS_MAX]);
/* tokens (seq_len) <- sample number `sample` as byte ids, zeros behind it. Returns the
 * digit. The row that predicts it is context - 1. */
int lh_passkey_text(uint64_t seed, int64_t sample, int64_t context, int depth_percent,
		    int64_t seq_len, int32_t *tokens);
/* The digit that logits (of all ids) rank highest; of equals the smallest. */
int lh_passkey_answer(const float *logits);

#endif

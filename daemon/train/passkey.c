/* passkey.c: see passkey.h. */
#include "train/passkey.h"

#include <string.h>

#include "lighthouse/err.h"
#include "train/rng.h"

static const char QUESTION[] = " The pass key is ";
static const char alphabet[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			       "0123456789";

const int lh_passkey_depths[LH_PASSKEY_DEPTHS] = { 0, 15, 30, 50, 70, 85, 100 };

int lh_passkey_contexts(int64_t from, int64_t seq_len,
			int64_t contexts[LH_PASSKEY_CONTEXTS_MAX])
{
	int n = 0;

	for (; from < seq_len && n < LH_PASSKEY_CONTEXTS_MAX - 1; from *= 2)
		contexts[n++] = from;
	contexts[n++] = seq_len;
	return n;
}

static void put(int32_t *tokens, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		tokens[i] = (unsigned char)text[i];
}

/* A number of its own for each text and block. */
static void draw(uint64_t seed, int64_t sample, int64_t context, int depth, int64_t block,
		 uint32_t r[4])
{
	uint32_t key[4];

	lh_rng_block(seed, LH_RNG_PASSKEY, (uint64_t)sample << 8 | (uint64_t)depth, key);
	lh_rng_block((uint64_t)key[0] << 32 | key[1], LH_RNG_PASSKEY,
		     (uint64_t)context << 32 | (uint64_t)block, r);
}

int lh_passkey_text(uint64_t seed, int64_t sample, int64_t context, int depth_percent,
		    int64_t seq_len, int32_t *tokens)
{
	int64_t question = (int64_t)strlen(QUESTION), needle = question + 3;
	int64_t room = context - question - needle, at = room * depth_percent / 100;
	uint32_t r[4];
	int digit;

	LH_ASSERT(context >= LH_PASSKEY_CONTEXT_MIN && context <= seq_len);
	for (int64_t i = 0; i < context; i++) {
		if (i % 4 == 0)
			draw(seed, sample, context, depth_percent, 1 + i / 4, r);
		tokens[i] = (unsigned char)alphabet[r[i % 4] % (sizeof(alphabet) - 1)];
	}
	draw(seed, sample, context, depth_percent, 0, r);
	digit = (int)(r[0] % 10);
	put(tokens + at, QUESTION, (size_t)question);
	tokens[at + question] = '0' + digit;
	put(tokens + at + question + 1, ". ", 2);
	put(tokens + context - question, QUESTION, (size_t)question);
	memset(tokens + context, 0, (size_t)(seq_len - context) * sizeof(*tokens));
	return digit;
}

int lh_passkey_answer(const float *logits)
{
	int best = 0;

	for (int d = 1; d < 10; d++)
		if (logits['0' + d] > logits['0' + best])
			best = d;
	return best;
}

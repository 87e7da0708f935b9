/* passkey.c: the texts; see passkey.h. What they are made of: passkey_words.c. */
#include "train/passkey.h"

#include <string.h>

#include "lighthouse/err.h"
#include "train/rng.h"

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

/* Random numbers of a text, one a position; those of a block of four are drawn at once. */
struct draw {
	uint64_t seed;  /* of this text alone */
	int64_t context, block;
	uint32_t r[4];
};

static void start_draw(struct draw *d, uint64_t seed, int64_t sample, int64_t context,
		       int depth_percent)
{
	uint32_t key[4];

	lh_rng_block(seed, LH_RNG_PASSKEY, (uint64_t)sample << 8 | (uint64_t)depth_percent,
		     key);
	*d = (struct draw){ .seed = (uint64_t)key[0] << 32 | key[1], .context = context,
			    .block = -1 };
}

static uint32_t draw_at(struct draw *d, int64_t block, int64_t place)
{
	if (block != d->block)
		lh_rng_block(d->seed, LH_RNG_PASSKEY,
			     (uint64_t)d->context << 32 | (uint64_t)block, d->r);
	d->block = block;
	return d->r[place];
}

static int64_t put(const struct lh_passkey_words *w, struct lh_passkey_part part,
		   int32_t *tokens)
{
	memcpy(tokens, w->ids + part.from, (size_t)part.count * sizeof(*tokens));
	return part.count;
}

/* Positions [from, to). A word that is too long for what is left gives way to one of
 * one id. */
static void fill(const struct lh_passkey_words *w, struct draw *d, int64_t from, int64_t to,
		 int32_t *tokens)
{
	while (from < to) {
		uint32_t r = draw_at(d, 1 + from / 4, from % 4);
		struct lh_passkey_part word = w->filler[r % (uint32_t)w->filler_count];

		if (word.count > to - from)
			word = w->filler[r % (uint32_t)w->one_id_count];
		from += put(w, word, tokens + from);
	}
}

int lh_passkey_text(const struct lh_passkey_words *w, uint64_t seed, int64_t sample,
		    int64_t context, int depth_percent, int64_t seq_len, int32_t *tokens)
{
	int64_t question = w->question.count, said = question + 1 + w->end.count;
	int64_t room = context - question - said, at = room * depth_percent / 100;
	struct draw d;
	int digit;

	LH_ASSERT(w->one_id_count && context >= LH_PASSKEY_CONTEXT_MIN && context <= seq_len);
	start_draw(&d, seed, sample, context, depth_percent);
	digit = (int)(draw_at(&d, 0, 0) % 10);
	fill(w, &d, 0, at, tokens);
	put(w, w->question, tokens + at);
	tokens[at + question] = w->digit[digit];
	put(w, w->end, tokens + at + question + 1);
	fill(w, &d, at + said, context - question, tokens);
	put(w, w->question, tokens + context - question);
	memset(tokens + context, 0, (size_t)(seq_len - context) * sizeof(*tokens));
	return digit;
}

int lh_passkey_answer(const struct lh_passkey_words *w, const float *logits)
{
	int best = 0;

	for (int d = 1; d < 10; d++)
		if (logits[w->digit[d]] > logits[w->digit[best]])
			best = d;
	return best;
}

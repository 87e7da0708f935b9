/* fuzz_passkey.c: a file of words for texts that hide a digit (train/passkey.h). What is
 * taken makes texts of every length and depth, of its own ids alone; what is not is
 * refused in words. */
#include "fuzz.h"
#include "train/passkey.h"

enum { T = 80, V = 300 };

static void check(const struct lh_passkey_words *w)
{
	static float logits[V];
	int32_t tokens[T];

	LH_ASSERT(w->one_id_count > 0 && w->one_id_count <= w->filler_count);
	for (int i = 0; i < 2 * LH_PASSKEY_DEPTHS; i++) {
		int64_t context = i % 2 ? T : LH_PASSKEY_CONTEXT_MIN;
		int digit = lh_passkey_text(w, 1, i, context,
					    lh_passkey_depths[i % LH_PASSKEY_DEPTHS], T, tokens);

		LH_ASSERT(digit >= 0 && digit < 10);
		for (int t = 0; t < T; t++)
			LH_ASSERT(tokens[t] >= 0 && tokens[t] < V);
		logits[w->digit[digit]] = (float)(i + 1);
		LH_ASSERT(lh_passkey_answer(w, logits) == digit);
	}
	memset(logits, 0, sizeof(logits));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct lh_job job = { .model.vocab = V, .data.tokenizer = "none" };
	struct lh_err err = LH_ERR_INIT;
	struct lh_passkey_words w;
	char path[64];
	int fd = fuzz_file(data, bytes, path);

	job.evaluation.passkey.file = path;
	if (lh_passkey_words_read(&w, &job, &err))
		LH_ASSERT(*err.text && *err.hint && !w.ids && !w.filler);
	else
		check(&w);
	lh_passkey_words_release(&w);
	close(fd);
	return 0;
}

/* fuzz_choices.c: a file of multiple choice (train/choices.h), for a job of bytes and for
 * one of other ids. What is taken can be asked; what is not is refused in words. */
#include "fuzz.h"
#include "lighthouse/shard.h"
#include "train/choices.h"

enum { T = 48 };

static void check(const struct lh_choices *c)
{
	int32_t tokens[T], targets[T];
	double nats[LH_ENDINGS_MAX] = { 0 };

	LH_ASSERT(c->count > 0 && c->longest >= 1 && c->longest <= T);
	for (int64_t i = 0; i < c->count; i++) {
		const struct lh_choice *item = &c->items[i];

		LH_ASSERT(item->label >= 0 && item->label < item->endings);
		for (int e = 0; e < item->endings; e++) {
			int asked = 0;

			lh_choices_row(c, i, e, T, tokens, targets);
			for (int t = 0; t < T; t++)
				asked += targets[t] >= 0;
			LH_ASSERT(asked == item->ending[e] && item->length[e] > 0);
		}
		lh_choices_is_right(item, nats, true);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	for (int of_bytes = 0; of_bytes < 2; of_bytes++) {
		struct lh_job job = { .model.vocab = LH_BYTES_VOCAB, .data.seq_len = T,
				      .evaluation.choices.items = 5 };
		struct lh_err err = LH_ERR_INIT;
		struct lh_choices c;
		char path[64];
		int fd = fuzz_file(data, bytes, path);

		job.data.tokenizer = of_bytes ? "bytes" : "none";
		if (lh_choices_read(&c, path, &job, &err))
			LH_ASSERT(*err.text && *err.hint && !c.ids && !c.items);
		else
			check(&c);
		lh_choices_release(&c);
		close(fd);
	}
	return 0;
}

/* fuzz_shard.c: token shards (lighthouse/shard.h), ours and llm.c's, and the windows
 * that training takes from them (train/data.h).
 *
 * Each input is read twice: as it is, and with a header checksum that fits, which no
 * mutation would ever hit. What training is handed is inside the vocabulary. */
#include <xxhash.h>

#include "fuzz.h"
#include "lighthouse/shard.h"
#include "train/data.h"

enum { HEADER_BYTES = 64, SUM_AT = 56, VOCAB = 300, SEQ_LEN = 8, WINDOWS = 16,
       PIECE = 256 };

static void read_all(const struct lh_shard *s)
{
	int32_t ids[PIECE];

	for (int64_t at = 0; at < s->count; at += PIECE)
		lh_shard_read(s, at, s->count - at < PIECE ? s->count - at : PIECE, ids);
}

static void check_window(const int32_t *tokens, const int32_t *targets)
{
	for (int i = 0; i < SEQ_LEN; i++) {
		LH_ASSERT(tokens[i] >= 0 && tokens[i] < VOCAB);
		LH_ASSERT(targets[i] >= -1 && targets[i] < VOCAB);
	}
}

static void train_on(char *path)
{
	struct lh_job job = { .model.vocab = VOCAB,
			      .data = { .train = &path, .train_count = 1,
					.validation = path, .seq_len = SEQ_LEN } };
	int32_t tokens[SEQ_LEN], targets[SEQ_LEN];
	struct lh_err err = LH_ERR_INIT;
	struct lh_data d;

	if (lh_data_open(&d, &job, &err))
		return;
	for (int64_t i = 0; i < WINDOWS; i++)
		if (!lh_data_train(&d, i, tokens, targets, &err))
			check_window(tokens, targets);
	for (int64_t i = 0; i < WINDOWS; i++)
		if (!lh_data_validation(&d, i, WINDOWS, tokens, targets, &err))
			check_window(tokens, targets);
	lh_data_close(&d);
}

static void read_as_shard(const uint8_t *data, size_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;
	char path[64];
	int fd = fuzz_file(data, bytes, path);

	if (lh_shard_open(&s, path, &err)) {
		LH_ASSERT(err.code == LH_EDATA && *err.hint && !s.map);
	} else {
		lh_shard_check_vocab(&s, VOCAB, &err);
		lh_shard_verify(&s, &err);
		read_all(&s);
		lh_shard_close(&s);
		train_on(path);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint8_t *copy;
	uint64_t sum;

	read_as_shard(data, bytes);
	if (bytes < HEADER_BYTES)
		return 0;
	copy = lh_alloc(bytes);
	memcpy(copy, data, bytes);
	sum = XXH64(copy, SUM_AT, 0);
	memcpy(copy + SUM_AT, &sum, sizeof(sum));
	read_as_shard(copy, bytes);
	free(copy);
	return 0;
}

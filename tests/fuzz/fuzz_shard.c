/* fuzz_shard.c: token shards (lighthouse/shard.h), ours, llm.c's and such without a
 * header, and the windows that training takes from them (train/data.h). fuzz_megatron.c
 * has the format of two files.
 *
 * Each input is read several times: as it is, as bare ids, and with a header checksum
 * that fits, which no mutation would ever hit. What training is handed is inside the
 * vocabulary. */
#include <xxhash.h>

#include "fuzz.h"
#include "lighthouse/shard.h"
#include "train/data.h"

enum { HEADER_BYTES = 64, SUM_AT = 56, VOCAB = 300, SEQ_LEN = 8, WINDOWS = 16,
       PIECE = 256 };

static void read_all(const struct lh_shard *s)
{
	int32_t ids[PIECE];
	int64_t from, to;

	for (int64_t at = 0; at < s->count; at += PIECE)
		lh_shard_read(s, at, s->count - at < PIECE ? s->count - at : PIECE, ids);
	lh_shard_document(s, s->count / 2, &from, &to);
	LH_ASSERT(from <= s->count / 2 && s->count / 2 < to && to <= s->count);
}

static void check_window(const int32_t *tokens, const int32_t *targets,
			 const int32_t *starts)
{
	for (int i = 0; i < SEQ_LEN; i++) {
		LH_ASSERT(tokens[i] >= 0 && tokens[i] < VOCAB);
		LH_ASSERT(targets[i] >= -1 && targets[i] < VOCAB);
		LH_ASSERT(starts[i] >= 0 && starts[i] <= i && starts[i] % 4 == 0);
	}
}

static void train_on(char *path, enum lh_shard_format format, enum lh_documents documents)
{
	/* Windows of 4 tokens. */
	struct lh_job job = { .model.vocab = VOCAB,
			      .phase_count = 1,
			      .phases = { { .attention = LH_ATTENTION_LIGHTHOUSE,
					    .lighthouse = { .levels = 3, .pool = 2 } } },
			      .data = { .train = &path, .train_count = 1,
					.validation = { { .path = path } },
					.validation_count = 1, .format = format,
					.documents = documents,
					.seq_len = SEQ_LEN } };
	int32_t tokens[SEQ_LEN], targets[SEQ_LEN], starts[SEQ_LEN] = { 0 };
	struct lh_err err = LH_ERR_INIT;
	struct lh_data d;

	if (lh_data_open(&d, &job, NULL, &err))
		return;
	for (int64_t i = 0; i < WINDOWS; i++)
		if (!lh_data_train(&d, i, tokens, targets, starts, &err))
			check_window(tokens, targets, starts);
	for (int64_t i = 0; i < WINDOWS; i++)
		if (!lh_data_validation(&d, 0, i, WINDOWS, tokens, targets, starts, &err))
			check_window(tokens, targets, starts);
	lh_data_close(&d);
}

static void read_as_shard(const uint8_t *data, size_t bytes, enum lh_shard_format format)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;
	char path[64];
	int fd = fuzz_file(data, bytes, path);

	if (lh_shard_open(&s, path, format, &err)) {
		LH_ASSERT(err.code == LH_EDATA && *err.hint && !s.map);
	} else {
		lh_shard_check_vocab(&s, VOCAB, &err);
		lh_shard_verify(&s, &err);
		read_all(&s);
		lh_shard_close(&s);
		train_on(path, format, LH_DOCUMENTS_ATTEND);
		train_on(path, format, LH_DOCUMENTS_SEPARATE);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint8_t *copy;
	uint64_t sum;

	for (int format = LH_SHARD_AUTO; format <= LH_SHARD_UINT32; format++)
		read_as_shard(data, bytes, (enum lh_shard_format)format);
	if (bytes < HEADER_BYTES)
		return 0;
	copy = lh_alloc(bytes);
	memcpy(copy, data, bytes);
	sum = XXH64(copy, SUM_AT, 0);
	memcpy(copy + SUM_AT, &sum, sizeof(sum));
	read_as_shard(copy, bytes, LH_SHARD_AUTO);
	free(copy);
	return 0;
}

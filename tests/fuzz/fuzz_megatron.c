/* fuzz_megatron.c: Megatron's index with the ids beside it (lighthouse/shard.h).
 *
 * An input is how many bytes of it are the index, in two bytes, the index, and the
 * ids' file. Whatever the index says, a document holds the id that was asked for, and
 * sequences of documents that are kept apart have all their rows. */
#include "fuzz.h"
#include "lighthouse/shard.h"
#include "train/packing.h"

enum { PIECE = 256, SEQ_LEN = 8, WINDOW = 4, VOCAB = 300 };

static void read_documents(const struct lh_shard *s)
{
	int64_t from, to;
	int32_t ids[PIECE];

	for (int64_t at = 0; at < s->count; at += PIECE) {
		lh_shard_document(s, at, &from, &to);
		LH_ASSERT(0 <= from && from <= at && at < to && to <= s->count);
		lh_shard_read(s, at, s->count - at < PIECE ? s->count - at : PIECE, ids);
	}
}

static void read_sequences(const struct lh_shard *s)
{
	int32_t tokens[SEQ_LEN], targets[SEQ_LEN], starts[SEQ_LEN];
	struct lh_err err = LH_ERR_INIT;
	struct lh_packing p;

	lh_packing_init(&p, s, SEQ_LEN, WINDOW, NULL);
	for (int64_t i = 0; i < p.count; i++) {
		int rc = lh_packing_fill(&p, i, VOCAB, tokens, targets, starts, &err);

		LH_ASSERT(rc == 0 || rc == LH_EDATA);
		for (int t = 0; !rc && t < SEQ_LEN; t++)
			LH_ASSERT(starts[t] <= t && starts[t] % WINDOW == 0);
	}
	lh_packing_release(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const char *dir = fuzz_dir();
	char *path = lh_asprintf("%s/x.idx", dir);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;
	size_t index = 0;

	if (bytes >= 2) {
		index = (size_t)(data[0] | data[1] << 8);
		data += 2;
		bytes -= 2;
	}
	index = index < bytes ? index : bytes;
	fuzz_write(dir, "x.idx", data, index);
	fuzz_write(dir, "x.bin", data + index, bytes - index);
	if (lh_shard_open(&s, path, LH_SHARD_AUTO, &err)) {
		LH_ASSERT(err.code == LH_EDATA && *err.hint && !s.map && !s.index);
	} else {
		lh_shard_verify(&s, &err);
		read_documents(&s);
		read_sequences(&s);
		lh_shard_close(&s);
	}
	free(path);
	return 0;
}

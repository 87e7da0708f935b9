/* fuzz_vocabulary.c: what the files of tokenizers say of themselves (data/vocabulary.h).
 *
 * An input is a tokenizer.json or a .model. Ids are inside what the file is said to have,
 * and a token that is looked for has one of them. */
#include "data/vocabulary.h"
#include "fuzz.h"
#include "lighthouse/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const char *tokens[] = { "</s>", "a", "" };
	struct lh_err err = LH_ERR_INIT;
	struct lh_vocabulary v;
	char path[64];
	int fd = fuzz_file(data, bytes, path);
	int rc = lh_vocabulary_read(&v, path, &err);
	int64_t id;

	LH_ASSERT(!rc || (rc == LH_EDATA && *err.hint));
	if (!rc) {
		LH_ASSERT(v.size > 0 && v.size < LH_SHARD_NO_SEPARATOR);
		LH_ASSERT(v.bos >= -1 && v.bos < v.size && v.eos >= -1 && v.eos < v.size);
	}
	for (int i = 0; i < 3; i++) {
		rc = lh_vocabulary_find(path, tokens[i], &id, &err);
		LH_ASSERT(!rc || rc == LH_EDATA);
		LH_ASSERT(rc || id >= 0);
	}
	close(fd);
	return 0;
}

/* bench_data.c: how many tokens a second one core draws for training.
 *
 *   build/bench/bench_data
 *
 * Sequences of a mixture of ours and of two foreign formats, as a step draws them, from
 * files that are in memory. Target: 2 M tokens/s, twenty times what an H100 takes. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "train/data.h"

enum { TOKENS = 32 << 20, VOCAB = 128256, SECONDS_US = 1000000 };

static char dir[] = "/tmp/lh-bench-XXXXXX";

static void must(int rc, const struct lh_err *err)
{
	if (!rc)
		return;
	fprintf(stderr, "error: %s\n", err->text);
	lh_fs_remove_tree(dir, NULL);
	exit(1);
}

static int32_t id_at(int64_t i)
{
	return (int32_t)(i * 7919 % VOCAB);
}

static char *write_ours(void)
{
	char *path = lh_asprintf("%s/ours.bin", dir);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;

	must(lh_shard_writer_new(&w, path, VOCAB, LH_SHARD_NO_SEPARATOR, &err), &err);
	for (int64_t i = 0; i < TOKENS; i++) {
		int32_t id = id_at(i);

		must(lh_shard_writer_add(w, &id, 1, &err), &err);
	}
	must(lh_shard_writer_commit(w, 1, &err), &err);
	return path;
}

/* llm.c's: 256 integers, then ids of two bytes (GPT-2) or four (Llama 3). */
static char *write_llmc(int width)
{
	char *path = lh_asprintf("%s/llmc%d.bin", dir, width);
	int32_t header[256] = { width == 2 ? 20240520 : 20240801, width == 2 ? 1 : 7, TOKENS };
	FILE *f = fopen(path, "we");

	if (!f)
		exit(1);
	fwrite(header, sizeof(header), 1, f);
	for (int64_t i = 0; i < TOKENS; i++) {
		int32_t id = id_at(i) % (width == 2 ? 50257 : VOCAB);

		fwrite(&id, (size_t)width, 1, f);
	}
	fclose(f);
	return path;
}

/* Tokens a second of a second's draws. */
static double rate(const struct lh_data *d, int64_t seq_len)
{
	int32_t *tokens = lh_calloc((size_t)seq_len, 4), *targets = lh_calloc((size_t)seq_len, 4);
	struct lh_err err = LH_ERR_INIT;
	int64_t start, draws = 0, from = 0;

	/* Once through all of it: the pages are there. */
	for (; from < lh_data_windows(d); from++)
		must(lh_data_train(d, from, tokens, targets, NULL, &err), &err);
	start = lh_clock_us();
	while (lh_clock_us() - start < SECONDS_US) {
		must(lh_data_train(d, from + draws, tokens, targets, NULL, &err), &err);
		draws++;
	}
	free(tokens);
	free(targets);
	return (double)(draws * seq_len) / (double)(lh_clock_us() - start) * 1e6;
}

int main(void)
{
	static const int64_t lengths[] = { 512, 8192, 98304 };
	char *train[3];
	struct lh_job job = {
		.model.vocab = VOCAB,
		.data = { .train = train, .train_count = 3, .source_count = 3,
			  .sources = { { .weight = 3, .shards = 1 }, { .weight = 1, .shards = 1 },
				       { .weight = 0.5, .shards = 1 } } } };
	struct lh_err err = LH_ERR_INIT;

	if (!mkdtemp(dir))
		return 1;
	train[0] = write_ours();
	train[1] = write_llmc(2);
	train[2] = write_llmc(4);
	for (int i = 0; i < 3; i++) {
		struct lh_data d;

		job.data.seq_len = lengths[i];
		must(lh_data_open(&d, &job, NULL, &err), &err);
		printf("sequences of %6lld tokens, a mixture of three files: %.1f M tokens/s on one "
		       "core  target >= 2\n", (long long)lengths[i], rate(&d, lengths[i]) / 1e6);
		lh_data_close(&d);
	}
	for (int i = 0; i < 3; i++)
		free(train[i]);
	lh_fs_remove_tree(dir, NULL);
	return 0;
}

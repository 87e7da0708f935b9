/* data.c: see data.h.
 *
 * The permutation of an epoch is a four-round Feistel network over the smallest
 * even number of bits that holds the windows, with Philox as round function;
 * a value past the end is put through again until it is inside (cycle walking),
 * which keeps it a permutation. */
#include "train/data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "train/rng.h"

/* Windows of a source, and in *from those before them; with no mixture, of all. */
static int64_t windows_of(const struct lh_data *d, int source, int64_t *from)
{
	*from = 0;
	if (!d->mix.count)
		return lh_data_windows(d);
	*from = d->first[d->source[source]];
	return d->first[d->source[source + 1]] - *from;
}

static int check_windows(const struct lh_data *d, struct lh_err *err)
{
	int64_t from;

	for (int i = 0; i == 0 || i < d->mix.count; i++)
		if (!windows_of(d, i, &from))
			return lh_err_set(err, LH_EDATA, "no shard%s holds the %" PRId64
					  " tokens of one sequence",
					  d->mix.count ? " of a source" : "",
					  d->seq_len + 1);
	return 0;
}

static int open_validation(struct lh_shard *s, const char *path,
			   enum lh_shard_format format, struct lh_err *err)
{
	int rc = lh_shard_open(s, path, format, err);

	if (rc || s->count >= 2)
		return rc;
	lh_shard_close(s);
	return lh_err_set(err, LH_EDATA, "'%s': one token alone has nothing to predict", path);
}

int lh_data_open(struct lh_data *d, const struct lh_job *job, struct lh_err *err)
{
	int rc;

	memset(d, 0, sizeof(*d));
	d->seq_len = job->data.seq_len;
	d->vocab = job->model.vocab;
	d->seed = (uint64_t)job->data.shuffle_seed;
	lh_mix_init(&d->mix, job->data.sources, job->data.source_count, d->seed);
	for (int i = 0; i < job->data.source_count; i++)
		d->source[i + 1] = d->source[i] + job->data.sources[i].shards;
	d->shards = lh_calloc((size_t)job->data.train_count, sizeof(*d->shards));
	d->first = lh_calloc((size_t)job->data.train_count + 1, sizeof(*d->first));
	for (int i = 0; i < job->data.train_count; i++) {
		rc = lh_shard_open(&d->shards[i], job->data.train[i], job->data.format,
				   err);
		if (rc)
			goto fail;
		d->count++;
		d->first[i + 1] = d->first[i] + (d->shards[i].count - 1) / d->seq_len;
	}
	rc = check_windows(d, err);
	if (rc)
		goto fail;
	for (int i = 0; i < job->data.validation_count; i++) {
		rc = open_validation(&d->validation[i], job->data.validation[i].path,
				     job->data.format, err);
		if (rc)
			goto fail;
		d->validation_count++;
	}
	return 0;
fail:
	lh_data_close(d);
	return rc;
}

void lh_data_close(struct lh_data *d)
{
	for (int i = 0; i < d->count; i++)
		lh_shard_close(&d->shards[i]);
	for (int i = 0; i < d->validation_count; i++)
		lh_shard_close(&d->validation[i]);
	free(d->shards);
	free(d->first);
	memset(d, 0, sizeof(*d));
}

int64_t lh_data_windows(const struct lh_data *d)
{
	return d->first[d->count];
}

/* A seed for each epoch of each source, drawn and not mixed from the two by hand: any simple
 * mix makes some other seed repeat this one's epochs. */
static uint64_t epoch_key(uint64_t seed, int source, uint64_t epoch)
{
	uint32_t r[4];

	lh_rng_block(seed, LH_RNG_SHUFFLE, (uint64_t)source << 48 | epoch, r);
	return (uint64_t)r[0] << 32 | r[1];
}

static uint64_t feistel(uint64_t key, int half_bits, uint64_t x)
{
	uint64_t mask = (1ull << half_bits) - 1, left = x >> half_bits, right = x & mask;

	for (uint64_t round = 0; round < 4; round++) {
		uint64_t old = right;
		uint32_t r[4];

		lh_rng_block(key, LH_RNG_SHUFFLE, right << 3 | round, r);
		right = left ^ (((uint64_t)r[0] << 32 | r[1]) & mask);
		left = old;
	}
	return left << half_bits | right;
}

int64_t lh_data_epoch(const struct lh_data *d, int64_t cursor)
{
	int64_t drawn[LH_SOURCES_MAX] = { cursor }, most = 0, from;

	if (d->mix.count)
		lh_mix_drawn(&d->mix, cursor, drawn);
	for (int i = 0; i == 0 || i < d->mix.count; i++) {
		int64_t epoch = drawn[i] / windows_of(d, i, &from);

		most = epoch > most ? epoch : most;
	}
	return most;
}

int64_t lh_data_window(const struct lh_data *d, int64_t cursor)
{
	int64_t nth = cursor, from;
	int source = d->mix.count ? lh_mix_source(&d->mix, cursor, &nth) : 0, half_bits = 1;
	uint64_t n = (uint64_t)windows_of(d, source, &from), x = (uint64_t)nth % n;
	uint64_t key = epoch_key(d->seed, source, (uint64_t)nth / n);

	while (1ull << (2 * half_bits) < n)
		half_bits++;
	do {
		x = feistel(key, half_bits, x);
	} while (x >= n);
	return from + (int64_t)x;
}

/* tokens, targets (n) from position `from` on. */
static int window(const struct lh_data *d, const struct lh_shard *s, int64_t from,
		  int64_t n, int32_t *tokens, int32_t *targets, struct lh_err *err)
{
	lh_shard_read(s, from, n, tokens);
	lh_shard_read(s, from + 1, n, targets);
	for (int64_t i = 0; i <= n; i++) {
		int32_t id = i < n ? tokens[i] : targets[n - 1];

		if (id >= 0 && id < d->vocab)
			continue;
		return lh_err_set(err, LH_EDATA,
				  "'%s': token id %" PRId32 " at position %" PRId64
				  ", model.vocab is %" PRId64, s->path, id, from + i,
				  d->vocab);
	}
	return 0;
}

const struct lh_shard *lh_data_locate(const struct lh_data *d, int64_t cursor,
				      int64_t *from)
{
	int64_t w = lh_data_window(d, cursor);
	int i = 0;

	while (w >= d->first[i + 1])
		i++;
	*from = (w - d->first[i]) * d->seq_len;
	return &d->shards[i];
}

int lh_data_train(const struct lh_data *d, int64_t cursor, int32_t *tokens,
		  int32_t *targets, struct lh_err *err)
{
	int64_t from;
	const struct lh_shard *s = lh_data_locate(d, cursor, &from);

	return window(d, s, from, d->seq_len, tokens, targets, err);
}

int lh_data_validation(const struct lh_data *d, int set, int64_t i, int64_t n,
		       int32_t *tokens, int32_t *targets, struct lh_err *err)
{
	const struct lh_shard *s = &d->validation[set];
	int64_t room = s->count - 1, from = 0, take = d->seq_len;

	if (room < take)
		take = room;
	else if (n > 1)
		from = (room - take) / (n - 1) * i;
	for (int64_t t = take; t < d->seq_len; t++) {
		tokens[t] = 0;
		targets[t] = -1;
	}
	return window(d, s, from, take, tokens, targets, err);
}

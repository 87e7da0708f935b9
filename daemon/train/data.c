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

/* What a job's shards are opened with. */
struct opening {
	const struct lh_job_data *data;
	int64_t align; /* of documents */
	const struct lh_scan *scan;
	struct lh_err *err;
};

static int told(const struct opening *o)
{
	return lh_err_set(o->err, LH_ESTATE, "told to end while the data were opened");
}

static bool goes_on(const struct opening *o)
{
	return !o->scan || o->scan->go_on(o->scan->arg);
}

/* A header cannot be trusted to be what it was when the job was checked. */
static int check_documents(const struct lh_data *d, const struct lh_shard *s,
			   struct lh_err *err)
{
	if (!d->packing || lh_shard_has_documents(s))
		return 0;
	return lh_err_set(err, LH_EDATA, "'%s': does not tell where documents end", s->path);
}

/* One that is open: its documents, where they are kept apart. */
static int pack(const struct lh_data *d, const struct opening *o, const struct lh_shard *s,
		struct lh_packing *p)
{
	int rc = check_documents(d, s, o->err);

	if (rc || !d->packing)
		return rc;
	return lh_packing_init(p, s, d->seq_len, o->align, o->scan) ? 0 : told(o);
}

static int open_train(struct lh_data *d, const struct opening *o)
{
	for (int i = 0; i < o->data->train_count; i++) {
		struct lh_shard *s = &d->shards[i];
		struct lh_packing *p = d->packing ? &d->packing[i] : NULL;
		int rc = goes_on(o) ? lh_shard_open(s, o->data->train[i], o->data->format,
						    o->err) :
				      told(o);

		if (rc)
			return rc;
		d->count++;
		rc = pack(d, o, s, p);
		if (rc)
			return rc;
		d->first[i + 1] = d->first[i] + (p ? p->count : (s->count - 1) / d->seq_len);
	}
	return check_windows(d, o->err);
}

static int open_sets(struct lh_data *d, const struct opening *o)
{
	for (int i = 0; i < o->data->validation_count; i++) {
		struct lh_shard *s = &d->validation[i];
		int rc = goes_on(o) ? open_validation(s, o->data->validation[i].path,
						      o->data->format, o->err) :
				      told(o);

		if (rc)
			return rc;
		d->validation_count++;
		rc = pack(d, o, s, &d->validation_packing[i]);
		if (rc)
			return rc;
	}
	return 0;
}

int lh_data_open(struct lh_data *d, const struct lh_job *job, const struct lh_scan *scan,
		 struct lh_err *err)
{
	const struct lh_job_data *data = &job->data;
	struct opening o = { data, lh_packing_window(job), scan, err };
	int rc;

	memset(d, 0, sizeof(*d));
	d->seq_len = data->seq_len;
	d->vocab = job->model.vocab;
	d->seed = (uint64_t)data->shuffle_seed;
	lh_mix_init(&d->mix, data->sources, data->source_count, d->seed);
	for (int i = 0; i < data->source_count; i++)
		d->source[i + 1] = d->source[i] + data->sources[i].shards;
	d->shards = lh_calloc((size_t)data->train_count, sizeof(*d->shards));
	d->first = lh_calloc((size_t)data->train_count + 1, sizeof(*d->first));
	if (data->documents == LH_DOCUMENTS_SEPARATE)
		d->packing = lh_calloc((size_t)data->train_count, sizeof(*d->packing));
	rc = open_train(d, &o);
	if (!rc)
		rc = open_sets(d, &o);
	if (rc)
		lh_data_close(d);
	return rc;
}

void lh_data_close(struct lh_data *d)
{
	for (int i = 0; i < d->count; i++)
		lh_shard_close(&d->shards[i]);
	for (int i = 0; d->packing && i < d->count; i++)
		lh_packing_release(&d->packing[i]);
	for (int i = 0; i < d->validation_count; i++) {
		lh_shard_close(&d->validation[i]);
		lh_packing_release(&d->validation_packing[i]);
	}
	free(d->packing);
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
	int rc = lh_shard_read_below(s, from, n, d->vocab, tokens, err);

	return rc ? rc : lh_shard_read_below(s, from + 1, n, d->vocab, targets, err);
}

/* The shard that holds a window; *window becomes its number there. */
static int shard_of(const struct lh_data *d, int64_t *window)
{
	int i = 0;

	while (*window >= d->first[i + 1])
		i++;
	*window -= d->first[i];
	return i;
}

const struct lh_shard *lh_data_locate(const struct lh_data *d, int64_t cursor,
				      int64_t *from, int64_t *to)
{
	int64_t w = lh_data_window(d, cursor);
	int i = shard_of(d, &w);

	*from = w * d->seq_len;
	*to = *from + d->seq_len + 1;
	if (d->packing)
		lh_packing_range(&d->packing[i], w, from, to);
	return &d->shards[i];
}

int64_t lh_data_targets(const struct lh_data *d, int64_t cursor)
{
	int64_t w = lh_data_window(d, cursor);
	int i = shard_of(d, &w);

	return d->packing ? lh_packing_targets(&d->packing[i], w) : d->seq_len;
}

int lh_data_train(const struct lh_data *d, int64_t cursor, int32_t *tokens,
		  int32_t *targets, int32_t *starts, struct lh_err *err)
{
	int64_t w = lh_data_window(d, cursor);
	int i = shard_of(d, &w);

	if (d->packing)
		return lh_packing_fill(&d->packing[i], w, d->vocab, tokens, targets, starts,
				       err);
	return window(d, &d->shards[i], w * d->seq_len, d->seq_len, tokens, targets, err);
}

int lh_data_validation(const struct lh_data *d, int set, int64_t i, int64_t n,
		       int32_t *tokens, int32_t *targets, int32_t *starts,
		       struct lh_err *err)
{
	const struct lh_shard *s = &d->validation[set];
	const struct lh_packing *p = &d->validation_packing[set];
	int64_t room = s->count - 1, from = 0, take = d->seq_len;

	if (d->packing)
		return lh_packing_fill(p, n > 1 ? (p->count - 1) * i / (n - 1) : 0, d->vocab,
				       tokens, targets, starts, err);
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

/* fuzz_pack.c: what `lhctl pack` reads (ctl/pack.h): text, lines of JSON, gzip and zstd.
 *
 * An input's first byte says what its file is called. Documents and their ids are inside
 * the chunk, and reading the file goes on from the place behind a chunk as it would
 * have. */
#include "../../ctl/pack.h"
#include "fuzz.h"

static const char *const names[] = { "a.txt", "a.jsonl", "a.txt.gz", "a.jsonl.gz",
				     "a.txt.zst", "a.jsonl.zst" };
enum { NAMES = sizeof(names) / sizeof(names[0]) };

static void check_chunk(const struct pack_chunk *c)
{
	int64_t used = 0;

	for (int64_t i = 0; i < c->document_count; i++) {
		const struct pack_document *d = &c->documents[i];

		LH_ASSERT(d->from == used && d->count > 0 && d->count == d->bytes);
		LH_ASSERT(d->place >= 0 && d->place < 1);
		LH_ASSERT(d->text >= c->text && d->text + d->bytes <= c->text + c->bytes);
		used = d->from + d->count;
		LH_ASSERT(used <= c->byte_cap);
		for (int64_t k = 0; k < d->count; k++)
			LH_ASSERT(c->byte_ids[d->from + k] == (unsigned char)d->text[k]);
	}
	LH_ASSERT(!c->rc || (c->rc == LH_EDATA && *c->err.hint));
}

static struct pack_place read_all(const struct pack_input_options *o, struct pack_pool *pool)
{
	struct pack_input *in = pack_input_new(o);
	struct lh_err err = LH_ERR_INIT;
	struct pack_place after = { 0 };
	struct pack_chunk *c;
	bool ended = false;

	while ((c = ended ? NULL : pack_pool_empty(pool))) {
		ended = pack_input_next(in, c, &err) || !c->piece_count;
		if (c->piece_count)
			pack_pool_submit(pool);
		c = pack_pool_take(pool);
		if (!c)
			break;
		check_chunk(c);
		after = c->after;
	}
	LH_ASSERT(!err.code || err.code == LH_EDATA);
	pack_input_free(in);
	return after;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	const char *dir = fuzz_dir(), *name = names[bytes ? data[0] % NAMES : 0];
	char *path = lh_asprintf("%s/%s", dir, name);
	const char *paths[] = { path };
	struct pack_input_options o = { .paths = paths, .path_count = 1 };
	struct pack_ids ids = { .field = "text" };
	struct pack_pool *pool = pack_pool_new(1, &ids);
	struct pack_input *again = pack_input_new(&o);
	struct pack_place after;

	fuzz_write(dir, name, data + !!bytes, bytes - !!bytes);
	after = read_all(&o, pool);
	/* A place without a file has seen nothing. */
	LH_ASSERT(pack_input_seek(again, &after));
	pack_input_free(again);
	pack_pool_free(pool);
	unlink(path);
	free(path);
	return 0;
}

/* shard_foreign.c: token files of llm.c, Megatron-LM and nanoGPT (lighthouse/shard.h).
 *
 * Sizes are compared before anything behind a header is touched, and ids are read in
 * order, never through a place that an index names: one that lies can mislead about
 * documents and about nothing else. */
#include "data/shard_int.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fs.h"

enum { PIECES = 64, PIECE_IDS = 64 << 10 };

static void look_at(struct lh_shard *s, int64_t from, int64_t n)
{
	for (int64_t i = from; i < from + n; i++)
		if (lh__shard_id(s, i) > s->max_token)
			s->max_token = lh__shard_id(s, i);
}

/* The largest id, so that a file of another tokenizer is refused before anything
 * starts. What lies between the pieces of a large file is met when it is drawn. */
static void find_max_token(struct lh_shard *s)
{
	if (s->count <= PIECES * PIECE_IDS) {
		look_at(s, 0, s->count);
		return;
	}
	for (int64_t p = 0; p < PIECES; p++)
		look_at(s, (s->count - PIECE_IDS) / (PIECES - 1) * p, PIECE_IDS);
}

/* ---- llm.c ----------------------------------------------------------------- */

enum { LLMC_HEADER_BYTES = 1024 };

static const struct llmc {
	int32_t magic, version;
	int width;
} llmc_kinds[] = { { 20240520, 1, 2 }, { 20240801, 7, 4 } };

static const struct llmc *llmc_of(const struct lh_shard *s)
{
	for (int i = 0; i < 2; i++)
		if (s->map_bytes >= 4 && !memcmp(s->map, &llmc_kinds[i].magic, 4))
			return &llmc_kinds[i];
	return NULL;
}

static int read_llmc(struct lh_shard *s, const struct llmc *kind, struct lh_err *err)
{
	const int32_t *h = s->map;
	int rc;

	if (s->map_bytes < LLMC_HEADER_BYTES || h[1] != kind->version) {
		lh_err_set(err, LH_EDATA, "'%s': an llm.c shard of a version other than %d",
			   s->path, kind->version);
		return lh_err_hint(err, "20240520 of version 1 and 20240801 of version 7 "
				   "are read");
	}
	s->count = h[2];
	s->width = kind->width;
	s->ids = (const char *)s->map + LLMC_HEADER_BYTES;
	rc = lh__shard_check_size(s, LLMC_HEADER_BYTES, err);
	if (!rc)
		find_max_token(s);
	return rc;
}

/* ---- without a header ------------------------------------------------------ */

static int read_raw(struct lh_shard *s, int width, struct lh_err *err)
{
	if (s->map_bytes % width) {
		lh_err_set(err, LH_EDATA, "'%s': its %" PRId64 " bytes are no whole number "
			   "of ids of %d bytes", s->path, s->map_bytes, width);
		return lh_err_hint(err, "was it truncated, or is data.format another?");
	}
	s->width = width;
	s->count = s->map_bytes / width;
	s->ids = s->map;
	find_max_token(s);
	return 0;
}

/* ---- Megatron -------------------------------------------------------------- */

#define MEGATRON_MAGIC "MMIDIDX\0" /* and the string's own NUL: 9 bytes */
enum { MEGATRON_HEADER_BYTES = 34, MEGATRON_VERSION = 1, PLACES = 1 << 16 };

/* The index's parts; none of them is aligned. */
struct index {
	int64_t sequences, documents; /* the latter one more than there are */
	const char *lengths;          /* int32 (sequences) */
	const char *places;           /* int64 (sequences) bytes into the .bin */
	const char *starts;           /* int64 (documents) sequences */
};

static int64_t int64_at(const char *list, int64_t i)
{
	int64_t v;

	memcpy(&v, list + i * 8, 8);
	return v;
}

static int64_t length_at(const struct index *x, int64_t i)
{
	int32_t v;

	memcpy(&v, x->lengths + i * 4, 4);
	return v;
}

/* Of numpy's types as Megatron numbers them, those that hold ids. */
static int width_of(unsigned char type)
{
	static const int widths[] = { [1] = 1, [4] = 4, [5] = 8, [8] = 2 };

	return type < sizeof(widths) / sizeof(*widths) ? widths[type] : 0;
}

/* False if the counts are not what the file has room for. */
static bool parts_of(const struct lh_shard *s, struct index *x)
{
	const char *at = s->index;
	int64_t room = s->index_bytes - MEGATRON_HEADER_BYTES;

	x->sequences = int64_at(at + 18, 0);
	x->documents = int64_at(at + 26, 0);
	x->lengths = at + MEGATRON_HEADER_BYTES;
	if (x->sequences < 1 || x->sequences > room / 12 || x->documents < 2 ||
	    x->documents > room / 8 || x->sequences * 12 + x->documents * 8 != room)
		return false;
	x->places = x->lengths + x->sequences * 4;
	x->starts = x->places + x->sequences * 8;
	return true;
}

/* Sequence i lies where the one before it ends; the last ends with the file. */
static bool is_in_place(const struct lh_shard *s, const struct index *x, int64_t i)
{
	int64_t from = int64_at(x->places, i), length = length_at(x, i);
	int64_t end = i + 1 < x->sequences ? int64_at(x->places, i + 1) : s->map_bytes;

	return length >= 0 && from >= 0 && (i || !from) && end >= from &&
	       end - from == length * s->width;
}

/* Document i begins no later than the next; the last one ends with the sequences. */
static bool is_in_order(const struct index *x, int64_t i)
{
	int64_t start = int64_at(x->starts, i);

	if (i == x->documents - 1)
		return start == x->sequences;
	return start >= 0 && (i || !start) && start <= int64_at(x->starts, i + 1);
}

/* Both ends of each list and at most `limit` entries between. */
static int check_places(const struct lh_shard *s, const struct index *x, int64_t limit,
			struct lh_err *err)
{
	int64_t stride = x->sequences / limit + 1;
	bool good = is_in_place(s, x, x->sequences - 1);

	for (int64_t i = 0; good && i < x->sequences; i += stride)
		good = is_in_place(s, x, i);
	stride = x->documents / limit + 1;
	good = good && is_in_order(x, x->documents - 1);
	for (int64_t i = 0; good && i < x->documents; i += stride)
		good = is_in_order(x, i);
	if (good)
		return 0;
	return lh__shard_bad(s->path, err, "the index does not fit the '.bin' beside it",
			     "are they of one preprocessing run, and whole?");
}

/* The index becomes `index`, and the ids' file what is mapped. */
static int map_ids(struct lh_shard *s, struct lh_err *err)
{
	size_t n = strlen(s->path);
	char *ids;
	int rc;

	s->index = s->map;
	s->index_bytes = s->map_bytes;
	s->map = NULL;
	if (n < 4 || strcmp(s->path + n - 4, ".idx"))
		return lh__shard_bad(s->path, err, "an index of Megatron, its name does "
				     "not end in '.idx'", "name it NAME.idx, beside NAME.bin");
	ids = lh_asprintf("%.*s.bin", (int)n - 4, s->path);
	rc = lh__shard_map(ids, &s->map, &s->map_bytes, err);
	free(ids);
	return rc;
}

static int read_megatron(struct lh_shard *s, struct lh_err *err)
{
	const unsigned char *h = s->map;
	struct index x;
	int rc;

	if (s->map_bytes < MEGATRON_HEADER_BYTES ||
	    int64_at((const char *)h + 9, 0) != MEGATRON_VERSION)
		return lh__shard_bad(s->path, err, "an index of Megatron of a version other "
				     "than 1", "preprocess the text again");
	s->width = width_of(h[17]);
	if (!s->width)
		return lh__shard_bad(s->path, err, "its ids are of a type that no tokens "
				     "have", "uint8, uint16, int32 and int64 are read");
	rc = map_ids(s, err);
	if (rc)
		return rc;
	if (!parts_of(s, &x))
		return lh__shard_bad(s->path, err, "its size does not match the sequences "
				     "and documents it promises",
				     "the file was truncated or damaged");
	rc = check_places(s, &x, PLACES, err);
	if (rc)
		return rc;
	s->count = s->map_bytes / s->width;
	s->documents = (uint64_t)x.documents - 1;
	s->ids = s->map;
	find_max_token(s);
	return 0;
}

int lh__shard_verify_index(const struct lh_shard *s, struct lh_err *err)
{
	struct index x;

	LH_ASSERT(parts_of(s, &x));
	return check_places(s, &x, INT64_MAX, err);
}

/* First id of document i; that of a sequence which an index has misplaced is none of
 * the file's, so it is kept inside. */
static int64_t start_of(const struct lh_shard *s, const struct index *x, int64_t i)
{
	int64_t sequence = int64_at(x->starts, i), at;

	if (sequence < 0 || sequence >= x->sequences)
		return s->count;
	at = int64_at(x->places, sequence) / s->width;
	return at < 0 ? 0 : at > s->count ? s->count : at;
}

void lh__shard_document_indexed(const struct lh_shard *s, int64_t position, int64_t *from,
				int64_t *to)
{
	int64_t low = 0, high;
	struct index x;

	LH_ASSERT(parts_of(s, &x));
	/* Document `low` begins at or before the position, `high` behind it. */
	for (high = x.documents - 1; high - low > 1;) {
		int64_t middle = low + (high - low) / 2;

		if (start_of(s, &x, middle) <= position)
			low = middle;
		else
			high = middle;
	}
	*from = start_of(s, &x, low);
	*to = start_of(s, &x, high);
	if (*from > position)
		*from = 0;
	if (*to <= position)
		*to = s->count;
}

/* ---- which of them --------------------------------------------------------- */

static int refuse(const struct lh_shard *s, struct lh_err *err)
{
	size_t n = strlen(s->path);
	char *index = n > 4 ? lh_asprintf("%.*s.idx", (int)n - 4, s->path) : lh_strdup("");

	lh_err_set(err, LH_EDATA, "'%s': not a token shard", s->path);
	if (lh_fs_exists(index))
		lh_err_hint(err, "of Megatron's two files the index is named: '%s'", index);
	else
		lh_err_hint(err, "make one with 'lhctl pack'; a file of bare ids needs "
			    "data.format");
	free(index);
	return LH_EDATA;
}

int lh__shard_read_foreign(struct lh_shard *s, enum lh_shard_format format,
			   struct lh_err *err)
{
	const struct llmc *llmc = llmc_of(s);

	if (llmc)
		return read_llmc(s, llmc, err);
	if (s->map_bytes >= (int64_t)sizeof(MEGATRON_MAGIC) &&
	    !memcmp(s->map, MEGATRON_MAGIC, sizeof(MEGATRON_MAGIC)))
		return read_megatron(s, err);
	if (format == LH_SHARD_AUTO)
		return refuse(s, err);
	return read_raw(s, format == LH_SHARD_UINT16 ? 2 : 4, err);
}

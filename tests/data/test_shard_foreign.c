/* test_shard_foreign.c: token files of llm.c, Megatron and nanoGPT: the ids that their
 * writers put there, and a refusal for each way in which a header or an index can lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/resource.h>
#include <unistd.h>

#include "../scratch.h"
#include "lighthouse/shard.h"

static void open_as(struct lh_shard *s, const char *name, enum lh_shard_format format)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;

	if (lh_shard_open(s, path, format, &err))
		fail_msg("%s", err.text);
	free(path);
}

static void refuse_as(const char *name, enum lh_shard_format format, const char *what)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;

	assert_int_equal(lh_shard_open(&s, path, format, &err), LH_EDATA);
	if (!strstr(err.text, what))
		fail_msg("'%s' does not say '%s'", err.text, what);
	assert_true(strlen(err.hint) > 0);
	assert_null(s.map);
	assert_null(s.index);
	free(path);
}

static void refuse(const char *name, const char *what)
{
	refuse_as(name, LH_SHARD_AUTO, what);
}

/* ---- llm.c ----------------------------------------------------------------- */

enum { LLMC_HEADER = 1024 };

/* `held` ids i * step of `width` bytes behind a header that promises `count`. */
static void llmc(int32_t magic, int32_t version, int32_t count, int held, int width,
		 int step)
{
	static uint8_t file[LLMC_HEADER + 1024];
	int32_t head[3] = { magic, version, count };

	memset(file, 0, sizeof(file));
	memcpy(file, head, sizeof(head));
	for (int i = 0; i < held; i++) {
		uint32_t id = (uint32_t)(i * step);

		memcpy(file + LLMC_HEADER + width * i, &id, (size_t)width);
	}
	scratch_write("llmc.bin", file, (size_t)(LLMC_HEADER + width * held));
}

static void llmc_shards_are_read(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;
	int32_t ids[200];

	(void)state;
	llmc(20240520, 1, 200, 200, 2, 321);
	open_as(&s, "llmc.bin", LH_SHARD_AUTO);
	assert_int_equal(s.count, 200);
	assert_int_equal(s.vocab, 0);
	assert_int_equal(s.max_token, 199 * 321);
	assert_int_equal(s.separator, LH_SHARD_NO_SEPARATOR);
	lh_shard_read(&s, 0, 200, ids);
	assert_int_equal(ids[150], 150 * 321);
	assert_int_equal(lh_shard_verify(&s, &err), 0);
	assert_int_equal(lh_shard_check_vocab(&s, 257, &err), LH_EDATA);
	lh_shard_close(&s);
}

static void llmc_shards_of_llama_3_are_read(void **state)
{
	struct lh_shard s;
	int32_t ids[200];

	(void)state;
	llmc(20240801, 7, 200, 200, 4, 640);
	/* Its header tells, whatever is said of files that have none. */
	open_as(&s, "llmc.bin", LH_SHARD_UINT16);
	assert_int_equal(s.count, 200);
	assert_int_equal(s.width, 4);
	assert_int_equal(s.max_token, 199 * 640);
	lh_shard_read(&s, 0, 200, ids);
	assert_int_equal(ids[199], 199 * 640);
	lh_shard_close(&s);
}

static void broken_llmc_shards_are_refused(void **state)
{
	char *path;

	(void)state;
	llmc(20240520, 2, 200, 200, 2, 1);
	refuse("llmc.bin", "version other than 1");
	llmc(20240801, 1, 200, 200, 4, 1);
	refuse("llmc.bin", "version other than 7");
	llmc(20240520, 1, 201, 200, 2, 1);
	refuse("llmc.bin", "promises 201 tokens");
	/* The ids of one kind under the header of the other. */
	llmc(20240801, 7, 200, 200, 2, 1);
	refuse("llmc.bin", "promises 200 tokens of 4 bytes");
	llmc(20240520, 1, 0, 0, 2, 1);
	refuse("llmc.bin", "no tokens");
	llmc(20240520, 1, -5, 200, 2, 1);
	refuse("llmc.bin", "no tokens");
	path = scratch_path("llmc.bin");
	assert_int_equal(truncate(path, LLMC_HEADER - 1), 0);
	refuse("llmc.bin", "version other than 1");
	free(path);
}

/* ---- without a header ------------------------------------------------------ */

static void bare_ids_are_read_when_it_is_said(void **state)
{
	static const uint16_t ids[6] = { 0, 50256, 3, 65535, 5, 6 };
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;
	int32_t out[6];

	(void)state;
	scratch_write("train.bin", ids, sizeof(ids));
	refuse("train.bin", "not a token shard");
	open_as(&s, "train.bin", LH_SHARD_UINT16);
	assert_int_equal(s.count, 6);
	assert_int_equal(s.max_token, 65535);
	lh_shard_read(&s, 1, 3, out);
	assert_int_equal(out[0], 50256);
	assert_int_equal(out[2], 65535);
	assert_int_equal(lh_shard_verify(&s, &err), 0);
	lh_shard_close(&s);
	open_as(&s, "train.bin", LH_SHARD_UINT32);
	assert_int_equal(s.count, 3);
	lh_shard_read(&s, 2, 1, out);
	assert_int_equal(out[0], 6 << 16 | 5);
	lh_shard_close(&s);
}

static void a_part_of_an_id_is_refused(void **state)
{
	(void)state;
	scratch_write("train.bin", "12345", 5);
	refuse_as("train.bin", LH_SHARD_UINT16, "5 bytes are no whole number of ids");
	scratch_write("train.bin", "123456", 6);
	refuse_as("train.bin", LH_SHARD_UINT32, "6 bytes are no whole number of ids");
}

/* A file of 16 GiB, most of it a hole: opening it reads pieces. */
static void opening_a_large_file_does_not_read_it(void **state)
{
	char *path = scratch_path("train.bin");
	struct rusage before, after;
	struct lh_shard s;

	(void)state;
	scratch_write("train.bin", "\377\377", 2);
	assert_int_equal(truncate(path, INT64_C(16) << 30), 0);
	getrusage(RUSAGE_SELF, &before);
	open_as(&s, "train.bin", LH_SHARD_UINT16);
	getrusage(RUSAGE_SELF, &after);
	assert_int_equal(s.count, INT64_C(8) << 30);
	assert_int_equal(s.max_token, 65535);
	assert_in_range(after.ru_minflt - before.ru_minflt, 1, 20000);
	lh_shard_close(&s);
	free(path);
}

/* ---- Megatron -------------------------------------------------------------- */

enum { SEQUENCES = 5, DOCUMENTS = 4, HEADER = 34, VERSION_AT = 9, TYPE_AT = 17,
       SEQUENCES_AT = 18, DOCUMENTS_AT = 26, PLACES_AT = HEADER + 4 * SEQUENCES,
       STARTS_AT = PLACES_AT + 8 * SEQUENCES, INDEX_BYTES = STARTS_AT + 8 * DOCUMENTS };

static void put(uint8_t *index, size_t at, int64_t value, size_t bytes)
{
	memcpy(index + at, &value, bytes);
}

/* Five sequences of 3, 0, 4, 2 and 1 ids 0, 7, 14 ..., in documents of two, two and
 * one of them. */
static void megatron(uint8_t index[INDEX_BYTES], int type, size_t width)
{
	static const int32_t lengths[SEQUENCES] = { 3, 0, 4, 2, 1 };
	static const int64_t starts[DOCUMENTS] = { 0, 2, 4, 5 };
	uint8_t ids[10 * 8] = { 0 };
	int64_t at = 0;

	memset(index, 0, INDEX_BYTES);
	memcpy(index, "MMIDIDX", 7);
	put(index, VERSION_AT, 1, 8);
	put(index, TYPE_AT, type, 1);
	put(index, SEQUENCES_AT, SEQUENCES, 8);
	put(index, DOCUMENTS_AT, DOCUMENTS, 8);
	for (int i = 0; i < SEQUENCES; i++) {
		put(index, (size_t)(HEADER + 4 * i), lengths[i], 4);
		put(index, (size_t)(PLACES_AT + 8 * i), at * (int64_t)width, 8);
		at += lengths[i];
	}
	memcpy(index + STARTS_AT, starts, sizeof(starts));
	for (int64_t i = 0; i < 10; i++)
		put(ids, (size_t)i * width, i * 7, width);
	scratch_write("m.bin", ids, 10 * width);
	scratch_write("m.idx", index, INDEX_BYTES);
}

static void megatron_files_are_read_in_every_type_of_ids(void **state)
{
	static const struct {
		int type;
		size_t width;
	} types[] = { { 1, 1 }, { 8, 2 }, { 4, 4 }, { 5, 8 } };
	uint8_t index[INDEX_BYTES];

	(void)state;
	for (int t = 0; t < 4; t++) {
		struct lh_err err = LH_ERR_INIT;
		struct lh_shard s;
		int32_t ids[10];

		megatron(index, types[t].type, types[t].width);
		open_as(&s, "m.idx", LH_SHARD_AUTO);
		assert_int_equal(s.count, 10);
		assert_int_equal(s.width, types[t].width);
		assert_int_equal(s.documents, 3);
		assert_int_equal(s.max_token, 63);
		lh_shard_read(&s, 0, 10, ids);
		for (int i = 0; i < 10; i++)
			assert_int_equal(ids[i], i * 7);
		assert_int_equal(lh_shard_verify(&s, &err), 0);
		lh_shard_close(&s);
	}
}

static void megatron_documents_are_those_of_the_index(void **state)
{
	static const int64_t froms[10] = { 0, 0, 0, 3, 3, 3, 3, 3, 3, 9 };
	static const int64_t tos[10] = { 3, 3, 3, 9, 9, 9, 9, 9, 9, 10 };
	uint8_t index[INDEX_BYTES];
	int64_t from, to;
	struct lh_shard s;

	(void)state;
	megatron(index, 8, 2);
	open_as(&s, "m.idx", LH_SHARD_AUTO);
	for (int64_t i = 0; i < 10; i++) {
		lh_shard_document(&s, i, &from, &to);
		assert_int_equal(from, froms[i]);
		assert_int_equal(to, tos[i]);
	}
	lh_shard_close(&s);
}

/* As numpy has them: -1, and one above 32 bits. */
static void ids_that_no_vocabulary_holds_are_seen(void **state)
{
	uint8_t index[INDEX_BYTES];
	struct lh_err err = LH_ERR_INIT;
	int64_t wide[10] = { 1, INT64_C(1) << 32 };
	int32_t narrow[10] = { 1, -1 }, out[10];
	struct lh_shard s;

	(void)state;
	for (int t = 0; t < 2; t++) {
		megatron(index, t ? 5 : 4, t ? 8 : 4);
		scratch_write("m.bin", t ? (void *)wide : (void *)narrow,
			      t ? sizeof(wide) : sizeof(narrow));
		open_as(&s, "m.idx", LH_SHARD_AUTO);
		assert_int_equal(lh_shard_check_vocab(&s, INT32_MAX, &err), LH_EDATA);
		lh_shard_read(&s, 0, 10, out);
		assert_int_equal(out[0], 1);
		assert_true(out[1] < 0);
		lh_shard_close(&s);
	}
}

static void an_index_that_lies_is_refused(void **state)
{
	static const char *const size = "does not match the sequences and documents";
	static const char *const misfit = "does not fit the '.bin'";
	static const struct {
		size_t at, bytes;
		int64_t value;
		const char *says;
	} lies[] = {
		{ VERSION_AT, 8, 2, "version other than 1" },
		{ TYPE_AT, 1, 0, "type that no tokens" },
		{ TYPE_AT, 1, 2, "type that no tokens" },
		{ TYPE_AT, 1, 6, "type that no tokens" },
		{ TYPE_AT, 1, 255, "type that no tokens" },
		{ TYPE_AT, 1, 4, misfit },
		{ SEQUENCES_AT, 8, SEQUENCES + 1, size },
		{ SEQUENCES_AT, 8, SEQUENCES - 2, size },
		{ SEQUENCES_AT, 8, 0, size },
		{ SEQUENCES_AT, 8, -1, size },
		{ SEQUENCES_AT, 8, INT64_MAX, size },
		{ SEQUENCES_AT, 8, INT64_MAX / 12 + 2, size },
		{ DOCUMENTS_AT, 8, DOCUMENTS + 1, size },
		{ DOCUMENTS_AT, 8, -1, size },
		{ DOCUMENTS_AT, 8, INT64_MAX / 8 + 1, size },
		{ HEADER, 4, -3, misfit },                  /* a length */
		{ HEADER, 4, INT32_MAX, misfit },
		{ HEADER + 16, 4, 2, misfit },
		{ PLACES_AT, 8, 2, misfit },                /* a place */
		{ PLACES_AT + 8, 8, INT64_MIN, misfit },
		{ PLACES_AT + 16, 8, INT64_MAX, misfit },
		{ PLACES_AT + 32, 8, -2, misfit },
		{ STARTS_AT, 8, 1, misfit },                /* where a document begins */
		{ STARTS_AT + 8, 8, 5, misfit },
		{ STARTS_AT + 8, 8, INT64_MIN, misfit },
		{ STARTS_AT + 24, 8, 6, misfit },
	};
	uint8_t index[INDEX_BYTES];

	(void)state;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		megatron(index, 8, 2);
		put(index, lies[i].at, lies[i].value, lies[i].bytes);
		scratch_write("m.idx", index, INDEX_BYTES);
		refuse("m.idx", lies[i].says);
	}
}

static void half_of_a_megatron_pair_is_refused(void **state)
{
	char *path = scratch_path("m.bin");
	uint8_t index[INDEX_BYTES + 1] = { 0 };

	(void)state;
	megatron(index, 8, 2);
	for (size_t n = 9; n < INDEX_BYTES; n++) {
		scratch_write("m.idx", index, n);
		refuse("m.idx", n < HEADER ? "version other than 1" : "does not match");
	}
	scratch_write("m.idx", index, INDEX_BYTES + 1);
	refuse("m.idx", "does not match");
	megatron(index, 8, 2);
	scratch_write("m.index", index, INDEX_BYTES);
	refuse("m.index", "does not end in '.idx'");
	refuse("m.bin", "not a token shard");
	assert_int_equal(truncate(path, 18), 0);
	refuse("m.idx", "does not fit the '.bin'");
	assert_int_equal(truncate(path, 0), 0);
	refuse("m.idx", "empty");
	assert_int_equal(unlink(path), 0);
	refuse("m.idx", "No such file");
	free(path);
}

/* A lie between the entries that are looked at misleads nobody further than a document,
 * and verify finds it. */
static void a_lie_deep_in_a_large_index_is_found_by_verify(void **state)
{
	enum { MANY = 1 << 18, BYTES = HEADER + 12 * MANY + 16 };
	uint8_t *index = lh_calloc(BYTES, 1), *ids = lh_calloc(MANY, 2);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;
	int64_t from, to;

	(void)state;
	memcpy(index, "MMIDIDX", 7);
	put(index, VERSION_AT, 1, 8);
	put(index, TYPE_AT, 8, 1);
	put(index, SEQUENCES_AT, MANY, 8);
	put(index, DOCUMENTS_AT, 2, 8);
	for (int64_t i = 0; i < MANY; i++) {
		put(index, (size_t)(HEADER + 4 * i), 1, 4);
		put(index, (size_t)(HEADER + 4 * MANY + 8 * i), 2 * i, 8);
	}
	put(index, BYTES - 8, MANY, 8);
	put(index, HEADER + 4 * MANY + 8 * 2, 1 << 20, 8); /* of sequence 2 */
	scratch_write("m.bin", ids, 2 * MANY);
	scratch_write("m.idx", index, BYTES);
	open_as(&s, "m.idx", LH_SHARD_AUTO);
	lh_shard_document(&s, MANY - 1, &from, &to);
	assert_int_equal(from, 0);
	assert_int_equal(to, MANY);
	assert_int_equal(lh_shard_verify(&s, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "m.idx"));
	lh_shard_close(&s);
	free(index);
	free(ids);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(llmc_shards_are_read),
		SCRATCH_TEST(llmc_shards_of_llama_3_are_read),
		SCRATCH_TEST(broken_llmc_shards_are_refused),
		SCRATCH_TEST(bare_ids_are_read_when_it_is_said),
		SCRATCH_TEST(a_part_of_an_id_is_refused),
		SCRATCH_TEST(opening_a_large_file_does_not_read_it),
		SCRATCH_TEST(megatron_files_are_read_in_every_type_of_ids),
		SCRATCH_TEST(megatron_documents_are_those_of_the_index),
		SCRATCH_TEST(ids_that_no_vocabulary_holds_are_seen),
		SCRATCH_TEST(an_index_that_lies_is_refused),
		SCRATCH_TEST(half_of_a_megatron_pair_is_refused),
		SCRATCH_TEST(a_lie_deep_in_a_large_index_is_found_by_verify),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

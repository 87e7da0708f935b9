/* test_walk.c: the documents of a shard by its index and by its ids are the same, an
 * index that is another's or damaged is passed over, and who looks for long can be told to
 * end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <unistd.h>

#include "../scratch.h"
#include "data/walk.h"

enum { SEPARATOR = 7, VOCAB = 100 };

/* Documents of 1, 2, ... ids, over and over, the last one without its separator; written
 * in two parts, between which the writer is left and taken up again. */
static void pack(const char *name, uint32_t vocab, int64_t count, bool in_two)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;
	int64_t left = 1, length = 1;

	assert_int_equal(lh_shard_writer_new(&w, path, vocab, SEPARATOR, &err), 0);
	for (int64_t i = 0; i < count; i++) {
		int32_t id = --left || i == count - 1 ? 9 + (int32_t)(i % 50) : SEPARATOR;

		if (!left)
			left = length = length % 300 + 1;
		if (in_two && i == count / 2) {
			assert_int_equal(lh_shard_writer_sync(w, &err), 0);
			lh_shard_writer_leave(w);
			assert_int_equal(lh_shard_writer_resume(&w, path, vocab, SEPARATOR, i,
								&err), 0);
		}
		assert_int_equal(lh_shard_writer_add(w, &id, 1, &err), 0);
	}
	assert_int_equal(lh_shard_writer_commit(w, 3, &err), 0);
	free(path);
}

static void open_shard(struct lh_shard *s, const char *name)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;

	if (lh_shard_open(s, path, LH_SHARD_AUTO, &err))
		fail_msg("%s", err.text);
	free(path);
}

/* Ends of all documents, as they are found; whether an index said so. */
static bool walk(const char *name, int64_t *ends, int *count)
{
	struct lh_shard s;
	struct lh_walk w;
	bool indexed;

	open_shard(&s, name);
	lh_walk_open(&w, &s, NULL);
	indexed = w.lengths != NULL;
	for (*count = 0; w.at < s.count; ++*count) {
		int64_t from = w.at;

		assert_true(lh_walk_next(&w));
		assert_int_equal(w.at, lh_shard_document_end(&s, from, s.count));
		ends[*count] = w.at;
	}
	assert_int_equal(w.at, s.count);
	lh_walk_close(&w);
	lh_shard_close(&s);
	return indexed;
}

static int64_t by_index[5000], by_ids[5000];

static void what_an_index_says_is_what_the_ids_say(void **state)
{
	static const uint32_t vocabularies[] = { VOCAB, 70000 }; /* ids of 2 and 4 bytes */

	(void)state;
	for (int v = 0; v < 2; v++)
		for (int64_t count = 1; count < 300000; count = count * 7 + 1) {
			char *path = scratch_path("a.bin.documents");
			int a, b;

			pack("a.bin", vocabularies[v], count, false);
			assert_true(walk("a.bin", by_index, &a));
			assert_int_equal(unlink(path), 0);
			assert_false(walk("a.bin", by_ids, &b));
			assert_int_equal(a, b);
			assert_memory_equal(by_index, by_ids, (size_t)a * sizeof(*by_ids));
			free(path);
		}
}

static void a_writer_that_is_taken_up_again_makes_the_same_index(void **state)
{
	size_t a_bytes, b_bytes;
	char *a, *b;

	(void)state;
	pack("a.bin", VOCAB, 20000, false);
	pack("b.bin", VOCAB, 20000, true);
	a = scratch_read("a.bin.documents", &a_bytes);
	b = scratch_read("b.bin.documents", &b_bytes);
	assert_int_equal(a_bytes, b_bytes);
	assert_memory_equal(a, b, a_bytes);
	free(a);
	free(b);
}

static void a_shard_that_is_given_up_leaves_no_index(void **state)
{
	char *path = scratch_path("a.bin"), *index = scratch_path("a.bin.documents");
	char *tmp = scratch_path("a.bin.documents.tmp");
	struct lh_shard_writer *w;
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	assert_int_equal(lh_shard_writer_new(&w, path, VOCAB, SEPARATOR, &err), 0);
	assert_true(lh_fs_exists(tmp));
	lh_shard_writer_abort(w);
	assert_false(lh_fs_exists(tmp) || lh_fs_exists(index));
	assert_int_equal(lh_shard_writer_new(&w, path, VOCAB, LH_SHARD_NO_SEPARATOR, &err), 0);
	assert_int_equal(lh_shard_writer_add(w, (int32_t[]){ 1 }, 1, &err), 0);
	assert_int_equal(lh_shard_writer_commit(w, 1, &err), 0);
	assert_false(lh_fs_exists(tmp) || lh_fs_exists(index));
	free(path);
	free(index);
	free(tmp);
}

/* With one bit of the index changed, or so many of its bytes. */
static void check_damaged(const char *whole, size_t bytes, size_t at, int documents)
{
	char *index = lh_alloc(bytes);
	int n;

	memcpy(index, whole, bytes);
	if (at < bytes)
		index[at] = (char)(index[at] ^ 4);
	scratch_write("a.bin.documents", index, bytes);
	if (walk("a.bin", by_ids, &n))
		fail_msg("damaged at %zu of %zu, it was believed", at, bytes);
	assert_int_equal(n, documents);
	free(index);
}

static void an_index_that_is_not_the_shards_is_passed_over(void **state)
{
	size_t bytes, other_bytes;
	char *whole, *other;
	int n;

	(void)state;
	pack("b.bin", VOCAB, 3001, false);
	pack("a.bin", VOCAB, 3000, false);
	assert_true(walk("a.bin", by_index, &n));
	whole = scratch_read("a.bin.documents", &bytes);
	other = scratch_read("b.bin.documents", &other_bytes);
	for (size_t at = 0; at < bytes; at++)
		check_damaged(whole, bytes, at, n);
	for (size_t cut = 1; cut < bytes; cut += 3)
		check_damaged(whole, cut, SIZE_MAX, n);
	check_damaged(other, other_bytes, SIZE_MAX, n);
	scratch_write("a.bin.documents", whole, bytes);
	assert_true(walk("a.bin", by_ids, &n));
	free(whole);
	free(other);
}

/* ---- told to end ----------------------------------------------------------- */

struct asked {
	int times, most;
};

static bool go_on(void *arg)
{
	struct asked *a = arg;

	return ++a->times <= a->most;
}

/* One document alone, as long as it takes to be asked `most` times. */
static void who_looks_for_long_is_asked_and_can_be_told_to_end(void **state)
{
	const int64_t count = 5 * (int64_t)LH_SCAN_IDS + 5;
	char *path = scratch_path("long.bin"), *index = scratch_path("long.bin.documents");
	int32_t *ids = lh_calloc(LH_SCAN_IDS, sizeof(*ids));
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;
	struct lh_shard s;

	(void)state;
	assert_int_equal(lh_shard_writer_new(&w, path, VOCAB, SEPARATOR, &err), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(lh_shard_writer_add(w, ids, LH_SCAN_IDS, &err), 0);
	assert_int_equal(lh_shard_writer_add(w, (int32_t[]){ 1, 1, 1, 1, SEPARATOR }, 5, &err), 0);
	assert_int_equal(lh_shard_writer_commit(w, 1, &err), 0);
	assert_int_equal(unlink(index), 0);
	open_shard(&s, "long.bin");
	for (int most = 0; most < 8; most++) {
		struct asked a = { 0, most };
		const struct lh_scan scan = { go_on, &a };
		struct lh_walk d;

		lh_walk_open(&d, &s, &scan);
		assert_int_equal(lh_walk_next(&d), most >= 6);
		assert_int_equal(a.times, most >= 6 ? 6 : most + 1);
		assert_int_equal(d.at, most >= 6 ? count : 0);
		lh_walk_close(&d);
	}
	lh_shard_close(&s);
	free(ids);
	free(index);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(what_an_index_says_is_what_the_ids_say),
		SCRATCH_TEST(a_writer_that_is_taken_up_again_makes_the_same_index),
		SCRATCH_TEST(a_shard_that_is_given_up_leaves_no_index),
		SCRATCH_TEST(an_index_that_is_not_the_shards_is_passed_over),
		SCRATCH_TEST(who_looks_for_long_is_asked_and_can_be_told_to_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

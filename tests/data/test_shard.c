/* test_shard.c: token shards: what is written is read, and everything that is no
 * whole shard is refused with the file's name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "../scratch.h"
#include "lighthouse/shard.h"

enum { HEADER = 64 };

/* A shard of ids i * step % vocab. */
static void pack(const char *name, uint32_t vocab, int64_t count, int step)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;

	remove(path);
	assert_int_equal(lh_shard_writer_new(&w, path, vocab, vocab - 1, &err), 0);
	for (int64_t i = 0; i < count; i++) {
		int32_t id = (int32_t)(i * step % vocab);

		assert_int_equal(lh_shard_writer_add(w, &id, 1, &err), 0);
	}
	assert_int_equal(lh_shard_writer_count(w), count);
	assert_false(lh_fs_exists(path));
	assert_int_equal(lh_shard_writer_commit(w, 3, &err), 0);
	free(path);
}

static void open_ok(struct lh_shard *s, const char *name)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;

	if (lh_shard_open(s, path, LH_SHARD_AUTO, &err))
		fail_msg("%s", err.text);
	free(path);
}

/* The refusal names the file and says `what`; there is a hint. */
static void refuse(const char *name, const char *what)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;

	assert_int_equal(lh_shard_open(&s, path, LH_SHARD_AUTO, &err), LH_EDATA);
	if (!strstr(err.text, path) || !strstr(err.text, what))
		fail_msg("'%s' does not say '%s'", err.text, what);
	assert_true(strlen(err.hint) > 0);
	assert_null(s.map);
	free(path);
}

/* Rewrites a shard after `change`; `sum`: with a header checksum that fits. */
static void damage(const char *name, size_t at, uint8_t value, bool sum)
{
	size_t bytes;
	char *data = scratch_read(name, &bytes);
	uint64_t hash;

	data[at] = (char)value;
	hash = XXH64(data, 56, 0);
	if (sum)
		memcpy(data + 56, &hash, 8);
	scratch_write(name, data, bytes);
	free(data);
}

static void cut(const char *name, size_t bytes)
{
	size_t whole;
	char *data = scratch_read(name, &whole);

	assert_true(bytes <= whole);
	scratch_write(name, data, bytes);
	free(data);
}

static void round_trip(uint32_t vocab, int width)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;
	int32_t ids[10000];

	pack("s.bin", vocab, 10000, 7);
	open_ok(&s, "s.bin");
	assert_int_equal(s.count, 10000);
	assert_int_equal(s.width, width);
	assert_int_equal(s.vocab, vocab);
	assert_int_equal(s.separator, vocab - 1);
	assert_int_equal(s.documents, 3);
	lh_shard_read(&s, 0, 10000, ids);
	for (int i = 0; i < 10000; i++)
		assert_int_equal(ids[i], (int64_t)i * 7 % vocab);
	lh_shard_read(&s, 9998, 2, ids);
	assert_int_equal(ids[1], (int64_t)9999 * 7 % vocab);
	assert_int_equal(lh_shard_verify(&s, &err), 0);
	assert_int_equal(lh_shard_check_vocab(&s, vocab, &err), 0);
	lh_shard_close(&s);
}

static void what_is_written_is_read(void **state)
{
	(void)state;
	round_trip(257, 2);
	round_trip(65536, 2);
	round_trip(65537, 4);
}

static void an_aborted_shard_leaves_nothing(void **state)
{
	char *path = scratch_path("s.bin"), *tmp = scratch_path("s.bin.tmp");
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;

	(void)state;
	assert_int_equal(lh_shard_writer_new(&w, path, 4, LH_SHARD_NO_SEPARATOR, &err), 0);
	assert_true(lh_fs_exists(tmp));
	lh_shard_writer_abort(w);
	assert_false(lh_fs_exists(tmp));
	assert_false(lh_fs_exists(path));
	lh_shard_writer_abort(NULL);
	free(path);
	free(tmp);
}

/* Cut short behind 60 ids of which 50 are known of: whatever lies behind them goes. */
static void what_was_left_is_gone_on_with(void **state)
{
	char *path = scratch_path("s.bin"), *whole, *again;
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;
	uint16_t ids[100];
	size_t n, m;

	(void)state;
	pack("want.bin", 257, 100, 7);
	for (int i = 0; i < 100; i++)
		ids[i] = (uint16_t)(i * 7 % 257);
	assert_int_equal(lh_shard_writer_new(&w, path, 257, 256, &err), 0);
	assert_int_equal(lh_shard_writer_add_narrow(w, ids, 60, &err), 0);
	assert_int_equal(lh_shard_writer_sync(w, &err), 0);
	lh_shard_writer_leave(w);
	assert_int_equal(lh_shard_writer_resume(&w, path, 257, 256, 61, &err), LH_EDATA);
	assert_int_equal(lh_shard_writer_resume(&w, path, 257, 256, 50, &err), 0);
	assert_int_equal(lh_shard_writer_count(w), 50);
	assert_int_equal(lh_shard_writer_add_narrow(w, ids + 50, 50, &err), 0);
	assert_int_equal(lh_shard_writer_commit(w, 3, &err), 0);
	whole = scratch_read("want.bin", &n);
	again = scratch_read("s.bin", &m);
	assert_int_equal(n, m);
	assert_memory_equal(whole, again, n);
	assert_int_equal(lh_shard_writer_resume(&w, path, 257, 256, 50, &err), LH_EDATA);
	free(whole);
	free(again);
	free(path);
}

static void a_shard_that_cannot_be_created_is_an_error(void **state)
{
	char *path = scratch_path("no/such/dir/s.bin");
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;

	(void)state;
	assert_int_equal(lh_shard_writer_new(&w, path, 4, 0, &err), LH_EIO);
	assert_non_null(strstr(err.text, path));
	free(path);
}

static void what_is_no_file_is_refused(void **state)
{
	char *pipe;

	(void)state;
	refuse("missing.bin", "No such file");
	refuse(".", "not a regular file");
	pipe = scratch_path("pipe.bin"); /* opened to be read, it would wait for a writer */
	assert_int_equal(mkfifo(pipe, 0600), 0);
	refuse("pipe.bin", "not a regular file");
	free(pipe);
	scratch_write("empty.bin", "", 0);
	refuse("empty.bin", "empty");
}

static void foreign_files_are_refused(void **state)
{
	char text[200];

	(void)state;
	memset(text, 'x', sizeof(text));
	scratch_write("text.bin", text, sizeof(text));
	refuse("text.bin", "not a token shard");
	scratch_write("short.bin", "LHTOKENS", 8);
	refuse("short.bin", "not a token shard");
}

static void another_version_is_refused(void **state)
{
	(void)state;
	pack("s.bin", 257, 100, 1);
	damage("s.bin", 8, 2, true);
	refuse("s.bin", "version");
}

static void a_damaged_header_is_refused(void **state)
{
	(void)state;
	for (size_t at = 12; at < HEADER; at++) {
		pack("s.bin", 257, 100, 1);
		damage("s.bin", at, 0x5a, false);
		refuse("s.bin", "checksum");
	}
	pack("s.bin", 257, 100, 1);
	damage("s.bin", 12, 3, true);
	refuse("s.bin", "wide");
	/* A count whose bytes overflow 63 bits. */
	pack("s.bin", 257, 100, 1);
	damage("s.bin", 23, 0x7f, true);
	refuse("s.bin", "promises");
	pack("s.bin", 257, 100, 1);
	damage("s.bin", 23, 0xff, true);
	refuse("s.bin", "no tokens");
}

static void a_truncated_shard_is_refused(void **state)
{
	(void)state;
	pack("s.bin", 257, 100, 1);
	cut("s.bin", HEADER + 199);
	refuse("s.bin", "promises 100 tokens of 2 bytes, the file holds 199 bytes");
	cut("s.bin", HEADER);
	refuse("s.bin", "the file holds 0 bytes");
	cut("s.bin", HEADER - 1);
	refuse("s.bin", "not a token shard");
}

static void a_shard_without_tokens_is_refused(void **state)
{
	(void)state;
	pack("s.bin", 257, 0, 1);
	refuse("s.bin", "no tokens");
}

static void an_id_past_the_vocabulary_is_refused(void **state)
{
	char *path = scratch_path("s.bin");
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;

	(void)state;
	pack("s.bin", 300, 300, 1);
	open_ok(&s, "s.bin");
	assert_int_equal(s.max_token, 299);
	assert_int_equal(lh_shard_check_vocab(&s, 300, &err), 0);
	assert_int_equal(lh_shard_check_vocab(&s, 299, &err), LH_EDATA);
	assert_non_null(strstr(err.text, path));
	assert_non_null(strstr(err.text, "token id 299"));
	assert_string_equal(err.hint, "model.vocab 300 or more");
	lh_shard_close(&s);
	free(path);
}

static void verify_finds_a_flipped_bit(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard s;

	(void)state;
	pack("s.bin", 257, 100, 1);
	damage("s.bin", HEADER + 150, 0x80, false);
	open_ok(&s, "s.bin");
	assert_int_equal(lh_shard_verify(&s, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "checksum"));
	lh_shard_close(&s);
}

static void a_document_ends_at_its_separator(void **state)
{
	int64_t from, to;
	struct lh_shard s;

	(void)state;
	pack("s.bin", 10, 35, 1); /* 0 .. 9 three times, 9 separates; 0 .. 4 */
	open_ok(&s, "s.bin");
	for (int64_t i = 0; i < 35; i++) {
		lh_shard_document(&s, i, &from, &to);
		assert_int_equal(from, i / 10 * 10);
		assert_int_equal(to, i < 30 ? from + 10 : 35);
	}
	lh_shard_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(what_is_written_is_read),
		SCRATCH_TEST(an_aborted_shard_leaves_nothing),
		SCRATCH_TEST(what_was_left_is_gone_on_with),
		SCRATCH_TEST(a_shard_that_cannot_be_created_is_an_error),
		SCRATCH_TEST(what_is_no_file_is_refused),
		SCRATCH_TEST(foreign_files_are_refused),
		SCRATCH_TEST(another_version_is_refused),
		SCRATCH_TEST(a_damaged_header_is_refused),
		SCRATCH_TEST(a_truncated_shard_is_refused),
		SCRATCH_TEST(a_shard_without_tokens_is_refused),
		SCRATCH_TEST(an_id_past_the_vocabulary_is_refused),
		SCRATCH_TEST(verify_finds_a_flipped_bit),
		SCRATCH_TEST(a_document_ends_at_its_separator),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

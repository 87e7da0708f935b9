/* test_vocabulary.c: what tokenizers' files say of their ids, and files that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "../scratch.h"
#include "data/vocabulary.h"

#define JSON(vocab, added) "{\"model\":{\"vocab\":" vocab "},\"added_tokens\":" added "}"

static int read_text(const char *name, const void *data, size_t bytes,
		     struct lh_vocabulary *v, struct lh_err *err)
{
	char *path = scratch_path(name);
	int rc;

	scratch_write(name, data, bytes);
	*err = (struct lh_err)LH_ERR_INIT;
	rc = lh_vocabulary_read(v, path, err);
	free(path);
	return rc;
}

static void refused(const void *data, size_t bytes, const char *why)
{
	struct lh_vocabulary v;
	struct lh_err err;

	assert_int_equal(read_text("bad", data, bytes, &v, &err), LH_EDATA);
	if (!strstr(err.text, why) || !*err.hint)
		fail_msg("%s; hint: %s", err.text, err.hint);
}

static void a_json_has_the_ids_of_its_model_and_those_added(void **state)
{
	const char *text = JSON("{\"a\":0,\"b\":7}", "[{\"id\":9,\"content\":\"<e>\"}]");
	const char *list = JSON("[[\"a\",-1.5],[\"</s>\",0]]", "[]");
	struct lh_vocabulary v, w;
	char *path = scratch_path("t.json");
	struct lh_err err;
	int64_t id;

	(void)state;
	assert_int_equal(read_text("t.json", text, strlen(text), &v, &err), 0);
	assert_int_equal(v.kind, LH_VOCABULARY_JSON);
	assert_int_equal(v.size, 10);
	assert_int_equal(v.eos, -1);
	assert_int_equal(lh_vocabulary_find(path, "<e>", &id, &err), 0);
	assert_int_equal(id, 9);
	assert_int_equal(lh_vocabulary_find(path, "b", &id, &err), 0);
	assert_int_equal(id, 7);
	assert_int_equal(lh_vocabulary_find(path, "c", &id, &err), LH_EDATA);
	assert_int_equal(read_text("t.json", list, strlen(list), &w, &err), 0);
	assert_int_equal(w.size, 2);
	assert_int_equal(lh_vocabulary_find(path, "</s>", &id, &err), 0);
	assert_int_equal(id, 1);
	assert_true(v.hash != w.hash);
	free(path);
}

/* As an object with a content, or in the second of the two files. */
static void which_ids_begin_and_end_a_text_is_told_beside_it(void **state)
{
	const char *text = JSON("{\"a\":0}", "[{\"id\":1,\"content\":\"<b>\"},"
				"{\"id\":2,\"content\":\"<e>\"}]");
	const char *config = "{\"eos_token\":{\"content\":\"<e>\"},\"bos_token\":null}";
	const char *map = "{\"bos_token\":\"<b>\",\"eos_token\":\"a\"}";
	struct lh_vocabulary v;
	struct lh_err err;

	(void)state;
	scratch_write("special_tokens_map.json", map, strlen(map));
	assert_int_equal(read_text("tokenizer.json", text, strlen(text), &v, &err), 0);
	assert_int_equal(v.eos, 0);
	scratch_write("tokenizer_config.json", config, strlen(config));
	assert_int_equal(read_text("tokenizer.json", text, strlen(text), &v, &err), 0);
	assert_int_equal(v.eos, 2);
	assert_int_equal(v.bos, 1);
	scratch_write("tokenizer_config.json", "{", 1);
	assert_int_equal(read_text("tokenizer.json", text, strlen(text), &v, &err), 0);
	assert_int_equal(v.eos, 0);
}

static void files_that_are_no_tokenizers_are_refused(void **state)
{
	static const char *const bad[] = {
		"", "{", "[]", "hello", "{}", JSON("[]", "[]"), JSON("3", "[]"),
		JSON("{\"a\":-1}", "[]"), JSON("{\"a\":16777216}", "[]"),
		JSON("{\"a\":0.5}", "[]"), JSON("{\"a\":0}", "[{\"id\":99999999999}]"),
		JSON("{\"a\":0}", "[1]"), "\x0a", "\n\005abc", "\x0a\x00", "\xff\xff\xff\xff",
	};
	char *path = scratch_path("pipe"), *none = scratch_path("none");
	struct lh_vocabulary v;
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		refused(bad[i], strlen(bad[i]), "'/tmp/");
	refused("{\"model\":{\"dropout\":0.1,\"vocab\":{\"a\":0}}}", 41, "by chance");
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(lh_vocabulary_read(&v, path, &err), LH_EDATA);
	assert_int_equal(lh_vocabulary_read(&v, none, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "there is no tokenizer"));
	assert_int_equal(lh_vocabulary_read(&v, scratch_dir, &err), LH_EDATA);
	assert_non_null(strstr(err.hint, "tokenizer.json"));
	free(none);
	free(path);
}

/* They are refused before anything is made of them. */
static void bombs_are_refused(void **state)
{
	size_t n = 24 << 20;
	char *text = lh_alloc(n);

	(void)state;
	memset(text, ',', n);
	memcpy(text, "{\"a\":[1", 7);
	refused(text, n, "no JSON of a tokenizer");
	memset(text, '[', 100000);
	memcpy(text, "{\"a\":", 5);
	refused(text, 100000, "no JSON of a tokenizer");
	free(text);
}

static void put(struct lh_buf *b, int field, const void *data, size_t n)
{
	unsigned char head[3] = { (unsigned char)(field << 3 | 2), (unsigned char)n };

	if (field < 16) {
		lh_buf_append(b, head, 2);
	} else {
		head[0] = (unsigned char)((field << 3 | 2) | 0x80);
		head[1] = (unsigned char)(field >> 4);
		head[2] = (unsigned char)n;
		lh_buf_append(b, head, 3);
	}
	lh_buf_append(b, data, n);
}

static void piece(struct lh_buf *b, const char *text, char type)
{
	struct lh_buf inner = { 0 };

	put(&inner, 1, text, strlen(text));
	lh_buf_append(&inner, "\x15\0\0\0\0\x18", 6); /* a score; what comes is the type */
	lh_buf_append(&inner, &type, 1);
	put(b, 1, inner.data, inner.used_bytes);
	lh_buf_release(&inner);
}

static void a_model_of_pieces_has_their_number(void **state)
{
	struct lh_buf b = { 0 }, trainer = { 0 };
	char *path = scratch_path("m");
	struct lh_vocabulary v;
	struct lh_err err;
	int64_t id;

	(void)state;
	piece(&b, "<unk>", 2);
	piece(&b, "<s>", 3);
	piece(&b, "</s>", 3);
	piece(&b, "a", 1);
	piece(&b, "[END]", 3);
	assert_int_equal(read_text("m", b.data, b.used_bytes, &v, &err), 0);
	assert_int_equal(v.kind, LH_VOCABULARY_SENTENCEPIECE);
	assert_int_equal(v.size, 5);
	assert_int_equal(v.bos, 1);
	assert_int_equal(v.eos, 2);
	put(&trainer, 46, "a", 1); /* no control token */
	put(&trainer, 47, "[END]", 5);
	put(&b, 2, trainer.data, trainer.used_bytes);
	assert_int_equal(read_text("m", b.data, b.used_bytes, &v, &err), 0);
	assert_int_equal(v.bos, -1);
	assert_int_equal(v.eos, 4);
	assert_int_equal(lh_vocabulary_find(path, "a", &id, &err), 0);
	assert_int_equal(id, 3);
	for (size_t n = 1; n < 12; n++) /* cut within a piece */
		refused(b.data, n, "no model");
	refused(b.data, b.used_bytes - 1, "no model");
	lh_buf_release(&trainer);
	lh_buf_release(&b);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(a_json_has_the_ids_of_its_model_and_those_added),
		SCRATCH_TEST(which_ids_begin_and_end_a_text_is_told_beside_it),
		SCRATCH_TEST(files_that_are_no_tokenizers_are_refused),
		SCRATCH_TEST(bombs_are_refused),
		SCRATCH_TEST(a_model_of_pieces_has_their_number),
	};

	return cmocka_run_group_tests_name("vocabulary", tests, NULL, NULL);
}

/* test_passkey.c: texts that hide a digit: what they are, and that a model which learned
 * to look one up finds it, while one that did not is at chance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../scratch.h"
#include "base/fs.h"
#include "lighthouse/shard.h"
#include "train/model.h"
#include "train/passkey.h"

enum { T = 64, B = 16, STEPS = 500, ASKED = 20 };

static struct lh_passkey_words bytes;

/* ---- the text -------------------------------------------------------------- */

static void as_text(const int32_t *tokens, int64_t n, char *text)
{
	for (int64_t i = 0; i < n; i++)
		text[i] = (char)tokens[i];
	text[n] = '\0';
}

static void the_digit_is_said_at_its_depth_and_asked_for_at_the_end(void **state)
{
	int32_t tokens[200];
	char text[201], said[40];

	(void)state;
	for (int d = 0; d < LH_PASSKEY_DEPTHS; d++) {
		int digit = lh_passkey_text(&bytes, 7, d, 150, lh_passkey_depths[d], 200, tokens);
		long at, room = 150 - 17 - 20;

		as_text(tokens, 150, text);
		snprintf(said, sizeof(said), " The pass key is %d. ", digit);
		assert_non_null(strstr(text, said));
		at = strstr(text, said) - text;
		assert_int_equal(at, room * lh_passkey_depths[d] / 100);
		assert_string_equal(text + 150 - 17, " The pass key is ");
		for (int t = 150; t < 200; t++)
			assert_int_equal(tokens[t], 0);
	}
}

static void texts_follow_from_the_seed_and_differ_by_sample(void **state)
{
	int32_t a[T], b[T];
	int digits[10] = { 0 };

	(void)state;
	assert_int_equal(lh_passkey_text(&bytes, 1, 3, T, 50, T, a), lh_passkey_text(&bytes, 1, 3, T, 50, T, b));
	assert_memory_equal(a, b, sizeof(a));
	lh_passkey_text(&bytes, 1, 4, T, 50, T, b);
	assert_memory_not_equal(a, b, sizeof(a));
	lh_passkey_text(&bytes, 2, 3, T, 50, T, b);
	assert_memory_not_equal(a, b, sizeof(a));
	for (int i = 0; i < 200; i++)
		digits[lh_passkey_text(&bytes, 1, i, T, 15, T, a)]++;
	for (int d = 0; d < 10; d++)
		assert_true(digits[d] > 5);
}

static void contexts_double_up_to_the_sequence(void **state)
{
	int64_t c[LH_PASSKEY_CONTEXTS_MAX];

	(void)state;
	assert_int_equal(lh_passkey_contexts(4096, 98304, c), 6);
	assert_int_equal(c[0], 4096);
	assert_int_equal(c[4], 65536);
	assert_int_equal(c[5], 98304);
	assert_int_equal(lh_passkey_contexts(4096, 2048, c), 1);
	assert_int_equal(c[0], 2048);
	assert_int_equal(lh_passkey_contexts(64, 16777216, c), 19);
}

/* ---- words of a file ------------------------------------------------------- */

/* Of a tokenizer with 99 ids; the longer words are of ids 70 to 89, in rising order. */
#define GOOD_SAID "\"question\": [1, 2, 3], \"digits\": [10, 11, 12, 13, 14, 15, 16, 17, 18, 19], " \
		  "\"end\": [4]"
#define GOOD_WORDS "\"words\": [[70, 71, 72], [20], [73, 74, 75, 76, 77], [21]]"
#define FILE_OF(said, words) "{\"passkey\": 1, \"tokenizer\": \"00000000000000ff\", " said ", " words "}"

static int read_words(struct lh_passkey_words *w, const char *text, struct lh_err *err)
{
	struct lh_job job = { .model.vocab = 99, .data.tokenizer = "/t.json" };
	int rc;

	job.evaluation.passkey.file = scratch_path("words.json");
	assert_int_equal(lh_fs_write_atomic(job.evaluation.passkey.file, text, strlen(text),
					    NULL), 0);
	rc = lh_passkey_words_read(w, &job, err);
	free(job.evaluation.passkey.file);
	return rc;
}

/* Whether ids [from, to) are whole words. */
static void check_filler(const int32_t *tokens, int64_t from, int64_t to)
{
	for (int64_t i = from; i < to;) {
		int64_t n = tokens[i] == 70 ? 3 : tokens[i] == 73 ? 5 : 1;

		assert_true(n > 1 || tokens[i] == 20 || tokens[i] == 21);
		assert_true(i + n <= to);
		for (int64_t k = 1; k < n; k++)
			assert_int_equal(tokens[i + k], tokens[i] + k);
		i += n;
	}
}

static void texts_of_words_have_whole_words_and_the_length_that_is_asked(void **state)
{
	static const int32_t question[] = { 1, 2, 3 };
	struct lh_passkey_words w;
	struct lh_err err = LH_ERR_INIT;
	int32_t tokens[100];
	int words = 0;

	(void)state;
	if (read_words(&w, FILE_OF(GOOD_SAID, GOOD_WORDS), &err))
		fail_msg("%s", err.text);
	assert_int_equal(w.tokenizer, 255);
	assert_int_equal(w.one_id_count, 2);
	for (int i = 0; i < 36 * LH_PASSKEY_DEPTHS; i++) {
		int64_t context = 64 + i / LH_PASSKEY_DEPTHS, room = context - 8, at;
		int depth = lh_passkey_depths[i % LH_PASSKEY_DEPTHS];
		int digit = lh_passkey_text(&w, 3, i, context, depth, 100, tokens);

		at = room * depth / 100;
		check_filler(tokens, 0, at);
		assert_memory_equal(tokens + at, question, sizeof(question));
		assert_int_equal(tokens[at + 3], 10 + digit);
		assert_int_equal(tokens[at + 4], 4);
		check_filler(tokens, at + 5, context - 3);
		assert_memory_equal(tokens + context - 3, question, sizeof(question));
		for (int64_t t = context; t < 100; t++)
			assert_int_equal(tokens[t], 0);
		words += tokens[depth ? 0 : 5] >= 70;
	}
	assert_true(words > 36); /* half of them begin with a long word */
	lh_passkey_words_release(&w);
}

static void the_answer_is_the_likeliest_of_ten_ids(void **state)
{
	struct lh_passkey_words w;
	struct lh_err err = LH_ERR_INIT;
	float logits[99] = { 0 };

	(void)state;
	assert_int_equal(read_words(&w, FILE_OF(GOOD_SAID, GOOD_WORDS), &err), 0);
	logits['7'] = 9; /* of bytes */
	logits[16] = 1;
	assert_int_equal(lh_passkey_answer(&w, logits), 6);
	assert_int_equal(lh_passkey_answer(&bytes, logits), 7);
	lh_passkey_words_release(&w);
}

static void what_are_no_words_is_refused(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{ "", "it has no words for passkeys" },
		{ "[[[", "it has no words for passkeys" },
		{ "{\"passkey\": 2, \"tokenizer\": \"1\", " GOOD_SAID ", " GOOD_WORDS "}", "another version" },
		{ FILE_OF(GOOD_SAID, "\"words\": []"), "no words, or too many" },
		{ FILE_OF(GOOD_SAID, "\"words\": {\"a\": 1}"), "no words, or too many" },
		{ FILE_OF(GOOD_SAID, "\"words\": [[20], 21]"), "missing, or too long" },
		{ FILE_OF(GOOD_SAID, "\"words\": [[20], []]"), "missing, or too long" },
		{ FILE_OF(GOOD_SAID, "\"words\": [[20, 21]]"), "no word of one id" },
		{ FILE_OF(GOOD_SAID, "\"words\": [[20], [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]]"), "too long" },
		{ FILE_OF(GOOD_SAID, "\"words\": [[20], [99]]"), "token id 99, model.vocab is 99" },
		{ FILE_OF(GOOD_SAID, "\"words\": [[-1]]"), "token id -1" },
		{ FILE_OF(GOOD_SAID, "\"words\": [[1.5]]"), "token id -1" },
		{ FILE_OF("\"question\": [1], \"digits\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 1], \"end\": []", GOOD_WORDS), "two digits have one id" },
		{ FILE_OF("\"question\": [1], \"digits\": [1, 2], \"end\": []", GOOD_WORDS), "missing" },
		{ FILE_OF("\"question\": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1], \"digits\": [10, 11, 12, 13, 14, 15, 16, 17, 18, 19], \"end\": []", GOOD_WORDS), "its sentence is too long" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lh_passkey_words w;
		struct lh_err err = LH_ERR_INIT;

		assert_int_equal(read_words(&w, cases[i].text, &err), LH_EDATA);
		if (!strstr(err.text, cases[i].why) || !strstr(err.text, "words.json"))
			fail_msg("case %zu: %s", i, err.text);
		assert_true(*err.hint);
		assert_null(w.ids);
		assert_null(w.filler);
	}
}

/* ---- a model --------------------------------------------------------------- */

static struct lh_dev *dev;

static struct lh_model *new_model(void)
{
	struct lh_job_model c = { .vocab = LH_BYTES_VOCAB, .dim = 32, .layers = 2,
				  .heads = 2, .kv_heads = 2, .head_dim = 16, .ffn_dim = 64,
				  .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.1 };
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;

	assert_int_equal(lh_model_new(&m, &lh_ops_cpu, dev, NULL, &c, B, T, &lh_attention_full, 1,
				      &err), 0);
	lh_model_init(m, 2);
	return m;
}

/* On other texts than those asked for; only the answer is trained. */
static void train(struct lh_model *m)
{
	struct lh_adamw opt = { .lr = 4e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
				.clip = 1, .grad_scale = 1 };
	int32_t tokens[B * T], targets[B * T];
	struct lh_err err = LH_ERR_INIT;
	float loss, norm;

	memset(targets, 0xff, sizeof(targets)); /* -1 */
	for (int i = 0; i < STEPS; i++) {
		for (int b = 0; b < B; b++)
			targets[b * T + T - 1] =
				'0' + lh_passkey_text(&bytes, 99, i * B + b, T,
						      lh_passkey_depths[b % LH_PASSKEY_DEPTHS],
						      T, tokens + b * T);
		opt.step = i + 1;
		lh_model_zero_grad(m);
		lh_model_forward_backward(m, &lh_attention_full, B, tokens, targets, NULL,
					  1.0f / B);
		assert_int_equal(lh_model_measure(m, &loss, &norm, &err), 0);
		lh_model_apply(m, &opt);
	}
}

/* Share that is found at all depths. */
static double found(struct lh_model *m)
{
	static float logits[B * LH_BYTES_VOCAB];
	int32_t tokens[B * T];
	struct lh_err err = LH_ERR_INIT;
	int digit[B], right = 0;

	for (int i = 0; i < ASKED; i++) {
		for (int b = 0; b < B; b++)
			digit[b] = lh_passkey_text(&bytes, 1, i * B + b, T,
						   lh_passkey_depths[b % LH_PASSKEY_DEPTHS], T,
						   tokens + b * T);
		assert_int_equal(lh_model_logits(m, &lh_attention_full, B, T, tokens, T - 1,
						 logits, &err), 0);
		for (int b = 0; b < B; b++)
			right += lh_passkey_answer(&bytes, logits + b * LH_BYTES_VOCAB) == digit[b];
	}
	return (double)right / (B * ASKED);
}

static void one_that_learned_to_look_up_finds_it_an_untrained_one_does_not(void **state)
{
	struct lh_model *m = new_model();

	(void)state;
	assert_true(found(m) < 0.2); /* 320 asked, 0.1 by chance */
	train(m);
	assert_true(found(m) > 0.5);
	lh_model_free(m);
}

/* What follows a shorter context is padding, and changes no answer. */
static void the_rest_of_a_sequence_changes_nothing(void **state)
{
	float a[LH_BYTES_VOCAB], b[LH_BYTES_VOCAB];
	struct lh_model *m = new_model();
	struct lh_err err = LH_ERR_INIT;
	int32_t tokens[T];

	(void)state;
	lh_passkey_text(&bytes, 1, 0, T, 30, T, tokens);
	assert_int_equal(lh_model_logits(m, &lh_attention_full, 1, T, tokens, 40, a, &err), 0);
	memset(tokens + 41, 0, (T - 41) * sizeof(*tokens));
	assert_int_equal(lh_model_logits(m, &lh_attention_full, 1, T, tokens, 40, b, &err), 0);
	assert_memory_equal(a, b, sizeof(a));
	lh_model_free(m);
}

static int setup(void **state)
{
	struct lh_job job = { .data.tokenizer = "bytes", .evaluation.passkey.file = "" };
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	if (lh_passkey_words_read(&bytes, &job, &err))
		return -1;
	return lh_ops_cpu.open(&dev, 1, &err);
}

static int teardown(void **state)
{
	(void)state;
	lh_ops_cpu.close(dev);
	lh_passkey_words_release(&bytes);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_digit_is_said_at_its_depth_and_asked_for_at_the_end),
		cmocka_unit_test(texts_follow_from_the_seed_and_differ_by_sample),
		cmocka_unit_test(contexts_double_up_to_the_sequence),
		SCRATCH_TEST(texts_of_words_have_whole_words_and_the_length_that_is_asked),
		SCRATCH_TEST(the_answer_is_the_likeliest_of_ten_ids),
		SCRATCH_TEST(what_are_no_words_is_refused),
		cmocka_unit_test(one_that_learned_to_look_up_finds_it_an_untrained_one_does_not),
		cmocka_unit_test(the_rest_of_a_sequence_changes_nothing),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

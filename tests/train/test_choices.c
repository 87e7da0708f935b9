/* test_choices.c: multiple choice: what files hold, what is refused of them, and that
 * scores are what a model's own logits say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../scratch.h"
#include "base/fs.h"
#include "lighthouse/shard.h"
#include "train/choices.h"
#include "train/model.h"

enum { T = 64, V = LH_BYTES_VOCAB };

static struct lh_job job(void)
{
	return (struct lh_job){ .model.vocab = V, .data.seq_len = T,
				.data.tokenizer = "bytes",
				.evaluation.choices.items = 1000 };
}

static int read_text(struct lh_choices *c, const char *text, const struct lh_job *j,
		     struct lh_err *err)
{
	char *path = scratch_path("c.jsonl");
	int rc;

	assert_int_equal(lh_fs_write_atomic(path, text, strlen(text), NULL), 0);
	rc = lh_choices_read(c, path, j, err);
	free(path);
	return rc;
}

static void must_read(struct lh_choices *c, const char *text, const struct lh_job *j)
{
	struct lh_err err = LH_ERR_INIT;

	if (read_text(c, text, j, &err))
		fail_msg("%s", err.text);
}

/* ---- files ----------------------------------------------------------------- */

/* What the model is given and asked, the ids that are asked for in brackets. */
static void as_text(const struct lh_choices *c, int64_t item, int ending, char *out)
{
	int32_t tokens[T], targets[T];

	lh_choices_row(c, item, ending, T, tokens, targets);
	*out++ = (char)tokens[0];
	for (int t = 0; t < T; t++) {
		if (targets[t] < 0 && (t == T - 1 || !tokens[t + 1]))
			break;
		if (targets[t] >= 0)
			*out++ = '[';
		*out++ = (char)(targets[t] >= 0 ? targets[t] : tokens[t + 1]);
		if (targets[t] >= 0)
			*out++ = ']';
	}
	*out = '\0';
}

static void endings_follow_their_context_and_alone_are_asked_for(void **state)
{
	const struct lh_job j = job();
	struct lh_choices c;
	char text[4 * T];

	(void)state;
	must_read(&c, "{\"ind\": 4, \"ctx\": \"On\", \"endings\": [\"ab\", \" c\"], \"label\": 1}\n"
		      "\n"
		      "{\"ctx\": \"to \", \"endings\": [\"x\", \"\xc3\xa9\", \"yz\"], \"label\": \"2\"}",
		  &j);
	assert_int_equal(c.count, 2);
	assert_int_equal(c.cut, 0);
	assert_int_equal(c.longest, 4);
	as_text(&c, 0, 0, text);
	assert_string_equal(text, "On[ ][a][b]");
	as_text(&c, 0, 1, text);
	assert_string_equal(text, "On[ ][c]");
	as_text(&c, 1, 1, text);
	assert_string_equal(text, "to [\xc3][\xa9]");
	assert_int_equal(c.items[0].label, 1);
	assert_int_equal(c.items[1].label, 2);
	/* The blank between the two counts for the score, not for its length. */
	assert_int_equal(c.items[0].length[0], 2);
	assert_int_equal(c.items[0].length[1], 2);
	assert_int_equal(c.items[1].length[1], 2);
	assert_true(fabs(lh_choices_chance(&c) - (1.0 / 2 + 1.0 / 3) / 2) < 1e-12);
	lh_choices_release(&c);
}

static void a_context_that_is_too_long_loses_its_beginning(void **state)
{
	char line[400], context[101], text[4 * T];
	const struct lh_job j = job();
	struct lh_choices c;

	(void)state;
	memset(context, 'a', 100);
	memcpy(context + 98, "xy", 3);
	snprintf(line, sizeof(line), "{\"ctx\": \"%s\", \"endings\": [\"p\", \"q\"], \"label\": 0}\n"
		 "{\"ctx\": \"%s\", \"endings\": [\"p\", \"q\"], \"label\": 0}", context,
		 context + 37);
	must_read(&c, line, &j);
	assert_int_equal(c.cut, 1);
	assert_int_equal(c.longest, T);
	assert_int_equal(c.items[0].context, T + 1 - 2);
	assert_int_equal(c.items[1].context, T + 1 - 2);
	as_text(&c, 0, 1, text);
	assert_string_equal(text + T + 1 - 4, "xy[ ][q]");
	lh_choices_release(&c);
}

static void other_tokenizers_have_ids(void **state)
{
	static const char both[] = "{\"ctx_ids\": [7, 300], \"endings_ids\": [[1], [2, 3]], "
				   "\"endings\": [\"word\", \"words\"], \"label\": 0}";
	static const char ids[] = "{\"ctx_ids\": [7], \"endings_ids\": [[1], [2, 3]], "
				  "\"label\": 0}";
	struct lh_err err = LH_ERR_INIT;
	struct lh_job j = job();
	struct lh_choices c;

	(void)state;
	assert_int_equal(read_text(&c, both, &j, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "token id 300, model.vocab is 257"));
	j.data.tokenizer = "none";
	j.model.vocab = 1000;
	must_read(&c, both, &j);
	assert_int_equal(c.items[0].context, 2);
	assert_int_equal(c.items[0].length[1], 5);
	lh_choices_release(&c);
	must_read(&c, ids, &j);
	assert_int_equal(c.items[0].length[1], 2);
	lh_choices_release(&c);
	assert_int_equal(read_text(&c, "{\"ctx\": \"a\", \"endings\": [\"b\", \"c\"], \"label\": 0}",
				   &j, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "has no ids"));
	assert_non_null(strstr(err.hint, "lhctl ids"));
}

static void ids_tell_whose_they_are(void **state)
{
	static const char line[] = "{\"ctx_ids\": [7], \"endings_ids\": [[1], [2]], \"label\": 0, "
				   "\"tokenizer\": \"%s\"}\n";
	struct lh_err err = LH_ERR_INIT;
	struct lh_job j = job();
	struct lh_choices c;
	char text[400];

	(void)state;
	snprintf(text, sizeof(text), line, "fedcba9876543210");
	must_read(&c, text, &j);
	assert_int_equal(c.tokenizer, 0xfedcba9876543210);
	lh_choices_release(&c);
	snprintf(text + strlen(text), 200, line, "0000000000000001");
	assert_int_equal(read_text(&c, text, &j, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "c.jsonl':2: its ids are of another tokenizer"));
	assert_true(*err.hint);
}

static void only_the_first_items_are_read(void **state)
{
	static const char two[] = "{\"ctx\": \"a\", \"endings\": [\"b\", \"c\"], \"label\": 0}\nnonsense";
	struct lh_job j = job();
	struct lh_choices c;

	(void)state;
	j.evaluation.choices.items = 1;
	must_read(&c, two, &j);
	assert_int_equal(c.count, 1);
	lh_choices_release(&c);
}

#define GOOD "{\"ctx\": \"a\", \"endings\": [\"b\", \"c\"], \"label\": 0}\n"
#define ITEM(ctx, endings, label) \
	"{\"ctx\": " ctx ", \"endings\": " endings ", \"label\": " label "}"

static void what_is_no_item_is_refused_with_its_line(void **state)
{
	static const char *const bad[][2] = {
		{ "", "holds no items" },
		{ "\n \n", "holds no items" },
		{ GOOD "{", "c.jsonl':2: column 1: " },
		{ GOOD "\n[]", "c.jsonl':3: it is no JSON object" },
		{ "{\"ctx\": \"a\", \"ctx\": \"b\"}", "duplicate" },
		{ ITEM("3", "[\"b\", \"c\"]", "0"), "'ctx' is missing or empty" },
		{ ITEM("\"\"", "[\"b\", \"c\"]", "0"), "'ctx' is missing or empty" },
		{ ITEM("\"a\"", "[\"b\"]", "0"), "'endings' is no list of 2 to 8" },
		{ ITEM("\"a\"", "[1,2,3,4,5,6,7,8,9]", "0"), "'endings' is no list of 2 to 8" },
		{ ITEM("\"a\"", "\"b\"", "0"), "'endings' is no list of 2 to 8" },
		{ ITEM("\"a\"", "[\"b\", \"\"]", "0"), "an ending is empty" },
		{ ITEM("\"a\"", "[\"b\", null]", "0"), "an ending is empty" },
		{ ITEM("\"a\"", "[\"b\", \"c\"]", "2"), "'label' names none" },
		{ ITEM("\"a\"", "[\"b\", \"c\"]", "-1"), "'label' names none" },
		{ ITEM("\"a\"", "[\"b\", \"c\"]", "\"\""), "'label' names none" },
		{ ITEM("\"a\"", "[\"b\", \"c\"]", "\"10\""), "'label' names none" },
		{ ITEM("\"a\"", "[\"b\", \"c\"]", "0.0"), "'label' names none" },
		{ "{\"ctx_ids\": [1], \"endings_ids\": [[2], [\"3\"]], \"label\": 0}",
		  "ids are integers" },
		{ "{\"ctx_ids\": [1], \"endings_ids\": [[2], [-3]], \"label\": 0}", "token id -3" },
		{ "{\"ctx_ids\": [], \"endings_ids\": [[2], [3]], \"label\": 0}",
		  "'ctx_ids' is missing or empty" },
		{ "{\"ctx_ids\": [1], \"endings_ids\": [[2], 3], \"label\": 0}",
		  "an ending is empty" },
		{ ITEM("\"a\"", "[\"0123456789012345678901234567890123456789012345678901234567890123"
		       "4\", \"c\"]", "0"), "fits in no sequence of 64" },
	};
	const struct lh_job j = job();

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct lh_err err = LH_ERR_INIT;
		struct lh_choices c;

		assert_int_equal(read_text(&c, bad[i][0], &j, &err), LH_EDATA);
		if (!strstr(err.text, bad[i][1]))
			fail_msg("'%s' lacks '%s'", err.text, bad[i][1]);
		assert_true(*err.hint);
		assert_null(c.ids);
	}
}

static void what_is_too_large_is_refused(void **state)
{
	char *line = lh_alloc(LH_CHOICES_LINE_BYTES + 200), *at;
	const struct lh_job j = { .model.vocab = V, .data.tokenizer = "bytes",
				  .data.seq_len = 1 << 20,
				  .evaluation.choices.items = 1 << 20 };
	struct lh_err err = LH_ERR_INIT;
	struct lh_choices c;
	char *many;

	(void)state;
	at = line + sprintf(line, "{\"ctx\": \"");
	memset(at, 'a', LH_CHOICES_LINE_BYTES);
	strcpy(at + LH_CHOICES_LINE_BYTES, "\", \"endings\": [\"b\", \"c\"], \"label\": 0}");
	assert_int_equal(read_text(&c, line, &j, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "c.jsonl':1: the line is longer than 1 MiB"));
	/* Lines that are not, and too many of them. */
	strcpy(at + LH_CHOICES_LINE_BYTES - 100, "\", \"endings\": [\"b\", \"c\"], \"label\": 0}\n");
	many = lh_alloc(17 * strlen(line) + 1);
	for (int i = 0; i < 17; i++)
		strcpy(many + (size_t)i * strlen(line), line);
	assert_int_equal(read_text(&c, many, &j, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "c.jsonl':17: there are too many items for memory"));
	free(many);
	free(line);
}

static void what_is_no_file_is_refused(void **state)
{
	char *dir = scratch_path("."), *none = scratch_path("none");
	const struct lh_job j = job();
	struct lh_err err = LH_ERR_INIT;
	struct lh_choices c;

	(void)state;
	assert_int_equal(lh_choices_read(&c, none, &j, &err), LH_ENOTFOUND);
	assert_int_equal(lh_choices_read(&c, dir, &j, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "is no file"));
	free(none);
	free(dir);
}

/* ---- scores ---------------------------------------------------------------- */

static void the_likeliest_is_picked_by_score_or_by_length(void **state)
{
	struct lh_choice item = { .endings = 3, .label = 1, .length = { 1, 10, 4 } };

	(void)state;
	assert_false(lh_choices_is_right(&item, (double[]){ 3, 9, 8 }, false));
	assert_true(lh_choices_is_right(&item, (double[]){ 3, 9, 8 }, true));
	item.label = 0;
	assert_true(lh_choices_is_right(&item, (double[]){ 3, 3, 3 }, false));
	item.label = 2;
	assert_true(lh_choices_is_right(&item, (double[]){ 3, 3, 2.9 }, false));
}

static struct lh_dev *dev;

static struct lh_model *new_model(void)
{
	struct lh_job_model c = { .vocab = V, .dim = 32, .layers = 2, .heads = 2,
				  .kv_heads = 2, .head_dim = 16, .ffn_dim = 64,
				  .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.1 };
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;

	assert_int_equal(lh_model_new(&m, &lh_ops_cpu, dev, NULL, &c, 2, T, &lh_attention_full,
				      1, &err), 0);
	lh_model_init(m, 2);
	return m;
}

/* Minus the log-probability of one id, of the logits of all. */
static double nats_of(const float *logits, int32_t id)
{
	double most = -INFINITY, sum = 0;

	for (int v = 0; v < V; v++)
		most = fmax(most, (double)logits[v]);
	for (int v = 0; v < V; v++)
		sum += exp((double)logits[v] - most);
	return most + log(sum) - (double)logits[id];
}

/* Token by token: each id of the ending, after all that stands before it. */
static double naive(struct lh_model *m, const char *context, const char *ending)
{
	static float logits[V];
	size_t n = strlen(context), all = n + strlen(ending);
	struct lh_err err = LH_ERR_INIT;
	int32_t ids[T] = { 0 };
	double nats = 0;

	for (size_t i = 0; i < all; i++)
		ids[i] = (unsigned char)(i < n ? context[i] : ending[i - n]);
	for (size_t i = n; i < all; i++) {
		assert_int_equal(lh_model_logits(m, &lh_attention_full, 1, (int64_t)i, ids,
						 (int64_t)i - 1, logits, &err), 0);
		nats += nats_of(logits, ids[i]);
	}
	return nats;
}

/* In a pass of t tokens, beside another ending. */
static double scored(struct lh_model *m, const struct lh_choices *c, int64_t item, int ending,
		     int64_t t)
{
	int32_t tokens[2 * T], targets[2 * T];
	struct lh_err err = LH_ERR_INIT;
	float row_loss[2 * T];
	double loss, nats = 0;

	lh_choices_row(c, 0, 0, t, tokens, targets);
	lh_choices_row(c, item, ending, t, tokens + t, targets + t);
	assert_int_equal(lh_model_loss(m, &lh_attention_full, 2, t, tokens, targets, NULL, &loss,
				       row_loss, &err), 0);
	for (int64_t i = t; i < 2 * t; i++)
		nats += targets[i] >= 0 ? (double)row_loss[i] : 0;
	return nats;
}

static void scores_are_what_the_logits_say(void **state)
{
	static const char *const endings[] = { " sees it", " is gone, long ago", " 7" };
	const struct lh_job j = job();
	struct lh_model *m = new_model();
	struct lh_choices c;

	(void)state;
	must_read(&c, GOOD "{\"ctx\": \"Who is there\", \"endings\": [\"sees it\", "
		      "\"is gone, long ago\", \"7\"], \"label\": 0}", &j);
	for (int e = 0; e < 3; e++) {
		double want = naive(m, "Who is there", endings[e]);

		assert_true(want > 1);
		assert_true(fabs(scored(m, &c, 1, e, c.longest) - want) < 1e-4 * want);
		assert_true(fabs(scored(m, &c, 1, e, T) - want) < 1e-4 * want);
	}
	lh_choices_release(&c);
	lh_model_free(m);
}

static int setup(void **state)
{
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	return lh_ops_cpu.open(&dev, 1, &err);
}

static int teardown(void **state)
{
	(void)state;
	lh_ops_cpu.close(dev);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(endings_follow_their_context_and_alone_are_asked_for),
		SCRATCH_TEST(a_context_that_is_too_long_loses_its_beginning),
		SCRATCH_TEST(other_tokenizers_have_ids),
		SCRATCH_TEST(ids_tell_whose_they_are),
		SCRATCH_TEST(only_the_first_items_are_read),
		SCRATCH_TEST(what_is_no_item_is_refused_with_its_line),
		SCRATCH_TEST(what_is_too_large_is_refused),
		SCRATCH_TEST(what_is_no_file_is_refused),
		cmocka_unit_test(the_likeliest_is_picked_by_score_or_by_length),
		SCRATCH_TEST(scores_are_what_the_logits_say),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

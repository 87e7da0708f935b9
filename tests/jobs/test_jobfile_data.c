/* test_jobfile_data.c: what a job file may say of its data: shards, mixtures, bare ids,
 * validation sets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>

#include "data/vocabulary.h"
#include "jobfile_text.h"

static void data_that_does_not_fit_is_refused(void **state)
{
	char *path = lh_asprintf("%s/short.bin", dir);
	struct lh_shard_writer *w;
	int32_t ids[10] = { 0 };

	(void)state;
	assert_int_equal(lh_shard_writer_new(&w, path, 300, 256, NULL), 0);
	assert_int_equal(lh_shard_writer_add(w, ids, 10, NULL), 0);
	assert_int_equal(lh_shard_writer_commit(w, 1, NULL), 0);
	refused_with("data.train", "short.bin", "holds 10 tokens, at least 257");
	assert_int_equal(truncate(path, 70), 0);
	refused_with("data.train", "[train.bin, short.bin]", "promises 10 tokens");
	assert_int_equal(lh_fs_write_atomic(path, "", 0, NULL), 0);
	refused_with("data.validation", "short.bin", "empty");
	assert_int_equal(lh_fs_write_atomic(path, "hello, I am no shard at all", 27, NULL), 0);
	refused_with("data.train", "short.bin", "not a token shard");
	refused_at("model.vocab", "270", "data.train", "token id 299");
	free(path);
}

/* No header says how wide they are, so the file must. */
static void bare_ids_are_read_when_the_file_says_so(void **state)
{
	static const char *const set[] = { "data.train=raw/bare.bin", "data.format=uint16" };
	static const char *const small[] = { "data.train=raw/bare.bin", "data.format=uint16",
					     "model.vocab=290" };
	char *path = lh_asprintf("%s/raw/bare.bin", dir), *text = text_with(-1, NULL);
	uint16_t ids[300];
	struct lh_job job;
	struct lh_err err;

	(void)state;
	for (int i = 0; i < 300; i++)
		ids[i] = (uint16_t)i;
	assert_int_equal(lh_fs_write_atomic(path, ids, sizeof(ids), NULL), 0);
	assert_int_equal(load(&job, text, strlen(text), set, 1, &err), LH_EDATA);
	assert_non_null(strstr(err.hint, "data.format"));
	if (load(&job, text, strlen(text), set, 2, &err))
		fail_msg("refused: %s", err.text);
	assert_int_equal(job.data.format, LH_SHARD_UINT16);
	lh_job_release(&job);
	assert_int_equal(load(&job, text, strlen(text), small, 3, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "token id 299"));
	assert_int_equal(unlink(path), 0);
	free(text);
	free(path);
}

static void validation_sets_have_names(void **state)
{
	static const char *const lists[] = {
		"data.validation={ web: val.bin, code: train.bin }",
		"data.validation=[{ name: web, path: val.bin }, { path: train.bin, name: code }]",
	};
	char *text = text_with(-1, NULL);
	struct lh_job job, back = { 0 };
	struct lh_err err;
	json_t *json;

	(void)state;
	for (int i = 0; i < 2; i++) {
		if (load(&job, text, strlen(text), &lists[i], 1, &err))
			fail_msg("refused: %s", err.text);
		json = lh_jobfile_to_json(&job);
		if (lh_jobfile_from_json(&back, json, &err))
			fail_msg("from JSON: %s", err.text);
		assert_int_equal(back.data.validation_count, 2);
		assert_string_equal(back.data.validation[0].name, "web");
		assert_string_equal(back.data.validation[1].name, "code");
		assert_string_equal(back.data.validation[1].path, job.data.train[0]);
		json_decref(json);
		lh_job_release(&back);
		lh_job_release(&job);
	}
	free(text);
}

static void odd_validation_sets_are_refused(void **state)
{
	(void)state;
	refused_with("data.validation", "[val.bin]", "found 'val.bin', { name: NAME");
	refused_with("data.validation", "[]", "found 'a list', a path, or 1 to 16");
	refused_with("data.validation", "{ a: [val.bin] }", "found 'a list', a path");
	refused_with("data.validation", "{ 'a b': val.bin }", "found the name 'a b'");
	refused_with("data.validation", "{ a: '' }", "found '', a path");
	refused_with("data.validation", "null", "found 'null', a path");
	refused_with("data.validation",
		     "[{ name: a, path: val.bin }, { name: a, path: val.bin }]",
		     "two sets are named 'a'");
	refused_with("data.validation", "{ a: val.bin, b: none.bin }", "none.bin");
}

/* `n` ids, a separator at every fourth. */
static void write_documents(const char *name, int n)
{
	char *path = lh_asprintf("%s/%s", dir, name);
	struct lh_shard_writer *w;
	int32_t ids[40];

	for (int i = 0; i < n; i++)
		ids[i] = i % 4 == 3 ? 256 : i;
	assert_int_equal(lh_shard_writer_new(&w, path, 300, 256, NULL), 0);
	assert_int_equal(lh_shard_writer_add(w, ids, n, NULL), 0);
	assert_int_equal(lh_shard_writer_commit(w, 1, NULL), 0);
	free(path);
}

/* A shard of documents may be shorter than a sequence: it is filled up. */
static void documents_are_kept_apart_where_they_are_known(void **state)
{
	static const char *const set[] = { "data.documents=separate", "phases.0.scorer=norm",
					   "data.validation=apart.bin",
					   "data.train=apart.bin" };
	static const char *const said[] = { "phases.0.scorer", "data.train", "data.train" };
	char *text = text_with(-1, NULL);
	struct lh_job job;
	struct lh_err err;

	(void)state;
	write_documents("apart.bin", 40);
	for (int n = 1; n < 4; n++) {
		assert_true(load(&job, text, strlen(text), set, n, &err) < 0);
		assert_non_null(strstr(err.text, said[n - 1]));
		assert_non_null(strstr(err.text, n == 1 ? "attends across documents" :
							  "does not tell where documents"));
		assert_non_null(strstr(err.hint, "data.documents: attend"));
	}
	if (load(&job, text, strlen(text), set, 4, &err))
		fail_msg("refused: %s", err.text);
	assert_int_equal(job.data.documents, LH_DOCUMENTS_SEPARATE);
	lh_job_release(&job);
	write_documents("apart.bin", 1);
	assert_int_equal(load(&job, text, strlen(text), set, 4, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "holds 1 tokens, at least 2"));
	free(text);
}

static void write_raw(const char *name, const char *text)
{
	char *path = lh_asprintf("%s/raw/%s", dir, name);

	assert_int_equal(lh_fs_write_atomic(path, text, strlen(text), NULL), 0);
	free(path);
}

static void remove_raw(const char *name)
{
	char *path = lh_asprintf("%s/raw/%s", dir, name);

	assert_int_equal(unlink(path), 0);
	free(path);
}

static const char words[] = "{\"passkey\": 1, \"tokenizer\": \"%016" PRIx64 "\", \"question\": "
	"[1], \"digits\": [10, 11, 12, 13, 14, 15, 16, 17, 18, 19], \"end\": [], "
	"\"words\": [[20]]}";

static void passkeys_need_words_of_the_jobs_tokenizer(void **state)
{
	static const char *const set[] = { "data.tokenizer=none",
					   "evaluation.passkey.file=raw/words.json" };
	char *text = text_with(-1, NULL), file[400];
	struct lh_job job;
	struct lh_err err;

	(void)state;
	snprintf(file, sizeof(file), words, UINT64_C(255));
	write_raw("words.json", file);
	refused_at("data.tokenizer", "none", "evaluation.passkey.every_steps",
		   "it has no words to hide digits in");
	refused_with("evaluation.passkey.file", "raw/words.json", "the job's ids are bytes");
	/* Of the choices there is text alone. */
	assert_int_equal(load(&job, text, strlen(text), set, 2, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "evaluation.choices.files: "));
	remove_raw("words.json");
	assert_int_equal(load(&job, text, strlen(text), set, 2, &err), LH_ENOTFOUND);
	assert_non_null(strstr(err.text, "evaluation.passkey.file: "));
	free(text);
}

static void multiple_choice_is_read_before_anything_starts(void **state)
{
	static const char *const alone[] = { "evaluation.choices.files=quiz.jsonl" };
	char *text = text_with(-1, NULL);
	struct lh_job job, back = { 0 };
	struct lh_err err;
	json_t *json;

	(void)state;
	if (load(&job, text, strlen(text), alone, 1, &err))
		fail_msg("refused: %s", err.text);
	assert_int_equal(job.evaluation.choices.file_count, 1);
	assert_string_equal(job.evaluation.choices.files[0].name, "choices");
	json = lh_jobfile_to_json(&job);
	if (lh_jobfile_from_json(&back, json, &err))
		fail_msg("from JSON: %s", err.text);
	assert_string_equal(back.evaluation.choices.files[0].path,
			    job.evaluation.choices.files[0].path);
	json_decref(json);
	lh_job_release(&job);
	lh_job_release(&back);
	free(text);
	refused_with("evaluation.choices.files", "train.bin", "train.bin':1: ");
	refused_with("evaluation.choices.files", "none.jsonl", "cannot open");
	refused_with("evaluation.choices.files", "{ 'a b': quiz.jsonl }", "found the name 'a b'");
	refused_at("evaluation.choices.files", "''", "evaluation.choices.every_steps",
		   "nothing to choose from");
	refused_with("evaluation.choices.items", "0", "an integer from 1");
}

/* Reads a job whose tokenizer is raw/t.json, with words and choices of a tokenizer. */
static int load_with_ids_of(uint64_t tokenizer, bool choices, struct lh_err *err)
{
	static const char *const set[] = { "data.tokenizer=raw/t.json",
					   "evaluation.choices.files=raw/ids.jsonl",
					   "evaluation.passkey.file=raw/words.json",
					   "evaluation.passkey.every_steps=0",
					   "evaluation.passkey.file=''" };
	static const char line[] = "{\"ctx_ids\": [7], \"endings_ids\": [[1], [2]], \"label\": 0, "
				   "\"tokenizer\": \"%016" PRIx64 "\"}\n";
	char *text = text_with(-1, NULL), file[400];
	struct lh_job job;
	int rc;

	snprintf(file, sizeof(file), words, tokenizer);
	write_raw("words.json", file);
	snprintf(file, sizeof(file), line, tokenizer);
	write_raw("ids.jsonl", file);
	rc = load(&job, text, strlen(text), set, choices ? 5 : 3, err);
	if (!rc)
		lh_job_release(&job);
	free(text);
	return rc;
}

static void ids_of_evaluations_are_of_the_jobs_tokenizer(void **state)
{
	char *path = lh_asprintf("%s/raw/t.json", dir);
	struct lh_vocabulary v;
	struct lh_err err;

	(void)state;
	write_raw("t.json", "{\"model\":{\"vocab\":{\"a\":299}}}");
	assert_int_equal(lh_vocabulary_read(&v, path, &err), 0);
	if (load_with_ids_of(v.hash, false, &err) || load_with_ids_of(0, false, &err))
		fail_msg("refused: %s", err.text);
	for (int choices = 0; choices < 2; choices++) {
		assert_int_equal(load_with_ids_of(v.hash + 1, choices, &err), LH_EDATA);
		assert_non_null(strstr(err.text, "its ids are of another tokenizer"));
		assert_non_null(strstr(err.text, choices ? "evaluation.choices.files: " :
							   "evaluation.passkey.file: "));
		assert_non_null(strstr(err.hint, "lhctl ids"));
	}
	remove_raw("t.json");
	remove_raw("words.json");
	remove_raw("ids.jsonl");
	free(path);
}

/* With room for the ids of its file, and back from JSON. */
static void a_tokenizer_may_be_a_file(void **state)
{
	static const char *const set[] = { "data.tokenizer=raw/t.json",
					   "evaluation.passkey.every_steps=0",
					   "evaluation.choices.every_steps=0",
					   "evaluation.choices.files=''" };
	static const char *const none[] = { "data.tokenizer=byte", set[1], set[2], set[3] };
	const char *json = "{\"model\":{\"vocab\":{\"a\":%d}}}";
	char *path = lh_asprintf("%s/raw/t.json", dir), *text = text_with(-1, NULL), file[80];
	struct lh_job job, back = { 0 };
	struct lh_err err;
	json_t *resolved;

	(void)state;
	snprintf(file, sizeof(file), json, 299);
	assert_int_equal(lh_fs_write_atomic(path, file, strlen(file), NULL), 0);
	if (load(&job, text, strlen(text), set, 4, &err))
		fail_msg("refused: %s", err.text);
	assert_int_equal(lh_job_tokenizer(&job), LH_TOKENIZER_FILE);
	assert_string_equal(job.data.tokenizer, path);
	resolved = lh_jobfile_to_json(&job);
	assert_int_equal(lh_jobfile_from_json(&back, resolved, &err), 0);
	assert_string_equal(back.data.tokenizer, path);
	json_decref(resolved);
	lh_job_release(&back);
	lh_job_release(&job);
	snprintf(file, sizeof(file), json, 300);
	assert_int_equal(lh_fs_write_atomic(path, file, strlen(file), NULL), 0);
	assert_int_equal(load(&job, text, strlen(text), set, 4, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "data.tokenizer: '"));
	assert_non_null(strstr(err.text, "has ids up to 300, model.vocab is 300"));
	assert_non_null(strstr(err.hint, "model.vocab: 301"));
	assert_int_equal(load(&job, text, strlen(text), none, 4, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "there is no tokenizer"));
	assert_non_null(strstr(err.hint, "bytes, none, or a path"));
	assert_int_equal(unlink(path), 0);
	free(path);
	free(text);
}

static void shards_are_found_once_whatever_their_names(void **state)
{
	static const char *const all[] = { "data.train=['[odd]/b*.bin', '[odd]/*.bin', "
					   "'[odd]/a[1].bin']" };
	static const char *const foreign[] = { "data.train='raw/*.bin'" };
	char *text = text_with(-1, NULL), *odd = lh_asprintf("%s/[odd]", dir);
	struct lh_jobfile_source src = { .yaml = text, .yaml_bytes = strlen(text),
					 .base_dir = odd };
	struct lh_job job, back = { 0 };
	struct lh_err err;
	json_t *json;

	(void)state;
	assert_int_equal(write_shard("[odd]/b.bin", 200), 0);
	assert_int_equal(write_shard("[odd]/a[1].bin", 200), 0);
	/* "[odd]" in a pattern of the file is a glob; the file itself is not. */
	assert_true(load(&job, text, strlen(text), all, 1, &err) < 0);
	assert_non_null(strstr(err.text, "no file matches"));
	src.set = (const char *[]){ "data.train=['b*.bin', '*.bin', 'a[1].bin']",
				    "data.validation=b.bin",
				    "evaluation.choices.files=../quiz.jsonl" };
	src.set_count = 3;
	if (lh_jobfile_load(&job, &src, &err))
		fail_msg("refused: %s", err.text);
	assert_int_equal(job.data.train_count, 2);
	assert_non_null(strstr(job.data.train[0], "/[odd]/a[1].bin"));
	assert_non_null(strstr(job.data.train[1], "/[odd]/b.bin"));
	json = lh_jobfile_to_json(&job);
	if (lh_jobfile_from_json(&back, json, &err))
		fail_msg("from JSON: %s", err.text);
	assert_int_equal(back.data.train_count, 2);
	assert_string_equal(back.data.train[0], job.data.train[0]);
	json_decref(json);
	lh_job_release(&back);
	lh_job_release(&job);
	/* JSON cannot carry this name: the worker would not see the shard. */
	assert_int_equal(write_shard("raw/\xff.bin", 200), 0);
	assert_true(load(&job, text, strlen(text), foreign, 1, &err) < 0);
	assert_non_null(strstr(err.text, "not UTF-8"));
	free(odd);
	free(text);
}

static void a_mixture_is_read_by_source(void **state)
{
	static const char *const set[] = { "data.train=[{path: train.bin, weight: 2.5, "
					   "name: web}, "
					   "{path: [zeros.bin, '*s.bin', val.bin]}]" };
	char *text = text_with(-1, NULL);
	struct lh_job job, back = { 0 };
	struct lh_err err;
	json_t *json, *again;

	(void)state;
	if (load(&job, text, strlen(text), set, 1, &err))
		fail_msg("refused: %s", err.text);
	assert_int_equal(job.data.train_count, 3);
	assert_int_equal(job.data.source_count, 2);
	assert_true(job.data.sources[0].weight == 2.5);
	assert_int_equal(job.data.sources[0].shards, 1);
	assert_true(job.data.sources[1].weight == 1);
	assert_int_equal(job.data.sources[1].shards, 2);
	assert_non_null(strstr(job.data.train[1], "/val.bin"));
	json = lh_jobfile_to_json(&job);
	if (lh_jobfile_from_json(&back, json, &err))
		fail_msg("from JSON: %s", err.text);
	again = lh_jobfile_to_json(&back);
	assert_true(json_equal(json, again));
	assert_int_equal(back.data.source_count, 2);
	assert_string_equal(back.data.sources[0].name, "web");
	assert_string_equal(back.data.sources[1].name, "2");
	json_decref(json);
	json_decref(again);
	lh_job_release(&job);
	lh_job_release(&back);
	free(text);
}

static void a_mixture_that_is_none_is_refused(void **state)
{
	static const char *const bad[][2] = {
		{ "[{path: train.bin}, train.bin]", "a list of paths, or of { path" },
		{ "[train.bin, {path: train.bin}]", "a section" },
		{ "[{path: train.bin, weight: 0}]", "a mixture with a weight above 0" },
		{ "[{path: train.bin, weight: -1}]", "a number from 0" },
		{ "[{path: train.bin, weight: nan}]", "a number from 0" },
		{ "[{path: train.bin, weight: '2'}]", "a number from 0" },
		{ "[{weight: 1}]", "a list of paths, or of { path" },
		{ "[{path: train.bin, wait: 1}]", "a list of paths, or of { path" },
		{ "[{path: train.bin, name: [a]}]", "found 'a list', a name" },
		{ "[{path: train.bin, name: 'a b'}]", "found the name 'a b'" },
		{ "[{path: train.bin, name: a}, {path: val.bin, name: a}]",
		  "two sources are named 'a'" },
		{ "[{path: train.bin, name: '2'}, {path: val.bin}]",
		  "two sources are named '2'" },
		{ "[{path: []}]", "a path or a list" },
		{ "[{path: none.bin}]", "No such file" },
		{ "{path: train.bin}", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused_with("data.train", bad[i][0], bad[i][1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_that_does_not_fit_is_refused),
		cmocka_unit_test(bare_ids_are_read_when_the_file_says_so),
		cmocka_unit_test(validation_sets_have_names),
		cmocka_unit_test(odd_validation_sets_are_refused),
		cmocka_unit_test(documents_are_kept_apart_where_they_are_known),
		cmocka_unit_test(passkeys_need_words_of_the_jobs_tokenizer),
		cmocka_unit_test(multiple_choice_is_read_before_anything_starts),
		cmocka_unit_test(ids_of_evaluations_are_of_the_jobs_tokenizer),
		cmocka_unit_test(a_tokenizer_may_be_a_file),
		cmocka_unit_test(shards_are_found_once_whatever_their_names),
		cmocka_unit_test(a_mixture_is_read_by_source),
		cmocka_unit_test(a_mixture_that_is_none_is_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

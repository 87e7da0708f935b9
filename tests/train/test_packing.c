/* test_packing.c: documents that are kept apart: every token of a shard is in one row and
 * is predicted once, whatever the windows, and a cursor is all there is to resume. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../scratch.h"
#include "train/data.h"

enum { SEPARATOR = 9999, VOCAB = 10000, ROWS_MAX = 48 };

/* Lengths of documents, their separators included; 0 ends the list. */
static const int lengths[] = { 1, 7, 2, 30, 4, 4, 1, 1, 12, 61, 3, 5, 0 };

/* Ids count on from `first`, so that each tells its position; the last document has a
 * separator if `whole`. Heap. */
static char *pack(const char *name, int32_t first, const int *n, bool whole)
{
	char *path = scratch_path(name);
	struct lh_err err = LH_ERR_INIT;
	struct lh_shard_writer *w;
	int32_t at = first;

	assert_int_equal(lh_shard_writer_new(&w, path, VOCAB, SEPARATOR, &err), 0);
	for (; *n; n++)
		for (int i = 0; i < *n; i++, at++) {
			int32_t id = i == *n - 1 && (n[1] || whole) ? SEPARATOR : at;

			assert_int_equal(lh_shard_writer_add(w, &id, 1, &err), 0);
		}
	assert_int_equal(lh_shard_writer_commit(w, 1, &err), 0);
	return path;
}

/* Megatron's: one sequence a document, int32 ids that are their positions. */
static char *pack_megatron(const char *name, const int *n)
{
	char *path, *idx = lh_asprintf("%s.idx", name), *bin = lh_asprintf("%s.bin", name);
	int32_t ids[400], length[20];
	int64_t counts[2], place[20], start[21];
	char file[34 + 20 * 12 + 21 * 8] = "MMIDIDX\0";
	int count = 0, total = 0;

	for (; n[count]; count++) {
		length[count] = n[count];
		place[count] = total * 4;
		start[count] = count;
		for (int i = 0; i < n[count]; i++, total++)
			ids[total] = total;
	}
	start[count] = count;
	counts[0] = count;
	counts[1] = count + 1;
	file[9] = 1;
	file[17] = 4;
	memcpy(file + 18, counts, 16);
	memcpy(file + 34, length, (size_t)count * 4);
	memcpy(file + 34 + count * 4, place, (size_t)count * 8);
	memcpy(file + 34 + count * 12, start, (size_t)(count + 1) * 8);
	scratch_write(idx, file, (size_t)(34 + count * 12 + (count + 1) * 8));
	scratch_write(bin, ids, (size_t)total * 4);
	path = scratch_path(idx);
	free(idx);
	free(bin);
	return path;
}

struct sequence {
	int32_t tokens[ROWS_MAX], targets[ROWS_MAX], starts[ROWS_MAX];
};

/* How often each id was in a row, and predicted. */
struct seen {
	int row[400], predicted[400];
	int separators, predicted_separators;
};

static void see(struct seen *s, int32_t token, int32_t target)
{
	if (token == SEPARATOR)
		s->separators++;
	else
		s->row[token]++;
	if (target == SEPARATOR)
		s->predicted_separators++;
	else if (target >= 0)
		s->predicted[target]++;
}

/* Counts the n tokens of a sequence of `rows`, what else there is being filler; checks
 * its rows against each other. */
static void look_at(const struct sequence *q, int64_t rows, int64_t n, int64_t window,
		    struct seen *s, int64_t *targets)
{
	for (int64_t t = 0; t < rows; t++) {
		int64_t start = q->starts[t];
		bool begins = start == t;

		assert_true(start <= t && start % window == 0);
		assert_true(begins || start == q->starts[t - 1]);
		/* Inside a document no token follows itself. */
		if (!n || (!begins && q->tokens[t] == q->tokens[t - 1])) {
			assert_int_equal(q->targets[t], -1);
		} else {
			see(s, q->tokens[t], q->targets[t]);
			n--;
		}
		*targets += q->targets[t] >= 0;
		if (q->targets[t] >= 0 && q->targets[t] != SEPARATOR)
			assert_int_equal(q->targets[t], q->tokens[t] + 1);
		if (q->targets[t] >= 0 && t + 1 < rows)
			assert_int_equal(q->targets[t], q->tokens[t + 1]);
	}
	assert_int_equal(n, 0);
}

static void check_packing(const char *path, int64_t rows, int64_t window, const int *n,
			  bool indexed)
{
	struct lh_err err = LH_ERR_INIT;
	static struct sequence q;
	struct lh_packing p;
	struct lh_shard shard;
	struct seen s = { 0 };
	int64_t at = 0;
	int documents = 0, long_ones = 0;

	assert_int_equal(lh_shard_open(&shard, path, LH_SHARD_AUTO, &err), 0);
	assert_true(lh_packing_init(&p, &shard, rows, window, NULL));
	for (int64_t i = 0; i < p.count; i++) {
		int64_t from, to, targets = 0;

		lh_packing_range(&p, i, &from, &to);
		assert_int_equal(from, at);
		at = to;
		assert_int_equal(lh_packing_fill(&p, i, VOCAB, q.tokens, q.targets,
						 q.starts, &err), 0);
		look_at(&q, rows, to - from, window, &s, &targets);
		assert_int_equal(lh_packing_targets(&p, i), targets);
	}
	/* The very last one may have no row: it has nothing to predict. */
	assert_in_range(at, shard.count - 1, shard.count);
	at = 0;
	for (int d = 0; n[d]; d++, documents++) {
		long_ones += n[d] > 1;
		for (int i = 0; i < n[d]; i++, at++) {
			if (!indexed && i == n[d] - 1)
				continue;
			assert_in_range(s.row[at], at < shard.count - 1, 1);
			assert_int_equal(s.predicted[at], i > 0);
		}
	}
	if (!indexed) {
		assert_in_range(s.separators, documents - 1, documents);
		assert_int_equal(s.predicted_separators, long_ones);
	}
	lh_packing_release(&p);
	lh_shard_close(&shard);
}

static void every_token_is_in_a_row_and_predicted_once(void **state)
{
	static const int one[] = { 40, 0 }, fits[] = { 8, 16, 0 }, tail[] = { 8, 17, 0 };
	static const int *const all[] = { lengths, one, fits, tail };

	(void)state;
	for (int i = 0; i < 4; i++) {
		char *path = pack("a.bin", 0, all[i], true);
		char *index = pack_megatron("m", all[i]);

		for (int window = 1; window <= 12; window++)
			for (int times = 1; times * window <= ROWS_MAX; times++) {
				if (times * window < 2)
					continue;
				check_packing(path, times * window, window, all[i], false);
				check_packing(index, times * window, window, all[i], true);
			}
		free(path);
		free(index);
	}
}

/* What follows each other in the shard: 2, 4 and 1 tokens and a long one, 4 rows to a
 * window, 12 to a sequence. */
static void documents_are_filled_up_to_whole_windows(void **state)
{
	static const int n[] = { 2, 4, 1, 6, 0 };
	static const int32_t E = SEPARATOR;
	static const struct sequence want[2] = {
		{ .tokens = { 0, E, E, E, 2, 3, 4, E, E, E, E, E },
		  .targets = { E, -1, -1, -1, 3, 4, E, -1, -1, -1, -1, -1 },
		  .starts = { 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8 } },
		{ .tokens = { 7, 8, 9, 10, 11, 12, 12, 12, 12, 12, 12, 12 },
		  .targets = { 8, 9, 10, 11, 12, -1, -1, -1, -1, -1, -1, -1 },
		  .starts = { 0, 0, 0, 0, 0, 0, 0, 0, 8, 8, 8, 8 } } };
	char *path = pack("a.bin", 0, n, false);
	struct lh_err err = LH_ERR_INIT;
	struct sequence have;
	struct lh_packing p;
	struct lh_shard s;

	(void)state;
	assert_int_equal(lh_shard_open(&s, path, LH_SHARD_AUTO, &err), 0);
	assert_true(lh_packing_init(&p, &s, 12, 4, NULL));
	assert_int_equal(p.count, 2);
	for (int i = 0; i < 2; i++) {
		memset(&have, 0, sizeof(have));
		assert_int_equal(lh_packing_fill(&p, i, VOCAB, have.tokens, have.targets,
						 have.starts, &err), 0);
		assert_memory_equal(&have, &want[i], sizeof(have));
	}
	lh_packing_release(&p);
	lh_shard_close(&s);
	free(path);
}

/* Windows of 4 and of 6 tokens: both divide the rows of a document. */
static void all_phases_see_the_same_rows(void **state)
{
	struct lh_job job = { .phase_count = 3 };

	(void)state;
	assert_int_equal(lh_packing_window(&job), 1);
	job.phases[0].attention = LH_ATTENTION_LIGHTHOUSE;
	job.phases[0].lighthouse = (struct lh_lighthouse){ .levels = 3, .pool = 2 };
	job.phases[2].attention = LH_ATTENTION_LIGHTHOUSE;
	job.phases[2].lighthouse = (struct lh_lighthouse){ .levels = 2, .pool = 6 };
	assert_int_equal(lh_packing_window(&job), 12);
}

/* ---- data.h ---------------------------------------------------------------- */

enum { T = 12 };

struct fixture {
	struct lh_job job;
	char *train[2];
	struct lh_data d;
};

/* Two sources, and windows of 4 tokens. */
static void fixture_open(struct fixture *f)
{
	static const int other[] = { 5, 9, 30, 0 };
	struct lh_err err = LH_ERR_INIT;

	memset(f, 0, sizeof(*f));
	f->train[0] = pack("a.bin", 0, lengths, true);
	f->train[1] = pack("b.bin", 1000, other, true);
	f->job.data.train = f->train;
	f->job.data.train_count = 2;
	f->job.data.sources[0] = (struct lh_job_source){ .weight = 3, .shards = 1 };
	f->job.data.sources[1] = (struct lh_job_source){ .weight = 1, .shards = 1 };
	f->job.data.source_count = 2;
	f->job.data.validation[0].path = f->train[1];
	f->job.data.validation_count = 1;
	f->job.data.documents = LH_DOCUMENTS_SEPARATE;
	f->job.data.seq_len = T;
	f->job.data.shuffle_seed = 3;
	f->job.model.vocab = VOCAB;
	f->job.phase_count = 1;
	f->job.phases[0].attention = LH_ATTENTION_LIGHTHOUSE;
	f->job.phases[0].lighthouse = (struct lh_lighthouse){ .levels = 3, .pool = 2 };
	if (lh_data_open(&f->d, &f->job, NULL, &err))
		fail_msg("%s", err.text);
}

static void fixture_close(struct fixture *f)
{
	lh_data_close(&f->d);
	free(f->train[0]);
	free(f->train[1]);
}

static void draw(struct fixture *f, int64_t cursor, struct sequence *q)
{
	struct lh_err err = LH_ERR_INIT;

	memset(q, 0, sizeof(*q));
	assert_int_equal(lh_data_train(&f->d, cursor, q->tokens, q->targets, q->starts, &err),
			 0);
}

static void a_cursor_is_all_there_is_to_resume(void **state)
{
	static struct sequence was[60], is;
	struct fixture f;

	(void)state;
	fixture_open(&f);
	for (int64_t i = 0; i < 60; i++)
		draw(&f, i, &was[i]);
	fixture_close(&f);
	fixture_open(&f);
	for (int64_t i = 59; i >= 20; i--) {
		draw(&f, i, &is);
		assert_memory_equal(&is, &was[i], sizeof(is));
	}
	fixture_close(&f);
}

static void each_source_of_a_mixture_has_whole_epochs(void **state)
{
	struct fixture f;
	int64_t sequences, draws = 0;
	int seen[64] = { 0 };

	(void)state;
	fixture_open(&f);
	sequences = f.d.first[1];
	for (int64_t cursor = 0; draws < 3 * sequences; cursor++) {
		int64_t w = lh_data_window(&f.d, cursor), from, to, want_from, want_to;
		const struct lh_shard *s = lh_data_locate(&f.d, cursor, &from, &to);
		struct sequence q;

		if (s != &f.d.shards[0])
			continue;
		draw(&f, cursor, &q);
		lh_packing_range(&f.d.packing[0], w, &want_from, &want_to);
		assert_int_equal(from, want_from);
		assert_int_equal(to, want_to);
		if (q.tokens[0] != SEPARATOR)
			assert_int_equal(q.tokens[0], from);
		assert_int_equal(seen[w]++, draws++ / sequences);
	}
	fixture_close(&f);
}

/* 44 tokens in 5 sequences: of 3 evaluated the first, the middle and the last one. */
static void validation_is_spread_over_the_sequences(void **state)
{
	static const int picked[] = { 0, 2, 4 };
	struct lh_err err = LH_ERR_INIT;
	struct sequence have, want;
	struct fixture f;

	(void)state;
	fixture_open(&f);
	assert_int_equal(f.d.validation_packing[0].count, 5);
	for (int64_t i = 0; i < 3; i++) {
		memset(&have, 0, sizeof(have));
		memset(&want, 0, sizeof(want));
		assert_int_equal(lh_data_validation(&f.d, 0, i, 3, have.tokens, have.targets,
						    have.starts, &err), 0);
		assert_int_equal(lh_packing_fill(&f.d.validation_packing[0], picked[i], VOCAB,
						 want.tokens, want.targets, want.starts,
						 &err), 0);
		assert_memory_equal(&have, &want, sizeof(have));
	}
	fixture_close(&f);
}

static void an_id_past_the_vocabulary_names_file_and_position(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct sequence q;
	struct fixture f;
	int failed = 0;

	(void)state;
	fixture_open(&f);
	f.d.vocab = SEPARATOR;
	for (int64_t cursor = 0; cursor < 40; cursor++) {
		int rc = lh_data_train(&f.d, cursor, q.tokens, q.targets, q.starts, &err);

		if (q.tokens[0] != 1000)
			continue;
		assert_int_equal(rc, LH_EDATA);
		assert_non_null(strstr(err.text, "b.bin': token id 9999 at position 4,"));
		failed++;
	}
	assert_true(failed > 0);
	fixture_close(&f);
}

static void shards_that_tell_of_no_documents_are_refused(void **state)
{
	static const uint16_t ids[40];
	struct lh_err err = LH_ERR_INIT;
	struct fixture f;

	(void)state;
	fixture_open(&f);
	lh_data_close(&f.d);
	scratch_write("b.bin", ids, sizeof(ids));
	f.job.data.format = LH_SHARD_UINT16;
	assert_int_equal(lh_data_open(&f.d, &f.job, NULL, &err), LH_EDATA);
	assert_non_null(strstr(err.text, "b.bin': does not tell where documents end"));
	f.job.data.documents = LH_DOCUMENTS_ATTEND;
	assert_int_equal(lh_data_open(&f.d, &f.job, NULL, &err), 0);
	fixture_close(&f);
}

static bool go_on(void *left)
{
	return (*(int *)left)-- > 0;
}

/* Before each shard and, where documents are kept apart, in each. */
static void who_opens_data_can_be_told_to_end(void **state)
{
	struct lh_err err = LH_ERR_INIT;
	struct fixture f;
	int left, asked = 0;

	(void)state;
	fixture_open(&f);
	lh_data_close(&f.d);
	while (left = asked,
	       lh_data_open(&f.d, &f.job, &(struct lh_scan){ go_on, &left }, &err)) {
		assert_int_equal(err.code, LH_ESTATE);
		assert_int_equal(left, -1);
		assert_null(f.d.shards);
		assert_in_range(asked++, 0, 100);
	}
	assert_int_equal(asked, 2 * (f.d.count + f.d.validation_count));
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(every_token_is_in_a_row_and_predicted_once),
		SCRATCH_TEST(documents_are_filled_up_to_whole_windows),
		cmocka_unit_test(all_phases_see_the_same_rows),
		SCRATCH_TEST(a_cursor_is_all_there_is_to_resume),
		SCRATCH_TEST(each_source_of_a_mixture_has_whole_epochs),
		SCRATCH_TEST(validation_is_spread_over_the_sequences),
		SCRATCH_TEST(an_id_past_the_vocabulary_names_file_and_position),
		SCRATCH_TEST(shards_that_tell_of_no_documents_are_refused),
		SCRATCH_TEST(who_opens_data_can_be_told_to_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_comm.c: collectives between 1, 2 and 4 processes, and between parts of them: each
 * gives what it says, sums to the bit, at sizes around those of a message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../ranks.h"

static const int64_t counts[] = { 1, 3, 65535, 65536, 65537, 200001 };
enum { COUNTS = sizeof(counts) / sizeof(counts[0]) };

/* Of rank r at i: large and small ones, so that the order of a sum shows. */
static float value(int r, int64_t i)
{
	static const float scale[] = { 1, 1e7f, 1e-7f, -1e7f };

	return scale[(r + i) % 4] * (float)(1 + (i * 7 + r * 13) % 101);
}

/* (size, count) and a guard, as rank r has it. */
static float *filled(const struct lh_comm *c, int64_t count)
{
	int64_t n = c->size * count;
	float *x = lh_calloc((size_t)n + 1, sizeof(*x));

	for (int64_t i = 0; i < n; i++)
		x[i] = value(c->rank, i);
	x[n] = 12345;
	return x;
}

/* Pieces of `count` floats; `uneven`: of fewer the higher the rank, the last has none. */
static void check_sum(const struct lh_comm *c, int64_t count, bool uneven, bool add)
{
	float *x = filled(c, count), *into = lh_calloc((size_t)count + 1, sizeof(*into));
	int64_t at[8] = { 0 };

	for (int r = 0; r < c->size; r++)
		at[r + 1] = at[r] + (uneven ? count * (c->size - 1 - r) / c->size : count);
	for (int64_t i = 0; i <= count; i++)
		into[i] = 3;
	lh_comm_reduce_scatter(c, "sums", x, at, into, add);
	for (int64_t i = 0; c->size > 1 && i < at[c->rank + 1] - at[c->rank]; i++) {
		float sum = 0;

		for (int r = 0; r < c->size; r++)
			sum += value(r, at[c->rank] + i);
		RANKS_CHECK(into[i] == (add ? 3 + sum : sum));
	}
	for (int64_t i = c->size > 1 ? at[c->rank + 1] - at[c->rank] : 0; i <= count; i++)
		RANKS_CHECK(into[i] == 3);
	RANKS_CHECK(x[c->size * count] == 12345);
	free(x);
	/* In its place. */
	x = filled(c, count);
	lh_comm_reduce_scatter(c, "sums", x, at, x + at[c->rank], false);
	for (int64_t i = 0; c->size > 1 && !add && i < at[c->rank + 1] - at[c->rank]; i++)
		RANKS_CHECK(x[at[c->rank] + i] == into[i]);
	RANKS_CHECK(x[c->size * count] == 12345);
	free(into);
	free(x);
}

static void check_sums(const struct lh_comm *c)
{
	for (int k = 0; k < 4 * COUNTS; k++)
		check_sum(c, counts[k / 4], k & 1, k & 2);
}

/* Where pieces begin, in bytes: `count` floats each; or, uneven, fewer the higher the rank,
 * or of the last alone. */
static void place_pieces(const struct lh_comm *c, int64_t count, int kind, int64_t *at)
{
	at[0] = 0;
	for (int r = 0; r < c->size; r++) {
		int64_t uneven = kind == 1 ? count * (c->size - 1 - r) / c->size :
				 r == c->size - 1 ? count : 0;

		at[r + 1] = at[r] + 4 * (kind ? uneven : count);
	}
}

/* Each rank's piece is its own. */
static void check_gathered(const struct lh_comm *c, const float *x, const int64_t *at)
{
	for (int r = 0; r < c->size; r++)
		for (int64_t i = at[r] / 4; i < at[r + 1] / 4; i++)
			RANKS_CHECK(x[i] == value(r, i));
}

static void check_gather(const struct lh_comm *c, int64_t count, int kind)
{
	float *x = filled(c, count), *own = lh_calloc((size_t)count, sizeof(*own));
	int64_t at[8], n, first;

	place_pieces(c, count, kind, at);
	first = at[c->rank] / 4;
	n = at[c->rank + 1] / 4 - first;
	memcpy(own, x + first, (size_t)n * sizeof(*own));
	lh_comm_gather(c, "pieces", x, at, x + first);
	check_gathered(c, x, at);
	/* From elsewhere. */
	for (int64_t i = 0; c->size > 1 && i < at[c->size] / 4; i++)
		x[i] = 0;
	lh_comm_gather(c, "pieces", x, at, own);
	check_gathered(c, x, at);
	for (int64_t i = at[c->size] / 4; i < c->size * count; i++)
		RANKS_CHECK(x[i] == value(c->rank, i));
	RANKS_CHECK(x[c->size * count] == 12345);
	free(own);
	free(x);
}

static void check_gathering(const struct lh_comm *c)
{
	for (int k = 0; k < 3 * COUNTS; k++)
		check_gather(c, counts[k / 3], k % 3);
}

/* One of either kind in each two slots, awaited in another order than begun, with a word in
 * between. */
static void check_beside(const struct lh_comm *c, int64_t count)
{
	float *all[LH_COMM_SLOTS / 2], *x[LH_COMM_SLOTS / 2], *sums[LH_COMM_SLOTS / 2];
	int64_t at[8], bytes[8];
	int32_t word = 7;

	place_pieces(c, count, 1, bytes);
	for (int r = 0; r <= c->size; r++)
		at[r] = bytes[r] / 4;
	for (int k = 0; k < LH_COMM_SLOTS / 2; k++) {
		all[k] = filled(c, count);
		x[k] = filled(c, count);
		sums[k] = lh_calloc((size_t)count, sizeof(**sums));
		lh_comm_begin_gather(c, "pieces", all[k], bytes, x[k] + at[c->rank], 2 * k);
		lh_comm_begin_reduce_scatter(c, "sums", x[k], at, sums[k], true, 2 * k + 1);
	}
	lh_comm_share(c, "a word", &word, sizeof(word));
	for (int slot = LH_COMM_SLOTS - 1; slot >= 0; slot--)
		lh_comm_await(c, slot);
	for (int k = 0; k < LH_COMM_SLOTS / 2; k++) {
		check_gathered(c, all[k], bytes);
		for (int64_t i = 0; c->size > 1 && i < at[c->rank + 1] - at[c->rank]; i++) {
			float sum = 0;

			for (int r = 0; r < c->size; r++)
				sum += value(r, at[c->rank] + i);
			RANKS_CHECK(sums[k][i] == sum);
		}
		free(all[k]);
		free(x[k]);
		free(sums[k]);
	}
}

/* Two messages each way between any two ranks, of `count` floats and of a third of them. */
static void check_exchange(const struct lh_comm *c, int64_t count)
{
	int64_t third = count / 3 + 1, each = count + third;
	float *give = filled(c, each), *got = lh_calloc((size_t)(c->size * each), sizeof(*got));
	struct lh_comm_message m[4 * 4];
	int n = 0;

	for (int r = c->size - 1; r >= 0; r--) {
		int64_t at = r * each;

		if (r == c->rank)
			continue;
		m[n++] = (struct lh_comm_message){ r, true, got + at, 4 * third };
		m[n++] = (struct lh_comm_message){ r, false, give + at, 4 * third };
		m[n++] = (struct lh_comm_message){ r, false, give + at + third, 4 * count };
		m[n++] = (struct lh_comm_message){ r, true, got + at + third, 4 * count };
	}
	lh_comm_exchange(c, "messages", m, n);
	for (int r = 0; r < c->size; r++)
		for (int64_t i = 0; i < each; i++)
			RANKS_CHECK(got[r * each + i] ==
				    (r == c->rank ? 0 : value(r, c->rank * each + i)));
	RANKS_CHECK(give[c->size * each] == 12345);
	free(give);
	free(got);
}

static void check_words(const struct lh_comm *c)
{
	size_t bytes = 300001;
	char *all = lh_calloc(bytes * (size_t)c->size, 1);

	for (size_t i = 0; i < bytes; i++)
		all[i] = c->rank ? 'x' : (char)(i % 251);
	lh_comm_share(c, "words", all, bytes);
	for (size_t i = 0; i < bytes; i++)
		RANKS_CHECK(all[i] == (char)(i % 251));
	memset(all, 0, bytes * (size_t)c->size);
	memset(all + bytes * (size_t)c->rank, 'a' + c->rank, bytes);
	lh_comm_collect(c, "words", all, bytes);
	for (size_t i = 0; i < bytes * (size_t)c->size; i++)
		RANKS_CHECK(all[i] == (char)('a' + i / bytes));
	free(all);
}

/* A rank that is far behind: the others wait. */
static void check_patience(const struct lh_comm *c)
{
	int32_t word = c->rank ? 0 : 7;

	for (int i = 0; i < 3; i++) {
		if (c->rank == i % c->size)
			usleep(150000);
		lh_comm_share(c, "a word", &word, sizeof(word));
		RANKS_CHECK(word == 7);
	}
}

static int noted;

static void on_note(void *arg, const char *what, bool begins)
{
	noted += !strcmp(what, "a word") && arg == &noted ? (begins ? 1 : 100) : 10000;
}

static void check_notes(const struct lh_comm *c)
{
	const int64_t at[] = { 0, 4, 8, 12, 16 };
	int32_t word = 3, words[4] = { 0 };
	struct lh_comm with = *c;

	with.note = on_note;
	with.note_arg = &noted;
	lh_comm_share(&with, "a word", &word, sizeof(word));
	lh_comm_share(c, "another", &word, sizeof(word));
	RANKS_CHECK(noted == (c->size > 1 ? 101 : 0));
	lh_comm_begin_gather(&with, "a word", words, at, words + c->rank, 0);
	RANKS_CHECK(noted == (c->size > 1 ? 202 : 0)); /* when it is issued */
	lh_comm_await(&with, 0);
	RANKS_CHECK(noted == (c->size > 1 ? 202 : 0));
}

static void check_calls(const struct lh_comm *c)
{
	check_sums(c);
	check_gathering(c);
	for (int k = 0; k < COUNTS; k++) {
		check_exchange(c, counts[k]);
		check_beside(c, counts[k]);
	}
	check_words(c);
}

/* Where rank r names group_of[r]: a part is of these, in their order. */
static void check_part(const struct lh_comm *c, const int *group_of)
{
	struct lh_comm part;
	struct lh_err err = LH_ERR_INIT;
	int32_t all[4] = { 0 };
	int size = 0;

	if (lh_comm_split(c, "a part", group_of[c->rank], &part, &err))
		RANKS_CHECK(!"split");
	all[part.rank] = c->rank;
	lh_comm_collect(&part, "numbers", all, sizeof(*all));
	for (int r = 0; r < c->size; r++)
		if (group_of[r] == group_of[c->rank])
			RANKS_CHECK(all[size++] == r);
	RANKS_CHECK(size == part.size);
	check_calls(&part);
	/* In turn with all, and in part of a part. */
	check_gathering(c);
	if (size < c->size)
		check_part(&part, (const int[]){ 3, 1, 3, 1 });
	check_gathering(&part);
	lh_comm_close(&part);
	RANKS_CHECK(part.size == 1);
	check_calls(c);
}

static void check_parts(const struct lh_comm *c)
{
	static const int groups[][4] = {
		{ 0, 0, 1, 1 }, { 5, 2, 5, 2 }, { 1, 0, 0, 1 }, { 7, 7, 7, 7 },
		{ 3, 2, 1, 0 }, { 1, 1, 4, 1 },
	};

	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		check_part(c, groups[i]);
}

static void check_all(const struct lh_comm *c)
{
	check_calls(c);
	check_parts(c);
	check_patience(c);
	check_notes(c);
}

static const struct ranks_case cases[] = { { "all", check_all } };

static void alone_nothing_changes(void **state)
{
	(void)state;
	check_all(&LH_COMM_ALONE);
}

static void two_ranks_agree(void **state)
{
	(void)state;
	ranks_run(2, "all");
}

static void four_ranks_agree(void **state)
{
	(void)state;
	ranks_run(4, "all");
}

/* A process that no launcher started is no rank: never a world of one. */
static void a_world_of_another_size_is_refused(void **state)
{
	struct lh_comm_line *line;
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	assert_int_equal(lh_comm_mpi.open(&line, 0, 2, &err), LH_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "rank 0 of 1"));
	assert_null(line);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alone_nothing_changes),
		cmocka_unit_test(two_ranks_agree),
		cmocka_unit_test(four_ranks_agree),
		cmocka_unit_test(a_world_of_another_size_is_refused),
	};

	if (argc > 1)
		return ranks_main(argv[1], cases, sizeof(cases) / sizeof(cases[0]));
	return cmocka_run_group_tests_name("comm", tests, NULL, NULL);
}

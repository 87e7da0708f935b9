/* test_lighthouse.c: the geometry's preconditions, and selection against a naive
 * one that sorts: same set, same order, whatever p, L, m, documents, ties and NaNs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/ops.h"

static void refused(struct lh_lighthouse g, const char *key, const char *says)
{
	struct lh_err err = LH_ERR_INIT;
	const char *blamed = "";

	assert_int_equal(lh_lighthouse_check(&g, &blamed, &err), LH_EINVAL);
	if (strcmp(blamed, key) || !strstr(err.text, says) || !err.hint[0])
		fail_msg("blamed %s: %s (hint: %s)", blamed, err.text, err.hint);
}

static void each_precondition_has_its_own_refusal(void **state)
{
	const struct lh_lighthouse good = { 1024, 3, 4, 64, 32, LH_SCORER_NORM, 4 };
	struct lh_lighthouse g = good;

	(void)state;
	assert_int_equal(lh_lighthouse_check(&good, NULL, NULL), 0);
	assert_int_equal(lh_lighthouse_selected(&good), 64 + 2 * 4 * 64);
	g.levels = 1;
	refused(g, "levels", "levels is 1");
	g = good, g.pool = 1;
	refused(g, "pool", "pool is 1");
	g = good, g.tile = 31;
	refused(g, "tile", "even");
	g = good, g.topk = 48;
	refused(g, "topk", "no multiple of tile");
	g = good, g.tokens = 1032;
	refused(g, "seq_len", "does not divide");
	g = good, g.tokens = 8;
	refused(g, "seq_len", "does not divide");
	g = good, g.topk = 96;
	refused(g, "topk", "tiles do not divide");
	g = good, g.topk = 128;
	refused(g, "tile", "fewer than its budget");
	g = good, g.levels = 16, g.pool = 60000;
	refused(g, "levels", "too large");
	g = good, g.scorer = LH_SCORER_DILATED, g.dilation = 3;
	refused(g, "dilation", "does not divide");
}

/* ---- a naive selection ----------------------------------------------------- */

static const struct lh_lighthouse *G;
static const float *rank_by; /* scores of the level at hand */

static float ranked(int64_t i)
{
	return isnan(rank_by[i]) ? INFINITY : rank_by[i];
}

static int by_score(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	if (ranked(x) != ranked(y))
		return ranked(x) > ranked(y) ? -1 : 1;
	return x < y ? -1 : x > y;
}

static int by_last_token(const void *a, const void *b)
{
	int64_t pa, pb;
	int la = lh_lighthouse_level_of(G, *(const int32_t *)a, &pa);
	int lb = lh_lighthouse_level_of(G, *(const int32_t *)b, &pb);
	int64_t ea = (pa + 1) * lh_lighthouse_window(G, la);
	int64_t eb = (pb + 1) * lh_lighthouse_window(G, lb);

	return ea != eb ? (ea < eb ? -1 : 1) : la - lb;
}

/* Of n coarsest entries from `first` on, with a budget of their own. */
static int64_t naive_part(int64_t first, int64_t n, int64_t budget, const float *sq,
			  const float *sk, int32_t *out)
{
	int64_t *c = lh_calloc((size_t)(n + G->pool * budget), sizeof(*c)), count = 0;
	int64_t *next = lh_calloc((size_t)(G->pool * budget + 1), sizeof(*next));
	int64_t by_query = (budget + 1) / 2;

	for (int64_t i = 0; i < n; i++)
		c[i] = first + i;
	for (int l = G->levels - 1; l >= 0; l--) {
		int64_t base = lh_lighthouse_base(G, l), made = 0;

		for (int64_t i = 0; i < n; i++)
			out[count++] = (int32_t)(base + c[i]);
		if (!l)
			break;
		rank_by = sq + base;
		qsort(c, (size_t)n, sizeof(*c), by_score);
		rank_by = sk + base;
		qsort(c + by_query, (size_t)(n - by_query), sizeof(*c), by_score);
		for (int64_t i = 0; i < budget; i++)
			for (int k = 0; k < G->pool; k++)
				next[made++] = c[i] * G->pool + k;
		memcpy(c, next, (size_t)made * sizeof(*c));
		n = made;
	}
	free(c);
	free(next);
	return count;
}

/* start (N): documents, each with a share of the budget by its entries in the tile. */
static int64_t naive_tile(int64_t tile, const int32_t *start, const float *sq,
			  const float *sk, int32_t *out)
{
	int64_t n = lh_lighthouse_entries(G, G->levels - 1) / lh_lighthouse_tiles(G);
	int64_t c = lh_lighthouse_window(G, G->levels - 1), count = 0;

	for (int64_t from = 0, to; from < n; from = to) {
		for (to = from + 1; to < n; to++)
			if (start[(tile * n + to) * c] == (tile * n + to) * c)
				break;
		count += naive_part(tile * n + from, to - from,
				    G->tile * to / n - G->tile * from / n, sq, sk,
				    out + count);
	}
	return count;
}

/* Documents of 1 to `most` coarsest windows; 0: one of all. */
static int32_t *starts_of(const struct lh_lighthouse *g, int64_t most)
{
	int64_t c = lh_lighthouse_window(g, g->levels - 1);
	int32_t *start = lh_calloc((size_t)g->tokens, 4);
	uint32_t r = 7;

	for (int64_t t = 0; most && t < g->tokens;) {
		int64_t end = t + c * (1 + (int64_t)((r >> 8) % (uint32_t)most));

		r = r * 1664525u + 1013904223u;
		for (int64_t i = t; i < end && i < g->tokens; i++)
			start[i] = (int32_t)t;
		t = end;
	}
	return start;
}

/* The rows of a document are where the layout alone says. */
static void check_rows(const struct lh_lighthouse *g, const int32_t *start,
		       const int32_t *index)
{
	int64_t S = lh_lighthouse_selected(g), c = lh_lighthouse_window(g, g->levels - 1);

	for (int64_t r = 0; r < S; r++) {
		int64_t i, of;
		int l = lh_lighthouse_level_of(g, index[r], &i);

		of = start[i * lh_lighthouse_window(g, l)];
		assert_true(r >= lh_lighthouse_row(g, of / c));
		for (int64_t next = of + c; next < g->tokens; next += c)
			if (start[next] == next) {
				assert_true(r < lh_lighthouse_row(g, next / c));
				break;
			}
	}
}

static void compare(const struct lh_lighthouse *g, struct lh_dev *dev, int kind,
		    int64_t most)
{
	int64_t P = lh_lighthouse_pyramid(g), S = lh_lighthouse_selected(g), n = 0;
	float *sq = lh_calloc((size_t)P, 4), *sk = lh_calloc((size_t)P, 4);
	int32_t *got = lh_calloc((size_t)S, 4), *want = lh_calloc((size_t)S + 1, 4);
	int32_t *map = lh_calloc((size_t)P, 4);
	int32_t *start = starts_of(g, most);
	const struct lh_heads one = { .batch = 1, .heads = 1, .tokens = g->tokens,
				      .start = most ? start : NULL };

	assert_int_equal(lh_lighthouse_check(g, NULL, NULL), 0);
	for (int64_t i = 0; i < P; i++) {
		uint32_t r = (uint32_t)(i * 2654435761u) >> 8;

		/* Distinct, few distinct, all equal; some NaN in the second. */
		sq[i] = kind == 0 ? (float)r : kind == 1 ? (float)(r % 3) : 1;
		sk[i] = kind == 0 ? (float)(r ^ 0x5555) : kind == 1 ? (float)(r % 5) : 1;
		if (kind == 1 && r % 11 == 0)
			sq[i] = NAN;
	}
	lh_ops_cpu.lighthouse_select(dev, g, &one, got, sq, sk);
	G = g;
	for (int64_t t = 0; t < lh_lighthouse_tiles(g); t++)
		n += naive_tile(t, start, sq, sk, want + n);
	assert_int_equal(n, S);
	qsort(want, (size_t)S, sizeof(*want), by_last_token);
	assert_memory_equal(got, want, (size_t)S * sizeof(*want));
	check_rows(g, start, got);
	lh_ops_cpu.lighthouse_map(dev, g, 1, map, got);
	for (int64_t i = 0, rows = 0; i < P; i++) {
		if (map[i] >= 0)
			assert_int_equal(got[map[i]], i);
		rows += map[i] >= 0;
		if (i == P - 1)
			assert_int_equal(rows, S);
	}
	free(sq);
	free(sk);
	free(got);
	free(want);
	free(map);
	free(start);
}

static void selection_is_the_sorted_one(void **state)
{
	const struct lh_lighthouse cases[] = {
		{ 1024, 3, 4, 64, 32, LH_SCORER_NORM, 4 },
		{ 256, 2, 2, 16, 8, LH_SCORER_NORM, 4 },
		{ 243 * 4, 5, 3, 4, 4, LH_SCORER_NORM, 4 },
		{ 512, 4, 2, 32, 2, LH_SCORER_NORM, 4 },
		{ 500, 2, 5, 20, 10, LH_SCORER_NORM, 4 },
		{ 64, 2, 8, 8, 8, LH_SCORER_NORM, 4 },
	};
	struct lh_dev *dev;

	(void)state;
	assert_int_equal(lh_ops_cpu.open(&dev, 2, NULL), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int kind = 0; kind < 3; kind++)
			for (int64_t most = 0; most <= 9; most += 3)
				compare(&cases[i], dev, kind, most);
	lh_ops_cpu.close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_precondition_has_its_own_refusal),
		cmocka_unit_test(selection_is_the_sorted_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

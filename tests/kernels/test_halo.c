/* test_halo.c: a sequence in pieces, with the halo between them, against the whole of it:
 * the same selection, the same output to the bit, and the same gradient. And rows as they
 * are copied, added and rounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/ops.h"

static struct lh_dev *dev;
static const struct lh_ops *ops = &lh_ops_cpu;

enum { HEADS = 3, DIM = 6, ROW = HEADS * DIM, STRIDE = ROW + 5 };
static const float GUARD = 12345;

static float noise(uint64_t *s)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*s >> 40) / (1 << 24)) * 2 - 1;
}

/* n values and a guard. */
static float *filled(int64_t n, uint64_t seed)
{
	float *x = lh_calloc((size_t)n + 1, sizeof(*x));

	for (int64_t i = 0; i < n; i++)
		x[i] = noise(&seed);
	x[n] = GUARD;
	return x;
}

static struct lh_heads heads_of(const struct lh_lighthouse *g)
{
	return (struct lh_heads){ .batch = 1, .tokens = g->tokens, .heads = HEADS,
				  .kv_heads = HEADS, .head_dim = DIM, .o_row = STRIDE };
}

/* A sequence, whole or a piece of it. */
struct side {
	struct lh_lighthouse g;
	struct lh_heads h;
	int64_t P, S;
	float *score[2]; /* (H,P) of queries, of keys */
	int32_t *index, *map;
	float *os, *dos; /* (S,H,D) */
	float *o;        /* (N,STRIDE) */
	float *halo;     /* (L-1,H,D) */
};

static void open_side(struct side *s, struct lh_lighthouse g)
{
	*s = (struct side){ .g = g, .h = heads_of(&g) };
	assert_int_equal(lh_lighthouse_check(&g, NULL, NULL), 0);
	s->P = lh_lighthouse_pyramid(&g);
	s->S = lh_lighthouse_selected(&g);
	s->score[0] = filled(HEADS * s->P, 3);
	s->score[1] = filled(HEADS * s->P, 4);
	s->index = lh_calloc((size_t)(HEADS * s->S), sizeof(*s->index));
	s->map = lh_calloc((size_t)(HEADS * s->P), sizeof(*s->map));
	s->os = filled(s->S * ROW, 5);
	s->dos = filled(s->S * ROW, 6);
	s->o = filled(g.tokens * STRIDE, 7);
	s->halo = filled((g.levels - 1) * ROW, 8);
}

static void close_side(struct side *s)
{
	assert_true(s->os[s->S * ROW] == GUARD && s->dos[s->S * ROW] == GUARD);
	assert_true(s->o[s->g.tokens * STRIDE] == GUARD);
	assert_true(s->halo[(s->g.levels - 1) * ROW] == GUARD);
	free(s->score[0]);
	free(s->score[1]);
	free(s->index);
	free(s->map);
	free(s->os);
	free(s->dos);
	free(s->o);
	free(s->halo);
}

static void choose(struct side *s)
{
	ops->lighthouse_select(dev, &s->g, &s->h, s->index, s->score[0], s->score[1]);
	ops->lighthouse_map(dev, &s->g, HEADS, s->map, s->index);
}

/* Piece `number` takes its scores from the whole. */
static void take_scores(struct side *piece, const struct side *whole, int64_t number)
{
	for (int k = 0; k < 2; k++)
		for (int e = 0; e < HEADS; e++)
			for (int l = 0; l < whole->g.levels; l++) {
				int64_t n = lh_lighthouse_entries(&piece->g, l);
				const float *from = whole->score[k] + e * whole->P +
						    lh_lighthouse_base(&whole->g, l);

				memcpy(piece->score[k] + e * piece->P +
					       lh_lighthouse_base(&piece->g, l),
				       from + number * n, (size_t)n * sizeof(*from));
			}
}

/* The rows of a piece are those of the whole, one block after the other. */
static void check_selection(const struct side *piece, const struct side *whole,
			    int64_t number)
{
	for (int e = 0; e < HEADS; e++)
		for (int64_t r = 0; r < piece->S; r++) {
			int64_t own, all;
			int l = lh_lighthouse_level_of(
				&piece->g, piece->index[e * piece->S + r], &own);
			int level = lh_lighthouse_level_of(
				&whole->g,
				whole->index[e * whole->S + number * piece->S + r], &all);

			assert_int_equal(l, level);
			assert_int_equal(own + number * lh_lighthouse_entries(&piece->g, l),
					 all);
		}
}

static void check_output(const struct side *pieces, int count, const struct side *whole)
{
	for (int p = 0; p < count; p++) {
		const struct side *s = &pieces[p];

		for (int64_t t = 0; t < s->g.tokens; t++)
			assert_memory_equal(s->o + t * STRIDE,
					    whole->o + (p * s->g.tokens + t) * STRIDE,
					    ROW * sizeof(float));
	}
}

/* Relative to the whole's norm. */
static void check_gradient(const struct side *piece, const struct side *whole, int number)
{
	const float *want = whole->dos + number * piece->S * ROW;
	double diff = 0, norm = 0;

	for (int64_t i = 0; i < piece->S * ROW; i++) {
		diff += pow((double)piece->dos[i] - want[i], 2);
		norm += pow((double)want[i], 2);
	}
	assert_true(sqrt(diff / norm) < 1e-6);
}

static void forward(struct side *pieces, int count)
{
	for (int p = 0; p < count; p++) {
		struct side *s = &pieces[p];

		ops->lighthouse_scatter(dev, &s->g, &s->h, s->o, s->os, s->map);
		ops->lighthouse_halo(dev, &s->g, &s->h, s->halo, s->os, s->map);
	}
	for (int p = 1; p < count; p++)
		ops->lighthouse_halo_add(dev, &pieces[p].g, &pieces[p].h, pieces[p].o,
					 pieces[p - 1].halo);
}

static void backward(struct side *pieces, int count)
{
	for (int p = 0; p < count; p++) {
		struct side *s = &pieces[p];

		ops->lighthouse_scatter_bwd(dev, &s->g, &s->h, s->dos, s->o, s->index);
		ops->lighthouse_halo_bwd(dev, &s->g, &s->h, s->halo, s->o);
	}
	for (int p = 0; p + 1 < count; p++)
		ops->lighthouse_halo_put(dev, &pieces[p].g, &pieces[p].h, pieces[p].dos,
					 pieces[p + 1].halo, pieces[p].map);
}

enum { PIECES_MAX = 8 };

/* g: of a piece. */
static void compare(struct lh_lighthouse g, int count)
{
	struct lh_lighthouse all = g;
	struct side pieces[PIECES_MAX], whole;

	all.tokens *= count;
	all.topk *= count;
	open_side(&whole, all);
	choose(&whole);
	for (int p = 0; p < count; p++) {
		open_side(&pieces[p], g);
		take_scores(&pieces[p], &whole, p);
		choose(&pieces[p]);
		check_selection(&pieces[p], &whole, p);
		memcpy(pieces[p].os, whole.os + p * pieces[p].S * ROW,
		       (size_t)(pieces[p].S * ROW) * sizeof(float));
	}
	ops->lighthouse_scatter(dev, &all, &whole.h, whole.o, whole.os, whole.map);
	forward(pieces, count);
	check_output(pieces, count, &whole);
	/* The output is as good a gradient as any. */
	ops->lighthouse_scatter_bwd(dev, &all, &whole.h, whole.dos, whole.o, whole.index);
	backward(pieces, count);
	for (int p = 0; p < count; p++) {
		check_gradient(&pieces[p], &whole, p);
		close_side(&pieces[p]);
	}
	close_side(&whole);
}

static void pieces_with_halos_are_the_whole(void **state)
{
	static const struct lh_lighthouse geometries[] = {
		{ 256, 3, 4, 16, 8, LH_SCORER_NORM, 4 },
		{ 64, 2, 2, 8, 4, LH_SCORER_NORM, 4 },
		{ 81, 4, 3, 2, 2, LH_SCORER_NORM, 4 },
		{ 128, 5, 2, 4, 2, LH_SCORER_NORM, 4 },
		/* Half of a piece is in the halo. */
		{ 128, 2, 64, 2, 2, LH_SCORER_NORM, 4 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(geometries) / sizeof(geometries[0]); i++)
		for (int count = 1; count <= PIECES_MAX; count *= 2)
			compare(geometries[i], count);
}

/* ---- rows -------------------------------------------------------------------- */

enum { ROWS = 5, WIDTH = 7, TO = 11, FROM = 9 };

static void rows_are_copied_and_summed(void **state)
{
	float *from = filled(ROWS * FROM, 1), *to = filled(ROWS * TO, 2);
	float *sum = filled(ROWS * TO, 2), *before = filled(ROWS * TO, 2);
	float *parts[3];

	(void)state;
	for (int k = 0; k < 3; k++)
		parts[k] = filled(ROWS * FROM, (uint64_t)(3 + k));
	ops->copy_rows(dev, ROWS, WIDTH, to, TO, from, FROM);
	ops->sum_rows(dev, ROWS, WIDTH, sum, TO, (const lh_act *const *)parts, FROM, 3);
	for (int r = 0; r < ROWS; r++)
		for (int i = 0; i < TO; i++) {
			int at = r * TO + i, in = i < WIDTH, p = r * FROM + i;

			assert_true(to[at] == (in ? from[p] : before[at]));
			assert_true(sum[at] == (in ? parts[0][p] + parts[1][p] + parts[2][p] :
						     before[at]));
		}
	assert_true(to[ROWS * TO] == GUARD && sum[ROWS * TO] == GUARD);
	for (int k = 0; k < 3; k++)
		free(parts[k]);
	free(from);
	free(to);
	free(sum);
	free(before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_with_halos_are_the_whole),
		cmocka_unit_test(rows_are_copied_and_summed),
	};
	int failed;

	if (ops->open(&dev, 2, NULL))
		return 1;
	failed = cmocka_run_group_tests_name("halo", tests, NULL, NULL);
	ops->close(dev);
	return failed;
}

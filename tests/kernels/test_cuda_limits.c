/* test_cuda_limits.c: the arithmetic of the CUDA backend that every build knows: what
 * cuDNN is given at once, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../kernels/cuda/sizes.h"

static const int64_t WIDE = (int64_t)1 << 31;

static struct lh_sdpa shape_of(int batch, int64_t tokens, int64_t kv_tokens, int heads,
			       int kv_heads, int D)
{
	struct lh_sdpa s = { .heads = { .batch = batch, .tokens = tokens, .heads = heads,
					.kv_heads = kv_heads, .head_dim = D },
			     .kv_tokens = kv_tokens };

	s.heads.q_row = s.heads.kv_row = (int64_t)(heads + 2 * kv_heads) * D;
	s.heads.o_row = (int64_t)heads * D;
	return s;
}

/* Pieces, laid side by side from (0, 0), are all heads of all sequences once, and
 * each has the KV heads of its query heads. */
static void covers(const struct lh_sdpa *s, const struct lh_sdpa *piece)
{
	const struct lh_heads *h = &s->heads, *p = &piece->heads;
	int group = h->heads / h->kv_heads;
	unsigned char *done = lh_calloc((size_t)(h->batch * h->heads), 1);

	assert_true(p->batch >= 1 && p->heads >= 1 && p->kv_heads >= 1);
	assert_int_equal(h->batch % p->batch, 0);
	assert_int_equal(h->heads % p->heads, 0);
	assert_int_equal(p->heads % p->kv_heads, 0);
	for (int b = 0; b < h->batch; b += p->batch)
		for (int e = 0; e < h->heads; e += p->heads)
			for (int i = 0; i < p->batch * p->heads; i++) {
				int head = e + i % p->heads;
				int kv = head / group - e / group;

				assert_int_equal(done[(b + i / p->heads) * h->heads + head]++,
						 0);
				assert_int_equal(kv, i % p->heads / (p->heads / p->kv_heads));
			}
	for (int i = 0; i < h->batch * h->heads; i++)
		assert_int_equal(done[i], 1);
	free(done);
}

static void pieces_stay_below_the_bound_and_cover_all_heads(void **state)
{
	static const int heads[][2] = { { 1, 1 }, { 8, 8 }, { 16, 16 }, { 16, 1 }, { 16, 2 },
					{ 24, 3 }, { 15, 5 }, { 21, 7 }, { 12, 12 }, { 32, 8 },
					{ 64, 8 }, { 96, 12 }, { 17, 17 }, { 7, 1 } };
	static const int64_t tokens[] = { 128, 1000, 98304, 524288, 1 << 20, (1 << 20) - 64,
					  (1 << 20) - 128, 1 << 22, (1 << 24) - 128, 1 << 24 };
	static const int widths[] = { 32, 64, 80, 128, 256 }, batches[] = { 1, 2, 3, 7 };
	int supported = 0, refused = 0, split = 0;

	(void)state;
	for (int i = 0; i < 14 * 10 * 5 * 4 * 2; i++) {
		int64_t T = tokens[i / 14 % 10];
		const int *h = heads[i % 14];
		struct lh_sdpa s = shape_of(batches[i / 700 % 4], i / 2800 ? T / 2 : T, T,
					    h[0], h[1], widths[i / 140 % 5]);
		struct lh_sdpa piece = lh_cuda_sdpa_piece(&s, false);
		struct lh_err err = LH_ERR_INIT;

		if (lh_sizes_cuda.supports(&s, &err)) {
			assert_true(*err.text && *err.hint);
			refused++;
			continue;
		}
		assert_true(lh_cuda_sdpa_elements(&piece) < WIDE);
		covers(&s, &piece);
		if (lh_cuda_sdpa_elements(&s) < WIDE)
			assert_int_equal(piece.heads.batch * piece.heads.heads,
					 s.heads.batch * s.heads.heads);
		supported++;
		split += piece.heads.heads < s.heads.heads;
	}
	assert_true(supported > 1000 && refused > 100 && split > 100);
}

/* The bound is of what cuDNN sees: whole tiles, and dk and dv of all query heads. */
static void elements_are_counted_as_cudnn_has_them(void **state)
{
	struct lh_sdpa s = shape_of(1, (1 << 20) - 64, (1 << 20) - 64, 16, 16, 128);

	(void)state;
	assert_true(lh_cuda_sdpa_elements(&s) == WIDE);
	s = shape_of(1, 128, 1 << 20, 16, 1, 128);
	assert_true(lh_cuda_sdpa_elements(&s) == WIDE);
	s = shape_of(1, (1 << 20) - 128, (1 << 20) - 128, 16, 16, 128);
	assert_true(lh_cuda_sdpa_elements(&s) < WIDE);
}

/* As many groups as divide the heads: all of 3, 5 or 12 that stay below. */
static void pieces_are_as_large_as_may_be(void **state)
{
	static const struct {
		int64_t tokens;
		int heads, kv_heads, piece; /* query heads */
	} cases[] = {
		{ 1 << 20, 16, 16, 8 },	 { 1 << 20, 24, 24, 12 }, { 1 << 20, 15, 15, 15 },
		{ 1 << 20, 17, 17, 1 },	 { 1 << 20, 16, 2, 8 },	  { 1 << 20, 24, 3, 8 },
		{ 1 << 19, 40, 5, 8 },	 { 1 << 19, 32, 8, 16 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lh_sdpa s = shape_of(1, cases[i].tokens, cases[i].tokens,
					    cases[i].heads, cases[i].kv_heads, 128);

		assert_int_equal(lh_cuda_sdpa_piece(&s, false).heads.heads, cases[i].piece);
		assert_int_equal(lh_sizes_cuda.supports(&s, NULL), 0);
	}
}

/* Memory is asked for by piece, so it can't be less than a piece's. */
static void scratch_holds_what_a_piece_needs(void **state)
{
	struct lh_sdpa s = shape_of(1, 1 << 20, 1 << 20, 16, 16, 128), half = s;

	(void)state;
	half.heads.heads = half.heads.kv_heads = 8;
	half.heads.q_row = half.heads.kv_row = half.heads.o_row = 8 * 128;
	assert_true(lh_sizes_cuda.sdpa_bytes(&s, true, false) >=
		    lh_sizes_cuda.sdpa_bytes(&half, true, false));
	assert_int_equal(lh_sizes_cuda.sdpa_bytes(&s, false, false),
			 4096 + 16 * (1 << 20) * 4LL);
}

/* Of one head: its pieces of attention in scratch, its tiles where they are wide. */
static void lighthouse_scratch_is_counted(void **state)
{
	struct lh_lighthouse g = { .tokens = 1 << 20, .levels = 3, .pool = 4, .topk = 8192,
				   .tile = 128, .dilation = 4 };
	struct lh_heads h = shape_of(2, 1 << 20, 1 << 20, 8, 2, 128).heads;
	struct lh_sdpa class = lh_cuda_class_sdpa(&g, &h);

	(void)state;
	assert_int_equal(lh_sizes_cuda.lighthouse_bytes(&g, &h), 0);
	g.scorer = LH_SCORER_DILATED;
	assert_int_equal(class.kv_tokens, 1 << 18);
	assert_int_equal(class.heads.kv_heads, 8);
	assert_int_equal(class.heads.q_row, 4 * 8 * 128);
	assert_int_equal(lh_sizes_cuda.lighthouse_bytes(&g, &h),
			 lh_sizes_cuda.sdpa_bytes(&class, false, false));
	g.scorer = LH_SCORER_NORM;
	g.tile = g.topk = 16384; /* one tile of 65,536 candidates */
	assert_true(lh_cuda_select_tile_bytes(&g) > LH_CUDA_SELECT_SHARED_BYTES);
	assert_int_equal(lh_sizes_cuda.lighthouse_bytes(&g, &h),
			 16 * lh_cuda_select_tile_bytes(&g));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_stay_below_the_bound_and_cover_all_heads),
		cmocka_unit_test(elements_are_counted_as_cudnn_has_them),
		cmocka_unit_test(pieces_are_as_large_as_may_be),
		cmocka_unit_test(scratch_holds_what_a_piece_needs),
		cmocka_unit_test(lighthouse_scratch_is_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

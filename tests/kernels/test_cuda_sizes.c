/* test_cuda_sizes.c: what the CUDA backend plans for its attention, without a GPU:
 * into which pieces a backward falls and how many bytes they take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../kernels/cuda/sizes.h"

static struct lh_sdpa shape_of(int batch, int heads, int kv_heads, int D, int64_t tokens)
{
	int64_t row = (int64_t)(heads + 2 * kv_heads) * D;
	struct lh_heads h = { batch, tokens, heads, kv_heads, D, row, row,
			      (int64_t)heads * D, NULL, NULL };

	return (struct lh_sdpa){ .heads = h, .kv_tokens = tokens, .scale = 1 };
}

static void check_piece(struct lh_sdpa s, bool deterministic, int batch, int heads,
			int kv_heads)
{
	struct lh_sdpa p = lh_cuda_sdpa_piece(&s, deterministic);

	if (p.heads.batch != batch || p.heads.heads != heads ||
	    p.heads.kv_heads != kv_heads)
		fail_msg("%d x %d/%d heads of %lld tokens: piece %d x %d/%d, not %d x %d/%d",
			 s.heads.batch, s.heads.heads, s.heads.kv_heads,
			 (long long)s.heads.tokens, p.heads.batch, p.heads.heads,
			 p.heads.kv_heads, batch, heads, kv_heads);
	/* The rest of the call is as it was; pieces cover it evenly. */
	assert_int_equal(p.heads.tokens, s.heads.tokens);
	assert_int_equal(p.heads.q_row, s.heads.q_row);
	assert_int_equal(s.heads.heads % p.heads.heads, 0);
	assert_int_equal(lh_cuda_sdpa_splits_groups(&s, &p),
			 heads * s.heads.kv_heads < s.heads.heads * kv_heads);
}

/* 4 GiB of squares: 2 bytes a query and key of each head. */
static void a_deterministic_backward_takes_the_heads_that_fit(void **state)
{
	(void)state;
	check_piece(shape_of(2, 8, 8, 128, 2048), true, 2, 8, 8);
	check_piece(shape_of(4, 32, 8, 128, 4096), true, 4, 32, 8);   /* 4 GiB */
	check_piece(shape_of(5, 32, 8, 128, 4096), true, 1, 32, 8);
	check_piece(shape_of(1, 8, 8, 128, 18432), true, 1, 4, 4);    /* of 6 */
	check_piece(shape_of(1, 7, 7, 128, 18432), true, 1, 1, 1);    /* prime */
	check_piece(shape_of(1, 12, 12, 64, 18432), true, 1, 6, 6);
	check_piece(shape_of(1, 32, 8, 128, 8192), true, 1, 32, 8);
	check_piece(shape_of(1, 32, 8, 128, 8300), true, 1, 16, 4);   /* 8,320 padded */
	check_piece(shape_of(1, 32, 8, 128, 18432), true, 1, 4, 1);   /* a group */
	check_piece(shape_of(1, 64, 8, 128, 18432), true, 1, 1, 1);   /* none fits */
	check_piece(shape_of(1, 32, 1, 128, 18432), true, 1, 1, 1);
	check_piece(shape_of(3, 8, 8, 128, 98304), true, 1, 1, 1);    /* 18 GiB */
}

static void otherwise_only_wide_tensors_fall_apart(void **state)
{
	struct lh_sdpa s = shape_of(1, 16, 16, 128, 1 << 20);

	(void)state;
	check_piece(shape_of(5, 32, 8, 128, 4096), false, 5, 32, 8);
	check_piece(shape_of(1, 8, 8, 128, 1 << 19), false, 1, 8, 8);
	assert_true(lh_cuda_sdpa_is_wide(&s));
	check_piece(s, false, 1, 8, 8);
	check_piece(shape_of(2, 12, 12, 128, 1 << 20), false, 1, 12, 12);
	check_piece(shape_of(2, 18, 18, 128, 1 << 20), false, 1, 9, 9);
	check_piece(shape_of(1, 32, 1, 128, 1 << 20), false, 1, 1, 1);
}

static int64_t sdpa_bytes(struct lh_sdpa s, bool backward, bool deterministic)
{
	return (int64_t)lh_sizes_cuda.sdpa_bytes(&s, backward, deterministic);
}

static void bytes_follow_the_pieces(void **state)
{
	const int64_t T = 18432, stats = T * 4, rows = T * 128 * 2;
	const int64_t square = 2 * T * T;

	(void)state;
	/* dq in float32, or the square; statistics once. */
	assert_int_equal(sdpa_bytes(shape_of(1, 8, 8, 128, T), true, false),
			 4096 + 8 * stats + 8 * stats * 128);
	assert_int_equal(sdpa_bytes(shape_of(1, 8, 8, 128, T), true, true),
			 4096 + 4 * stats + 4 * square);
	/* A group at once, with its heads' dk and dv in the library's hands. */
	assert_int_equal(sdpa_bytes(shape_of(1, 32, 8, 128, T), true, true),
			 4096 + 4 * stats + 4 * square + 2 * 4 * rows);
	/* A head of a group: copies of q, dq, o, dout and k, v, dk, dv, statistics
	 * twice, float32 sums of dk and dv. */
	assert_int_equal(sdpa_bytes(shape_of(1, 64, 8, 128, T), true, true),
			 4096 + 2 * stats + square + 8 * rows + 4 * rows);
	/* Forward it makes no difference; nor where the slow kernels work. */
	assert_int_equal(sdpa_bytes(shape_of(1, 8, 8, 128, T), false, true),
			 sdpa_bytes(shape_of(1, 8, 8, 128, T), false, false));
	assert_int_equal(sdpa_bytes(shape_of(3, 8, 8, 20, T), true, true),
			 sdpa_bytes(shape_of(3, 8, 8, 20, T), true, false));
	assert_int_equal(sdpa_bytes(shape_of(3, 8, 8, 20, T), true, true), 24 * stats);
	assert_int_equal(sdpa_bytes(shape_of(1, 8, 8, 128, 524288), true, true) >> 30, 512);
}

/* Queries at the end of three times as many keys. Of the two thirds before them, as many as
 * the keys of one call: theirs count for statistics and dq, the keys for the rest; what is
 * kept beside it is o and two statistics, or dq. */
static void bytes_of_a_piece_follow_its_keys(void **state)
{
	const int64_t T = 9216, S = 2 * T, stats = T * 4, square = 2 * T * S;
	struct lh_sdpa s = shape_of(1, 32, 8, 128, T), before;

	(void)state;
	s.kv_tokens = T + S;
	assert_true(lh_cuda_sdpa_is_tail(&s));
	assert_int_equal(lh_cuda_tail_own(&s).kv_tokens, T);
	before = lh_cuda_tail_before(&s);
	assert_int_equal(before.kv_tokens, S);
	check_piece(before, true, 1, 8, 2); /* 2.5 GiB */
	assert_int_equal(sdpa_bytes(s, true, false),
			 4096 + 32 * stats * 129 + 2 * 32 * S * 128 * 2 + 32 * T * 128 * 2);
	/* Of half as many keys twice the heads fit, and more statistics are theirs. */
	assert_int_equal(sdpa_bytes(s, true, true),
			 4096 + 16 * stats + 8 * square + 2 * 8 * S * 128 * 2 +
				 32 * T * 128 * 2);
	assert_int_equal(sdpa_bytes(s, false, false),
			 4096 + 32 * stats + 32 * T * 128 * 2 + 2 * 32 * stats);
	/* Not whole tiles before it: copies of q, o and of k, v. */
	s.heads.tokens = T - 10;
	assert_false(lh_cuda_sdpa_is_tail(&s));
	assert_int_equal(sdpa_bytes(s, false, false),
			 4096 + 32 * stats + 2 * 2 * 128 * (32 * T + 8 * (T + S)));
	/* Nor of several sequences, whose keys do not follow each other then. */
	s = shape_of(2, 8, 8, 128, T);
	s.kv_tokens = T + S;
	assert_false(lh_cuda_sdpa_is_tail(&s));
}

/* Every length has one bucket, of few rows at once, and no call takes more than is
 * counted. */
static void documents_of_any_length_have_a_bucket(void **state)
{
	(void)state;
	for (int64_t T = 128; T <= 100000; T = T * 3 / 2 + 1) {
		struct lh_sdpa s = shape_of(2, 8, 2, 128, T);
		struct lh_cuda_bucket b = { 0 };
		int64_t above = 0, padded = (T + 127) / 128 * 128;
		size_t most = 0;
		int k;

		for (k = 0; lh_cuda_bucket(&s.heads, k, &b); k++) {
			struct lh_sdpa p = lh_cuda_bucket_sdpa(&s, &b);
			int64_t rows = b.tokens * b.documents;
			size_t bytes = lh_sizes_cuda.sdpa_bytes(&p, true, false);

			assert_int_equal(b.tokens % 128, 0);
			assert_true(b.tokens > above && (!k || b.tokens <= 2 * above));
			assert_true(rows <= 8192 || b.documents == 1);
			assert_true(rows <= 2 * T + b.tokens);
			bytes += (size_t)(4 * 2 * rows * (8 + 2) * 128 + rows * 8 * 4);
			most = bytes > most ? bytes : most;
			above = b.tokens;
		}
		assert_int_equal(above, padded);
		s.heads.start = (const int32_t[]){ 0 };
		assert_true(lh_sizes_cuda.sdpa_bytes(&s, true, false) >= most);
		assert_true(lh_sizes_cuda.sdpa_bytes(&s, true, false) <= 2 * most);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_deterministic_backward_takes_the_heads_that_fit),
		cmocka_unit_test(otherwise_only_wide_tensors_fall_apart),
		cmocka_unit_test(bytes_follow_the_pieces),
		cmocka_unit_test(bytes_of_a_piece_follow_its_keys),
		cmocka_unit_test(documents_of_any_length_have_a_bucket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

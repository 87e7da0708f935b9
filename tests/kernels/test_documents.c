/* test_documents.c: attention of a sequence that holds several documents: of each what it
 * would be alone, and the same bits whatever the others hold. Gradients by finite
 * differences are in test_op_grads.c, selection in test_lighthouse.c. */
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

static float *filled(int64_t n, uint64_t seed)
{
	float *x = lh_calloc((size_t)n, 4);

	for (int64_t i = 0; i < n; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		x[i] = (float)((double)(seed >> 40) / (1 << 24)) * 2 - 1;
	}
	return x;
}

/* Longer than a block of queries or of keys, shorter, and one token. */
enum { T = 700, H = 4, G = 2, D = 6, Q = H * D, K = G * D, DOCUMENTS = 6 };
static const int64_t ends[DOCUMENTS] = { 3, 130, 131, 256, 300, T };
static int32_t starts[T];

static struct lh_sdpa shape_of(int64_t tokens, const int32_t *start)
{
	return (struct lh_sdpa){
		.heads = { .batch = 1, .tokens = tokens, .heads = H, .kv_heads = G,
			   .head_dim = D, .q_row = Q, .kv_row = K, .o_row = Q,
			   .start = start },
		.kv_tokens = tokens, .scale = 0.7f };
}

struct tensors { /* of T rows */
	float *q, *k, *v, *dout;
	float *o, *lse, *dq, *dk, *dv;
};

static struct tensors tensors_of(uint64_t seed)
{
	return (struct tensors){
		filled(T * Q, seed), filled(T * K, seed + 1), filled(T * K, seed + 2),
		filled(T * Q, seed + 3), filled(T * Q, 90), filled(H * T, 91),
		filled(T * Q, 92), filled(T * K, 93), filled(T * K, 94) };
}

static void tensors_free(struct tensors *t)
{
	float *all[] = { t->q, t->k, t->v, t->dout, t->o, t->lse, t->dq, t->dk, t->dv };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		free(all[i]);
}

/* Of the rows [from, from + tokens). */
static void attend(const struct tensors *t, int64_t from, int64_t tokens,
		   const int32_t *start)
{
	struct lh_sdpa s = shape_of(tokens, start);
	int64_t q = from * Q, k = from * K;

	ops->sdpa(dev, &s, t->o + q, t->lse, t->q + q, t->k + k, t->v + k);
	ops->sdpa_bwd(dev, &s, t->dq + q, t->dk + k, t->dv + k, t->dout + q, t->q + q,
		      t->k + k, t->v + k, t->o + q, t->lse);
}

static void assert_near(const float *a, const float *b, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		if (!(fabsf(a[i] - b[i]) < 1e-5f))
			fail_msg("%g and %g at %d", a[i], b[i], (int)i);
}

static void each_document_attends_as_if_it_were_alone(void **state)
{
	struct tensors together = tensors_of(1), alone = tensors_of(1);

	(void)state;
	attend(&together, 0, T, starts);
	for (int64_t i = 0, from = 0; i < DOCUMENTS; from = ends[i++]) {
		int64_t n = ends[i] - from;

		attend(&alone, from, n, NULL);
		for (int h = 0; h < H; h++)
			assert_near(together.lse + h * T + from, alone.lse + h * n, n);
	}
	assert_near(together.o, alone.o, T * Q);
	assert_near(together.dq, alone.dq, T * Q);
	assert_near(together.dk, alone.dk, T * K);
	assert_near(together.dv, alone.dv, T * K);
	tensors_free(&together);
	tensors_free(&alone);
}

/* Against the definition, in double. */
static void attention_is_the_masked_softmax(void **state)
{
	struct tensors t = tensors_of(5);

	(void)state;
	attend(&t, 0, T, starts);
	for (int64_t i = 0; i < T; i += 13)
		for (int h = 0; h < H; h++) {
			double want[D] = { 0 }, sum = 0;

			for (int64_t j = starts[i]; j <= i; j++) {
				const float *k = t.k + j * K + h / (H / G) * D;
				const float *v = t.v + j * K + h / (H / G) * D;
				double s = 0, w;

				for (int d = 0; d < D; d++)
					s += (double)t.q[i * Q + h * D + d] * k[d];
				w = exp(s * 0.7);
				sum += w;
				for (int d = 0; d < D; d++)
					want[d] += w * v[d];
			}
			assert_true(fabs(t.lse[h * T + i] - log(sum)) < 1e-5);
			for (int d = 0; d < D; d++)
				assert_true(fabs(t.o[i * Q + h * D + d] - want[d] / sum) <
					    1e-5);
		}
	tensors_free(&t);
}

static void other_documents_change_no_bit(void **state)
{
	struct tensors a = tensors_of(1), b = tensors_of(1), other = tensors_of(50);
	int64_t from = ends[2], to = ends[4]; /* two of them */
	size_t q = (size_t)(to - from) * Q * 4, k = (size_t)(to - from) * K * 4;

	(void)state;
	memcpy(other.q + from * Q, b.q + from * Q, q);
	memcpy(other.k + from * K, b.k + from * K, k);
	memcpy(other.v + from * K, b.v + from * K, k);
	memcpy(other.dout + from * Q, b.dout + from * Q, q);
	attend(&a, 0, T, starts);
	attend(&other, 0, T, starts);
	assert_memory_equal(a.o + from * Q, other.o + from * Q, q);
	assert_memory_equal(a.dq + from * Q, other.dq + from * Q, q);
	assert_memory_equal(a.dk + from * K, other.dk + from * K, k);
	assert_memory_equal(a.dv + from * K, other.dv + from * K, k);
	assert_memory_not_equal(a.o, other.o, (size_t)from * Q * 4);
	tensors_free(&a);
	tensors_free(&b);
	tensors_free(&other);
}

/* One document is what there is without any: the same bits. */
static void one_document_is_a_sequence(void **state)
{
	struct tensors a = tensors_of(3), b = tensors_of(3);
	static const int32_t one[T];

	(void)state;
	attend(&a, 0, T, NULL);
	attend(&b, 0, T, one);
	assert_memory_equal(a.o, b.o, T * Q * 4);
	assert_memory_equal(a.lse, b.lse, H * T * 4);
	assert_memory_equal(a.dq, b.dq, T * Q * 4);
	assert_memory_equal(a.dk, b.dk, T * K * 4);
	assert_memory_equal(a.dv, b.dv, T * K * 4);
	tensors_free(&a);
	tensors_free(&b);
}

static void rotation_begins_anew_with_each_document(void **state)
{
	float *cos = filled(T * D / 2, 1), *sin = filled(T * D / 2, 2);
	float *together = filled(T * Q, 3), *alone = filled(T * Q, 3);
	struct lh_rope rope = { cos, sin };

	(void)state;
	ops->rope(dev, 1, T, H, D, together, Q, &rope, starts, false);
	for (int64_t i = 0, from = 0; i < DOCUMENTS; from = ends[i++])
		ops->rope(dev, 1, ends[i] - from, H, D, alone + from * Q, Q, &rope, NULL,
			  false);
	assert_memory_equal(together, alone, T * Q * 4);
	free(cos);
	free(sin);
	free(together);
	free(alone);
}

/* Documents of 1, 3 and 2 windows of 9 tokens. */
enum { N = 54 };

static void an_entry_reaches_no_further_than_its_document(void **state)
{
	const struct lh_lighthouse g = { .tokens = N, .levels = 3, .pool = 3, .topk = 4,
					 .tile = 4 };
	int32_t start[N];
	struct lh_heads h = { .batch = 1, .tokens = N, .heads = 1, .kv_heads = 1,
			      .head_dim = D, .o_row = D, .start = start };
	int64_t S = lh_lighthouse_selected(&g), P = lh_lighthouse_pyramid(&g);
	float *sq = filled(P, 1), *sk = filled(P, 2), *os = filled(S * D, 3);
	int32_t *index = lh_calloc((size_t)S, 4), *map = lh_calloc((size_t)P, 4);
	float o[N * D], want[N * D] = { 0 };

	(void)state;
	for (int t = 0; t < N; t++)
		start[t] = t < 9 ? 0 : t < 36 ? 9 : 36;
	ops->lighthouse_select(dev, &g, &h, index, sq, sk);
	ops->lighthouse_map(dev, &g, 1, map, index);
	ops->lighthouse_scatter(dev, &g, &h, o, os, map);
	for (int64_t r = 0; r < S; r++) {
		int64_t i, c;

		c = lh_lighthouse_window(&g, lh_lighthouse_level_of(&g, index[r], &i));
		for (int64_t t = i * c + c - 1; t < i * c + 2 * c - 1 && t < N; t++)
			for (int d = 0; d < D && start[t] == start[i * c]; d++)
				want[t * D + d] += os[r * D + d];
	}
	assert_near(o, want, N * D);
	free(sq);
	free(sk);
	free(os);
	free(index);
	free(map);
}

/* Two alike score alike, to the bit: a norm's rounding tells how a row was rotated. */
static void scores_begin_anew_with_each_document(void **state)
{
	const struct lh_lighthouse g = { .tokens = N, .levels = 3, .pool = 3, .topk = 4,
					 .tile = 4 };
	int32_t start[N];
	struct lh_heads h = { .batch = 1, .tokens = N, .heads = 1, .kv_heads = 1,
			      .head_dim = D, .q_row = D, .kv_row = D, .start = start };
	int64_t P = lh_lighthouse_pyramid(&g);
	float *cos = filled(N * D / 2, 1), *sin = filled(N * D / 2, 2);
	float *q = filled(N * D, 3), *sq = filled(P, 4), *sk = filled(P, 5);
	struct lh_rope rope = { cos, sin };

	(void)state;
	for (int t = 0; t < N; t++)
		start[t] = t < N / 2 ? 0 : N / 2;
	memcpy(q + N / 2 * D, q, N / 2 * D * 4);
	ops->lighthouse_score(dev, &g, &h, sq, sk, q, q, q, &rope, NULL);
	assert_memory_equal(sq, sq + N / 2, N / 2 * 4);
	assert_memory_equal(sk, sk + N / 2, N / 2 * 4);
	free(cos);
	free(sin);
	free(q);
	free(sq);
	free(sk);
}

static int setup(void **state)
{
	(void)state;
	for (int64_t i = 0, t = 0; i < DOCUMENTS; i++)
		for (int64_t from = t; t < ends[i]; t++)
			starts[t] = (int32_t)from;
	return ops->open(&dev, 2, NULL);
}

static int teardown(void **state)
{
	(void)state;
	ops->close(dev);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_document_attends_as_if_it_were_alone),
		cmocka_unit_test(attention_is_the_masked_softmax),
		cmocka_unit_test(other_documents_change_no_bit),
		cmocka_unit_test(one_document_is_a_sequence),
		cmocka_unit_test(rotation_begins_anew_with_each_document),
		cmocka_unit_test(an_entry_reaches_no_further_than_its_document),
		cmocka_unit_test(scores_begin_anew_with_each_document),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

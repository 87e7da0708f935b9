/* test_documents.c: documents of a sequence that are kept apart, through a whole model:
 * what one holds changes no bit of another, nor what is selected of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/model.h"
#include "train/rng.h"

enum { B = 2, T = 256, V = 31, WINDOW = 16, DOCUMENTS = 5 };

/* Tiles end at 128 and 256: one lies in two of them. The last sequence has others. */
static const int ends[DOCUMENTS] = { 48, 64, 176, 192, T };

static struct lh_dev *dev;

struct fixture {
	struct lh_attention_mode mode;
	struct lh_model *m;
	int32_t tokens[B * T], targets[B * T], starts[B * T];
};

static void open_model(struct fixture *f, bool lighthouse)
{
	struct lh_job_model c = { .vocab = V, .dim = 32, .layers = 3, .heads = 4,
				  .kv_heads = 2, .head_dim = 8, .ffn_dim = 48,
				  .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.3 };
	struct lh_err err = LH_ERR_INIT;

	memset(f, 0, sizeof(*f));
	f->mode.recompute = LH_RECOMPUTE_NONE;
	if (lighthouse) {
		f->mode.attention = LH_ATTENTION_LIGHTHOUSE;
		f->mode.geometry = (struct lh_lighthouse){
			.tokens = T, .levels = 3, .pool = 4, .topk = 8, .tile = 4 };
		f->mode.dense[1] = true;
		assert_int_equal(lh_lighthouse_check(&f->mode.geometry, NULL, &err), 0);
	}
	assert_int_equal(lh_model_new(&f->m, &lh_ops_cpu, dev, NULL, &c, B, T, &f->mode, 1,
				      &err), 0);
	lh_model_init(f->m, 5);
	for (int i = 0; i < B * T; i++) {
		int d = 0, t = i % T;

		f->tokens[i] = (int32_t)(lh_rng_uniform(1, LH_RNG_SAMPLE, (uint64_t)i) * V);
		f->targets[i] = (f->tokens[i] * 7 + i) % V;
		while (t >= ends[d])
			d++;
		f->starts[i] = i >= T ? t / 96 * 96 : d ? ends[d - 1] : 0;
	}
}

static void losses(struct fixture *f, const int32_t *starts, float *row_loss)
{
	struct lh_err err = LH_ERR_INIT;
	double sum;

	assert_int_equal(lh_model_loss(f->m, &f->mode, B, T, f->tokens, f->targets, starts,
				       &sum, row_loss, &err), 0);
}

static void a_document_changes_no_other(void **state)
{
	(void)state;
	for (int lighthouse = 0; lighthouse < 2; lighthouse++) {
		float before[B * T], after[B * T];
		struct fixture f;

		open_model(&f, lighthouse);
		losses(&f, f.starts, before);
		for (int d = 0, from = 0; d < DOCUMENTS; from = ends[d++]) {
			int to = ends[d], changed = 0;
			int32_t old[T];

			memcpy(old, f.tokens, sizeof(old));
			for (int t = from; t < to; t++)
				f.tokens[t] = (f.tokens[t] + 1 + t % 5) % V;
			losses(&f, f.starts, after);
			assert_memory_equal(before, after, (size_t)from * 4);
			assert_memory_equal(before + to, after + to,
					    (size_t)(B * T - to) * 4);
			for (int t = from; t < to; t++)
				changed += before[t] != after[t];
			assert_int_equal(changed, to - from);
			memcpy(f.tokens, old, sizeof(old));
		}
		lh_model_free(f.m);
	}
}

/* The test above can fail: without starts they do change each other. */
static void documents_attend_to_others_unless_kept_apart(void **state)
{
	float before[B * T], after[B * T];
	struct fixture f;

	(void)state;
	open_model(&f, false);
	losses(&f, NULL, before);
	f.tokens[0] = (f.tokens[0] + 1) % V;
	losses(&f, NULL, after);
	for (int t = 0; t < T; t++)
		assert_true(before[t] != after[t]);
	lh_model_free(f.m);
}

static void one_document_is_a_sequence(void **state)
{
	(void)state;
	for (int lighthouse = 0; lighthouse < 2; lighthouse++) {
		float without[B * T], with[B * T];
		struct lh_err err = LH_ERR_INIT;
		float *grad[2];
		struct fixture f;
		int64_t n;

		open_model(&f, lighthouse);
		n = lh_model_param_count(f.m);
		memset(f.starts, 0, sizeof(f.starts));
		losses(&f, NULL, without);
		losses(&f, f.starts, with);
		assert_memory_equal(without, with, sizeof(with));
		for (int i = 0; i < 2; i++) {
			grad[i] = lh_calloc((size_t)n, 4);
			lh_model_zero_grad(f.m);
			lh_model_forward_backward(f.m, &f.mode, B, f.tokens, f.targets,
						  i ? f.starts : NULL, 1);
			assert_int_equal(lh_model_read(f.m, LH_STATE_GRAD, 0, n, grad[i],
						       &err), 0);
		}
		assert_memory_equal(grad[0], grad[1], (size_t)n * 4);
		free(grad[0]);
		free(grad[1]);
		lh_model_free(f.m);
	}
}

static void a_document_is_what_it_is_alone(void **state)
{
	float together[B * T], alone[T];
	struct lh_err err = LH_ERR_INIT;
	struct fixture f;
	double sum;

	(void)state;
	open_model(&f, false);
	losses(&f, f.starts, together);
	for (int d = 0, from = 0; d < DOCUMENTS; from = ends[d++]) {
		assert_int_equal(lh_model_loss(f.m, &f.mode, 1, ends[d] - from,
					       f.tokens + from, f.targets + from, NULL,
					       &sum, alone, &err), 0);
		for (int t = from; t < ends[d]; t++)
			assert_true(fabsf(together[t] - alone[t - from]) < 1e-4f);
	}
	lh_model_free(f.m);
}

/* How many entries of each level a document of the first sequence has selected. */
struct tally {
	const struct fixture *f;
	int count[2][4][DOCUMENTS][3]; /* layers, heads */
	int layers;
};

static void count(void *arg, int layer, const int32_t *index)
{
	struct tally *t = arg;
	const struct lh_lighthouse *g = &t->f->mode.geometry;
	int64_t S = lh_lighthouse_selected(g);

	(void)layer;
	for (int64_t r = 0; r < 4 * S; r++) {
		int64_t i;
		int l = lh_lighthouse_level_of(g, index[r], &i), d = 0;

		while (i * lh_lighthouse_window(g, l) >= ends[d])
			d++;
		t->count[t->layers][r / S][d][l]++;
	}
	t->layers++;
}

/* Of the 8 coarsest entries of a tile half are expanded, of those documents too: 3, 1
 * and 4 in the first; 3, 1 and 4 in the second, whose first one goes on. */
static void shares_follow_the_layout(void **state)
{
	static const int expanded[DOCUMENTS] = { 1, 1, 2 + 1, 1, 2 };
	struct lh_err err = LH_ERR_INIT;
	static struct tally t;
	struct fixture f;

	(void)state;
	open_model(&f, true);
	t.f = &f;
	assert_int_equal(lh_model_selection(f.m, &f.mode, B, f.tokens, f.starts, count, &t,
					    &err), 0);
	assert_int_equal(t.layers, 2);
	for (int i = 0; i < 2 * 4 * DOCUMENTS; i++) {
		const int *have = t.count[i / DOCUMENTS / 4][i / DOCUMENTS % 4][i % DOCUMENTS];
		int d = i % DOCUMENTS;

		assert_int_equal(have[2], (ends[d] - (d ? ends[d - 1] : 0)) / WINDOW);
		assert_int_equal(have[1], 4 * expanded[d]);
		assert_int_equal(have[0], 4 * expanded[d]);
	}
	lh_model_free(f.m);
}

static int open_dev(void **state)
{
	(void)state;
	return lh_ops_cpu.open(&dev, 2, NULL);
}

static int close_dev(void **state)
{
	(void)state;
	lh_ops_cpu.close(dev);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_document_changes_no_other),
		cmocka_unit_test(documents_attend_to_others_unless_kept_apart),
		cmocka_unit_test(one_document_is_a_sequence),
		cmocka_unit_test(a_document_is_what_it_is_alone),
		cmocka_unit_test(shares_follow_the_layout),
	};

	return cmocka_run_group_tests(tests, open_dev, close_dev);
}

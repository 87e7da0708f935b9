/* test_layout.c: tensors that must outlive one another never share memory, what
 * is planned is what is placed, and more recomputation is less memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/estimate.h"
#include "train/layout.h"

enum { T = 256, B = 2, REGIONS = 256 };

static const struct lh_job_model config = {
	.vocab = 300, .dim = 48, .layers = 5, .heads = 6, .kv_heads = 2, .head_dim = 10,
	.ffn_dim = 72 };

struct region {
	const char *name;
	int layer;
	char *from, *to;
};

static struct region regions[REGIONS];
static int count;
static char *arena, *arena_end;
static int64_t R, S; /* rows of a rank, and of its sub-sequences */

static void live(const char *name, int layer, const void *p, int64_t bytes)
{
	struct region *r = &regions[count++];

	assert_true(count < REGIONS);
	*r = (struct region){ name, layer, (char *)p, (char *)p + bytes };
	if (!p || r->from < arena || r->to > arena_end || (uintptr_t)p % 256)
		fail_msg("%s of layer %d lies outside, or not at 256 bytes", name, layer);
	for (int i = 0; i < count - 1; i++)
		if (r->from < regions[i].to && regions[i].from < r->to)
			fail_msg("%s of layer %d overlaps %s of layer %d", name, layer,
				 regions[i].name, regions[i].layer);
}

/* What backward needs of a layer as forward left it. */
static void kept_of(const struct lh_layer_acts *y, int i, bool light,
		    enum lh_recompute again, int64_t e)
{
	const struct lh_attention_saved *t = &y->attention;
	int64_t H = config.heads, D = config.head_dim;
	int64_t sub = S * H * D * e, stats = H * (light ? S : R) * 4;

	live("x", i, y->x, R * config.dim * e);
	live("lse", i, t->lse, stats);
	if (again < LH_RECOMPUTE_CHEAP) {
		live("n1", i, y->n1, R * config.dim * e);
		live("n2", i, y->n2, R * config.dim * e);
		live("h", i, y->h, R * config.ffn_dim * e);
	}
	if (again < LH_RECOMPUTE_MLP)
		live("gu", i, y->gu, R * 2 * config.ffn_dim * e);
	if (again < LH_RECOMPUTE_LAYER)
		live("mid", i, y->mid, R * config.dim * e);
	if (!light || again == LH_RECOMPUTE_NONE)
		live("o", i, t->o, R * H * D * e);
	if (!light && again < LH_RECOMPUTE_LAYER)
		live("qkv", i, t->qkv, R * (H + 2 * config.kv_heads) * D * e);
	if (!light)
		return;
	live("index", i, t->index, stats);
	live("os", i, t->os, sub);
	if (again == LH_RECOMPUTE_LAYER)
		return;
	live("qs", i, t->qs, sub);
	live("ks", i, t->ks, sub);
	live("vs", i, t->vs, sub);
}

/* g: of what is chosen from at a time, `parts` of which a rank has; NULL: nothing is. */
static void scratch_of(const struct lh_acts *a, int64_t e, const struct lh_lighthouse *g,
		       int parts)
{
	int64_t hd = config.heads * config.head_dim, sub = S * hd * e;
	int64_t P = g ? R / parts / g->tokens * config.heads * lh_lighthouse_pyramid(g) * 4 : 0;

	live("dx", -1, a->dx, R * config.dim * e);
	live("dn", -1, a->dn, R * config.dim * e);
	live("wide", -1, a->wide, R * 2 * config.ffn_dim * e);
	live("half", -1, a->half, R * config.ffn_dim * e);
	live("last", -1, a->last, R * config.dim * e);
	live("rstdf", -1, a->rstdf, R * 4);
	live("tokens", -1, a->tokens, R * 4);
	live("targets", -1, a->targets, R * 4);
	live("cos", -1, a->rope.cos, T * config.head_dim / 2 * 4);
	live("sin", -1, a->rope.sin, T * config.head_dim / 2 * 4);
	live("xent", -1, a->xent, (int64_t)a->xent_bytes);
	if (!g)
		return;
	live("score_q", -1, a->attention.score_q, P);
	live("score_k", -1, a->attention.score_k, P);
	live("map", -1, a->attention.map, parts * P);
	live("dqs", -1, a->attention.dqs, sub);
	live("dks", -1, a->attention.dks, sub);
	live("dvs", -1, a->attention.dvs, sub);
	live("dos", -1, a->attention.dos, sub);
}

/* Of a sequence that `ranks` share; every mode has layers that attend in full. */
static void context_of(const struct lh_context_scratch *s, int64_t e, bool light, int ranks)
{
	int64_t n = T * config.kv_heads * config.head_dim;
	int64_t sub = ranks * S * config.heads * config.head_dim;
	int64_t halo = 2 * ranks * 2 * config.heads * config.head_dim;

	n = n > sub ? n : sub;
	live("kv", -1, s->kv, 2 * n * e);
	live("dkv", -1, s->dkv, 2 * (n + n / (2 * ranks)) * e);
	assert_ptr_equal(s->got, s->kv);
	if (!light)
		return;
	live("halo", -1, s->halo, halo * e);
	live("dhalo", -1, s->dhalo, halo * 4);
}

static struct lh_attention_mode mode_of(bool light)
{
	struct lh_attention_mode m = { .recompute = LH_RECOMPUTE_NONE };

	if (!light)
		return m;
	m.attention = LH_ATTENTION_LIGHTHOUSE;
	m.geometry = (struct lh_lighthouse){ .tokens = T, .levels = 3, .pool = 2,
					     .topk = 64, .tile = 8 };
	m.dense[0] = m.dense[3] = true;
	return m;
}

/* Every recomputation, the more the less memory. ranks: that share a sequence, one. */
static void check_apart(bool light, const struct lh_ops_sizes *sizes, int ranks)
{
	struct lh_attention_mode mode = mode_of(light);
	struct lh_layout l = { .model = &config, .sizes = sizes, .B = ranks > 1 ? 1 : B,
			       .T = T, .mode = &mode, .train = true, .context = ranks };
	struct lh_lighthouse g = lh_context_geometry(&mode.geometry, ranks);
	int64_t e = (int64_t)lh_dtype_bytes(sizes->act_type), before = INT64_MAX;

	R = l.B * T / ranks;
	S = light ? R / g.tokens * lh_lighthouse_selected(&g) : 0;
	for (int r = LH_RECOMPUTE_NONE; r <= LH_RECOMPUTE_LAYER; r++) {
		static struct lh_acts a;
		struct lh_layout_bytes b;
		int64_t bytes;

		mode.recompute = (enum lh_recompute)r;
		bytes = lh_layout_measure(&l, &b);
		arena = (char *)(uintptr_t)0x100000; /* never touched */
		arena_end = arena + bytes;
		lh_layout_place(&l, arena, &a);
		count = 0;
		scratch_of(&a, e, light ? &g : NULL, ranks > 1 ? 2 : 1);
		if (ranks > 1)
			context_of(&a.attention.context, e, light, ranks);
		for (int i = 0; i < config.layers; i++)
			kept_of(&a.layer[i], i, lh_layout_lighthouse(&mode, i) != NULL,
				mode.recompute, e);
		assert_int_equal(b.kept + b.scratch + b.loss, bytes);
		assert_int_equal(b.total, bytes + b.state + b.device);
		assert_true(b.total < before);
		before = b.total;
	}
}

static void what_must_live_is_apart(void **state)
{
	(void)state;
	for (int ranks = 1; ranks <= 4; ranks *= 2) {
		check_apart(false, &lh_sizes_cpu, ranks);
		check_apart(true, &lh_sizes_cpu, ranks);
		check_apart(false, &lh_sizes_cuda, ranks);
		check_apart(true, &lh_sizes_cuda, ranks);
	}
}

/* What lies before the first layer stays where it is from mode to mode. */
static void fixed_tensors_stay(void **state)
{
	struct lh_attention_mode modes[2] = { mode_of(false), mode_of(true) };
	static struct lh_acts a[4];

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct lh_layout l = { .model = &config, .sizes = &lh_sizes_cpu, .B = B,
				       .T = T, .mode = &modes[i / 2], .train = i % 2 };

		lh_layout_place(&l, (void *)(uintptr_t)0x100000, &a[i]);
		assert_ptr_equal(a[i].rope.cos, a[0].rope.cos);
		assert_ptr_equal(a[i].rope.sin, a[0].rope.sin);
		assert_ptr_equal(a[i].tokens, a[0].tokens);
		assert_ptr_equal(a[i].targets, a[0].targets);
	}
}

/* Weights and gradients are whole, and end with the last shard; or one or both are a shard
 * and what a pass is at: two layers in turn, an embedding, gains. */
static void ranks_divide_the_state(void **state)
{
	struct lh_attention_mode mode = { .recompute = LH_RECOMPUTE_NONE };
	struct lh_layout l = { .model = &config, .sizes = &lh_sizes_cpu, .B = B, .T = T,
			       .mode = &mode };
	int64_t n = lh_job_model_params(&config), C = config.dim;
	int64_t layer = 10 * (6 + 2 * 2) * C + C * 60 + 3 * 72 * C;
	int64_t made = 2 * layer + 300 * C + (2 * 5 + 1) * C;
	struct lh_layout_bytes bytes;

	(void)state;
	lh_layout_measure(&l, &bytes);
	assert_int_equal(bytes.state, 16 * n);
	l.divide = LH_DIVIDE_GRADIENTS;
	lh_layout_measure(&l, &bytes);
	assert_int_equal(bytes.state, 16 * n); /* alone there is nothing to divide */
	for (l.ranks = 2; l.ranks < 6; l.ranks++) {
		int64_t shard = lh_layout_shard(n, l.ranks);

		assert_int_equal(shard % 64, 0);
		assert_in_range(l.ranks * shard, n, n + 64 * l.ranks);
		l.divide = LH_DIVIDE_MOMENTS;
		lh_layout_measure(&l, &bytes);
		assert_int_equal(bytes.state, 8 * l.ranks * shard + 8 * shard);
		l.divide = LH_DIVIDE_GRADIENTS;
		lh_layout_measure(&l, &bytes);
		assert_int_equal(bytes.state, 4 * l.ranks * shard + 12 * shard + 4 * made);
		l.divide = LH_DIVIDE_WEIGHTS;
		lh_layout_measure(&l, &bytes);
		assert_int_equal(bytes.state, 16 * shard + 2 * 4 * made);
		l.sizes = &lh_sizes_cuda; /* of which there are copies, too */
		lh_layout_measure(&l, &bytes);
		assert_int_equal(bytes.state, 18 * shard + (4 + 2) * made);
		l.sizes = &lh_sizes_cpu;
	}
}

static void auto_takes_the_least_that_fits(void **state)
{
	struct lh_attention_mode mode = mode_of(true);
	struct lh_layout l = { .model = &config, .sizes = &lh_sizes_cpu, .B = B, .T = T,
			       .mode = &mode, .train = true };
	struct lh_err err = LH_ERR_INIT;
	int64_t total[LH_RECOMPUTE_LAYER + 1];

	(void)state;
	for (int r = LH_RECOMPUTE_NONE; r <= LH_RECOMPUTE_LAYER; r++) {
		struct lh_layout_bytes b;

		mode.recompute = (enum lh_recompute)r;
		lh_layout_measure(&l, &b);
		total[r] = b.total;
	}
	for (int r = LH_RECOMPUTE_NONE; r <= LH_RECOMPUTE_LAYER; r++) {
		mode.recompute = LH_RECOMPUTE_AUTO;
		assert_int_equal(lh_layout_choose(&l, &mode, total[r], &err), 0);
		assert_int_equal(mode.recompute, r);
		/* Asked for by name, it is not changed. */
		assert_int_equal(lh_layout_choose(&l, &mode, total[r] - 1, &err),
				 LH_ETOOBIG);
		assert_int_equal(mode.recompute, r);
		assert_true(*err.text && *err.hint);
	}
	mode.recompute = LH_RECOMPUTE_AUTO;
	assert_int_equal(lh_layout_choose(&l, &mode, total[LH_RECOMPUTE_LAYER] - 1, &err),
			 LH_ETOOBIG);
}

/* Of several ranks what may yet be divided is named first. */
static void what_does_not_fit_may_be_divided(void **state)
{
	static const struct {
		int ranks;
		enum lh_divide divide;
		const char *hint;
	} cases[] = { { 2, LH_DIVIDE_MOMENTS, "divide: gradients or weights keeps" },
		      { 2, LH_DIVIDE_GRADIENTS, "divide: weights keeps" },
		      { 2, LH_DIVIDE_WEIGHTS, "a smaller model" },
		      { 1, LH_DIVIDE_MOMENTS, "a smaller model" } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct lh_attention_mode mode = mode_of(true);
		struct lh_layout l = { .model = &config, .sizes = &lh_sizes_cpu, .B = B,
				       .T = T, .train = true, .ranks = cases[i].ranks,
				       .divide = cases[i].divide };
		struct lh_err err = LH_ERR_INIT;

		mode.recompute = LH_RECOMPUTE_AUTO;
		assert_int_equal(lh_layout_choose(&l, &mode, 1, &err), LH_ETOOBIG);
		assert_int_equal(strncmp(err.hint, cases[i].hint, strlen(cases[i].hint)), 0);
	}
}

/* 530 M parameters: 30 layers of width 1024; GPUs of 80 GB that share a sequence. */
static int64_t shared_bytes(struct lh_attention_mode *mode, int ranks, int64_t tokens)
{
	static const struct lh_job_model model = {
		.vocab = 128256, .dim = 1024, .layers = 30, .heads = 8, .kv_heads = 8,
		.head_dim = 128, .ffn_dim = 1536 };
	int64_t memory = lh_chip_usable_bytes(lh_chip_find("h100")->memory_bytes);
	struct lh_layout l = { .model = &model, .sizes = &lh_sizes_cuda, .B = 1,
			       .T = tokens, .train = true, .ranks = ranks,
			       .context = ranks };
	struct lh_err err = LH_ERR_INIT;
	struct lh_layout_bytes bytes;

	if (lh_layout_choose(&l, mode, memory, &err))
		fail_msg("%s", err.text);
	lh_layout_measure(&l, &bytes);
	return bytes.total;
}

/* What GPUs had in use, with the recomputation that is chosen (tests/bench/results/ranks.md). */
static void gpus_that_share_a_sequence_hold_what_was_measured(void **state)
{
	static const struct {
		int ranks, levels; /* 0: full attention */
		int64_t tokens, topk;
		bool dense;
		double gib;
	} cases[] = {
		{ 2, 3, 98304, 1536, true, 42.55 },   { 2, 0, 98304, 0, true, 47.97 },
		{ 4, 3, 98304, 1536, true, 27.55 },   { 4, 0, 98304, 0, true, 30.27 },
		{ 2, 3, 1 << 20, 8192, true, 71.79 }, { 2, 4, 1 << 20, 4096, false, 52.96 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct lh_attention_mode mode = { .recompute = LH_RECOMPUTE_AUTO };
		double gib;

		if (cases[i].levels)
			mode.attention = LH_ATTENTION_LIGHTHOUSE;
		mode.geometry = (struct lh_lighthouse){ .tokens = cases[i].tokens,
							.levels = cases[i].levels, .pool = 4,
							.topk = cases[i].topk, .tile = 128 };
		for (int k = 0; k < 30 && cases[i].dense; k++)
			mode.dense[k] = k < 2 || k > 27;
		gib = (double)shared_bytes(&mode, cases[i].ranks, cases[i].tokens) / (1 << 30);
		if (!(fabs(gib / cases[i].gib - 1) < 0.01))
			fail_msg("case %zu: %.2f GiB, not %.2f", i, gib, cases[i].gib);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_must_live_is_apart),
		cmocka_unit_test(fixed_tensors_stay),
		cmocka_unit_test(ranks_divide_the_state),
		cmocka_unit_test(auto_takes_the_least_that_fits),
		cmocka_unit_test(what_does_not_fit_may_be_divided),
		cmocka_unit_test(gpus_that_share_a_sequence_hold_what_was_measured),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_ranks.c: a model divided over 1, 2 and 4 processes against one that has the whole
 * batch: losses, gradients, weights, moments.
 *
 * Every rank has both. 50 steps, each begun from the state of the one that is alone: what
 * differs is the order of a few sums. Then 50 steps that run free: small differences grow,
 * and with Lighthouse attention a rounding may choose another entry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "../ranks.h"
#include "train/model_int.h"
#include "train/rng.h"

enum { S = 4, T = 64, V = 257, STEPS = 50 };

static struct lh_dev *dev;

struct kind {
	bool lighthouse;
	bool gradients; /* are divided, too; then also over micro-batches */
	bool tied;      /* with biases and norms of q and k */
};

/* One that is alone and its twin of several ranks. */
struct twins {
	const struct lh_comm *c;
	int micro; /* sequences of a micro-batch */
	struct lh_ops ops; /* the twin's */
	struct lh_attention_mode mode;
	struct lh_model *alone, *shared;
	int64_t n;
	int32_t tokens[S * T], targets[S * T];
	float *x, *y; /* (n) */
};

static void open_twins(struct twins *w, const struct lh_comm *c, struct kind k)
{
	const struct lh_division division = { .comm = *c, .gradients = k.gradients };
	const struct lh_job_model shape = { .vocab = V, .dim = 16, .layers = 3, .heads = 2,
					    .kv_heads = 1, .head_dim = 8, .ffn_dim = 24,
					    .rope_theta = 10000, .norm_eps = 1e-5,
					    .init_std = 0.1, .tied = k.tied,
					    .qkv_bias = k.tied, .qk_norm = k.tied };
	struct lh_err err = LH_ERR_INIT;

	*w = (struct twins){ .c = c, .ops = lh_ops_cpu,
			     .micro = k.gradients ? 1 : S / c->size };
	w->mode.recompute = LH_RECOMPUTE_NONE;
	if (k.lighthouse) {
		w->mode.attention = LH_ATTENTION_LIGHTHOUSE;
		w->mode.geometry = (struct lh_lighthouse){
			.tokens = T, .levels = 3, .pool = 2, .topk = 8, .tile = 4 };
		w->mode.dense[1] = true;
	}
	RANKS_CHECK(!lh_ops_cpu.open(&dev, 1, &err));
	RANKS_CHECK(!lh_model_new(&w->alone, &lh_ops_cpu, dev, NULL, &shape, S, T, &w->mode,
				  1, &err));
	RANKS_CHECK(!lh_model_new(&w->shared, &w->ops, dev, &division, &shape, S / c->size,
				  T, &w->mode, 1, &err));
	lh_model_init(w->alone, 3);
	lh_model_init(w->shared, 3);
	w->n = lh_model_param_count(w->alone);
	w->x = lh_calloc((size_t)w->n, sizeof(*w->x));
	w->y = lh_calloc((size_t)w->n, sizeof(*w->y));
}

static void close_twins(struct twins *w)
{
	lh_model_free(w->alone);
	lh_model_free(w->shared);
	lh_ops_cpu.close(dev);
	free(w->x);
	free(w->y);
}

/* The batch of a step: walks through the vocabulary, which can be learnt. No token comes
 * twice in a sequence: two that are equal tie, and any rounding decides between them. */
static void draw(struct twins *w, int step)
{
	uint32_t r[4];

	for (int s = 0; s < S; s++) {
		lh_rng_block(3, LH_RNG_SAMPLE, (uint64_t)(step * S + s), r);
		for (int i = 0; i < T; i++) {
			w->tokens[s * T + i] = (int32_t)((r[0] % V + (uint32_t)i * 7) % V);
			w->targets[s * T + i] = (w->tokens[s * T + i] + 7) % V;
		}
	}
}

/* In micro-batches that are alike: how a product is rounded depends on its rows, and a
 * rounding may choose another entry. */
static void forward_backward(struct lh_model *m, struct twins *w, int from, int count)
{
	lh_model_zero_grad(m);
	for (int i = from; i < from + count; i += w->micro)
		lh_model_forward_backward(m, &w->mode, w->micro, w->tokens + i * T,
					  w->targets + i * T, NULL, 1.0f / (S * T));
}

struct result {
	float loss, norm;
};

static struct result run_alone(struct twins *w)
{
	const struct lh_comm *c = w->c;
	struct lh_err err = LH_ERR_INIT;
	struct result r;

	forward_backward(w->alone, w, 0, S);
	RANKS_CHECK(!lh_model_measure(w->alone, &r.loss, &r.norm, &err));
	return r;
}

static struct result run_shared(struct twins *w)
{
	const struct lh_comm *c = w->c;
	struct lh_err err = LH_ERR_INIT;
	struct result r;

	forward_backward(w->shared, w, S / c->size * c->rank, S / c->size);
	RANKS_CHECK(!lh_model_measure(w->shared, &r.loss, &r.norm, &err));
	return r;
}

static void apply(struct lh_model *m, int step)
{
	struct lh_adamw opt = { .lr = 3e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
				.weight_decay = 0.1f, .clip = 0.7f, .grad_scale = 1,
				.step = step + 1 };

	lh_model_apply(m, &opt);
}

static double distance(const float *x, const float *y, int64_t n)
{
	double d = 0, norm = 0;

	for (int64_t i = 0; i < n; i++) {
		d += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
		norm += (double)y[i] * y[i];
	}
	return sqrt(d / (norm + 1e-300));
}

static void compare_gradients(struct twins *w)
{
	const struct lh_comm *c = w->c;
	int64_t first = w->shared->first, count = w->shared->shard;

	if (first + count > w->n)
		count = w->n - first;
	if (count <= 0)
		return;
	RANKS_CHECK(!lh_model_read(w->alone, LH_STATE_GRAD, first, count, w->x, NULL));
	RANKS_CHECK(!lh_model_read(w->shared, LH_STATE_GRAD, first, count, w->y, NULL));
	RANKS_CHECK(distance(w->y, w->x, count) < 1e-5);
}

/* Weights and moments: x, y <- theirs. */
static double differ(struct twins *w, enum lh_model_state which)
{
	const struct lh_comm *c = w->c;

	RANKS_CHECK(!lh_model_read(w->alone, which, 0, w->n, w->x, NULL));
	RANKS_CHECK(!lh_model_read_whole(w->shared, which, w->y, NULL));
	return distance(w->y, w->x, w->n);
}

static void start_alike(struct twins *w)
{
	const struct lh_comm *c = w->c;

	for (int i = LH_STATE_PARAM; i <= LH_STATE_MOMENT2; i++) {
		enum lh_model_state which = (enum lh_model_state)i;

		RANKS_CHECK(!lh_model_read(w->alone, which, 0, w->n, w->x, NULL));
		lh_model_write(w->shared, which, 0, w->n, w->x);
	}
	lh_model_weights_changed(w->shared);
}

static void check_steps(const struct lh_comm *c, struct kind k)
{
	struct twins w;
	float first = 0;

	open_twins(&w, c, k);
	for (int step = 0; step < STEPS; step++) {
		struct result one, all;

		draw(&w, step);
		start_alike(&w);
		one = run_alone(&w);
		all = run_shared(&w);
		first = step ? first : one.loss;
		RANKS_CHECK(fabsf(all.loss - one.loss) < 1e-6f * fabsf(one.loss));
		RANKS_CHECK(fabsf(all.norm - one.norm) < 1e-5f * one.norm);
		compare_gradients(&w);
		apply(w.alone, step);
		apply(w.shared, step);
		RANKS_CHECK(differ(&w, LH_STATE_PARAM) < 1e-5);
		RANKS_CHECK(differ(&w, LH_STATE_MOMENT1) < 1e-5);
		RANKS_CHECK(differ(&w, LH_STATE_MOMENT2) < 1e-5);
		RANKS_CHECK(step < STEPS - 1 || one.loss < first - 0.3f); /* it learns */
	}
	close_twins(&w);
}

static void check_free_run(const struct lh_comm *c, struct kind k, float bar)
{
	struct twins w;

	open_twins(&w, c, k);
	for (int step = 0; step < STEPS; step++) {
		struct result one, all;

		draw(&w, step);
		one = run_alone(&w);
		all = run_shared(&w);
		RANKS_CHECK(fabsf(all.loss - one.loss) < bar * one.loss);
		apply(w.alone, step);
		apply(w.shared, step);
	}
	close_twins(&w);
}

static void check_full(const struct lh_comm *c)
{
	check_steps(c, (struct kind){ 0 });
	check_free_run(c, (struct kind){ 0 }, 1e-5f);
}

static void check_lighthouse(const struct lh_comm *c)
{
	check_steps(c, (struct kind){ .lighthouse = true });
	check_free_run(c, (struct kind){ .lighthouse = true }, 1e-3f);
}

static void check_divided(const struct lh_comm *c)
{
	check_steps(c, (struct kind){ .gradients = true });
	check_free_run(c, (struct kind){ .gradients = true }, 1e-5f);
}

static void check_divided_lighthouse(const struct lh_comm *c)
{
	const struct kind k = { .gradients = true, .lighthouse = true, .tied = true };

	check_steps(c, k);
	check_free_run(c, k, 1e-3f);
}

/* All ranks have the same weights to the bit, also after steps that ran free. */
static void check_same_bits_of(const struct lh_comm *c, struct kind k)
{
	struct twins w;
	float *all;

	open_twins(&w, c, k);
	all = lh_calloc((size_t)(c->size * w.n), sizeof(*all));
	for (int step = 0; step < 5; step++) {
		draw(&w, step);
		run_shared(&w);
		apply(w.shared, step);
	}
	RANKS_CHECK(!lh_model_read(w.shared, LH_STATE_PARAM, 0, w.n, all + c->rank * w.n,
				   NULL));
	lh_comm_collect(c, "weights", all, (size_t)w.n * sizeof(*all));
	for (int r = 1; r < c->size; r++)
		RANKS_CHECK(!memcmp(all, all + r * w.n, (size_t)w.n * sizeof(*all)));
	free(all);
	close_twins(&w);
}

static void check_same_bits(const struct lh_comm *c)
{
	check_same_bits_of(c, (struct kind){ 0 });
	check_same_bits_of(c, (struct kind){ .gradients = true });
}

static int fetch_fails(struct lh_dev *d, void *host, const void *src, size_t bytes,
		       struct lh_err *err)
{
	(void)d, (void)host, (void)src, (void)bytes;
	return lh_err_set(err, LH_ETOOBIG, "no memory is left, says a test");
}

/* What goes wrong on one is told on all, and they stay in step. */
static void check_error(const struct lh_comm *c)
{
	struct lh_err err = LH_ERR_INIT;
	float loss, norm;
	struct twins w;

	open_twins(&w, c, (struct kind){ 0 });
	draw(&w, 0);
	if (c->rank == 1)
		w.ops.fetch = fetch_fails;
	forward_backward(w.shared, &w, S / c->size * c->rank, S / c->size);
	RANKS_CHECK(lh_model_measure(w.shared, &loss, &norm, &err) == LH_ETOOBIG);
	RANKS_CHECK(!strcmp(err.text, "rank 1: no memory is left, says a test"));
	RANKS_CHECK(lh_model_read_whole(w.shared, LH_STATE_MOMENT1, w.x, &err) ==
		    LH_ETOOBIG);
	RANKS_CHECK(!strcmp(err.text, "rank 1: no memory is left, says a test"));
	w.ops.fetch = lh_ops_cpu.fetch;
	run_shared(&w);
	close_twins(&w);
}

/* A gradient that is not finite is no rank's to apply. */
static void check_nan_of(const struct lh_comm *c, struct kind k)
{
	struct lh_err err = LH_ERR_INIT;
	struct twins w;
	float nan = NAN, loss, norm;

	open_twins(&w, c, k);
	draw(&w, 0);
	forward_backward(w.shared, &w, S / c->size * c->rank, S / c->size);
	/* Of whole gradients the last rank's, for the first's shard; or the first's own. */
	if (c->rank == (k.gradients ? 0 : c->size - 1))
		lh_model_write(w.shared, LH_STATE_GRAD, 0, 1, &nan);
	RANKS_CHECK(!lh_model_measure(w.shared, &loss, &norm, &err));
	RANKS_CHECK(isnan(norm) && isfinite(loss));
	apply(w.shared, 0);
	RANKS_CHECK(differ(&w, LH_STATE_PARAM) == 0);
	close_twins(&w);
}

static void check_nan(const struct lh_comm *c)
{
	check_nan_of(c, (struct kind){ 0 });
	check_nan_of(c, (struct kind){ .gradients = true });
}

static const struct ranks_case cases[] = {
	{ "divided", check_divided },
	{ "divided_lighthouse", check_divided_lighthouse },
	{ "full", check_full },		  { "lighthouse", check_lighthouse },
	{ "same_bits", check_same_bits }, { "error", check_error },
	{ "nan", check_nan },
};

static void one_rank_is_the_whole(void **state)
{
	(void)state;
	check_full(&LH_COMM_ALONE);
	check_lighthouse(&LH_COMM_ALONE);
	check_divided(&LH_COMM_ALONE);
}

static void two_ranks_train_as_one(void **state)
{
	(void)state;
	ranks_run(2, "full");
	ranks_run(2, "lighthouse");
	ranks_run(2, "divided");
	ranks_run(2, "divided_lighthouse");
}

static void four_ranks_train_as_one(void **state)
{
	(void)state;
	ranks_run(4, "full");
	ranks_run(4, "lighthouse");
	ranks_run(4, "divided");
	ranks_run(4, "divided_lighthouse");
}

static void ranks_have_the_same_bits(void **state)
{
	(void)state;
	ranks_run(4, "same_bits");
}

static void what_fails_on_one_fails_on_all(void **state)
{
	(void)state;
	ranks_run(2, "error");
}

static void a_gradient_that_is_not_finite_is_never_applied(void **state)
{
	(void)state;
	ranks_run(4, "nan");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_rank_is_the_whole),
		cmocka_unit_test(two_ranks_train_as_one),
		cmocka_unit_test(four_ranks_train_as_one),
		cmocka_unit_test(ranks_have_the_same_bits),
		cmocka_unit_test(what_fails_on_one_fails_on_all),
		cmocka_unit_test(a_gradient_that_is_not_finite_is_never_applied),
	};

	if (argc > 1)
		return ranks_main(argv[1], cases, sizeof(cases) / sizeof(cases[0]));
	return cmocka_run_group_tests_name("ranks", tests, NULL, NULL);
}

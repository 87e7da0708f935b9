/* twins.h: a model of several ranks, and beside it in every rank one that is alone and has
 * the whole batch. Included after cmocka.h.
 *
 * 50 steps, each begun from the state of the one that is alone: what differs is the order of
 * a few sums. Then 50 steps that run free: small differences grow, and with Lighthouse
 * attention a rounding may choose another entry. */
#ifndef LIGHTHOUSE_TEST_TWINS_H
#define LIGHTHOUSE_TEST_TWINS_H

#include <math.h>

#include "../ranks.h"
#include "train/model_int.h"
#include "train/rng.h"

enum { S = 4, T = 128, V = 257, STEPS = 50, FEW = 5 };

static struct lh_dev *dev;

struct kind {
	bool lighthouse;
	enum lh_divide divide; /* more than moments: also over micro-batches */
	bool tied;             /* with biases and norms of q and k */
	int context;           /* ranks that share a sequence, 0 = 1 */
	enum lh_recompute recompute; /* none where it is not given */
};

/* One that is alone and its twin of several ranks. */
struct twins {
	const struct lh_comm *c;
	struct lh_comm context;
	int micro; /* sequences of a micro-batch */
	int first, share; /* this rank's */
	struct lh_ops ops; /* the twin's */
	struct lh_attention_mode mode;
	struct lh_model *alone, *shared;
	int64_t n;
	int32_t tokens[S * T], targets[S * T];
	float *x, *y; /* (n) */
};

/* Who has which sequences. */
static inline void divide(struct twins *w, const struct lh_comm *c, struct kind k)
{
	struct lh_err err = LH_ERR_INIT;
	int W = k.context ? k.context : 1;

	w->share = S * W / c->size;
	w->first = c->rank / W * w->share;
	w->micro = k.divide || W > 1 ? 1 : w->share;
	w->context = LH_COMM_ALONE;
	if (W > 1)
		RANKS_CHECK(!lh_comm_split(c, "a sequence", c->rank / W, &w->context, &err));
}

static inline void open_twins(struct twins *w, const struct lh_comm *c, struct kind k)
{
	struct lh_division division = { .comm = *c, .divide = k.divide };
	const struct lh_job_model shape = { .vocab = V, .dim = 16, .layers = 3, .heads = 2,
					    .kv_heads = 1, .head_dim = 8, .ffn_dim = 24,
					    .rope_theta = 10000, .norm_eps = 1e-5,
					    .init_std = 0.1, .tied = k.tied,
					    .qkv_bias = k.tied, .qk_norm = k.tied };
	struct lh_err err = LH_ERR_INIT;

	*w = (struct twins){ .c = c, .ops = lh_ops_cpu };
	divide(w, c, k);
	division.context = w->context;
	w->mode.recompute = k.recompute ? k.recompute : LH_RECOMPUTE_NONE;
	if (k.lighthouse) {
		w->mode.attention = LH_ATTENTION_LIGHTHOUSE;
		w->mode.geometry = (struct lh_lighthouse){
			.tokens = T, .levels = 3, .pool = 2, .topk = 16, .tile = 2 };
		w->mode.dense[1] = true;
	}
	RANKS_CHECK(!lh_ops_cpu.open(&dev, 1, &err));
	RANKS_CHECK(!lh_model_new(&w->alone, &lh_ops_cpu, dev, NULL, &shape, S, T, &w->mode,
				  1, &err));
	RANKS_CHECK(!lh_model_new(&w->shared, &w->ops, dev, &division, &shape, w->micro, T,
				  &w->mode, 1, &err));
	lh_model_init(w->alone, 3);
	lh_model_init(w->shared, 3);
	w->n = lh_model_param_count(w->alone);
	w->x = lh_calloc((size_t)w->n, sizeof(*w->x));
	w->y = lh_calloc((size_t)w->n, sizeof(*w->y));
}

static inline void close_twins(struct twins *w)
{
	lh_model_free(w->alone);
	lh_model_free(w->shared);
	lh_comm_close(&w->context);
	lh_ops_cpu.close(dev);
	free(w->x);
	free(w->y);
}

/* The batch of a step: walks through the vocabulary, which can be learnt. No token comes
 * twice in a sequence: two that are equal tie, and any rounding decides between them. */
static inline void draw(struct twins *w, int step)
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
static inline void forward_backward(struct lh_model *m, struct twins *w, int from, int count)
{
	lh_model_zero_grad(m);
	for (int i = from; i < from + count; i += w->micro)
		lh_model_forward_backward(m, &w->mode, w->micro, w->tokens + i * T,
					  w->targets + i * T, NULL, 1.0f / (S * T));
}

struct result {
	float loss, norm;
};

static inline struct result run_alone(struct twins *w)
{
	const struct lh_comm *c = w->c;
	struct lh_err err = LH_ERR_INIT;
	struct result r;

	forward_backward(w->alone, w, 0, S);
	RANKS_CHECK(!lh_model_measure(w->alone, &r.loss, &r.norm, &err));
	return r;
}

static inline struct result run_shared(struct twins *w)
{
	const struct lh_comm *c = w->c;
	struct lh_err err = LH_ERR_INIT;
	struct result r;

	forward_backward(w->shared, w, w->first, w->share);
	RANKS_CHECK(!lh_model_measure(w->shared, &r.loss, &r.norm, &err));
	return r;
}

static inline void apply(struct lh_model *m, int step)
{
	struct lh_adamw opt = { .lr = 3e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
				.weight_decay = 0.1f, .clip = 0.7f, .grad_scale = 1,
				.step = step + 1 };

	lh_model_apply(m, &opt);
}

static inline double distance(const float *x, const float *y, int64_t n)
{
	double d = 0, norm = 0;

	for (int64_t i = 0; i < n; i++) {
		d += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
		norm += (double)y[i] * y[i];
	}
	return sqrt(d / (norm + 1e-300));
}

static inline void compare_gradients(struct twins *w)
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
static inline double differ(struct twins *w, enum lh_model_state which)
{
	const struct lh_comm *c = w->c;

	RANKS_CHECK(!lh_model_read(w->alone, which, 0, w->n, w->x, NULL));
	RANKS_CHECK(!lh_model_read_any(w->shared, which, 0, w->n, w->y, NULL));
	return distance(w->y, w->x, w->n);
}

static inline void start_alike(struct twins *w)
{
	const struct lh_comm *c = w->c;

	for (int i = LH_STATE_PARAM; i <= LH_STATE_MOMENT2; i++) {
		enum lh_model_state which = (enum lh_model_state)i;

		RANKS_CHECK(!lh_model_read(w->alone, which, 0, w->n, w->x, NULL));
		lh_model_write(w->shared, which, 0, w->n, w->x);
	}
	lh_model_weights_changed(w->shared);
}

static inline void check_some_steps(const struct lh_comm *c, struct kind k, int steps)
{
	float first = 0, last = 0;
	struct twins w;

	open_twins(&w, c, k);
	for (int step = 0; step < steps; step++) {
		struct result one, all;

		draw(&w, step);
		start_alike(&w);
		one = run_alone(&w);
		all = run_shared(&w);
		first = step ? first : one.loss;
		last = one.loss;
		RANKS_CHECK(fabsf(all.loss - one.loss) < 1e-6f * fabsf(one.loss));
		RANKS_CHECK(fabsf(all.norm - one.norm) < 1e-5f * one.norm);
		compare_gradients(&w);
		apply(w.alone, step);
		apply(w.shared, step);
		RANKS_CHECK(differ(&w, LH_STATE_PARAM) < 1e-5);
		RANKS_CHECK(differ(&w, LH_STATE_MOMENT1) < 1e-5);
		RANKS_CHECK(differ(&w, LH_STATE_MOMENT2) < 1e-5);
	}
	RANKS_CHECK(steps < STEPS || last < first - 0.3f); /* it learns */
	close_twins(&w);
}

static inline void check_steps(const struct lh_comm *c, struct kind k)
{
	check_some_steps(c, k, STEPS);
}

static inline void check_free_run(const struct lh_comm *c, struct kind k, float bar)
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

/* All ranks have the same weights to the bit, also after steps that ran free. */
static inline void check_same_bits_of(const struct lh_comm *c, struct kind k)
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
	RANKS_CHECK(!lh_model_read_any(w.shared, LH_STATE_PARAM, 0, w.n, all + c->rank * w.n,
				       NULL));
	lh_comm_collect(c, "weights", all, (size_t)w.n * sizeof(*all));
	for (int r = 1; r < c->size; r++)
		RANKS_CHECK(!memcmp(all, all + r * w.n, (size_t)w.n * sizeof(*all)));
	free(all);
	close_twins(&w);
}

static inline int fetch_fails(struct lh_dev *d, void *host, const void *src, size_t bytes,
		       struct lh_err *err)
{
	(void)d, (void)host, (void)src, (void)bytes;
	return lh_err_set(err, LH_ETOOBIG, "no memory is left, says a test");
}

#endif

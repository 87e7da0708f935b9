/* ranks_model.cu: losses, gradients and weights of two ranks against one that has the whole
 * batch.
 *
 *   mpiexec.hydra -n 2 ranks_model [--cpu] f32|bf16
 *
 * Each rank has both, the latter three times: with moments, gradients and weights divided.
 * Every step begins from the state of the one that is alone on rank 0: what differs is the
 * order of a few sums. Float32 has a bar; of bf16 the bar is how far
 * runs of one GPU lie apart that divide the batch into other micro-batches. */
#include "ranks.cuh"

extern "C" {
#include "train/layout.h"
#include "train/model.h"
#include "train/rng.h"
}

enum { S = 4, V = 4099, STEPS = 8, DIVISIONS = LH_DIVIDE_WEIGHTS + 1 };
static const double F32_BAR = 1e-5, SPREADS = 1.5 /* they are samples themselves */,
		    LEAST_BAR = 1e-6;

struct result {
	float loss, norm;
	std::vector<float> grad; /* of this rank's shard */
};

struct twins {
	struct ranks r;
	int64_t T, n, first, count; /* parameters of all, and of the shard */
	struct lh_attention_mode mode;
	struct lh_model *alone, *shared[DIVISIONS];
	std::vector<int32_t> tokens, targets; /* (S, T) */
};

static struct lh_model *model_of(struct twins *w, const struct lh_division *division)
{
	struct lh_job_model shape = { };
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;

	shape.vocab = V, shape.dim = 256, shape.layers = 3;
	shape.heads = 4, shape.kv_heads = 2, shape.head_dim = 64, shape.ffn_dim = 512;
	shape.rope_theta = 10000, shape.norm_eps = 1e-5, shape.init_std = 0.05;
	if (lh_model_new(&m, w->r.ops, w->r.dev, division, &shape, S, w->T, &w->mode, 1, &err))
		ranks_die(&err);
	lh_model_init(m, 3);
	return m;
}

static void open_twins(struct twins *w, bool lighthouse)
{
	const struct lh_comm *c = &w->r.comm;
	int64_t shard;

	w->mode = { };
	w->mode.recompute = LH_RECOMPUTE_NONE;
	if (lighthouse) {
		w->mode.attention = LH_ATTENTION_LIGHTHOUSE;
		w->mode.geometry.tokens = w->T;
		w->mode.geometry.levels = 3, w->mode.geometry.pool = 4;
		w->mode.geometry.topk = w->T / 16, w->mode.geometry.tile = 16;
		w->mode.geometry.dilation = 4;
		w->mode.dense[0] = true;
	}
	w->alone = model_of(w, NULL);
	for (int i = 0; i < DIVISIONS; i++) {
		struct lh_division division = { };

		division.comm = *c, division.divide = (enum lh_divide)i;
		w->shared[i] = model_of(w, &division);
	}
	w->n = lh_model_param_count(w->alone);
	shard = lh_layout_shard(w->n, c->size);
	w->first = std::min(shard * c->rank, w->n);
	w->count = std::min(shard, w->n - w->first);
}

static void close_twins(struct twins *w)
{
	lh_model_free(w->alone);
	for (struct lh_model *m : w->shared)
		lh_model_free(m);
}

/* Walks through the vocabulary, which can be learnt. */
static void draw(struct twins *w, int step)
{
	uint32_t r[4];

	for (int s = 0; s < S; s++) {
		lh_rng_block(3, LH_RNG_SAMPLE, (uint64_t)(step * S + s), r);
		for (int64_t i = 0; i < w->T; i++) {
			int32_t id = (int32_t)((r[0] % V + (uint64_t)i * (1 + r[1] % 7)) % V);

			w->tokens[(size_t)(s * w->T + i)] = id;
			w->targets[(size_t)(s * w->T + i)] = (id + 7) % V;
		}
	}
}

static void start_alike(struct twins *w)
{
	std::vector<float> x((size_t)w->n);
	struct lh_err err = LH_ERR_INIT;

	for (int i = LH_STATE_PARAM; i <= LH_STATE_MOMENT2; i++) {
		enum lh_model_state which = (enum lh_model_state)i;

		if (lh_model_read(w->alone, which, 0, w->n, x.data(), &err))
			ranks_die(&err);
		lh_comm_share(&w->r.comm, "the state", x.data(), x.size() * sizeof(float));
		lh_model_write(w->alone, which, 0, w->n, x.data());
		for (struct lh_model *m : w->shared)
			lh_model_write(m, which, 0, w->n, x.data());
	}
	lh_model_weights_changed(w->alone);
	for (struct lh_model *m : w->shared)
		lh_model_weights_changed(m);
}

/* Sequences from, from + 1, ... of the batch, so many at once. */
static struct result run(struct twins *w, struct lh_model *m, int from, int count, int micro)
{
	struct lh_err err = LH_ERR_INIT;
	struct result r;

	lh_model_zero_grad(m);
	for (int i = from; i < from + count; i += micro)
		lh_model_forward_backward(m, &w->mode, micro, &w->tokens[(size_t)(i * w->T)],
					  &w->targets[(size_t)(i * w->T)], NULL,
					  1.0f / (float)(S * w->T));
	if (lh_model_measure(m, &r.loss, &r.norm, &err))
		ranks_die(&err);
	r.grad.resize((size_t)w->count);
	if (w->count && lh_model_read(m, LH_STATE_GRAD, w->first, w->count, r.grad.data(), &err))
		ranks_die(&err);
	return r;
}

static void apply(struct lh_model *m, int step)
{
	struct lh_adamw opt = { };

	opt.lr = 1e-3f, opt.beta1 = 0.9f, opt.beta2 = 0.95f, opt.eps = 1e-8f;
	opt.weight_decay = 0.1f, opt.clip = 1, opt.grad_scale = 1, opt.step = step + 1;
	lh_model_apply(m, &opt);
}

static double distance(const std::vector<float> &x, const std::vector<float> &y)
{
	double d = 0, norm = 0;

	for (size_t i = 0; i < x.size(); i++) {
		d += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
		norm += (double)y[i] * y[i];
	}
	return sqrt(d / (norm + 1e-300));
}

/* The most of any step. */
struct apart {
	double loss, norm, grad;
};

static void compare(struct twins *w, struct apart *most, const struct result &x,
		    const struct result &y)
{
	most->loss = std::max(most->loss, (double)fabsf(x.loss - y.loss) / y.loss);
	most->norm = std::max(most->norm, (double)fabsf(x.norm - y.norm) / y.norm);
	most->grad = std::max(most->grad, ranks_most(&w->r, distance(x.grad, y.grad)));
}

static bool report(struct twins *w, const char *of, const struct apart *ranks,
		   const struct apart *bar)
{
	char what[80];
	bool good = true;

	snprintf(what, sizeof(what), "%s: loss of 1 and %d ranks", of, w->r.comm.size);
	good &= ranks_check(&w->r, ranks->loss <= bar->loss, what, ranks->loss, bar->loss);
	snprintf(what, sizeof(what), "%s: gradient norm", of);
	good &= ranks_check(&w->r, ranks->norm <= bar->norm, what, ranks->norm, bar->norm);
	snprintf(what, sizeof(what), "%s: gradient", of);
	return good & ranks_check(&w->r, ranks->grad <= bar->grad, what, ranks->grad, bar->grad);
}

static bool check_steps(struct twins *w, bool lighthouse, bool f32)
{
	int share = S / w->r.comm.size, from = share * w->r.comm.rank;
	struct apart ranks = { }, spread = { }, bar = { F32_BAR, F32_BAR, F32_BAR };
	float first = 0, last = 0;
	char of[40];

	open_twins(w, lighthouse);
	for (int step = 0; step < STEPS; step++) {
		struct result halves, whole, single;

		draw(w, step);
		start_alike(w);
		if (!f32) {
			whole = run(w, w->alone, 0, S, S);
			single = run(w, w->alone, 0, S, 1);
		}
		halves = run(w, w->alone, 0, S, share); /* the shape of a rank's */
		for (struct lh_model *m : w->shared)
			compare(w, &ranks, run(w, m, from, share, share), halves);
		if (!f32) {
			compare(w, &spread, whole, halves);
			compare(w, &spread, single, halves);
			compare(w, &spread, single, whole);
		}
		first = step ? first : halves.loss;
		last = halves.loss;
		apply(w->alone, step);
	}
	if (!f32)
		bar = { std::max(spread.loss * SPREADS, LEAST_BAR),
			std::max(spread.norm * SPREADS, LEAST_BAR),
			std::max(spread.grad * SPREADS, LEAST_BAR) };
	close_twins(w);
	snprintf(of, sizeof(of), "%s, %s", f32 ? "f32" : "bf16", lighthouse ? "lighthouse" : "full");
	return report(w, of, &ranks, &bar) &
	       ranks_check(&w->r, last < first, "it learns: loss, bar its first", last, first);
}

int main(int argc, char **argv)
{
	bool f32 = ranks_has(argc, argv, "f32"), cpu = ranks_has(argc, argv, "--cpu"), good;
	struct twins w = { };

	ranks_open(&w.r, cpu ? &lh_ops_cpu : f32 ? &lh_ops_cuda_f32 : &lh_ops_cuda);
	w.T = f32 || cpu ? 512 : 8192;
	w.tokens.resize((size_t)(S * w.T));
	w.targets.resize((size_t)(S * w.T));
	good = check_steps(&w, false, f32) & check_steps(&w, true, f32);
	ranks_close(&w.r);
	return !good;
}

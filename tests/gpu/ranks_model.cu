/* ranks_model.cu: losses and gradients of two ranks against one that has the whole batch.
 *
 *   mpiexec.hydra -n 2 ranks_model [--cpu] f32|bf16
 *
 * Each rank has both, the latter several times: with a sequence a rank, and moments,
 * gradients or weights divided; and with sequences that two and two of them share.
 * Every step begins from the state of the one that is alone on rank 0: what differs is the
 * order of a few sums. Float32 has a bar; of bf16 the bar is how far runs of the one that is
 * alone lie apart that add up in other orders. With sequences of their own ranks can differ
 * as such runs do that divide the batch into other micro-batches. Where they share sequences
 * sums inside of these differ, too, and every activation behind them: there it runs in
 * pieces besides (pieces.cuh). In float32 its orders have the same bar as ranks, which shows
 * that pieces are right. Where a rounding flips a choice of Lighthouse's, bf16 hides smaller
 * faults, which float32 and full attention show. */
#include "pieces.cuh"
#include "ranks.cuh"

extern "C" {
#include "train/layout.h"
#include "train/model.h"
#include "train/rng.h"
}

enum { S = 4, V = 4099, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64 };
enum { STEPS = 8, CPU_STEPS = 3 };

/* How far two results lie apart, as shares; the most of any step. */
struct apart {
	double loss, norm, grad;
};
/* Of bf16 what orders of one rank may: more is no rounding, and makes no bar. */
static const struct apart F32_MOST = { 1e-5, 1e-5, 1e-5 }, BF16_MOST = { 1e-3, 1e-2, 0.1 };
static const double SPREADS = 1.5 /* they are samples themselves */, LEAST_BAR = 1e-6;

/* How ranks divide the work. */
struct kind {
	int context; /* so many share a sequence */
	enum lh_divide divide;
	enum lh_recompute recompute;
};

static const struct kind kinds[] = {
	{ 1, LH_DIVIDE_MOMENTS, LH_RECOMPUTE_NONE },
	{ 1, LH_DIVIDE_GRADIENTS, LH_RECOMPUTE_NONE },
	{ 1, LH_DIVIDE_WEIGHTS, LH_RECOMPUTE_NONE },
	{ 2, LH_DIVIDE_MOMENTS, LH_RECOMPUTE_NONE },
	{ 2, LH_DIVIDE_GRADIENTS, LH_RECOMPUTE_CHEAP },
	{ 2, LH_DIVIDE_WEIGHTS, LH_RECOMPUTE_MLP },
	{ 2, LH_DIVIDE_WEIGHTS, LH_RECOMPUTE_LAYER },
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), CONTEXT = 2 };

/* How the model that is alone adds up: so many sequences at once, in so many pieces. */
struct order {
	int micro, pieces;
};
enum { WHOLE_ORDERS = 3 /* the first, of one piece */, ORDERS = 5 };

struct result {
	float loss, norm;
	std::vector<float> grad; /* of this rank's shard */
};

/* A model, and how it goes through its part of the batch. */
struct twin {
	struct lh_model *m;
	struct lh_attention_mode mode;
	int from, count, micro;
};

struct twins {
	struct ranks r;
	struct lh_comm context; /* those that share a sequence with this one */
	int steps;
	int64_t T, n, first, count; /* parameters of all, and of the shard */
	struct lh_attention_mode mode;
	struct lh_model *alone;
	struct twin twin[KINDS];
	std::vector<int32_t> tokens, targets; /* (S, T) */
};

static struct lh_model *model_of(struct twins *w, const struct lh_ops *ops,
				 const struct lh_division *division, int B,
				 const struct lh_attention_mode *mode)
{
	struct lh_job_model shape = { };
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;

	shape.vocab = V, shape.dim = 256, shape.layers = 3, shape.ffn_dim = 512;
	shape.heads = HEADS, shape.kv_heads = KV_HEADS, shape.head_dim = HEAD_DIM;
	shape.rope_theta = 10000, shape.norm_eps = 1e-5, shape.init_std = 0.05;
	if (lh_model_new(&m, ops, w->r.dev, division, &shape, B, w->T, mode, 1, &err))
		ranks_die(&err);
	lh_model_init(m, 3);
	return m;
}

static void open_twin(struct twins *w, struct twin *t, struct kind k)
{
	struct lh_division division = { };
	int groups = w->r.comm.size / k.context;

	division.comm = w->r.comm, division.divide = k.divide;
	if (k.context > 1)
		division.context = w->context;
	t->mode = w->mode;
	t->mode.recompute = k.recompute;
	t->count = S / groups;
	t->from = w->r.comm.rank / k.context * t->count;
	t->micro = k.context > 1 ? 1 : t->count;
	t->m = model_of(w, w->r.ops, &division, t->micro, &t->mode);
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
		/* Pieces of a shared sequence are whole tiles. */
		w->mode.geometry.topk = w->T / 16, w->mode.geometry.tile = 8;
		w->mode.geometry.dilation = 4;
		w->mode.dense[0] = true;
	}
	w->alone = model_of(w, &pieces.ops, NULL, S, &w->mode);
	for (int i = 0; i < KINDS; i++)
		open_twin(w, &w->twin[i], kinds[i]);
	w->n = lh_model_param_count(w->alone);
	shard = lh_layout_shard(w->n, c->size);
	w->first = std::min(shard * c->rank, w->n);
	w->count = std::min(shard, w->n - w->first);
}

static void close_twins(struct twins *w)
{
	lh_model_free(w->alone);
	for (struct twin &t : w->twin)
		lh_model_free(t.m);
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
		for (struct twin &t : w->twin)
			lh_model_write(t.m, which, 0, w->n, x.data());
	}
	lh_model_weights_changed(w->alone);
	for (struct twin &t : w->twin)
		lh_model_weights_changed(t.m);
}

static struct result run(struct twins *w, const struct twin *t)
{
	struct lh_err err = LH_ERR_INIT;
	struct result r;

	lh_model_zero_grad(t->m);
	for (int i = t->from; i < t->from + t->count; i += t->micro)
		lh_model_forward_backward(t->m, &t->mode, t->micro,
					  &w->tokens[(size_t)(i * w->T)],
					  &w->targets[(size_t)(i * w->T)], NULL,
					  1.0f / (float)(S * w->T));
	if (lh_model_measure(t->m, &r.loss, &r.norm, &err))
		ranks_die(&err);
	r.grad.resize((size_t)w->count);
	if (w->count &&
	    lh_model_read(t->m, LH_STATE_GRAD, w->first, w->count, r.grad.data(), &err))
		ranks_die(&err);
	return r;
}

/* The model that is alone, in each order; the first has the shape of a rank's. */
static void run_orders(struct twins *w, struct result *of)
{
	int own = S / w->r.comm.size;
	const struct order orders[ORDERS] = {
		{ own, 1 }, { S, 1 }, { own > 1 ? 1 : 2, 1 }, { own, 2 }, { own, 4 }
	};

	for (int i = 0; i < ORDERS; i++) {
		struct twin t = { w->alone, w->mode, 0, S, orders[i].micro };

		pieces_divide(orders[i].pieces);
		of[i] = run(w, &t);
	}
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

/* What is no number is further away than any. */
static double further(double x, double y)
{
	return isfinite(y) ? std::max(x, y) : INFINITY;
}

static void compare(struct twins *w, struct apart *most, const struct result &x,
		    const struct result &y)
{
	double grad = further(0, distance(x.grad, y.grad));

	most->loss = further(most->loss, fabsf(x.loss - y.loss) / y.loss);
	most->norm = further(most->norm, fabsf(x.norm - y.norm) / y.norm);
	most->grad = further(most->grad, ranks_most(&w->r, grad));
}

/* How far ranks lie from the model that is alone, and its orders from each other. */
struct measured {
	struct apart ranks, orders;
};

/* Each from each: ranks are one more order, and are compared with one of these. */
static void compare_orders(struct twins *w, struct apart *most, const struct result *of,
			   int count)
{
	for (int i = 0; i < count; i++)
		for (int j = 0; j < i; j++)
			compare(w, most, of[i], of[j]);
}

/* of: of ranks with sequences of their own, and with shared ones. Returns the loss. */
static float measure_step(struct twins *w, int step, struct measured of[2])
{
	struct result alone[ORDERS];

	draw(w, step);
	start_alike(w);
	run_orders(w, alone);
	for (int i = 0; i < KINDS; i++)
		compare(w, &of[kinds[i].context > 1].ranks, run(w, &w->twin[i]), alone[0]);
	compare_orders(w, &of[0].orders, alone, WHOLE_ORDERS);
	compare_orders(w, &of[1].orders, alone, ORDERS);
	apply(w->alone, step);
	return alone[0].loss;
}

static bool report(struct twins *w, const char *of, const struct apart *most,
		   const struct apart *bar)
{
	char what[100];
	bool good = true;

	snprintf(what, sizeof(what), "%s: loss", of);
	good &= ranks_check(&w->r, most->loss <= bar->loss, what, most->loss, bar->loss);
	snprintf(what, sizeof(what), "%s: gradient norm", of);
	good &= ranks_check(&w->r, most->norm <= bar->norm, what, most->norm, bar->norm);
	snprintf(what, sizeof(what), "%s: gradient", of);
	return good & ranks_check(&w->r, most->grad <= bar->grad, what, most->grad, bar->grad);
}

static struct apart ranks_bar(const struct apart *orders, bool f32)
{
	if (f32)
		return F32_MOST;
	return { std::max(orders->loss * SPREADS, LEAST_BAR),
		 std::max(orders->norm * SPREADS, LEAST_BAR),
		 std::max(orders->grad * SPREADS, LEAST_BAR) };
}

static bool report_measured(struct twins *w, const char *mode, bool shared, bool f32,
			    const struct measured *m)
{
	struct apart bar = ranks_bar(&m->orders, f32);
	char of[80];
	bool good;

	snprintf(of, sizeof(of), "%s, orders of one rank%s", mode, shared ? " and pieces" : "");
	good = report(w, of, &m->orders, f32 ? &F32_MOST : &BF16_MOST);
	snprintf(of, sizeof(of), "%s, 1 and %d ranks%s", mode, w->r.comm.size,
		 shared ? ", shared sequences" : "");
	return good & report(w, of, &m->ranks, &bar);
}

static bool check_steps(struct twins *w, bool lighthouse, bool f32)
{
	struct measured of[2] = { };
	float first = 0, last = 0;
	char mode[40];

	open_twins(w, lighthouse);
	for (int step = 0; step < w->steps; step++) {
		last = measure_step(w, step, of);
		first = step ? first : last;
	}
	close_twins(w);
	snprintf(mode, sizeof(mode), "%s, %s", f32 ? "f32" : "bf16",
		 lighthouse ? "lighthouse" : "full");
	return report_measured(w, mode, false, f32, &of[0]) &
	       report_measured(w, mode, true, f32, &of[1]) &
	       ranks_check(&w->r, last < first, "it learns: loss, bar its first", last, first);
}

int main(int argc, char **argv)
{
	bool f32 = ranks_has(argc, argv, "f32"), cpu = ranks_has(argc, argv, "--cpu"), good;
	struct lh_err err = LH_ERR_INIT;
	struct twins w = { };

	ranks_open(&w.r, cpu ? &lh_ops_cpu : f32 ? &lh_ops_cuda_f32 : &lh_ops_cuda);
	if (lh_comm_split(&w.r.comm, "a sequence", w.r.comm.rank / CONTEXT, &w.context, &err))
		ranks_die(&err);
	w.T = f32 || cpu ? 512 : 8192;
	pieces_open(&w.r, w.T, (HEADS + 2 * KV_HEADS) * HEAD_DIM);
	w.steps = cpu ? CPU_STEPS : STEPS;
	w.tokens.resize((size_t)(S * w.T));
	w.targets.resize((size_t)(S * w.T));
	good = check_steps(&w, false, f32) & check_steps(&w, true, f32);
	lh_comm_close(&w.context);
	pieces_close(&w.r);
	ranks_close(&w.r);
	return !good;
}

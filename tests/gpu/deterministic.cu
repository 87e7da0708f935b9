/* deterministic.cu: a deterministic device gives the same bits again, and right ones.
 *
 * Attention at lengths that fall into pieces (sizes.h): heads by fours, KV groups by
 * twos, a group that is split, and one head whose square of scores is past 2^31
 * elements; twice the same bits, and as near to the default backward as bf16 is.
 * Then a few optimizer steps, twice, each on a device that was opened anew, with
 * GEMMs large enough that the default would measure which algorithm to take: every
 * weight and moment must be the same. Needs about 24 GiB. Exit: 0 when all passed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#include "noise.cuh"

extern "C" {
#include "train/layout.h"
#include "train/model.h"
}

static int passed, failed;

static void check(bool ok, const char *what, const char *detail)
{
	printf("%-56s %s%s\n", what, detail, ok ? "" : "  FAILED");
	fflush(stdout);
	ok ? passed++ : failed++;
}

static void die(const struct lh_err *err)
{
	fprintf(stderr, "error: %s\nhint: %s\n", err->text, err->hint);
	exit(2);
}

static struct lh_dev *opened(bool deterministic)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_dev *dev;

	if (lh_ops_cuda.open(&dev, 0, &err))
		die(&err);
	if (deterministic)
		lh_ops_cuda.set_deterministic(dev);
	return dev;
}

/* ---- attention ------------------------------------------------------------- */

struct gradients { /* of q, k, v */
	std::vector<uint16_t> d[3];
};

static void *device(struct lh_dev *dev, std::vector<void *> *all, int64_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	void *p;

	if (lh_ops_cuda.alloc(dev, &p, (size_t)bytes, &err))
		die(&err);
	all->push_back(p);
	return p;
}

/* Of noise in packed rows of q, k, v. */
static struct gradients backward(struct lh_dev *dev, const struct lh_sdpa *s)
{
	const struct lh_heads *h = &s->heads;
	int64_t R = h->batch * h->tokens, row = h->q_row, D = h->head_dim;
	struct lh_err err = LH_ERR_INIT;
	struct gradients g;
	std::vector<void *> all;
	bf16 *x = (bf16 *)device(dev, &all, R * row * 2);
	bf16 *dx = (bf16 *)device(dev, &all, R * row * 2);
	bf16 *o = (bf16 *)device(dev, &all, R * h->o_row * 2);
	bf16 *dout = (bf16 *)device(dev, &all, R * h->o_row * 2);
	float *lse = (float *)device(dev, &all, R * h->heads * 4);
	int64_t k = h->heads * D, v = k + h->kv_heads * D, from[] = { 0, k, v, row };
	std::vector<uint16_t> rows((size_t)(R * row));

	noise_fill(dev, x, R * row, 1);
	noise_fill(dev, dout, R * h->o_row, 2);
	lh_ops_cuda.sdpa(dev, s, o, lse, x, x + k, x + v);
	lh_ops_cuda.sdpa_bwd(dev, s, dx, dx + k, dx + v, dout, x, x + k, x + v, o, lse);
	if (lh_ops_cuda.fetch(dev, rows.data(), dx, rows.size() * 2, &err))
		die(&err);
	for (int i = 0; i < 3; i++)
		for (int64_t r = 0; r < R; r++)
			g.d[i].insert(g.d[i].end(), rows.begin() + r * row + from[i],
				      rows.begin() + r * row + from[i + 1]);
	for (void *p : all)
		lh_ops_cuda.free(dev, p);
	return g;
}

static double difference(const std::vector<uint16_t> &a, const std::vector<uint16_t> &b)
{
	double diff = 0, norm = 0;

	for (size_t i = 0; i < a.size(); i++) {
		uint32_t u = (uint32_t)a[i] << 16, v = (uint32_t)b[i] << 16;
		float x, y;

		memcpy(&x, &u, 4), memcpy(&y, &v, 4);
		diff += ((double)x - y) * ((double)x - y);
		norm += (double)y * y;
	}
	return sqrt(diff / norm);
}

static void attention(int batch, int heads, int kv_heads, int64_t tokens)
{
	static const char *const names[] = { "dq", "dk", "dv" };
	const int D = 128;
	int64_t row = (int64_t)(heads + 2 * kv_heads) * D;
	struct lh_heads h = { batch, tokens, heads, kv_heads, D, row, row,
			      (int64_t)heads * D, nullptr, nullptr };
	struct lh_sdpa s = { h, tokens, 0.0883883476f, NULL, NULL };
	struct lh_sdpa piece = lh_cuda_sdpa_piece(&s, true);
	struct lh_dev *fixed = opened(true), *roams = opened(false);
	struct gradients a = backward(fixed, &s), b = backward(fixed, &s);
	struct gradients want = backward(roams, &s);

	for (int i = 0; i < 3; i++) {
		double e = difference(a.d[i], want.d[i]);
		bool same = a.d[i] == b.d[i];
		char what[120], detail[60];

		snprintf(what, sizeof(what), "%s %d x %d/%d heads, %lld tokens (by %d)",
			 names[i], batch, heads, kv_heads, (long long)tokens,
			 piece.heads.heads);
		snprintf(detail, sizeof(detail), "%.1e off the default%s", e,
			 same ? "" : ", bits differ");
		check(same && e <= 1e-2, what, detail);
	}
	lh_ops_cuda.close(fixed);
	lh_ops_cuda.close(roams);
}

/* ---- steps ------------------------------------------------------------------- */

static const int T = 8192, STEPS = 4;

static void take_steps(struct lh_dev *dev, struct lh_model *m,
		       const struct lh_attention_mode *mode)
{
	std::vector<int32_t> ids(T + 1);
	struct lh_adamw opt = { };
	struct lh_err err = LH_ERR_INIT;
	float loss, norm;

	opt.lr = 1e-3f, opt.beta1 = 0.9f, opt.beta2 = 0.95f, opt.eps = 1e-8f;
	opt.clip = 1, opt.grad_scale = 1;
	for (int i = 0; i < STEPS; i++) {
		for (size_t j = 0; j < ids.size(); j++)
			ids[j] = (int32_t)((j * 2654435761u + (size_t)i * 97) >> 7) & 511;
		opt.step = i + 1;
		lh_model_zero_grad(m);
		lh_model_forward_backward(m, mode, 1, ids.data(), ids.data() + 1,
					  nullptr, 1.0f / T);
		if (lh_model_measure(m, &loss, &norm, &err))
			die(&err);
		lh_model_apply(m, &opt);
	}
	LH_ASSERT(isfinite(loss));
	if (lh_ops_cuda.sync(dev, &err))
		die(&err);
}

/* Weights and moments after STEPS of a fresh model. */
static std::vector<float> trained(bool lighthouse, bool grouped)
{
	struct lh_dev *dev = opened(true);
	struct lh_attention_mode mode = { };
	struct lh_job_model c = { };
	struct lh_err err = LH_ERR_INIT;
	std::vector<float> state;
	struct lh_model *m;
	int64_t n;

	c.vocab = 512, c.dim = 1024, c.layers = 3, c.heads = 8, c.head_dim = 128;
	c.kv_heads = grouped ? 2 : 8, c.ffn_dim = 1536, c.rope_theta = 10000;
	c.norm_eps = 1e-5, c.init_std = 0.02;
	mode.attention = lighthouse ? LH_ATTENTION_LIGHTHOUSE : LH_ATTENTION_FULL;
	mode.recompute = LH_RECOMPUTE_CHEAP;
	mode.geometry.tokens = T, mode.geometry.levels = 3, mode.geometry.pool = 4;
	mode.geometry.topk = 128, mode.geometry.tile = 128, mode.dense[0] = true;
	if (lh_model_new(&m, &lh_ops_cuda, dev, NULL, &c, 1, T, &mode, 1, &err) ||
	    lh_model_prepare(m, &mode, 1, 1, 0, false, &err))
		die(&err);
	lh_model_init(m, 1);
	take_steps(dev, m, &mode);
	n = lh_model_param_count(m);
	state.resize((size_t)(3 * n));
	for (int i = LH_STATE_PARAM; i <= LH_STATE_MOMENT2; i++)
		if (lh_model_read(m, (enum lh_model_state)i, 0, n, state.data() + i * n, &err))
			die(&err);
	lh_model_free(m);
	lh_ops_cuda.close(dev);
	return state;
}

static void steps(bool lighthouse, bool grouped)
{
	std::vector<float> a = trained(lighthouse, grouped), b = trained(lighthouse, grouped);
	size_t differ = 0;
	char what[120], detail[60];

	for (size_t i = 0; i < a.size(); i++)
		differ += memcmp(&a[i], &b[i], 4) != 0;
	snprintf(what, sizeof(what), "%d steps, %s%s", STEPS,
		 lighthouse ? "lighthouse" : "full", grouped ? ", grouped heads" : "");
	snprintf(detail, sizeof(detail), "%zu of %zu words differ", differ, a.size());
	check(!differ, what, detail);
}

int main(void)
{
	attention(2, 8, 8, 2048);
	attention(1, 8, 8, 18432);
	attention(1, 8, 4, 18432);
	attention(1, 8, 1, 24576);
	attention(1, 6, 3, 40000);
	attention(1, 1, 1, 98304);
	for (int i = 0; i < 4; i++)
		steps(i % 2, i / 2);
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}

/* bench_step.cu: whole optimizer steps on this GPU, beside their bars.
 *
 *   bench_step [--json FILE] [--profile] [NAME...]     all of them by default
 *
 * One sequence a step, random tokens; seconds are medians over host clocks around
 * whole steps (the loss is fetched, so the GPU has finished). SDPA of the same
 * length is timed in the same run. "used" is what the device has lost against an
 * empty one; "planned" what lh_layout_measure promised. --profile adds a step
 * timed op by op. */
#include <algorithm>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#include "noise.cuh"
#include "trace.cuh"

extern "C" {
#include "base/fs.h"
#include "train/layout.h"
#include "train/model.h"
}

struct config {
	const char *name;
	int64_t vocab, tokens, topk;
	bool lighthouse, dense;
	enum lh_recompute recompute;
	int steps;
	double tokens_per_s; /* at least; 0: the bar is SDPA's time and `extra_s` */
	double extra_s;
	double gib; /* at most */
};

/* 30 layers of width 1024, 8 heads of 128, FFN 1536. */
static const struct config configs[] = {
	{ "268m", 512, 98304, 1536, true, true, LH_RECOMPUTE_CHEAP, 5, 90000, 0, 45 },
	{ "268m-layer", 512, 98304, 1536, true, true, LH_RECOMPUTE_LAYER, 5, 75000, 0, 18 },
	{ "268m-sparse", 512, 98304, 1536, true, false, LH_RECOMPUTE_CHEAP, 5, 165000, 0, 45 },
	{ "268m-full", 512, 98304, 1536, false, true, LH_RECOMPUTE_CHEAP, 3, 0, 0.38, 65 },
	{ "530m", 128256, 98304, 1536, true, true, LH_RECOMPUTE_CHEAP, 5, 78000, 0, 50 },
	{ "530m-full", 128256, 98304, 1536, false, true, LH_RECOMPUTE_CHEAP, 3, 0, 0.56, 65 },
	{ "530m-262k", 128256, 262144, 2048, true, true, LH_RECOMPUTE_MLP, 3, 42000, 0, 65 },
	{ "530m-524k", 128256, 524288, 4096, true, true, LH_RECOMPUTE_LAYER, 2, 23000, 0, 74 },
};

static void die(const struct lh_err *err)
{
	fprintf(stderr, "error: %s\nhint: %s\n", err->text, err->hint);
	exit(2);
}

static double gib(double bytes)
{
	return bytes / (1 << 30);
}

static struct lh_job_model model_of(const struct config *c)
{
	struct lh_job_model m = { };

	m.vocab = c->vocab, m.dim = 1024, m.layers = 30, m.heads = m.kv_heads = 8;
	m.head_dim = 128, m.ffn_dim = 1536;
	m.rope_theta = 10000, m.norm_eps = 1e-5, m.init_std = 0.02;
	return m;
}

static struct lh_attention_mode mode_of(const struct config *c)
{
	struct lh_attention_mode m = { };

	m.attention = c->lighthouse ? LH_ATTENTION_LIGHTHOUSE : LH_ATTENTION_FULL;
	m.recompute = c->recompute;
	m.geometry.tokens = c->tokens, m.geometry.levels = 3, m.geometry.pool = 4;
	m.geometry.topk = c->topk, m.geometry.tile = 128;
	m.dense[0] = m.dense[1] = m.dense[28] = m.dense[29] = c->dense;
	return m;
}

static double step_s(struct lh_model *m, const struct lh_attention_mode *mode,
		     const std::vector<int32_t> &ids, int64_t step)
{
	struct lh_adamw opt = { };
	struct lh_err err = LH_ERR_INIT;
	int64_t start = lh_clock_us();
	float loss, norm;

	opt.lr = 1e-4f, opt.beta1 = 0.9f, opt.beta2 = 0.95f, opt.eps = 1e-8f;
	opt.weight_decay = 0.1f, opt.step = step, opt.clip = 1, opt.grad_scale = 1;
	lh_model_zero_grad(m);
	lh_model_forward_backward(m, mode, 1, ids.data(), ids.data() + 1,
				  1 / (float)(ids.size() - 1));
	if (lh_model_measure(m, &loss, &norm, &err))
		die(&err);
	lh_model_apply(m, &opt);
	if (lh_model_read(m, LH_STATE_PARAM, 0, 1, &loss, &err)) /* waits */
		die(&err);
	return (double)(lh_clock_us() - start) / 1e6;
}

/* One layer's full attention, forward and backward, in seconds: the median of a
 * row that is long enough for the chip to have settled on its clock. */
static double sdpa_s(struct lh_dev *dev, int64_t N)
{
	struct lh_heads h = { 1, N, 8, 8, 128, 1024, 1024, 1024 };
	struct lh_sdpa s = { h, N, 0.0883883476f };
	size_t bytes = (size_t)N * 2048;
	struct lh_err err = LH_ERR_INIT;
	void *t[8], *lse;
	std::vector<double> seconds;

	for (void *&p : t) {
		if (lh_ops_cuda.alloc(dev, &p, bytes, &err))
			die(&err);
		noise_fill(dev, p, (int64_t)bytes / 2, (uint64_t)(&p - t));
	}
	if (lh_ops_cuda.alloc(dev, &lse, (size_t)N * 32, &err))
		die(&err);
	for (int i = 0; i < 24; i++) {
		int64_t start = lh_clock_us();

		lh_ops_cuda.sdpa(dev, &s, t[3], (float *)lse, t[0], t[1], t[2]);
		lh_ops_cuda.sdpa_bwd(dev, &s, t[5], t[6], t[7], t[4], t[0], t[1], t[2], t[3],
				     (float *)lse);
		if (lh_ops_cuda.sync(dev, &err))
			die(&err);
		if (i >= 8)
			seconds.push_back((double)(lh_clock_us() - start) / 1e6);
	}
	for (void *p : t)
		lh_ops_cuda.free(dev, p);
	lh_ops_cuda.free(dev, lse);
	std::nth_element(seconds.begin(), seconds.begin() + 8, seconds.end());
	return seconds[8];
}

static double used_bytes(void)
{
	size_t left = 0, all = 0;

	cudaMemGetInfo(&left, &all);
	return (double)(all - left);
}

static bool bench(const struct config *c, bool profile, FILE *json, bool first)
{
	struct lh_job_model shape = model_of(c);
	struct lh_attention_mode mode = mode_of(c);
	struct lh_layout layout = { };
	struct lh_layout_bytes plan;
	struct lh_err err = LH_ERR_INIT;
	struct lh_ops ops = profile ? trace_ops(&lh_ops_cuda) : lh_ops_cuda;
	std::vector<int32_t> ids((size_t)c->tokens + 1);
	std::vector<double> seconds;
	struct lh_model *m;
	struct lh_dev *dev;
	double s, used, sdpa = 0, bar;
	bool ok;

	for (size_t i = 0; i < ids.size(); i++)
		ids[i] = (int32_t)((i * 2654435761u >> 7) % (size_t)c->vocab);
	if (ops.open(&dev, 0, &err))
		die(&err);
	if (!c->tokens_per_s)
		sdpa = sdpa_s(dev, c->tokens);
	layout.model = &shape, layout.sizes = ops.sizes, layout.B = 1, layout.T = c->tokens;
	layout.mode = &mode, layout.train = true;
	lh_layout_measure(&layout, &plan);
	if (lh_model_new(&m, &ops, dev, &shape, 1, c->tokens, &mode, 1, &err) ||
	    lh_model_prepare(m, &mode, 1, 1, 0, &err))
		die(&err);
	lh_model_init(m, 1);
	step_s(m, &mode, ids, 1);
	trace_reset();
	for (int i = 0; i < c->steps; i++)
		seconds.push_back(step_s(m, &mode, ids, i + 2));
	used = used_bytes();
	std::nth_element(seconds.begin(), seconds.begin() + c->steps / 2, seconds.end());
	s = seconds[c->steps / 2];
	bar = c->tokens_per_s ? (double)c->tokens / c->tokens_per_s : 30 * sdpa + c->extra_s;
	ok = s <= bar && gib(used) <= c->gib;
	printf("%-12s %8lld | %8.4f s bar %8.4f %5.2f | %8.0f tokens/s | used %6.2f GiB bar "
	       "%5.1f planned %6.2f (state %.2f kept %.2f scratch %.2f logits %.2f device "
	       "%.2f) %s\n", c->name, (long long)c->tokens, s, bar, s / bar,
	       (double)c->tokens / s, gib(used), c->gib, gib((double)plan.total),
	       gib((double)plan.state), gib((double)plan.kept), gib((double)plan.scratch),
	       gib((double)plan.loss), gib((double)plan.device), ok ? "" : "MISSED");
	if (profile)
		trace_print(stdout);
	trace_reset();
	fflush(stdout);
	if (json)
		fprintf(json, "%s\n  {\"name\": \"%s\", \"tokens\": %lld, \"step_s\": %.6f, "
			"\"bar_s\": %.6f, \"sdpa_s\": %.6f, \"used_bytes\": %.0f, "
			"\"planned_bytes\": %lld, \"bar_gib\": %.1f}", first ? "" : ",",
			c->name, (long long)c->tokens, s, bar, sdpa, used,
			(long long)plan.total, c->gib);
	lh_model_free(m);
	ops.close(dev);
	return ok;
}

int main(int argc, char **argv)
{
	bool profile = false, ok = true, first = true, named = false;
	FILE *json = NULL;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--profile"))
			profile = true;
		else if (!strcmp(argv[i], "--json") && i + 1 < argc)
			json = fopen(argv[++i], "w");
		else
			named = true;
	}
	if (json)
		fprintf(json, "[");
	for (const struct config &c : configs) {
		bool wanted = !named;

		for (int i = 1; i < argc; i++)
			wanted |= !strcmp(argv[i], c.name);
		if (!wanted)
			continue;
		ok &= bench(&c, profile, json, first);
		first = false;
	}
	if (json) {
		fprintf(json, "\n]\n");
		fclose(json);
	}
	return !ok;
}

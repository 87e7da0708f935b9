/* bench_step.cu: whole optimizer steps on this GPU, beside their bars.
 *
 *   bench_step [--json FILE] [--profile] [--plan] [NAME...]    all of them by default
 *
 * One sequence a step, random tokens; seconds are medians over host clocks around
 * whole steps (the loss is fetched, so the GPU has finished). SDPA of the same
 * length is timed in the same run. "used" is what the device has lost against an
 * empty one; "planned" what `lhctl estimate` tells. The closing table has measured /
 * limit, measured / planned, and for a deterministic row its time over the same step
 * without.
 *
 * --profile times every op of PROFILE_STEPS steps and says how long the GPU stood
 * idle between ops and steps. --plan prints planned bytes and bars, and needs no
 * GPU. Exit: 0, 1 when a bar is passed, 2 when something fails. */
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
#include "train/estimate.h"
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
	const char *without = NULL; /* of a deterministic row: the default; no bars */
	enum lh_scorer scorer = LH_SCORER_NORM;
};

static const int PROFILE_STEPS = 20;
static const double IDLE_SHARE = 0.01; /* at most, of a profile */
/* What was planned and what came, at most apart; of an H100, whose rates are known. */
static const double STEP_OFF = 0.15, BYTES_OFF = 0.05;

/* 30 layers of width 1024, 8 heads of 128, FFN 1536. */
static const struct config configs[] = {
	{ "268m", 512, 98304, 1536, true, true, LH_RECOMPUTE_CHEAP, 5, 90000, 0, 45 },
	{ "268m-layer", 512, 98304, 1536, true, true, LH_RECOMPUTE_LAYER, 5, 75000, 0, 18 },
	{ "268m-fixed", 512, 98304, 1536, true, true, LH_RECOMPUTE_CHEAP, 5, 0, 0, 0, "268m" },
	{ "268m-dilated", 512, 98304, 1536, true, true, LH_RECOMPUTE_CHEAP, 5, 0, 0, 0, NULL,
	  LH_SCORER_DILATED },
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

/* Points to names of its own: not to be released. */
static struct lh_job job_of(const struct config *c)
{
	static char name[] = "all";
	struct lh_job job = { };
	struct lh_job_phase *p = &job.phases[0];

	job.model = model_of(c), job.recompute = c->recompute, job.devices = job.context = 1;
	job.deterministic = c->without != NULL;
	job.data.seq_len = c->tokens, job.batch.sequences = 1;
	job.phase_count = 1;
	p->name = name, p->lr_factor = 1;
	p->attention = c->lighthouse ? LH_ATTENTION_LIGHTHOUSE : LH_ATTENTION_FULL;
	p->lighthouse.tokens = c->tokens, p->lighthouse.levels = 3, p->lighthouse.pool = 4;
	p->lighthouse.topk = c->topk, p->lighthouse.tile = 128;
	p->lighthouse.scorer = c->scorer, p->lighthouse.dilation = 4;
	for (int layer : { 0, 1, 28, 29 })
		if (c->dense)
			p->dense_layers[p->dense_count++] = layer;
	return job;
}

static struct lh_attention_mode mode_of(const struct config *c)
{
	struct lh_job job = job_of(c);
	struct lh_attention_mode m;

	lh_attention_mode_of(&m, &job, 0);
	return m;
}

/* Bytes and seconds, as `lhctl estimate` tells them. */
static struct lh_estimate_phase plan_of(const struct config *c)
{
	const struct lh_chip *chip = lh_chip_find("h100");
	struct lh_job job = job_of(c);
	struct lh_err err = LH_ERR_INIT;
	struct lh_estimate plan;

	if (lh_estimate_job(&plan, &job, &lh_sizes_cuda, chip, chip->memory_bytes, &err))
		die(&err);
	return plan.phase[0];
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
				  nullptr, 1 / (float)(ids.size() - 1));
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
	struct lh_heads h = { 1, N, 8, 8, 128, 1024, 1024, 1024, nullptr, nullptr };
	struct lh_sdpa s = { h, N, 0.0883883476f, NULL, NULL };
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

struct result {
	const struct config *c;
	struct lh_estimate_phase plan;
	double step_s, bar_s, sdpa_s, used_bytes;
	double idle; /* share of a profile, else -1 */
};

/* Of the default steps that ran before. */
static const struct result *result_named(const std::vector<result> &all, const char *name)
{
	for (const result &r : all)
		if (!strcmp(r.c->name, name))
			return &r;
	return NULL;
}

static void time_steps(struct result *r, const struct lh_ops *ops, struct lh_dev *dev,
		       bool profile)
{
	const struct config *c = r->c;
	struct lh_job_model shape = model_of(c);
	struct lh_attention_mode mode = mode_of(c);
	std::vector<int32_t> ids((size_t)c->tokens + 1);
	int steps = profile ? PROFILE_STEPS : c->steps;
	std::vector<double> seconds;
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;

	for (size_t i = 0; i < ids.size(); i++)
		ids[i] = (int32_t)((i * 2654435761u >> 7) % (size_t)c->vocab);
	if (lh_model_new(&m, ops, dev, NULL, &shape, 1, c->tokens, &mode, 1, &err) ||
	    lh_model_prepare(m, &mode, 1, 1, 0, false, &err))
		die(&err);
	lh_model_init(m, 1);
	step_s(m, &mode, ids, 1);
	trace_reset();
	for (int i = 0; i < steps; i++)
		seconds.push_back(step_s(m, &mode, ids, i + 2));
	r->used_bytes = used_bytes();
	r->idle = profile ? trace_idle() : -1;
	std::nth_element(seconds.begin(), seconds.begin() + steps / 2, seconds.end());
	r->step_s = seconds[steps / 2];
	lh_model_free(m);
}

static void measure(struct result *r, bool profile)
{
	const struct config *c = r->c;
	struct lh_ops ops = profile ? trace_ops(&lh_ops_cuda) : lh_ops_cuda;
	struct lh_err err = LH_ERR_INIT;
	struct lh_dev *dev;

	if (ops.open(&dev, 0, &err))
		die(&err);
	if (c->without)
		ops.set_deterministic(dev);
	if (c->extra_s)
		r->sdpa_s = sdpa_s(dev, c->tokens);
	r->bar_s = c->tokens_per_s ? (double)c->tokens / c->tokens_per_s :
		   c->extra_s	   ? 30 * r->sdpa_s + c->extra_s : 0;
	time_steps(r, &ops, dev, profile);
	if (profile)
		trace_print(stdout);
	trace_reset();
	ops.close(dev);
}

/* ---- what is printed -------------------------------------------------------- */

static void print_result(const struct result *r)
{
	const struct lh_layout_bytes *p = &r->plan.bytes;

	printf("%-12s %8lld | %8.4f s bar %8.4f planned %8.4f | %8.0f tokens/s | used %6.2f GiB bar %5.1f "
	       "planned %6.2f (state %.2f kept %.2f scratch %.2f logits %.2f device %.2f)\n",
	       r->c->name, (long long)r->c->tokens, r->step_s, r->bar_s, r->plan.step_s,
	       (double)r->c->tokens / r->step_s, gib(r->used_bytes), r->c->gib,
	       gib((double)p->total), gib((double)p->state), gib((double)p->kept),
	       gib((double)p->scratch), gib((double)p->loss), gib((double)p->device));
	fflush(stdout);
}

static void print_plan(const struct config *c)
{
	struct lh_estimate_phase plan = plan_of(c);
	struct lh_layout_bytes p = plan.bytes;
	char bar[60] = "none";

	if (c->tokens_per_s)
		snprintf(bar, sizeof(bar), "%.4f s", (double)c->tokens / c->tokens_per_s);
	else if (c->extra_s)
		snprintf(bar, sizeof(bar), "30 x SDPA + %.2f s", c->extra_s);
	printf("%-12s %8lld | bar %-20s planned %8.4f s | planned %6.2f GiB bar %5.1f (state %.2f kept %.2f "
	       "scratch %.2f logits %.2f device %.2f)\n", c->name, (long long)c->tokens, bar, plan.step_s,
	       gib((double)p.total), c->gib, gib((double)p.state), gib((double)p.kept),
	       gib((double)p.scratch), gib((double)p.loss), gib((double)p.device));
}

static bool is_off(double have, double planned, double most)
{
	return fabs(have / planned - 1) > most;
}

static bool is_missed(const struct result *r)
{
	if (is_off(r->used_bytes, (double)r->plan.bytes.total, BYTES_OFF) ||
	    is_off(r->step_s, r->plan.step_s, STEP_OFF))
		return true;
	return (r->bar_s > 0 && r->step_s > r->bar_s) ||
	       (r->c->gib > 0 && gib(r->used_bytes) > r->c->gib) || r->idle > IDLE_SHARE;
}

/* "0.93", or "-" where there is no limit. */
static const char *over(char *text, size_t room, double value, double limit)
{
	if (limit > 0)
		snprintf(text, room, "%.3f", value / limit);
	else
		snprintf(text, room, "-");
	return text;
}

/* True when a bar was passed. */
static bool print_table(const std::vector<result> &all)
{
	bool missed = false;
	char a[16], b[16], c[16], d[16];

	printf("\nmeasured / limit; measured / planned (%.0f %% and %.0f %% apart at most)\n"
	       "%-12s |   step | memory | idle / %.0f %% | step planned | memory planned | "
	       "deterministic / default\n", 100 * STEP_OFF, 100 * BYTES_OFF, "",
	       100 * IDLE_SHARE);
	for (const result &r : all) {
		const result *other = r.c->without ? result_named(all, r.c->without) : NULL;

		printf("%-12s | %6s | %6s | %10s | %12.3f | %14.3f | %s%s\n", r.c->name,
		       over(a, sizeof(a), r.step_s, r.bar_s),
		       over(b, sizeof(b), gib(r.used_bytes), r.c->gib),
		       over(c, sizeof(c), r.idle, r.idle < 0 ? 0 : IDLE_SHARE),
		       r.step_s / r.plan.step_s,
		       r.used_bytes / (double)r.plan.bytes.total,
		       over(d, sizeof(d), r.step_s, other ? other->step_s : 0),
		       is_missed(&r) ? "  MISSED" : "");
		missed |= is_missed(&r);
	}
	return missed;
}

static void write_json(FILE *f, const std::vector<result> &all)
{
	char idle[16];

	fprintf(f, "[");
	for (const result &r : all) {
		snprintf(idle, sizeof(idle), r.idle < 0 ? "null" : "%.6f", r.idle);
		fprintf(f, "%s\n  {\"name\": \"%s\", \"tokens\": %lld, \"step_s\": %.6f, "
			"\"bar_s\": %.6f, \"sdpa_s\": %.6f, \"used_bytes\": %.0f, "
			"\"planned_bytes\": %lld, \"planned_s\": %.6f, \"bar_gib\": %.1f, \"idle\": %s, "
			"\"deterministic\": %s}", &r == &all[0] ? "" : ",", r.c->name,
			(long long)r.c->tokens, r.step_s, r.bar_s, r.sdpa_s, r.used_bytes,
			(long long)r.plan.bytes.total, r.plan.step_s, r.c->gib, idle,
			r.c->without ? "true" : "false");
	}
	fprintf(f, "\n]\n");
	fclose(f);
}

static int usage(const char *what)
{
	fprintf(stderr, "error: '%s' is not known\nusage: bench_step [--json FILE] "
		"[--profile] [--plan] [NAME...]\nnames:", what);
	for (const struct config &c : configs)
		fprintf(stderr, " %s", c.name);
	fprintf(stderr, "\n");
	return 2;
}

static const struct config *find(const char *name)
{
	for (const struct config &c : configs)
		if (!strcmp(c.name, name))
			return &c;
	return NULL;
}

int main(int argc, char **argv)
{
	bool profile = false, plan = false;
	std::vector<const struct config *> wanted;
	std::vector<result> results;
	FILE *json = NULL;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--profile"))
			profile = true;
		else if (!strcmp(argv[i], "--plan"))
			plan = true;
		else if (!strcmp(argv[i], "--json") && i + 1 < argc)
			json = fopen(argv[++i], "w");
		else if (find(argv[i]))
			wanted.push_back(find(argv[i]));
		else
			return usage(argv[i]);
	}
	if (wanted.empty())
		for (const struct config &c : configs)
			wanted.push_back(&c);
	for (const struct config *c : wanted) {
		struct result r = { c, plan_of(c), 0, 0, 0, 0, -1 };

		if (plan) {
			print_plan(c);
			continue;
		}
		measure(&r, profile);
		print_result(&r);
		results.push_back(r);
	}
	if (json)
		write_json(json, results);
	return !plan && print_table(results);
}

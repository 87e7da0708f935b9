/* bench_cpu_step.c: how near a training step on the CPU is to OpenBLAS, and how
 * its time grows with the sequence.
 *
 *   build/bench/bench_cpu_step
 *
 * FLOPs of a step: 6 a weight of a matrix and token (forward 2, backward 4), and
 * for full attention 12 T C / 2 a token and layer (two products forward, four
 * backward; half of the square is causal). The sgemm beside it is square, 2048.
 * Targets: the demo's step >= 0.35 of sgemm, attention alone >= 0.3; Lighthouse
 * (L 3, p 4, k = N/64, every layer) faster than full attention from 4 K on. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"
#include "train/model.h"

enum { REPEATS = 3 };

static struct lh_dev *dev;

static double sgemm_rate(void)
{
	enum { N = 2048 };
	float *a = lh_calloc(N * N, 4), *b = lh_calloc(N * N, 4), *c = lh_calloc(N * N, 4);
	double best = 0;

	for (int i = 0; i < N * N; i++)
		a[i] = b[i] = (float)(i % 7) - 3;
	for (int i = 0; i < 2 * REPEATS; i++) {
		int64_t start = lh_clock_us();

		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, N, N, N, 1, a, N, b, N,
			    0, c, N);
		best = fmax(best, 2.0 * N * N * N / (double)(lh_clock_us() - start) * 1e6);
	}
	free(a);
	free(b);
	free(c);
	return best;
}

static struct lh_job_model config(int64_t dim, int layers, int heads, int64_t ffn)
{
	return (struct lh_job_model){ .vocab = 257, .dim = dim, .layers = layers,
				      .heads = heads, .kv_heads = heads,
				      .head_dim = (int)(dim / heads), .ffn_dim = ffn,
				      .tied = true, .rope_theta = 10000,
				      .norm_eps = 1e-5, .init_std = 0.02 };
}

/* Best of REPEATS steps, seconds. */
static double step_s(const struct lh_job_model *c, int B, int64_t T,
		     const struct lh_attention_mode *mode)
{
	struct lh_adamw opt = { .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
				.clip = 1, .grad_scale = 1 };
	int32_t *ids = lh_calloc((size_t)(B * T + 1), 4);
	int repeats = T < 8192 ? REPEATS : 1; /* a long one takes long enough */
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;
	double best = INFINITY;
	float loss, norm;

	if (lh_model_new(&m, &lh_ops_cpu, dev, NULL, c, B, T, mode, 1, &err)) {
		fprintf(stderr, "error: %s\n", err.text);
		exit(1);
	}
	lh_model_init(m, 1);
	for (int64_t i = 0; i <= B * T; i++)
		ids[i] = (int32_t)(i * 7919 % 257);
	for (int i = 0; i <= repeats; i++) {
		int64_t start = lh_clock_us();

		opt.step = i + 1;
		lh_model_zero_grad(m);
		lh_model_forward_backward(m, mode, B, ids, ids + 1, NULL,
					  1 / (float)(B * T));
		if (lh_model_measure(m, &loss, &norm, &err))
			exit(1);
		lh_model_apply(m, &opt);
		if (i)
			best = fmin(best, (double)(lh_clock_us() - start) / 1e6);
	}
	lh_model_free(m);
	free(ids);
	return best;
}

static double step_flops(const struct lh_job_model *c, double tokens, double T)
{
	double weights = (double)lh_job_model_params(c);

	return tokens * (6 * weights + 12 * T * (double)c->dim / 2 * c->layers);
}

/* Full attention alone, forward and backward, of B x H heads. */
static double attention_rate(int64_t T)
{
	enum { H = 4, D = 64 };
	struct lh_sdpa s = { .heads = { .batch = 1, .tokens = T, .heads = H, .kv_heads = H,
					.head_dim = D, .q_row = H * D, .kv_row = H * D,
					.o_row = H * D },
			     .kv_tokens = T, .scale = 0.125f };
	size_t n = (size_t)T * H * D;
	float *x[9], *lse = lh_calloc((size_t)T * H, 4);
	double best = INFINITY;

	for (int i = 0; i < 9; i++) {
		x[i] = lh_calloc(n, 4);
		for (size_t j = 0; j < n; j++)
			x[i][j] = (float)(j * 31 % 17) / 17 - 0.5f;
	}
	for (int i = 0; i < REPEATS; i++) {
		int64_t start = lh_clock_us();

		lh_ops_cpu.sdpa(dev, &s, x[3], lse, x[0], x[1], x[2]);
		lh_ops_cpu.sdpa_bwd(dev, &s, x[4], x[5], x[6], x[7], x[0], x[1], x[2],
				    x[3], lse);
		best = fmin(best, (double)(lh_clock_us() - start) / 1e6);
	}
	for (int i = 0; i < 9; i++)
		free(x[i]);
	free(lse);
	/* 2 products forward, 5 backward, half of the square. */
	return 7.0 * (double)T * (double)T * D * H / best;
}

static void growth(void)
{
	struct lh_job_model c = config(256, 2, 4, 768);

	printf("\n%8s %12s %12s %8s\n", "tokens", "full ms", "lighthouse", "ratio");
	for (int64_t T = 1024; T <= 16384; T *= 2) {
		struct lh_attention_mode mode = {
			.attention = LH_ATTENTION_LIGHTHOUSE,
			.recompute = LH_RECOMPUTE_NONE,
			.geometry = { .tokens = T, .levels = 3, .pool = 4, .topk = T / 64,
				      .tile = (int)(T / 64 < 128 ? T / 64 : 128) } };
		double full = step_s(&c, 1, T, &lh_attention_full);
		double light = step_s(&c, 1, T, &mode);

		printf("%8lld %12.1f %12.1f %7.2fx%s\n", (long long)T, full * 1e3,
		       light * 1e3, full / light,
		       T >= 4096 ? "  target > 1" : "");
	}
}

int main(void)
{
	struct lh_job_model demo = config(256, 4, 4, 768);
	enum { B = 4, T = 1024 };
	double gemm, s, rate;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (lh_ops_cpu.open(&dev, 0, NULL))
		return 1;
	gemm = sgemm_rate();
	printf("%s\nsgemm 2048: %.1f GFLOP/s\n", lh_ops_cpu.describe(dev), gemm / 1e9);
	s = step_s(&demo, B, T, &lh_attention_full);
	rate = step_flops(&demo, B * T, T) / s;
	printf("step of the demo's model, %d x %d tokens: %.1f ms, %.1f GFLOP/s, "
	       "%.2f of sgemm  target >= 0.35\n", B, T, s * 1e3, rate / 1e9, rate / gemm);
	for (int64_t t = 1024; t <= 8192; t *= 2) {
		rate = attention_rate(t);
		printf("attention alone, %lld tokens, forward and backward: %.1f GFLOP/s, "
		       "%.2f of sgemm  target >= 0.3\n", (long long)t, rate / 1e9,
		       rate / gemm);
	}
	growth();
	lh_ops_cpu.close(dev);
	return 0;
}

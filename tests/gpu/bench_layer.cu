/* bench_layer.cu: what one Lighthouse layer costs on this GPU, beside its limits.
 *
 *   bench_layer [--json FILE] [N...]      N: 8192 ... 1048576 by default
 *
 * B = 1, H = 8, D = 128, L = 3, p = 4, m = 128, k = N / 128 (128 at least),
 * bf16, random data. Milliseconds are medians by CUDA events after warm-up; each
 * repetition has its own pair of events and nothing waits in between, so short
 * runs show the launch rate too. b = 8 N H D bytes / the copy bandwidth of this
 * run. The bars: forward <= inner SDPA(S) + 1.7 b + 0.06 ms, forward and
 * backward <= inner SDPA(S) + 3.4 b + 0.10 ms. "fixed": the same on a deterministic
 * device, where that takes at most FIXED_BYTES. "half": full attention of the two middle
 * quarters of the sequence's queries, what one of two GPUs that share it does, beside half
 * of the whole's. Exit 1 when a bar is passed. */
#include <algorithm>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#include "noise.cuh"

static const int H = 8, D = 128;
static const int64_t ROW = H * D;
static const int64_t FIXED_BYTES = (int64_t)24 << 30;

struct bench {
	struct lh_dev *dev;
	double copy_bytes_per_ms;
	FILE *json;
};

static void check(cudaError_t rc, const char *what)
{
	if (rc == cudaSuccess)
		return;
	fprintf(stderr, "error: %s: %s\n", what, cudaGetErrorString(rc));
	exit(2);
}

static void sync(const struct bench *b)
{
	struct lh_err err = LH_ERR_INIT;

	if (!lh_ops_cuda.sync(b->dev, &err))
		return;
	fprintf(stderr, "error: %s\n", err.text);
	exit(2);
}

static void *device(const struct bench *b, int64_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	void *p;

	if (lh_ops_cuda.alloc(b->dev, &p, (size_t)bytes, &err)) {
		fprintf(stderr, "error: %s\n", err.text);
		exit(2);
	}
	return p;
}

static lh_act *noise(const struct bench *b, int64_t n, uint64_t seed)
{
	bf16 *x = (bf16 *)device(b, n * 2);

	noise_fill(b->dev, x, n, seed);
	return x;
}

/* Median milliseconds of `reps` calls after `warm` ones. */
template <typename F>
static double median_ms(const struct bench *b, int warm, int reps, F call)
{
	std::vector<cudaEvent_t> from(reps), to(reps);
	std::vector<float> ms(reps);

	for (int i = 0; i < warm; i++)
		call();
	sync(b);
	for (int i = 0; i < reps; i++) {
		check(cudaEventCreate(&from[i]), "event");
		check(cudaEventCreate(&to[i]), "event");
	}
	for (int i = 0; i < reps; i++) {
		cudaEventRecord(from[i], b->dev->stream);
		call();
		cudaEventRecord(to[i], b->dev->stream);
	}
	sync(b);
	for (int i = 0; i < reps; i++) {
		check(cudaEventElapsedTime(&ms[i], from[i], to[i]), "event time");
		cudaEventDestroy(from[i]);
		cudaEventDestroy(to[i]);
	}
	std::nth_element(ms.begin(), ms.begin() + reps / 2, ms.end());
	return ms[reps / 2];
}

static double copy_rate(const struct bench *b)
{
	const int64_t bytes = 1 << 30;
	lh_act *x = noise(b, bytes / 2, 1);
	void *y = device(b, bytes);
	double ms = median_ms(b, 3, 20, [&] {
		cudaMemcpyAsync(y, x, bytes, cudaMemcpyDeviceToDevice, b->dev->stream);
	});

	lh_ops_cuda.free(b->dev, x);
	lh_ops_cuda.free(b->dev, y);
	return 2.0 * (double)bytes / ms;
}

struct layer {
	struct lh_lighthouse g;
	struct lh_heads h;
	struct lh_sdpa inner, full;
	struct lh_rope rope;
	int64_t N, S, P;
	lh_act *q, *k, *v, *o, *dout, *dq, *dk, *dv;
	lh_act *qs, *ks, *vs, *os, *dqs, *dks, *dvs, *dos;
	float *sq, *sk, *lse, *full_lse;
	int32_t *index, *map;
	void *scratch;
	std::vector<void *> all;
};

static void *keep(struct layer *y, void *p)
{
	y->all.push_back(p);
	return p;
}

static void layer_init(const struct bench *b, struct layer *y, int64_t N)
{
	int64_t k = N / 128 > 128 ? N / 128 : 128;
	struct lh_err err = LH_ERR_INIT;
	lh_act **rows[] = { &y->q, &y->k, &y->v, &y->dout };
	lh_act **grads[] = { &y->o, &y->dq, &y->dk, &y->dv };
	lh_act **subs[] = { &y->qs, &y->ks, &y->vs, &y->os, &y->dqs, &y->dks, &y->dvs,
			    &y->dos };
	std::vector<float> table(N * D / 2);

	y->g = { };
	y->g.tokens = N, y->g.levels = 3, y->g.pool = 4, y->g.topk = k, y->g.tile = 128;
	if (lh_lighthouse_check(&y->g, NULL, &err)) {
		fprintf(stderr, "error: %s\nhint: %s\n", err.text, err.hint);
		exit(2);
	}
	y->N = N, y->S = lh_lighthouse_selected(&y->g), y->P = lh_lighthouse_pyramid(&y->g);
	y->h = { 1, N, H, H, D, ROW, ROW, ROW, nullptr, nullptr };
	y->full = { y->h, N, 0.08838834764f, NULL, NULL };
	y->inner = y->full;
	y->inner.heads.tokens = y->inner.kv_tokens = y->S;
	for (int i = 0; i < 4; i++) {
		*rows[i] = (lh_act *)keep(y, noise(b, N * ROW, (uint64_t)i + 2));
		*grads[i] = (lh_act *)keep(y, device(b, N * ROW * 2));
	}
	for (int i = 0; i < 8; i++)
		*subs[i] = (lh_act *)keep(y, device(b, y->S * ROW * 2));
	y->sq = (float *)keep(y, device(b, H * y->P * 4));
	y->sk = (float *)keep(y, device(b, H * y->P * 4));
	y->lse = (float *)keep(y, device(b, H * y->S * 4));
	y->full_lse = (float *)keep(y, device(b, H * N * 4));
	y->index = (int32_t *)keep(y, device(b, H * y->S * 4));
	y->map = (int32_t *)keep(y, device(b, H * y->P * 4));
	y->scratch = keep(y, device(b, (int64_t)lh_sizes_cuda.score_bytes(
					       &y->g, &y->h)));
	for (int64_t t = 0; t < N; t++)
		for (int d = 0; d < D / 2; d++)
			table[t * (D / 2) + d] =
				(float)cos((double)t * pow(10000, -d / 64.0));
	y->rope.cos = (float *)keep(y, device(b, N * D / 2 * 4));
	lh_ops_cuda.put(b->dev, (void *)y->rope.cos, table.data(), table.size() * 4);
	for (float &x : table)
		x = sqrtf(1 - x * x);
	y->rope.sin = (float *)keep(y, device(b, N * D / 2 * 4));
	lh_ops_cuda.put(b->dev, (void *)y->rope.sin, table.data(), table.size() * 4);
}

/* ---- stages ---------------------------------------------------------------- */

enum { SCORE, SELECT, MAP, GATHER, SDPA, SCATTER, MAP2, SCATTER_BWD, SDPA_BWD, GATHER_BWD,
       STAGES };
static const char *const stage_names[] = { "score", "select", "map", "gather", "sdpa",
					   "scatter", "map", "scatter_bwd", "sdpa_bwd",
					   "gather_bwd" };

static void stage(const struct bench *b, const struct layer *y, int s,
		  const struct lh_rope *r)
{
	const struct lh_ops *o = &lh_ops_cuda;
	struct lh_dev *dev = b->dev;

	switch (s) {
	case SCORE:
		o->lighthouse_score(dev, &y->g, &y->h, y->sq, y->sk, y->q, y->k, y->v, r,
				    y->scratch);
		break;
	case SELECT:
		o->lighthouse_select(dev, &y->g, &y->h, y->index, y->sq, y->sk);
		break;
	case MAP:
	case MAP2:
		o->lighthouse_map(dev, &y->g, H, y->map, y->index);
		break;
	case GATHER:
		o->lighthouse_gather(dev, &y->g, &y->h, y->qs, y->ks, y->vs, y->q, y->k,
				     y->v, r, y->index, y->scratch);
		break;
	case SDPA:
		o->sdpa(dev, &y->inner, y->os, y->lse, y->qs, y->ks, y->vs);
		break;
	case SCATTER:
		o->lighthouse_scatter(dev, &y->g, &y->h, y->o, y->os, y->map);
		break;
	case SCATTER_BWD:
		o->lighthouse_scatter_bwd(dev, &y->g, &y->h, y->dos, y->dout, y->index);
		break;
	case SDPA_BWD:
		o->sdpa_bwd(dev, &y->inner, y->dqs, y->dks, y->dvs, y->dos, y->qs, y->ks,
			    y->vs, y->os, y->lse);
		break;
	case GATHER_BWD:
		o->lighthouse_gather_bwd(dev, &y->g, &y->h, y->dq, y->dk, y->dv, y->dqs,
					 y->dks, y->dvs, r, y->map);
		break;
	}
}

static void stages(const struct bench *b, const struct layer *y, int from, int to,
		   const struct lh_rope *r)
{
	for (int s = from; s < to; s++)
		stage(b, y, s, r);
}

struct times { /* milliseconds */
	double copy_unit;             /* b */
	double fwd, both, inner_fwd, inner_both;
	double rope_fwd, rope_both, full_fwd, full_both;
	double fixed_both, fixed_full_both; /* 0: not measured */
	double half_both;
	double stage[STAGES];
};

/* SDPA forward and backward of all tokens. */
static void full_attention(const struct bench *b, const struct layer *y)
{
	const struct lh_ops *o = &lh_ops_cuda;

	o->sdpa(b->dev, &y->full, y->o, y->full_lse, y->q, y->k, y->v);
	o->sdpa_bwd(b->dev, &y->full, y->dq, y->dk, y->dv, y->dout, y->q, y->k, y->v, y->o,
		    y->full_lse);
}

/* The same of its second and third quarter, each with the keys up to its end. */
static void half_attention(const struct bench *b, const struct layer *y)
{
	const struct lh_ops *o = &lh_ops_cuda;
	int64_t n = y->N / 4;

	for (int i = 1; i <= 2; i++) {
		int64_t at = i * n * ROW;
		struct lh_sdpa s = y->full;
		float *lse = y->full_lse + i * n * H;
		bf16 *q = (bf16 *)y->q + at, *out = (bf16 *)y->o + at;

		s.heads.tokens = n;
		s.kv_tokens = (i + 1) * n;
		o->sdpa(b->dev, &s, out, lse, q, y->k, y->v);
		o->sdpa_bwd(b->dev, &s, (bf16 *)y->dq + at, y->dk, y->dv,
			    (bf16 *)y->dout + at, q, y->k, y->v, out, lse);
	}
}

/* Whether a deterministic backward's memory is to be had. */
static bool fits_fixed(const struct lh_sdpa *s)
{
	return (int64_t)lh_sizes_cuda.sdpa_bytes(s, true, true) <= FIXED_BYTES;
}

/* On a device of its own, which holds that memory for so long only. */
static void measure_fixed(const struct bench *b, const struct layer *y, int reps,
			  int full_reps, struct times *t)
{
	struct lh_err err = LH_ERR_INIT;
	struct bench fixed = *b;

	if (!fits_fixed(&y->inner))
		return;
	if (lh_ops_cuda.open(&fixed.dev, 0, &err)) {
		fprintf(stderr, "error: %s\nhint: %s\n", err.text, err.hint);
		exit(2);
	}
	lh_ops_cuda.set_deterministic(fixed.dev);
	t->fixed_both = median_ms(&fixed, 5, reps,
				  [&] { stages(&fixed, y, 0, STAGES, NULL); });
	if (fits_fixed(&y->full))
		t->fixed_full_both = median_ms(&fixed, 1, full_reps,
					       [&] { full_attention(&fixed, y); });
	lh_ops_cuda.close(fixed.dev);
}

static struct times measure(const struct bench *b, const struct layer *y)
{
	int reps = y->N <= 131072 ? 50 : y->N <= 524288 ? 15 : 5;
	int full_reps = y->N <= 32768 ? 20 : y->N <= 98304 ? 5 : 1;
	const struct lh_ops *o = &lh_ops_cuda;
	struct times t = { };

	t.copy_unit = 8.0 * (double)(y->N * ROW) / b->copy_bytes_per_ms;
	stages(b, y, 0, STAGES, NULL); /* fills every buffer */
	t.fwd = median_ms(b, 5, reps, [&] { stages(b, y, 0, MAP2, NULL); });
	t.both = median_ms(b, 5, reps, [&] { stages(b, y, 0, STAGES, NULL); });
	t.inner_fwd = median_ms(b, 5, reps, [&] { stage(b, y, SDPA, NULL); });
	t.inner_both = median_ms(b, 5, reps, [&] {
		stage(b, y, SDPA, NULL);
		stage(b, y, SDPA_BWD, NULL);
	});
	t.rope_fwd = median_ms(b, 5, reps, [&] { stages(b, y, 0, MAP2, &y->rope); });
	t.rope_both = median_ms(b, 5, reps, [&] { stages(b, y, 0, STAGES, &y->rope); });
	for (int s = 0; s < STAGES; s++)
		t.stage[s] = median_ms(b, 5, reps, [&] { stage(b, y, s, NULL); });
	t.full_fwd = median_ms(b, 1, full_reps, [&] {
		o->sdpa(b->dev, &y->full, y->o, y->full_lse, y->q, y->k, y->v);
	});
	t.full_both = median_ms(b, 1, full_reps, [&] { full_attention(b, y); });
	t.half_both = median_ms(b, 1, full_reps, [&] { half_attention(b, y); });
	measure_fixed(b, y, reps, full_reps, &t);
	return t;
}

struct row { /* of the closing table */
	int64_t N;
	double fwd, both, speedup, fixed, fixed_full, half;
};
static std::vector<row> rows;

static void print_rows(void)
{
	printf("\nmeasured / limit; deterministic / default (0: not measured)\n"
	       "  tokens | forward | forward and backward | x SDPA | layer | full attention | "
	       "half of it\n");
	for (const row &r : rows)
		printf("%8lld | %7.2f | %20.2f | %6.1f | %5.2f | %14.2f | %10.3f%s\n",
		       (long long)r.N, r.fwd, r.both, r.speedup, r.fixed, r.fixed_full, r.half,
		       r.fwd > 1 || r.both > 1 ? "  MISSED" : "");
}

static int report(const struct bench *b, const struct layer *y, const struct times *t,
		  bool first)
{
	double fwd = t->inner_fwd + 1.7 * t->copy_unit + 0.06;
	double both = t->inner_both + 3.4 * t->copy_unit + 0.10;

	rows.push_back({ y->N, t->fwd / fwd, t->both / both, t->full_both / t->both,
			 t->fixed_both / t->both, t->fixed_full_both / t->full_both,
			 t->half_both / t->full_both * 2 });

	printf("%8lld %6lld | fwd %8.3f limit %8.3f %5.2f | f+b %8.3f limit %8.3f %5.2f | "
	       "inner %8.3f %8.3f | rope %8.3f %8.3f | full %9.3f %9.3f x%.1f | "
	       "fixed %8.3f full %9.3f | half %9.3f\n",
	       (long long)y->N, (long long)y->S, t->fwd, fwd, t->fwd / fwd, t->both, both,
	       t->both / both, t->inner_fwd, t->inner_both, t->rope_fwd, t->rope_both,
	       t->full_fwd, t->full_both, t->full_both / t->both, t->fixed_both,
	       t->fixed_full_both, t->half_both);
	printf("         b %.4f ms |", t->copy_unit);
	for (int s = 0; s < STAGES; s++)
		printf(" %s %.4f", stage_names[s], t->stage[s]);
	printf("\n");
	fflush(stdout);
	if (!b->json)
		return t->fwd > fwd || t->both > both;
	fprintf(b->json,
		"%s\n  {\"tokens\": %lld, \"selected\": %lld, \"copy_unit_ms\": %.6f,"
		" \"forward_ms\": %.6f, \"forward_limit_ms\": %.6f,"
		" \"forward_backward_ms\": %.6f, \"forward_backward_limit_ms\": %.6f,"
		" \"inner_forward_ms\": %.6f, \"inner_forward_backward_ms\": %.6f,"
		" \"rope_forward_ms\": %.6f, \"rope_forward_backward_ms\": %.6f,"
		" \"full_forward_ms\": %.6f, \"full_forward_backward_ms\": %.6f,"
		" \"fixed_forward_backward_ms\": %.6f,"
		" \"fixed_full_forward_backward_ms\": %.6f,"
		" \"half_forward_backward_ms\": %.6f,"
		" \"stages_ms\": [", first ? "" : ",", (long long)y->N, (long long)y->S,
		t->copy_unit, t->fwd, fwd, t->both, both, t->inner_fwd, t->inner_both,
		t->rope_fwd, t->rope_both, t->full_fwd, t->full_both, t->fixed_both,
		t->fixed_full_both, t->half_both);
	for (int s = 0; s < STAGES; s++)
		fprintf(b->json, "%s[\"%s\", %.6f]", s ? ", " : "", stage_names[s],
			t->stage[s]);
	fprintf(b->json, "]}");
	return t->fwd > fwd || t->both > both;
}

static int bench_n(const struct bench *b, int64_t N, bool first)
{
	struct layer y = { };
	struct times t;
	int rc;

	layer_init(b, &y, N);
	t = measure(b, &y);
	rc = report(b, &y, &t, first);
	sync(b);
	for (void *p : y.all)
		lh_ops_cuda.free(b->dev, p);
	return rc;
}

int main(int argc, char **argv)
{
	std::vector<int64_t> lengths;
	struct lh_err err = LH_ERR_INIT;
	struct bench b = { };
	int passed = 0;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json") && i + 1 < argc) {
			b.json = fopen(argv[++i], "w");
			if (!b.json) {
				perror(argv[i]);
				return 2;
			}
		} else {
			lengths.push_back(atoll(argv[i]));
		}
	}
	if (lengths.empty())
		lengths = { 8192, 32768, 98304, 262144, 524288, 1048576 };
	if (lh_ops_cuda.open(&b.dev, 0, &err)) {
		fprintf(stderr, "error: %s\nhint: %s\n", err.text, err.hint);
		return 2;
	}
	printf("%s\n", lh_ops_cuda.describe(b.dev));
	b.copy_bytes_per_ms = copy_rate(&b);
	printf("copy %.3f TB/s (read + write); milliseconds, measured / limit\n",
	       b.copy_bytes_per_ms / 1e9);
	if (b.json)
		fprintf(b.json, "{\"device\": \"%s\", \"copy_bytes_per_s\": %.0f,"
			" \"layers\": [", lh_ops_cuda.describe(b.dev),
			b.copy_bytes_per_ms * 1e3);
	for (size_t i = 0; i < lengths.size(); i++)
		passed |= bench_n(&b, lengths[i], !i);
	print_rows();
	if (b.json) {
		fprintf(b.json, "\n]}\n");
		fclose(b.json);
	}
	lh_ops_cuda.close(b.dev);
	return passed;
}

/* large.cu: a million tokens: offsets past 2^31 elements.
 *
 * 16 heads of 128 in packed rows of q, k, v: 6.4e9 elements. One head of every
 * Lighthouse step must come out as that head alone in tensors of its own; and so
 * must the first and last head of both pieces that SDPA of all heads, over all
 * tokens, goes backward in. Needs about 65 GiB and a minute. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#include "noise.cuh"

static const int H = 16, D = 128, AT = 15;
static const int64_t N = 1 << 20, ROW = 3 * H * D;
static const float SCALE = 0.0883883476f; /* 1 / sqrt(D) */

static struct lh_dev *dev;
static int failed;

static void die(const struct lh_err *err)
{
	fprintf(stderr, "error: %s\n", err->text);
	exit(2);
}

static void *device(int64_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	void *p;

	if (lh_ops_cuda.alloc(dev, &p, (size_t)bytes, &err))
		die(&err);
	return p;
}

/* Rows of `width` bytes out of rows of `pitch`, as one block. */
static void *cut(const void *from, int64_t rows, int64_t width, int64_t pitch)
{
	void *to = device(rows * width);

	cudaMemcpy2DAsync(to, width, from, pitch, width, rows, cudaMemcpyDeviceToDevice,
			  dev->stream);
	return to;
}

/* The rows of one head out of wider ones, in place. */
static void copy_in(void *to, const bf16 *from, int64_t row)
{
	cudaMemcpy2DAsync(to, D * 2, from, row * 2, D * 2, N, cudaMemcpyDeviceToDevice,
			  dev->stream);
}

/* The same bits, or (limit > 0, bf16) |x - y| / |y| below it. Takes both. */
static void same(const char *what, void *x, void *y, int64_t bytes, double limit = 0)
{
	std::vector<uint16_t> a(bytes / 2), b(bytes / 2);
	struct lh_err err = LH_ERR_INIT;
	double diff = 0, norm = 0;
	int64_t differ = 0;
	bool bad;

	if (lh_ops_cuda.fetch(dev, a.data(), x, bytes, &err) ||
	    lh_ops_cuda.fetch(dev, b.data(), y, bytes, &err))
		die(&err);
	for (int64_t i = 0; i < bytes / 2; i++) {
		uint32_t u = (uint32_t)a[i] << 16, v = (uint32_t)b[i] << 16;
		float f, g;

		differ += u != v;
		memcpy(&f, &u, 4), memcpy(&g, &v, 4);
		diff += (double)(f - g) * (f - g);
		norm += (double)g * g;
	}
	diff = sqrt(diff / norm);
	bad = limit ? !(diff <= limit) : differ != 0;
	if (limit)
		printf("%-14s relative difference %.2e %s\n", what, diff, bad ? "FAILED" : "");
	else
		printf("%-14s %lld of %lld words differ %s\n", what, (long long)differ,
		       (long long)bytes / 2, bad ? "FAILED" : "");
	failed += bad;
	lh_ops_cuda.free(dev, x);
	lh_ops_cuda.free(dev, y);
}

struct side { /* all heads packed, or one alone */
	struct lh_heads h;
	struct lh_lighthouse g;
	int64_t S, P;
	bf16 *q, *k, *v, *dq, *dk, *dv, *o, *dout;
	bf16 *qs, *ks, *vs, *dos;
	float *sq, *sk;
	int32_t *index, *map;
	void *scratch;
};

static void run(struct side *s)
{
	const struct lh_ops *ops = &lh_ops_cuda;
	int64_t heads = s->h.heads, sub = s->S * heads * D * 2;

	s->sq = (float *)device(heads * s->P * 4);
	s->sk = (float *)device(heads * s->P * 4);
	s->index = (int32_t *)device(heads * s->S * 4);
	s->map = (int32_t *)device(heads * s->P * 4);
	s->scratch = device((int64_t)ops->sizes->score_bytes(&s->g, &s->h));
	s->qs = (bf16 *)device(sub), s->ks = (bf16 *)device(sub);
	s->vs = (bf16 *)device(sub), s->dos = (bf16 *)device(sub);
	ops->lighthouse_score(dev, &s->g, &s->h, s->sq, s->sk, s->q, s->k, s->v, NULL,
			      s->scratch);
	ops->lighthouse_select(dev, &s->g, &s->h, s->index, s->sq, s->sk);
	ops->lighthouse_map(dev, &s->g, heads, s->map, s->index);
	ops->lighthouse_gather(dev, &s->g, &s->h, s->qs, s->ks, s->vs, s->q, s->k, s->v,
			       NULL, s->index, s->scratch);
	ops->lighthouse_scatter(dev, &s->g, &s->h, s->o, s->qs, s->map);
	ops->lighthouse_scatter_bwd(dev, &s->g, &s->h, s->dos, s->dout, s->index);
	ops->lighthouse_gather_bwd(dev, &s->g, &s->h, s->dq, s->dk, s->dv, s->qs, s->ks,
				   s->vs, NULL, s->map);
}

static void lighthouse(struct side *all, struct side *one)
{
	int64_t sub = all->S * 2 * D, head = D * 2;

	run(all);
	run(one);
	same("score", cut(all->sq + AT * all->P, 1, all->P * 4, all->P * 4), one->sq,
	     all->P * 4);
	same("index", cut(all->index + AT * all->S, 1, all->S * 4, all->S * 4), one->index,
	     all->S * 4);
	same("gather", cut(all->vs + AT * D, all->S, head, H * head), one->vs, sub);
	same("scatter", cut(all->o + AT * D, N, head, H * head),
	     cut(one->o, N, head, head), N * head);
	same("scatter_bwd", cut(all->dos + AT * D, all->S, head, H * head), one->dos, sub);
	same("gather_bwd", cut(all->dv + AT * D, N, head, ROW * 2),
	     cut(one->dv, N, head, head), N * head);
	lh_ops_cuda.free(dev, all->qs);
	lh_ops_cuda.free(dev, all->ks);
}

/* One head by itself against its part of what all of them gave. */
static void compare_head(const struct side *all, const struct side *one, int head)
{
	struct lh_sdpa alone = { one->h, N, SCALE, NULL, NULL };
	float *lse = (float *)device(N * 4);
	int64_t bytes = N * D * 2, at = head * D;

	printf("head %d\n", head);
	copy_in(one->q, all->q + at, ROW);
	copy_in(one->k, all->k + at, ROW);
	copy_in(one->v, all->v + at, ROW);
	copy_in(one->dout, all->dout + at, H * D);
	lh_ops_cuda.sdpa(dev, &alone, one->o, lse, one->q, one->k, one->v);
	lh_ops_cuda.sdpa_bwd(dev, &alone, one->dq, one->dk, one->dv, one->dout, one->q,
			     one->k, one->v, one->o, lse);
	same("sdpa", cut(all->o + at, N, D * 2, H * D * 2), cut(one->o, N, D * 2, D * 2),
	     bytes);
	same("sdpa_bwd dq", cut(all->dq + at, N, D * 2, ROW * 2),
	     cut(one->dq, N, D * 2, D * 2), bytes, 1e-2); /* summed in no fixed order */
	same("sdpa_bwd dk", cut(all->dk + at, N, D * 2, ROW * 2),
	     cut(one->dk, N, D * 2, D * 2), bytes);
	same("sdpa_bwd dv", cut(all->dv + at, N, D * 2, ROW * 2),
	     cut(one->dv, N, D * 2, D * 2), bytes);
	lh_ops_cuda.free(dev, lse);
}

/* All heads in packed rows: forward whole, backward in two pieces of eight. */
static void sdpa(const struct side *all, const struct side *one)
{
	struct lh_sdpa s = { all->h, N, SCALE, NULL, NULL };
	int half = lh_cuda_sdpa_piece(&s, false).heads.heads;
	float *lse = (float *)device(N * H * 4);

	if (half != H / 2) {
		printf("pieces of %d heads FAILED\n", half);
		failed++;
	}
	lh_ops_cuda.sdpa(dev, &s, all->o, lse, all->q, all->k, all->v);
	lh_ops_cuda.sdpa_bwd(dev, &s, all->dq, all->dk, all->dv, all->dout, all->q, all->k,
			     all->v, all->o, lse);
	lh_ops_cuda.free(dev, lse);
	for (int head : { 0, half - 1, half, H - 1 })
		compare_head(all, one, head);
}

int main(void)
{
	struct lh_err err = LH_ERR_INIT;
	struct side all = { }, one = { };

	if (lh_ops_cuda.open(&dev, 0, &err))
		die(&err);
	all.g.tokens = N, all.g.levels = 3, all.g.pool = 4, all.g.topk = 8192;
	all.g.tile = 128;
	one.g = all.g;
	all.S = one.S = lh_lighthouse_selected(&all.g);
	all.P = one.P = lh_lighthouse_pyramid(&all.g);
	all.h = { 1, N, H, H, D, ROW, ROW, H * D, nullptr, nullptr };
	one.h = { 1, N, 1, 1, D, D, D, D, nullptr, nullptr };
	all.q = (bf16 *)device(N * ROW * 2), all.dq = (bf16 *)device(N * ROW * 2);
	all.k = all.q + H * D, all.v = all.k + H * D;
	all.dk = all.dq + H * D, all.dv = all.dk + H * D;
	all.o = (bf16 *)device(N * H * D * 2), all.dout = (bf16 *)device(N * H * D * 2);
	noise_fill(dev, all.dout, N * H * D, 2);
	noise_fill(dev, all.q, N * ROW, 1);
	one.q = (bf16 *)cut(all.q + AT * D, N, D * 2, ROW * 2);
	one.k = (bf16 *)cut(all.k + AT * D, N, D * 2, ROW * 2);
	one.v = (bf16 *)cut(all.v + AT * D, N, D * 2, ROW * 2);
	one.dout = (bf16 *)cut(all.dout + AT * D, N, D * 2, H * D * 2);
	one.dq = (bf16 *)device(N * D * 2), one.dk = (bf16 *)device(N * D * 2);
	one.dv = (bf16 *)device(N * D * 2), one.o = (bf16 *)device(N * D * 2);
	lighthouse(&all, &one);
	sdpa(&all, &one);
	lh_ops_cuda.close(dev);
	printf("%s\n", failed ? "FAILED" : "all the same");
	return failed != 0;
}

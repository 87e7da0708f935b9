/* ops_attention.c: cases of SDPA and of the steps of Lighthouse attention. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

/* ---- attention ------------------------------------------------------------- */

static struct lh_sdpa sdpa_of(const struct test *t, void **p)
{
	return (struct lh_sdpa){ .heads = ops_heads(t, p), .kv_tokens = t->d[5],
				 .scale = 1 / sqrtf((float)t->h.head_dim) };
}

static void call_sdpa(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	struct lh_sdpa s = sdpa_of(t, p);

	o->sdpa(dev, &s, p[0], p[1], p[2], p[3], p[4]);
}

static void call_sdpa_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			  const struct test *t)
{
	struct lh_sdpa s = sdpa_of(t, p);

	o->sdpa_bwd(dev, &s, p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]);
}

/* One shape, forward and backward; o and lse of the backward are the CPU's own
 * for the same inputs. most: tokens of a document; 0: there are none. */
static void sdpa_case(const struct side *gpus, const int64_t *d, int most)
{
	struct test f = { .d = { d[0], d[1], d[2], d[3], d[4], d[5] },
			  .call = call_sdpa };
	struct test b = f;
	int64_t q, kv, o, stats = d[0] * d[2] * d[1];
	int pad = d[4] % 8 ? 2 : 16; /* rows have strides of their own */
	void *in[ARGS], *out[ARGS];
	char text[80];

	f.h = (struct lh_heads){ .batch = (int)d[0], .tokens = d[1], .heads = (int)d[2],
				 .kv_heads = (int)d[3], .head_dim = (int)d[4],
				 .q_row = d[2] * d[4] + pad, .kv_row = d[3] * d[4] + pad,
				 .o_row = d[2] * d[4] };
	b.h = f.h;
	q = d[0] * d[1] * f.h.q_row;
	kv = d[0] * d[5] * f.h.kv_row;
	o = d[0] * d[1] * f.h.o_row;
	ops_add(&f, ACT, o, true);
	ops_add(&f, F32, stats, true);
	ops_add(&f, ACT, q, false)->spread = 2;
	ops_add(&f, ACT, kv, false)->spread = 2;
	ops_add(&f, ACT, kv, false);
	ops_add_starts(&f, (int)d[0], d[1], 1, most);
	ops_name(&f, text, sizeof(text), most ? "sdpa of documents" : "sdpa");
	if (!ops_wanted("sdpa_bwd") && !ops_wanted(text))
		return;
	for (int i = 0; i < f.count; i++)
		in[i] = ops_values(&f.arg[i], true);
	ops_once(&ops_cpu, &f, in, out);
	ops_run(&f, gpus);
	b.call = call_sdpa_bwd;
	b.roams = true;
	ops_add(&b, ACT, q, true);
	ops_add(&b, ACT, kv, true);
	ops_add(&b, ACT, kv, true);
	ops_add(&b, ACT, o, false);
	ops_add(&b, ACT, q, false)->given = in[2];
	ops_add(&b, ACT, kv, false)->given = in[3];
	ops_add(&b, ACT, kv, false)->given = in[4];
	ops_add(&b, ACT, o, false)->given = out[0];
	ops_add(&b, F32, stats, false)->given = out[1];
	ops_add_starts(&b, (int)d[0], d[1], 1, most);
	ops_name(&b, text, sizeof(text), most ? "sdpa_bwd of documents" : "sdpa_bwd");
	ops_run(&b, gpus);
	free(in[0]);
	free(in[1]);
	for (int i = 2; i < f.count; i++)
		free(out[i]);
	free(most ? in[5] : NULL);
}

static void sdpas(const struct side *gpus)
{
	/* B, T, H, G, D, keys */
	static const int64_t shapes[][6] = {
		{ 2, 37, 4, 2, 16, 37 },    { 1, 200, 2, 1, 64, 200 },
		{ 1, 256, 4, 2, 128, 256 }, { 2, 384, 2, 2, 64, 384 },
		{ 1, 130, 2, 2, 128, 300 }, { 1, 128, 2, 2, 64, 384 },
		{ 1, 1, 4, 2, 64, 77 },	    { 2, 19, 3, 3, 6, 21 },
		{ 1, 1024, 2, 2, 128, 1024 }, { 1, 150, 2, 1, 80, 150 },
		{ 2, 256, 2, 1, 256, 256 }, { 1, 200, 2, 2, 256, 330 },
		{ 2, 640, 6, 2, 64, 640 },  { 3, 257, 4, 1, 128, 257 },
		/* Pieces at the end of 2 to 16 of them: whole tiles; not, and their
		 * padding less, more and as much as the keys'. */
		{ 1, 256, 4, 2, 128, 1024 }, { 1, 640, 8, 2, 64, 10240 },
		{ 1, 1000, 2, 1, 64, 4000 }, { 1, 192, 2, 2, 128, 576 },
		{ 1, 200, 4, 1, 128, 3200 }, { 1, 320, 2, 2, 80, 640 },
		{ 1, 130, 4, 4, 64, 260 },
	};

	/* Documents shorter and longer than a tile; one or many to a bucket. */
	static const int64_t apart[][7] = {
		{ 2, 37, 4, 2, 16, 37, 9 },	  { 1, 256, 4, 2, 128, 256, 100 },
		{ 2, 384, 2, 2, 64, 384, 384 },	  { 3, 257, 4, 1, 128, 257, 40 },
		{ 1, 1024, 2, 2, 128, 1024, 700 }, { 2, 1500, 2, 1, 64, 1500, 5 },
		{ 2, 640, 6, 2, 64, 640, 2000 },  { 1, 9000, 2, 2, 64, 9000, 300 },
	};

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		sdpa_case(gpus, shapes[i], 0);
	for (size_t i = 0; i < sizeof(apart) / sizeof(apart[0]); i++)
		sdpa_case(gpus, apart[i], (int)apart[i][6]);
}

/* ---- Lighthouse ------------------------------------------------------------ */

static void call_score(const struct lh_ops *o, struct lh_dev *dev, void **p,
		       const struct test *t)
{
	struct lh_rope rope = { p[5], p[6] };
	struct lh_heads h = ops_heads(t, p);
	struct lh_err err = LH_ERR_INIT;
	void *scratch;

	if (o->alloc(dev, &scratch, o->sizes->score_bytes(&t->g, &h), &err))
		ops_die(&err);
	o->lighthouse_score(dev, &t->g, &h, p[0], p[1], p[2], p[3], p[4],
			    t->flag ? &rope : NULL, scratch);
	if (o->sync(dev, &err))
		ops_die(&err);
	o->free(dev, scratch);
}

static void call_select(const struct lh_ops *o, struct lh_dev *dev, void **p,
			const struct test *t)
{
	int64_t BH = (int64_t)t->h.batch * t->h.heads;
	struct lh_heads h = ops_heads(t, p);

	o->lighthouse_select(dev, &t->g, &h, p[0], p[2], p[3]);
	o->lighthouse_map(dev, &t->g, BH, p[1], p[0]);
}

/* With the rotation, the scorer runs first and leaves what it can. */
static void call_gather(const struct lh_ops *o, struct lh_dev *dev, void **p,
			const struct test *t)
{
	struct lh_rope rope = { p[7], p[8] }, *r = t->flag ? &rope : NULL;
	struct lh_heads h = ops_heads(t, p);
	struct lh_err err = LH_ERR_INIT;
	void *scratch = NULL;

	if (t->flag) {
		if (o->alloc(dev, &scratch,
			     o->sizes->score_bytes(&t->g, &h), &err))
			ops_die(&err);
		o->lighthouse_score(dev, &t->g, &h, p[9], p[10], p[3], p[4], p[5], r,
				    scratch);
	}
	o->lighthouse_gather(dev, &t->g, &h, p[0], p[1], p[2], p[3], p[4], p[5], r,
			     p[6], scratch);
	if (o->sync(dev, &err))
		ops_die(&err);
	o->free(dev, scratch);
}

static void call_gather_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			    const struct test *t)
{
	struct lh_rope rope = { p[7], p[8] };
	struct lh_heads h = ops_heads(t, p);

	o->lighthouse_gather_bwd(dev, &t->g, &h, p[0], p[1], p[2], p[3], p[4], p[5],
				 t->flag ? &rope : NULL, p[6]);
}

static void call_scatter(const struct lh_ops *o, struct lh_dev *dev, void **p,
			 const struct test *t)
{
	struct lh_heads h = ops_heads(t, p);

	o->lighthouse_scatter(dev, &t->g, &h, p[0], p[1], p[2]);
}

static void call_scatter_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			     const struct test *t)
{
	struct lh_heads h = ops_heads(t, p);

	o->lighthouse_scatter_bwd(dev, &t->g, &h, p[0], p[1], p[2]);
}

/* Scores with many ties, some infinities and NaN. */
static float *tied_scores(int64_t n)
{
	float *x = lh_calloc((size_t)n, 4);

	for (int64_t i = 0; i < n; i++) {
		x[i] = (float)(ops_noise() % 23) * 0.25f;
		if (ops_noise() % 97 == 0)
			x[i] = ops_noise() % 2 ? NAN : INFINITY;
	}
	return x;
}

struct shape { /* of a Lighthouse case */
	int64_t N;
	int levels, pool;
	int64_t topk;
	int tile, B, H, G, D;
	int most; /* coarsest windows of a document; 0: there are none */
};

struct sizes {
	int64_t q, kv, o, sub, scores, index;
};

static struct test shaped(const struct shape *s, struct sizes *z)
{
	struct test t = { .d = { s->N, s->levels, s->pool, s->topk, s->tile, s->H, s->G,
				 s->D } };
	struct lh_err err = LH_ERR_INIT;
	int pad = s->D % 16 ? 2 : 16;

	t.g = (struct lh_lighthouse){ .tokens = s->N, .levels = s->levels,
				      .pool = s->pool, .topk = s->topk,
				      .tile = s->tile, .dilation = 4 };
	t.h = (struct lh_heads){ .batch = s->B, .tokens = s->N, .heads = s->H,
				 .kv_heads = s->G, .head_dim = s->D,
				 .q_row = s->H * s->D + pad,
				 .kv_row = s->G * s->D + pad, .o_row = s->H * s->D };
	if (lh_lighthouse_check(&t.g, NULL, &err))
		ops_die(&err);
	z->q = s->B * s->N * t.h.q_row;
	z->kv = s->B * s->N * t.h.kv_row;
	z->o = s->B * s->N * t.h.o_row;
	z->index = (int64_t)s->B * s->H * lh_lighthouse_selected(&t.g);
	z->scores = (int64_t)s->B * s->H * lh_lighthouse_pyramid(&t.g);
	z->sub = z->index * s->D;
	return t;
}

/* Where documents begin, the last argument. */
static void add_starts(struct test *t, const struct shape *s)
{
	ops_add_starts(t, s->B, s->N, lh_lighthouse_window(&t->g, s->levels - 1), s->most);
}

static void name_case(struct test *t, const struct shape *s, const char *op)
{
	static char text[120];
	char all[60];

	snprintf(all, sizeof(all), "%s%s", op, s->most ? " of documents" : "");
	ops_name(t, text, sizeof(text), all);
}

/* Tokens up to which the CPU's attention does not take long. */
enum { DILATED_MAX = 2048 };

static void score_cases(const struct side *gpus, const struct shape *s)
{
	struct sizes z;

	for (int k = 0; k < 3; k++) { /* plain, rotated, dilated and rotated */
		struct test t = shaped(s, &z);

		if (k == 2 && (s->N > DILATED_MAX || s->N % t.g.dilation || s->most))
			continue;
		t.g.scorer = k == 2 ? LH_SCORER_DILATED : LH_SCORER_NORM;
		t.flag = k;
		t.call = call_score;
		ops_add(&t, F32, z.scores, true);
		ops_add(&t, F32, z.scores, true);
		ops_add(&t, ACT, z.q, false);
		ops_add(&t, ACT, z.kv, false);
		ops_add(&t, ACT, z.kv, false);
		ops_add_tables(&t, s->N, s->D);
		add_starts(&t, s);
		name_case(&t, s, k == 2 ? "dilated score" : "score");
		ops_run(&t, gpus);
	}
}

/* index and map of random scores, from the CPU. */
static void selection(const struct shape *s, struct test *like, int32_t **index,
		      int32_t **map, const struct sizes *z)
{
	int64_t BH = (int64_t)like->h.batch * like->h.heads;
	struct lh_heads h = like->h;
	float *sq = tied_scores(z->scores), *sk = tied_scores(z->scores);

	*index = lh_calloc((size_t)z->index, 4);
	*map = lh_calloc((size_t)z->scores, 4);
	add_starts(like, s);
	h.start = s->most ? like->arg[0].given : NULL;
	ops_cpu.ops->lighthouse_select(ops_cpu.dev, &like->g, &h, *index, sq, sk);
	ops_cpu.ops->lighthouse_map(ops_cpu.dev, &like->g, BH, *map, *index);
	free(like->arg[0].given);
	free(sq);
	free(sk);
}

static void *copy_of(const void *x, int64_t n)
{
	return memcpy(lh_alloc((size_t)n * 4), x, (size_t)n * 4);
}

static void gather_cases(const struct side *gpus, const struct shape *s,
			 const int32_t *index, const int32_t *map)
{
	struct sizes z;

	for (int k = 0; k < 2; k++) {
		struct test f = shaped(s, &z), b = shaped(s, &z);

		f.call = call_gather;
		b.call = call_gather_bwd;
		f.flag = b.flag = k;
		for (int i = 0; i < 3; i++)
			ops_add(&f, ACT, z.sub, true);
		ops_add(&f, ACT, z.q, false);
		ops_add(&f, ACT, z.kv, false);
		ops_add(&f, ACT, z.kv, false);
		ops_add(&f, I32, z.index, false)->given = copy_of(index, z.index);
		ops_add_tables(&f, s->N, s->D);
		ops_add(&f, F32, z.scores, true)->spread = 0;
		ops_add(&f, F32, z.scores, true)->spread = 0;
		add_starts(&f, s);
		name_case(&f, s, "gather");
		ops_run(&f, gpus);
		ops_add(&b, ACT, z.q, true);
		ops_add(&b, ACT, z.kv, true);
		ops_add(&b, ACT, z.kv, true);
		for (int i = 0; i < 3; i++)
			ops_add(&b, ACT, z.sub, false);
		ops_add(&b, I32, z.scores, false)->given = copy_of(map, z.scores);
		ops_add_tables(&b, s->N, s->D);
		add_starts(&b, s);
		name_case(&b, s, "gather_bwd");
		ops_run(&b, gpus);
	}
}

static void scatter_cases(const struct side *gpus, const struct shape *s,
			  const int32_t *index, const int32_t *map)
{
	struct sizes z;
	struct test f = shaped(s, &z), b = shaped(s, &z), c = shaped(s, &z);

	f.call = call_scatter;
	ops_add(&f, ACT, z.o, true);
	ops_add(&f, ACT, z.sub, false);
	ops_add(&f, I32, z.scores, false)->given = copy_of(map, z.scores);
	add_starts(&f, s);
	name_case(&f, s, "scatter");
	ops_run(&f, gpus);
	b.call = call_scatter_bwd;
	ops_add(&b, ACT, z.sub, true);
	ops_add(&b, ACT, z.o, false);
	ops_add(&b, I32, z.index, false)->given = copy_of(index, z.index);
	add_starts(&b, s);
	name_case(&b, s, "scatter_bwd");
	ops_run(&b, gpus);
	c.call = call_select;
	ops_add(&c, I32, z.index, true);
	ops_add(&c, I32, z.scores, true);
	ops_add(&c, F32, z.scores, false)->given = tied_scores(z.scores);
	ops_add(&c, F32, z.scores, false)->given = tied_scores(z.scores);
	add_starts(&c, s);
	name_case(&c, s, "select");
	ops_run(&c, gpus);
}

static void call_halo(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	o->lighthouse_halo(dev, &t->g, &t->h, p[0], p[1], p[2]);
}

static void call_halo_add(const struct lh_ops *o, struct lh_dev *dev, void **p,
			  const struct test *t)
{
	o->lighthouse_halo_add(dev, &t->g, &t->h, p[0], p[1]);
}

static void call_halo_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			  const struct test *t)
{
	o->lighthouse_halo_bwd(dev, &t->g, &t->h, p[0], p[1]);
}

static void call_halo_put(const struct lh_ops *o, struct lh_dev *dev, void **p,
			  const struct test *t)
{
	o->lighthouse_halo_put(dev, &t->g, &t->h, p[0], p[1], p[2]);
}

/* Rows of tokens are strided. */
static struct test halo_test(const struct shape *s, struct sizes *z)
{
	struct test t = shaped(s, z);

	t.h.o_row += 6;
	z->o = s->N * t.h.o_row;
	return t;
}

static void halo_cases(const struct side *gpus, const struct shape *s, const int32_t *map)
{
	struct sizes z;
	struct test f = halo_test(s, &z), a = f, b = f, p = f;
	int64_t n = (s->levels - 1) * (int64_t)s->H * s->D;

	if (s->B > 1 || s->most)
		return;
	f.call = call_halo;
	ops_add(&f, ACT, n, true);
	ops_add(&f, ACT, z.sub, false);
	ops_add(&f, I32, z.scores, false)->given = copy_of(map, z.scores);
	name_case(&f, s, "halo");
	ops_run(&f, gpus);
	a.call = call_halo_add;
	ops_add(&a, ACT, z.o, true);
	ops_add(&a, ACT, n, false);
	name_case(&a, s, "halo_add");
	ops_run(&a, gpus);
	b.call = call_halo_bwd;
	ops_add(&b, F32, n, true);
	ops_add(&b, ACT, z.o, false);
	name_case(&b, s, "halo_bwd");
	ops_run(&b, gpus);
	p.call = call_halo_put;
	ops_add(&p, ACT, z.sub, true);
	ops_add(&p, F32, n, false);
	ops_add(&p, I32, z.scores, false)->given = copy_of(map, z.scores);
	name_case(&p, s, "halo_put");
	ops_run(&p, gpus);
}

static void lighthouses(const struct side *gpus)
{
	static const struct shape shapes[] = {
		{ 256, 3, 4, 16, 8, 2, 2, 2, 64, 0 },   { 512, 3, 2, 64, 16, 1, 4, 2, 128, 0 },
		{ 243, 3, 3, 9 * 2, 2, 2, 2, 1, 6, 0 }, { 1024, 2, 8, 64, 32, 1, 2, 2, 32, 0 },
		{ 512, 5, 2, 16, 4, 1, 2, 2, 48, 0 },   { 2048, 4, 8, 4, 4, 1, 1, 1, 64, 0 },
		{ 4096, 3, 4, 128, 128, 1, 2, 1, 128, 0 }, { 500, 2, 5, 50, 10, 1, 3, 3, 16, 0 },
		{ 98304, 3, 4, 768, 128, 1, 1, 1, 16, 0 },
		/* Windows that 4 does not divide, where a row's lanes are vectors. */
		{ 243, 3, 3, 9 * 2, 2, 2, 2, 1, 64, 0 }, { 625, 3, 5, 10, 2, 1, 2, 2, 128, 0 },
		{ 686, 2, 7, 14, 2, 1, 4, 2, 64, 0 },    { 256, 3, 4, 16, 8, 1, 2, 1, 256, 0 },
		/* Residue classes of 300 tokens, padded. */
		{ 1200, 3, 2, 40, 8, 2, 4, 2, 64, 0 },
		/* A tile of the selection that shared memory does not hold. */
		{ 65536, 2, 2, 16384, 16384, 1, 2, 1, 16, 0 },
		/* Documents: shorter than a tile, longer, of odd pools. */
		{ 256, 3, 4, 16, 8, 2, 2, 2, 64, 3 },
		{ 512, 3, 2, 64, 16, 1, 4, 2, 128, 40 },
		{ 243, 3, 3, 9 * 2, 2, 2, 2, 1, 6, 4 },
		{ 243, 3, 3, 9 * 2, 2, 2, 2, 1, 64, 2 },
		{ 1024, 2, 8, 64, 32, 1, 2, 2, 32, 9 },
		{ 4096, 3, 4, 128, 128, 1, 2, 1, 128, 1 },
		{ 2048, 4, 8, 4, 4, 1, 1, 1, 64, 2 },
		{ 65536, 2, 2, 16384, 16384, 1, 2, 1, 16, 5000 },
		{ 98304, 3, 4, 768, 128, 1, 1, 1, 16, 300 },
	};

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct sizes z;
		struct test like = shaped(&shapes[i], &z);
		int32_t *index, *map;

		selection(&shapes[i], &like, &index, &map, &z);
		score_cases(gpus, &shapes[i]);
		gather_cases(gpus, &shapes[i], index, map);
		scatter_cases(gpus, &shapes[i], index, map);
		halo_cases(gpus, &shapes[i], map);
		free(index);
		free(map);
	}
}

void ops_attention_cases(const struct side *gpus)
{
	sdpas(gpus);
	lighthouses(gpus);
}

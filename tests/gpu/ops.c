/* ops.c: every op on the GPU against the CPU's, at odd shapes.
 *
 *   ops [FILTER]     runs the cases whose name contains FILTER
 *
 * A case is a list of arguments (inputs, outputs that start with known values)
 * and a call. The call runs once on the CPU in float32 and twice on the GPU, for
 * lh_ops_cuda_f32 and lh_ops_cuda; for bf16 the CPU gets the same rounded inputs.
 * Outputs are compared by |x - y| / |y| (integers: exactly), guard words on both
 * sides of every GPU tensor must survive, and the second run must give the same
 * bits as the first. Exit: 0 when all passed, 1 otherwise. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/ops.h"

enum { ARGS = 14, DIMS = 8, GUARD = 64 }; /* GUARD elements on each side */

enum kind { ACT, F32, I32 };

struct arg {
	enum kind kind;
	int64_t n;
	bool out;
	float spread, middle; /* floats: middle + spread * (-1 .. 1) */
	int64_t limit;        /* ids: 0 .. limit - 1 */
	void *given;          /* host values instead (owned), float or int32 */
};

struct test {
	const char *name;
	struct arg arg[ARGS];
	int count;
	int64_t d[DIMS];
	struct lh_heads h;
	struct lh_lighthouse g;
	bool flag;
	bool roams; /* the library sums in no fixed order: bits may differ */
	void (*call)(const struct lh_ops *o, struct lh_dev *dev, void **p,
		     const struct test *t);
};

struct side {
	const struct lh_ops *ops;
	struct lh_dev *dev;
};

static struct side cpu;
static const char *filter;
static int passed, failed;

static void die(const struct lh_err *err)
{
	fprintf(stderr, "error: %s\n", err->text);
	exit(2);
}

/* ---- values ---------------------------------------------------------------- */

static uint64_t state = 88172645463325252u;

static uint32_t noise(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32);
}

static float uniform(void) /* -1 .. 1 */
{
	return (float)((double)noise() / 2147483648.0 - 1);
}

static uint16_t to_bf16(float x)
{
	uint32_t u;

	memcpy(&u, &x, 4);
	if (isnan(x))
		return 0x7fc0;
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t x)
{
	uint32_t u = (uint32_t)x << 16;
	float f;

	memcpy(&f, &u, 4);
	return f;
}

/* Host values of an argument; activations rounded to bf16 when `half`. */
static void *values_of(const struct arg *a, bool half)
{
	float *x = lh_calloc((size_t)a->n + 1, 4);

	if (a->given) {
		memcpy(x, a->given, (size_t)a->n * 4);
	} else if (a->kind == I32) {
		for (int64_t i = 0; i < a->n; i++)
			((int32_t *)x)[i] = (int32_t)(noise() % (uint64_t)a->limit);
	} else {
		for (int64_t i = 0; i < a->n; i++)
			x[i] = a->middle + a->spread * uniform();
	}
	for (int64_t i = 0; half && a->kind == ACT && i < a->n; i++)
		x[i] = from_bf16(to_bf16(x[i]));
	return x;
}

static size_t element(const struct side *s, const struct arg *a)
{
	return a->kind == ACT ? lh_dtype_bytes(s->ops->sizes->act_type) : 4;
}

/* The argument in backend memory between guards; *p is its first element. */
static char *place(const struct side *s, const struct arg *a, const void *values, void **p)
{
	size_t e = element(s, a), bytes = e * (size_t)(a->n + 2 * GUARD);
	unsigned char *host = lh_alloc(bytes);
	struct lh_err err = LH_ERR_INIT;
	void *base;

	memset(host, 0x7b, bytes);
	if (e == 2)
		for (int64_t i = 0; i < a->n; i++) {
			uint16_t half = to_bf16(((const float *)values)[i]);

			memcpy(host + e * (size_t)(GUARD + i), &half, 2);
		}
	else
		memcpy(host + e * GUARD, values, e * (size_t)a->n);
	if (s->ops->alloc(s->dev, &base, bytes, &err))
		die(&err);
	s->ops->put(s->dev, base, host, bytes);
	free(host);
	*p = (char *)base + e * GUARD;
	return base;
}

/* Reads an argument back as 4-byte elements; false when a guard is damaged. */
static bool collect(const struct side *s, const struct arg *a, const void *base,
		    void *values)
{
	size_t e = element(s, a), bytes = e * (size_t)(a->n + 2 * GUARD);
	unsigned char *host = lh_alloc(bytes);
	struct lh_err err = LH_ERR_INIT;
	bool whole = true;

	if (s->ops->fetch(s->dev, host, base, bytes, &err))
		die(&err);
	for (size_t i = 0; i < e * GUARD; i++)
		whole &= host[i] == 0x7b && host[bytes - 1 - i] == 0x7b;
	if (e == 2)
		for (int64_t i = 0; i < a->n; i++) {
			uint16_t half;

			memcpy(&half, host + e * (size_t)(GUARD + i), 2);
			((float *)values)[i] = from_bf16(half);
		}
	else
		memcpy(values, host + e * GUARD, e * (size_t)a->n);
	free(host);
	return whole;
}

/* Runs a case; results (count) receive every argument. False: guards damaged. */
static bool run(const struct side *s, const struct test *t, void *const *values,
		void **results)
{
	char *base[ARGS];
	void *p[ARGS] = { NULL };
	bool whole = true;

	for (int i = 0; i < t->count; i++)
		base[i] = place(s, &t->arg[i], values[i], &p[i]);
	t->call(s->ops, s->dev, p, t);
	for (int i = 0; i < t->count; i++) {
		results[i] = lh_alloc((size_t)t->arg[i].n * 4 + 4);
		whole &= collect(s, &t->arg[i], base[i], results[i]);
		s->ops->free(s->dev, base[i]);
	}
	return whole;
}

/* |x - y| / |y|; integers: the share that differs; NaN where only one is. */
static double error_of(const struct arg *a, const void *got, const void *want)
{
	double diff = 0, norm = 0;

	for (int64_t i = 0; i < a->n; i++) {
		float x = ((const float *)got)[i], y = ((const float *)want)[i];

		if (a->kind == I32) {
			diff += ((const int32_t *)got)[i] != ((const int32_t *)want)[i];
			norm = 1;
		} else if (isfinite(x) || isfinite(y)) {
			diff += ((double)x - y) * ((double)x - y);
			norm += (double)y * y;
		}
	}
	return diff == 0 ? 0 : sqrt(diff / (norm > 0 ? norm : 1e-300));
}

static void check(const struct side *gpu, const struct test *t)
{
	bool half = gpu->ops->sizes->act_type == LH_BF16, whole, same = true, ok = true;
	void *in[ARGS], *want[ARGS], *got[ARGS], *again[ARGS];
	double bar = half ? 1e-2 : 1e-5, worst = 0;

	for (int i = 0; i < t->count; i++)
		in[i] = values_of(&t->arg[i], half);
	run(&cpu, t, in, want);
	whole = run(gpu, t, in, got);
	run(gpu, t, in, again);
	for (int i = 0; i < t->count; i++) {
		double e = error_of(&t->arg[i], got[i], want[i]);

		if (!t->arg[i].out) /* inputs stay as they were */
			e = memcmp(got[i], in[i], (size_t)t->arg[i].n * 4) ? 1 : 0;
		ok &= e <= (t->arg[i].kind == I32 ? 0 : bar);
		worst = e > worst || isnan(e) ? e : worst;
		same &= !memcmp(got[i], again[i], (size_t)t->arg[i].n * 4);
	}
	ok &= whole && (same || (half && t->roams));
	printf("%-9s %-44s %.1e%s%s%s\n", gpu->ops->name, t->name, worst,
	       whole ? "" : "  GUARDS DAMAGED", same ? "" : "  bits differ",
	       ok ? "" : "  FAILED");
	fflush(stdout);
	passed += ok;
	failed += !ok;
	for (int i = 0; i < t->count; i++) {
		free(in[i]);
		free(want[i]);
		free(got[i]);
		free(again[i]);
	}
}

/* On both GPU tables; given values die with the case. */
static void both(struct test *t, const struct side *gpus)
{
	if (!filter || strstr(t->name, filter))
		for (int i = 0; i < 2; i++)
			check(&gpus[i], t);
	for (int i = 0; i < t->count; i++)
		free(t->arg[i].given);
}

static struct arg *add(struct test *t, enum kind kind, int64_t n, bool out)
{
	struct arg *a = &t->arg[t->count++];

	LH_ASSERT(t->count <= ARGS);
	*a = (struct arg){ .kind = kind, .n = n, .out = out, .spread = 1, .limit = 1 };
	return a;
}

static void name(struct test *t, char *text, size_t size, const char *op)
{
	int n = snprintf(text, size, "%s", op);

	for (int i = 0; i < DIMS && t->d[i]; i++)
		n += snprintf(text + n, size - (size_t)n, " %" PRId64, t->d[i]);
	snprintf(text + n, size - (size_t)n, "%s", t->flag ? " +" : "");
	t->name = text;
}

/* ---- linear maps and layers ------------------------------------------------ */

static struct lh_linear linear_of(const struct test *t)
{
	return (struct lh_linear){ t->d[0], t->d[1], t->d[2] };
}

static void call_linear(const struct lh_ops *o, struct lh_dev *dev, void **p,
			const struct test *t)
{
	struct lh_linear s = linear_of(t);

	o->linear(dev, &s, p[0], p[1], p[2], t->d[3] ? p[t->d[3] == 1 ? 0 : 3] : NULL);
}

static void call_linear_dx(const struct lh_ops *o, struct lh_dev *dev, void **p,
			   const struct test *t)
{
	struct lh_linear s = linear_of(t);

	o->linear_dx(dev, &s, p[0], p[1], p[2]);
}

static void call_linear_dw(const struct lh_ops *o, struct lh_dev *dev, void **p,
			   const struct test *t)
{
	struct lh_linear s = linear_of(t);

	o->linear_dw(dev, &s, p[0], p[1], p[2]);
}

static void linears(const struct side *gpus)
{
	static const int64_t shapes[][3] = { { 37, 24, 40 }, { 64, 128, 64 },
					     { 5, 7, 9 }, { 1, 64, 257 },
					     { 300, 33, 65 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (int k = 0; k < 5; k++) {
			int64_t r = shapes[i][0], in = shapes[i][1], out = shapes[i][2];
			/* k < 3: nothing, y itself, another tensor is added. */
			struct test t = { .d = { r, in, out, k < 3 ? k : 0 } };

			add(&t, k < 4 ? ACT : F32,
			    k < 3 ? r * out : k < 4 ? r * in : out * in, true);
			add(&t, ACT, k < 3 ? r * in : r * out, false);
			add(&t, ACT, k < 4 ? out * in : r * in, false);
			if (k == 2)
				add(&t, ACT, r * out, false);
			t.call = k < 3 ? call_linear :
				 k < 4 ? call_linear_dx : call_linear_dw;
			name(&t, text, sizeof(text),
			     k < 3 ? "linear" : k < 4 ? "linear_dx" : "linear_dw");
			both(&t, gpus);
		}
}

static void call_rmsnorm(const struct lh_ops *o, struct lh_dev *dev, void **p,
			 const struct test *t)
{
	o->rmsnorm(dev, t->d[0], t->d[1], p[0], p[1], p[2], p[3], 1e-5f);
}

static void call_rmsnorm_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			     const struct test *t)
{
	o->rmsnorm_bwd(dev, t->d[0], t->d[1], p[0], p[1], p[2], p[3], p[4], p[5]);
}

static void norms(const struct side *gpus)
{
	static const int64_t shapes[][2] = { { 33, 1024 }, { 7, 130 }, { 5, 8200 },
					     { 9, 37 }, { 5000, 64 }, { 3, 2048 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		int64_t R = shapes[i][0], C = shapes[i][1];
		struct test f = { .d = { R, C }, .call = call_rmsnorm };
		struct test b = { .d = { R, C }, .call = call_rmsnorm_bwd };

		add(&f, ACT, R * C, true);
		add(&f, F32, R, true);
		add(&f, ACT, R * C, false);
		add(&f, ACT, C, false)->middle = 1;
		name(&f, text, sizeof(text), "rmsnorm");
		both(&f, gpus);
		add(&b, ACT, R * C, true);
		add(&b, F32, C, true);
		add(&b, ACT, R * C, false);
		add(&b, ACT, R * C, false);
		add(&b, ACT, C, false)->middle = 1;
		*add(&b, F32, R, false) = (struct arg){ .kind = F32, .n = R,
							.middle = 1.7f, .spread = 0.1f };
		name(&b, text, sizeof(text), "rmsnorm_bwd");
		both(&b, gpus);
	}
}

static void call_rope(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	struct lh_rope rope = { p[1], p[2] };

	o->rope(dev, (int)t->d[0], t->d[1], (int)t->d[2], (int)t->d[3], p[0], t->d[4],
		&rope, t->flag);
}

/* Tables of T positions: a rotation at each. */
static void add_tables(struct test *t, int64_t T, int D)
{
	int64_t n = T * (D / 2);
	float *cosines = lh_calloc((size_t)n, 4), *sines = lh_calloc((size_t)n, 4);

	for (int64_t i = 0; i < n; i++) {
		double a = (double)(i / (D / 2)) *
			   pow(10000, -(double)(i % (D / 2)) / (D / 2));

		cosines[i] = (float)cos(a);
		sines[i] = (float)sin(a);
	}
	add(t, F32, n, false)->given = cosines;
	add(t, F32, n, false)->given = sines;
}

static void ropes(const struct side *gpus)
{
	static const int64_t shapes[][5] = { { 2, 5, 3, 8, 40 }, { 1, 33, 2, 128, 768 },
					     { 2, 9, 3, 6, 18 }, { 1, 17, 4, 64, 256 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (int k = 0; k < 2; k++) {
			const int64_t *d = shapes[i];
			struct test t = { .d = { d[0], d[1], d[2], d[3], d[4] },
					  .flag = k, .call = call_rope };

			add(&t, ACT, d[0] * d[1] * d[4], true);
			add_tables(&t, d[1], (int)d[3]);
			name(&t, text, sizeof(text), "rope");
			both(&t, gpus);
		}
}

static void call_swiglu(const struct lh_ops *o, struct lh_dev *dev, void **p,
			const struct test *t)
{
	o->swiglu(dev, t->d[0], t->d[1], p[0], p[1]);
}

static void call_swiglu_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			    const struct test *t)
{
	o->swiglu_bwd(dev, t->d[0], t->d[1], p[0], p[1], p[2]);
}

static void swiglus(const struct side *gpus)
{
	static const int64_t shapes[][2] = { { 33, 1536 }, { 70000, 8 }, { 7, 37 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		int64_t R = shapes[i][0], F = shapes[i][1];
		struct test f = { .d = { R, F }, .call = call_swiglu };
		struct test b = { .d = { R, F }, .call = call_swiglu_bwd };

		add(&f, ACT, R * F, true);
		add(&f, ACT, R * 2 * F, false)->spread = 6;
		name(&f, text, sizeof(text), "swiglu");
		both(&f, gpus);
		add(&b, ACT, R * 2 * F, true);
		add(&b, ACT, R * F, false);
		add(&b, ACT, R * 2 * F, false)->spread = 6;
		name(&b, text, sizeof(text), "swiglu_bwd");
		both(&b, gpus);
	}
}

static void call_embed(const struct lh_ops *o, struct lh_dev *dev, void **p,
		       const struct test *t)
{
	o->embed(dev, t->d[0], t->d[1], p[0], p[1], p[2]);
}

static void call_embed_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			   const struct test *t)
{
	o->embed_bwd(dev, t->d[0], t->d[1], t->d[2], p[0], p[1], p[2]);
}

static void embeds(const struct side *gpus)
{
	static const int64_t shapes[][3] = { { 1000, 72, 7 }, { 300, 64, 1000 },
					     { 257, 33, 3 }, { 4096, 1024, 257 },
					     { 1, 8, 1 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		int64_t R = shapes[i][0], C = shapes[i][1], V = shapes[i][2];
		struct test f = { .d = { R, C, V }, .call = call_embed };
		struct test b = { .d = { R, C, V }, .call = call_embed_bwd };

		add(&f, ACT, R * C, true);
		add(&f, I32, R, false)->limit = V;
		add(&f, ACT, V * C, false);
		name(&f, text, sizeof(text), "embed");
		both(&f, gpus);
		add(&b, F32, V * C, true);
		add(&b, ACT, R * C, false);
		add(&b, I32, R, false)->limit = V;
		name(&b, text, sizeof(text), "embed_bwd");
		both(&b, gpus);
	}
}

static void call_xent(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	size_t bytes = o->sizes->xent_bytes(t->d[0], t->d[1], t->d[2]);
	struct lh_err err = LH_ERR_INIT;
	void *scratch;

	if (o->alloc(dev, &scratch, bytes, &err))
		die(&err);
	o->xent(dev, t->d[0], t->d[1], t->d[2], p[0], p[1], t->flag ? p[2] : NULL,
		t->flag ? p[3] : NULL, p[4], p[5], p[6], 0.01f, scratch, bytes);
	if (o->sync(dev, &err))
		die(&err);
	o->free(dev, scratch);
}

static void xents(const struct side *gpus)
{
	/* The last does not fit one chunk of logits. */
	static const int64_t shapes[][3] = { { 37, 24, 101 }, { 130, 64, 512 },
					     { 3, 8, 5 }, { 4500, 8, 128256 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (int k = 0; k < 2; k++) {
			int64_t R = shapes[i][0], C = shapes[i][1], V = shapes[i][2];
			struct test t = { .d = { R, C, V }, .flag = k,
					  .call = call_xent };
			int32_t *targets = lh_calloc((size_t)R, 4);

			for (int64_t r = 0; r < R; r++)
				targets[r] = r % 5 == 3 ? -1 :
						(int32_t)(noise() % (uint64_t)V);
			add(&t, F32, 1, true);
			add(&t, F32, R, true);
			add(&t, ACT, R * C, true);
			add(&t, F32, V * C, true)->spread = 1e-4f;
			add(&t, ACT, R * C, false);
			add(&t, ACT, V * C, false);
			add(&t, I32, R, false)->given = targets;
			name(&t, text, sizeof(text), "xent");
			both(&t, gpus);
		}
}

/* ---- optimizer ------------------------------------------------------------- */

static void call_norm(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	o->norm(dev, p[0], (float *)p[1] + t->d[1], t->d[0]);
}

static void call_adamw(const struct lh_ops *o, struct lh_dev *dev, void **p,
		       const struct test *t)
{
	struct lh_adamw s = { .lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
			      .weight_decay = 0.1f, .step = 3, .clip = 1,
			      .grad_scale = 0.5f };
	bool half = o->sizes->act_type == LH_BF16;
	int64_t at = t->d[1];
	char *copy = (char *)p[5] + at * (half ? 2 : 4);

	o->adamw(dev, &s, t->d[0], (float *)p[0] + at, half ? copy : NULL,
		 (float *)p[1] + at, (float *)p[2] + at, (float *)p[3] + at, p[4]);
	if (!half && t->flag) /* what the update itself does for bf16 */
		o->cast(dev, copy, (float *)p[0] + at, t->d[0]);
}

static void call_cast(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	o->cast(dev, p[0], p[1], t->d[0]);
}

static void optimizers(const struct side *gpus)
{
	/* Elements, then how many come before them: alignment. */
	static const int64_t shapes[][2] = { { 1003, 0 }, { 4096, 4 }, { 77777, 1 },
					     { 3000001, 0 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		int64_t n = shapes[i][0], all = n + shapes[i][1];
		struct test c = { .d = { n }, .call = call_cast };
		struct test f = { .d = { n, shapes[i][1] }, .call = call_norm };

		add(&c, ACT, n, true);
		add(&c, F32, n, false);
		name(&c, text, sizeof(text), "cast");
		both(&c, gpus);
		add(&f, F32, 1, true);
		add(&f, F32, all, false);
		name(&f, text, sizeof(text), "norm");
		both(&f, gpus);
		for (int k = 0; k < 3; k++) { /* clipped, not clipped, refused */
			struct test a = { .d = { n, shapes[i][1] }, .flag = k < 2,
					  .call = call_adamw };

			add(&a, F32, all, true);
			add(&a, F32, all, true);
			*add(&a, F32, all, true) = (struct arg){
				.kind = F32, .n = all, .out = true, .middle = 1,
				.spread = 0.9f };
			add(&a, F32, all, false);
			*add(&a, F32, 1, false) = (struct arg){
				.kind = F32, .n = 1,
				.middle = k == 0 ? 8 : k == 1 ? 0.1f : INFINITY };
			add(&a, ACT, all, true);
			name(&a, text, sizeof(text),
			     k == 0 ? "adamw clipped" :
			     k == 1 ? "adamw" : "adamw refused");
			both(&a, gpus);
		}
	}
}

/* ---- attention ------------------------------------------------------------- */

static struct lh_sdpa sdpa_of(const struct test *t)
{
	return (struct lh_sdpa){ .heads = t->h, .kv_tokens = t->d[5],
				 .scale = 1 / sqrtf((float)t->h.head_dim) };
}

static void call_sdpa(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	struct lh_sdpa s = sdpa_of(t);

	o->sdpa(dev, &s, p[0], p[1], p[2], p[3], p[4]);
}

static void call_sdpa_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			  const struct test *t)
{
	struct lh_sdpa s = sdpa_of(t);

	o->sdpa_bwd(dev, &s, p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]);
}

/* One shape, forward and backward; o and lse of the backward are the CPU's own
 * for the same inputs. */
static void sdpa_case(const struct side *gpus, const int64_t *d)
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
	add(&f, ACT, o, true);
	add(&f, F32, stats, true);
	add(&f, ACT, q, false)->spread = 2;
	add(&f, ACT, kv, false)->spread = 2;
	add(&f, ACT, kv, false);
	name(&f, text, sizeof(text), "sdpa");
	if (filter && !strstr("sdpa_bwd", filter) && !strstr(text, filter))
		return;
	for (int i = 0; i < f.count; i++)
		in[i] = values_of(&f.arg[i], true);
	run(&cpu, &f, in, out);
	both(&f, gpus);
	b.call = call_sdpa_bwd;
	b.roams = true;
	add(&b, ACT, q, true);
	add(&b, ACT, kv, true);
	add(&b, ACT, kv, true);
	add(&b, ACT, o, false);
	add(&b, ACT, q, false)->given = in[2];
	add(&b, ACT, kv, false)->given = in[3];
	add(&b, ACT, kv, false)->given = in[4];
	add(&b, ACT, o, false)->given = out[0];
	add(&b, F32, stats, false)->given = out[1];
	name(&b, text, sizeof(text), "sdpa_bwd");
	both(&b, gpus);
	free(in[0]);
	free(in[1]);
	for (int i = 2; i < f.count; i++)
		free(out[i]);
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
	};

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		sdpa_case(gpus, shapes[i]);
}

/* ---- Lighthouse ------------------------------------------------------------ */

static void call_score(const struct lh_ops *o, struct lh_dev *dev, void **p,
		       const struct test *t)
{
	struct lh_rope rope = { p[5], p[6] };
	struct lh_err err = LH_ERR_INIT;
	void *scratch;

	if (o->alloc(dev, &scratch, o->sizes->score_bytes(&t->g, &t->h),
		     &err))
		die(&err);
	o->lighthouse_score(dev, &t->g, &t->h, p[0], p[1], p[2], p[3], p[4],
			    t->flag ? &rope : NULL, scratch);
	if (o->sync(dev, &err))
		die(&err);
	o->free(dev, scratch);
}

static void call_select(const struct lh_ops *o, struct lh_dev *dev, void **p,
			const struct test *t)
{
	int64_t BH = (int64_t)t->h.batch * t->h.heads;

	o->lighthouse_select(dev, &t->g, BH, p[0], p[2], p[3]);
	o->lighthouse_map(dev, &t->g, BH, p[1], p[0]);
}

/* With the rotation, the scorer runs first and leaves what it can. */
static void call_gather(const struct lh_ops *o, struct lh_dev *dev, void **p,
			const struct test *t)
{
	struct lh_rope rope = { p[7], p[8] }, *r = t->flag ? &rope : NULL;
	struct lh_err err = LH_ERR_INIT;
	void *scratch = NULL;

	if (t->flag) {
		if (o->alloc(dev, &scratch,
			     o->sizes->score_bytes(&t->g, &t->h), &err))
			die(&err);
		o->lighthouse_score(dev, &t->g, &t->h, p[9], p[10], p[3], p[4], p[5], r,
				    scratch);
	}
	o->lighthouse_gather(dev, &t->g, &t->h, p[0], p[1], p[2], p[3], p[4], p[5], r,
			     p[6], scratch);
	if (o->sync(dev, &err))
		die(&err);
	o->free(dev, scratch);
}

static void call_gather_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			    const struct test *t)
{
	struct lh_rope rope = { p[7], p[8] };

	o->lighthouse_gather_bwd(dev, &t->g, &t->h, p[0], p[1], p[2], p[3], p[4], p[5],
				 t->flag ? &rope : NULL, p[6]);
}

static void call_scatter(const struct lh_ops *o, struct lh_dev *dev, void **p,
			 const struct test *t)
{
	o->lighthouse_scatter(dev, &t->g, &t->h, p[0], p[1], p[2]);
}

static void call_scatter_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			     const struct test *t)
{
	o->lighthouse_scatter_bwd(dev, &t->g, &t->h, p[0], p[1], p[2]);
}

/* Scores with many ties, some infinities and NaN. */
static float *tied_scores(int64_t n)
{
	float *x = lh_calloc((size_t)n, 4);

	for (int64_t i = 0; i < n; i++) {
		x[i] = (float)(noise() % 23) * 0.25f;
		if (noise() % 97 == 0)
			x[i] = noise() % 2 ? NAN : INFINITY;
	}
	return x;
}

struct shape { /* of a Lighthouse case */
	int64_t N;
	int levels, pool;
	int64_t topk;
	int tile, B, H, G, D;
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
		die(&err);
	z->q = s->B * s->N * t.h.q_row;
	z->kv = s->B * s->N * t.h.kv_row;
	z->o = s->B * s->N * t.h.o_row;
	z->index = (int64_t)s->B * s->H * lh_lighthouse_selected(&t.g);
	z->scores = (int64_t)s->B * s->H * lh_lighthouse_pyramid(&t.g);
	z->sub = z->index * s->D;
	return t;
}

static void score_cases(const struct side *gpus, const struct shape *s)
{
	struct sizes z;
	char text[120];

	for (int k = 0; k < 3; k++) { /* plain, rotated, dilated and rotated */
		struct test t = shaped(s, &z);

		if (k == 2 && (s->N > 512 || s->N % t.g.dilation))
			continue;
		t.g.scorer = k == 2 ? LH_SCORER_DILATED : LH_SCORER_NORM;
		t.flag = k;
		t.call = call_score;
		add(&t, F32, z.scores, true);
		add(&t, F32, z.scores, true);
		add(&t, ACT, z.q, false);
		add(&t, ACT, z.kv, false);
		add(&t, ACT, z.kv, false);
		add_tables(&t, s->N, s->D);
		name(&t, text, sizeof(text), k == 2 ? "dilated score" : "score");
		both(&t, gpus);
	}
}

/* index and map of random scores, from the CPU. */
static void selection(const struct test *like, int32_t **index, int32_t **map,
		      const struct sizes *z)
{
	int64_t BH = (int64_t)like->h.batch * like->h.heads;
	float *sq = tied_scores(z->scores), *sk = tied_scores(z->scores);

	*index = lh_calloc((size_t)z->index, 4);
	*map = lh_calloc((size_t)z->scores, 4);
	cpu.ops->lighthouse_select(cpu.dev, &like->g, BH, *index, sq, sk);
	cpu.ops->lighthouse_map(cpu.dev, &like->g, BH, *map, *index);
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
	char text[120];

	for (int k = 0; k < 2; k++) {
		struct test f = shaped(s, &z), b = shaped(s, &z);

		f.call = call_gather;
		b.call = call_gather_bwd;
		f.flag = b.flag = k;
		for (int i = 0; i < 3; i++)
			add(&f, ACT, z.sub, true);
		add(&f, ACT, z.q, false);
		add(&f, ACT, z.kv, false);
		add(&f, ACT, z.kv, false);
		add(&f, I32, z.index, false)->given = copy_of(index, z.index);
		add_tables(&f, s->N, s->D);
		add(&f, F32, z.scores, true)->spread = 0;
		add(&f, F32, z.scores, true)->spread = 0;
		name(&f, text, sizeof(text), "gather");
		both(&f, gpus);
		add(&b, ACT, z.q, true);
		add(&b, ACT, z.kv, true);
		add(&b, ACT, z.kv, true);
		for (int i = 0; i < 3; i++)
			add(&b, ACT, z.sub, false);
		add(&b, I32, z.scores, false)->given = copy_of(map, z.scores);
		add_tables(&b, s->N, s->D);
		name(&b, text, sizeof(text), "gather_bwd");
		both(&b, gpus);
	}
}

static void scatter_cases(const struct side *gpus, const struct shape *s,
			  const int32_t *index, const int32_t *map)
{
	struct sizes z;
	struct test f = shaped(s, &z), b = shaped(s, &z), c = shaped(s, &z);
	char text[120];

	f.call = call_scatter;
	add(&f, ACT, z.o, true);
	add(&f, ACT, z.sub, false);
	add(&f, I32, z.scores, false)->given = copy_of(map, z.scores);
	name(&f, text, sizeof(text), "scatter");
	both(&f, gpus);
	b.call = call_scatter_bwd;
	add(&b, ACT, z.sub, true);
	add(&b, ACT, z.o, false);
	add(&b, I32, z.index, false)->given = copy_of(index, z.index);
	name(&b, text, sizeof(text), "scatter_bwd");
	both(&b, gpus);
	c.call = call_select;
	add(&c, I32, z.index, true);
	add(&c, I32, z.scores, true);
	add(&c, F32, z.scores, false)->given = tied_scores(z.scores);
	add(&c, F32, z.scores, false)->given = tied_scores(z.scores);
	name(&c, text, sizeof(text), "select");
	both(&c, gpus);
}

static void lighthouses(const struct side *gpus)
{
	static const struct shape shapes[] = {
		{ 256, 3, 4, 16, 8, 2, 2, 2, 64 },   { 512, 3, 2, 64, 16, 1, 4, 2, 128 },
		{ 243, 3, 3, 9 * 2, 2, 2, 2, 1, 6 }, { 1024, 2, 8, 64, 32, 1, 2, 2, 32 },
		{ 512, 5, 2, 16, 4, 1, 2, 2, 48 },   { 2048, 4, 8, 4, 4, 1, 1, 1, 64 },
		{ 4096, 3, 4, 128, 128, 1, 2, 1, 128 }, { 500, 2, 5, 50, 10, 1, 3, 3, 16 },
		{ 98304, 3, 4, 768, 128, 1, 1, 1, 16 },
	};

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct sizes z;
		struct test like = shaped(&shapes[i], &z);
		int32_t *index, *map;

		selection(&like, &index, &map, &z);
		score_cases(gpus, &shapes[i]);
		gather_cases(gpus, &shapes[i], index, map);
		scatter_cases(gpus, &shapes[i], index, map);
		free(index);
		free(map);
	}
}

int main(int argc, char **argv)
{
	struct side gpus[2] = { { &lh_ops_cuda_f32, NULL }, { &lh_ops_cuda, NULL } };
	struct lh_err err = LH_ERR_INIT;

	filter = argc > 1 ? argv[1] : NULL;
	cpu.ops = &lh_ops_cpu;
	if (cpu.ops->open(&cpu.dev, 0, &err))
		die(&err);
	for (int i = 0; i < 2; i++)
		if (gpus[i].ops->open(&gpus[i].dev, 0, &err))
			die(&err);
	printf("%s\n", gpus[1].ops->describe(gpus[1].dev));
	linears(gpus);
	norms(gpus);
	ropes(gpus);
	swiglus(gpus);
	embeds(gpus);
	xents(gpus);
	optimizers(gpus);
	sdpas(gpus);
	lighthouses(gpus);
	for (int i = 0; i < 2; i++)
		gpus[i].ops->close(gpus[i].dev);
	cpu.ops->close(cpu.dev);
	printf("%d passed, %d failed\n", passed, failed);
	return failed || !passed;
}

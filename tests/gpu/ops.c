/* ops.c: every op on the GPU against the CPU's, at odd shapes; see ops.h.
 *
 *   ops [FILTER]     runs the cases whose name contains FILTER
 *
 * Exit: 0 when all passed, 1 otherwise. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

struct side ops_cpu;
static const char *filter;
static int passed, failed;

void ops_die(const struct lh_err *err)
{
	fprintf(stderr, "error: %s\n", err->text);
	exit(2);
}

/* ---- values ---------------------------------------------------------------- */

static uint64_t state = 88172645463325252u;

uint32_t ops_noise(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32);
}

static float uniform(void) /* -1 .. 1 */
{
	return (float)((double)ops_noise() / 2147483648.0 - 1);
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
void *ops_values(const struct arg *a, bool half)
{
	float *x = lh_calloc((size_t)a->n + 1, 4);

	if (a->given) {
		memcpy(x, a->given, (size_t)a->n * 4);
	} else if (a->kind == I32) {
		for (int64_t i = 0; i < a->n; i++)
			((int32_t *)x)[i] = (int32_t)(ops_noise() % (uint64_t)a->limit);
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
		ops_die(&err);
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
		ops_die(&err);
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
bool ops_once(const struct side *s, const struct test *t, void *const *values,
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
		in[i] = ops_values(&t->arg[i], half);
	whole = ops_once(&ops_cpu, t, in, want);
	whole &= ops_once(gpu, t, in, got);
	whole &= ops_once(gpu, t, in, again);
	for (int i = 0; i < t->count; i++) {
		double e = error_of(&t->arg[i], got[i], want[i]);

		if (!t->arg[i].out) /* inputs stay as they were */
			e = memcmp(got[i], in[i], (size_t)t->arg[i].n * 4) ? 1 : 0;
		ok &= e <= (t->arg[i].kind == I32 ? 0 : bar);
		worst = e > worst || isnan(e) ? e : worst;
		same &= !memcmp(got[i], again[i], (size_t)t->arg[i].n * 4);
	}
	ok &= whole && (same || (half && t->roams && !gpu->deterministic));
	printf("%-10s %-44s %.1e%s%s%s\n", gpu->name, t->name, worst,
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

bool ops_wanted(const char *name)
{
	return !filter || strstr(name, filter);
}

/* On every side; given values die with the case. */
void ops_run(struct test *t, const struct side *gpus)
{
	if (ops_wanted(t->name))
		for (int i = 0; i < GPUS; i++)
			check(&gpus[i], t);
	for (int i = 0; i < t->count; i++)
		free(t->arg[i].given);
}

struct arg *ops_add(struct test *t, enum kind kind, int64_t n, bool out)
{
	struct arg *a = &t->arg[t->count++];

	LH_ASSERT(t->count <= ARGS);
	*a = (struct arg){ .kind = kind, .n = n, .out = out, .spread = 1, .limit = 1 };
	return a;
}

void ops_name(struct test *t, char *text, size_t size, const char *op)
{
	int n = snprintf(text, size, "%s", op);

	for (int i = 0; i < DIMS && t->d[i]; i++)
		n += snprintf(text + n, size - (size_t)n, " %" PRId64, t->d[i]);
	snprintf(text + n, size - (size_t)n, "%s", t->flag ? " +" : "");
	t->name = text;
}

/* Tables of T positions: a rotation at each. */
void ops_add_starts(struct test *t, int B, int64_t T, int64_t window, int most)
{
	int32_t *start;
	uint32_t r = 1;

	if (!most)
		return;
	start = lh_calloc((size_t)(B * T), 4);
	for (int64_t i = 0, begin = 0, end = 0; i < B * T; i++) {
		if (i % T == 0 || i == end) {
			r = r * 1664525u + 1013904223u;
			begin = i % T;
			end = i + window * (1 + (r >> 8) % (uint32_t)most);
		}
		start[i] = (int32_t)begin;
	}
	t->starts = t->count;
	ops_add(t, I32, B * T, false)->given = start;
}

struct lh_heads ops_heads(const struct test *t, void **p)
{
	struct lh_heads h = t->h;

	if (t->starts) {
		h.start = p[t->starts];
		h.start_host = t->arg[t->starts].given;
	}
	return h;
}

void ops_add_tables(struct test *t, int64_t T, int D)
{
	int64_t n = T * (D / 2);
	float *cosines = lh_calloc((size_t)n, 4), *sines = lh_calloc((size_t)n, 4);

	for (int64_t i = 0; i < n; i++) {
		double a = (double)(i / (D / 2)) *
			   pow(10000, -(double)(i % (D / 2)) / (D / 2));

		cosines[i] = (float)cos(a);
		sines[i] = (float)sin(a);
	}
	ops_add(t, F32, n, false)->given = cosines;
	ops_add(t, F32, n, false)->given = sines;
}

int main(int argc, char **argv)
{
	struct side gpus[GPUS] = { { "cuda-f32", &lh_ops_cuda_f32, false, NULL },
				   { "cuda", &lh_ops_cuda, false, NULL },
				   { "cuda-fixed", &lh_ops_cuda, true, NULL } };
	struct lh_err err = LH_ERR_INIT;

	filter = argc > 1 ? argv[1] : NULL;
	ops_cpu.ops = &lh_ops_cpu;
	if (ops_cpu.ops->open(&ops_cpu.dev, 0, &err))
		ops_die(&err);
	for (int i = 0; i < GPUS; i++) {
		if (gpus[i].ops->open(&gpus[i].dev, 0, &err))
			ops_die(&err);
		if (gpus[i].deterministic)
			gpus[i].ops->set_deterministic(gpus[i].dev);
	}
	printf("%s\n", gpus[1].ops->describe(gpus[1].dev));
	ops_layer_cases(gpus);
	ops_attention_cases(gpus);
	for (int i = 0; i < GPUS; i++)
		gpus[i].ops->close(gpus[i].dev);
	ops_cpu.ops->close(ops_cpu.dev);
	printf("%d passed, %d failed\n", passed, failed);
	return failed || !passed;
}

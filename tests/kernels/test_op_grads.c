/* test_op_grads.c: the backward of every op against finite differences.
 *
 * For inputs x, a fixed random r and L(x) = <f(x), r>, the derivative of L along
 * a random direction u of each input must be <backward(r), u>. The forward is
 * float32, so the step is large enough for its rounding and the functions are
 * smooth enough for the step; L is summed in double. Shapes are odd, rows
 * strided, KV heads grouped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lighthouse/ops.h"

enum { INPUTS = 3 };

struct grad_case {
	const char *name;
	int64_t in[INPUTS];  /* floats of each input that has a gradient, 0 = none */
	int64_t out;         /* floats of the output */
	void (*forward)(float **x, float *y);
	void (*backward)(float **x, const float *dy, float **dx);
	double tolerance;    /* relative; 0: 1e-3 */
};

static struct lh_dev *dev;
static const struct lh_ops *ops = &lh_ops_cpu;

static float noise(uint64_t *s)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*s >> 40) / (1 << 24)) * 2 - 1;
}

static float *filled(int64_t n, uint64_t seed)
{
	float *x = lh_calloc((size_t)n + 1, 4);

	for (int64_t i = 0; i < n; i++)
		x[i] = noise(&seed);
	return x;
}

/* ---- the ops --------------------------------------------------------------- */

enum { R = 7, C = 13, O = 5, F = 11, V = 17 };
static const struct lh_linear linear_shape = { R, C, O };

static void linear_f(float **x, float *y)
{
	ops->linear(dev, &linear_shape, y, x[0], x[1], NULL);
}

static void linear_b(float **x, const float *dy, float **dx)
{
	ops->linear_dx(dev, &linear_shape, dx[0], dy, x[1]);
	ops->linear_dw(dev, &linear_shape, dx[1], dy, x[0]);
}

static void rmsnorm_f(float **x, float *y)
{
	float rstd[R];

	ops->rmsnorm(dev, R, C, y, rstd, x[0], x[1], 1e-5f);
}

static void rmsnorm_b(float **x, const float *dy, float **dx)
{
	float rstd[R], y[R * C];

	ops->rmsnorm(dev, R, C, y, rstd, x[0], x[1], 1e-5f);
	ops->rmsnorm_bwd(dev, R, C, dx[0], dx[1], dy, x[0], x[1], rstd);
}

enum { ROPE_T = 5, ROPE_H = 3, ROPE_D = 6, ROPE_ROW = 20 };
static float rope_cos[64 * 8], rope_sin[64 * 8];
static struct lh_rope rope = { rope_cos, rope_sin };

static void rope_f(float **x, float *y)
{
	memcpy(y, x[0], sizeof(float) * 2 * ROPE_T * ROPE_ROW);
	ops->rope(dev, 2, ROPE_T, ROPE_H, ROPE_D, y, ROPE_ROW, &rope, NULL, false);
}

static void rope_b(float **x, const float *dy, float **dx)
{
	(void)x;
	memcpy(dx[0], dy, sizeof(float) * 2 * ROPE_T * ROPE_ROW);
	ops->rope(dev, 2, ROPE_T, ROPE_H, ROPE_D, dx[0], ROPE_ROW, &rope, NULL, true);
}

/* Both sequences hold three documents. */
static const int32_t rope_starts[2 * ROPE_T] = { 0, 0, 2, 2, 4, 0, 1, 1, 1, 4 };

static void rope_documents_f(float **x, float *y)
{
	memcpy(y, x[0], sizeof(float) * 2 * ROPE_T * ROPE_ROW);
	ops->rope(dev, 2, ROPE_T, ROPE_H, ROPE_D, y, ROPE_ROW, &rope, rope_starts, false);
}

static void rope_documents_b(float **x, const float *dy, float **dx)
{
	(void)x;
	memcpy(dx[0], dy, sizeof(float) * 2 * ROPE_T * ROPE_ROW);
	ops->rope(dev, 2, ROPE_T, ROPE_H, ROPE_D, dx[0], ROPE_ROW, &rope, rope_starts, true);
}

static void bias_f(float **x, float *y)
{
	memcpy(y, x[0], sizeof(float) * R * C);
	ops->bias(dev, R, C, y, x[1]);
}

static void bias_b(float **x, const float *dy, float **dx)
{
	(void)x;
	memcpy(dx[0], dy, sizeof(float) * R * C);
	ops->bias_bwd(dev, R, C, dx[1], dy);
}

enum { QK_ROWS = 2 * ROPE_T };

static void qk_norm_f(float **x, float *y)
{
	memcpy(y, x[0], sizeof(float) * QK_ROWS * ROPE_ROW);
	ops->qk_norm(dev, QK_ROWS, ROPE_H, ROPE_D, y, ROPE_ROW, x[1], 1e-5f);
}

static void qk_norm_b(float **x, const float *dy, float **dx)
{
	memcpy(dx[0], dy, sizeof(float) * QK_ROWS * ROPE_ROW);
	ops->qk_norm_bwd(dev, QK_ROWS, ROPE_H, ROPE_D, dx[0], dx[1], x[0], ROPE_ROW, x[1],
			 1e-5f);
}

static void swiglu_f(float **x, float *y)
{
	ops->swiglu(dev, R, F, y, x[0]);
}

static void swiglu_b(float **x, const float *dy, float **dx)
{
	ops->swiglu_bwd(dev, R, F, dx[0], dy, x[0]);
}

static const int32_t ids[R] = { 3, 0, 3, 16, 3, 1, 0 };

static void embed_f(float **x, float *y)
{
	ops->embed(dev, R, C, y, ids, x[0]);
}

static void embed_b(float **x, const float *dy, float **dx)
{
	(void)x;
	ops->embed_bwd(dev, R, C, V, dx[0], dy, ids);
}

/* Two rows a chunk, one row ignored. */
static const int32_t targets[R] = { 4, 0, -1, 16, 9, 9, 2 };
enum { XENT_SCRATCH = 2 * (V + 1) * 4 };

static void xent_f(float **x, float *y)
{
	char scratch[XENT_SCRATCH];
	float rows[R];

	*y = 0;
	ops->xent(dev, R, C, V, y, rows, NULL, NULL, x[0], x[1], targets, 0.5f, scratch,
		  sizeof(scratch));
}

static void xent_b(float **x, const float *dy, float **dx)
{
	char scratch[XENT_SCRATCH];
	float loss = 0;

	/* The op's gradient is of its own scale; dy is the chain's factor. */
	ops->xent(dev, R, C, V, &loss, NULL, dx[0], dx[1], x[0], x[1], targets, 0.5f,
		  scratch, sizeof(scratch));
	for (int i = 0; i < R * C; i++)
		dx[0][i] *= *dy;
	for (int i = 0; i < V * C; i++)
		dx[1][i] *= *dy;
}

/* Grouped heads, a slice of queries at the end of longer keys, rows longer than
 * their heads, and more than one block of either. */
enum { AB = 2, AT = 133, AKV = 270, AH = 4, AG = 2, AD = 6, AQ = 30, AK = 14, AO = 26 };
static const struct lh_sdpa sdpa_shape = {
	.heads = { AB, AT, AH, AG, AD, AQ, AK, AO, NULL, NULL }, .kv_tokens = AKV, .scale = 0.9f };

static void sdpa_of(const struct lh_sdpa *s, float **x, float *y)
{
	memset(y, 0, sizeof(float) * (size_t)(AB * s->heads.tokens * AO));
	ops->sdpa(dev, s, y, NULL, x[0], x[1], x[2]);
}

static void sdpa_bwd_of(const struct lh_sdpa *s, float **x, const float *dy, float **dx)
{
	float *o = lh_calloc((size_t)(AB * s->heads.tokens * AO), 4);
	float *lse = lh_calloc((size_t)(AB * AH * s->heads.tokens), 4);

	ops->sdpa(dev, s, o, lse, x[0], x[1], x[2]);
	ops->sdpa_bwd(dev, s, dx[0], dx[1], dx[2], dy, x[0], x[1], x[2], o, lse);
	free(o);
	free(lse);
}

static void sdpa_f(float **x, float *y)
{
	sdpa_of(&sdpa_shape, x, y);
}

static void sdpa_b(float **x, const float *dy, float **dx)
{
	sdpa_bwd_of(&sdpa_shape, x, dy, dx);
}

/* As many queries as keys; documents begin within blocks and between them. */
static int32_t sdpa_starts[AB * AKV];
static const struct lh_sdpa sdpa_documents = {
	.heads = { AB, AKV, AH, AG, AD, AQ, AK, AO, sdpa_starts,
		   sdpa_starts }, .kv_tokens = AKV,
	.scale = 0.9f };

static void sdpa_documents_f(float **x, float *y)
{
	sdpa_of(&sdpa_documents, x, y);
}

static void sdpa_documents_b(float **x, const float *dy, float **dx)
{
	sdpa_bwd_of(&sdpa_documents, x, dy, dx);
}

static void fill_sdpa_starts(void)
{
	static const int begin[] = { 7, 128, 131, 256, 260, AKV + 1, AKV + 5, AKV + 200 };

	for (int i = 0, s = 0, last = 0; i < AB * AKV; i++) {
		last = i % AKV ? last : i;
		if (i == begin[s]) {
			last = i;
			s += s < 7;
		}
		sdpa_starts[i] = last % AKV;
	}
}

/* Lighthouse attention's own maps, with a selection that is made once. */
enum { LB = 2, LH = 4, LG = 2, LD = 6, LN = 54, LQ = 30, LK = 16, LO = 25 };
static const struct lh_lighthouse geometry = { .tokens = LN, .levels = 3, .pool = 3,
					       .topk = 2, .tile = 2 };
static const struct lh_heads light = { LB, LN, LH, LG, LD, LQ, LK, LO, NULL, NULL };
static int32_t *index_of, *map_of;
static int64_t sub; /* B*S*H*D */

/* The same of documents: of 1, 2 and 3 windows, and one of all. */
static int32_t light_starts[LB * LN];
static const struct lh_heads light_documents = { LB, LN, LH, LG, LD, LQ, LK, LO,
						 light_starts, light_starts };
static int32_t *index_documents, *map_documents;

static void select_once(const struct lh_heads *h, int32_t **index, int32_t **map)
{
	int64_t P = lh_lighthouse_pyramid(&geometry), S = lh_lighthouse_selected(&geometry);
	float *q = filled(LB * LN * LQ, 5), *k = filled(LB * LN * LK, 6);
	float *sq = lh_calloc((size_t)(LB * LH * P), 4);
	float *sk = lh_calloc((size_t)(LB * LH * P), 4);

	assert_int_equal(lh_lighthouse_check(&geometry, NULL, NULL), 0);
	*index = lh_calloc((size_t)(LB * LH * S), 4);
	*map = lh_calloc((size_t)(LB * LH * P), 4);
	sub = LB * S * LH * LD;
	ops->lighthouse_score(dev, &geometry, h, sq, sk, q, k, k, &rope, NULL);
	ops->lighthouse_select(dev, &geometry, h, *index, sq, sk);
	ops->lighthouse_map(dev, &geometry, LB * LH, *map, *index);
	free(q);
	free(k);
	free(sq);
	free(sk);
}

static void gather_f(float **x, float *y)
{
	ops->lighthouse_gather(dev, &geometry, &light, y, y + sub, y + 2 * sub, x[0], x[1],
			       x[2], &rope, index_of, NULL);
}

static void gather_b(float **x, const float *dy, float **dx)
{
	(void)x;
	ops->lighthouse_gather_bwd(dev, &geometry, &light, dx[0], dx[1], dx[2], dy,
				   dy + sub, dy + 2 * sub, &rope, map_of);
}

static void scatter_f(float **x, float *y)
{
	memset(y, 0, sizeof(float) * LB * LN * LO);
	ops->lighthouse_scatter(dev, &geometry, &light, y, x[0], map_of);
}

static void scatter_b(float **x, const float *dy, float **dx)
{
	(void)x;
	ops->lighthouse_scatter_bwd(dev, &geometry, &light, dx[0], dy, index_of);
}

static void gather_documents_f(float **x, float *y)
{
	ops->lighthouse_gather(dev, &geometry, &light_documents, y, y + sub, y + 2 * sub,
			       x[0], x[1], x[2], &rope, index_documents, NULL);
}

static void gather_documents_b(float **x, const float *dy, float **dx)
{
	(void)x;
	ops->lighthouse_gather_bwd(dev, &geometry, &light_documents, dx[0], dx[1], dx[2],
				   dy, dy + sub, dy + 2 * sub, &rope, map_documents);
}

static void scatter_documents_f(float **x, float *y)
{
	memset(y, 0, sizeof(float) * LB * LN * LO);
	ops->lighthouse_scatter(dev, &geometry, &light_documents, y, x[0], map_documents);
}

static void scatter_documents_b(float **x, const float *dy, float **dx)
{
	(void)x;
	ops->lighthouse_scatter_bwd(dev, &geometry, &light_documents, dx[0], dy,
				    index_documents);
}

/* The first sequence as a piece; x: its sub-sequence's rows, and the next piece's tokens. */
static const struct lh_heads piece = { 1, LN, LH, LG, LD, LQ, LK, LO, NULL, NULL };
enum { HALO = 2 * LH * LD };

static void halo_f(float **x, float *y)
{
	float halo[HALO];

	memcpy(y, x[1], sizeof(float) * LN * LO);
	ops->lighthouse_halo(dev, &geometry, &piece, halo, x[0], map_of);
	ops->lighthouse_halo_add(dev, &geometry, &piece, y, halo);
}

static void halo_b(float **x, const float *dy, float **dx)
{
	float dhalo[HALO];

	(void)x;
	memset(dx[0], 0, (size_t)(sub / LB) * sizeof(float));
	memcpy(dx[1], dy, sizeof(float) * LN * LO);
	ops->lighthouse_halo_bwd(dev, &geometry, &piece, dhalo, dy);
	ops->lighthouse_halo_put(dev, &geometry, &piece, dx[0], dhalo, map_of);
}

/* ---- the check ------------------------------------------------------------- */

static double objective(const struct grad_case *c, float **x, const float *r)
{
	float *y = lh_calloc((size_t)c->out, 4);
	double sum = 0;

	c->forward(x, y);
	for (int64_t i = 0; i < c->out; i++)
		sum += (double)y[i] * r[i];
	free(y);
	return sum;
}

/* Relative error of the derivative along u of input `which`. */
static double error_along(const struct grad_case *c, float **x, int which, const float *r,
			  const float *grad)
{
	const double h = 2e-3;
	int64_t n = c->in[which];
	float *keep = x[which], *moved = lh_calloc((size_t)n, 4);
	float *u = filled(n, 77 + (uint64_t)which);
	double dot = 0, high, low, scale = 0;

	/* Half along the gradient, so that the derivative is not small by chance. */
	for (int64_t i = 0; i < n; i++)
		scale = fmax(scale, fabs(grad[i]));
	for (int64_t i = 0; i < n; i++) {
		u[i] = 0.5f * u[i] + (float)(grad[i] / (scale + 1e-30));
		dot += (double)grad[i] * u[i];
	}
	x[which] = moved;
	for (int64_t i = 0; i < n; i++)
		moved[i] = (float)(keep[i] + h * u[i]);
	high = objective(c, x, r);
	for (int64_t i = 0; i < n; i++)
		moved[i] = (float)(keep[i] - h * u[i]);
	low = objective(c, x, r);
	x[which] = keep;
	free(moved);
	free(u);
	return fabs((high - low) / (2 * h) - dot) / (fabs(dot) + 1e-12);
}

static void check(const struct grad_case *c)
{
	float *x[INPUTS] = { NULL }, *dx[INPUTS] = { NULL }, *r = filled(c->out, 9);

	for (int i = 0; i < INPUTS; i++) {
		x[i] = filled(c->in[i], 20 + (uint64_t)i);
		/* Guard words behind each gradient: one float past the end. */
		dx[i] = lh_calloc((size_t)c->in[i] + 1, 4);
		dx[i][c->in[i]] = 12345;
	}
	c->backward(x, r, dx);
	for (int i = 0; i < INPUTS; i++) {
		double error = c->in[i] ? error_along(c, x, i, r, dx[i]) : 0;

		if (dx[i][c->in[i]] != 12345)
			fail_msg("%s: wrote past the gradient of input %d", c->name, i);
		if (!(error < (c->tolerance ? c->tolerance : 1e-3)))
			fail_msg("%s: relative error %g along input %d", c->name, error, i);
	}
	for (int i = 0; i < INPUTS; i++) {
		free(x[i]);
		free(dx[i]);
	}
	free(r);
}

static void every_backward_agrees_with_finite_differences(void **state)
{
	const struct grad_case cases[] = {
		{ "linear", { R * C, O * C }, R * O, linear_f, linear_b, 0 },
		{ "rmsnorm", { R * C, C }, R * C, rmsnorm_f, rmsnorm_b, 0 },
		{ "rope", { 2 * ROPE_T * ROPE_ROW }, 2 * ROPE_T * ROPE_ROW, rope_f, rope_b,
		  0 },
		{ "rope of documents", { 2 * ROPE_T * ROPE_ROW }, 2 * ROPE_T * ROPE_ROW,
		  rope_documents_f, rope_documents_b, 0 },
		{ "bias", { R * C, C }, R * C, bias_f, bias_b, 0 },
		{ "qk_norm", { QK_ROWS * ROPE_ROW, ROPE_D }, QK_ROWS * ROPE_ROW, qk_norm_f,
		  qk_norm_b, 0 },
		{ "swiglu", { R * 2 * F }, R * F, swiglu_f, swiglu_b, 0 },
		{ "embed", { V * C }, R * C, embed_f, embed_b, 0 },
		{ "xent", { R * C, V * C }, 1, xent_f, xent_b, 0 },
		{ "sdpa", { AB * AT * AQ, AB * AKV * AK, AB * AKV * AK }, AB * AT * AO,
		  sdpa_f, sdpa_b, 0 },
		{ "sdpa of documents", { AB * AKV * AQ, AB * AKV * AK, AB * AKV * AK },
		  AB * AKV * AO, sdpa_documents_f, sdpa_documents_b, 0 },
		{ "lighthouse_gather", { LB * LN * LQ, LB * LN * LK, LB * LN * LK },
		  3 * sub, gather_f, gather_b, 0 },
		{ "lighthouse_scatter", { sub }, LB * LN * LO, scatter_f, scatter_b, 0 },
		{ "lighthouse_halo", { sub / LB, LN * LO }, LN * LO, halo_f, halo_b, 0 },
		{ "lighthouse_gather of documents",
		  { LB * LN * LQ, LB * LN * LK, LB * LN * LK }, 3 * sub,
		  gather_documents_f, gather_documents_b, 0 },
		{ "lighthouse_scatter of documents", { sub }, LB * LN * LO,
		  scatter_documents_f, scatter_documents_b, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		check(&cases[i]);
}

/* The update against a plain double-precision evaluation of its formula. */
static void adamw_follows_its_formula(void **state)
{
	enum { N = 11 };
	struct lh_adamw s = { .lr = 0.1f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
			      .weight_decay = 0.2f, .step = 3, .clip = 0.5f,
			      .grad_scale = 2 };
	float *p = filled(N, 1), *m = filled(N, 2), *v = filled(N, 3), *g = filled(N, 4);
	float norm;

	(void)state;
	ops->norm(dev, &norm, g, N);
	for (int i = 0; i < N; i++)
		v[i] = fabsf(v[i]);
	for (int i = 0; i < N; i++) {
		double k = 2 * fmin(1, 0.5 / (2.0 * norm)), d = g[i] * k;
		double em = 0.9 * m[i] + 0.1 * d, ev = 0.95 * v[i] + 0.05 * d * d;
		double want = p[i] - 0.1 * (em / (1 - pow(0.9, 3)) /
						    (sqrt(ev / (1 - pow(0.95, 3))) + 1e-8) +
					    0.2 * p[i]);
		float one[4] = { p[i], m[i], v[i], g[i] };

		ops->adamw(dev, &s, 1, &one[0], NULL, &one[1], &one[2], &one[3], &norm);
		assert_true(fabs(one[0] - want) < 1e-5);
		assert_true(fabs(one[1] - em) < 1e-6 && fabs(one[2] - ev) < 1e-6);
	}
	free(p);
	free(m);
	free(v);
	free(g);
}

static int setup(void **state)
{
	(void)state;
	for (int i = 0; i < 64 * 8; i++) {
		rope_cos[i] = cosf((float)i * 0.37f);
		rope_sin[i] = sinf((float)i * 0.37f);
	}
	if (ops->open(&dev, 2, NULL))
		return -1;
	fill_sdpa_starts();
	for (int i = 0; i < LN; i++)
		light_starts[i] = i < 9 ? 0 : i < 27 ? 9 : 27;
	select_once(&light, &index_of, &map_of);
	select_once(&light_documents, &index_documents, &map_documents);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(index_of);
	free(map_of);
	free(index_documents);
	free(map_documents);
	ops->close(dev);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_backward_agrees_with_finite_differences),
		cmocka_unit_test(adamw_follows_its_formula),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

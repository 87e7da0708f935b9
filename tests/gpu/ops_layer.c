/* ops_layer.c: cases of linear maps, the pieces of a layer, the loss, the optimizer. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

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
	/* The last two as in training: a weight's gradient sums thousands of rows, in
	 * parts; the last is worth a search. */
	static const int64_t shapes[][3] = { { 37, 24, 40 },   { 64, 128, 64 },
					     { 5, 7, 9 },      { 1, 64, 257 },
					     { 300, 33, 65 },  { 4099, 56, 40 },
					     { 8192, 1024, 1536 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (int k = 0; k < 5; k++) {
			int64_t r = shapes[i][0], in = shapes[i][1], out = shapes[i][2];
			/* k < 3: nothing, y itself, another tensor is added. */
			struct test t = { .d = { r, in, out, k < 3 ? k : 0 } };

			ops_add(&t, k < 4 ? ACT : F32,
			    k < 3 ? r * out : k < 4 ? r * in : out * in, true);
			ops_add(&t, ACT, k < 3 ? r * in : r * out, false);
			ops_add(&t, ACT, k < 4 ? out * in : r * in, false);
			if (k == 2)
				ops_add(&t, ACT, r * out, false);
			t.call = k < 3 ? call_linear :
				 k < 4 ? call_linear_dx : call_linear_dw;
			ops_name(&t, text, sizeof(text),
			     k < 3 ? "linear" : k < 4 ? "linear_dx" : "linear_dw");
			ops_run(&t, gpus);
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

		ops_add(&f, ACT, R * C, true);
		ops_add(&f, F32, R, true);
		ops_add(&f, ACT, R * C, false);
		ops_add(&f, ACT, C, false)->middle = 1;
		ops_name(&f, text, sizeof(text), "rmsnorm");
		ops_run(&f, gpus);
		ops_add(&b, ACT, R * C, true);
		ops_add(&b, F32, C, true);
		ops_add(&b, ACT, R * C, false);
		ops_add(&b, ACT, R * C, false);
		ops_add(&b, ACT, C, false)->middle = 1;
		*ops_add(&b, F32, R, false) = (struct arg){ .kind = F32, .n = R,
							.middle = 1.7f, .spread = 0.1f };
		ops_name(&b, text, sizeof(text), "rmsnorm_bwd");
		ops_run(&b, gpus);
	}
}

static void call_rope(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	struct lh_rope rope = { p[1], p[2] };

	o->rope(dev, (int)t->d[0], t->d[1], (int)t->d[2], (int)t->d[3], p[0], t->d[4],
		&rope, ops_heads(t, p).start, t->flag);
}

static void ropes(const struct side *gpus)
{
	static const int64_t shapes[][5] = { { 2, 5, 3, 8, 40 }, { 1, 33, 2, 128, 768 },
					     { 2, 9, 3, 6, 18 }, { 1, 17, 4, 64, 256 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		for (int k = 0; k < 4; k++) {
			const int64_t *d = shapes[i];
			struct test t = { .d = { d[0], d[1], d[2], d[3], d[4] },
					  .flag = k % 2, .call = call_rope };

			ops_add(&t, ACT, d[0] * d[1] * d[4], true);
			ops_add_tables(&t, d[1], (int)d[3]);
			ops_add_starts(&t, (int)d[0], d[1], 1, k / 2 * 4);
			ops_name(&t, text, sizeof(text),
				 k / 2 ? "rope of documents" : "rope");
			ops_run(&t, gpus);
		}
}

static void call_bias(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	o->bias(dev, t->d[0], t->d[1], p[0], p[1]);
}

static void call_bias_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			  const struct test *t)
{
	o->bias_bwd(dev, t->d[0], t->d[1], p[0], p[1]);
}

static void biases(const struct side *gpus)
{
	static const int64_t shapes[][2] = { { 33, 3072 }, { 7, 130 }, { 9, 37 }, { 5000, 64 },
					     { 1, 8 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		int64_t R = shapes[i][0], N = shapes[i][1];
		struct test f = { .d = { R, N }, .call = call_bias };
		struct test b = { .d = { R, N }, .call = call_bias_bwd };

		ops_add(&f, ACT, R * N, true);
		ops_add(&f, ACT, N, false);
		ops_name(&f, text, sizeof(text), "bias");
		ops_run(&f, gpus);
		ops_add(&b, F32, N, true);
		ops_add(&b, ACT, R * N, false);
		ops_name(&b, text, sizeof(text), "bias_bwd");
		ops_run(&b, gpus);
	}
}

static void call_qk_norm(const struct lh_ops *o, struct lh_dev *dev, void **p,
			 const struct test *t)
{
	o->qk_norm(dev, t->d[0], (int)t->d[1], (int)t->d[2], p[0], t->d[3], p[1], 1e-5f);
}

static void call_qk_norm_bwd(const struct lh_ops *o, struct lh_dev *dev, void **p,
			     const struct test *t)
{
	o->qk_norm_bwd(dev, t->d[0], (int)t->d[1], (int)t->d[2], p[0], p[1], p[2], t->d[3],
		       p[3], 1e-5f);
}

/* Rows, heads, width, stride. */
static void qk_norms(const struct side *gpus)
{
	static const int64_t shapes[][4] = { { 33, 3, 128, 768 }, { 10, 2, 8, 40 },
					     { 9, 3, 6, 19 },     { 5000, 2, 64, 128 },
					     { 17, 1, 256, 264 }, { 5, 2, 250, 501 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const int64_t *d = shapes[i];
		struct test f = { .d = { d[0], d[1], d[2], d[3] }, .call = call_qk_norm };
		struct test b = { .d = { d[0], d[1], d[2], d[3] }, .call = call_qk_norm_bwd };

		ops_add(&f, ACT, d[0] * d[3], true);
		ops_add(&f, ACT, d[2], false)->middle = 1;
		ops_name(&f, text, sizeof(text), "qk_norm");
		ops_run(&f, gpus);
		ops_add(&b, ACT, d[0] * d[3], true);
		ops_add(&b, F32, d[2], true);
		ops_add(&b, ACT, d[0] * d[3], false);
		ops_add(&b, ACT, d[2], false)->middle = 1;
		ops_name(&b, text, sizeof(text), "qk_norm_bwd");
		ops_run(&b, gpus);
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

		ops_add(&f, ACT, R * F, true);
		ops_add(&f, ACT, R * 2 * F, false)->spread = 6;
		ops_name(&f, text, sizeof(text), "swiglu");
		ops_run(&f, gpus);
		ops_add(&b, ACT, R * 2 * F, true);
		ops_add(&b, ACT, R * F, false);
		ops_add(&b, ACT, R * 2 * F, false)->spread = 6;
		ops_name(&b, text, sizeof(text), "swiglu_bwd");
		ops_run(&b, gpus);
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

		ops_add(&f, ACT, R * C, true);
		ops_add(&f, I32, R, false)->limit = V;
		ops_add(&f, ACT, V * C, false);
		ops_name(&f, text, sizeof(text), "embed");
		ops_run(&f, gpus);
		ops_add(&b, F32, V * C, true);
		ops_add(&b, ACT, R * C, false);
		ops_add(&b, I32, R, false)->limit = V;
		ops_name(&b, text, sizeof(text), "embed_bwd");
		ops_run(&b, gpus);
	}
}

static void call_xent(const struct lh_ops *o, struct lh_dev *dev, void **p,
		      const struct test *t)
{
	size_t bytes = o->sizes->xent_bytes(t->d[0], t->d[1], t->d[2]);
	struct lh_err err = LH_ERR_INIT;
	void *scratch;

	if (o->alloc(dev, &scratch, bytes, &err))
		ops_die(&err);
	o->xent(dev, t->d[0], t->d[1], t->d[2], p[0], p[1], t->flag ? p[2] : NULL,
		t->flag ? p[3] : NULL, p[4], p[5], p[6], 0.01f, scratch, bytes);
	if (o->sync(dev, &err))
		ops_die(&err);
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
						(int32_t)(ops_noise() % (uint64_t)V);
			ops_add(&t, F32, 1, true);
			ops_add(&t, F32, R, true);
			ops_add(&t, ACT, R * C, true);
			ops_add(&t, F32, V * C, true)->spread = 1e-4f;
			ops_add(&t, ACT, R * C, false);
			ops_add(&t, ACT, V * C, false);
			ops_add(&t, I32, R, false)->given = targets;
			ops_name(&t, text, sizeof(text), "xent");
			ops_run(&t, gpus);
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

/* ---- rows ------------------------------------------------------------------ */

static void call_copy_rows(const struct lh_ops *o, struct lh_dev *dev, void **p,
			   const struct test *t)
{
	o->copy_rows(dev, t->d[0], t->d[1], p[0], t->d[2], p[1], t->d[3]);
}

static void call_sum_rows(const struct lh_ops *o, struct lh_dev *dev, void **p,
			  const struct test *t)
{
	o->sum_rows(dev, t->d[0], t->d[1], p[0], t->d[2], (const lh_act *const *)p + 1,
		    t->d[3], (int)t->d[4]);
}

static void rows(const struct side *gpus)
{
	/* Rows, width, strides: of vectors, of single ones. */
	static const int64_t shapes[][4] = { { 37, 24, 40, 56 },   { 5, 7, 9, 11 },
					     { 129, 1024, 1024, 3072 }, { 3, 8, 12, 8 },
					     { 3, 8, 8, 12 },      { 40, 12, 16, 12 },
					     { 1, 8, 8, 8 },       { 100001, 8, 24, 16 } };
	char text[80];

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		const int64_t *d = shapes[i];
		struct test c = { .d = { d[0], d[1], d[2], d[3] }, .call = call_copy_rows };

		ops_add(&c, ACT, d[0] * d[2], true);
		ops_add(&c, ACT, d[0] * d[3], false);
		ops_name(&c, text, sizeof(text), "copy_rows");
		ops_run(&c, gpus);
		for (int count = 1; count <= 5; count += 2) {
			struct test s = { .d = { d[0], d[1], d[2], d[3], count },
					  .call = call_sum_rows };

			ops_add(&s, ACT, d[0] * d[2], true);
			for (int k = 0; k < count; k++)
				ops_add(&s, ACT, d[0] * d[3], false);
			ops_name(&s, text, sizeof(text), "sum_rows");
			ops_run(&s, gpus);
		}
	}
}

/* ---- the optimizer --------------------------------------------------------- */

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

		ops_add(&c, ACT, n, true);
		ops_add(&c, F32, n, false);
		ops_name(&c, text, sizeof(text), "cast");
		ops_run(&c, gpus);
		ops_add(&f, F32, 1, true);
		ops_add(&f, F32, all, false);
		ops_name(&f, text, sizeof(text), "norm");
		ops_run(&f, gpus);
		for (int k = 0; k < 3; k++) { /* clipped, not clipped, refused */
			struct test a = { .d = { n, shapes[i][1] }, .flag = k < 2,
					  .call = call_adamw };

			ops_add(&a, F32, all, true);
			ops_add(&a, F32, all, true);
			*ops_add(&a, F32, all, true) = (struct arg){
				.kind = F32, .n = all, .out = true, .middle = 1,
				.spread = 0.9f };
			ops_add(&a, F32, all, false);
			*ops_add(&a, F32, 1, false) = (struct arg){
				.kind = F32, .n = 1,
				.middle = k == 0 ? 8 : k == 1 ? 0.1f : INFINITY };
			ops_add(&a, ACT, all, true);
			ops_name(&a, text, sizeof(text),
			     k == 0 ? "adamw clipped" :
			     k == 1 ? "adamw" : "adamw refused");
			ops_run(&a, gpus);
		}
	}
}

void ops_layer_cases(const struct side *gpus)
{
	linears(gpus);
	norms(gpus);
	ropes(gpus);
	biases(gpus);
	qk_norms(gpus);
	swiglus(gpus);
	embeds(gpus);
	xents(gpus);
	rows(gpus);
	optimizers(gpus);
}

/* lighthouse_vectors.c: checks a backend against recorded Lighthouse attention.
 *
 *   lighthouse-vectors [--device cpu|cuda] FILE.safetensors...
 *
 * A file holds q, k, v (B,N,H,D) and the flat index (B,H,S) that selection must
 * give, with metadata levels, pool, topk and, where they differ from norm, 4 and
 * 128, scorer, dilation and tile; and either d_out, out, d_q, d_k, d_v, or
 * score_q, score_k (B,H,N) of the scorer. Prints S, whether the index is the
 * same, and each relative error |x - y| / |y|. Exit: 0 within the bars, 1 past
 * them, 2 a file or argument that cannot be used. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/safetensors.h"
#include "lighthouse/ops.h"

struct checker {
	const struct lh_ops *ops;
	struct lh_dev *dev;
	double bar;
};

struct vectors {
	struct lh_safetensors st;
	struct lh_lighthouse g;
	struct lh_heads h;
	int64_t size;  /* B*N*H*D */
	int64_t S, P, BH;
};

static void *device(const struct checker *c, const struct lh_tensor *t)
{
	struct lh_err err = LH_ERR_INIT;
	void *p;

	if (c->ops->alloc(c->dev, &p, (size_t)t->bytes, &err)) {
		fprintf(stderr, "error: %s\n", err.text);
		exit(2);
	}
	c->ops->put(c->dev, p, t->data, (size_t)t->bytes);
	return p;
}

static void *device_zero(const struct checker *c, int64_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	void *p;

	if (c->ops->alloc(c->dev, &p, (size_t)bytes, &err)) {
		fprintf(stderr, "error: %s\n", err.text);
		exit(2);
	}
	c->ops->zero(c->dev, p, (size_t)bytes);
	return p;
}

static void *host(const struct checker *c, const void *p, int64_t bytes)
{
	void *out = lh_alloc((size_t)bytes);
	struct lh_err err = LH_ERR_INIT;

	if (c->ops->fetch(c->dev, out, p, (size_t)bytes, &err)) {
		fprintf(stderr, "error: %s\n", err.text);
		exit(2);
	}
	return out;
}

/* Prints and judges one tensor (n floats of the device against the file). */
static bool compare(const struct checker *c, const char *name, const float *got,
		    const float *want, int64_t n)
{
	double diff = 0, norm = 0, error;

	for (int64_t i = 0; i < n; i++) {
		diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		norm += (double)want[i] * want[i];
	}
	error = sqrt(diff / norm);
	printf("  %s %.2e", name, error);
	return error <= c->bar; /* a NaN is past every bar */
}

static bool compare_tensor(const struct checker *c, const struct vectors *v,
			   const char *name, const void *dev)
{
	const struct lh_tensor *t = lh_safetensors_find(&v->st, name);
	float *got = host(c, dev, t->bytes);
	bool ok = compare(c, name, got, t->data, t->count);

	free(got);
	return ok;
}

/* Level 0 of a pyramid of scores against (B,H,N). */
static bool compare_scores(const struct checker *c, const struct vectors *v,
			   const char *name, const void *dev)
{
	const struct lh_tensor *t = lh_safetensors_find(&v->st, name);
	float *all = host(c, dev, v->BH * v->P * 4);
	float *got = lh_alloc((size_t)t->bytes);
	bool ok;

	for (int64_t bh = 0; bh < v->BH; bh++)
		memcpy(got + bh * v->g.tokens, all + bh * v->P,
		       (size_t)v->g.tokens * 4);
	ok = compare(c, name, got, t->data, t->count);
	free(got);
	free(all);
	return ok;
}

static int meta_int(const struct lh_safetensors *st, const char *key, int fallback)
{
	const char *text = lh_safetensors_meta(st, key);

	return text ? atoi(text) : fallback;
}

static bool has(const struct vectors *v, const char *name, enum lh_tensor_type type,
		int64_t count)
{
	const struct lh_tensor *t = lh_safetensors_find(&v->st, name);

	return t && t->type == type && t->count == count;
}

static int load(struct vectors *v, const char *path, struct lh_err *err)
{
	const struct lh_tensor *q;
	const char *scorer;
	int rc = lh_safetensors_open(&v->st, path, err);

	if (rc)
		return rc;
	q = lh_safetensors_find(&v->st, "q");
	if (!q || q->dims != 4 || q->type != LH_TENSOR_F32)
		return lh_err_set(err, LH_EDATA, "'%s': no float32 tensor 'q' of "
				  "four dimensions", path);
	scorer = lh_safetensors_meta(&v->st, "scorer");
	v->g = (struct lh_lighthouse){
		.tokens = q->shape[1],
		.levels = meta_int(&v->st, "levels", 0),
		.pool = meta_int(&v->st, "pool", 0),
		.topk = meta_int(&v->st, "topk", 0),
		.tile = meta_int(&v->st, "tile", 128),
		.dilation = meta_int(&v->st, "dilation", 4),
		.scorer = scorer && !strcmp(scorer, "dilated") ? LH_SCORER_DILATED :
								 LH_SCORER_NORM,
	};
	rc = lh_lighthouse_check(&v->g, NULL, err);
	if (rc)
		return lh_err_prefix(err, "'%s'", path);
	v->h = (struct lh_heads){
		.batch = (int)q->shape[0], .tokens = q->shape[1],
		.heads = (int)q->shape[2], .kv_heads = (int)q->shape[2],
		.head_dim = (int)q->shape[3],
	};
	v->h.q_row = v->h.kv_row = v->h.o_row = (int64_t)v->h.heads * v->h.head_dim;
	v->size = q->count;
	v->S = lh_lighthouse_selected(&v->g);
	v->P = lh_lighthouse_pyramid(&v->g);
	v->BH = (int64_t)v->h.batch * v->h.heads;
	if (v->h.head_dim % 2 || !has(v, "k", LH_TENSOR_F32, v->size) ||
	    !has(v, "v", LH_TENSOR_F32, v->size) ||
	    !has(v, "index", LH_TENSOR_I32, v->BH * v->S))
		return lh_err_set(err, LH_EDATA,
				  "'%s': k, v or index is missing or of another shape; "
				  "S is %" PRId64, path, v->S);
	return 0;
}

struct run { /* device tensors of one file */
	float *q, *k, *v, *dout;
	float *sq, *sk, *qs, *ks, *vs, *os, *out, *lse;
	float *dos, *dqs, *dks, *dvs, *dq, *dk, *dv;
	int32_t *index, *map;
	void *scratch; /* of the scorer */
};

static bool check_attention(const struct checker *c, const struct vectors *v,
			    struct run *r)
{
	const struct lh_ops *ops = c->ops;
	const char *const names[] = { "out", "d_q", "d_k", "d_v" };
	struct lh_sdpa s = { .heads = v->h, .kv_tokens = v->S,
			     .scale = 1 / sqrtf((float)v->h.head_dim) };
	int64_t sub = v->BH * v->S * v->h.head_dim * 4, full = v->size * 4;
	float **subs[] = { &r->qs, &r->ks, &r->vs, &r->os, &r->dos, &r->dqs, &r->dks,
			   &r->dvs };
	float **fulls[] = { &r->out, &r->dq, &r->dk, &r->dv };
	bool ok = true;

	for (size_t i = 0; i < sizeof(subs) / sizeof(*subs); i++)
		*subs[i] = device_zero(c, sub);
	for (size_t i = 0; i < sizeof(fulls) / sizeof(*fulls); i++)
		*fulls[i] = device_zero(c, full);
	r->lse = device_zero(c, v->BH * v->S * 4);
	r->map = device_zero(c, v->BH * v->P * 4);
	r->dout = device(c, lh_safetensors_find(&v->st, "d_out"));
	s.heads.tokens = v->S;
	ops->lighthouse_map(c->dev, &v->g, v->BH, r->map, r->index);
	ops->lighthouse_gather(c->dev, &v->g, &v->h, r->qs, r->ks, r->vs, r->q, r->k,
			       r->v, NULL, r->index, r->scratch);
	ops->sdpa(c->dev, &s, r->os, r->lse, r->qs, r->ks, r->vs);
	ops->lighthouse_scatter(c->dev, &v->g, &v->h, r->out, r->os, r->map);
	ops->lighthouse_scatter_bwd(c->dev, &v->g, &v->h, r->dos, r->dout, r->index);
	ops->sdpa_bwd(c->dev, &s, r->dqs, r->dks, r->dvs, r->dos, r->qs, r->ks, r->vs,
		      r->os, r->lse);
	ops->lighthouse_gather_bwd(c->dev, &v->g, &v->h, r->dq, r->dk, r->dv, r->dqs,
				   r->dks, r->dvs, NULL, r->map);
	for (int i = 0; i < 4; i++)
		ok &= compare_tensor(c, v, names[i], *fulls[i]);
	for (size_t i = 0; i < sizeof(subs) / sizeof(*subs); i++)
		ops->free(c->dev, *subs[i]);
	for (size_t i = 0; i < sizeof(fulls) / sizeof(*fulls); i++)
		ops->free(c->dev, *fulls[i]);
	ops->free(c->dev, r->lse);
	ops->free(c->dev, r->map);
	ops->free(c->dev, r->dout);
	return ok;
}

static bool check_file(const struct checker *c, const struct vectors *v)
{
	const struct lh_tensor *want = lh_safetensors_find(&v->st, "index");
	const struct lh_ops *ops = c->ops;
	struct run r = { 0 };
	int32_t *index;
	bool ok = true, same;

	r.q = device(c, lh_safetensors_find(&v->st, "q"));
	r.k = device(c, lh_safetensors_find(&v->st, "k"));
	r.v = device(c, lh_safetensors_find(&v->st, "v"));
	r.sq = device_zero(c, v->BH * v->P * 4);
	r.sk = device_zero(c, v->BH * v->P * 4);
	r.index = device_zero(c, want->bytes);
	r.scratch = device_zero(c, (int64_t)ops->lighthouse_score_scratch_bytes(&v->g, &v->h));
	ops->lighthouse_score(c->dev, &v->g, &v->h, r.sq, r.sk, r.q, r.k, r.v, NULL,
			      r.scratch);
	ops->lighthouse_select(c->dev, &v->g, v->BH, r.index, r.sq, r.sk);
	index = host(c, r.index, want->bytes);
	same = !memcmp(index, want->data, (size_t)want->bytes);
	printf("S %" PRId64 "  index %s", v->S, same ? "identical" : "DIFFERS");
	if (has(v, "score_q", LH_TENSOR_F32, v->BH * v->g.tokens)) {
		ok &= compare_scores(c, v, "score_q", r.sq);
		ok &= compare_scores(c, v, "score_k", r.sk);
	}
	if (has(v, "d_out", LH_TENSOR_F32, v->size))
		ok &= check_attention(c, v, &r);
	printf("  %s\n", ok && same ? "ok" : "FAILED");
	ops->free(c->dev, r.scratch);
	ops->free(c->dev, r.q);
	ops->free(c->dev, r.k);
	ops->free(c->dev, r.v);
	ops->free(c->dev, r.sq);
	ops->free(c->dev, r.sk);
	ops->free(c->dev, r.index);
	free(index);
	return ok && same;
}

static int usage(void)
{
	fputs("usage: lighthouse-vectors [--device cpu|cuda] FILE.safetensors...\n",
	      stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct checker c = { .ops = &lh_ops_cpu, .bar = 2e-6 };
	struct lh_err err = LH_ERR_INIT;
	int first = 1, status = 0;

	if (argc > 2 && !strcmp(argv[1], "--device")) {
		if (!strcmp(argv[2], "cuda")) {
			fputs("error: this build has no cuda backend\n", stderr);
			return 2;
		}
		if (strcmp(argv[2], "cpu"))
			return usage();
		first = 3;
	}
	if (first >= argc)
		return usage();
	if (c.ops->open(&c.dev, 0, &err)) {
		fprintf(stderr, "error: %s\n", err.text);
		return 2;
	}
	for (int i = first; i < argc; i++) {
		struct vectors v = { 0 };

		if (load(&v, argv[i], &err)) {
			fprintf(stderr, "error: %s\n", err.text);
			status = 2;
		} else {
			printf("%s: ", argv[i]);
			if (!check_file(&c, &v) && !status)
				status = 1;
		}
		lh_safetensors_close(&v.st);
	}
	c.ops->close(c.dev);
	return status;
}

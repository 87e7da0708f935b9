/* lighthouse_vectors.c: checks a backend against recorded Lighthouse attention.
 *
 *   lighthouse-vectors [--device cpu|cuda] FILE.safetensors...
 *
 * A file holds q, k, v (B,N,H,D) and the flat index (B,H,S) that selection must
 * give, with metadata levels, pool, topk and, where they differ from norm, 4 and
 * 128, scorer, dilation and tile; and either d_out, out, d_q, d_k, d_v, or
 * score_q, score_k (B,H,N) of the scorer. Prints S, whether the index is the
 * same, and each relative error |x - y| / |y|.
 *
 * cuda runs a file twice: in float32 against the file, and in bf16, where the
 * inputs are rounded first and the CPU's float32 results on the rounded inputs
 * are what is right (rounding legitimately changes which entries win).
 * Exit: 0 within the bars, 1 past them, 2 a file or argument that cannot be
 * used. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/safetensors.h"
#include "lighthouse/ops.h"

struct backend {
	const struct lh_ops *ops;
	struct lh_dev *dev;
};

struct vectors {
	struct lh_safetensors st;
	struct lh_lighthouse g;
	struct lh_heads h;
	int64_t size;  /* B*N*H*D */
	int64_t S, P, BH;
};

/* What a file gives, or a backend makes of it; float32 on the host. */
struct input {
	float *q, *k, *v, *dout; /* dout NULL: scores only */
};

struct output {
	int32_t *index;
	float *score_q, *score_k;       /* (B,H,N): level 0 */
	float *out, *dq, *dk, *dv;      /* NULL without dout */
};

static void die(const struct lh_err *err)
{
	fprintf(stderr, "error: %s\n", err->text);
	if (err->hint[0])
		fprintf(stderr, "hint: %s\n", err->hint);
	exit(2);
}

static void *device(const struct backend *b, int64_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	void *p;

	if (b->ops->alloc(b->dev, &p, (size_t)bytes, &err))
		die(&err);
	return p;
}

static void fetch(const struct backend *b, void *out, const void *p, int64_t bytes)
{
	struct lh_err err = LH_ERR_INIT;

	if (b->ops->fetch(b->dev, out, p, (size_t)bytes, &err))
		die(&err);
}

/* x rounded to the nearest bf16, ties to even; finite inputs. */
static float rounded(float x)
{
	uint32_t u;

	memcpy(&u, &x, 4);
	u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
	memcpy(&x, &u, 4);
	return x;
}

/* n activations on the device. */
static lh_act *put_act(const struct backend *b, const float *x, int64_t n)
{
	bool half = b->ops->sizes->act_type == LH_BF16;
	lh_act *p = device(b, n * (half ? 2 : 4));
	uint16_t *low;

	if (!half) {
		b->ops->put(b->dev, p, x, (size_t)n * 4);
		return p;
	}
	low = lh_calloc((size_t)n, sizeof(*low));
	for (int64_t i = 0; i < n; i++) {
		float r = rounded(x[i]);
		uint32_t u;

		memcpy(&u, &r, 4);
		low[i] = (uint16_t)(u >> 16);
	}
	b->ops->put(b->dev, p, low, (size_t)n * 2);
	free(low);
	return p;
}

static float *get_act(const struct backend *b, const lh_act *p, int64_t n)
{
	float *x = lh_calloc((size_t)n, 4);
	uint16_t *low;

	if (b->ops->sizes->act_type == LH_F32) {
		fetch(b, x, p, n * 4);
		return x;
	}
	low = lh_calloc((size_t)n, sizeof(*low));
	fetch(b, low, p, n * 2);
	for (int64_t i = 0; i < n; i++) {
		uint32_t u = (uint32_t)low[i] << 16;

		memcpy(x + i, &u, 4);
	}
	free(low);
	return x;
}

/* Level 0 of a pyramid of scores. */
static float *get_scores(const struct backend *b, const struct vectors *v,
			 const float *dev)
{
	float *all = lh_calloc((size_t)(v->BH * v->P), 4);
	float *level = lh_calloc((size_t)(v->BH * v->g.tokens), 4);

	fetch(b, all, dev, v->BH * v->P * 4);
	for (int64_t i = 0; i < v->BH; i++)
		memcpy(level + i * v->g.tokens, all + i * v->P, (size_t)v->g.tokens * 4);
	free(all);
	return level;
}

/* Prints and judges n floats against what is right. */
static bool compare(const char *name, const float *got, const float *want, int64_t n,
		    double bar)
{
	double diff = 0, norm = 0, error;

	for (int64_t i = 0; i < n; i++) {
		diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		norm += (double)want[i] * want[i];
	}
	error = sqrt(diff / norm);
	printf("  %s %.2e", name, error);
	return error <= bar; /* a NaN is past every bar */
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
	lh_act *q, *k, *v, *dout, *qs, *ks, *vs, *os, *out;
	lh_act *dos, *dqs, *dks, *dvs, *dq, *dk, *dv;
	float *sq, *sk, *lse;
	int32_t *index, *map;
	void *scratch; /* of the scorer */
};

static void run_attention(const struct backend *b, const struct vectors *v,
			  struct run *r, struct output *o)
{
	const struct lh_ops *ops = b->ops;
	struct lh_sdpa s = { .heads = v->h, .kv_tokens = v->S,
			     .scale = 1 / sqrtf((float)v->h.head_dim) };
	int64_t act = (int64_t)lh_dtype_bytes(ops->sizes->act_type);
	int64_t sub = v->BH * v->S * v->h.head_dim * act, full = v->size * act;
	lh_act **subs[] = { &r->qs, &r->ks, &r->vs, &r->os, &r->dos, &r->dqs, &r->dks,
			    &r->dvs };
	lh_act **fulls[] = { &r->out, &r->dq, &r->dk, &r->dv };
	float **results[] = { &o->out, &o->dq, &o->dk, &o->dv };

	for (size_t i = 0; i < sizeof(subs) / sizeof(*subs); i++)
		*subs[i] = device(b, sub);
	for (size_t i = 0; i < sizeof(fulls) / sizeof(*fulls); i++)
		*fulls[i] = device(b, full);
	r->lse = device(b, v->BH * v->S * 4);
	r->map = device(b, v->BH * v->P * 4);
	s.heads.tokens = v->S;
	ops->lighthouse_map(b->dev, &v->g, v->BH, r->map, r->index);
	ops->lighthouse_gather(b->dev, &v->g, &v->h, r->qs, r->ks, r->vs, r->q, r->k,
			       r->v, NULL, r->index, r->scratch);
	ops->sdpa(b->dev, &s, r->os, r->lse, r->qs, r->ks, r->vs);
	ops->lighthouse_scatter(b->dev, &v->g, &v->h, r->out, r->os, r->map);
	ops->lighthouse_scatter_bwd(b->dev, &v->g, &v->h, r->dos, r->dout, r->index);
	ops->sdpa_bwd(b->dev, &s, r->dqs, r->dks, r->dvs, r->dos, r->qs, r->ks, r->vs,
		      r->os, r->lse);
	ops->lighthouse_gather_bwd(b->dev, &v->g, &v->h, r->dq, r->dk, r->dv, r->dqs,
				   r->dks, r->dvs, NULL, r->map);
	for (size_t i = 0; i < sizeof(fulls) / sizeof(*fulls); i++) {
		*results[i] = get_act(b, *fulls[i], v->size);
		ops->free(b->dev, *fulls[i]);
	}
	for (size_t i = 0; i < sizeof(subs) / sizeof(*subs); i++)
		ops->free(b->dev, *subs[i]);
	ops->free(b->dev, r->lse);
	ops->free(b->dev, r->map);
}

/* All a backend makes of the inputs. */
static void run_file(const struct backend *b, const struct vectors *v,
		     const struct input *in, struct output *o)
{
	const struct lh_ops *ops = b->ops;
	struct run r = { 0 };
	void **all[] = { &r.q, &r.k, &r.v, &r.dout, (void **)&r.sq, (void **)&r.sk,
			 (void **)&r.index, &r.scratch };

	r.q = put_act(b, in->q, v->size);
	r.k = put_act(b, in->k, v->size);
	r.v = put_act(b, in->v, v->size);
	r.sq = device(b, v->BH * v->P * 4);
	r.sk = device(b, v->BH * v->P * 4);
	r.index = device(b, v->BH * v->S * 4);
	r.scratch = device(b, (int64_t)ops->sizes->score_bytes(&v->g, &v->h));
	ops->lighthouse_score(b->dev, &v->g, &v->h, r.sq, r.sk, r.q, r.k, r.v, NULL,
			      r.scratch);
	ops->lighthouse_select(b->dev, &v->g, &v->h, r.index, r.sq, r.sk);
	o->index = lh_calloc((size_t)(v->BH * v->S), 4);
	fetch(b, o->index, r.index, v->BH * v->S * 4);
	o->score_q = get_scores(b, v, r.sq);
	o->score_k = get_scores(b, v, r.sk);
	if (in->dout) {
		r.dout = put_act(b, in->dout, v->size);
		run_attention(b, v, &r, o);
	}
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		ops->free(b->dev, *all[i]);
}

static void output_release(struct output *o)
{
	free(o->index);
	free(o->score_q);
	free(o->score_k);
	free(o->out);
	free(o->dq);
	free(o->dk);
	free(o->dv);
	memset(o, 0, sizeof(*o));
}

/* Only what `want` has is compared. */
static bool judge(const struct vectors *v, const char *name, const struct output *got,
		  const struct output *want, double bar)
{
	bool ok = !memcmp(got->index, want->index, (size_t)(v->BH * v->S) * 4);

	printf(" %s S %" PRId64 "  index %s", name, v->S, ok ? "identical" : "DIFFERS");
	if (want->score_q) {
		ok &= compare("score_q", got->score_q, want->score_q,
			      v->BH * v->g.tokens, bar);
		ok &= compare("score_k", got->score_k, want->score_k,
			      v->BH * v->g.tokens, bar);
	}
	if (want->out) {
		ok &= compare("out", got->out, want->out, v->size, bar);
		ok &= compare("d_q", got->dq, want->dq, v->size, bar);
		ok &= compare("d_k", got->dk, want->dk, v->size, bar);
		ok &= compare("d_v", got->dv, want->dv, v->size, bar);
	}
	printf("  %s\n", ok ? "ok" : "FAILED");
	return ok;
}

static void *data_of(const struct vectors *v, const char *name, int64_t count)
{
	return has(v, name, LH_TENSOR_F32, count) ?
		       (void *)(uintptr_t)lh_safetensors_find(&v->st, name)->data : NULL;
}

static struct input inputs_of(const struct vectors *v)
{
	return (struct input){ data_of(v, "q", v->size), data_of(v, "k", v->size),
			       data_of(v, "v", v->size), data_of(v, "d_out", v->size) };
}

static struct output recorded(const struct vectors *v)
{
	int64_t level = v->BH * v->g.tokens;

	return (struct output){
		.index = (void *)(uintptr_t)lh_safetensors_find(&v->st, "index")->data,
		.score_q = data_of(v, "score_q", level),
		.score_k = data_of(v, "score_k", level),
		.out = data_of(v, "out", v->size), .dq = data_of(v, "d_q", v->size),
		.dk = data_of(v, "d_k", v->size), .dv = data_of(v, "d_v", v->size) };
}

/* A backend of float32 against the file. */
static bool check_file(const struct backend *b, const struct vectors *v, double bar)
{
	struct output got = { 0 }, want = recorded(v);
	struct input in = inputs_of(v);
	bool ok;

	run_file(b, v, &in, &got);
	ok = judge(v, b->ops->name, &got, &want, bar);
	output_release(&got);
	return ok;
}

#ifdef LH_HAVE_CUDA
/* bf16 against the CPU, both on rounded inputs. */
static bool check_rounded(const struct backend *b, const struct backend *cpu,
			  const struct vectors *v, double bar)
{
	struct output got = { 0 }, want = { 0 };
	struct input file = inputs_of(v), in;
	const float *from[] = { file.q, file.k, file.v, file.dout };
	float **to[] = { &in.q, &in.k, &in.v, &in.dout };
	bool ok;

	for (int t = 0; t < 4; t++) {
		*to[t] = from[t] ? lh_calloc((size_t)v->size, 4) : NULL;
		for (int64_t i = 0; from[t] && i < v->size; i++)
			(*to[t])[i] = rounded(from[t][i]);
	}
	run_file(cpu, v, &in, &want);
	run_file(b, v, &in, &got);
	ok = judge(v, b->ops->name, &got, &want, bar);
	output_release(&got);
	output_release(&want);
	for (int t = 0; t < 4; t++)
		free(*to[t]);
	return ok;
}
#endif

static void open_backend(struct backend *b, const struct lh_ops *ops)
{
	struct lh_err err = LH_ERR_INIT;

	b->ops = ops;
	if (ops->open(&b->dev, 0, &err))
		die(&err);
}

static bool check_cpu(const struct vectors *v)
{
	struct backend cpu;
	bool ok;

	open_backend(&cpu, &lh_ops_cpu);
	ok = check_file(&cpu, v, 2e-6);
	cpu.ops->close(cpu.dev);
	return ok;
}

static bool check_cuda(const struct vectors *v)
{
#ifdef LH_HAVE_CUDA
	struct backend cpu, full, half;
	bool ok;

	open_backend(&full, &lh_ops_cuda_f32);
	open_backend(&half, &lh_ops_cuda);
	open_backend(&cpu, &lh_ops_cpu);
	ok = check_file(&full, v, 1e-5);
	printf("   ");
	ok &= check_rounded(&half, &cpu, v, 1e-2);
	full.ops->close(full.dev);
	half.ops->close(half.dev);
	cpu.ops->close(cpu.dev);
	return ok;
#else
	(void)v;
	fputs("error: this build has no cuda backend\n", stderr);
	exit(2);
#endif
}

static int usage(void)
{
	fputs("usage: lighthouse-vectors [--device cpu|cuda] FILE.safetensors...\n",
	      stderr);
	return 2;
}

int main(int argc, char **argv)
{
	struct lh_err err = LH_ERR_INIT;
	int first = 1, status = 0;
	bool cuda = false;

	if (argc > 2 && !strcmp(argv[1], "--device")) {
		cuda = !strcmp(argv[2], "cuda");
		if (!cuda && strcmp(argv[2], "cpu"))
			return usage();
		first = 3;
	}
	if (first >= argc)
		return usage();
	for (int i = first; i < argc; i++) {
		struct vectors v = { 0 };

		if (load(&v, argv[i], &err)) {
			fprintf(stderr, "error: %s\n", err.text);
			status = 2;
		} else {
			printf("%s:", argv[i]);
			if (!(cuda ? check_cuda(&v) : check_cpu(&v)) && !status)
				status = 1;
		}
		lh_safetensors_close(&v.st);
	}
	return status;
}

/* linear.cu: y = x w^T and its two gradients, by cuBLASLt.
 *
 * Inputs bf16 (or float), sums float32, output bf16 or float32. The algorithm of
 * a shape is the library's first choice among those whose reductions run in a
 * fixed order (no in-place split-K), looked up once and kept: the same shape
 * gives the same bits. Limits: 2 m n k operations at 700-785 TFLOP/s.
 *
 * cuBLASLt is column-major, so c (m,n) = op(a) op(b) is asked for as
 * c^T (n,m) = op(b)^T op(a)^T: the operands swap, the leading dimensions stay. */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gemm_key {
	int64_t m, n, k, lda, ldb, ldc;
	int32_t ta, tb, add, in, out;
	int32_t align_a, align_b, align_c, align_d;
};

struct gemm_plan {
	struct gemm_key key;
	cublasLtMatmulDesc_t desc;
	cublasLtMatrixLayout_t a, b, c;
	cublasLtMatmulAlgo_t algo;
};

struct lh_gemm_cache {
	struct gemm_plan *plans;
	int count, room;
};

static int alignment(const void *p)
{
	int a = 256;

	while ((uintptr_t)p % a)
		a /= 2;
	return a;
}

static struct gemm_key key_of(const struct lh_gemm *g, const void *d, const void *a,
			      const void *b, const void *c)
{
	struct gemm_key k;

	memset(&k, 0, sizeof(k)); /* compared as bytes */
	k.m = g->m, k.n = g->n, k.k = g->k;
	k.lda = g->lda, k.ldb = g->ldb, k.ldc = g->ldd;
	k.ta = g->ta, k.tb = g->tb, k.add = !!c;
	k.in = g->in, k.out = g->out;
	k.align_a = alignment(a), k.align_b = alignment(b), k.align_d = alignment(d);
	k.align_c = c ? alignment(c) : k.align_d;
	return k;
}

static void plan_release(struct gemm_plan *p)
{
	if (p->a)
		cublasLtMatrixLayoutDestroy(p->a);
	if (p->b)
		cublasLtMatrixLayoutDestroy(p->b);
	if (p->c)
		cublasLtMatrixLayoutDestroy(p->c);
	if (p->desc)
		cublasLtMatmulDescDestroy(p->desc);
}

/* Row-major (rows, cols) with stride ld, as cuBLASLt sees it: (cols, rows). */
static cublasStatus_t layout(cublasLtMatrixLayout_t *l, int type, int64_t rows,
			     int64_t cols, int64_t ld)
{
	return cublasLtMatrixLayoutCreate(l, (cudaDataType_t)type, (uint64_t)cols,
					  (uint64_t)rows, ld);
}

static cublasStatus_t plan_layouts(struct gemm_plan *p)
{
	const struct gemm_key *k = &p->key;
	/* First operand of the library: our b; second: our a. */
	cublasOperation_t first = k->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
	cublasOperation_t second = k->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
	cublasStatus_t rc;

	rc = cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
	if (!rc)
		rc = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA,
						    &first, sizeof(first));
	if (!rc)
		rc = cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB,
						    &second, sizeof(second));
	if (!rc)
		rc = layout(&p->b, k->in, k->tb ? k->n : k->k, k->tb ? k->k : k->n,
			    k->ldb);
	if (!rc)
		rc = layout(&p->a, k->in, k->ta ? k->k : k->m, k->ta ? k->m : k->k,
			    k->lda);
	if (!rc)
		rc = layout(&p->c, k->out, k->m, k->n, k->ldc);
	return rc;
}

static cublasStatus_t prefer(cublasLtMatmulPreference_t pref, const struct gemm_key *k)
{
	const struct {
		cublasLtMatmulPreferenceAttributes_t name;
		uint64_t value;
		size_t bytes;
	} attrs[] = {
		{ CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, LH_GEMM_WORK_BYTES, 8 },
		{ CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
		  CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 4 },
		{ CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, (uint64_t)k->align_b, 4 },
		{ CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, (uint64_t)k->align_a, 4 },
		{ CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, (uint64_t)k->align_c, 4 },
		{ CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, (uint64_t)k->align_d, 4 },
	};
	cublasStatus_t rc = CUBLAS_STATUS_SUCCESS;

	for (size_t i = 0; !rc && i < sizeof(attrs) / sizeof(attrs[0]); i++)
		rc = cublasLtMatmulPreferenceSetAttribute(pref, attrs[i].name,
							  &attrs[i].value,
							  attrs[i].bytes);
	return rc;
}

static cublasStatus_t plan_algorithm(struct lh_dev *dev, struct gemm_plan *p)
{
	cublasLtMatmulPreference_t pref = NULL;
	cublasLtMatmulHeuristicResult_t found;
	int count = 0;
	cublasStatus_t rc = cublasLtMatmulPreferenceCreate(&pref);

	if (!rc)
		rc = prefer(pref, &p->key);
	if (!rc)
		rc = cublasLtMatmulAlgoGetHeuristic(dev->lt, p->desc, p->b, p->a, p->c,
						    p->c, pref, 1, &found, &count);
	if (!rc && !count)
		rc = CUBLAS_STATUS_NOT_SUPPORTED;
	if (!rc)
		p->algo = found.algo;
	if (pref)
		cublasLtMatmulPreferenceDestroy(pref);
	return rc;
}

static const struct gemm_plan *plan_of(struct lh_dev *dev, const struct gemm_key *key)
{
	struct lh_gemm_cache *cache = dev->gemms;
	struct gemm_plan p;
	cublasStatus_t rc;
	char detail[160];

	if (!cache)
		cache = dev->gemms = (struct lh_gemm_cache *)lh_calloc(1, sizeof(*cache));
	for (int i = 0; i < cache->count; i++)
		if (!memcmp(&cache->plans[i].key, key, sizeof(*key)))
			return &cache->plans[i];
	memset(&p, 0, sizeof(p));
	p.key = *key;
	rc = plan_layouts(&p);
	if (!rc)
		rc = plan_algorithm(dev, &p);
	if (rc) {
		plan_release(&p);
		snprintf(detail, sizeof(detail), "%s for %lld x %lld x %lld",
			 cublasLtGetStatusName(rc), (long long)key->m, (long long)key->n,
			 (long long)key->k);
		lh_cuda_fail(dev, "cublasLt", detail);
		return NULL;
	}
	if (cache->count == cache->room) {
		cache->room = cache->room ? 2 * cache->room : 32;
		cache->plans = (struct gemm_plan *)lh_realloc(
			cache->plans, (size_t)cache->room * sizeof(*cache->plans));
	}
	cache->plans[cache->count] = p;
	return &cache->plans[cache->count++];
}

void lh_cuda_gemms_free(struct lh_dev *dev)
{
	struct lh_gemm_cache *cache = dev->gemms;

	if (!cache)
		return;
	for (int i = 0; i < cache->count; i++)
		plan_release(&cache->plans[i]);
	free(cache->plans);
	free(cache);
	dev->gemms = NULL;
}

void lh_cuda_gemm(struct lh_dev *dev, const struct lh_gemm *g, void *d, const void *a,
		  const void *b, const void *c)
{
	struct gemm_key key = key_of(g, d, a, b, c);
	const struct gemm_plan *p;
	float one = 1, beta = c ? 1 : 0;
	cublasStatus_t rc;

	if (!g->m || !g->n)
		return;
	p = plan_of(dev, &key);
	if (!p)
		return;
	rc = cublasLtMatmul(dev->lt, p->desc, &one, b, p->b, a, p->a, &beta,
			    c ? c : d, p->c, d, p->c, &p->algo, dev->gemm_work, LH_GEMM_WORK_BYTES,
			    dev->stream);
	if (rc)
		lh_cuda_fail(dev, "cublasLtMatmul", cublasLtGetStatusName(rc));
}

template <typename T>
void lh_cuda_linear(struct lh_dev *dev, const struct lh_linear *s, lh_act *y,
		    const lh_act *x, const lh_act *w, const lh_act *add)
{
	struct lh_gemm g = { s->rows, s->out, s->in, s->in, s->in, s->out, false, true,
			     lh_cuda_type<T>, lh_cuda_type<T> };

	lh_cuda_gemm(dev, &g, y, x, w, add);
}

template <typename T>
void lh_cuda_linear_dx(struct lh_dev *dev, const struct lh_linear *s, lh_act *dx,
		       const lh_act *dy, const lh_act *w)
{
	struct lh_gemm g = { s->rows, s->in, s->out, s->out, s->in, s->in, false, false,
			     lh_cuda_type<T>, lh_cuda_type<T> };

	lh_cuda_gemm(dev, &g, dx, dy, w, NULL);
}

template <typename T>
void lh_cuda_linear_dw(struct lh_dev *dev, const struct lh_linear *s, float *dw,
		       const lh_act *dy, const lh_act *x)
{
	struct lh_gemm g = { s->out, s->in, s->rows, s->out, s->in, s->in, true, false,
			     lh_cuda_type<T>, CUDA_R_32F };

	lh_cuda_gemm(dev, &g, dw, dy, x, dw);
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_linear<T>(struct lh_dev *, const struct lh_linear *,    \
					lh_act *, const lh_act *, const lh_act *,     \
					const lh_act *);                              \
	template void lh_cuda_linear_dx<T>(struct lh_dev *, const struct lh_linear *, \
					   lh_act *, const lh_act *,                  \
					   const lh_act *);                           \
	template void lh_cuda_linear_dw<T>(struct lh_dev *, const struct lh_linear *, \
					   float *, const lh_act *, const lh_act *);
INSTANCE(bf16)
INSTANCE(float)

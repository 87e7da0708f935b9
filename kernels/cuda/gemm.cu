/* gemm.cu: one GEMM, by cuBLASLt.
 *
 * Inputs bf16 (or float), sums float32, output bf16 or float32. Of the library's
 * best guesses for a shape, all with reductions in a fixed order (no split-K in
 * place), the one that runs fastest on the operands of its first call is kept, in
 * the process and in the cache directory: a shape has the same algorithm, so the
 * same bits, for as long as that file is there. Small shapes take the first guess,
 * and so do all on a deterministic device: what was measured once would have to be
 * kept for ever, and has not been seen to be faster.
 * Limits: 2 m n k operations; 560 to 760 TFLOP/s were seen at a
 * decoder's shapes on an H100.
 *
 * cuBLASLt is column-major, so d (m,n) = op(a) op(b) is asked for as
 * d^T (n,m) = op(b)^T op(a)^T: the operands swap, the leading dimensions stay. */
#include "cuda.h"

extern "C" {
#include "cache.h"
}

#include <math.h>
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
	char *dir, *file; /* of choices on disk; NULL: none */
};

struct gemm_operands {
	void *d;
	const void *a, *b, *c;
};

/* Guesses that are tried, how often, and for how many operations it is worth it. */
enum { GUESSES = 8, TIMES = 3 };
static const double WORTH_FLOPS = 2e10;

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

/* guesses (GUESSES), best first as the library thinks. */
static cublasStatus_t guess(struct lh_dev *dev, struct gemm_plan *p,
			    cublasLtMatmulHeuristicResult_t *guesses, int *count)
{
	cublasLtMatmulPreference_t pref = NULL;
	cublasStatus_t rc = cublasLtMatmulPreferenceCreate(&pref);

	if (!rc)
		rc = prefer(pref, &p->key);
	if (!rc)
		rc = cublasLtMatmulAlgoGetHeuristic(dev->lt, p->desc, p->b, p->a, p->c,
						    p->c, pref, GUESSES, guesses, count);
	if (!rc && !*count)
		rc = CUBLAS_STATUS_NOT_SUPPORTED;
	if (pref)
		cublasLtMatmulPreferenceDestroy(pref);
	return rc;
}

static cublasStatus_t multiply(struct lh_dev *dev, const struct gemm_plan *p,
			       const cublasLtMatmulAlgo_t *algo,
			       const struct gemm_operands *o)
{
	float one = 1, beta = o->c ? 1 : 0;

	return cublasLtMatmul(dev->lt, p->desc, &one, o->b, p->b, o->a, p->a, &beta,
			      o->c ? o->c : o->d, p->c, o->d, p->c, algo, dev->gemm_work,
			      LH_GEMM_WORK_BYTES, dev->stream);
}

/* Milliseconds of TIMES calls after one, or infinity. */
static float time_of(struct lh_dev *dev, const struct gemm_plan *p,
		     const cublasLtMatmulAlgo_t *algo, const struct gemm_operands *o)
{
	cudaEvent_t from = NULL, to = NULL;
	float ms = INFINITY;
	bool good = !multiply(dev, p, algo, o) &&
		    lh_cuda_check(dev, "gemm's timing", cudaEventCreate(&from)) &&
		    lh_cuda_check(dev, "gemm's timing", cudaEventCreate(&to)) &&
		    lh_cuda_check(dev, "gemm's timing", cudaEventRecord(from, dev->stream));

	for (int i = 0; good && i < TIMES; i++)
		good = !multiply(dev, p, algo, o);
	if (!good ||
	    !lh_cuda_check(dev, "gemm's timing", cudaEventRecord(to, dev->stream)) ||
	    !lh_cuda_check(dev, "gemm's timing", cudaEventSynchronize(to)) ||
	    !lh_cuda_check(dev, "gemm's timing", cudaEventElapsedTime(&ms, from, to)))
		ms = INFINITY;
	if (from)
		cudaEventDestroy(from);
	if (to)
		cudaEventDestroy(to);
	return ms;
}

/* Operands whose product may be repeated: where it adds to itself the result goes
 * to scratch, if there is enough of it already. Nothing is lost in a rehearsal. */
static bool repeatable(struct lh_dev *dev, const struct gemm_key *k,
		       struct gemm_operands *o)
{
	size_t bytes = (size_t)(k->m * k->ldc) * (k->out == CUDA_R_32F ? 4 : 2);

	if (2.0 * (double)k->m * (double)k->n * (double)k->k < WORTH_FLOPS)
		return false;
	if (o->c != o->d || dev->rehearsing)
		return true;
	o->d = dev->scratch;
	return bytes <= dev->scratch_bytes;
}

static cublasStatus_t choose(struct lh_dev *dev, struct gemm_plan *p,
			     struct gemm_operands o)
{
	cublasLtMatmulHeuristicResult_t guesses[GUESSES];
	float least = INFINITY;
	int count = 0, best = 0;
	cublasStatus_t rc = guess(dev, p, guesses, &count);

	if (rc)
		return rc;
	if (count > 1 && !dev->deterministic && repeatable(dev, &p->key, &o))
		for (int i = 0; i < count; i++) {
			float ms = time_of(dev, p, &guesses[i].algo, &o);

			if (ms < least) {
				least = ms;
				best = i;
			}
		}
	p->algo = guesses[best].algo;
	return rc;
}

/* ---- kept choices ---------------------------------------------------------- */

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

static struct gemm_plan *keep(struct lh_gemm_cache *cache, const struct gemm_plan *p)
{
	if (cache->count == cache->room) {
		cache->room = cache->room ? 2 * cache->room : 32;
		cache->plans = (struct gemm_plan *)lh_realloc(
			cache->plans, (size_t)cache->room * sizeof(*cache->plans));
	}
	cache->plans[cache->count] = *p;
	return &cache->plans[cache->count++];
}

/* The file: plans' keys and algorithms as they are in memory, one after another.
 * Its name has the library's version and the GPU. */
struct gemm_record {
	struct gemm_key key;
	cublasLtMatmulAlgo_t algo;
};

static void save(const struct lh_gemm_cache *cache)
{
	size_t n = (size_t)cache->count;
	struct gemm_record *all;

	if (!cache->dir)
		return;
	all = (struct gemm_record *)lh_calloc(n, sizeof(*all));
	for (size_t i = 0; i < n; i++) {
		all[i].key = cache->plans[i].key;
		all[i].algo = cache->plans[i].algo;
	}
	lh_cache_write(cache->dir, cache->file, all, n * sizeof(*all));
	free(all);
}

static bool is_known(const struct lh_gemm_cache *cache, const struct gemm_key *key)
{
	for (int i = 0; i < cache->count; i++)
		if (!memcmp(&cache->plans[i].key, key, sizeof(*key)))
			return true;
	return false;
}

static void load(struct lh_dev *dev, struct lh_gemm_cache *cache)
{
	size_t bytes = 0;
	char *text = lh_cache_read(cache->dir, cache->file, &bytes);

	for (size_t at = 0; text && at + sizeof(struct gemm_record) <= bytes;
	     at += sizeof(struct gemm_record)) {
		cublasLtMatmulHeuristicResult_t fits;
		struct gemm_record r;
		struct gemm_plan p = { };

		memcpy(&r, text + at, sizeof(r));
		p.key = r.key;
		p.algo = r.algo;
		if (!is_known(cache, &r.key) && !plan_layouts(&p) &&
		    !cublasLtMatmulAlgoCheck(dev->lt, p.desc, p.b, p.a, p.c, p.c, &p.algo,
					     &fits) &&
		    fits.workspaceSize <= LH_GEMM_WORK_BYTES)
			keep(cache, &p);
		else
			plan_release(&p);
	}
	free(text);
}

static struct lh_gemm_cache *cache_of(struct lh_dev *dev)
{
	if (!dev->gemms)
		dev->gemms = (struct lh_gemm_cache *)lh_calloc(1, sizeof(*dev->gemms));
	return dev->gemms;
}

void lh_cuda_gemms_cache(struct lh_dev *dev, const char *dir, const char *gpu)
{
	struct lh_gemm_cache *cache = cache_of(dev);

	if (cache->dir)
		return;
	cache->dir = lh_strdup(dir);
	cache->file = lh_cache_name(lh_asprintf("gemm-%zu-%s", cublasLtGetVersion(), gpu));
	load(dev, cache);
}

static const struct gemm_plan *plan_of(struct lh_dev *dev, const struct gemm_key *key,
				       const struct gemm_operands *o)
{
	struct lh_gemm_cache *cache = cache_of(dev);
	struct gemm_plan p;
	cublasStatus_t rc;
	char detail[160];

	for (int i = 0; i < cache->count; i++)
		if (!memcmp(&cache->plans[i].key, key, sizeof(*key)))
			return &cache->plans[i];
	dev->preparations++;
	memset(&p, 0, sizeof(p));
	p.key = *key;
	rc = plan_layouts(&p);
	if (!rc)
		rc = choose(dev, &p, *o);
	if (rc) {
		plan_release(&p);
		snprintf(detail, sizeof(detail), "%s for %lld x %lld x %lld",
			 cublasLtGetStatusName(rc), (long long)key->m, (long long)key->n,
			 (long long)key->k);
		lh_cuda_fail(dev, "cublasLt", detail);
		return NULL;
	}
	keep(cache, &p);
	save(cache);
	return &cache->plans[cache->count - 1];
}

void lh_cuda_gemms_free(struct lh_dev *dev)
{
	struct lh_gemm_cache *cache = dev->gemms;

	if (!cache)
		return;
	for (int i = 0; i < cache->count; i++)
		plan_release(&cache->plans[i]);
	free(cache->plans);
	free(cache->dir);
	free(cache->file);
	free(cache);
	dev->gemms = NULL;
}

void lh_cuda_gemm(struct lh_dev *dev, const struct lh_gemm *g, void *d, const void *a,
		  const void *b, const void *c)
{
	struct gemm_key key = key_of(g, d, a, b, c);
	struct gemm_operands o = { d, a, b, c };
	const struct gemm_plan *p;
	cublasStatus_t rc;

	if (!g->m || !g->n)
		return;
	p = plan_of(dev, &key, &o);
	if (!p)
		return;
	rc = multiply(dev, p, &p->algo, &o);
	if (rc)
		lh_cuda_fail(dev, "cublasLtMatmul", cublasLtGetStatusName(rc));
}

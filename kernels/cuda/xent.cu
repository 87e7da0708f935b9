/* xent.cu: output projection and cross-entropy in chunks of rows.
 *
 * For a chunk: logits = x w^T; per row, nats = log sum exp - logit of the
 * target, and the logits become scale (softmax - onehot) in place; then
 * dx = that . w and dw += that^T . x. Only one chunk of logits ever exists.
 *
 * Logits have the type of activations; maxima and sums are float32. A block
 * takes a row and walks it twice (the second time from L2): sizeof(T) R V bytes
 * written by the GEMM, read twice and written once here, read twice by the
 * gradients' GEMMs; 6 R V C operations bound it when C is 1024.
 * Scratch: R floats of nats, then chunk rows of V rounded up to 8. */
#include "vec.cuh"

enum { THREADS = 512 };

struct stat { /* of a part of a row: its maximum, sum of exp(z - max) */
	float max, sum;
};

__device__ __forceinline__ struct stat merge(struct stat a, struct stat b)
{
	float m = fmaxf(a.max, b.max);

	/* exp(-inf - m) = 0; both empty: m = -inf is kept out by the caller. */
	return { m, a.sum * __expf(a.max - m) + b.sum * __expf(b.max - m) };
}

__device__ static struct stat block_stat(struct stat s)
{
	__shared__ struct stat warps[THREADS / 32];

#pragma unroll
	for (int o = 16; o; o /= 2) {
		struct stat other = { __shfl_xor_sync(ALL, s.max, o),
				      __shfl_xor_sync(ALL, s.sum, o) };
		/* Both lanes merge in the same order: same bits. */
		s = threadIdx.x & o ? merge(other, s) : merge(s, other);
	}
	if (threadIdx.x % 32 == 0)
		warps[threadIdx.x / 32] = s;
	__syncthreads();
	s = warps[0];
	for (int i = 1; i < THREADS / 32; i++)
		s = merge(s, warps[i]);
	return s;
}

/* z (V; stride ldz) of row blockIdx.x: see the top. `grad`: rewrite z. */
template <typename T, int W>
__global__ void __launch_bounds__(THREADS)
rows_kernel(T *z, int64_t ldz, int64_t V, float *__restrict__ nats,
	    float *__restrict__ row_loss, const int32_t *__restrict__ targets,
	    float scale, bool grad)
{
	int64_t r = blockIdx.x;
	int32_t target = targets[r];
	/* Finite, so that threads without columns merge without NaN. */
	struct stat s = { -3e38f, 0 };
	float k, at_target[1], v[W];

	z += r * ldz;
	if (target < 0) {
		for (int64_t c = threadIdx.x * W; grad && c < V; c += THREADS * W) {
#pragma unroll
			for (int i = 0; i < W; i++)
				v[i] = 0;
			store<T, W>(z + c, v);
		}
		if (!threadIdx.x) {
			nats[r] = 0;
			if (row_loss)
				row_loss[r] = 0;
		}
		return;
	}
	for (int64_t c = threadIdx.x * W; c < V; c += THREADS * W) {
		float m = s.max, sum = 0;

		load<T, W>(v, z + c);
#pragma unroll
		for (int i = 0; i < W; i++)
			m = c + i < V ? fmaxf(m, v[i]) : m;
#pragma unroll
		for (int i = 0; i < W; i++)
			sum += c + i < V ? __expf(v[i] - m) : 0;
		s.sum = s.sum * __expf(s.max - m) + sum;
		s.max = m;
	}
	load<T, 1>(at_target, z + target);
	s = block_stat(s); /* its barrier: the target is read before z changes */
	if (!threadIdx.x) {
		float loss = s.max - at_target[0] + logf(s.sum);

		nats[r] = loss;
		if (row_loss)
			row_loss[r] = loss;
	}
	if (!grad)
		return;
	k = scale / s.sum;
	for (int64_t c = threadIdx.x * W; c < V; c += THREADS * W) {
		load<T, W>(v, z + c);
#pragma unroll
		for (int i = 0; i < W; i++) {
			v[i] = __expf(v[i] - s.max) * k;
			v[i] -= c + i == target ? scale : 0;
		}
		store<T, W>(z + c, v);
	}
}

struct xent {
	int64_t R, C, V, ldz, chunk;
	void *z;
	float *nats;
};

/* dx (n,C) <- z w, dw (V,C) += z^T x, for n rows of the chunk. */
template <typename T>
static void gradients(struct lh_dev *dev, const struct xent *e, int64_t n, T *dx,
		      float *dw, const T *x, const T *w)
{
	struct lh_gemm gx = { n, e->C, e->V, e->ldz, e->C, e->C, false, false,
			      lh_cuda_type<T>, lh_cuda_type<T> };
	struct lh_gemm gw = { e->V, e->C, n, e->ldz, e->C, e->C, true, false,
			      lh_cuda_type<T>, CUDA_R_32F };

	lh_cuda_gemm(dev, &gx, dx, e->z, w, NULL);
	lh_cuda_gemm(dev, &gw, dw, e->z, x, dw);
}

template <typename T>
void lh_cuda_xent(struct lh_dev *dev, int64_t R, int64_t C, int64_t V, float *loss,
		  float *row_loss, lh_act *dx, float *dw, const lh_act *x,
		  const lh_act *w, const int32_t *targets, float scale, void *scratch,
		  size_t scratch_bytes)
{
	size_t nats_bytes = lh_cuda_xent_nats_bytes(R);
	struct xent e = { R, C, V, lh_cuda_xent_stride(V), 0, NULL, (float *)scratch };
	const T *xs = (const T *)x, *ws = (const T *)w;
	bool grad = dx;

	LH_ASSERT(!dx == !dw && scratch_bytes >= nats_bytes);
	e.z = (char *)scratch + nats_bytes;
	e.chunk = (int64_t)((scratch_bytes - nats_bytes) / sizeof(T)) / e.ldz;
	LH_ASSERT(e.chunk >= 1);
	for (int64_t r = 0; r < R; r += e.chunk) {
		int64_t n = R - r < e.chunk ? R - r : e.chunk;
		struct lh_gemm g = { n, V, C, C, C, e.ldz, false, true,
				     lh_cuda_type<T>, lh_cuda_type<T> };

		lh_cuda_gemm(dev, &g, e.z, xs + r * C, ws, NULL);
		rows_kernel<T, VEC<T>><<<(unsigned)n, THREADS, 0, dev->stream>>>(
			(T *)e.z, e.ldz, V, e.nats + r, row_loss ? row_loss + r : NULL,
			targets + r, scale, grad);
		lh_cuda_launched(dev, "xent");
		if (grad)
			gradients<T>(dev, &e, n, (T *)dx + r * C, dw, xs + r * C, ws);
	}
	lh_cuda_sum(dev, loss, e.nats, R, scale);
}

#define INSTANCE(T)                                                                   \
	template void lh_cuda_xent<T>(struct lh_dev *, int64_t, int64_t, int64_t,     \
				      float *, float *, lh_act *, float *,            \
				      const lh_act *, const lh_act *,                 \
				      const int32_t *, float, void *, size_t);
INSTANCE(bf16)
INSTANCE(float)

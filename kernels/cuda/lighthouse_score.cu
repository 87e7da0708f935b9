/* lighthouse_score.cu: the scores that selection ranks by (paper section 3.1),
 * and, on the way, the coarsest means of q and k for the gather.
 *
 * Norm scorer, one pass: TPR lanes hold a row of one head (lower and upper half
 * of it, W elements each), rotate and round it, sum its squares, keep the
 * running maxima of the levels and the running sum of the window. Reads q and k
 * once, sizeof(T) N (H+G) D bytes (0.5 b when G = H), and rotation tables from
 * cache; writes 2 H P floats and 1/c of the reading: at N = 98304, H D = 1024
 * 0.43 GB, limit 0.15 ms at 3 TB/s.
 * Windows above LH_CUDA_MEAN_WINDOW are left to max_kernel, level by level, and have no
 * means. Heads of odd widths take a plain kernel, a warp a row.
 *
 * Dilated scorer: q, k, v rotated and spread to H heads, SDPA inside each
 * residue class (a strided view), norms of its rows. */
#include "lighthouse.cuh"

enum { THREADS = 256 };

/* One tensor to score: rows of `heads` heads; head e scores the query heads
 * e * repeat .. e * repeat + repeat - 1. */
template <typename T> struct side {
	const T *x;
	int64_t row;
	int heads, repeat;
	float *score; /* (B,H,P) */
	T *mean;      /* (B,N_top,heads,D) or NULL */
};

template <typename T> struct score_args {
	struct side<T> side[2];
	struct pyramid y;
	uint32_t items;  /* B * windows * slots */
	int slots;       /* heads of both sides */
	int heads;       /* H of the score arrays */
	int half;        /* D / 2 */
	int top;         /* the level of a window, its count of levels above 0 */
	const float *cos, *sin; /* NULL: rotated already */
	const int32_t *start;   /* (B,N) of documents, or NULL */
};

__device__ __forceinline__ float rank_of(float s)
{
	return isnan(s) ? INFINITY : s;
}

/* Writes level l, entry i of the head for all query heads it stands for. */
template <typename T>
__device__ __forceinline__ void put_score(const score_args<T> &a, const side<T> &s,
					  int64_t b, int e, int32_t flat, float value)
{
	float *to = s.score + (b * a.heads + (int64_t)e * s.repeat) * a.y.P + flat;

	for (int i = 0; i < s.repeat; i++)
		to[(int64_t)i * a.y.P] = value;
}

/* Running maxima of levels 1 .. top; compile-time indices keep them in registers. */
template <int LV> struct maxima {
	float m[LV];
	int32_t left[LV]; /* tokens until the entry ends */
};

template <typename T, int LV>
__device__ __forceinline__ void take_score(const score_args<T> &a, const side<T> &s,
					   maxima<LV> &x, int64_t b, int e, int32_t t,
					   float norm, bool writer)
{
	float r = rank_of(norm);

#pragma unroll
	for (int l = 1; l <= LV; l++) {
		if (l > a.top)
			break;
		x.m[l - 1] = fmaxf(x.m[l - 1], r);
		if (--x.left[l - 1])
			continue;
		if (writer)
			put_score(a, s, b, e, a.y.base[l] + t / a.y.window[l],
				  x.m[l - 1]);
		x.m[l - 1] = 0;
		x.left[l - 1] = a.y.window[l];
	}
}

enum { AHEAD = 4 }; /* rows a group has in flight */

template <typename T, int W, int TPR, int LV, bool ROPE>
__global__ void __launch_bounds__(THREADS) score_kernel(const score_args<T> a)
{
	int lane = threadIdx.x % TPR;
	uint32_t item = blockIdx.x * (THREADS / TPR) + threadIdx.x / TPR;
	bool live = item < a.items;
	int32_t c = a.y.window[a.top], windows = a.y.entries[a.top], t0, place;
	float lo_sum[W] = { }, hi_sum[W] = { };
	maxima<LV> x;
	uint32_t b, w;
	int64_t at;
	int e, which;

	/* Idle groups repeat the last item: the warp stays whole for shuffles. */
	item = live ? item : a.items - 1;
	e = (int)(item % a.slots);
	w = item / a.slots;
	b = w / windows;
	w %= windows;
	which = e >= a.side[0].heads;
	e -= which ? a.side[0].heads : 0;
	const side<T> &s = a.side[which];
	t0 = (int32_t)w * c;
	place = t0 - (a.start ? a.start[(int64_t)b * a.y.N + t0] : 0);
	at = lane * W;
	const T *p = s.x + ((int64_t)b * a.y.N + t0) * s.row +
		     (int64_t)e * 2 * a.half + at;
#pragma unroll
	for (int l = 0; l < LV; l++) {
		x.m[l] = 0;
		x.left[l] = l < a.top ? a.y.window[l + 1] : 0;
	}
	for (int32_t t = 0; t < c; t += AHEAD) {
		raw<T, W> lo[AHEAD], hi[AHEAD];

#pragma unroll
		for (int u = 0; u < AHEAD; u++) {
			const T *from = p + (int64_t)min(t + u, c - 1) * s.row;

			lo[u] = fetch<T, W>(from);
			hi[u] = fetch<T, W>(from + a.half);
		}
#pragma unroll
		for (int u = 0; u < AHEAD; u++) {
			float va[W], vb[W], sum = 0;

			if (t + u >= c)
				break;
			unpack(va, lo[u]);
			unpack(vb, hi[u]);
			if (ROPE) {
				int64_t row = (int64_t)(place + t + u) * a.half + at;

				rotate(va, vb, a.cos + row, a.sin + row, 1);
				round_to<T>(va);
				round_to<T>(vb);
			}
#pragma unroll
			for (int i = 0; i < W; i++) {
				sum += va[i] * va[i];
				sum += vb[i] * vb[i];
				lo_sum[i] += va[i];
				hi_sum[i] += vb[i];
			}
			sum = sqrtf(lanes_sum<TPR>(sum));
			if (live && lane == (t + u) % TPR)
				put_score(a, s, b, e, t0 + t + u, sum);
			take_score<T, LV>(a, s, x, b, e, t0 + t + u, sum,
					  live && !lane);
		}
	}
	if (!live || !s.mean)
		return;
	T *mean = s.mean + (((int64_t)b * windows + w) * s.heads + e) * 2 * a.half + at;
	float inv = 1.0f / (float)c;
#pragma unroll
	for (int i = 0; i < W; i++) {
		lo_sum[i] *= inv;
		hi_sum[i] *= inv;
	}
	store<T, W>(mean, lo_sum);
	store<T, W>(mean + a.half, hi_sum);
}

/* Any head width: a warp a row, level 0 only. */
template <typename T>
__global__ void __launch_bounds__(THREADS) plain_kernel(const score_args<T> a)
{
	int lane = threadIdx.x % 32, e, which;
	uint32_t item = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, b, t;
	int64_t place;
	float sum = 0;

	if (item >= a.items)
		return;
	e = (int)(item % a.slots);
	t = item / a.slots;
	b = t / a.y.N;
	t %= a.y.N;
	which = e >= a.side[0].heads;
	e -= which ? a.side[0].heads : 0;
	const side<T> &s = a.side[which];
	const T *p = s.x + ((int64_t)b * a.y.N + t) * s.row + (int64_t)e * 2 * a.half;
	place = t - (a.start ? a.start[(int64_t)b * a.y.N + t] : 0);
	for (int d = lane; d < a.half; d += 32) {
		float va[1], vb[1];

		load<T, 1>(va, p + d);
		load<T, 1>(vb, p + d + a.half);
		if (a.cos) {
			rotate(va, vb, a.cos + place * a.half + d,
			       a.sin + place * a.half + d, 1);
			round_to<T>(va);
			round_to<T>(vb);
		}
		sum += va[0] * va[0] + vb[0] * vb[0];
	}
	sum = sqrtf(lanes_sum<32>(sum));
	if (!lane)
		put_score(a, s, b, e, (int32_t)t, sum);
}

/* Level l from level l - 1, both tensors: heads are rows of P. */
__global__ void __launch_bounds__(THREADS)
max_kernel(float *score_q, float *score_k, const struct pyramid y, int l)
{
	int32_t i = blockIdx.x * THREADS + threadIdx.x;
	float *score = (blockIdx.z ? score_k : score_q) + (int64_t)blockIdx.y * y.P;
	const float *fine = score + y.base[l - 1] + (int64_t)i * y.pool;
	float m = 0;

	if (i >= y.entries[l])
		return;
	for (int c = 0; c < y.pool; c++)
		m = fmaxf(m, rank_of(fine[c]));
	score[y.base[l] + i] = m;
}

/* ---- choosing a kernel ----------------------------------------------------- */

/* Lanes a row, or 0 where only the plain kernel fits. */
template <typename T>
static int lanes_of(const struct lh_heads *h, const T *q, const T *k)
{
	int parts = h->head_dim / 2 / VEC<T>;

	if (h->head_dim % (2 * VEC<T>) || !lh_aligned<T>(q, h->q_row) ||
	    !lh_aligned<T>(k, h->kv_row))
		return 0;
	return parts == 4 || parts == 8 || parts == 16 ? parts : 0;
}

/* The coarsest level whose windows one group walks. */
static int top_of(const struct pyramid *y)
{
	int l = 0;

	while (l + 1 < y->levels && y->window[l + 1] <= LH_CUDA_MEAN_WINDOW)
		l++;
	return l;
}

template <typename T>
bool lh_cuda_means(const struct lh_lighthouse *g, const struct lh_heads *h, const T *q,
		   const T *k)
{
	return g->scorer == LH_SCORER_NORM && lanes_of<T>(h, q, k) &&
	       lh_lighthouse_window(g, g->levels - 1) <= LH_CUDA_MEAN_WINDOW;
}

template <typename T, int TPR, int LV>
static void launch(struct lh_dev *dev, const score_args<T> &a)
{
	unsigned blocks = (unsigned)lh_ceil(a.items, THREADS / TPR);

	if (a.cos)
		score_kernel<T, VEC<T>, TPR, LV, true>
			<<<blocks, THREADS, 0, dev->stream>>>(a);
	else
		score_kernel<T, VEC<T>, TPR, LV, false>
			<<<blocks, THREADS, 0, dev->stream>>>(a);
}

template <typename T, int TPR>
static void launch_levels(struct lh_dev *dev, const score_args<T> &a)
{
	if (a.top <= 2)
		launch<T, TPR, 2>(dev, a);
	else
		launch<T, TPR, 6>(dev, a);
}

/* Fills in what follows from the sides and runs; then the levels left over. */
template <typename T>
static void score(struct lh_dev *dev, score_args<T> *a, int B, int lanes, float *score_q,
		  float *score_k)
{
	int64_t items;

	a->slots = a->side[0].heads + a->side[1].heads;
	a->top = lanes ? top_of(&a->y) : 0;
	items = (int64_t)B * a->y.entries[a->top] * a->slots;
	LH_ASSERT(items < (int64_t)1 << 32);
	a->items = (uint32_t)items;
	if (lanes == 4)
		launch_levels<T, 4>(dev, *a);
	else if (lanes == 8)
		launch_levels<T, 8>(dev, *a);
	else if (lanes == 16)
		launch_levels<T, 16>(dev, *a);
	else
		plain_kernel<T><<<(unsigned)lh_ceil(a->items, THREADS / 32), THREADS, 0,
				  dev->stream>>>(*a);
	for (int l = a->top + 1; l < a->y.levels; l++) {
		dim3 grid((unsigned)lh_ceil(a->y.entries[l], THREADS),
			  (unsigned)(B * a->heads), score_k ? 2 : 1);

		max_kernel<<<grid, THREADS, 0, dev->stream>>>(score_q, score_k, a->y, l);
	}
	lh_cuda_launched(dev, "lighthouse_score");
}

/* ---- the dilated scorer ---------------------------------------------------- */

/* out (B,N,H,D) <- rows of `heads` heads, rotated, each repeated for its group. */
template <typename T>
__global__ void __launch_bounds__(THREADS)
expand_kernel(T *__restrict__ out, const T *__restrict__ x, int64_t items, int64_t N,
	      int heads, int repeat, int half, int64_t row,
	      const float *__restrict__ cos, const float *__restrict__ sin)
{
	int64_t item = (int64_t)blockIdx.x * THREADS + threadIdx.x, r;
	int d, e;
	float a[1], b[1];

	if (item >= items)
		return;
	d = (int)(item % half);
	e = (int)(item / half % heads);
	r = item / half / heads;
	x += r * row + (int64_t)(e / repeat) * 2 * half + d;
	out += (r * heads + e) * 2 * half + d;
	load<T, 1>(a, x);
	load<T, 1>(b, x + half);
	if (cos)
		rotate(a, b, cos + r % N * half + d, sin + r % N * half + d, 1);
	store<T, 1>(out, a);
	store<T, 1>(out + half, b);
}

template <typename T>
static void expand(struct lh_dev *dev, const struct lh_heads *h, T *out, const T *x,
		   int64_t row, int heads, const struct lh_rope *rope)
{
	int half = h->head_dim / 2;
	int64_t items = h->batch * h->tokens * h->heads * half;

	expand_kernel<T><<<(unsigned)lh_ceil(items, THREADS), THREADS, 0, dev->stream>>>(
		out, x, items, h->tokens, h->heads, h->heads / heads, half, row,
		rope ? rope->cos : NULL, rope ? rope->sin : NULL);
}

/* score (B,H,P) <- norms of attention rows inside residue classes; o: scratch. */
template <typename T>
static void class_norms(struct lh_dev *dev, const struct lh_lighthouse *g,
			const struct lh_heads *h, float *out, T *o, const T *q,
			const T *k, const T *v)
{
	int64_t row = (int64_t)h->heads * h->head_dim;
	struct lh_sdpa s = lh_cuda_class_sdpa(g, h);
	struct lh_heads whole = *h;
	score_args<T> a = { };

	for (int c = 0; c < g->dilation; c++)
		lh_cuda_sdpa<T>(dev, &s, o + c * row, NULL, q + c * row, k + c * row,
				v + c * row);
	whole.q_row = whole.kv_row = row;
	a.y = pyramid_of(g);
	a.heads = h->heads;
	a.half = h->head_dim / 2;
	a.side[0] = { o, row, h->heads, 1, out, NULL };
	score<T>(dev, &a, h->batch, lanes_of<T>(&whole, o, o), out, NULL);
}

template <typename T>
void lh_cuda_lighthouse_score(struct lh_dev *dev, const struct lh_lighthouse *g,
			      const struct lh_heads *h, float *score_q, float *score_k,
			      const lh_act *q, const lh_act *k, const lh_act *v,
			      const struct lh_rope *rope, void *scratch)
{
	int64_t size = h->batch * g->tokens * h->heads * h->head_dim;
	const T *qs = (const T *)q, *ks = (const T *)k;
	T *base = (T *)scratch;
	score_args<T> a = { };

	LH_ASSERT(h->tokens == g->tokens);
	if (g->scorer == LH_SCORER_NORM) {
		bool means = lh_cuda_means<T>(g, h, qs, ks);

		a.y = pyramid_of(g);
		a.heads = h->heads;
		a.half = h->head_dim / 2;
		a.cos = rope ? rope->cos : NULL;
		a.sin = rope ? rope->sin : NULL;
		a.start = h->start;
		a.side[0] = { qs, h->q_row, h->heads, 1, score_q, means ? base : NULL };
		a.side[1] = { ks, h->kv_row, h->kv_heads, h->heads / h->kv_heads,
			      score_k,
			      means ? base + size / a.y.window[a.y.levels - 1] : NULL };
		score<T>(dev, &a, h->batch, lanes_of<T>(h, qs, ks), score_q, score_k);
		return;
	}
	LH_ASSERT(!h->start); /* refused when the job is checked */
	expand<T>(dev, h, base, qs, h->q_row, h->heads, rope);
	expand<T>(dev, h, base + size, ks, h->kv_row, h->kv_heads, rope);
	expand<T>(dev, h, base + 2 * size, (const T *)v, h->kv_row, h->kv_heads, NULL);
	class_norms<T>(dev, g, h, score_q, base + 3 * size, base, base + size,
		       base + 2 * size);
	class_norms<T>(dev, g, h, score_k, base + 3 * size, base + size, base,
		       base + 2 * size);
}

#define INSTANCE(T)                                                                   \
	template bool lh_cuda_means<T>(const struct lh_lighthouse *,                  \
				       const struct lh_heads *, const T *, const T *); \
	template void lh_cuda_lighthouse_score<T>(                                    \
		struct lh_dev *, const struct lh_lighthouse *,                        \
		const struct lh_heads *, float *, float *, const lh_act *,            \
		const lh_act *, const lh_act *, const struct lh_rope *, void *);
INSTANCE(bf16)
INSTANCE(float)

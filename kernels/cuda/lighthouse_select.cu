/* lighthouse_select.cu: which entries of the pyramid form the sub-sequence
 * (paper section 3.2), and the inverse map.
 *
 * A block owns a tile. From the coarsest level down it finds the m/2 best
 * candidates by query score and, among the others, m/2 by key score, without
 * sorting: a bound is built two bits at a time by counting until it parts the
 * winners from the rest (about 10 rounds, 16 at most), equals are taken from the
 * left by prefix sums. Winners are kept
 * as ascending lists; the candidates of the next level are their children.
 *
 * With documents every candidate is ranked among those of its own, by counting them:
 * each has its share of the budget, and which winners and candidates are its follows
 * from its place in the tile, at every level. That is n additions a candidate, of n.
 *
 * Rows: the causal order is the post-order of the tree, so the row of an entry
 * is the number of entries before it: at its own level its ordinal; above, the
 * ordinal of its ancestor; below, p times the winners among the entries so far
 * (a search in the level's list). Nothing is sorted by position.
 *
 * Bytes are few (the coarser scores once, S and P ints); the time is the
 * latency of about 60 barriers a level: on an H100 15 us a level at N = 8,192,
 * 21 us at 98,304. */
#include "lighthouse.cuh"

enum { MAX_THREADS = 1024, ROUNDS = 16 };

struct select_args {
	struct pyramid y;
	const float *score_q, *score_k; /* (BH,P) */
	int32_t *index;                 /* (BH,S) */
	char *scratch;                  /* NULL: the tile fits in shared memory */
	size_t bytes;                   /* of one tile */
	int tiles, budget;              /* m */
	int first;                      /* candidates of a tile at the top level */
	int most;                       /* candidates of any level at most */
	const int32_t *start;           /* (B,N) of documents, or NULL */
	int heads;
};

/* What a block works on, of lh_cuda_select_tile_bytes; lists ascend. */
struct tile {
	uint32_t *key;    /* (most) rank of a candidate, larger is better */
	int32_t *ordinal; /* (L - 1, m) winners of level l + 1: among candidates */
	int32_t *where;   /* (L - 1, m) and in the level */
	uint8_t *won;     /* (most) */
};

/* Order of floats as order of integers; NaN is +inf, -0 is 0. */
__device__ __forceinline__ uint32_t key_of(float s)
{
	uint32_t u;

	if (isnan(s))
		s = INFINITY;
	u = __float_as_uint(s == 0 ? 0.0f : s);
	return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* Position in level l of candidate i. */
__device__ __forceinline__ int32_t position(const select_args &a, const tile &t, int l,
					    int32_t i, int number)
{
	if (l == a.y.levels - 1)
		return number * a.first + i;
	return t.where[l * a.budget + i / a.y.pool] * a.y.pool + i % a.y.pool;
}

__device__ __forceinline__ int32_t warp_total(int32_t x)
{
	return (int32_t)__reduce_add_sync(ALL, (unsigned)x);
}

/* A key, and in *above how many candidates that are not won yet have a larger one:
 * the `want`-th largest, or as soon as exactly `want` are known to be larger than
 * something, that. */
__device__ static uint32_t nth_key(const tile &t, int32_t n, int32_t want,
				   int32_t *above)
{
	__shared__ int32_t counts[ROUNDS][3];
	uint32_t prefix = 0;
	int32_t over = 0; /* keys whose leading bits are above the prefix's */

	for (int i = threadIdx.x; i < ROUNDS * 3; i += blockDim.x)
		(&counts[0][0])[i] = 0;
	__syncthreads();
	for (int round = 0; round < ROUNDS; round++) {
		int shift = 30 - 2 * round;
		int32_t c[3] = { };

		for (int32_t i = threadIdx.x; i < n; i += blockDim.x) {
			uint32_t d = (t.key[i] >> shift) - (prefix >> shift);
			bool same = !t.won[i] && d < 4;

			/* d: the next two bits of keys that share the prefix */
			c[0] += same && d == 3;
			c[1] += same && d >= 2;
			c[2] += same && d >= 1;
		}
		for (int k = 0; k < 3; k++) {
			int32_t sum = warp_total(c[k]);

			if (sum && threadIdx.x % 32 == 0)
				atomicAdd(&counts[round][k], sum);
		}
		__syncthreads();
		/* The largest digit at which enough keys are at or above. */
		uint32_t digit = 3;
		int32_t before = 0, at = -1;

		for (int k = 0; k < 3; k++) {
			at = counts[round][k];
			if (over + at >= want)
				break;
			before = at;
			digit--;
		}
		prefix |= digit << shift;
		if (digit && over + at == want) {
			over = want;
			prefix--;
			break;
		}
		over += before;
	}
	__syncthreads(); /* counts are done with */
	*above = over;
	return prefix;
}

/* Exclusive prefix sum of a flag over the block; *total is the block's. */
__device__ static int32_t prefix_of(bool flag, int32_t *total)
{
	__shared__ int32_t warps[MAX_THREADS / 32];
	unsigned votes = __ballot_sync(ALL, flag);
	int warp = threadIdx.x / 32;
	int32_t before = 0, all = 0;

	if (threadIdx.x % 32 == 0)
		warps[warp] = __popc(votes);
	__syncthreads();
	for (int i = 0; i < (int)blockDim.x / 32; i++) {
		before += i < warp ? warps[i] : 0;
		all += warps[i];
	}
	__syncthreads(); /* warps may be written again */
	*total = all;
	return before + __popc(votes & ((1u << threadIdx.x % 32) - 1));
}

/* Marks the `want` best of n candidates that are not won yet. */
__device__ static void win(const tile &t, int32_t n, int32_t want)
{
	int32_t above, taken = 0, total;
	uint32_t last = nth_key(t, n, want, &above);
	int32_t equals = want - above; /* to take, from the left */

	for (int32_t i0 = 0; i0 < n; i0 += blockDim.x) {
		int32_t i = i0 + threadIdx.x;
		bool open = i < n && !t.won[i];
		bool equal = open && t.key[i] == last;
		int32_t rank = taken + prefix_of(equal, &total);

		taken += total;
		if (open && (t.key[i] > last || (equal && rank < equals)))
			t.won[i] = 1;
	}
	__syncthreads();
}

struct document { /* the part that lies in a tile */
	int32_t from, to; /* coarsest entries */
};

/* Whose the n-th coarsest entry of a tile is; start (N). */
__device__ static document document_of(const select_args &a, const int32_t *start, int number,
				       int32_t n)
{
	int32_t c = a.y.window[a.y.levels - 1], first = number * a.first;
	int32_t begin = start[(first + n) * c], low = n + 1, high = a.first;

	while (low < high) { /* the first entry of a later one */
		int32_t mid = (low + high) / 2;

		if (start[(first + mid) * c] > begin)
			high = mid;
		else
			low = mid + 1;
	}
	return { max(begin / c - first, 0), low };
}

/* Of a tile's budget, what its first n coarsest entries have: lh_lighthouse_share. */
__device__ __forceinline__ int32_t share(const select_args &a, int32_t n)
{
	return (int32_t)((int64_t)a.budget * n / a.first);
}

/* Marks, of every document's candidates of level l that are not won yet, the best:
 * half of its share, `more` the larger half. */
__device__ static void win_documents(const select_args &a, const tile &t, const int32_t *start,
				     int l, int32_t n, int number, bool more)
{
	bool top = l == a.y.levels - 1;
	int32_t wide = a.y.window[a.y.levels - 1] / a.y.window[l];

	for (int32_t i = threadIdx.x; i < n; i += blockDim.x) {
		int32_t entry = position(a, t, l, i, number) / wide - number * a.first;
		document d = document_of(a, start, number, entry);
		int32_t q = share(a, d.to) - share(a, d.from), better = 0;
		int32_t from = top ? d.from : a.y.pool * share(a, d.from);
		int32_t to = top ? d.to : a.y.pool * share(a, d.to);

		if (t.won[i] & 1)
			continue;
		for (int32_t j = from; j < to; j++)
			better += !(t.won[j] & 1) &&
				  (t.key[j] > t.key[i] || (t.key[j] == t.key[i] && j < i));
		if (better < (more ? (q + 1) / 2 : q / 2))
			t.won[i] = 2; /* others are still counting */
	}
	__syncthreads();
	for (int32_t i = threadIdx.x; i < n; i += blockDim.x)
		t.won[i] = t.won[i] != 0;
	__syncthreads();
}

__device__ static void load_keys(const select_args &a, const tile &t, const float *score,
				 int l, int32_t n, int number, bool clear)
{
	for (int32_t i = threadIdx.x; i < n; i += blockDim.x) {
		t.key[i] = key_of(score[a.y.base[l] + position(a, t, l, i, number)]);
		if (clear)
			t.won[i] = 0;
	}
	__syncthreads();
}

/* Lists the winners of level l in ascending order. */
__device__ static void list_winners(const select_args &a, const tile &t, int l, int32_t n,
				    int number)
{
	int32_t *ordinal = t.ordinal + (l - 1) * a.budget;
	int32_t *where = t.where + (l - 1) * a.budget;
	int32_t done = 0, total;

	for (int32_t i0 = 0; i0 < n; i0 += blockDim.x) {
		int32_t i = i0 + threadIdx.x;
		bool won = i < n && t.won[i];
		int32_t at = done + prefix_of(won, &total);

		if (won) {
			ordinal[at] = i;
			where[at] = position(a, t, l, i, number);
		}
		done += total;
	}
	__syncthreads();
}

/* Winners of level l among its first n candidates. */
__device__ __forceinline__ int32_t winners_before(const select_args &a, const tile &t,
						  int l, int32_t n)
{
	const int32_t *list = t.ordinal + (l - 1) * a.budget;
	int32_t low = 0, high = a.budget;

	while (low < high) {
		int32_t mid = (low + high) / 2;

		if (list[mid] < n)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* Row, in the tile, of candidate i of level l. */
__device__ static int32_t row_of(const select_args &a, const tile &t, int l, int32_t i)
{
	int32_t row = i, n = i + 1;

	for (int j = l; j > 0; j--) { /* descendants of the first n candidates */
		n = winners_before(a, t, j, n) * a.y.pool;
		row += n;
	}
	for (int j = l; j < a.y.levels - 1; j++) { /* elders of the ancestors */
		i = t.ordinal[j * a.budget + i / a.y.pool];
		row += i;
	}
	return row;
}

__global__ void __launch_bounds__(MAX_THREADS) select_kernel(const select_args a)
{
	extern __shared__ char shared[];
	int number = blockIdx.x, top = a.y.levels - 1;
	int64_t bh = blockIdx.y;
	char *base = a.scratch ? a.scratch + (bh * a.tiles + number) * a.bytes : shared;
	const float *sq = a.score_q + bh * a.y.P, *sk = a.score_k + bh * a.y.P;
	const int32_t *start = a.start ? a.start + bh / a.heads * a.y.N : NULL;
	int32_t rows = a.y.S / a.tiles;
	int32_t *out = a.index + bh * a.y.S + (int64_t)number * rows;
	tile t;

	t.key = (uint32_t *)base;
	t.ordinal = (int32_t *)(t.key + a.most);
	t.where = t.ordinal + top * a.budget;
	t.won = (uint8_t *)(t.where + top * a.budget);
	for (int l = top; l > 0; l--) {
		int32_t n = l == top ? a.first : a.y.pool * a.budget;

		for (int side = 0; side < 2; side++) {
			load_keys(a, t, side ? sk : sq, l, n, number, !side);
			if (start)
				win_documents(a, t, start, l, n, number, !side);
			else
				win(t, n, a.budget / 2);
		}
		list_winners(a, t, l, n, number);
	}
	for (int l = top; l >= 0; l--) {
		int32_t n = l == top ? a.first : a.y.pool * a.budget;

		for (int32_t i = threadIdx.x; i < n; i += blockDim.x)
			out[row_of(a, t, l, i)] =
				a.y.base[l] + position(a, t, l, i, number);
	}
}

/* A tile's rows and entries are its own at every level. */
__global__ void __launch_bounds__(MAX_THREADS)
map_kernel(const struct pyramid y, int tiles, int32_t *map, const int32_t *index)
{
	int64_t bh = blockIdx.y;
	int32_t rows = y.S / tiles, first = blockIdx.x * rows;

	map += bh * y.P;
	for (int l = 0; l < y.levels; l++) {
		int32_t n = y.entries[l] / tiles;
		int32_t *to = map + y.base[l] + (int64_t)blockIdx.x * n;

		for (int32_t i = threadIdx.x; i < n; i += blockDim.x)
			to[i] = -1;
	}
	__syncthreads(); /* the block's own stores, in order */
	for (int32_t i = threadIdx.x; i < rows; i += blockDim.x)
		map[index[bh * y.S + first + i]] = first + i;
}

void lh_cuda_lighthouse_select(struct lh_dev *dev, const struct lh_lighthouse *g,
			       const struct lh_heads *h, int32_t *index,
			       const float *score_q, const float *score_k)
{
	int64_t BH = (int64_t)h->batch * h->heads;
	struct select_args a = { };
	size_t shared;
	int threads;

	a.y = pyramid_of(g);
	a.tiles = (int)lh_lighthouse_tiles(g);
	a.budget = g->tile;
	a.first = a.y.entries[a.y.levels - 1] / a.tiles;
	a.most = lh_cuda_select_candidates(g);
	a.score_q = score_q;
	a.score_k = score_k;
	a.index = index;
	a.start = h->start;
	a.heads = h->heads;
	a.bytes = lh_cuda_select_tile_bytes(g);
	shared = a.bytes <= LH_CUDA_SELECT_SHARED_BYTES ? a.bytes : 0;
	if (!shared) {
		a.scratch = (char *)lh_cuda_scratch(dev, a.bytes * (size_t)BH *
								 (size_t)a.tiles);
		if (!a.scratch)
			return;
	}
	threads = (a.most + 31) / 32 * 32;
	threads = threads > MAX_THREADS ? MAX_THREADS : threads;
	if (!lh_cuda_check(dev, "lighthouse_select",
			   cudaFuncSetAttribute((const void *)select_kernel,
						cudaFuncAttributeMaxDynamicSharedMemorySize,
						LH_CUDA_SELECT_SHARED_BYTES)))
		return;
	select_kernel<<<dim3((unsigned)a.tiles, (unsigned)BH), threads, shared,
			dev->stream>>>(a);
	lh_cuda_launched(dev, "lighthouse_select");
}

void lh_cuda_lighthouse_map(struct lh_dev *dev, const struct lh_lighthouse *g,
			    int64_t BH, int32_t *map, const int32_t *index)
{
	struct pyramid y = pyramid_of(g);
	int tiles = (int)lh_lighthouse_tiles(g);

	map_kernel<<<dim3((unsigned)tiles, (unsigned)BH), MAX_THREADS, 0, dev->stream>>>(
		y, tiles, map, index);
	lh_cuda_launched(dev, "lighthouse_map");
}

/* comm.cu: collectives between two GPUs, and those of a part that is both of them: each
 * gives what it says, to the bit, also beside what the device does, and takes as long as
 * NCCL's own call of the same size on a communicator of its own.
 *
 *   mpiexec.hydra -n 2 comm [--cpu]
 *
 * Exit: 0, 1 when something is not so, 2 when something fails. */
#include "bare.cuh"

static const double SHARE = 0.85; /* of NCCL's own rate, at least */
enum { ROUNDS = 7, CALLS = 10, TURNS = 3, CLEARS = 20, BUSY_FLOATS = 4 << 20 };

static bool failed;

/* ---- values ---------------------------------------------------------------- */

/* Of rank r at i: large and small ones. */
static float value(int r, int64_t i)
{
	static const float scale[] = { 1, 1e7f, 1e-7f, -1e7f };

	return scale[(r + i) % 4] * (float)(1 + (i * 7 + r * 13) % 101);
}

/* What rank r has of `count` a rank, from value `from` on. */
static std::vector<float> filled(const struct ranks *r, int64_t count, int64_t from = 0)
{
	std::vector<float> x((size_t)(r->comm.size * count));

	for (size_t i = 0; i < x.size(); i++)
		x[i] = value(r->comm.rank, from + (int64_t)i);
	return x;
}

static std::vector<float> fetched(struct ranks *r, const float *x, int64_t n)
{
	std::vector<float> host((size_t)n);
	struct lh_err err = LH_ERR_INIT;

	if (r->ops->fetch(r->dev, host.data(), x, (size_t)n * sizeof(float), &err))
		ranks_die(&err);
	return host;
}

/* Pieces of `count` floats; `uneven`: rank 1 has a third of that. */
static int64_t wrong_sums(struct ranks *r, const struct lh_comm *c, int64_t count,
			  bool uneven, bool add)
{
	int64_t n = c->size * count, at[3] = { 0, count, uneven ? count + count / 3 : n };
	int64_t own = at[c->rank + 1] - at[c->rank], wrong = 0;
	float *x = (float *)ranks_alloc(r, (size_t)n * sizeof(*x));
	float *more = (float *)ranks_alloc(r, (size_t)count * sizeof(*more));
	float *into = add ? more : x + at[c->rank];
	std::vector<float> had = filled(r, count), threes((size_t)count, 3), got;

	r->ops->put(r->dev, x, had.data(), had.size() * sizeof(float));
	r->ops->put(r->dev, more, threes.data(), threes.size() * sizeof(float));
	lh_comm_reduce_scatter(c, "sums", x, at, into, add);
	got = fetched(r, into, own);
	for (int64_t i = 0; i < own; i++) {
		float sum = value(0, at[c->rank] + i) + value(1, at[c->rank] + i);

		wrong += got[(size_t)i] != (add ? 3 + sum : sum);
	}
	r->ops->free(r->dev, x);
	r->ops->free(r->dev, more);
	return wrong;
}

/* Pieces of `first_of` floats of rank 0 and `count` of rank 1; in place, or from
 * elsewhere. */
static int64_t wrong_gathered(struct ranks *r, const struct lh_comm *c, int64_t first_of,
			      int64_t count, bool elsewhere)
{
	int64_t first = c->rank * first_of, n = first_of + count, wrong = 0;
	int64_t own_of = c->rank ? count : first_of;
	const int64_t at_bytes[] = { 0, first_of * 4, n * 4 };
	float *x = (float *)ranks_alloc(r, (size_t)n * sizeof(*x));
	float *own = (float *)ranks_alloc(r, (size_t)own_of * sizeof(*own));
	std::vector<float> had = filled(r, count), got;

	r->ops->zero(r->dev, x, (size_t)n * sizeof(*x));
	r->ops->put(r->dev, elsewhere ? own : x + first, had.data() + first,
		    (size_t)own_of * sizeof(float));
	lh_comm_gather(c, "pieces", x, at_bytes, elsewhere ? own : x + first);
	got = fetched(r, x, n);
	for (int64_t i = 0; i < n; i++)
		wrong += got[(size_t)i] != value(i >= first_of, i);
	r->ops->free(r->dev, x);
	r->ops->free(r->dev, own);
	return wrong;
}

/* A third of `count` floats, and `count` of them, each way. */
static int64_t wrong_exchanged(struct ranks *r, const struct lh_comm *c, int64_t count,
			       bool beside)
{
	int64_t third = count / 3 + 1, n = count + third, wrong = 0;
	float *give = (float *)ranks_alloc(r, (size_t)n * sizeof(*give));
	float *take = (float *)ranks_alloc(r, (size_t)n * sizeof(*take));
	std::vector<float> had = filled(r, n), got;
	const struct lh_comm_message messages[] = {
		{ 1 - c->rank, true, take, 4 * third },
		{ 1 - c->rank, false, give, 4 * third },
		{ 1 - c->rank, false, give + third, 4 * count },
		{ 1 - c->rank, true, take + third, 4 * count },
	};

	r->ops->put(r->dev, give, had.data(), (size_t)n * sizeof(float));
	if (beside) {
		lh_comm_begin_exchange(c, "messages", messages, 4, 1);
		lh_comm_await(c, 1);
	} else {
		lh_comm_exchange(c, "messages", messages, 4);
	}
	got = fetched(r, take, n);
	for (int64_t i = 0; i < n; i++)
		wrong += got[(size_t)i] != value(1 - c->rank, i);
	r->ops->free(r->dev, give);
	r->ops->free(r->dev, take);
	return wrong;
}

/* What takes a device about as long as a collective, and one of another comm. */
static void keep_busy(struct ranks *r, const struct lh_comm *other, float *busy)
{
	const int64_t bytes = 2 * BUSY_FLOATS;
	const struct lh_comm_message messages[] = {
		{ 1 - other->rank, false, busy, bytes },
		{ 1 - other->rank, true, busy + BUSY_FLOATS / 2, bytes },
	};

	for (int i = 0; i < CLEARS; i++)
		r->ops->zero(r->dev, busy, BUSY_FLOATS * sizeof(*busy));
	lh_comm_exchange(other, "messages", messages, 2);
}

/* Of `count` floats a rank, gathered and summed beside what the device does: after what it
 * was given before, and before what it is given after they are awaited. */
static int64_t wrong_beside(struct ranks *r, const struct lh_comm *c,
			    const struct lh_comm *other, int64_t count)
{
	const int64_t n = 2 * count, at[] = { 0, count, n }, at_bytes[] = { 0, 4 * count, 4 * n };
	const size_t bytes = (size_t)n * sizeof(float);
	float *own = (float *)ranks_alloc(r, bytes / 2), *all = (float *)ranks_alloc(r, bytes);
	float *x = (float *)ranks_alloc(r, bytes), *into = (float *)ranks_alloc(r, bytes / 2);
	float *busy = (float *)ranks_alloc(r, BUSY_FLOATS * sizeof(*busy));
	int64_t wrong = 0;

	for (int turn = 0; turn < TURNS; turn++) {
		std::vector<float> had = filled(r, count, turn), got, sums;
		int gathers = turn, adds = LH_COMM_SLOTS - 1 - turn;

		r->ops->zero(r->dev, all, bytes);
		r->ops->zero(r->dev, into, bytes / 2);
		r->ops->put(r->dev, own, had.data() + c->rank * count, bytes / 2);
		r->ops->put(r->dev, x, had.data(), bytes);
		lh_comm_begin_gather(c, "pieces", all, at_bytes, own, gathers);
		lh_comm_begin_reduce_scatter(c, "sums", x, at, into, true, adds);
		keep_busy(r, other, busy);
		lh_comm_await(c, adds);
		sums = fetched(r, into, count);
		lh_comm_await(c, gathers);
		got = fetched(r, all, n);
		for (int64_t i = 0; i < n; i++)
			wrong += got[(size_t)i] != value(i >= count, turn + i);
		for (int64_t i = 0; i < count; i++) {
			int64_t k = turn + c->rank * count + i;

			wrong += sums[(size_t)i] != value(0, k) + value(1, k);
		}
	}
	for (float *p : { own, all, x, into, busy })
		r->ops->free(r->dev, p);
	return wrong;
}

static void check_none(struct ranks *r, int64_t wrong, const char *what, int64_t count,
		       const char *whose)
{
	double most = ranks_most(r, (double)wrong);
	char text[80];

	snprintf(text, sizeof(text), "wrong %s of %lld, %s", what, (long long)count, whose);
	failed |= !ranks_check(r, !most, text, most, 0);
}

/* Of c, which is both ranks. */
static void check_values(struct ranks *r, const struct lh_comm *c, int64_t count,
			 const char *whose)
{
	int64_t sums = 0, gathered = 0, uneven = 0;

	for (int k = 0; k < 4; k++)
		sums += wrong_sums(r, c, count, k & 1, k & 2);
	for (int k = 0; k < 2; k++) {
		gathered += wrong_gathered(r, c, count, count, k);
		uneven += wrong_gathered(r, c, count / 3, count, k);
		uneven += wrong_gathered(r, c, 0, count, k);
	}
	check_none(r, sums, "sums", count, whose);
	check_none(r, gathered, "values gathered", count, whose);
	check_none(r, uneven, "values gathered unevenly", count, whose);
	check_none(r, wrong_exchanged(r, c, count, false), "values exchanged", count, whose);
	check_none(r, wrong_exchanged(r, c, count, true), "values exchanged beside", count, whose);
}

static double free_gib(const struct ranks *r)
{
	return (double)r->ops->free_bytes(r->dev) / (1 << 30);
}

static struct lh_comm part_of(struct ranks *r, int group)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_comm part;

	if (lh_comm_split(&r->comm, "a part", group, &part, &err))
		ranks_die(&err);
	return part;
}

/* A part that both ranks are in, used in turn with the whole; one of each alone. */
static void check_parts(struct ranks *r)
{
	double before = free_gib(r), taken;
	struct lh_comm both = part_of(r, 7), alone = part_of(r, r->comm.rank);
	float x = 3;

	taken = ranks_most(r, before - free_gib(r));
	ranks_must(both.size == 2 && both.rank == r->comm.rank, "a part of both");
	ranks_must(alone.size == 1 && !alone.rank && !alone.line, "a part of one");
	lh_comm_collect(&alone, "nothing", &x, sizeof(x));
	for (int64_t count : { 1, 3, 65537, 5000001 }) {
		check_values(r, &both, count, "a part's");
		check_values(r, &r->comm, count, "all ranks'");
		check_none(r, wrong_beside(r, &both, &r->comm, count), "values beside", count,
			   "a part's");
		check_none(r, wrong_beside(r, &r->comm, &both, count), "values beside", count,
			   "all ranks'");
	}
	if (!r->comm.rank)
		printf("a part takes %.2f GiB of a GPU\n", taken);
	lh_comm_close(&alone);
	lh_comm_close(&both);
}

/* ---- speed ----------------------------------------------------------------- */

/* Seconds of a call: of CALLS in a row, on the slower rank. */
template <typename F> static double seconds(struct ranks *r, cudaStream_t stream, F call)
{
	int64_t start;

	ranks_meet(r);
	start = lh_clock_us();
	for (int i = 0; i < CALLS; i++)
		call();
	ranks_must(cudaStreamSynchronize(stream) == cudaSuccess, "a collective");
	return ranks_most(r, (double)(lh_clock_us() - start) / (1e6 * (double)CALLS));
}

template <typename F, typename G>
static void compare(struct ranks *r, const struct bare *b, const char *what, int64_t count,
		    F ours, G bare)
{
	double bytes = (double)count * 4 * (r->comm.size - 1), mine, theirs;
	std::vector<double> own, other;
	char text[120];

	for (int i = 0; i < ROUNDS; i++) { /* in turn; the first ones warm up */
		other.push_back(seconds(r, b->stream, bare));
		own.push_back(seconds(r, r->dev->stream, ours));
	}
	mine = ranks_median(own);
	theirs = ranks_median(other);
	snprintf(text, sizeof(text), "%s, %.1f MiB a rank: %.3f ms, %.0f GB/s; NCCL's own / it",
		 what, (double)count * 4 / (1 << 20), mine * 1e3, bytes / mine / 1e9);
	failed |= !ranks_check(r, theirs / mine >= SHARE, text, theirs / mine, SHARE);
}

static void check_speed(struct ranks *r, const struct bare *b, int64_t count)
{
	const struct lh_comm *c = &r->comm;
	const int64_t at[] = { 0, count, 2 * count };
	const int64_t at_bytes[] = { 0, 4 * count, 8 * count };
	size_t bytes = (size_t)(c->size * count) * sizeof(float);
	float *x = (float *)ranks_alloc(r, bytes), *own = x + c->rank * count;
	const struct lh_comm_message messages[] = {
		{ 1 - c->rank, false, own, 4 * count },
		{ 1 - c->rank, true, x + (1 - c->rank) * count, 4 * count },
	};

	r->ops->zero(r->dev, x, bytes);
	compare(r, b, "reduce_scatter", count,
		[&] { lh_comm_reduce_scatter(c, "sums", x, at, own, false); },
		[&] { bare_sum(b, x, own, 4 * count); });
	compare(r, b, "gather", count,
		[&] { lh_comm_gather(c, "pieces", x, at_bytes, own); },
		[&] { bare_gather(b, x, own, 4 * count); });
	compare(r, b, "exchange", count,
		[&] { lh_comm_exchange(c, "messages", messages, 2); },
		[&] { bare_exchange(b, c, x, own, 4 * count); });
	r->ops->free(r->dev, x);
}

static void check_speeds(struct ranks *r)
{
	struct bare b = { };

	bare_open(&b, &r->comm);
	for (int64_t count : { (int64_t)1 << 18, (int64_t)1 << 24, (int64_t)265 << 20 })
		check_speed(r, &b, count);
	bare_close(&b);
}

int main(int argc, char **argv)
{
	bool cpu = ranks_has(argc, argv, "--cpu");
	struct ranks r;

	ranks_open(&r, cpu ? &lh_ops_cpu : &lh_ops_cuda);
	ranks_must(r.comm.size == 2, "two ranks: mpiexec.hydra -n 2");
	check_parts(&r);
	if (!cpu) {
		printf("rank %d: %.2f GiB of its GPU are free\n", r.comm.rank, free_gib(&r));
		check_speeds(&r);
	}
	ranks_close(&r);
	return failed;
}

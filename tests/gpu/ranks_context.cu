/* ranks_context.cu: optimizer steps of a 530 M model whose ranks share each sequence; and
 * what of a step their collectives are.
 *
 *   mpiexec.hydra -n 2 ranks_context [--cpu | --profile] light|full|million|million-light|
 *                                                        million-full
 *
 * light, full      98,304 tokens, Lighthouse or full attention, beside each rank by itself
 *                  with the same sequence: the faster of them is what two are measured by
 * million          1,048,576 tokens, Lighthouse with four dense layers
 * million-light    1,048,576 tokens, Lighthouse in the published style, without
 * million-full     1,048,576 tokens, full attention: for four GPUs
 *
 * Any number of ranks share a sequence; the bars are those of two. --profile: every rank tells
 * of a step op by op, too.
 *
 * Recomputation is what an 80 GB GPU needs, whatever is there. Seconds are medians over host
 * clocks around whole steps. A collective's time is that between events around it on the
 * stream: the least of all ranks, since the last one waits for nobody; those of a size are
 * added up, and measured beside NCCL's own call in the same run: of an exchange that is one
 * message from each rank to each other, of the bytes that went so.
 *
 * The last line is "shared NAME STEP_S TOKENS_PER_S TIMES GIB COLLECTIVES_MS SHARE
 * SETUP_S". Exit: 0, 1 when a bar is missed, 2 when something fails. */
#include "bare.cuh"
#include "ranks_step.cuh"
#include "trace.cuh"

extern "C" {
#include "train/estimate.h"
#include "train/layout.h"
}

#include <map>

struct setting {
	const char *name;
	int64_t tokens, topk;
	int levels; /* 0: full attention */
	bool dense;
	int steps; /* after the first; 0: that one counts */
	double times, tokens_per_s; /* at least; 0: no bar */
};

static const struct setting settings[] = {
	{ "light", 98304, 1536, 3, true, 5, 1.75, 0 },
	{ "full", 98304, 0, 0, true, 3, 1.90, 0 },
	{ "million", 1 << 20, 8192, 3, true, 2, 0, 24000 },
	{ "million-light", 1 << 20, 4096, 4, false, 3, 0, 200000 },
	{ "million-full", 1 << 20, 0, 0, true, 0, 0, 0 },
};

static const double SHARE = 0.85; /* of NCCL's own rate, at least */
enum { CALLS = 10 };

/* One collective of a step, on this rank. */
struct call {
	bool exchange; /* or a gather */
	int64_t bytes; /* of a gather a rank's, of an exchange all that go and come: on all
			* ranks the same */
	std::vector<int64_t> to, from; /* of an exchange, by rank */
	cudaEvent_t begin, end;
	std::vector<double> ms;
};

struct bench {
	struct ranks r;
	const struct setting *of;
	bool cpu, profile;
	int64_t tokens;
	struct lh_job_model shape;
	std::vector<int32_t> ids;
	double setup_s, gib;
};

/* What the next step calls, in its order. */
static struct {
	cudaStream_t stream;
	size_t ranks;
	std::vector<call> calls;
	size_t at;
} watched;

static bool failed;

/* ---- collectives ------------------------------------------------------------- */

static struct call *next_call(bool exchange)
{
	if (watched.at == watched.calls.size()) {
		struct call c = { };

		ranks_must(cudaEventCreate(&c.begin) == cudaSuccess &&
				   cudaEventCreate(&c.end) == cudaSuccess, "cudaEventCreate");
		watched.calls.push_back(c);
	}
	struct call *c = &watched.calls[watched.at++];

	c->exchange = exchange;
	c->bytes = 0;
	c->to.assign(watched.ranks, 0);
	c->from.assign(watched.ranks, 0);
	return c;
}

static void timed_gather(struct lh_comm_line *l, void *x, const int64_t *at_bytes,
			 const void *own, int slot)
{
	struct call *c = next_call(false);

	c->bytes = at_bytes[1] - at_bytes[0];
	cudaEventRecord(c->begin, watched.stream);
	lh_comm_nccl.gather(l, x, at_bytes, own, slot);
	cudaEventRecord(c->end, watched.stream);
}

/* Those beside the ops cost a step what they take from the ops, and no time of their own. */
static void timed_exchange(struct lh_comm_line *l, const struct lh_comm_message *messages,
			   int count, int slot)
{
	struct call *c;

	if (slot != LH_COMM_IN_ORDER) {
		lh_comm_nccl.exchange(l, messages, count, slot);
		return;
	}
	c = next_call(true);
	for (const struct lh_comm_message *m = messages; m < messages + count; m++) {
		(m->comes ? c->from : c->to)[(size_t)m->peer] += m->bytes;
		c->bytes += m->bytes;
	}
	cudaEventRecord(c->begin, watched.stream);
	lh_comm_nccl.exchange(l, messages, count, slot);
	cudaEventRecord(c->end, watched.stream);
}

/* c's calls are watched from here on. */
static void watch(struct bench *b, struct lh_comm *c)
{
	static struct lh_comm_ops timed;

	if (b->cpu)
		return;
	timed = lh_comm_nccl;
	timed.gather = timed_gather, timed.exchange = timed_exchange;
	c->ops = &timed;
	watched.stream = b->r.dev->stream;
	watched.ranks = (size_t)c->size;
}

/* Of the step that is over: kept, or not. A rehearsal may have made more. */
static void read_calls(bool keep)
{
	watched.calls.resize(watched.at);
	for (struct call &c : watched.calls) {
		float ms = 0;

		if (keep) {
			ranks_must(cudaEventElapsedTime(&ms, c.begin, c.end) == cudaSuccess,
				   "cudaEventElapsedTime");
			c.ms.push_back(ms);
		}
	}
	watched.at = 0;
}

/* Milliseconds of a call: of all ranks the least each time. */
static double bare_ms(struct ranks *r, const struct bare *b, const struct call *c, void *x)
{
	char *own = (char *)x + r->comm.rank * c->bytes;
	std::vector<double> all;
	cudaEvent_t begin, end;

	cudaEventCreate(&begin);
	cudaEventCreate(&end);
	for (int i = 0; i < CALLS; i++) {
		float ms;

		ranks_meet(r);
		cudaEventRecord(begin, b->stream);
		if (c->exchange)
			bare_messages(b, &r->comm, x, own, c->bytes, c->to.data(),
				      c->from.data());
		else
			bare_gather(b, x, own, c->bytes);
		cudaEventRecord(end, b->stream);
		ranks_must(cudaStreamSynchronize(b->stream) == cudaSuccess, "a collective");
		cudaEventElapsedTime(&ms, begin, end);
		all.push_back(ranks_least(r, ms));
	}
	cudaEventDestroy(begin);
	cudaEventDestroy(end);
	return ranks_median(all);
}

/* A step's calls of a kind and size. */
struct group {
	const struct call *like;
	int count;
	double ms;
};

static std::map<std::pair<bool, int64_t>, group> groups_of(struct ranks *r)
{
	size_t n = watched.calls.size();
	std::vector<double> all((size_t)r->comm.size * n);
	std::map<std::pair<bool, int64_t>, group> groups;

	for (size_t i = 0; i < n; i++)
		all[(size_t)r->comm.rank * n + i] = ranks_median(watched.calls[i].ms);
	lh_comm_collect(&r->comm, "times", all.data(), n * sizeof(double));
	for (size_t i = 0; i < n; i++) {
		struct group *g = &groups[{ watched.calls[i].exchange, watched.calls[i].bytes }];
		double least = all[i];

		for (int k = 1; k < r->comm.size; k++)
			least = std::min(least, all[(size_t)k * n + i]);
		g->like = &watched.calls[i];
		g->count++;
		g->ms += least;
	}
	return groups;
}

/* Milliseconds of a step, and the share of NCCL's own rate; all models are gone. */
static double report_calls(struct ranks *r, double *share)
{
	double ours = 0, theirs = 0;
	struct bare b = { };

	*share = 0;
	if (watched.calls.empty())
		return 0;
	bare_open(&b, &r->comm);
	for (const auto &[key, g] : groups_of(r)) {
		void *x = ranks_alloc(r, (size_t)(r->comm.size * key.second));
		double one;

		r->ops->zero(r->dev, x, (size_t)(r->comm.size * key.second));
		one = bare_ms(r, &b, g.like, x);
		if (!r->comm.rank)
			printf("%s of %.2f MiB a rank: %d a step, %.2f ms; NCCL's own %.2f\n",
			       key.first ? "exchanges, to and fro," : "gathers",
			       (double)key.second / (1 << 20), g.count, g.ms, one * g.count);
		ours += g.ms;
		theirs += one * g.count;
		r->ops->free(r->dev, x);
	}
	bare_close(&b);
	*share = theirs / ours;
	failed |= !ranks_check(r, *share >= SHARE, "NCCL's own time / that of collectives",
			       *share, SHARE);
	return ours;
}

/* ---- steps ------------------------------------------------------------------- */

/* As a job's mode is chosen. context: ranks that share the sequence. */
static struct lh_attention_mode mode_of(const struct bench *b, int context)
{
	const struct setting *s = b->of;
	int64_t memory = lh_chip_usable_bytes(lh_chip_find("h100")->memory_bytes);
	struct lh_attention_mode mode = { };
	struct lh_err err = LH_ERR_INIT;
	struct lh_layout l = { };
	struct lh_layout_bytes bytes;

	if (s->levels) {
		mode.attention = LH_ATTENTION_LIGHTHOUSE;
		mode.geometry.tokens = b->tokens, mode.geometry.levels = s->levels;
		mode.geometry.pool = 4, mode.geometry.dilation = 4;
		mode.geometry.tile = b->cpu ? 4 : 128;
		mode.geometry.topk = b->cpu ? 32 : s->topk;
		/* Pieces are whole tiles. */
		mode.geometry.topk -= mode.geometry.topk % (2 * b->r.comm.size *
							    mode.geometry.tile);
	}
	for (int layer : { 0, 1, 28, 29 })
		mode.dense[layer] = s->dense && layer < b->shape.layers;
	mode.recompute = LH_RECOMPUTE_AUTO;
	l.model = &b->shape, l.sizes = b->r.ops->sizes, l.B = 1, l.T = b->tokens;
	l.train = true, l.ranks = l.context = context;
	if (lh_layout_choose(&l, &mode, memory, &err))
		ranks_die(&err);
	lh_layout_measure(&l, &bytes);
	if (!b->r.comm.rank)
		printf("%s, a sequence to %d: recompute: %s, %.2f GiB are planned\n", s->name,
		       context, lh_recompute_name(mode.recompute),
		       (double)bytes.total / (1 << 30));
	fflush(stdout);
	return mode;
}

static double used_gib(const struct bench *b)
{
	size_t left = 0, all = 0;

	if (!b->cpu)
		cudaMemGetInfo(&left, &all);
	return (double)(all - left) / (1 << 30);
}

/* One more step, of ops that are traced since the start. */
static void profile(struct bench *b, struct lh_model *m, const struct lh_attention_mode *mode)
{
	trace_reset();
	step_s(&b->r, m, mode, b->ids, 1, b->of->steps + 2);
	read_calls(false);
	for (int r = 0; r < b->r.comm.size; r++) {
		ranks_meet(&b->r);
		if (r != b->r.comm.rank)
			continue;
		printf("rank %d:\n", r);
		trace_print(stdout);
		fflush(stdout);
	}
	trace_reset();
}

/* Seconds of a step, the median, on this rank; the first one is told of and left out. */
static double run(struct bench *b, const struct lh_division *division)
{
	int context = division ? division->context.size : 1;
	struct lh_attention_mode mode = mode_of(b, context);
	int64_t start = lh_clock_us();
	struct lh_err err = LH_ERR_INIT;
	std::vector<double> seconds;
	struct lh_model *m;
	double first;

	if (lh_model_new(&m, b->r.ops, b->r.dev, division, &b->shape, 1, b->tokens, &mode, 1,
			 &err) ||
	    lh_model_prepare(m, &mode, 1, 1, 0, false, &err))
		ranks_die(&err);
	lh_model_init(m, 1);
	ranks_meet(&b->r);
	b->setup_s += (double)(lh_clock_us() - start) / 1e6;
	read_calls(false);
	first = step_s(&b->r, m, &mode, b->ids, 1, 1);
	read_calls(context > 1 && !b->of->steps);
	if (!b->of->steps)
		seconds.push_back(first);
	for (int i = 0; i < b->of->steps; i++) {
		seconds.push_back(step_s(&b->r, m, &mode, b->ids, 1, i + 2));
		read_calls(context > 1);
	}
	b->gib = ranks_most(&b->r, used_gib(b));
	if (!b->r.comm.rank)
		printf("%s, a sequence to %d: %.4f s a step, the first %.4f; %.2f GiB of a GPU "
		       "in use\n", b->of->name, context, ranks_median(seconds), first, b->gib);
	fflush(stdout);
	if (b->profile)
		profile(b, m, &mode);
	lh_model_free(m);
	return ranks_median(seconds);
}

static void measure(struct bench *b)
{
	const struct setting *s = b->of;
	struct lh_division division = { };
	struct lh_err err = LH_ERR_INIT;
	double one = 0, all, ms, share, times, tokens_per_s;
	bool bars = b->r.comm.size == 2 && !b->cpu;
	char what[80];

	if (s->times)
		one = ranks_least(&b->r, run(b, NULL));
	if (lh_comm_split(&b->r.comm, "a sequence", 0, &division.context, &err))
		ranks_die(&err);
	division.comm = b->r.comm;
	watch(b, &division.context);
	all = ranks_most(&b->r, run(b, &division));
	ms = report_calls(&b->r, &share);
	lh_comm_close(&division.context);
	times = one / all;
	tokens_per_s = (double)b->tokens / all;
	snprintf(what, sizeof(what), "%s: times as fast as one GPU", s->name);
	if (s->times && bars)
		failed |= !ranks_check(&b->r, times >= s->times, what, times, s->times);
	snprintf(what, sizeof(what), "%s: tokens/s", s->name);
	if (s->tokens_per_s && bars)
		failed |= !ranks_check(&b->r, tokens_per_s >= s->tokens_per_s, what,
				       tokens_per_s, s->tokens_per_s);
	if (!b->r.comm.rank)
		printf("shared %s %.4f %.0f %.3f %.2f %.2f %.3f %.1f\n", s->name, all,
		       tokens_per_s, times, b->gib, ms, share, b->setup_s);
}

int main(int argc, char **argv)
{
	struct lh_ops traced = trace_ops(&lh_ops_cuda);
	struct bench b = { };
	int64_t start = lh_clock_us();

	b.profile = ranks_has(argc, argv, "--profile");
	b.cpu = ranks_has(argc, argv, "--cpu");
	for (const struct setting &s : settings)
		if (ranks_has(argc, argv, s.name))
			b.of = &s;
	ranks_must(b.of, "one of light, full, million, million-light, million-full");
	ranks_open(&b.r, b.cpu ? &lh_ops_cpu : &lh_ops_cuda);
	if (b.profile)
		b.r.ops = &traced;
	ranks_must(b.r.comm.size > 1, "two ranks or more: mpiexec.hydra -n 2");
	b.tokens = b.cpu ? 2048 : b.of->tokens;
	b.shape = step_shape(b.cpu);
	b.ids = step_ids(b.tokens, 0, b.shape.vocab);
	b.setup_s = (double)(lh_clock_us() - start) / 1e6;
	measure(&b);
	ranks_close(&b.r);
	return failed;
}

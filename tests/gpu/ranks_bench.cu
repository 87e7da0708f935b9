/* ranks_bench.cu: optimizer steps of a 530 M model at 98,304 tokens with Lighthouse attention,
 * a sequence a rank; and what of a step its collectives are.
 *
 *   [mpiexec.hydra -n N] ranks_bench [--cpu] [gradients|weights]      these divided, too
 *
 * A collective's time is that between events around it on the device's stream. On the rank
 * that comes last nobody is waited for: the least of all ranks is what it takes, the rest
 * is waiting. Seconds are medians over host clocks around whole steps. The last line is
 * "bench RANKS STEP_S TOKENS_PER_S GRADIENT_MS WEIGHTS_MS"; of what is divided, whose
 * collectives are many and beside the computation, "divided RANKS STEP_S TOKENS_PER_S". */
#include "ranks_step.cuh"

enum { WARM = 2, STEPS = 7 };

/* Of one collective, on this rank. */
struct timer {
	const char *what;
	cudaEvent_t begin, end;
	std::vector<double> ms;
};

struct bench {
	struct ranks r;
	int64_t tokens;
	struct lh_attention_mode mode;
	struct lh_model *m;
	std::vector<int32_t> ids;
	struct timer timers[2];
	bool cpu, timed; /* collectives are */
	enum lh_divide divide;
};

static void on_note(void *arg, const char *what, bool begins)
{
	struct bench *b = (struct bench *)arg;

	for (struct timer &t : b->timers)
		if (!strcmp(what, t.what))
			cudaEventRecord(begins ? t.begin : t.end, b->r.dev->stream);
}

static void open_timers(struct bench *b)
{
	b->timers[0].what = "the gradient";
	b->timers[1].what = "the weights";
	b->timed = b->r.comm.size > 1 && !b->cpu && b->divide == LH_DIVIDE_MOMENTS;
	if (!b->timed)
		return;
	for (struct timer &t : b->timers) {
		cudaEventCreate(&t.begin);
		cudaEventCreate(&t.end);
	}
	b->r.comm.note = on_note;
	b->r.comm.note_arg = b;
}

static void read_timers(struct bench *b)
{
	for (struct timer &t : b->timers) {
		float ms = 0;

		if (b->timed)
			ranks_must(cudaEventElapsedTime(&ms, t.begin, t.end) == cudaSuccess,
				   "cudaEventElapsedTime");
		t.ms.push_back(ms);
	}
}

static void open_model(struct bench *b)
{
	struct lh_job_model shape = step_shape(b->cpu);
	struct lh_err err = LH_ERR_INIT;
	struct lh_lighthouse *g = &b->mode.geometry;
	struct lh_division division = { };

	division.comm = b->r.comm, division.divide = b->divide;
	b->mode.recompute = LH_RECOMPUTE_CHEAP;
	b->mode.attention = LH_ATTENTION_LIGHTHOUSE;
	g->tokens = b->tokens, g->levels = 3, g->pool = 4, g->dilation = 4;
	g->topk = b->cpu ? 32 : 1536, g->tile = b->cpu ? 16 : 128;
	for (int layer : { 0, 1, 28, 29 })
		b->mode.dense[layer] = layer < shape.layers;
	if (lh_model_new(&b->m, b->r.ops, b->r.dev, &division, &shape, 1, b->tokens, &b->mode,
			 1, &err) ||
	    lh_model_prepare(b->m, &b->mode, 1, 1, 0, false, &err))
		ranks_die(&err);
	lh_model_init(b->m, 1);
	b->ids = step_ids(b->tokens, b->r.comm.rank, shape.vocab);
}

static double timed_step(struct bench *b, int64_t step)
{
	double s = step_s(&b->r, b->m, &b->mode, b->ids, b->r.comm.size, step);

	read_timers(b);
	return s;
}

int main(int argc, char **argv)
{
	struct bench b = { };
	std::vector<double> seconds;
	double s, ms[2], waited = 0;
	int size;

	b.cpu = ranks_has(argc, argv, "--cpu");
	b.divide = ranks_has(argc, argv, "weights")	? LH_DIVIDE_WEIGHTS :
		   ranks_has(argc, argv, "gradients") ? LH_DIVIDE_GRADIENTS :
							LH_DIVIDE_MOMENTS;
	b.tokens = b.cpu ? 512 : 98304;
	ranks_open(&b.r, b.cpu ? &lh_ops_cpu : &lh_ops_cuda);
	size = b.r.comm.size;
	open_timers(&b);
	open_model(&b);
	for (int i = 0; i < WARM; i++)
		timed_step(&b, i + 1);
	for (struct timer &t : b.timers)
		t.ms.clear();
	for (int i = 0; i < STEPS; i++)
		seconds.push_back(timed_step(&b, WARM + i + 1));
	s = ranks_most(&b.r, ranks_median(seconds));
	for (int i = 0; i < 2; i++) {
		double own = ranks_median(b.timers[i].ms);

		ms[i] = ranks_least(&b.r, own);
		waited = std::max(waited, ranks_most(&b.r, own) - ms[i]);
	}
	if (b.divide && !b.r.comm.rank)
		printf("%d ranks, %s divided: %.4f s a step\n"
		       "divided %d %.4f %.0f\n", size,
		       b.divide == LH_DIVIDE_WEIGHTS ? "weights" : "gradients", s, size, s,
		       (double)b.tokens * size / s);
	else if (!b.r.comm.rank)
		printf("%d ranks: %.4f s a step; the gradient %.2f ms, the weights %.2f ms, and "
		       "at most %.2f ms of waiting for another rank\n"
		       "bench %d %.4f %.0f %.2f %.2f\n", size, s, ms[0], ms[1], waited, size, s,
		       (double)b.tokens * size / s, ms[0], ms[1]);
	lh_model_free(b.m);
	ranks_close(&b.r);
	return 0;
}

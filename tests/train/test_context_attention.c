/* test_context_attention.c: one layer's attention of a sequence that 2 and 4 ranks share
 * against one rank that has it whole, of the same rows: the choice is the same, so is what
 * comes out, where pieces are whole blocks of the CPU's attention to the bit; and gradients.
 * What ranks hand each other goes in few messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "../ranks.h"
#include "train/layout.h"
#include "train/rng.h"

enum { H = 4, G = 2, D = 8, WIDTH = (H + 2 * G) * D, OUT = H * D };

static const struct lh_job_model shape = { .vocab = 2, .dim = OUT, .layers = 1, .heads = H,
					   .kv_heads = G, .head_dim = D, .ffn_dim = 8,
					   .qk_norm = true };

struct kind {
	int64_t tokens;
	bool lighthouse, norm;
	bool blocks; /* pieces are whole ones */
};

/* One rank's attention. */
struct side {
	struct lh_dev *dev;
	struct lh_layout layout;
	struct lh_acts acts;
	void *arena;
	struct lh_attention_call call;
	struct lh_attention_norm norm;
	float gains[2][D], dgains[2][D];
	int64_t rows;
	float *dqkv, *dout; /* (rows, WIDTH | OUT) */
};

/* ---- a side ------------------------------------------------------------------ */

/* n numbers, the same on every rank. */
static float *draw(uint64_t seed, int64_t n)
{
	float *x = lh_calloc((size_t)n + 3, sizeof(*x));

	for (int64_t i = 0; i < n; i += 4)
		lh_rng_normal(seed, LH_RNG_SAMPLE, (uint64_t)i, x + i);
	return x;
}

static void turn(const struct lh_rope *rope, int64_t tokens)
{
	float *cosines = (float *)rope->cos, *sines = (float *)rope->sin;

	for (int64_t t = 0; t < tokens; t++)
		for (int d = 0; d < D / 2; d++) {
			double angle = (double)t * pow(100, -2.0 * d / D);

			cosines[t * D / 2 + d] = (float)cos(angle);
			sines[t * D / 2 + d] = (float)sin(angle);
		}
}

static void find_norm(struct side *x)
{
	for (int i = 0; i < D; i++) {
		x->gains[0][i] = 1 + 0.1f * (float)i;
		x->gains[1][i] = 2 - 0.1f * (float)i;
	}
	x->norm = (struct lh_attention_norm){ x->gains[0], x->gains[1], x->dgains[0],
					      x->dgains[1], 1e-5f };
	x->call.norm = &x->norm;
}

/* context: NULL is alone. */
static void open_side(struct side *x, const struct lh_comm *context,
		      const struct lh_attention_mode *mode, struct kind k)
{
	int64_t bytes;

	*x = (struct side){ .layout = { .model = &shape, .sizes = lh_ops_cpu.sizes, .B = 1,
					.T = k.tokens, .mode = mode, .train = true,
					.context = context ? context->size : 1 } };
	x->rows = k.tokens / x->layout.context;
	lh_ops_cpu.open(&x->dev, 1, NULL);
	bytes = lh_layout_measure(&x->layout, NULL);
	lh_ops_cpu.alloc(x->dev, &x->arena, (size_t)bytes, NULL);
	lh_layout_place(&x->layout, x->arena, &x->acts);
	turn(&x->acts.rope, k.tokens);
	x->call = (struct lh_attention_call){
		.ops = &lh_ops_cpu, .dev = x->dev, .rope = &x->acts.rope,
		.heads = lh_layout_heads(&shape, 1, x->rows), .context = context,
		.lighthouse = lh_layout_lighthouse(mode, 0) };
	if (k.norm)
		find_norm(x);
	x->dqkv = lh_calloc((size_t)(x->rows * WIDTH), sizeof(float));
	x->dout = lh_calloc((size_t)(x->rows * OUT), sizeof(float));
}

static void close_side(struct side *x)
{
	lh_ops_cpu.free(x->dev, x->arena);
	lh_ops_cpu.close(x->dev);
	free(x->dqkv);
	free(x->dout);
}

/* to <- this side's rows of all (tokens, width). */
static void take_rows(const struct side *x, float *to, const float *all, int64_t width)
{
	const struct lh_comm *c = x->call.context;
	int64_t n = x->rows / 2 * width;

	if (!c) {
		memcpy(to, all, (size_t)(2 * n) * sizeof(*to));
		return;
	}
	for (int i = 0; i < 2; i++)
		memcpy(to + i * n, all + lh_context_piece(c->size, c->rank, i) * n,
		       (size_t)n * sizeof(*to));
}

static void run(struct side *x, const float *qkv, const float *dout)
{
	const struct lh_attention_saved *t = &x->acts.layer[0].attention;

	take_rows(x, t->qkv, qkv, WIDTH);
	lh_attention_forward(&x->call, t, &x->acts.attention);
	take_rows(x, x->dout, dout, OUT);
	if (x->call.norm)
		take_rows(x, x->acts.raw, qkv, WIDTH);
	lh_attention_backward(&x->call, t, &x->acts.attention, x->dqkv, x->dout, x->acts.raw);
}

/* ---- two of them ------------------------------------------------------------- */

static double distance(const float *x, const float *y, int64_t n)
{
	double d = 0, norm = 0;

	for (int64_t i = 0; i < n; i++) {
		d += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
		norm += (double)y[i] * y[i];
	}
	return sqrt(d / (norm + 1e-300));
}

static void compare_choice(const struct lh_comm *c, const struct side *one,
			   const struct side *all)
{
	const struct lh_lighthouse *g = one->call.lighthouse;
	size_t bytes = (size_t)(H * lh_lighthouse_selected(g)) * sizeof(int32_t);
	int32_t *index = lh_calloc(1, bytes);

	memcpy(index, all->acts.layer[0].attention.index, bytes / (size_t)c->size);
	lh_context_collect_index(c, g, H, index);
	RANKS_CHECK(!memcmp(index, one->acts.layer[0].attention.index, bytes));
	free(index);
}

static void compare_rows(const struct lh_comm *c, struct kind k, const struct side *one,
			 const struct side *all)
{
	int64_t n = all->rows * WIDTH, m = all->rows * OUT;
	float *want = lh_calloc((size_t)n, sizeof(*want));
	const float *o = all->acts.layer[0].attention.o;

	take_rows(all, want, one->acts.layer[0].attention.o, OUT);
	RANKS_CHECK(distance(o, want, m) < 1e-6);
	if (k.blocks)
		RANKS_CHECK(!memcmp(o, want, (size_t)m * sizeof(*o)));
	take_rows(all, want, one->dqkv, WIDTH);
	RANKS_CHECK(distance(all->dqkv, want, n) < 1e-6);
	free(want);
}

/* Gains have a part from every rank. */
static void compare_gains(const struct lh_comm *c, const struct side *one,
			  const struct side *all)
{
	float *parts = lh_calloc((size_t)c->size * 2 * D, sizeof(*parts));

	memcpy(parts + c->rank * 2 * D, all->dgains, sizeof(all->dgains));
	lh_comm_collect(c, "gains", parts, sizeof(all->dgains));
	for (int r = 1; r < c->size; r++)
		for (int i = 0; i < 2 * D; i++)
			parts[i] += parts[r * 2 * D + i];
	RANKS_CHECK(distance(parts, one->dgains[0], 2 * D) < 1e-5);
	free(parts);
}

static struct lh_attention_mode mode_of(struct kind k)
{
	struct lh_attention_mode mode = { .recompute = LH_RECOMPUTE_NONE };

	if (!k.lighthouse)
		return mode;
	mode.attention = LH_ATTENTION_LIGHTHOUSE;
	mode.geometry = (struct lh_lighthouse){ .tokens = k.tokens, .levels = 3, .pool = 2,
						.topk = k.blocks ? 128 : 16,
						.tile = k.blocks ? 16 : 2 };
	return mode;
}

static void check(const struct lh_comm *c, struct kind k)
{
	struct lh_attention_mode mode = mode_of(k);
	float *qkv = draw(1, k.tokens * WIDTH), *dout = draw(2, k.tokens * OUT);
	struct side one, all;

	open_side(&one, NULL, &mode, k);
	open_side(&all, c, &mode, k);
	run(&one, qkv, dout);
	run(&all, qkv, dout);
	if (k.lighthouse)
		compare_choice(c, &one, &all);
	compare_rows(c, k, &one, &all);
	if (k.norm)
		compare_gains(c, &one, &all);
	close_side(&one);
	close_side(&all);
	free(qkv);
	free(dout);
}

/* 2,048 tokens: pieces and their choice are of 128 rows, or a multiple. */
static void check_all(const struct lh_comm *c)
{
	for (int i = 0; i < 8; i++)
		check(c, (struct kind){ .tokens = i & 1 ? 2048 : 96, .blocks = i & 1,
					.lighthouse = i & 2, .norm = i & 4 });
}

/* ---- messages ---------------------------------------------------------------- */

static struct {
	int exchanges, messages;
	int64_t bytes;
} seen;

static void count_exchange(struct lh_comm_line *line, const struct lh_comm_message *messages,
			   int count, int slot)
{
	seen.exchanges++;
	seen.messages += count;
	for (int i = 0; i < count; i++)
		seen.bytes += messages[i].bytes;
	lh_comm_mpi.exchange(line, messages, count, slot);
}

/* Two ranks, forward and backward. Keys with their values go twice, one message each way: the
 * first has the first piece and the last, which the second does not see, and that has two
 * which lie together. Of gradients a piece is a message, two each way. */
static void check_messages_of(const struct lh_comm *c, struct kind k)
{
	struct lh_attention_mode mode = mode_of(k);
	float *qkv = draw(1, k.tokens * WIDTH), *dout = draw(2, k.tokens * OUT);
	int64_t rows = k.lighthouse ? lh_lighthouse_selected(&mode.geometry) : k.tokens;
	int64_t piece = rows / 4 * 2 * (k.lighthouse ? H : G) * D * (int64_t)sizeof(float);
	struct lh_comm_ops counting = lh_comm_mpi;
	struct lh_comm counted = *c;
	struct side all;

	counting.exchange = count_exchange;
	counted.ops = &counting;
	memset(&seen, 0, sizeof(seen));
	open_side(&all, &counted, &mode, k);
	run(&all, qkv, dout);
	RANKS_CHECK(seen.exchanges == 3);
	RANKS_CHECK(seen.messages == 2 + 2 + 4);
	RANKS_CHECK(seen.bytes == (3 + 3 + 4) * piece);
	close_side(&all);
	free(qkv);
	free(dout);
}

static void check_messages(const struct lh_comm *c)
{
	check_messages_of(c, (struct kind){ .tokens = 96 });
	check_messages_of(c, (struct kind){ .tokens = 96, .lighthouse = true });
}

static const struct ranks_case cases[] = {
	{ "all", check_all },
	{ "messages", check_messages },
};

static void ranks_that_share_a_sequence_attend_as_one(void **state)
{
	(void)state;
	ranks_run(2, "all");
	ranks_run(4, "all");
}

static void keys_go_with_values_in_few_messages(void **state)
{
	(void)state;
	ranks_run(2, "messages");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranks_that_share_a_sequence_attend_as_one),
		cmocka_unit_test(keys_go_with_values_in_few_messages),
	};

	if (argc > 1)
		return ranks_main(argv[1], cases, sizeof(cases) / sizeof(cases[0]));
	return cmocka_run_group_tests_name("context_attention", tests, NULL, NULL);
}

/* test_windows.c: weights that are divided and gathered as a pass comes to them, and divided
 * gradients that are summed when it leaves them, over 2 and 4 processes: what they compute
 * is, to the bit, what whole ones do.
 *
 * Steps are compared with those of a model whose gradients alone are divided, in every way
 * to compute again; passes without gradients with those of a model that is alone, made by
 * all ranks, by some, or by rank 0 while the others follow. What runs beside the computation
 * does so as late as it may (deferred.h), and at once in the model that is compared with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "deferred.h"
#include "train/model_int.h"

enum { B = 2, T = 64, V = 131, STEPS = 3, DECODED = 20 };

static const struct lh_job_model shape = {
	.vocab = V, .dim = 16, .layers = 3, .heads = 2, .kv_heads = 1, .head_dim = 8,
	.ffn_dim = 24, .rope_theta = 10000, .norm_eps = 1e-5, .init_std = 0.1 };

/* Of the two that are compared. */
struct pair {
	const struct lh_comm *c;
	struct lh_dev *dev;
	struct lh_attention_mode mode;
	struct lh_model *whole, *divided;
	int32_t tokens[B * T], targets[B * T];
};

static struct lh_model *model_of(struct pair *p, const struct lh_job_model *shape_of,
				 const struct lh_division *division)
{
	const struct lh_comm *c = p->c;
	struct lh_err err = LH_ERR_INIT;
	struct lh_model *m;

	RANKS_CHECK(!lh_model_new(&m, &lh_ops_cpu, p->dev, division, shape_of, B, T, &p->mode,
				  1, &err));
	lh_model_init(m, 3);
	return m;
}

/* whole: alone, or with gradients that are divided; divided: what `divide` says. */
static void open_pair(struct pair *p, const struct lh_comm *c, bool alone, bool tied,
		      enum lh_recompute recompute, enum lh_divide divide)
{
	const struct lh_division gradients = { .comm = *c, .divide = LH_DIVIDE_GRADIENTS };
	const struct lh_division late = { .comm = deferred_comm(c), .divide = divide };
	struct lh_job_model shape_of = shape;
	struct lh_err err = LH_ERR_INIT;

	*p = (struct pair){ .c = c };
	p->mode = (struct lh_attention_mode){
		.attention = LH_ATTENTION_LIGHTHOUSE, .recompute = recompute,
		.geometry = { .tokens = T, .levels = 3, .pool = 2, .topk = 8, .tile = 4 } };
	p->mode.dense[1] = true;
	shape_of.tied = shape_of.qkv_bias = shape_of.qk_norm = tied;
	RANKS_CHECK(!lh_ops_cpu.open(&p->dev, 1, &err));
	p->whole = model_of(p, &shape_of, alone ? NULL : &gradients);
	p->divided = model_of(p, &shape_of, &late);
	for (int i = 0; i < B * T; i++) {
		p->tokens[i] = (i * i + 5 * i / T) % V;
		p->targets[i] = (p->tokens[i] + 7) % V;
	}
}

static void close_pair(struct pair *p)
{
	deferred_check(p->c);
	lh_model_free(p->whole);
	lh_model_free(p->divided);
	lh_ops_cpu.close(p->dev);
}

/* ---- steps ----------------------------------------------------------------- */

struct result {
	float loss, norm;
};

static struct result step(struct pair *p, struct lh_model *m, int number)
{
	const struct lh_adamw opt = { .lr = 3e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f,
				      .weight_decay = 0.1f, .clip = 0.7f, .grad_scale = 1,
				      .step = number + 1 };
	int from = p->c->rank % B;
	const struct lh_comm *c = p->c;
	struct result r;

	lh_model_zero_grad(m);
	for (int i = 0; i < 2; i++) /* micro-batches */
		lh_model_forward_backward(m, &p->mode, 1, p->tokens + from * T,
					  p->targets + from * T, NULL, 1.0f / (8 * T));
	RANKS_CHECK(!lh_model_measure(m, &r.loss, &r.norm, NULL));
	lh_model_apply(m, &opt);
	return r;
}

static void compare_states(struct pair *p)
{
	int64_t n = lh_model_param_count(p->whole);
	float *x = lh_calloc((size_t)n, sizeof(*x)), *y = lh_calloc((size_t)n, sizeof(*y));
	const struct lh_comm *c = p->c;

	for (int i = LH_STATE_PARAM; i <= LH_STATE_GRAD; i++) {
		enum lh_model_state which = (enum lh_model_state)i;

		RANKS_CHECK(!lh_model_read_any(p->whole, which, 0, n, x, NULL));
		RANKS_CHECK(!lh_model_read_any(p->divided, which, 0, n, y, NULL));
		RANKS_CHECK(!memcmp(x, y, (size_t)n * sizeof(*x)));
	}
	free(x);
	free(y);
}

static void check_steps_of(const struct lh_comm *c, enum lh_divide divide)
{
	for (int k = LH_RECOMPUTE_NONE; k <= LH_RECOMPUTE_LAYER; k++) {
		struct pair p;

		open_pair(&p, c, false, k % 2, (enum lh_recompute)k, divide);
		for (int i = 0; i < STEPS; i++) {
			struct result x = step(&p, p.whole, i), y = step(&p, p.divided, i);

			RANKS_CHECK(x.loss == y.loss && x.norm == y.norm && x.norm > 0);
			compare_states(&p);
		}
		close_pair(&p);
	}
}

static void check_steps(const struct lh_comm *c)
{
	check_steps_of(c, LH_DIVIDE_WEIGHTS);
}

static void check_gradients(const struct lh_comm *c)
{
	check_steps_of(c, LH_DIVIDE_GRADIENTS);
}

/* ---- passes without gradients ------------------------------------------------ */

static void compare_losses(struct pair *p)
{
	float rows[2][B * T], logits[2][B * V];
	const struct lh_attention_mode *modes[] = { &lh_attention_full, &p->mode };
	struct lh_model *both[] = { p->whole, p->divided };
	const struct lh_comm *c = p->c;
	double loss[2];

	for (int k = 0; k < 2; k++) {
		for (int i = 0; i < 2; i++) {
			RANKS_CHECK(!lh_model_loss(both[i], modes[k], B, T, p->tokens,
						   p->targets, NULL, &loss[i], rows[i], NULL));
			RANKS_CHECK(!lh_model_logits(both[i], modes[k], B, T, p->tokens, 9,
						     logits[i], NULL));
		}
		RANKS_CHECK(loss[0] == loss[1] && loss[0] > 0);
		RANKS_CHECK(!memcmp(rows[0], rows[1], sizeof(rows[0])));
		RANKS_CHECK(!memcmp(logits[0], logits[1], sizeof(logits[0])));
	}
}

/* All of them; and then all but the last, which goes along with four passes. */
static void check_some(const struct lh_comm *c)
{
	struct pair p;

	open_pair(&p, c, true, false, LH_RECOMPUTE_NONE, LH_DIVIDE_WEIGHTS);
	compare_losses(&p);
	if (c->rank < c->size - 1)
		compare_losses(&p);
	for (int i = 0; i < 4 && c->rank == c->size - 1; i++)
		lh_model_go_along(p.divided);
	close_pair(&p);
}

struct seen {
	int layers;
	uint64_t sum;
};

static void see(void *arg, int layer, const int32_t *index)
{
	struct seen *s = arg;

	s->layers += layer + 1;
	for (int i = 0; i < 8; i++)
		s->sum = s->sum * 31 + (uint64_t)index[i];
}

static void compare_selections(struct pair *p)
{
	struct lh_model *both[] = { p->whole, p->divided };
	const struct lh_comm *c = p->c;
	struct seen s[2] = { 0 };

	for (int i = 0; i < 2; i++)
		RANKS_CHECK(!lh_model_selection(both[i], &p->mode, B, p->tokens, NULL, see,
						&s[i], NULL));
	RANKS_CHECK(s[0].layers == 1 + 3 && s[1].layers == s[0].layers); /* 1 is dense */
	RANKS_CHECK(s[0].sum == s[1].sum && s[0].sum);
}

static void compare_decoding(struct pair *p)
{
	struct lh_model *both[] = { p->whole, p->divided };
	const struct lh_comm *c = p->c;
	struct lh_decoder *d[2];
	float logits[2][V];

	for (int i = 0; i < 2; i++) {
		RANKS_CHECK(!lh_decoder_new(&d[i], both[i], 9 + DECODED, NULL));
		RANKS_CHECK(!lh_decoder_feed(d[i], p->tokens, 9, logits[i], NULL));
	}
	for (int k = 9; k < 9 + DECODED; k++) {
		RANKS_CHECK(!memcmp(logits[0], logits[1], sizeof(logits[0])));
		for (int i = 0; i < 2; i++)
			RANKS_CHECK(!lh_decoder_feed(d[i], p->tokens + k, 1, logits[i], NULL));
	}
	RANKS_CHECK(!memcmp(logits[0], logits[1], sizeof(logits[0])));
	for (int i = 0; i < 2; i++)
		lh_decoder_free(d[i]);
}

/* Rank 0 by itself, as often as it likes; then all are in step again. */
static void check_lead(const struct lh_comm *c)
{
	struct pair p;

	open_pair(&p, c, true, true, LH_RECOMPUTE_NONE, LH_DIVIDE_WEIGHTS);
	if (c->rank) {
		lh_model_follow(p.divided);
		lh_model_follow(p.divided);
	} else {
		lh_model_lead(p.divided, true);
		compare_losses(&p);
		compare_selections(&p);
		compare_decoding(&p);
		lh_model_lead(p.divided, false);
		lh_model_lead(p.divided, true);
		lh_model_lead(p.divided, false);
	}
	compare_losses(&p);
	close_pair(&p);
}

/* ---- what fails -------------------------------------------------------------- */

static void rehearse(struct lh_dev *dev, bool on)
{
	(void)dev, (void)on;
}

static int fetch_fails(struct lh_dev *d, void *host, const void *src, size_t bytes,
		       struct lh_err *err)
{
	(void)d, (void)host, (void)src, (void)bytes;
	return lh_err_set(err, LH_ETOOBIG, "no memory is left, says a test");
}

/* A rank that cannot is in step with the others to the end of the rehearsal. */
static void check_prepare(const struct lh_comm *c)
{
	struct lh_ops ops = lh_ops_cpu;
	struct lh_err err = LH_ERR_INIT;
	struct pair p;

	open_pair(&p, c, false, false, LH_RECOMPUTE_NONE, LH_DIVIDE_WEIGHTS);
	ops.rehearse = rehearse;
	p.divided->ops = &ops;
	RANKS_CHECK(!lh_model_prepare(p.divided, &p.mode, 1, 3, 3, true, &err));
	if (c->rank == c->size - 1)
		ops.fetch = fetch_fails;
	RANKS_CHECK(lh_model_prepare(p.divided, &p.mode, 1, 3, 3, true, &err) == LH_ETOOBIG);
	RANKS_CHECK(strstr(err.text, "no memory is left, says a test"));
	ops.fetch = lh_ops_cpu.fetch;
	RANKS_CHECK(step(&p, p.whole, 0).loss == step(&p, p.divided, 0).loss);
	compare_states(&p);
	close_pair(&p);
}

static const struct ranks_case cases[] = {
	{ "steps", check_steps }, { "gradients", check_gradients }, { "some", check_some },
	{ "lead", check_lead }, { "prepare", check_prepare } };

static void run(const char *name)
{
	ranks_run(2, name);
	ranks_run(4, name);
}

static void steps_are_those_of_whole_weights(void **state)
{
	(void)state;
	run("steps");
}

static void sums_beside_the_computation_are_those_at_once(void **state)
{
	(void)state;
	run("gradients");
}

static void ranks_without_a_pass_go_along(void **state)
{
	(void)state;
	run("some");
}

static void rank_0_leads_and_all_are_in_step_again(void **state)
{
	(void)state;
	run("lead");
}

static void a_rehearsal_that_fails_on_one_fails_on_all(void **state)
{
	(void)state;
	run("prepare");
}

/* Alone nothing is divided, whatever was asked for. */
static void one_rank_has_the_whole(void **state)
{
	(void)state;
	check_steps(&LH_COMM_ALONE);
	check_some(&LH_COMM_ALONE);
	check_lead(&LH_COMM_ALONE);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_rank_has_the_whole),
		cmocka_unit_test(steps_are_those_of_whole_weights),
		cmocka_unit_test(sums_beside_the_computation_are_those_at_once),
		cmocka_unit_test(ranks_without_a_pass_go_along),
		cmocka_unit_test(rank_0_leads_and_all_are_in_step_again),
		cmocka_unit_test(a_rehearsal_that_fails_on_one_fails_on_all),
	};

	if (argc > 1)
		return ranks_main(argv[1], cases, sizeof(cases) / sizeof(cases[0]));
	return cmocka_run_group_tests_name("windows", tests, NULL, NULL);
}

/* test_ranks.c: a model divided over 1, 2 and 4 processes against one that has the whole
 * batch: losses, gradients, weights, moments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "twins.h"

static void check_full(const struct lh_comm *c)
{
	check_steps(c, (struct kind){ 0 });
	check_free_run(c, (struct kind){ 0 }, 1e-5f);
}

static void check_lighthouse(const struct lh_comm *c)
{
	check_steps(c, (struct kind){ .lighthouse = true });
	check_free_run(c, (struct kind){ .lighthouse = true }, 1e-3f);
}

static void check_divided(const struct lh_comm *c)
{
	check_steps(c, (struct kind){ .divide = LH_DIVIDE_GRADIENTS });
	check_free_run(c, (struct kind){ .divide = LH_DIVIDE_GRADIENTS }, 1e-5f);
}

static void check_divided_lighthouse(const struct lh_comm *c)
{
	const struct kind k = { .divide = LH_DIVIDE_GRADIENTS, .lighthouse = true,
				.tied = true };

	check_steps(c, k);
	check_free_run(c, k, 1e-3f);
}

static void check_weights(const struct lh_comm *c)
{
	check_steps(c, (struct kind){ .divide = LH_DIVIDE_WEIGHTS });
	check_free_run(c, (struct kind){ .divide = LH_DIVIDE_WEIGHTS }, 1e-5f);
}

static void check_weights_lighthouse(const struct lh_comm *c)
{
	const struct kind k = { .divide = LH_DIVIDE_WEIGHTS, .lighthouse = true, .tied = true,
				.recompute = LH_RECOMPUTE_LAYER };

	check_steps(c, k);
	check_free_run(c, k, 1e-3f);
}

static void check_same_bits(const struct lh_comm *c)
{
	check_same_bits_of(c, (struct kind){ 0 });
	check_same_bits_of(c, (struct kind){ .divide = LH_DIVIDE_GRADIENTS });
}

/* What goes wrong on one is told on all, and they stay in step. */
static void check_error(const struct lh_comm *c)
{
	struct lh_err err = LH_ERR_INIT;
	float loss, norm;
	struct twins w;

	open_twins(&w, c, (struct kind){ 0 });
	draw(&w, 0);
	if (c->rank == 1)
		w.ops.fetch = fetch_fails;
	forward_backward(w.shared, &w, w.first, w.share);
	RANKS_CHECK(lh_model_measure(w.shared, &loss, &norm, &err) == LH_ETOOBIG);
	RANKS_CHECK(!strcmp(err.text, "rank 1: no memory is left, says a test"));
	RANKS_CHECK(lh_model_read_any(w.shared, LH_STATE_MOMENT1, 0, w.n, w.x, &err) ==
		    LH_ETOOBIG);
	RANKS_CHECK(!strcmp(err.text, "rank 1: no memory is left, says a test"));
	w.ops.fetch = lh_ops_cpu.fetch;
	run_shared(&w);
	close_twins(&w);
}

/* A gradient that is not finite is no rank's to apply. */
static void check_nan_of(const struct lh_comm *c, struct kind k)
{
	struct lh_err err = LH_ERR_INIT;
	struct twins w;
	float nan = NAN, loss, norm;

	open_twins(&w, c, k);
	draw(&w, 0);
	forward_backward(w.shared, &w, w.first, w.share);
	/* Of whole gradients the last rank's, for the first's shard; or the first's own. */
	if (c->rank == (k.divide ? 0 : c->size - 1))
		lh_model_write(w.shared, LH_STATE_GRAD, 0, 1, &nan);
	RANKS_CHECK(!lh_model_measure(w.shared, &loss, &norm, &err));
	RANKS_CHECK(isnan(norm) && isfinite(loss));
	apply(w.shared, 0);
	RANKS_CHECK(differ(&w, LH_STATE_PARAM) == 0);
	close_twins(&w);
}

static void check_nan(const struct lh_comm *c)
{
	check_nan_of(c, (struct kind){ 0 });
	check_nan_of(c, (struct kind){ .divide = LH_DIVIDE_GRADIENTS });
	check_nan_of(c, (struct kind){ .divide = LH_DIVIDE_WEIGHTS });
}

static const struct ranks_case cases[] = {
	{ "divided", check_divided },
	{ "divided_lighthouse", check_divided_lighthouse },
	{ "weights", check_weights },
	{ "weights_lighthouse", check_weights_lighthouse },
	{ "full", check_full },		  { "lighthouse", check_lighthouse },
	{ "same_bits", check_same_bits }, { "error", check_error },
	{ "nan", check_nan },
};

static void one_rank_is_the_whole(void **state)
{
	(void)state;
	check_full(&LH_COMM_ALONE);
	check_lighthouse(&LH_COMM_ALONE);
	check_divided(&LH_COMM_ALONE);
	check_weights(&LH_COMM_ALONE);
}

static void two_ranks_train_as_one(void **state)
{
	(void)state;
	ranks_run(2, "full");
	ranks_run(2, "lighthouse");
	ranks_run(2, "divided");
	ranks_run(2, "divided_lighthouse");
	ranks_run(2, "weights");
	ranks_run(2, "weights_lighthouse");
}

static void four_ranks_train_as_one(void **state)
{
	(void)state;
	ranks_run(4, "full");
	ranks_run(4, "lighthouse");
	ranks_run(4, "divided");
	ranks_run(4, "divided_lighthouse");
	ranks_run(4, "weights");
	ranks_run(4, "weights_lighthouse");
}

static void ranks_have_the_same_bits(void **state)
{
	(void)state;
	ranks_run(4, "same_bits");
}

static void what_fails_on_one_fails_on_all(void **state)
{
	(void)state;
	ranks_run(2, "error");
}

static void a_gradient_that_is_not_finite_is_never_applied(void **state)
{
	(void)state;
	ranks_run(4, "nan");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_rank_is_the_whole),
		cmocka_unit_test(two_ranks_train_as_one),
		cmocka_unit_test(four_ranks_train_as_one),
		cmocka_unit_test(ranks_have_the_same_bits),
		cmocka_unit_test(what_fails_on_one_fails_on_all),
		cmocka_unit_test(a_gradient_that_is_not_finite_is_never_applied),
	};

	if (argc > 1)
		return ranks_main(argv[1], cases, sizeof(cases) / sizeof(cases[0]));
	return cmocka_run_group_tests_name("ranks", tests, NULL, NULL);
}

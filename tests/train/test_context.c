/* test_context.c: ranks that share sequences, all of them or two and two of four, against
 * one that has them whole: training, and what is asked of a model beside it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "deferred.h"
#include "twins.h"

/* ---- training ---------------------------------------------------------------- */

static void check_recomputed(const struct lh_comm *c, struct kind k)
{
	for (int r = LH_RECOMPUTE_CHEAP; r <= LH_RECOMPUTE_LAYER; r++) {
		k.context = c->size;
		k.recompute = (enum lh_recompute)r;
		k.tied = !k.tied;
		check_some_steps(c, k, FEW);
	}
}

/* What goes beside the ops does so as late as it may (deferred.h). */
static void check_late(const struct lh_comm *c, struct kind k)
{
	struct lh_comm late = deferred_comm(c);

	check_some_steps(&late, k, FEW);
	k.recompute = LH_RECOMPUTE_LAYER;
	check_some_steps(&late, k, FEW);
	deferred_check(c);
}

static void check_full(const struct lh_comm *c)
{
	const struct kind k = { .context = c->size };

	check_late(c, k);
	check_steps(c, k);
	check_free_run(c, k, 1e-5f);
	check_recomputed(c, k);
}

static void check_lighthouse(const struct lh_comm *c)
{
	const struct kind k = { .context = c->size, .lighthouse = true };

	check_late(c, k);
	check_steps(c, k);
	check_free_run(c, k, 1e-3f);
	check_recomputed(c, k);
}

/* Two of four share a sequence, and have another than the other two. */
static void check_groups_of(const struct lh_comm *c, struct kind k, float bar)
{
	k.context = 2;
	check_steps(c, k);
	check_free_run(c, k, bar);
	k.divide = LH_DIVIDE_WEIGHTS;
	check_some_steps(c, k, FEW);
	check_late(c, k);
}

static void check_groups(const struct lh_comm *c)
{
	check_groups_of(c, (struct kind){ 0 }, 1e-5f);
}

static void check_groups_lighthouse(const struct lh_comm *c)
{
	check_groups_of(c, (struct kind){ .lighthouse = true }, 1e-3f);
}

static void check_same_bits(const struct lh_comm *c)
{
	check_same_bits_of(c, (struct kind){ .context = c->size });
	check_same_bits_of(c, (struct kind){ .context = 2, .lighthouse = true });
}

/* ---- answers ----------------------------------------------------------------- */

static bool is_near(double x, double y, double bar)
{
	return fabs(x - y) <= bar * fabs(y);
}

enum { CHOICE = 2 * 96 }; /* of a layer: heads, and what is selected */

struct seen {
	int32_t index[3 * CHOICE];
	int count;
};

static void see(void *arg, int layer, const int32_t *index)
{
	struct seen *s = arg;

	(void)layer;
	memcpy(s->index + s->count, index, CHOICE * sizeof(*index));
	s->count += CHOICE;
}

/* What is asked of a model beside its training. */
static void check_answers_of(struct twins *w, const struct lh_attention_mode *mode)
{
	static float rows[2][T], logits[2][V];
	const struct lh_comm *c = w->c;
	int32_t *tokens = w->tokens, *targets = w->targets;
	struct lh_err err = LH_ERR_INIT;
	double loss[2];

	for (int k = 0; k < 2; k++) {
		struct lh_model *m = k ? w->shared : w->alone;

		RANKS_CHECK(!lh_model_loss(m, mode, 1, T, tokens, targets, NULL, &loss[k],
					   rows[k], &err));
	}
	RANKS_CHECK(is_near(loss[1], loss[0], 1e-6));
	RANKS_CHECK(distance(rows[1], rows[0], T) < 1e-6);
	for (int64_t at = 0; at < T; at += 9) {
		RANKS_CHECK(!lh_model_logits(w->alone, mode, 1, T, tokens, at, logits[0],
					     &err));
		RANKS_CHECK(!lh_model_logits(w->shared, mode, 1, T, tokens, at, logits[1],
					     &err));
		RANKS_CHECK(distance(logits[1], logits[0], V) < 1e-5);
	}
}

static void check_choice(struct twins *w)
{
	const struct lh_comm *c = w->c;
	struct lh_err err = LH_ERR_INIT;
	struct seen one = { 0 }, all = { 0 };

	RANKS_CHECK(lh_lighthouse_selected(&w->mode.geometry) * 2 == CHOICE);
	RANKS_CHECK(!lh_model_selection(w->alone, &w->mode, 1, w->tokens, NULL, see, &one,
					&err));
	RANKS_CHECK(!lh_model_selection(w->shared, &w->mode, 1, w->tokens, NULL, see, &all,
					&err));
	RANKS_CHECK(one.count == 2 * CHOICE && !memcmp(&one, &all, sizeof(one)));
}

/* As many tokens as a rank has rows it can do by itself. */
static void check_short(struct twins *w)
{
	const struct lh_comm *c = w->c;
	struct lh_err err = LH_ERR_INIT;
	double one, all;

	if (c->rank)
		return;
	RANKS_CHECK(!lh_model_loss(w->alone, &lh_attention_full, 1, T / c->size, w->tokens,
				   w->targets, NULL, &one, NULL, &err));
	RANKS_CHECK(!lh_model_loss(w->shared, &lh_attention_full, 1, T / c->size, w->tokens,
				   w->targets, NULL, &all, NULL, &err));
	RANKS_CHECK(is_near(all, one, 1e-6));
}

/* What fails on one of those that share a sequence is its own error, and nobody waits. */
static void check_shared_error(struct twins *w)
{
	const struct lh_comm *c = w->c;
	int want = c->rank == 1 ? LH_ETOOBIG : 0;
	struct seen seen = { 0 };
	float logits[V];
	double loss;

	if (c->rank == 1)
		w->ops.fetch = fetch_fails;
	RANKS_CHECK(lh_model_loss(w->shared, &w->mode, 1, T, w->tokens, w->targets, NULL,
				  &loss, NULL, NULL) == want);
	RANKS_CHECK(lh_model_logits(w->shared, &w->mode, 1, T, w->tokens,
				    T / (2 * c->size), logits, NULL) == want);
	RANKS_CHECK(lh_model_selection(w->shared, &w->mode, 1, w->tokens, NULL, see, &seen,
				       NULL) == want);
	w->ops.fetch = lh_ops_cpu.fetch;
}

static void check_answers(const struct lh_comm *c)
{
	struct twins w;

	open_twins(&w, c, (struct kind){ .lighthouse = true, .context = c->size });
	draw(&w, 0);
	check_answers_of(&w, &lh_attention_full);
	check_answers_of(&w, &w.mode);
	check_choice(&w);
	check_short(&w);
	check_shared_error(&w);
	check_answers_of(&w, &w.mode);
	close_twins(&w);
}

static const struct ranks_case cases[] = {
	{ "full", check_full },
	{ "lighthouse", check_lighthouse },
	{ "groups", check_groups },
	{ "groups_lighthouse", check_groups_lighthouse },
	{ "same_bits", check_same_bits },
	{ "answers", check_answers },
};

static void ranks_that_share_a_sequence_train_as_one(void **state)
{
	(void)state;
	ranks_run(2, "full");
	ranks_run(4, "full");
}

static void ranks_that_share_a_sequence_select_as_one(void **state)
{
	(void)state;
	ranks_run(2, "lighthouse");
	ranks_run(4, "lighthouse");
}

static void groups_that_share_sequences_train_as_one(void **state)
{
	(void)state;
	ranks_run(4, "groups");
	ranks_run(4, "groups_lighthouse");
}

static void ranks_that_share_a_sequence_answer_as_one(void **state)
{
	(void)state;
	ranks_run(2, "answers");
	ranks_run(4, "answers");
}

static void ranks_that_share_a_sequence_have_the_same_bits(void **state)
{
	(void)state;
	ranks_run(4, "same_bits");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranks_that_share_a_sequence_train_as_one),
		cmocka_unit_test(ranks_that_share_a_sequence_select_as_one),
		cmocka_unit_test(groups_that_share_sequences_train_as_one),
		cmocka_unit_test(ranks_that_share_a_sequence_answer_as_one),
		cmocka_unit_test(ranks_that_share_a_sequence_have_the_same_bits),
	};

	if (argc > 1)
		return ranks_main(argv[1], cases, sizeof(cases) / sizeof(cases[0]));
	return cmocka_run_group_tests_name("context", tests, NULL, NULL);
}

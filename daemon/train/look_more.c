/* look_more.c: what Lighthouse attention selects, and whether hidden digits are found;
 * see loop_int.h.
 *
 * All passes have the shape of an evaluation's, which was rehearsed: no kernel is looked
 * for and no memory taken in the midst of training. A text shorter than a sequence is
 * padded: attention is causal, so that what follows the question changes nothing, and
 * Lighthouse attention, which has whole sequences only, can be asked as well.
 *
 * What that costs: a look at selections is one forward pass of a micro-batch, and 4 H S
 * bytes of each Lighthouse layer fetched and gone through on the host (530 M parameters
 * at 98,304 tokens: 15 MB); a grid of passkeys, as many sequences forward as there are
 * contexts x 7 depths x samples. */
#include "train/loop_int.h"

#include <inttypes.h>

#include "base/fs.h"
#include "train/passkey.h"

/* ---- selection ------------------------------------------------------------- */

/* The same sequences at every look: of the first validation set, or else the first of
 * training, by the job file's weights. */
static int fill(struct lh_team *t, int b, struct lh_err *err)
{
	const struct lh_job_data *d = &t->job->data;
	const struct lh_mix now = t->data.mix;
	int rc = 0;

	lh_mix_init(&t->data.mix, d->sources, d->source_count, t->data.seed);
	for (int s = 0; !rc && s < b; s++)
		rc = t->data.validation_count ?
			     lh_team_read_validation(t, 0, s, b, s, err) :
			     lh_team_read_train(t, s, s, err);
	t->data.mix = now;
	return rc;
}

static void see(void *arg, int layer, const int32_t *index)
{
	lh_selection_add(arg, layer, index);
}

int lh_loop_look_selection(struct lh_loop *l, const char *reason, json_t *told,
			   struct lh_err *err)
{
	const struct lh_attention_mode *mode = &l->team.modes[l->p.phase];
	const struct lh_job_model *model = &l->job->model;
	int64_t start_us = lh_clock_us();
	int b = lh_team_look_batch(&l->team), rc;

	if (mode->attention == LH_ATTENTION_FULL || lh_look_is_called_away(l))
		return 0;
	lh_loop_status(l, "evaluating");
	if (l->selection && !lh_selection_is_of(l->selection, &mode->geometry)) {
		lh_selection_free(l->selection);
		l->selection = NULL;
	}
	if (!l->selection)
		l->selection = lh_selection_new(&mode->geometry, model->layers,
						model->heads);
	lh_selection_begin(l->selection);
	rc = fill(&l->team, b, err);
	if (!rc) /* one micro-batch of this rank, whose weights are those of all */
		rc = lh_team_selection(&l->team, mode, b, see, l->selection, err);
	lh_link_beat(l->link);
	if (!rc)
		lh_look_add_take(l, told, LH_LOOK_SELECTION, mode, reason,
				 lh_look_ms_since(start_us), lh_selection_json(l->selection));
	return rc;
}

/* ---- passkeys -------------------------------------------------------------- */

int lh_loop_may_passkey(const struct lh_loop *l, struct lh_err *err)
{
	const struct lh_job_data *d = &l->job->data;

	if (!l->team.words.filler_count) {
		lh_err_set(err, LH_ESTATE, "the job's ids are not bytes, and it has no words to "
			   "hide digits in");
		return lh_err_hint(err, "evaluation.passkey.file, in the job file: 'lhctl ids "
				   "--passkey' makes it of a tokenizer");
	}
	if (d->seq_len >= LH_PASSKEY_CONTEXT_MIN)
		return 0;
	lh_err_set(err, LH_ESTATE, "sequences of %" PRId64 " tokens hide no digit", d->seq_len);
	return lh_err_hint(err, "a seq_len from %d", LH_PASSKEY_CONTEXT_MIN);
}

struct grid {
	const struct lh_attention_mode *mode;
	int contexts;
	int64_t context[LH_PASSKEY_CONTEXTS_MAX];
	int64_t found[LH_PASSKEY_CONTEXTS_MAX][LH_PASSKEY_DEPTHS];
};

static int ask_cell(struct lh_loop *l, struct grid *g, int c, int d, struct lh_err *err)
{
	struct lh_team_passkey p = { .mode = g->mode, .context = g->context[c],
				     .depth_percent = lh_passkey_depths[d] };
	int rc = 0;

	while (!rc && p.sample < l->job->evaluation.passkey.samples &&
	       !lh_look_is_called_away(l)) {
		rc = lh_team_passkey(&l->team, &p, &g->found[c][d], err);
		p.sample += lh_team_look_round(&l->team);
		lh_link_beat(l->link);
	}
	return rc;
}

/* {contexts, depths, samples, found: a row for each context, right}. */
static json_t *grid_json(const struct grid *g, int64_t samples)
{
	json_t *contexts = json_array(), *depths = json_array(), *found = json_array();
	int64_t right = 0;

	for (int d = 0; d < LH_PASSKEY_DEPTHS; d++)
		json_array_append_new(depths, json_integer(lh_passkey_depths[d]));
	for (int c = 0; c < g->contexts; c++) {
		json_t *row = json_array();

		for (int d = 0; d < LH_PASSKEY_DEPTHS; d++) {
			json_array_append_new(row, json_integer(g->found[c][d]));
			right += g->found[c][d];
		}
		json_array_append_new(found, row);
		json_array_append_new(contexts, json_integer(g->context[c]));
	}
	return json_pack("{s:o, s:o, s:I, s:o, s:f}", "contexts", contexts, "depths", depths,
			 "samples", (json_int_t)samples, "found", found, "right",
			 (double)right / (double)(samples * g->contexts * LH_PASSKEY_DEPTHS));
}

int lh_loop_look_passkey(struct lh_loop *l, const struct lh_attention_mode *mode,
			 const char *reason, json_t *told, struct lh_err *err)
{
	int64_t start_us = lh_clock_us(), from = l->job->evaluation.passkey.from_tokens;
	struct grid g = { .mode = mode };
	int rc = 0;

	lh_loop_status(l, "evaluating");
	g.contexts = lh_passkey_contexts(from, l->job->data.seq_len, g.context);
	for (int i = 0; !rc && !l->abandoned && i < g.contexts * LH_PASSKEY_DEPTHS; i++)
		rc = ask_cell(l, &g, i / LH_PASSKEY_DEPTHS, i % LH_PASSKEY_DEPTHS, err);
	if (!rc && !l->abandoned)
		lh_look_add_take(l, told, LH_LOOK_PASSKEY, mode, reason,
				 lh_look_ms_since(start_us),
				 grid_json(&g, l->job->evaluation.passkey.samples));
	return rc;
}

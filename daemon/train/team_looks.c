/* team_looks.c: what ranks do together that is no step: evaluations, and what else is looked
 * at beside training; see team.h.
 *
 * Each rank, or group that shares sequences, has its part of a round. What rank 0 has chosen
 * by itself it looks at alone, but for a sequence that is shared. */
#include "train/team_int.h"

#include <stdlib.h>

#include "base/fs.h"
#include "train/passkey.h"

static const struct lh_attention_mode *mode_of(const struct lh_team *t, int phase)
{
	return phase == FULL ? &lh_attention_full : &t->modes[phase];
}

static int phase_of(const struct lh_team *t, const struct lh_attention_mode *mode)
{
	return mode == &lh_attention_full ? FULL : (int)(mode - t->modes);
}

int64_t lh_team_evaluated(const struct lh_team *t)
{
	int64_t n = t->data.validation_count ? t->job->evaluation.sequences : 0;

	return n ? n : t->micro;
}

/* ---- what each rank does ---------------------------------------------------- */

/* Of a batch whose targets and row_loss are at hand. */
static void add_places(struct lh_team *t, int b, struct lh_losses *own)
{
	int64_t start_us = lh_clock_us(), T = t->job->data.seq_len;

	for (int s = 0; s < b; s++)
		lh_positions_add(&own->by_place, t->targets + s * T,
				 t->starts ? t->starts + s * T : NULL, t->row_loss + s * T);
	own->by_place_us = lh_clock_us() - start_us;
}

/* Of this rank's part of a round: its sequences, how many they are. There may be none; a
 * shared one is read still, and looked at in vain, so that all ranks make the same calls. */
static int read_round(struct lh_team *t, const struct order *o)
{
	int64_t n = t->job->evaluation.sequences, i = o->at + group_of(t) * t->micro;
	int b = n - i < t->micro ? (int)(n - i) : t->micro, rc = 0;

	for (int s = 0; !rc && s < b; s++)
		rc = lh_team_read_validation(t, o->set, i + s, n, s, &t->trouble);
	if (b <= 0 && is_shared(t))
		lh_team_read_validation(t, o->set, n - 1, n, 0, &t->trouble);
	return b > 0 ? b : 0;
}

static void evaluate_own(struct lh_team *t, const struct order *o, int b,
			 struct lh_losses *own)
{
	int64_t T = t->job->data.seq_len;
	float *rows = t->job->evaluation.positions ? t->row_loss : NULL;
	double nats;
	int rc = 0;

	if (b || is_shared(t))
		rc = lh_model_loss(t->model, mode_of(t, o->phase), b ? b : 1, T, t->tokens,
				   t->targets, t->starts, &nats, rows, &t->trouble);
	else
		lh_model_go_along(t->model);
	if (rc || !b || t->context.rank) /* the first of a group tells of it */
		return;
	own->nats = nats;
	for (int64_t j = 0; j < b * T; j++)
		own->tokens += t->targets[j] >= 0;
	if (rows)
		add_places(t, b, own);
}

static int evaluate(struct lh_team *t, const struct order *o, struct lh_losses *sum,
		    struct lh_err *err)
{
	struct lh_losses *all = lh_calloc((size_t)t->comm.size, sizeof(*all));
	struct lh_losses *own = &all[t->comm.rank];
	int b = read_round(t, o), rc = agree(t, err);

	lh_positions_init(&own->by_place, t->job->data.seq_len);
	if (!rc) {
		evaluate_own(t, o, b, own);
		rc = agree(t, err);
	}
	if (!rc)
		lh_comm_collect(&t->comm, "losses", all, sizeof(*all));
	for (int r = 0; !rc && r < t->comm.size; r++) {
		sum->nats += all[r].nats;
		sum->tokens += all[r].tokens;
		lh_positions_join(&sum->by_place, &all[r].by_place);
	}
	sum->by_place_us += own->by_place_us;
	free(all);
	return rc;
}

/* Of this rank's part of a round. The batch is filled up by samples that do not count:
 * its shape was rehearsed, and answers are those of any number of ranks. */
static int64_t find_own(struct lh_team *t, const struct order *o)
{
	int64_t T = t->job->data.seq_len, V = t->job->model.vocab, found = 0;
	uint64_t seed = (uint64_t)t->job->evaluation.passkey.seed;
	int b = lh_team_look_batch(t), rc = 0;
	int64_t from = o->at + group_of(t) * b;
	int64_t n = t->job->evaluation.passkey.samples - from;
	int *digit = lh_calloc((size_t)b, sizeof(*digit));
	float *logits = lh_calloc((size_t)(b * V), sizeof(*logits));

	for (int s = 0; s < b; s++)
		digit[s] = lh_passkey_text(&t->words, seed, from + s, o->context,
					   o->depth_percent, T, t->tokens + s * T);
	if (n > 0 || is_shared(t))
		rc = lh_model_logits(t->model, mode_of(t, o->phase), b, T, t->tokens,
				     o->context - 1, logits, &t->trouble);
	else
		lh_model_go_along(t->model);
	for (int s = 0; !rc && !t->context.rank && s < b && s < n; s++)
		found += lh_passkey_answer(&t->words, logits + s * V) == digit[s];
	free(logits);
	free(digit);
	return found;
}

static int find(struct lh_team *t, const struct order *o, int64_t *found, struct lh_err *err)
{
	int64_t *all = lh_calloc((size_t)t->comm.size, sizeof(*all));
	int rc;

	all[t->comm.rank] = find_own(t, o);
	rc = agree(t, err);
	if (!rc)
		lh_comm_collect(&t->comm, "digits found", all, sizeof(*all));
	for (int r = 0; !rc && r < t->comm.size; r++)
		*found += all[r];
	free(all);
	return rc;
}

/* Sequences that rank 0 has chosen and all ranks look at, in order->b. */
static void share_sequences(struct lh_team *t, int b)
{
	size_t bytes = (size_t)(b * t->job->data.seq_len) * sizeof(*t->tokens);

	lh_comm_share(&t->comm, "sequences", t->tokens, bytes);
	lh_comm_share(&t->comm, "their targets", t->targets, bytes);
}

static int lose(struct lh_team *t, const struct order *o, struct lh_err *err)
{
	double nats;

	share_sequences(t, o->b);
	lh_model_loss(t->model, mode_of(t, o->phase), o->b, t->job->data.seq_len, t->tokens,
		      t->targets, NULL, &nats, t->row_loss, &t->trouble);
	return agree(t, err);
}

static int select_all(struct lh_team *t, const struct order *o,
		      void (*seen)(void *arg, int layer, const int32_t *index), void *arg,
		      struct lh_err *err)
{
	share_sequences(t, o->b);
	lh_model_selection(t->model, mode_of(t, o->phase), o->b, t->tokens, NULL, seen, arg,
			   &t->trouble);
	return agree(t, err);
}

/* Rank 0 sees it. */
static void see_nothing(void *arg, int layer, const int32_t *index)
{
	(void)arg, (void)layer, (void)index;
}

void lh_team_obey_look(struct lh_team *t, const struct order *o)
{
	struct lh_losses losses = { 0 }; /* rank 0 tells of it all */
	int64_t found = 0;

	switch (o->task) {
	case EVALUATE:
		evaluate(t, o, &losses, NULL);
		break;
	case PASSKEY:
		find(t, o, &found, NULL);
		break;
	case LOSS:
		lose(t, o, NULL);
		break;
	case SELECTION:
		select_all(t, o, see_nothing, NULL, NULL);
		break;
	default:
		LH_BUG("task %d is no look", (int)o->task);
	}
}

/* ---- rank 0 ---------------------------------------------------------------- */

int64_t lh_team_round(const struct lh_team *t)
{
	return (int64_t)t->micro * lh_job_groups(t->job);
}

int lh_team_evaluate(struct lh_team *t, int set, const struct lh_attention_mode *mode,
		     int64_t i, struct lh_losses *sum, struct lh_err *err)
{
	struct order o = { .task = EVALUATE, .set = set, .phase = phase_of(t, mode), .at = i };

	give(t, &o);
	return evaluate(t, &o, sum, err);
}

int lh_team_look_batch(const struct lh_team *t)
{
	int64_t n = lh_team_evaluated(t);

	return n < t->micro ? (int)n : t->micro;
}

int64_t lh_team_look_round(const struct lh_team *t)
{
	return (int64_t)lh_team_look_batch(t) * lh_job_groups(t->job);
}

int lh_team_passkey(struct lh_team *t, const struct lh_team_passkey *p, int64_t *found,
		    struct lh_err *err)
{
	struct order o = { .task = PASSKEY, .phase = phase_of(t, p->mode), .at = p->sample,
			   .context = p->context, .depth_percent = p->depth_percent };

	give(t, &o);
	return find(t, &o, found, err);
}

int lh_team_loss(struct lh_team *t, const struct lh_attention_mode *mode, int b,
		 int64_t tokens, struct lh_err *err)
{
	struct order o = { .task = LOSS, .phase = phase_of(t, mode), .b = b };
	double nats;
	int rc;

	if (is_shared(t) && tokens > lh_team_own_tokens(t)) {
		LH_ASSERT(tokens == t->job->data.seq_len);
		give(t, &o);
		return lose(t, &o, err);
	}
	lh_team_lead(t, true);
	rc = lh_model_loss(t->model, mode, b, tokens, t->tokens, t->targets, NULL, &nats,
			   t->row_loss, err);
	lh_team_lead(t, false);
	return rc;
}

int lh_team_selection(struct lh_team *t, const struct lh_attention_mode *mode, int b,
		      void (*seen)(void *arg, int layer, const int32_t *index), void *arg,
		      struct lh_err *err)
{
	struct order o = { .task = SELECTION, .phase = phase_of(t, mode), .b = b };
	int rc;

	if (is_shared(t)) {
		give(t, &o);
		return select_all(t, &o, seen, arg, err);
	}
	lh_team_lead(t, true);
	rc = lh_model_selection(t->model, mode, b, t->tokens, t->starts, seen, arg, err);
	lh_team_lead(t, false);
	return rc;
}

int64_t lh_team_own_tokens(const struct lh_team *t)
{
	return t->job->data.seq_len / t->context.size;
}

/* look_choices.c: how often a model picks the right one of several endings; see
 * loop_int.h.
 *
 * A pass of full attention is as long as the longest item, not as a sequence of training,
 * which may be hundreds of times as long; its shape is rehearsed. Lighthouse attention
 * has whole sequences only, and ranks that share them have those beside what fits one of
 * them. The endings of all items fill the rows of passes one after the other: a file costs as
 * many passes as its endings make micro-batches. Of several ranks this one asks alone, but
 * for a sequence that they share. */
#include "train/loop_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

enum { PASS_ROUND = 128 }; /* tokens of a pass: whole tiles of a GPU's attention */

/* An ending of an item. */
struct place {
	int64_t item;
	int ending;
};

struct asked {
	const struct lh_choices *set;
	const struct lh_attention_mode *mode;
	int64_t t;                    /* tokens of a pass */
	struct place next;            /* to be asked for */
	double nats[LH_ENDINGS_MAX];  /* of the endings of one item */
	int64_t right, right_by_length;
};

/* ---- the files ------------------------------------------------------------- */

int lh_loop_open_choices(struct lh_loop *l, struct lh_err *err)
{
	int rc = 0;

	for (int i = 0; !rc && i < l->job->evaluation.choices.file_count; i++) {
		rc = lh_choices_read(&l->choices[i], l->job->evaluation.choices.files[i].path,
				     l->job, err);
		l->choices_count += !rc;
	}
	return rc;
}

void lh_loop_close_choices(struct lh_loop *l)
{
	while (l->choices_count)
		lh_choices_release(&l->choices[--l->choices_count]);
}

int64_t lh_loop_choices_tokens(const struct lh_loop *l)
{
	int64_t most = 0;

	for (int i = 0; i < l->choices_count; i++)
		most = l->choices[i].longest > most ? l->choices[i].longest : most;
	most = (most + PASS_ROUND - 1) / PASS_ROUND * PASS_ROUND;
	return most <= lh_team_own_tokens(&l->team) ? most : l->job->data.seq_len;
}

int lh_loop_may_choose(const struct lh_loop *l, struct lh_err *err)
{
	if (l->choices_count)
		return 0;
	lh_err_set(err, LH_ESTATE, "the job has no multiple choice to be asked");
	return lh_err_hint(err, "evaluation.choices.files, in the job file");
}

/* ---- asking ---------------------------------------------------------------- */

static void advance(const struct lh_choices *set, struct place *p)
{
	if (++p->ending < set->items[p->item].endings)
		return;
	p->ending = 0;
	p->item++;
}

/* Of a row; the last ending of an item decides. */
static void score(struct asked *a, struct place at, const int32_t *targets,
		  const float *row_loss)
{
	const struct lh_choice *item = &a->set->items[at.item];
	double nats = 0;

	for (int64_t i = 0; i < a->t; i++)
		if (targets[i] >= 0)
			nats += (double)row_loss[i];
	a->nats[at.ending] = nats;
	if (at.ending + 1 < item->endings)
		return;
	a->right += lh_choices_is_right(item, a->nats, false);
	a->right_by_length += lh_choices_is_right(item, a->nats, true);
}

/* As many endings as a pass has rows; what is left of a last one is padding. */
static int ask(struct lh_loop *l, struct asked *a, struct lh_err *err)
{
	struct lh_team *t = &l->team;
	int b = lh_team_look_batch(t), n = 0, rc;
	struct place at = a->next;
	size_t row = (size_t)a->t;

	for (; n < b && a->next.item < a->set->count; n++) {
		lh_choices_row(a->set, a->next.item, a->next.ending, a->t,
			       t->tokens + n * a->t, t->targets + n * a->t);
		advance(a->set, &a->next);
	}
	memset(t->tokens + n * a->t, 0, (size_t)(b - n) * row * sizeof(*t->tokens));
	memset(t->targets + n * a->t, 0xff, (size_t)(b - n) * row * sizeof(*t->targets));
	rc = lh_team_loss(t, a->mode, b, a->t, err);
	lh_link_beat(l->link);
	for (int s = 0; !rc && s < n; s++) {
		score(a, at, t->targets + s * a->t, t->row_loss + s * a->t);
		advance(a->set, &at);
	}
	return rc;
}

/* Adds {set_name, items, acc, acc_norm, chance, cut} of one file. */
static int ask_file(struct lh_loop *l, int file, const struct lh_attention_mode *mode,
		    json_t *sets, struct lh_err *err)
{
	const struct lh_choices *set = &l->choices[file];
	struct asked a = { .set = set, .mode = mode, .t = l->job->data.seq_len };
	double n = (double)set->count;
	int rc = 0;

	if (mode->attention == LH_ATTENTION_FULL)
		a.t = lh_loop_choices_tokens(l);
	while (!rc && a.next.item < set->count && !lh_look_is_called_away(l))
		rc = ask(l, &a, err);
	if (!rc && !l->abandoned)
		json_array_append_new(sets, json_pack(
			"{s:s, s:I, s:f, s:f, s:f, s:I}", "set_name",
			l->job->evaluation.choices.files[file].name, "items",
			(json_int_t)set->count, "acc", (double)a.right / n, "acc_norm",
			(double)a.right_by_length / n, "chance", lh_choices_chance(set), "cut",
			(json_int_t)set->cut));
	return rc;
}

int lh_loop_look_choices(struct lh_loop *l, const struct lh_attention_mode *mode,
			 const char *reason, json_t *told, struct lh_err *err)
{
	int64_t start_us = lh_clock_us();
	json_t *sets = json_array();
	int rc = 0;

	lh_loop_status(l, "evaluating");
	for (int i = 0; !rc && !l->abandoned && i < l->choices_count; i++)
		rc = ask_file(l, i, mode, sets, err);
	if (!rc && !l->abandoned)
		lh_look_add_take(l, told, LH_LOOK_CHOICES, mode, reason,
				 lh_look_ms_since(start_us),
				 json_pack("{s:O}", "sets", sets));
	json_decref(sets);
	return rc;
}

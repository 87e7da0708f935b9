/* selection.c: see selection.h.
 *
 * An entry is expanded when its children are in the sub-sequence, so the first of
 * each p children tells. A head's choice is one bit for each entry above the finest
 * level; tokens are starved by whole entries of level 1. */
#include "train/selection.h"

#include <stdlib.h>
#include <string.h>

struct tally { /* of one level, summed over layers */
	double expanded, any_head; /* entries */
	double pairs, of_pairs;    /* of heads that agree; that could */
	double kept, of_kept;
};

struct lh_selection {
	struct lh_lighthouse g;
	int layers, heads;
	int64_t entries;        /* above the finest level */
	uint64_t *bits;         /* (layers, heads, words) of the last look */
	int64_t words;
	bool *seen;             /* (layers) there are bits of it */
	uint16_t *count;        /* (entries) heads of the layer that expand it */
	uint64_t *fresh;        /* (words) of one head */
	int32_t *last;          /* (N_1) look that chose it last, 0: none */
	int32_t looks;
	int added;              /* layers of this look */
	struct tally tally[LH_LEVELS_MAX];
};

struct lh_selection *lh_selection_new(const struct lh_lighthouse *g, int layers, int heads)
{
	struct lh_selection *s = lh_calloc(1, sizeof(*s));

	s->g = *g;
	s->layers = layers;
	s->heads = heads;
	s->entries = lh_lighthouse_pyramid(g) - g->tokens;
	s->words = (s->entries + 63) / 64;
	s->bits = lh_calloc((size_t)(layers * heads * s->words), sizeof(*s->bits));
	s->seen = lh_calloc((size_t)layers, sizeof(*s->seen));
	s->count = lh_calloc((size_t)s->entries, sizeof(*s->count));
	s->fresh = lh_calloc((size_t)s->words, sizeof(*s->fresh));
	s->last = lh_calloc((size_t)lh_lighthouse_entries(g, 1), sizeof(*s->last));
	return s;
}

void lh_selection_free(struct lh_selection *s)
{
	if (!s)
		return;
	free(s->bits);
	free(s->seen);
	free(s->count);
	free(s->fresh);
	free(s->last);
	free(s);
}

bool lh_selection_is_of(const struct lh_selection *s, const struct lh_lighthouse *g)
{
	return s->g.tokens == g->tokens && s->g.levels == g->levels &&
	       s->g.pool == g->pool && s->g.topk == g->topk && s->g.tile == g->tile;
}

void lh_selection_begin(struct lh_selection *s)
{
	memset(s->tally, 0, sizeof(s->tally));
	s->added = 0;
	s->looks++;
}

/* Marks entry `at` (above the finest level) as expanded by the head at hand. */
static void mark(struct lh_selection *s, int level, int64_t at, const uint64_t *before)
{
	struct tally *t = &s->tally[level];
	uint64_t bit = UINT64_C(1) << at % 64;

	s->fresh[at / 64] |= bit;
	s->count[at]++;
	t->expanded++;
	if (!before)
		return;
	t->of_kept++;
	t->kept += (before[at / 64] & bit) != 0;
}

static void add_head(struct lh_selection *s, int layer, int head, const int32_t *index)
{
	int64_t S = lh_lighthouse_selected(&s->g), position;
	uint64_t *bits = s->bits + ((int64_t)layer * s->heads + head) * s->words;

	memset(s->fresh, 0, (size_t)s->words * sizeof(*s->fresh));
	for (int64_t i = 0; i < S; i++) {
		int level = lh_lighthouse_level_of(&s->g, index[i], &position) + 1;

		if (level == s->g.levels || position % s->g.pool)
			continue;
		position /= s->g.pool;
		if (level == 1)
			s->last[position] = s->looks;
		mark(s, level, lh_lighthouse_base(&s->g, level) - s->g.tokens + position,
		     s->seen[layer] ? bits : NULL);
	}
	memcpy(bits, s->fresh, (size_t)s->words * sizeof(*s->fresh));
}

/* Of n heads that expand an entry, each agrees with n - 1 of the H - 1 others. */
static void compare_heads(struct lh_selection *s)
{
	for (int level = 1; level < s->g.levels; level++) {
		int64_t at = lh_lighthouse_base(&s->g, level) - s->g.tokens;
		int64_t end = at + lh_lighthouse_entries(&s->g, level);
		struct tally *t = &s->tally[level];

		for (; at < end; at++) {
			double n = s->count[at];

			t->any_head += n > 0;
			t->pairs += n > 0 ? n * (n - 1) : 0;
			t->of_pairs += n * (s->heads - 1);
		}
	}
}

void lh_selection_add(struct lh_selection *s, int layer, const int32_t *index)
{
	memset(s->count, 0, (size_t)s->entries * sizeof(*s->count));
	for (int h = 0; h < s->heads; h++)
		add_head(s, layer, h, index + h * lh_lighthouse_selected(&s->g));
	compare_heads(s);
	s->seen[layer] = true;
	s->added++;
}

static double never(const struct lh_selection *s)
{
	int64_t n = lh_lighthouse_entries(&s->g, 1), starved = 0;

	for (int64_t i = 0; i < n; i++)
		starved += !s->last[i] || s->last[i] <= s->looks - LH_SELECTION_WINDOW;
	return (double)starved / (double)n;
}

static json_t *share(double part, double whole)
{
	return whole > 0 ? json_real(part / whole) : json_null();
}

json_t *lh_selection_json(const struct lh_selection *s)
{
	json_t *levels = json_array();

	for (int level = s->g.levels - 1; level > 0; level--) {
		const struct tally *t = &s->tally[level];
		double n = (double)lh_lighthouse_entries(&s->g, level) * s->added;

		json_array_append_new(levels, json_pack(
			"{s:i, s:o, s:o, s:o, s:o}", "level", level, "expanded",
			share(t->expanded, n * s->heads), "any_head", share(t->any_head, n),
			"heads", share(t->pairs, t->of_pairs), "kept",
			share(t->kept, t->of_kept)));
	}
	return json_pack("{s:i, s:i, s:f, s:o}", "layers", s->added, "window",
			 s->looks < LH_SELECTION_WINDOW ? (int)s->looks :
							  LH_SELECTION_WINDOW,
			 "never", never(s), "levels", levels);
}

/* lighthouse_select.c: which entries of the pyramid form the sub-sequence
 * (paper section 3.2), and the inverse map.
 *
 * Tiles are independent, and so are documents in them, each with its share q of the
 * budget m. From the coarsest level down, of a document's candidates (q+1)/2 are
 * expanded for their query score and, among the others, q/2 for their key score; every
 * candidate is emitted; the children of the expanded ones are the next candidates.
 * Emission is the post-order walk of that tree, which is the causal order, so nothing
 * is sorted by position. */
#include "cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ranked {
	float score;
	int32_t at; /* among the candidates, which ascend by position */
};

/* Higher score first, then smaller position. */
static int by_rank(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return x->at < y->at ? -1 : 1;
}

struct level {
	int64_t count;      /* candidates */
	int64_t *position;  /* of each, ascending */
	bool *expanded;
	int64_t next;       /* of the walk */
};

struct document {       /* the part of one that lies in a tile */
	int64_t entries; /* of the coarsest level */
	int64_t share;   /* of the budget */
};

struct tile {
	const struct lh_lighthouse *g;
	struct level level[LH_LEVELS_MAX];
	int64_t base[LH_LEVELS_MAX]; /* flat index of (l, 0) */
	struct document *document;   /* that it holds */
	int64_t documents;
	struct ranked *rank;
	int32_t *out;                /* next row to write */
};

/* start (N) of the sequence, or NULL. */
static void find_documents(struct tile *t, int64_t number, const int32_t *start)
{
	const struct lh_lighthouse *g = t->g;
	int64_t c = lh_lighthouse_window(g, g->levels - 1), i = 0;
	int64_t n = t->level[g->levels - 1].count;

	t->documents = 0;
	while (i < n) {
		int64_t from = i++;

		while (i < n && (!start || start[(number * n + i) * c] < (number * n + i) * c))
			i++;
		t->document[t->documents++] = (struct document){
			i - from, lh_lighthouse_share(g, i) - lh_lighthouse_share(g, from) };
	}
}

/* Of the candidates [from, to), marks the `want` best that are not expanded yet. */
static void expand_best(struct tile *t, struct level *v, int64_t from, int64_t to,
			const float *score, int64_t want)
{
	int64_t n = 0;

	for (int64_t i = from; i < to; i++) {
		float s = score[v->position[i]];

		if (v->expanded[i])
			continue;
		t->rank[n].score = isnan(s) ? INFINITY : s;
		t->rank[n++].at = (int32_t)i;
	}
	qsort(t->rank, (size_t)n, sizeof(*t->rank), by_rank);
	for (int64_t i = 0; i < want; i++)
		v->expanded[t->rank[i].at] = true;
}

static void expand(struct tile *t, int l, const float *sq, const float *sk)
{
	struct level *v = &t->level[l];
	int64_t from = 0;

	memset(v->expanded, 0, (size_t)v->count);
	for (int64_t i = 0; i < t->documents; i++) {
		const struct document *d = &t->document[i];
		int64_t n = l == t->g->levels - 1 ? d->entries : d->share * t->g->pool;

		expand_best(t, v, from, from + n, sq + t->base[l], (d->share + 1) / 2);
		expand_best(t, v, from, from + n, sk + t->base[l], d->share / 2);
		from += n;
	}
}

static void children(const struct lh_lighthouse *g, const struct level *from,
		     struct level *to)
{
	to->count = 0;
	for (int64_t i = 0; i < from->count; i++)
		for (int c = 0; from->expanded[i] && c < g->pool; c++)
			to->position[to->count++] = from->position[i] * g->pool + c;
}

/* Emits the next candidate of level l, its descendants first. */
static void walk(struct tile *t, int l)
{
	struct level *v = &t->level[l];
	int64_t i = v->next++;

	for (int c = 0; l && v->expanded[i] && c < t->g->pool; c++)
		walk(t, l - 1);
	*t->out++ = (int32_t)(t->base[l] + v->position[i]);
}

static void select_tile(struct tile *t, int64_t number, const int32_t *start,
			const float *sq, const float *sk)
{
	const struct lh_lighthouse *g = t->g;
	int top = g->levels - 1;
	struct level *v = &t->level[top];

	for (int l = 0; l <= top; l++)
		t->level[l].next = 0;
	for (int64_t i = 0; i < v->count; i++)
		v->position[i] = number * v->count + i;
	find_documents(t, number, start);
	for (int l = top; l > 0; l--) {
		expand(t, l, sq, sk);
		children(g, &t->level[l], &t->level[l - 1]);
	}
	for (int64_t i = 0; i < t->level[top].count; i++)
		walk(t, top);
}

static void tile_init(struct tile *t, const struct lh_lighthouse *g)
{
	int64_t top = lh_lighthouse_entries(g, g->levels - 1) / lh_lighthouse_tiles(g);
	int64_t rest = (int64_t)g->pool * g->tile, most = top > rest ? top : rest;

	t->g = g;
	t->rank = lh_calloc((size_t)most, sizeof(*t->rank));
	t->document = lh_calloc((size_t)top, sizeof(*t->document));
	for (int l = 0; l < g->levels; l++) {
		t->base[l] = lh_lighthouse_base(g, l);
		t->level[l].count = top;
		t->level[l].position = lh_calloc((size_t)most, sizeof(int64_t));
		t->level[l].expanded = lh_calloc((size_t)most, sizeof(bool));
	}
}

static void tile_release(struct tile *t)
{
	for (int l = 0; l < t->g->levels; l++) {
		free(t->level[l].position);
		free(t->level[l].expanded);
	}
	free(t->document);
	free(t->rank);
}

void lh_cpu_lighthouse_select(struct lh_dev *dev, const struct lh_lighthouse *g,
			      const struct lh_heads *h, int32_t *index,
			      const float *score_q, const float *score_k)
{
	int64_t P = lh_lighthouse_pyramid(g), S = lh_lighthouse_selected(g);
	int64_t tiles = lh_lighthouse_tiles(g), BH = (int64_t)h->batch * h->heads;

	(void)dev;
#pragma omp parallel
	{
		struct tile t;

		tile_init(&t, g);
#pragma omp for collapse(2)
		for (int64_t bh = 0; bh < BH; bh++)
			for (int64_t n = 0; n < tiles; n++) {
				int32_t *rows = index + bh * S + n * (S / tiles);
				const int32_t *start = h->start;

				if (start)
					start += bh / h->heads * g->tokens;
				t.out = rows;
				select_tile(&t, n, start, score_q + bh * P,
					    score_k + bh * P);
				LH_ASSERT(t.out == rows + S / tiles);
			}
		tile_release(&t);
	}
}

void lh_cpu_lighthouse_map(struct lh_dev *dev, const struct lh_lighthouse *g,
			   int64_t BH, int32_t *map, const int32_t *index)
{
	int64_t P = lh_lighthouse_pyramid(g), S = lh_lighthouse_selected(g);

	(void)dev;
#pragma omp parallel for
	for (int64_t bh = 0; bh < BH; bh++) {
		memset(map + bh * P, 0xff, (size_t)P * sizeof(*map)); /* -1 */
		for (int64_t r = 0; r < S; r++)
			map[bh * P + index[bh * S + r]] = (int32_t)r;
	}
}

/* packing.c: see packing.h. */
#include "train/packing.h"

#include <stdlib.h>
#include <string.h>

static int64_t gcd(int64_t a, int64_t b)
{
	while (b) {
		int64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

int64_t lh_packing_window(const struct lh_job *job)
{
	int64_t window = 1;

	for (int i = 0; i < job->phase_count; i++) {
		const struct lh_lighthouse *g = &job->phases[i].lighthouse;
		int64_t c;

		if (job->phases[i].attention == LH_ATTENTION_FULL)
			continue;
		c = lh_lighthouse_window(g, g->levels - 1);
		window = window / gcd(window, c) * c;
	}
	return window;
}

/* Rows of n tokens of a document. */
static int64_t rows_of(const struct lh_packing *p, int64_t n)
{
	return (n + p->window - 1) / p->window * p->window;
}

/* A document of tokens [from, to), whose first row is number `row` of the shard: a
 * sequence begins with the first row of a window, which holds a token, as filler is less
 * than a window. */
static void add_document(struct lh_packing *p, int64_t *room, int64_t from, int64_t row,
			 int64_t rows)
{
	for (; p->count * p->seq_len < row + rows; p->count++) {
		if (p->count + 1 >= *room)
			p->from = lh_realloc(p->from, (size_t)(*room *= 2) *
							      sizeof(*p->from));
		p->from[p->count] = from + p->count * p->seq_len - row;
	}
}

static bool find_sequences(struct lh_packing *p, const struct lh_scan *scan)
{
	int64_t room = 64, row = 0;
	struct lh_walk d;
	bool told = false;

	p->from = lh_calloc((size_t)room, sizeof(*p->from));
	lh_walk_open(&d, p->shard, scan);
	while (!told && d.at < p->shard->count) {
		int64_t from = d.at, rows;

		told = !lh_walk_next(&d);
		rows = rows_of(p, d.at - from);
		add_document(p, &room, from, row, rows);
		row += rows;
	}
	lh_walk_close(&d);
	p->from[p->count] = p->shard->count;
	/* The last token has nothing to predict: it is no sequence by itself. */
	if (!told && p->from[p->count - 1] == p->shard->count - 1)
		p->count--;
	return !told;
}

bool lh_packing_init(struct lh_packing *p, const struct lh_shard *s, int64_t seq_len,
		     int64_t window, const struct lh_scan *scan)
{
	LH_ASSERT(seq_len % window == 0 && lh_shard_has_documents(s));
	*p = (struct lh_packing){ .shard = s, .seq_len = seq_len, .window = window };
	if (window > 1)
		return find_sequences(p, scan);
	p->count = (s->count - 1 + seq_len - 1) / seq_len;
	return true;
}

void lh_packing_release(struct lh_packing *p)
{
	free(p->from);
	memset(p, 0, sizeof(*p));
}

void lh_packing_range(const struct lh_packing *p, int64_t i, int64_t *from, int64_t *to)
{
	LH_ASSERT(i >= 0 && i < p->count);
	if (p->from) {
		*from = p->from[i];
		*to = p->from[i + 1];
		return;
	}
	*from = i * p->seq_len;
	*to = *from + p->seq_len;
	if (*to > p->shard->count)
		*to = p->shard->count;
}

/* Tokens from `at` on that are of one document, `room` at most; whether it ends with
 * them. */
static int64_t piece_of(const struct lh_packing *p, int64_t at, int64_t room, bool *ends)
{
	int64_t left = p->shard->count - at;
	int64_t limit = at + (room < left ? room + 1 : left);
	int64_t n = lh_shard_document_end(p->shard, at, limit) - at;

	*ends = n <= room;
	return *ends ? n : room;
}

int64_t lh_packing_targets(const struct lh_packing *p, int64_t i)
{
	int64_t at, to, n, targets = 0;
	bool ends;

	for (lh_packing_range(p, i, &at, &to); at < to; at += n) {
		n = piece_of(p, at, to - at, &ends);
		targets += n - ends;
	}
	return targets;
}

struct rows {
	int32_t *tokens, *targets, *starts; /* (seq_len) */
};

/* Rows [from, to) of a document that began at `start` repeat its last token. */
static void fill_up(const struct rows *r, int64_t from, int64_t to, int64_t start)
{
	for (int64_t t = from; t < to; t++) {
		r->tokens[t] = r->tokens[from - 1];
		r->targets[t] = -1;
		r->starts[t] = (int32_t)start;
	}
}

/* n tokens from `at` on become rows from `row` on; the last one may end its document. */
static int take(const struct lh_packing *p, const struct rows *r, int64_t row, int64_t at,
		int64_t n, bool ends, int64_t vocab, struct lh_err *err)
{
	int rc = lh_shard_read_below(p->shard, at, n, vocab, r->tokens + row, err);

	if (!rc)
		rc = lh_shard_read_below(p->shard, at + 1, n - ends, vocab, r->targets + row,
					 err);
	for (int64_t t = row; t < row + n; t++)
		r->starts[t] = (int32_t)row;
	if (ends)
		r->targets[row + n - 1] = -1;
	return rc;
}

int lh_packing_fill(const struct lh_packing *p, int64_t i, int64_t vocab, int32_t *tokens,
		    int32_t *targets, int32_t *starts, struct lh_err *err)
{
	struct rows r = { tokens, targets, starts };
	int64_t at, to, row = 0;

	lh_packing_range(p, i, &at, &to);
	/* An index that lies may place more here than there are rows. */
	while (at < to && row < p->seq_len) {
		bool ends;
		int64_t n = piece_of(p, at, p->seq_len - row, &ends), end = row + rows_of(p, n);

		if (take(p, &r, row, at, n, ends, vocab, err))
			return err->code;
		fill_up(&r, row + n, end, row);
		row = end;
		at += n;
	}
	fill_up(&r, row, p->seq_len, row);
	return 0;
}

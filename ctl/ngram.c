/* ngram.c: see ngram.h. A context starts at the separator. */
#include "ngram.h"

#include <math.h>
#include <stdlib.h>

#include "lighthouse/err.h"
#include "lighthouse/shard.h"

enum { V = LH_BYTES_VOCAB };
#define W 4.0

struct ngram {
	uint32_t one[V], two[V][V];
	uint32_t (*three)[V][V]; /* [before last][last][id] */
	uint64_t total;
	uint32_t before[V];      /* one: as a context */
	uint32_t before2[V][V];  /* two: as a context */
};

struct ngram *ngram_new(void)
{
	struct ngram *g = lh_calloc(1, sizeof(*g));

	g->three = lh_calloc(V, sizeof(*g->three));
	return g;
}

void ngram_free(struct ngram *g)
{
	if (!g)
		return;
	free(g->three);
	free(g);
}

void ngram_count(struct ngram *g, const int32_t *ids, int64_t n)
{
	int a = LH_BYTES_SEPARATOR, b = LH_BYTES_SEPARATOR;

	for (int64_t i = 0; i < n; i++) {
		int x = ids[i];

		g->one[x]++;
		g->two[b][x]++;
		g->three[a][b][x]++;
		g->before[b]++;
		g->before2[a][b]++;
		g->total++;
		a = b;
		b = x;
	}
}

void ngram_measure(const struct ngram *g, const int32_t *ids, int64_t n,
		   double nats[NGRAM_ORDERS])
{
	int a = LH_BYTES_SEPARATOR, b = LH_BYTES_SEPARATOR;

	for (int k = 0; k < NGRAM_ORDERS; k++)
		nats[k] = 0;
	for (int64_t i = 0; i < n; i++) {
		int x = ids[i];
		double p0 = (g->one[x] + W / V) / ((double)g->total + W);
		double p1 = (g->two[b][x] + W * p0) / (g->before[b] + W);
		double p2 = (g->three[a][b][x] + W * p1) / (g->before2[a][b] + W);

		nats[0] -= log(p0) / (double)n;
		nats[1] -= log(p1) / (double)n;
		nats[2] -= log(p2) / (double)n;
		a = b;
		b = x;
	}
}

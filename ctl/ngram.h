/* ngram.h: byte models of order 0, 1 and 2: what a trained model has to beat.
 *
 * Counted on one text, measured on another. An order backs off to the one below:
 *   p_n(x | ctx) = (count(ctx x) + W p_{n-1}(x)) / (count(ctx) + W),  W = 4,
 * and order 0 to the uniform distribution over the ids. One owner.
 */
#ifndef LIGHTHOUSE_NGRAM_H
#define LIGHTHOUSE_NGRAM_H

#include <stdint.h>

#define NGRAM_ORDERS 3 /* unigram, bigram, trigram */

struct ngram;
struct ngram *ngram_new(void); /* about 70 MB */
void ngram_free(struct ngram *g); /* NULL is allowed */
/* Adds a document; ids are below LH_BYTES_VOCAB. */
void ngram_count(struct ngram *g, const int32_t *ids, int64_t n);
/* Mean nats an id of the text, for each order. */
void ngram_measure(const struct ngram *g, const int32_t *ids, int64_t n,
		   double nats[NGRAM_ORDERS]);

#endif

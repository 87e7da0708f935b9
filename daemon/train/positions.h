/* positions.h: the loss by place in the sequence: what a longer context is worth.
 *
 * Places are put together in up to LH_POSITIONS_MAX buckets of equal width in the
 * logarithm, from one token to all of them: the loss falls fast at first and slowly for
 * ever, and a doubling of the context is always as wide. Narrow buckets, near the
 * start, are of few tokens. Pure; any thread.
 */
#ifndef LIGHTHOUSE_POSITIONS_H
#define LIGHTHOUSE_POSITIONS_H

#include <jansson.h>
#include <stdint.h>

#define LH_POSITIONS_MAX 32

struct lh_positions {
	int count;                          /* buckets */
	int64_t edge[LH_POSITIONS_MAX + 1]; /* bucket i: places edge[i] .. edge[i+1]-1 */
	double nats[LH_POSITIONS_MAX];
	int64_t tokens[LH_POSITIONS_MAX];
};

/* Of sequences of `seq_len` tokens; nothing is counted yet. */
void lh_positions_init(struct lh_positions *p, int64_t seq_len);
/* targets, starts, row_loss (seq_len) of one sequence, as of lh_model_loss; with starts,
 * a place is one in a document. */
void lh_positions_add(struct lh_positions *p, const int32_t *targets,
		      const int32_t *starts, const float *row_loss);
/* p <- p and more, of sequences as long. */
void lh_positions_join(struct lh_positions *p, const struct lh_positions *more);
/* {edges: [count + 1], loss: [nats a token, null: none], tokens: [..]}. */
json_t *lh_positions_json(const struct lh_positions *p);

#endif

/* peers.h: where each rank of an attempt is, and who says so when one is lost.
 *
 * A rank whose peer has died waits for it for ever, or is ended by a library at a loss:
 * neither can say what happened. So each rank has a parent, which does nothing else. When
 * its rank ends that had not left, it writes into LH_ATTEMPT_FAULT and the log which rank
 * it was, how it ended and after which collective, and ends with an error: then the
 * launcher ends all others. lhd reads the fault. Rank 0 also tells of ranks that it has
 * waited for long; whether that is too long lhd says, by rank 0's beat. A rank that loses
 * its parent, or a parent its launcher, says so and ends (SIGUSR2).
 *
 * Where ranks are is on a board, a file of the attempt that those of one host have mapped.
 * On a host without the attempt's directory board and fault are a joined rank's own
 * (join/join.h), from where the fault is sent on.
 * Training thread.
 */
#ifndef LIGHTHOUSE_PEERS_H
#define LIGHTHOUSE_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/err.h"

struct lh_peers;

/* Forks: goes on in the child, as rank `rank` of `size` of the attempt whose directory
 * `dir` is; the parent passes SIGTERM on, and ends when the child has. No thread may have
 * been started. */
int lh_peers_begin(struct lh_peers **peers, const char *dir, int rank, int size,
		   struct lh_err *err);
/* From here on the end of this rank is no fault; but one that has met none of the others
 * ends them. NULL is allowed. */
void lh_peers_leave(struct lh_peers *peers);

/* Before and after a collective about `what`: for lh_comm.note. */
void lh_peers_note(void *peers, const char *what, bool begins);
/* The step that is being made. NULL is allowed. */
void lh_peers_step(struct lh_peers *peers, int64_t step);

#endif

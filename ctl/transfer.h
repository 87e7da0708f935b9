/* transfer.h: what `lhctl export` and `lhctl import` tell while bytes move. */
#ifndef LIGHTHOUSE_TRANSFER_H
#define LIGHTHOUSE_TRANSFER_H

#include <stdint.h>

#include "lighthouse/err.h"

/* On a terminal, a line that is written over: how much is done and how fast. To be
 * zeroed; `moved` is a lh_hf_progress's, with it as the argument. */
struct ctl_transfer {
	int64_t began_us, shown_us;
};
void ctl_transfer_moved(void *transfer, int64_t done_bytes, int64_t all_bytes);
/* Says on stderr what was left out, if it was. */
void ctl_transfer_left_out(const struct lh_err *why);
/* Takes the line away. */
void ctl_transfer_end(const struct ctl_transfer *t);

#endif

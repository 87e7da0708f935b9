/* ahead.h: reads ahead of who goes through a mapped file, in a thread of its own.
 *
 * A disk is as fast as it can be only for who asks ahead; and for the kernel finding
 * memory for what comes is more work than most do with it. So both go on at once.
 *
 *   lh_ahead_new(&a);
 *   lh_ahead_look(a, &st, piece); ... the piece is looked at ...   over and over
 *   lh_ahead_free(a);
 *
 * Hints alone: without it everything is read all the same, as where there is no thread
 * to be had. One thread calls; any number
 * of files, one after the other.
 */
#ifndef LIGHTHOUSE_AHEAD_H
#define LIGHTHOUSE_AHEAD_H

#include "data/safetensors.h"

struct lh_ahead;

void lh_ahead_new(struct lh_ahead **a);
/* `data`, of the map, is looked at now, and what follows it soon. */
void lh_ahead_look(struct lh_ahead *a, const struct lh_safetensors *st, const void *data);
void lh_ahead_free(struct lh_ahead *a); /* NULL is allowed */

#endif

/* origin.h: what the numbers of a run come from besides its state: tokens, random
 * numbers, and the device that computes with them.
 *
 * It is in every manifest, and a resume compares it with its own. Other tokens, or
 * another order of them, make a checkpoint's cursor mean other sequences: nobody
 * wants that without knowing. Another device, library or number of threads rounds
 * otherwise: from there on the run is the same in exact arithmetic alone.
 *
 * Pure functions, any thread.
 */
#ifndef LIGHTHOUSE_ORIGIN_H
#define LIGHTHOUSE_ORIGIN_H

#include <jansson.h>

#include "train/data.h"

/* `device` is of ops->describe. New reference. */
json_t *lh_origin_of(const struct lh_job *job, const struct lh_data *data,
		     const char *device);

/* False with what differs, a sentence, in `why`. `then` may be NULL or lack what
 * another version knows of: what is not known does not differ. */
bool lh_origin_same_data(const json_t *then, const json_t *now, char *why, size_t room);
bool lh_origin_same_device(const json_t *then, const json_t *now, char *why, size_t room);

#endif

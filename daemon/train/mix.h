/* mix.h: which source of a mixture gives a sequence.
 *
 * Systematic sampling: among n draws a source of share w has n * w of them, rounded;
 * so has every stretch of a run, up to one draw for each source before it in the list.
 * Independent draws by the same weights would stray by the root of n, and how often a
 * source was drawn from would have to be kept or counted. Here both follow from the
 * number of the draw and a mixture that stays the same until its weights are set:
 * many sequences may be drawn at once. Within a source sequences are in random order
 * (data.h), so nothing lines up with the rhythm of sources.
 *
 * New weights hold from a draw on. What each source gave before is kept with them, so
 * that none of them repeats or skips a sequence, and so is the part of a draw that it
 * had come to, so that weights that are set often still come near their shares.
 *
 * Pure functions.
 */
#ifndef LIGHTHOUSE_MIX_H
#define LIGHTHOUSE_MIX_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lighthouse/job.h"

struct lh_mix {
	int count;                        /* sources, 0: no mixture */
	double weight[LH_SOURCES_MAX];    /* 0 or more, one at least above 0 */
	int64_t since;                    /* draw from which on they hold */
	int64_t drawn[LH_SOURCES_MAX];    /* that each source gave before it */
	uint64_t offset[LH_SOURCES_MAX];  /* of a draw begun before it, in 2^-32 */
	uint64_t share[LH_SOURCES_MAX];   /* of what those before it leave, in 2^-32 */
};

/* As the job file says, from draw 0 on. */
void lh_mix_init(struct lh_mix *m, const struct lh_job_source *sources, int count,
		 uint64_t seed);
/* Other weights from draw n on, which is m->since or later. */
void lh_mix_set(struct lh_mix *m, const double weight[LH_SOURCES_MAX], int64_t n);
/* How many of the first n draws each source gives; n as draw n below. */
void lh_mix_drawn(const struct lh_mix *m, int64_t n, int64_t drawn[LH_SOURCES_MAX]);
/* The source of draw n, from m->since on, and in *nth how many it gave before. */
int lh_mix_source(const struct lh_mix *m, int64_t n, int64_t *nth);

/* Whole; null: no mixture. New reference. */
json_t *lh_mix_to_json(const struct lh_mix *m);
/* False: it is strange; *m is no mixture then, as it is of null. */
bool lh_mix_from_json(struct lh_mix *m, const json_t *j);

#endif

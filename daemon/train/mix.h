/* mix.h: which source of a mixture gives a sequence.
 *
 * Systematic sampling: among the first n draws, a source of share w has n * w of them,
 * rounded; so has every stretch of a run, up to one draw for each source before it in
 * the list. Independent draws by the same weights would stray by the root of n, and
 * how often a source was drawn from would have to be kept or counted. Here both follow
 * from the number of the draw and the seed: a cursor is all there is to resume, however
 * many sequences are drawn at once. Within a source sequences are in random order
 * (data.h), so nothing lines up with the rhythm of sources.
 *
 * Pure functions.
 */
#ifndef LIGHTHOUSE_MIX_H
#define LIGHTHOUSE_MIX_H

#include <stdint.h>

#include "lighthouse/job.h"

struct lh_mix {
	int count;                        /* 0: no mixture */
	uint64_t share[LH_SOURCES_MAX];   /* of what is left by those before it, in 2^-32 */
	uint64_t offset[LH_SOURCES_MAX];  /* from the seed, below 2^32 */
};

/* Of the weights of `count` sources, each above 0. */
void lh_mix_init(struct lh_mix *m, const struct lh_job_source *sources, int count,
		 uint64_t seed);
/* How many of the first n draws each source gives. */
void lh_mix_drawn(const struct lh_mix *m, int64_t n, int64_t drawn[LH_SOURCES_MAX]);
/* The source of draw n, from 0, and in *nth how many it gave before. */
int lh_mix_source(const struct lh_mix *m, int64_t n, int64_t *nth);

#endif

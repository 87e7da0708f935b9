/* mix.c: see mix.h. A chain of splits in two: the first source takes its share of all
 * draws, the second its share of those that are left, and so on. A split's count grows
 * by 0 or 1 with each draw that comes to it, so each draw goes to just one source. */
#include "train/mix.h"

#include <math.h>
#include <string.h>

#include "train/rng.h"

void lh_mix_init(struct lh_mix *m, const struct lh_job_source *sources, int count,
		 uint64_t seed)
{
	double left = 0;

	memset(m, 0, sizeof(*m));
	m->count = count;
	for (int i = count - 1; i >= 0; i--) {
		uint32_t r[4];

		left += sources[i].weight;
		m->share[i] = (uint64_t)llround(sources[i].weight / left * 0x1p32);
		lh_rng_block(seed, LH_RNG_MIX, (uint64_t)i, r);
		m->offset[i] = r[0];
	}
}

void lh_mix_drawn(const struct lh_mix *m, int64_t n, int64_t drawn[LH_SOURCES_MAX])
{
	unsigned __int128 left = (unsigned __int128)n;

	for (int i = 0; i < m->count; i++) {
		/* The last one's share is 1: it takes what is left. */
		unsigned __int128 taken = (left * m->share[i] + m->offset[i]) >> 32;

		drawn[i] = (int64_t)taken;
		left -= taken;
	}
}

int lh_mix_source(const struct lh_mix *m, int64_t n, int64_t *nth)
{
	int64_t before[LH_SOURCES_MAX], after[LH_SOURCES_MAX];
	int i = 0;

	lh_mix_drawn(m, n, before);
	lh_mix_drawn(m, n + 1, after);
	while (before[i] == after[i])
		i++;
	*nth = before[i];
	return i;
}

/* mix.c: see mix.h. A chain of splits in two: the first source takes its share of all
 * draws, the second its share of those that are left, and so on. A split's count grows
 * by 0 or 1 with each draw that comes to it, so each draw goes to just one source. */
#include "train/mix.h"

#include <math.h>
#include <string.h>

#include "lighthouse/err.h"
#include "train/rng.h"

static void set_weights(struct lh_mix *m, const double *weight)
{
	double left = 0;

	for (int i = m->count - 1; i >= 0; i--) {
		left += weight[i];
		m->weight[i] = weight[i];
		/* Nothing comes to those behind the last one that has a weight. */
		m->share[i] = left > 0 ? (uint64_t)llround(weight[i] / left * 0x1p32) : 0;
	}
}

void lh_mix_init(struct lh_mix *m, const struct lh_job_source *sources, int count,
		 uint64_t seed)
{
	double weight[LH_SOURCES_MAX];

	memset(m, 0, sizeof(*m));
	m->count = count;
	for (int i = 0; i < count; i++) {
		uint32_t r[4];

		weight[i] = sources[i].weight;
		lh_rng_block(seed, LH_RNG_MIX, (uint64_t)i, r);
		m->offset[i] = r[0];
	}
	set_weights(m, weight);
}

/* Counts since m->since, and in `offset`, unless it is NULL, what remains of each
 * split. */
static void split(const struct lh_mix *m, int64_t n, int64_t *taken, uint64_t *offset)
{
	unsigned __int128 left = (unsigned __int128)n;

	LH_ASSERT(n >= 0);
	for (int i = 0; i < m->count; i++) {
		/* The last one's share is 1: it takes what is left. */
		unsigned __int128 parts = left * m->share[i] + m->offset[i];

		taken[i] = (int64_t)(parts >> 32);
		left -= parts >> 32;
		if (offset)
			offset[i] = (uint64_t)parts & UINT32_MAX;
	}
}

void lh_mix_drawn(const struct lh_mix *m, int64_t n, int64_t drawn[LH_SOURCES_MAX])
{
	split(m, n - m->since, drawn, NULL);
	for (int i = 0; i < m->count; i++)
		drawn[i] += m->drawn[i];
}

void lh_mix_set(struct lh_mix *m, const double weight[LH_SOURCES_MAX], int64_t n)
{
	struct lh_mix then = *m;

	if (!memcmp(m->weight, weight, (size_t)m->count * sizeof(*weight)))
		return;
	split(&then, n - then.since, m->drawn, m->offset);
	for (int i = 0; i < m->count; i++)
		m->drawn[i] += then.drawn[i];
	m->since = n;
	set_weights(m, weight);
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

/* ---- as JSON --------------------------------------------------------------- */

json_t *lh_mix_to_json(const struct lh_mix *m)
{
	json_t *weight, *drawn, *offset;

	if (!m->count)
		return json_null();
	weight = json_array();
	drawn = json_array();
	offset = json_array();
	for (int i = 0; i < m->count; i++) {
		json_array_append_new(weight, json_real(m->weight[i]));
		json_array_append_new(drawn, json_integer(m->drawn[i]));
		json_array_append_new(offset, json_integer((json_int_t)m->offset[i]));
	}
	return json_pack("{s:o, s:I, s:o, s:o}", "weight", weight, "since",
			 (json_int_t)m->since, "drawn", drawn, "offset", offset);
}

/* An integer of 0 to `most`. */
static bool read_count(const json_t *j, int64_t most, int64_t *out)
{
	*out = json_integer_value(j);
	return json_is_integer(j) && *out >= 0 && *out <= most;
}

static bool read_sources(struct lh_mix *m, const json_t *j)
{
	const json_t *weights = json_object_get(j, "weight");
	const json_t *drawn = json_object_get(j, "drawn");
	const json_t *offset = json_object_get(j, "offset");
	double weight[LH_SOURCES_MAX], sum = 0;
	int64_t all = 0;

	if (m->count < 1 || m->count > LH_SOURCES_MAX)
		return false;
	for (int i = 0; i < m->count; i++) {
		size_t at = (size_t)i;
		int64_t part;

		weight[i] = json_number_value(json_array_get(weights, at));
		if (!json_is_number(json_array_get(weights, at)) || weight[i] < 0 ||
		    weight[i] > LH_WEIGHT_MAX ||
		    !read_count(json_array_get(drawn, at), INT64_C(1) << 53, &m->drawn[i]) ||
		    !read_count(json_array_get(offset, at), UINT32_MAX, &part))
			return false;
		m->offset[i] = (uint64_t)part;
		sum += weight[i];
		all += m->drawn[i];
	}
	set_weights(m, weight);
	return sum > 0 && all == m->since;
}

bool lh_mix_from_json(struct lh_mix *m, const json_t *j)
{
	*m = (struct lh_mix){ 0 };
	if (!j || json_is_null(j))
		return true;
	m->count = (int)json_array_size(json_object_get(j, "weight"));
	if (read_count(json_object_get(j, "since"), INT64_C(1) << 53, &m->since) &&
	    read_sources(m, j))
		return true;
	*m = (struct lh_mix){ 0 };
	return false;
}

/* look.c: what is looked at beside training, and what that costs; see loop_int.h. */
#include "train/loop_int.h"

#include "base/failpoint.h"
#include "base/fs.h"

const char *lh_look_attention(const struct lh_attention_mode *mode)
{
	return mode->attention == LH_ATTENTION_FULL ? "full" : "lighthouse";
}

void lh_told_add_take(json_t *told, const char *kind, json_t *fields)
{
	LH_ASSERT(fields);
	json_array_append_new(told, json_pack("[s, o]", kind, fields));
}

void lh_told_post_take(struct lh_loop *l, json_t *told, int rc)
{
	bool whole = !rc && !l->abandoned;
	json_t *one;
	size_t i;

	json_array_foreach (told, i, one)
		if (whole)
			lh_loop_post_take(l, json_string_value(json_array_get(one, 0)),
					  json_incref(json_array_get(one, 1)));
	json_decref(told);
}

bool lh_look_is_called_away(struct lh_loop *l)
{
	LH_FAILPOINT("look.batch");
	if (lh_loop_is_told(l))
		l->abandoned = true;
	return l->abandoned;
}

double lh_look_ms_since(int64_t start_us)
{
	return (double)(lh_clock_us() - start_us) / 1000;
}

void lh_look_add_take(struct lh_loop *l, json_t *told, enum lh_look look,
		      const struct lh_attention_mode *mode, const char *reason, double ms,
		      json_t *data)
{
	static const char *const kinds[LH_LOOK_COUNT] = {
		[LH_LOOK_SELECTION] = "selection", [LH_LOOK_POSITIONS] = "positions",
		[LH_LOOK_PASSKEY] = "passkey", [LH_LOOK_CHOICES] = "choices" };

	LH_ASSERT(data && kinds[look]);
	lh_told_add_take(told, "look", json_pack(
		"{s:s, s:i, s:s, s:s, s:f, s:o, s:o}", "kind", kinds[look], "phase",
		l->p.phase, "attention", lh_look_attention(mode), "reason", reason,
		"duration_ms", ms, "cost", lh_loop_cost(l, look, ms), "data", data));
}

json_t *lh_loop_cost(struct lh_loop *l, enum lh_look look, double ms)
{
	l->look_ms[look] += ms;
	return l->trained_ms > 0 ? json_real(l->look_ms[look] / l->trained_ms) : json_null();
}

/* origin.c: see origin.h. A shard is known by its size, its number of tokens and
 * lh_shard_fingerprint; not by its path, so that data may be moved. */
#include "train/origin.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "train/rng.h"

static json_t *shard_json(const struct lh_shard *s)
{
	char hash[20];

	snprintf(hash, sizeof(hash), "%016" PRIx64, lh_shard_fingerprint(s));
	return json_pack("{s:s, s:I, s:I, s:s}", "path", s->path, "bytes",
			 (json_int_t)s->map_bytes, "tokens", (json_int_t)s->count,
			 "fingerprint", hash);
}

/* [[weight, shards], ...]; null: no mixture. */
static json_t *mixture_json(const struct lh_job_data *d)
{
	json_t *list = d->source_count ? json_array() : json_null();

	for (int i = 0; i < d->source_count; i++)
		json_array_append_new(list, json_pack("[f, i]", d->sources[i].weight,
						      d->sources[i].shards));
	return list;
}

json_t *lh_origin_of(const struct lh_job *job, const struct lh_data *data,
		     const char *device)
{
	json_t *train = json_array(), *validation = json_array(), *origin;

	for (int i = 0; i < data->count; i++)
		json_array_append_new(train, shard_json(&data->shards[i]));
	for (int i = 0; i < data->validation_count; i++)
		json_array_append_new(validation, shard_json(&data->validation[i]));
	origin = json_pack("{s:s, s:{s:s, s:I, s:I}, s:o, s:o, s:o}", "device", device, "rng",
			   "generator", LH_RNG_NAME, "seed", (json_int_t)job->seed,
			   "shuffle_seed", (json_int_t)job->data.shuffle_seed, "train",
			   train, "validation", validation, "mixture",
			   mixture_json(&job->data));
	LH_ASSERT(origin);
	return origin;
}

static bool same(const json_t *a, const json_t *b, const char *key)
{
	return json_equal(json_object_get(a, key), json_object_get(b, key));
}

static bool same_shard(const json_t *a, const json_t *b)
{
	return same(a, b, "bytes") && same(a, b, "tokens") && same(a, b, "fingerprint");
}

/* "": there is none; a manifest may hold anything. */
static const char *text_of(const json_t *shard, const char *key)
{
	const char *text = json_string_value(json_object_get(shard, key));

	return text ? text : "";
}

static void tell_shard(const char *which, const json_t *then, const json_t *now, char *why,
		       size_t room)
{
	snprintf(why, room, "%s '%.200s' had %" JSON_INTEGER_FORMAT " tokens (fingerprint "
		 "%.16s) and has %" JSON_INTEGER_FORMAT " (%.16s)", which,
		 text_of(now, "path"),
		 json_integer_value(json_object_get(then, "tokens")),
		 text_of(then, "fingerprint"),
		 json_integer_value(json_object_get(now, "tokens")),
		 text_of(now, "fingerprint"));
}

bool lh_origin_same_data(const json_t *then, const json_t *now, char *why, size_t room)
{
	const json_t *a = json_object_get(then, "train"), *b = json_object_get(now, "train");

	if (!a)
		return true;
	if (!same(then, now, "rng")) {
		snprintf(why, room, "sequences were drawn with another seed or generator");
		return false;
	}
	/* Manifests that know of no mixtures are of jobs that had none. */
	if (!same(then, now, "mixture") && (json_object_get(then, "mixture") ||
					    json_array_size(json_object_get(now, "mixture")))) {
		snprintf(why, room, "the mixture has other sources or weights");
		return false;
	}
	if (json_array_size(a) != json_array_size(b)) {
		snprintf(why, room, "there were %zu shards and are %zu", json_array_size(a),
			 json_array_size(b));
		return false;
	}
	for (size_t i = 0; i < json_array_size(a); i++)
		if (!same_shard(json_array_get(a, i), json_array_get(b, i))) {
			tell_shard("the shard", json_array_get(a, i), json_array_get(b, i),
				   why, room);
			return false;
		}
	return true;
}

bool lh_origin_same_device(const json_t *then, const json_t *now, char *why, size_t room)
{
	const char *was = json_string_value(json_object_get(then, "device"));
	const char *is = json_string_value(json_object_get(now, "device"));

	if (!was || !strcmp(was, is))
		return true;
	snprintf(why, room, "it was computed on '%.200s', this is '%.200s'", was, is);
	return false;
}

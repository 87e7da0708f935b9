/* fuzz_jobfile.c: job files (jobs/jobfile.h).
 *
 * The input is YAML up to the first NUL, then overrides, each up to the next. It is
 * read without its data and with it: shards a.bin and b.bin lie in the base
 * directory. A job that is accepted comes back the same from its JSON. */
#include <jansson.h>

#include "fuzz.h"
#include "jobs/jobfile.h"
#include "lighthouse/shard.h"

enum { SETS_MAX = 1100, TOKENS = 4096 };

static void make_shard(const char *dir, const char *name)
{
	char *path = lh_asprintf("%s/%s", dir, name);
	struct lh_shard_writer *w;
	int32_t id = 7;

	LH_ASSERT(!lh_shard_writer_new(&w, path, LH_BYTES_VOCAB, LH_BYTES_SEPARATOR, NULL));
	for (int i = 0; i < TOKENS; i++)
		LH_ASSERT(!lh_shard_writer_add(w, &id, 1, NULL));
	LH_ASSERT(!lh_shard_writer_commit(w, 1, NULL));
	free(path);
}

static const char *base_dir(void)
{
	static bool made;

	if (!made) {
		make_shard(fuzz_dir(), "a.bin");
		make_shard(fuzz_dir(), "b.bin");
	}
	made = true;
	return fuzz_dir();
}

static void check_round_trip(const struct lh_job *job)
{
	json_t *json = lh_jobfile_to_json(job), *again;
	struct lh_err err = LH_ERR_INIT;
	struct lh_job copy = { 0 };

	if (lh_jobfile_from_json(&copy, json, &err))
		LH_BUG("a job that was accepted is refused: %s", err.text);
	again = lh_jobfile_to_json(&copy);
	LH_ASSERT(json_equal(json, again));
	LH_ASSERT(lh_job_model_params(&job->model) > 0);
	json_decref(json);
	json_decref(again);
	lh_job_release(&copy);
}

static void load(struct lh_jobfile_source *src, bool without_data)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job = { 0 };

	src->without_data = without_data;
	if (lh_jobfile_load(&job, src, &err)) {
		LH_ASSERT(err.code == LH_EJOBFILE || err.code == LH_EDATA);
		LH_ASSERT(*err.text && *err.hint && !job.name);
		return;
	}
	check_round_trip(&job);
	lh_job_release(&job);
}

/* Paths that would lead out of the base directory, into whatever is there. */
static bool leads_out(const char *text)
{
	return strchr(text, '/') || strstr(text, "\\x2F") || strstr(text, "\\x2f") ||
	       strstr(text, "\\u002F") || strstr(text, "\\u002f") ||
	       strstr(text, "\\U0000002F") || strstr(text, "\\U0000002f");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct fuzz_part rest = { (const char *)data, bytes }, part = { 0 };
	char *set[SETS_MAX], *yaml;
	struct lh_jobfile_source src = { .base_dir = base_dir(),
					 .set = (const char *const *)set };
	bool out;

	fuzz_next(&rest, '\0', &part);
	yaml = fuzz_string(part);
	src.yaml = yaml;
	src.yaml_bytes = part.bytes;
	out = leads_out(yaml);
	while (src.set_count < SETS_MAX && fuzz_next(&rest, '\0', &part)) {
		set[src.set_count] = fuzz_string(part);
		out = leads_out(set[src.set_count++]) || out;
	}
	load(&src, true);
	if (!out)
		load(&src, false);
	while (src.set_count)
		free(set[--src.set_count]);
	free(yaml);
	return 0;
}

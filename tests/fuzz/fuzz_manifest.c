/* fuzz_manifest.c: what a checkpoint says of itself (train/manifest.h): its place in
 * training, its switch, its watched losses, its files, where its numbers come from, and
 * the job it is of. */
#include "fuzz.h"
#include "jobs/jobfile.h"
#include "train/manifest.h"
#include "train/origin.h"
#include "train/rng.h"

static void check_progress(const struct lh_progress *p)
{
	struct lh_job_instability limits = { .loss_z = 3, .gradient_z = 3 };
	struct lh_watch w = p->watch;
	double z;

	LH_ASSERT(p->step >= 0 && p->cursor >= 0);
	LH_ASSERT(p->phase >= 0 && p->phase < LH_PHASES_MAX);
	LH_ASSERT(p->voided_count >= 0 && p->voided_count <= LH_VOIDED_MAX);
	LH_ASSERT(w.count >= 0 && w.count <= LH_WATCH_WINDOW && w.next >= 0);
	lh_watch_judge(&w, &limits, 257, 2.5, 1, &z);
	lh_watch_accept(&w, 2.5, 1);
	json_decref(lh_watch_to_json(&w));
}

static void check_job(const json_t *spec)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job = { 0 };

	if (spec && !lh_jobfile_from_json(&job, spec, &err))
		lh_job_release(&job);
}

static void check_files(const json_t *manifest)
{
	char name[LH_MANIFEST_NAME_BYTES];
	struct lh_err err = LH_ERR_INIT;

	for (int kind = 0; kind < LH_MANIFEST_KINDS; kind++) {
		int n = lh_manifest_file_count(manifest, (enum lh_manifest_kind)kind);

		LH_ASSERT(n >= (kind == LH_MANIFEST_PARAMS) && n <= LH_MANIFEST_FILES_MAX);
		lh_manifest_file_name(name, (enum lh_manifest_kind)kind, n - 1, n);
		LH_ASSERT(!strchr(name, '/'));
		lh_manifest_match(manifest, name, 1000, 0x1234, &err);
	}
}

static void check_origin(const json_t *then)
{
	json_t *now = json_pack("{s:s, s:{s:s, s:i, s:i}, s:[{s:s, s:i, s:i, s:s}], s:n}",
				"device", "cpu", "rng", "generator", LH_RNG_NAME, "seed", 1,
				"shuffle_seed", 1, "train", "path", "a", "bytes", 1064,
				"tokens", 500, "fingerprint", "00000000000004d2",
				"validation");
	char why[600] = "";

	LH_ASSERT(now);
	LH_ASSERT(lh_origin_same_data(then, now, why, sizeof(why)) || *why);
	*why = '\0';
	LH_ASSERT(lh_origin_same_device(then, now, why, sizeof(why)) || *why);
	json_decref(now);
}

static void on_verified(void *arg, const char *file, int64_t bytes,
			const struct lh_err *why)
{
	int *files = arg;

	(*files)++;
	LH_ASSERT(*file && bytes >= 0 && (!why || *why->text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_progress p = { 0 };
	json_t *m;
	int files = 0;

	fuzz_write(fuzz_dir(), "manifest.json", data, bytes);
	/* The tensors are not there. */
	LH_ASSERT(lh_manifest_verify(fuzz_dir(), on_verified, &files, &err) && files);
	LH_ASSERT(*err.text && *err.hint);
	if (lh_manifest_read(fuzz_dir(), &m, &err)) {
		LH_ASSERT(*err.text && !m);
		return 0;
	}
	if (!lh_manifest_progress(m, &p, &err))
		check_progress(&p);
	check_files(m);
	check_origin(json_object_get(m, "origin"));
	check_job(json_object_get(m, "job"));
	json_decref(m);
	return 0;
}

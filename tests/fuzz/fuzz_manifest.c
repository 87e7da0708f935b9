/* fuzz_manifest.c: what a checkpoint says of itself (train/manifest.h): its place in
 * training, its switch, its watched losses, and the job it is of. */
#include "fuzz.h"
#include "jobs/jobfile.h"
#include "train/manifest.h"

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
	lh_manifest_match(m, LH_MANIFEST_PARAMS, 1000, 0x1234, &err);
	check_job(json_object_get(m, "job"));
	json_decref(m);
	return 0;
}

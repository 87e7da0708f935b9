/* bench_load.c: what a job's start from a checkpoint takes, and what it takes of memory.
 *
 *   build/bench/bench_load CHECKPOINT
 *
 * Prints {seconds, beyond_mb}: of lh_checkpoint_load alone, and the most memory while it
 * ran less what the model had before. tests/bench/import.mjs runs it, beside dd. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "jobs/jobfile.h"
#include "train/checkpoint.h"

/* "VmRSS:" or "VmHWM:", in MB. */
static double memory_mb(const char *field)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[200];
	double mb = 0;

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			mb = atof(line + strlen(field)) / 1e3;
	if (f)
		fclose(f);
	return mb;
}

static void must(int rc, const struct lh_err *err)
{
	if (!rc)
		return;
	fprintf(stderr, "error: %s\n", err->text);
	exit(1);
}

int main(int argc, char **argv)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_job job = { 0 };
	struct lh_progress p;
	struct lh_model *m;
	struct lh_dev *dev;
	json_t *manifest;
	double model_mb;
	int64_t start;

	if (argc != 2) {
		fprintf(stderr, "usage: bench_load CHECKPOINT\n");
		return 2;
	}
	must(lh_ops_cpu.open(&dev, 0, &err), &err);
	must(lh_manifest_read(argv[1], &manifest, &err), &err);
	must(lh_jobfile_from_json(&job, json_object_get(manifest, "job"), &err), &err);
	must(lh_model_new(&m, &lh_ops_cpu, dev, NULL, &job.model, 1, 16, &lh_attention_full, 1,
			  &err), &err);
	model_mb = memory_mb("VmRSS:");
	start = lh_clock_us();
	must(lh_checkpoint_load(argv[1], m, &p, false, &err), &err);
	printf("{\"seconds\": %.3f, \"beyond_mb\": %.0f}\n",
	       (double)(lh_clock_us() - start) / 1e6, memory_mb("VmHWM:") - model_mb);
	lh_model_free(m);
	lh_job_release(&job);
	json_decref(manifest);
	lh_ops_cpu.close(dev);
	return 0;
}

/* test_gpu.c: the probe of the GPU and the place of a job, with scripts that
 * answer as lhworker-cuda does on machines of all kinds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobs/gpu.h"

static char dir[] = "/tmp/lh-gpu-XXXXXX", program[64];

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(program, sizeof(program), "%s/lhworker-cuda", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(program);
	return rmdir(dir);
}

/* A worker that does this for --probe. */
static void find_with(struct lh_gpu *gpu, const char *script)
{
	FILE *f = fopen(program, "w");

	assert_non_null(f);
	fprintf(f, "#!/bin/sh\n[ \"$1\" = --probe ] || exit 2\n%s\n", script);
	fclose(f);
	assert_int_equal(chmod(program, 0755), 0);
	lh_gpu_find(gpu, dir);
}

/* What it says where there are two. */
#define TWO "echo '{\"name\": \"NVIDIA Test\", \"memory_bytes\": 85000000000, \"count\": 2}'"

static struct lh_job small_job(enum lh_device device)
{
	struct lh_job job = { .device = device, .devices = 1, .context = 1, .phase_count = 1,
			      .join = (char *)"" };

	job.model = (struct lh_job_model){ .vocab = 257, .dim = 64, .layers = 2,
					   .heads = 2, .kv_heads = 2, .head_dim = 32,
					   .ffn_dim = 128 };
	job.data.seq_len = 256;
	job.batch.sequences = 1;
	job.phases[0].name = (char *)"only";
	return job;
}

static void a_usable_gpu_takes_jobs(void **state)
{
	struct lh_job job = small_job(LH_DEVICE_AUTO);
	struct lh_err err = LH_ERR_INIT;
	struct lh_gpu gpu;

	(void)state;
	find_with(&gpu, "echo '{\"name\": \"NVIDIA Test\", \"memory_bytes\": 85000000000, \"count\": 1}'");
	assert_true(gpu.usable);
	assert_string_equal(gpu.name, "NVIDIA Test");
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
	assert_int_equal(job.device, LH_DEVICE_CUDA);
	job.device = LH_DEVICE_CPU;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
	assert_int_equal(job.device, LH_DEVICE_CPU);
}

static void as_many_gpus_as_there_are_can_be_had(void **state)
{
	struct lh_job job = small_job(LH_DEVICE_AUTO);
	struct lh_err err = LH_ERR_INIT;
	struct lh_gpu gpu;

	(void)state;
	find_with(&gpu, TWO);
	job.devices = 2;
	job.batch.sequences = 6;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
	assert_int_equal(job.device, LH_DEVICE_CUDA);
	job.devices = 3;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), LH_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "devices: 3"));
	assert_non_null(strstr(err.text, "has 2 GPUs"));
	assert_true(*err.hint);
	job.join = (char *)"here:1"; /* other hosts have more */
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
	job.join = (char *)"";
	job.device = LH_DEVICE_CPU;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
}

static void all_devices_are_the_gpus_that_there_are(void **state)
{
	struct lh_job job = small_job(LH_DEVICE_CPU);
	struct lh_err err = LH_ERR_INIT;
	struct lh_gpu gpu;

	(void)state;
	find_with(&gpu, TWO);
	job.all_devices = true;
	job.batch.sequences = 6;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
	assert_int_equal(job.devices, 1);
	job = small_job(LH_DEVICE_AUTO);
	job.all_devices = true;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), LH_EJOBFILE);
	assert_non_null(strstr(err.text, "devices: all are 2 here"));
	job.batch.sequences = 6;
	job.batch.micro_sequences = 2;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), LH_EJOBFILE);
	job.batch.micro_sequences = 3;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
	assert_int_equal(job.devices, 2);
	assert_false(job.all_devices);
	job.all_devices = true;
	job.context = 3;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), LH_EJOBFILE);
	assert_non_null(strstr(err.text, "devices: all are 2 here, which context: 3 does not"));
	job.context = 2; /* one group, for all sequences */
	job.batch.sequences = 5;
	job.batch.micro_sequences = 0;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
	assert_int_equal(job.devices, 2);
}

static void every_phase_must_fit(void **state)
{
	struct lh_job job = small_job(LH_DEVICE_CUDA);
	struct lh_err err = LH_ERR_INIT;
	struct lh_gpu gpu;

	(void)state;
	find_with(&gpu, "echo '{\"name\": \"NVIDIA Test\", \"memory_bytes\": 2000000000, \"count\": 1}'");
	job.data.seq_len = 1 << 16;
	job.phase_count = 2;
	job.phases[0].attention = LH_ATTENTION_LIGHTHOUSE;
	job.phases[0].lighthouse = (struct lh_lighthouse){
		.tokens = 1 << 16, .levels = 3, .pool = 4, .topk = 512, .tile = 128 };
	job.phases[1].name = (char *)"recovery";
	job.recompute = LH_RECOMPUTE_AUTO;
	while (!lh_gpu_place(&gpu, &job, &err))
		assert_true(++job.model.layers < LH_LAYERS_MAX);
	/* One layer too many for the second phase; the first alone fits. */
	assert_true(job.model.layers > 2);
	assert_int_equal(err.code, LH_ETOOBIG);
	assert_non_null(strstr(err.text, "phase 'recovery'"));
	assert_true(*err.hint);
	job.phase_count = 1;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
}

/* Known before there is a GPU to try it on; the CPU does it all. */
static void a_shape_that_a_gpu_cannot_do_is_refused(void **state)
{
	static const struct {
		int head_dim, heads;
		int64_t sequences, seq_len;
		const char *why, *hint;
	} cases[] = {
		{ 512, 2, 1, 256, "head_dim is 512, a GPU takes multiples of 8 from 32 to 256",
		  "device: cpu" },
		{ 24, 2, 1, 256, "head_dim is 24", "device: cpu" },
		{ 36, 2, 1, 256, "head_dim is 36", "device: cpu" },
		{ 64, 64, 1024, 2, "65536 heads at once, a GPU takes 65535",
		  "micro_sequences" },
		{ 40, 64, 512, 16384, "threads of a kernel", "a head_dim that 16 divides" },
		{ 256, 2, 1, 1 << 23, "elements of one head", "seq_len" },
	};
	struct lh_gpu gpu;

	(void)state;
	find_with(&gpu, "echo '{\"name\": \"NVIDIA Test\", \"memory_bytes\": "
		  "9000000000000, \"count\": 1}'");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lh_job job = small_job(LH_DEVICE_AUTO);
		struct lh_err err = LH_ERR_INIT;

		job.model.head_dim = cases[i].head_dim;
		job.model.heads = job.model.kv_heads = cases[i].heads;
		job.batch.sequences = cases[i].sequences;
		job.data.seq_len = cases[i].seq_len;
		assert_int_equal(lh_gpu_place(&gpu, &job, &err), LH_EUNSUPPORTED);
		if (!strstr(err.text, cases[i].why) || !strstr(err.hint, cases[i].hint))
			fail_msg("'%s' (%s) is not about '%s' (%s)", err.text, err.hint,
				 cases[i].why, cases[i].hint);
	}
}

/* A Lighthouse phase's own attention may be longer than the sequence. */
static void the_phase_that_a_gpu_cannot_do_is_named(void **state)
{
	struct lh_job job = small_job(LH_DEVICE_CUDA);
	struct lh_err err = LH_ERR_INIT;
	struct lh_gpu gpu;

	(void)state;
	find_with(&gpu, "echo '{\"name\": \"NVIDIA Test\", \"memory_bytes\": "
		  "9000000000000, \"count\": 1}'");
	job.model.head_dim = 256;
	job.data.seq_len = (1 << 23) - 256;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
	job.phases[0].attention = LH_ATTENTION_LIGHTHOUSE;
	job.phases[0].lighthouse = (struct lh_lighthouse){
		.levels = 2, .pool = 2, .topk = (1 << 22) - 128, .tile = 128 };
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), LH_EUNSUPPORTED);
	assert_non_null(strstr(err.text, "phase 'only': "));
}

/* 2 bytes for each of 65,536 x 65,536 scores: 8 GiB. */
static void determinism_that_does_not_fit_is_named(void **state)
{
	struct lh_job job = small_job(LH_DEVICE_CUDA);
	struct lh_err err = LH_ERR_INIT;
	struct lh_gpu gpu;

	(void)state;
	find_with(&gpu, "echo '{\"name\": \"NVIDIA Test\", \"memory_bytes\": 8000000000, \"count\": 1}'");
	job.data.seq_len = 1 << 16;
	job.phases[0].name = (char *)"only";
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
	job.deterministic = true;
	job.model.head_dim = 64;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), LH_ETOOBIG);
	assert_non_null(strstr(err.text, "phase 'only': deterministic: true takes 7.9"));
	assert_non_null(strstr(err.hint, "deterministic: false"));
	job.device = LH_DEVICE_CPU;
	assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
}

static void no_gpu_says_why(void **state)
{
	static const struct {
		const char *script, *why;
	} cases[] = {
		{ "echo '{\"text\": \"no driver\", \"hint\": \"get one\"}'; exit 1", "no driver" },
		{ "exit 127", "cannot run here" },
		{ "kill -9 $$", "cannot run here" },
		{ "echo nonsense", "not understood" },
		{ "echo '{\"name\": \"none\", \"memory_bytes\": 1, \"count\": 0}'", "not understood" },
		{ "", "not understood" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct lh_job job = small_job(LH_DEVICE_CUDA);
		struct lh_err err = LH_ERR_INIT;
		struct lh_gpu gpu;

		find_with(&gpu, cases[i].script);
		assert_false(gpu.usable);
		assert_int_equal(lh_gpu_place(&gpu, &job, &err), LH_EUNSUPPORTED);
		if (!strstr(err.text, cases[i].why))
			fail_msg("'%s' does not tell of '%s'", err.text, cases[i].why);
		assert_true(*err.hint);
		job.device = LH_DEVICE_AUTO;
		assert_int_equal(lh_gpu_place(&gpu, &job, &err), 0);
		assert_int_equal(job.device, LH_DEVICE_CPU);
	}
}

static void a_build_without_cuda_says_so(void **state)
{
	struct lh_gpu gpu;

	(void)state;
	unlink(program);
	lh_gpu_find(&gpu, dir);
	assert_false(gpu.usable);
	assert_non_null(strstr(gpu.why.text, "there is no"));
	assert_non_null(strstr(gpu.why.hint, "nvcc"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_usable_gpu_takes_jobs),
		cmocka_unit_test(as_many_gpus_as_there_are_can_be_had),
		cmocka_unit_test(all_devices_are_the_gpus_that_there_are),
		cmocka_unit_test(every_phase_must_fit),
		cmocka_unit_test(a_shape_that_a_gpu_cannot_do_is_refused),
		cmocka_unit_test(the_phase_that_a_gpu_cannot_do_is_named),
		cmocka_unit_test(determinism_that_does_not_fit_is_named),
		cmocka_unit_test(no_gpu_says_why),
		cmocka_unit_test(a_build_without_cuda_says_so),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

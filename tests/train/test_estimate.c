/* test_estimate.c: times and chips of the estimate; test_layout.c has the bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "train/estimate.h"

enum { LAYERS = 30 };

/* The published model at 98,304 tokens, all its layers Lighthouse. */
static struct lh_job light_job(enum lh_scorer scorer)
{
	struct lh_job job = { .phase_count = 1, .devices = 1, .context = 1,
			      .recompute = LH_RECOMPUTE_CHEAP };

	job.model = (struct lh_job_model){ .vocab = 512, .dim = 1024, .layers = LAYERS,
					   .heads = 8, .kv_heads = 8, .head_dim = 128,
					   .ffn_dim = 1536 };
	job.data.seq_len = 98304;
	job.batch.sequences = 1;
	job.phases[0].name = (char *)"light";
	job.phases[0].attention = LH_ATTENTION_LIGHTHOUSE;
	job.phases[0].lighthouse = (struct lh_lighthouse){
		.levels = 3, .pool = 4, .topk = 1536, .tile = 128, .scorer = scorer,
		.dilation = 4 };
	return job;
}

static struct lh_estimate_phase phase_of(const struct lh_job *job)
{
	const struct lh_chip *chip = lh_chip_find("h100");
	struct lh_err err = LH_ERR_INIT;
	struct lh_estimate e;

	if (lh_estimate_job(&e, job, &lh_sizes_cuda, chip, INT64_MAX, &err))
		fail_msg("%s", err.text);
	return e.phase[0];
}

/* Two times four classes of 24,576 tokens, each 1.1 ms of 600 TFLOP/s and more: 16 ms
 * a layer and no backward, whatever is computed again. */
static void the_dilated_scorer_costs_its_attention(void **state)
{
	struct lh_job norm = light_job(LH_SCORER_NORM), dilated = light_job(LH_SCORER_DILATED);

	(void)state;
	for (int r = LH_RECOMPUTE_CHEAP; r <= LH_RECOMPUTE_LAYER; r++) {
		double more;

		norm.recompute = dilated.recompute = (enum lh_recompute)r;
		more = (phase_of(&dilated).step_s - phase_of(&norm).step_s) / LAYERS;
		if (!(fabs(more - 0.0175) < 0.0015))
			fail_msg("%.1f ms a layer", more * 1e3);
	}
	/* Twice the classes, half the attention. */
	norm.recompute = dilated.recompute = LH_RECOMPUTE_CHEAP;
	dilated.phases[0].lighthouse.dilation = 8;
	assert_true(phase_of(&dilated).step_s - phase_of(&norm).step_s < 0.0105 * LAYERS);
}

/* Each value takes less than the one before, of two devices; of one they are alike. */
static void what_is_divided_takes_less(void **state)
{
	struct lh_job job = light_job(LH_SCORER_NORM);

	(void)state;
	job.batch.sequences = 2;
	for (job.devices = 1; job.devices <= 2; job.devices++) {
		int64_t state_bytes[LH_DIVIDE_WEIGHTS + 1];

		for (int d = LH_DIVIDE_MOMENTS; d <= LH_DIVIDE_WEIGHTS; d++) {
			job.divide = (enum lh_divide)d;
			state_bytes[d] = phase_of(&job).bytes.state;
		}
		for (int d = LH_DIVIDE_GRADIENTS; d <= LH_DIVIDE_WEIGHTS; d++)
			assert_true(job.devices == 1 ? state_bytes[d] == state_bytes[0] :
						       state_bytes[d] < state_bytes[d - 1]);
	}
}

/* The CPU has every op that a model may ask for. */
static void what_a_device_lacks_is_refused(void **state)
{
	static struct lh_ops_sizes lacking;
	struct lh_err err = LH_ERR_INIT;
	struct lh_estimate e;

	(void)state;
	lacking = lh_sizes_cpu;
	lacking.has_bias = lacking.has_qk_norm = lacking.has_documents = false;
	for (int i = 0; i < 3; i++) {
		static const char *const keys[] = { "model.qkv_bias", "model.qk_norm",
						    "data.documents: separate" };
		struct lh_job job = light_job(LH_SCORER_NORM);

		job.model.qkv_bias = i == 0;
		job.model.qk_norm = i == 1;
		job.data.documents = i == 2 ? LH_DOCUMENTS_SEPARATE : LH_DOCUMENTS_ATTEND;
		assert_int_equal(lh_estimate_job(&e, &job, &lacking, NULL, INT64_MAX, &err),
				 LH_EUNSUPPORTED);
		assert_non_null(strstr(err.text, keys[i]));
		assert_non_null(strstr(err.hint, "device: cpu"));
		assert_int_equal(lh_estimate_job(&e, &job, &lh_sizes_cpu, NULL, INT64_MAX,
						 &err), 0);
	}
}

/* Nine sequences are too many elements for cuDNN and go one by one; seven, the last
 * of a step, go at once, and need more. */
static void a_smaller_last_batch_is_counted(void **state)
{
	struct lh_job job = light_job(LH_SCORER_NORM);
	int64_t whole, rest;
	struct lh_sdpa seven;

	(void)state;
	job.model.layers = 1;
	job.model.heads = job.model.kv_heads = 16;
	job.phases[0].attention = LH_ATTENTION_FULL;
	job.data.seq_len = 1 << 17;
	job.batch.micro_sequences = 9;
	job.batch.sequences = 18;
	whole = phase_of(&job).bytes.device;
	job.batch.sequences = 18 + 7;
	rest = phase_of(&job).bytes.device;
	seven = lh_attention_sdpa(NULL, lh_layout_heads(&job.model, 7, 1 << 17));
	assert_true(rest > 2 * whole);
	assert_int_equal(rest, lh_sizes_cuda.open_bytes(1, 1) +
				       lh_sizes_cuda.sdpa_bytes(&seven, true, false));
}

/* Of what is kept, and of the time, but for the optimizer's and what they hand each other.
 * Sequences are those of both. */
static void a_shared_sequence_is_divided_among_devices(void **state)
{
	for (int full = 0; full < 2; full++) {
		struct lh_job job = light_job(LH_SCORER_NORM);
		struct lh_estimate_phase one, two;

		job.phases[0].attention = full ? LH_ATTENTION_FULL : LH_ATTENTION_LIGHTHOUSE;
		job.batch.sequences = 4;
		job.batch.micro_sequences = 1;
		one = phase_of(&job);
		job.devices = job.context = 2;
		job.batch.micro_sequences = 0;
		two = phase_of(&job);
		assert_true(two.bytes.kept < 0.51 * (double)one.bytes.kept);
		assert_true(two.bytes.kept > 0.49 * (double)one.bytes.kept);
		two.step_s -= two.exchange_s;
		assert_true(two.step_s < 0.52 * one.step_s && two.step_s > 0.49 * one.step_s);
	}
	(void)state;
}

static void chips_are_known_by_their_devices(void **state)
{
	const struct lh_chip *chip = lh_chip_of_device("NVIDIA H100 80GB HBM3");

	(void)state;
	assert_ptr_equal(chip, lh_chip_find("h100"));
	assert_ptr_equal(lh_chip_of_device("NVIDIA H200"), lh_chip_find("h200"));
	/* Cards of other speeds. */
	assert_null(lh_chip_of_device("NVIDIA H100 PCIe"));
	assert_null(lh_chip_of_device("4 CPUs"));
	assert_true(lh_chip_usable_bytes(chip->memory_bytes) < chip->memory_bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_dilated_scorer_costs_its_attention),
		cmocka_unit_test(what_is_divided_takes_less),
		cmocka_unit_test(what_a_device_lacks_is_refused),
		cmocka_unit_test(a_smaller_last_batch_is_counted),
		cmocka_unit_test(a_shared_sequence_is_divided_among_devices),
		cmocka_unit_test(chips_are_known_by_their_devices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

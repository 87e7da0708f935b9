/* test_exchange.c: what devices hand each other, against bytes counted by hand and against
 * two GPUs that were measured (tests/bench/results/ranks.md). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "train/exchange.h"

/* Hosts of 4, a link ten times as fast as the network; steps of a ring are nothing beside
 * the bytes. */
static const struct lh_chip slow = { .name = "slow", .bytes_per_s = 1e9, .host_devices = 4,
				     .link_bytes_per_s = 1e6, .network_bytes_per_s = 1e5 };

static struct lh_job job_of(int devices, int64_t sequences)
{
	struct lh_job job = { .phase_count = 1, .devices = devices, .context = 1 };

	job.model = (struct lh_job_model){ .vocab = 512, .dim = 256, .layers = 4, .heads = 4,
					   .kv_heads = 2, .head_dim = 64, .ffn_dim = 512 };
	job.data.seq_len = 65536;
	job.batch.sequences = sequences;
	job.batch.micro_sequences = 1;
	job.phases[0].attention = LH_ATTENTION_FULL;
	return job;
}

/* Beside layers that take so long, all alike. */
static double exchange_beside(const struct lh_job *job, const struct lh_chip *chip,
			      struct lh_layer_time layer)
{
	struct lh_layer_time layers[LH_LAYERS_MAX];
	struct lh_attention_mode mode;

	for (int i = 0; i < job->model.layers; i++)
		layers[i] = layer;
	lh_attention_mode_of(&mode, job, 0);
	return lh_exchange_s(job, &mode, chip, 2, layers);
}

/* Beside nothing: all of it. */
static double exchange(const struct lh_job *job, const struct lh_chip *chip, int context)
{
	struct lh_job with = *job; /* borrows */

	with.context = context;
	return exchange_beside(&with, chip, (struct lh_layer_time){ 0 });
}

static void is_near(double got, double want, double share)
{
	if (!(fabs(got - want) <= share * want))
		fail_msg("%.6g, not %.6g", got, want);
}

static double param_bytes(const struct lh_job *job)
{
	return 4 * (double)lh_job_model_params(&job->model);
}

/* Gradients in, weights out: each sends all but its piece of both. */
static void a_step_moves_gradients_and_weights(void **state)
{
	struct lh_job job = job_of(1, 8);
	struct lh_chip fast = slow;

	(void)state;
	assert_true(exchange(&job, &slow, 1) == 0);
	for (int n = 2; n <= 8; n *= 2) {
		double rate = n <= slow.host_devices ? 1e6 : 1e5;

		job.devices = n;
		is_near(exchange(&job, &slow, 1), 2 * param_bytes(&job) * (n - 1) / n / rate,
			1e-3);
	}
	/* Cards that are faster than the link do not matter. */
	fast.network_bytes_per_s = 1e9;
	is_near(exchange(&job, &fast, 1), 2 * param_bytes(&job) * 7 / 8 / 1e6, 1e-3);
}

static void divided_gradients_are_summed_for_every_micro_batch(void **state)
{
	struct lh_job job = job_of(2, 2);
	double once, weights;

	(void)state;
	weights = exchange(&job, &slow, 1) / 2;
	job.divide = LH_DIVIDE_GRADIENTS;
	once = exchange(&job, &slow, 1) - weights;
	/* All of them go through each device, and are cleared and added there. */
	is_near(once, param_bytes(&job) * (1 / 1e6 + 2.5 / 1e9), 1e-3);
	job.batch.sequences = 12;
	is_near(exchange(&job, &slow, 1) - weights, 6 * once, 1e-6);
	job.batch.micro_sequences = 3;
	is_near(exchange(&job, &slow, 1) - weights, 2 * once, 1e-6);
}

/* Parameters of a layer of job_of. */
static const double LAYER = 256 * 64 * (4 + 2 * 2 + 4) + 3 * 256 * 512, ENDS = 512 * 256,
		    GAINS = 256 * (2 * 4 + 1);

/* In bf16: all parts of a pass once, and two of four layers again; none when a step ends. */
static void divided_weights_are_gathered_in_every_pass(void **state)
{
	struct lh_job job = job_of(2, 2);
	double moments = exchange(&job, &slow, 1), gathered;

	(void)state;
	job.divide = LH_DIVIDE_GRADIENTS;
	gathered = moments / 2 - exchange(&job, &slow, 1);
	job.divide = LH_DIVIDE_WEIGHTS;
	gathered += exchange(&job, &slow, 1);
	is_near(gathered, (param_bytes(&job) / 2 + 2 * LAYER * 2) / 1e6, 1e-3);
}

/* Layers that take long hide all but the first windows of a pass and the last ones; shorter
 * ones hide as much as they take. */
static void layers_hide_what_runs_beside_them(void **state)
{
	const struct lh_layer_time longest = { 1e9, 1e9, 0, 0 }, shorter = { 0.25, 0.5, 0, 0 };
	struct lh_job job = job_of(2, 2);
	double cleared = param_bytes(&job) / 1e9, weights, last, all;

	(void)state;
	last = (LAYER + ENDS + GAINS) * (4 / 1e6 + 6 / 1e9) + cleared;
	weights = exchange(&job, &slow, 1) / 2;
	assert_true(exchange_beside(&job, &slow, longest) == 2 * weights);
	job.divide = LH_DIVIDE_GRADIENTS;
	all = exchange(&job, &slow, 1);
	is_near(exchange_beside(&job, &slow, longest) - weights, last, 1e-3);
	is_near(all - exchange_beside(&job, &slow, shorter), 4 * 0.5, 1e-6);
	job.divide = LH_DIVIDE_WEIGHTS;
	all = exchange(&job, &slow, 1);
	is_near(exchange_beside(&job, &slow, longest), last + 2 * (LAYER + ENDS + GAINS) / 1e6,
		1e-3);
	is_near(all - exchange_beside(&job, &slow, shorter), 4 * (0.25 + 0.5), 1e-6);
	job.model.tied = true; /* has no output, to come beside the last layer, or to go */
	all = exchange(&job, &slow, 1);
	is_near(all - exchange_beside(&job, &slow, shorter), 3 * (0.25 + 0.5), 1e-6);
}

/* K and V of every layer: forward, backward, and their gradients. */
static void a_shared_sequence_moves_keys_and_values(void **state)
{
	struct lh_job job = job_of(8, 4);
	double rest = exchange(&job, &slow, 1), values = 65536.0 * 2 * 2 * 64, all;

	(void)state;
	for (int context = 2; context <= 8; context *= 2) {
		double own = (context - 1.0) / context, rate = context <= 4 ? 1e6 : 1e5;
		double passes = 4.0 * context / 8;

		is_near(exchange(&job, &slow, context) - rest,
			passes * 4 * values * (2 + 2 + 2) * own / rate, 1e-3);
	}
	/* What comes has the time of attention to own ones. */
	job.context = 2;
	all = exchange(&job, &slow, 2);
	is_near(all - exchange_beside(&job, &slow, (struct lh_layer_time){ 0, 0, 1, 2 }),
		4 * (1 + 2), 1e-6);
	is_near(exchange_beside(&job, &slow, (struct lh_layer_time){ 0, 0, 1e6, 1e6 }) - rest,
		(all - rest) / 3, 1e-6);
}

/* A Lighthouse layer moves the sub-sequence, which has all heads; the rest is dense. */
static void lighthouse_layers_move_the_sub_sequence(void **state)
{
	struct lh_job job = job_of(4, 1);
	double rest = exchange(&job, &slow, 1), rows, dense, light;

	(void)state;
	job.phases[0].attention = LH_ATTENTION_LIGHTHOUSE;
	job.phases[0].lighthouse = (struct lh_lighthouse){ .levels = 3, .pool = 4,
							   .topk = 1024, .tile = 128,
							   .scorer = LH_SCORER_NORM,
							   .dilation = 4 };
	job.phases[0].dense_layers[0] = 0;
	job.phases[0].dense_layers[1] = 3;
	job.phases[0].dense_count = 2;
	rows = 65536 / 16 + 2 * 4 * 1024;
	dense = 65536.0 * 2 * 2 * 64 * 6 * 3 / 4 / 1e6;
	light = rows * 2 * 4 * 64 * 6 * 3 / 4 / 1e6;
	is_near(exchange(&job, &slow, 4) - rest, 2 * dense + 2 * light, 2e-3);
}

/* 530 M parameters and 98,304 tokens on H200s, 1.0864 s alone; as nothing ran beside the
 * computation. */
static void two_gpus_are_as_measured(void **state)
{
	const struct lh_chip *chip = lh_chip_find("h200");
	struct lh_job job = job_of(2, 2);
	struct lh_err err = LH_ERR_INIT;
	const double alone_s = 1.0864;
	struct lh_estimate e;

	(void)state;
	job.model = (struct lh_job_model){ .vocab = 128256, .dim = 1024, .layers = 30,
					   .heads = 8, .kv_heads = 8, .head_dim = 128,
					   .ffn_dim = 1536 };
	job.data.seq_len = 98304;
	job.recompute = LH_RECOMPUTE_CHEAP;
	job.phases[0].name = (char *)"light";
	job.phases[0].attention = LH_ATTENTION_LIGHTHOUSE;
	job.phases[0].lighthouse = (struct lh_lighthouse){ .levels = 3, .pool = 4,
							   .topk = 1536, .tile = 128,
							   .scorer = LH_SCORER_NORM,
							   .dilation = 4 };
	job.phases[0].dense_count = 4;
	for (int i = 0; i < 4; i++)
		job.phases[0].dense_layers[i] = (int[]){ 0, 1, 28, 29 }[i];
	is_near(exchange(&job, chip, 1), 3.88e-3 + 3.69e-3, 0.02);
	is_near(2 * alone_s / (alone_s + exchange(&job, chip, 1)), 1.987, 0.002);
	if (lh_estimate_job(&e, &job, &lh_sizes_cuda, chip, INT64_MAX, &err))
		fail_msg("%s", err.text);
	is_near(e.phase[0].step_s, 1.0936, 0.01);
	assert_true(e.phase[0].exchange_s == exchange(&job, chip, 1));
	job.divide = LH_DIVIDE_GRADIENTS; /* and each window waits for the slower card */
	is_near(2 * alone_s / (alone_s + exchange(&job, chip, 1)), 1.962, 0.01);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_step_moves_gradients_and_weights),
		cmocka_unit_test(divided_gradients_are_summed_for_every_micro_batch),
		cmocka_unit_test(divided_weights_are_gathered_in_every_pass),
		cmocka_unit_test(layers_hide_what_runs_beside_them),
		cmocka_unit_test(a_shared_sequence_moves_keys_and_values),
		cmocka_unit_test(lighthouse_layers_move_the_sub_sequence),
		cmocka_unit_test(two_gpus_are_as_measured),
	};

	return cmocka_run_group_tests_name("exchange", tests, NULL, NULL);
}

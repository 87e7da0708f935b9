/* test_worker_alone.c: a worker that lhd lost, that must not go on, or that nobody
 * asked to train; see worker_story.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker_story.h"

static void without_lhd_it_finishes_its_job(void **state)
{
	size_t bytes;
	char *data, *line, *next;

	(void)state;
	new_job(three_phases, NULL, 0);
	close(lhd.listener);
	lhd.listener = -1;
	unlink(lhd.path);
	launch(false, NULL);
	ended(0, 0);
	data = scratch_read("1/attempt-1/" LH_ATTEMPT_SPOOL, &bytes);
	for (line = data; (next = strchr(line, '\n')); line = next + 1) {
		json_t *r = json_loadb(line, (size_t)(next - line), 0, NULL);

		assert_non_null(r);
		on_record(r);
		json_decref(r);
	}
	assert_int_equal(*line, '\0');
	assert_int_equal(story.steps, 50);
	assert_string_equal(story.end, "done");
	free(data);
}

/* lhd goes away and comes back while training goes on; on_record sees no gap. */
static void every_record_survives_the_loss_of_lhd(void **state)
{
	(void)state;
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	begin(false, NULL);
	listen_until(step_is, 20);
	for (int round = 0; round < 3; round++) {
		fake_hang_up(&lhd);
		greet();
		listen_until(step_is, story.steps + 20);
	}
	command(1, "switch", NULL);
	applied(1);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "done");
	assert_int_equal(story.steps, story.applied_step + 5);
	assert_int_equal(story.attempt_steps, story.steps);
}

/* Weight decay of -999 a step: finite for a while. */
static void what_is_not_finite_is_never_applied_nor_saved(void **state)
{
	const char *const wild[] = { "optimizer.lr=100", "optimizer.weight_decay=10",
				     "optimizer.schedule=constant",
				     "optimizer.warmup_steps=0",
				     "checkpoint.every_steps=1",
				     "on_instability.nan=stop",
				     "on_instability.loss_spike=ignore",
				     "on_instability.gradient_spike=ignore" };
	char newest[32], want[32];

	(void)state;
	new_job(three_phases, wild, sizeof(wild) / sizeof(*wild));
	begin(false, NULL);
	listen_until(NULL, 0);
	ended(1, 0);
	assert_string_equal(story.end, "failed");
	assert_string_equal(story.end_code, "LH_ENONFINITE");
	assert_in_range(story.steps, 1, 40);
	snprintf(want, sizeof(want), "step %d: ", (int)story.steps + 1);
	assert_non_null(strstr(story.end_text, want));
	snprintf(want, sizeof(want), "step-%010d", (int)story.steps);
	newest_checkpoint(newest);
	assert_string_equal(newest, want);
}

/* Nothing of it is begun anew, and nothing is removed. */
static void without_a_usable_checkpoint_the_job_is_held(void **state)
{
	char *path = scratch_path("1/" LH_JOB_CHECKPOINTS "/step-0000000050/manifest.json");

	(void)state;
	new_job(three_phases, (const char *const[]){ "checkpoint.keep=1" }, 1);
	run_to_the_end(false, NULL);
	assert_int_equal(unlink(path), 0);
	begin(false, NULL);
	listen_until(NULL, 0);
	ended(1, 0);
	assert_string_equal(story.end, "held");
	assert_string_equal(story.end_code, "LH_ECORRUPT");
	assert_int_equal(story.attempt_steps, 0);
	*strrchr(path, '/') = '\0';
	assert_true(lh_fs_exists(path));
	free(path);
}

/* The shard was replaced after the job was checked. */
static void a_token_past_the_vocabulary_fails_the_job(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	pack("train.bin", 1000, 4000, 9);
	begin(false, NULL);
	listen_until(NULL, 0);
	ended(1, 0);
	assert_string_equal(story.end_code, "LH_EDATA");
	assert_non_null(strstr(story.end_text, "train.bin"));
	assert_non_null(strstr(story.end_text, "position"));
}

static bool is_paused(int64_t arg)
{
	(void)arg;
	return !strcmp(story.state, "paused");
}

/* A packing of the same size lies where the shard was. Nothing is trained on it until
 * somebody says so; the line that then goes on is known by its own data. */
static void a_resume_on_other_data_waits_for_a_word(void **state)
{
	(void)state;
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	begin(false, NULL);
	listen_until(step_is, 20);
	command(1, "pause", NULL);
	applied(1);
	killed();
	pack("train.bin", 257, 4000, 11);
	for (int round = 0; round < 2; round++) { /* asked again if nobody answered */
		story.state[0] = '\0';
		begin(false, NULL);
		listen_until(is_paused, 0);
		assert_non_null(strstr(story.warning, "train.bin' had 4000 tokens"));
		assert_non_null(strstr(story.warning, "hint: "));
		assert_int_equal(story.attempt_steps, 0);
		if (!round)
			killed();
	}
	command(2, "resume", NULL);
	applied(2);
	listen_until(new_steps_are, 5);
	command(3, "pause", NULL);
	applied(3);
	killed();
	begin(false, NULL);
	listen_until(new_steps_are, 5);
	assert_null(strstr(story.warning, "train.bin"));
	killed();
}

static void a_refused_worker_ends(void **state)
{
	(void)state;
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	launch(false, NULL);
	json_decref(fake_accept(&lhd));
	fake_send_take(&lhd, json_pack("{s:s, s:s, s:s}", "m", "refuse", "code",
				       "LH_ESTATE", "text", "the attempt is over"));
	ended(1, 0);
}

/* Two workers never share a job: the second waits for the first to end. */
static void it_waits_for_a_predecessor_that_is_ending(void **state)
{
	char *path;
	int lock;

	(void)state;
	new_job(three_phases, NULL, 0);
	path = scratch_path("1/" LH_JOB_LOCK);
	lock = lh_fs_lock(path, NULL);
	assert_true(lock >= 0);
	launch(false, NULL);
	assert_false(fake_wait(lhd.listener, 400));
	close(lock);
	greet();
	listen_until(NULL, 0);
	ended(0, 0);
	assert_int_equal(story.steps, 50);
	free(path);
}

/* Exit code, or -1 after a signal. */
static int run_program(char *name, char *a, char *b)
{
	char *argv[] = { name, a, b, NULL };
	int status = built_wait(spawn(argv, "out"), LIMIT_MS);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_with(char *a, char *b)
{
	return run_program(NULL, a, b);
}

static bool out_says(const char *what)
{
	size_t bytes;
	char *out = scratch_read("out", &bytes);
	bool yes = strstr(out, what) != NULL;

	free(out);
	return yes;
}

static void the_command_line_is_checked(void **state)
{
	(void)state;
	assert_int_equal(run_with(NULL, NULL), 2);
	assert_true(out_says("usage:"));
	assert_int_equal(run_with("--attempt", NULL), 2);
	assert_int_equal(run_with("--fly", "x"), 2);
	assert_int_equal(run_with("--attempt", "/no/such/attempt"), 2);
	assert_true(out_says("/no/such/attempt"));
	assert_int_equal(run_with("--help", NULL), 0);
	assert_true(out_says("--sample"));
	assert_int_equal(run_with("--attempt", scratch_dir), 1);
	assert_true(out_says(LH_ATTEMPT_START));
}

static void a_checkpoint_can_be_sampled(void **state)
{
	const char args[] = "{\"prompt\": \"int \", \"max_tokens\": 6, \"seed\": 3}";
	char *path = scratch_path("1/" LH_JOB_CHECKPOINTS "/step-0000000050");
	char *file = lh_asprintf("%s/params.safetensors", path), *first, *again;
	char *cuda = built_program("lhworker-cuda");
	size_t bytes;

	(void)state;
	new_job(three_phases, NULL, 0);
	run_to_the_end(false, NULL);
	scratch_write("stdin", args, strlen(args));
	assert_int_equal(run_with("--sample", path), 0);
	first = scratch_read("out", &bytes);
	assert_non_null(strstr(first, "\"piece\""));
	assert_non_null(strstr(first, "\"result\":{"));
	assert_non_null(strstr(first, "\"step\":50"));
	assert_int_equal(run_with("--sample", path), 0);
	again = scratch_read("out", &bytes);
	assert_string_equal(first, again);
	/* That worker samples on the CPU as well, and needs no GPU for it. */
	if (lh_fs_exists(cuda)) {
		free(again);
		assert_int_equal(run_program("lhworker-cuda", "--sample", path), 0);
		again = scratch_read("out", &bytes);
		assert_string_equal(first, again);
	}
	scratch_write("stdin", "nonsense", 8);
	assert_int_equal(run_with("--sample", path), 1);
	assert_true(out_says("LH_EPARSE"));
	scratch_write("stdin", args, strlen(args));
	remove(file);
	assert_int_equal(run_with("--sample", path), 1);
	assert_true(out_says("LH_ENOTFOUND"));
	free(first);
	free(again);
	free(cuda);
	free(file);
	free(path);
}

WORKER_TESTS(W(without_lhd_it_finishes_its_job),
	     W(every_record_survives_the_loss_of_lhd),
	     W(what_is_not_finite_is_never_applied_nor_saved),
	     W(without_a_usable_checkpoint_the_job_is_held),
	     W(a_token_past_the_vocabulary_fails_the_job),
	     W(a_resume_on_other_data_waits_for_a_word),
	     W(a_refused_worker_ends),
	     W(it_waits_for_a_predecessor_that_is_ending),
	     W(the_command_line_is_checked),
	     W(a_checkpoint_can_be_sampled))

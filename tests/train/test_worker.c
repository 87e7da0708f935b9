/* test_worker.c: lhworker-cpu as a process, with a fake lhd at the other end: a
 * job runs to its end, is killed, stopped, steered, and in the end its losses
 * are those of the run that nobody disturbed, to the last bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker_story.h"

static const char *const two_evals[] = { "start", "before_switch", "after_switch", "end" };

static void a_job_runs_to_its_end(void **state)
{
	char newest[32];

	(void)state;
	new_job(two_phases, NULL, 0);
	run_to_the_end(false, NULL);
	assert_string_equal(story.end, "done");
	assert_int_equal(story.steps, 320);
	assert_int_equal(story.attempt_steps, 320);
	for (int64_t i = 1; i <= 320; i++)
		assert_int_equal(story.phase[i], i > 200);
	evals_are(two_evals, (int64_t[]){ 0, 200, 201, 320 }, 4);
	assert_true(story.lr[1] == 2e-3 / 4);
	assert_true(story.lr[320] == 2e-3 * 0.25);
	assert_true(story.loss[320] < story.loss[1]);
	newest_checkpoint(newest);
	assert_string_equal(newest, "step-0000000320");
}

static void the_same_job_has_the_same_losses(void **state)
{
	static struct story first;

	(void)state;
	new_job(three_phases, NULL, 0);
	run_to_the_end(false, NULL);
	first = story;
	first.reply = NULL;
	new_job(three_phases, NULL, 0);
	run_to_the_end(false, NULL);
	assert_int_equal(story.steps, 50);
	assert_memory_equal(story.loss, first.loss, sizeof(first.loss));
	/* Another seed: the comparison is able to fail. */
	new_job(three_phases, (const char *const[]){ "seed=2" }, 1);
	run_to_the_end(false, NULL);
	assert_true(story.loss[50] != first.loss[50]);
}

static bool save_is(int64_t step)
{
	return story.saved_step >= step;
}

/* Kills in both phases; on_step compares what comes twice, and the reference
 * what comes once. */
static void a_killed_worker_repeats_its_losses_to_the_last_bit(void **state)
{
	static struct story quiet;
	char newest[32], *path;
	size_t bytes;
	char *data;

	(void)state;
	new_job(two_phases, NULL, 0);
	run_to_the_end(false, NULL);
	quiet = story;
	quiet.reply = NULL;

	new_job(two_phases, NULL, 0);
	begin(false, NULL);
	listen_until(step_is, 95);
	listen_until(save_is, 80); /* two are there */
	killed();
	/* The newest checkpoint is damaged on top of it. */
	newest_checkpoint(newest);
	path = lh_asprintf("1/%s/%s/moments.safetensors", LH_JOB_CHECKPOINTS, newest);
	data = scratch_read(path, &bytes);
	data[bytes / 2] ^= 1;
	scratch_write(path, data, bytes);
	free(data);
	free(path);
	begin(false, NULL);
	listen_until(step_is, 230);
	assert_non_null(strstr(story.warning, newest));
	killed();
	run_to_the_end(false, NULL);
	assert_string_equal(story.end, "done");
	assert_in_range(story.attempt_steps, 1, 160);
	assert_int_equal(story.steps, quiet.steps);
	assert_memory_equal(story.loss, quiet.loss, sizeof(quiet.loss));
	assert_memory_equal(story.lr, quiet.lr, sizeof(quiet.lr));
}

static void a_switch_is_applied_at_a_boundary_and_replayed_there(void **state)
{
	static struct story live;
	int64_t at;

	(void)state;
	new_job(two_phases, NULL, 0);
	begin(false, NULL);
	listen_until(step_is, 45);
	command(17, "switch", "b");
	applied(17);
	at = story.applied_step;
	listen_until(step_is, at + 5);
	killed();
	run_to_the_end(false, json_pack("[o]", replay_of(17, at, "b")));
	assert_string_equal(story.end, "done");
	assert_int_equal(story.steps, at + 120);
	for (int64_t i = 1; i <= story.steps; i++)
		assert_int_equal(story.phase[i], i > at);
	/* The schedule ends where the job now ends. */
	assert_true(story.lr[story.steps] == 2e-3 * 0.25);
	live = story;
	live.reply = NULL;

	/* Nobody kills this one, and nobody commands. */
	new_job(two_phases, NULL, 0);
	run_to_the_end(false, json_pack("[o]", replay_of(17, at, "b")));
	assert_int_equal(story.steps, live.steps);
	assert_memory_equal(story.loss, live.loss, sizeof(live.loss));
	assert_memory_equal(story.lr, live.lr, sizeof(live.lr));
	evals_are(two_evals, (int64_t[]){ 0, at, at + 1, at + 120 }, 4);
	assert_int_equal(story.applied_id, 0); /* its outcome is known already */
}

/* A later command came to an earlier step, after the run had gone back. */
static void replayed_commands_go_by_their_steps(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	run_to_the_end(false, json_pack("[o, o]", replay_of(9, 8, "c"),
					replay_of(12, 4, "b")));
	assert_int_equal(story.steps, 18);
	for (int64_t i = 1; i <= 18; i++)
		assert_int_equal(story.phase[i], i <= 4 ? 0 : i <= 8 ? 1 : 2);
}

/* "The next phase" at step 0, and a checkpoint that has it in it. */
static void a_command_that_a_checkpoint_holds_is_not_applied_again(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	begin(true, NULL);
	command(3, "switch", NULL);
	applied(3);
	command(4, "checkpoint", NULL);
	applied(4);
	assert_int_equal(story.saved_step, 0);
	killed();
	begin(false, json_pack("[o]", replay_of(3, 0, NULL)));
	listen_until(NULL, 0);
	ended(0, 0);
	assert_int_equal(story.steps, 30);
	assert_int_equal(story.phase[1], 1);
	assert_int_equal(story.phase[20], 1);
	assert_int_equal(story.phase[21], 2);
}

static void a_pause_keeps_a_checkpoint_and_commands_work(void **state)
{
	const char *text;

	(void)state;
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	begin(false, NULL);
	listen_until(step_is, 3);
	command(1, "resume", NULL);
	refused(1, "not paused");
	command(2, "pause", NULL);
	applied(2);
	assert_string_equal(story.state, "paused");
	assert_int_equal(story.saved_step, story.applied_step);
	assert_int_equal(story.steps, story.applied_step);
	command(3, "pause", NULL);
	refused(3, "paused already");
	command(4, "switch", "nowhere");
	refused(4, "nowhere");
	command(5, "switch", "a");
	refused(5, "in phase 'a' already");
	command(6, "dance", NULL);
	refused(6, "no command 'dance'");

	fake_send_take(&lhd, json_pack("{s:s, s:i, s:s, s:{s:s, s:i, s:i}}", "m", "call",
				       "call", 8, "method", "sample", "args", "prompt",
				       "ab", "max_tokens", 12, "seed", 4));
	listen_until(reply_is_there, 0);
	assert_int_equal(fake_int(story.reply, "call"), 8);
	text = string(json_object_get(story.reply, "result"), "text");
	assert_string_equal(text, story.pieces);

	command(9, "switch", NULL);
	applied(9);
	assert_string_equal(story.state, "paused");
	command(10, "switch", NULL);
	refused(10, "the last one");
	command(11, "resume", NULL);
	applied(11);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "done");
	assert_int_equal(story.steps, story.applied_step + 5);
}

static void a_wrong_call_is_an_error_and_no_harm(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	begin(true, NULL);
	fake_send_take(&lhd, json_pack("{s:s, s:i, s:s, s:{s:i}}", "m", "call", "call", 1,
				       "method", "sample", "args", "max_tokens", -1));
	listen_until(reply_is_there, 0);
	assert_string_equal(string(json_object_get(story.reply, "error"), "code"),
			    "LH_EPARAMS");
	json_decref(story.reply);
	story.reply = NULL;
	fake_send_take(&lhd, json_pack("{s:s, s:i, s:s}", "m", "call", "call", 2,
				       "method", "fly"));
	listen_until(reply_is_there, 0);
	assert_string_equal(string(json_object_get(story.reply, "error"), "code"),
			    "LH_EUNSUPPORTED");
	command(1, "cancel", NULL);
	listen_until(NULL, 0);
	ended(0, 0);
}

static void a_cancelled_job_keeps_a_checkpoint(void **state)
{
	char newest[32], want[32];

	(void)state;
	new_job(endless, (const char *const[]){ "optimizer.schedule=constant" }, 1);
	begin(false, NULL);
	listen_until(step_is, 3);
	command(1, "cancel", NULL);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "cancelled");
	snprintf(want, sizeof(want), "step-%010d", (int)story.steps);
	newest_checkpoint(newest);
	assert_string_equal(newest, want);
	assert_string_equal(story.evals[story.eval_count - 1], "start");
}

static void stopped_by_command_or_signal_it_goes_on_where_it_was(void **state)
{
	static struct story quiet;
	int64_t at;

	(void)state;
	new_job(two_phases, NULL, 0);
	run_to_the_end(false, NULL);
	quiet = story;
	quiet.reply = NULL;
	new_job(two_phases, NULL, 0);
	begin(false, NULL);
	listen_until(new_steps_are, 13);
	kill(worker, SIGTERM);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "stopped");
	at = story.steps;
	assert_true(at < 320);
	assert_int_equal(story.saved_step, at);
	begin(false, NULL);
	listen_until(new_steps_are, 13);
	command(1, "stop", NULL);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "stopped");
	assert_int_equal(story.steps, at + story.attempt_steps); /* none twice */
	run_to_the_end(false, NULL);
	assert_string_equal(story.end, "done");
	assert_memory_equal(story.loss, quiet.loss, sizeof(quiet.loss));
}

/* Paused, it is stopped by the signal all the same. */
static void a_paused_worker_can_be_stopped(void **state)
{
	(void)state;
	new_job(three_phases, NULL, 0);
	begin(true, NULL);
	kill(worker, SIGTERM);
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, "stopped");
	assert_int_equal(story.steps, 0);
}

WORKER_TESTS(W(a_job_runs_to_its_end),
	     W(the_same_job_has_the_same_losses),
	     W(a_killed_worker_repeats_its_losses_to_the_last_bit),
	     W(a_switch_is_applied_at_a_boundary_and_replayed_there),
	     W(replayed_commands_go_by_their_steps),
	     W(a_command_that_a_checkpoint_holds_is_not_applied_again),
	     W(a_pause_keeps_a_checkpoint_and_commands_work),
	     W(a_wrong_call_is_an_error_and_no_harm),
	     W(a_cancelled_job_keeps_a_checkpoint),
	     W(stopped_by_command_or_signal_it_goes_on_where_it_was),
	     W(a_paused_worker_can_be_stopped))

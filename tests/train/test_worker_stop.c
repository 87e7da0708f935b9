/* test_worker_stop.c: lhworker-cpu told to end while it is at something long: it
 * leaves that, and the next attempt does it, so that in the end all is as if nobody
 * had told it anything; see worker_story.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker_story.h"

/* What a test calls long would outlast every deadline. */
#define LONG_EVALUATION "evaluation.sequences=1000000"

static const char evaluated[] =
	"checkpoint: {every_steps: 0, keep: 2}\n"
	"phases:\n"
	"  - {name: a, attention: full, until: {steps: 30}}\n"
	"  - {name: b, attention: full, until: {steps: 10}}\n";

static const char one_phase[] =
	"checkpoint: {every_steps: 0, keep: 2}\n"
	"phases:\n"
	"  - {name: a, attention: full, until: {steps: 20}}\n";

static const char *const often[] = { "evaluation.every_steps=12" };
static const char *const often_and_long[] = { often[0], LONG_EVALUATION };

static struct story quiet;

/* The same job, which nobody tells anything. */
static void run_quietly(void)
{
	new_job(evaluated, often, 1);
	run_to_the_end(false, NULL);
	assert_int_equal(story.steps, 40);
	quiet = story;
	quiet.reply = NULL;
	new_job(evaluated, often, 1);
}

static void is_as_if_undisturbed(void)
{
	assert_string_equal(story.end, "done");
	assert_int_equal(story.steps, quiet.steps);
	assert_memory_equal(story.loss, quiet.loss, sizeof(quiet.loss));
	assert_memory_equal(story.lr, quiet.lr, sizeof(quiet.lr));
	assert_int_equal(story.eval_count, quiet.eval_count);
	assert_memory_equal(story.evals, quiet.evals, sizeof(quiet.evals));
	assert_memory_equal(story.eval_step, quiet.eval_step, sizeof(quiet.eval_step));
}

static bool is_doing(int64_t arg)
{
	return !strcmp(story.doing, (const char *)arg);
}

static void listen_until_it_is(const char *doing)
{
	*story.doing = '\0';
	listen_until(is_doing, (int64_t)(intptr_t)doing);
}

/* lhd's own stop: no record answers it. */
static void tell_to_stop(void)
{
	fake_command(&lhd, LH_PROTO_UNANSWERED, "stop", NULL);
}

static void has_ended_as(const char *outcome)
{
	listen_until(NULL, 0);
	ended(0, 0);
	assert_string_equal(story.end, outcome);
}

static bool evals_are_there(int64_t n)
{
	return story.eval_count == n;
}

/* An attempt of its own for the first evaluation, which is short. */
static void evaluate_the_start(void)
{
	begin(true, NULL);
	listen_until(evals_are_there, 1);
	tell_to_stop();
	has_ended_as("stopped");
}

static void the_first_evaluation_is_left_and_done_later(void **state)
{
	(void)state;
	run_quietly();
	write_job(evaluated, often_and_long, 2);
	begin(false, NULL);
	listen_until_it_is("evaluating");
	tell_to_stop();
	has_ended_as("stopped");
	assert_int_equal(story.eval_count, 0);
	assert_int_equal(story.saved_step, 0);
	assert_int_equal(story.applied_id, 0);
	write_job(evaluated, often, 1);
	run_to_the_end(false, NULL);
	is_as_if_undisturbed();
}

static void one_between_steps_is_left_by_the_signal_and_done_later(void **state)
{
	(void)state;
	run_quietly();
	evaluate_the_start();
	write_job(evaluated, often_and_long, 2);
	begin(false, NULL);
	listen_until_it_is("evaluating");
	kill(worker, SIGTERM);
	has_ended_as("stopped");
	assert_int_equal(story.steps, 12);
	assert_int_equal(story.eval_count, 1);
	assert_int_equal(story.saved_step, 12);
	write_job(evaluated, often, 1);
	run_to_the_end(false, NULL);
	is_as_if_undisturbed();
}

static void a_switch_is_left_before_it_and_is_the_next_attempts(void **state)
{
	(void)state;
	new_job(evaluated, NULL, 0);
	evaluate_the_start();
	write_job(evaluated, (const char *const[]){ LONG_EVALUATION }, 1);
	begin(true, NULL);
	fake_command(&lhd, 7, "switch", json_pack("{s:s}", "phase", "b"));
	listen_until_it_is("evaluating");
	tell_to_stop();
	has_ended_as("stopped");
	assert_int_equal(story.applied_id, 0);
	assert_int_equal(story.refused_id, 0);
	write_job(evaluated, NULL, 0);
	begin(true, NULL);
	command(7, "switch", "b");
	applied(7);
	assert_int_equal(story.applied_step, 0);
	command(8, "resume", NULL);
	has_ended_as("done");
	assert_int_equal(story.steps, 10);
	evals_are((const char *const[]){ "start", "before_switch", "after_switch", "end" },
		  (int64_t[]){ 0, 0, 1, 10 }, 4);
}

static void the_last_evaluation_is_left_and_done_later(void **state)
{
	(void)state;
	new_job(one_phase, NULL, 0);
	evaluate_the_start();
	write_job(one_phase, (const char *const[]){ LONG_EVALUATION }, 1);
	begin(false, NULL);
	listen_until_it_is("evaluating");
	tell_to_stop();
	has_ended_as("stopped");
	assert_int_equal(story.steps, 20);
	assert_int_equal(story.eval_count, 1);
	write_job(one_phase, NULL, 0);
	run_to_the_end(false, NULL);
	assert_string_equal(story.end, "done");
	assert_int_equal(story.attempt_steps, 0);
	evals_are((const char *const[]){ "start", "end" }, (int64_t[]){ 0, 20 }, 2);
}

static void a_step_of_many_pieces_is_left(void **state)
{
	(void)state;
	new_job(endless, (const char *const[]){ "batch.sequences=1000000",
		"optimizer.schedule=constant" }, 2);
	begin(false, NULL);
	listen_until_it_is("training");
	tell_to_stop();
	has_ended_as("stopped");
	assert_int_equal(story.steps, 0);
	assert_int_equal(story.saved_step, 0);
	begin(false, NULL);
	listen_until_it_is("training");
	command(3, "cancel", NULL);
	applied(3);
	has_ended_as("cancelled");
}

/* Whether it is still preparing then or not. */
static void told_with_its_welcome_it_ends(void **state)
{
	(void)state;
	run_quietly();
	begin(true, NULL);
	tell_to_stop();
	has_ended_as("stopped");
	assert_int_equal(story.steps, 0);
	run_to_the_end(false, NULL);
	is_as_if_undisturbed();
}

WORKER_TESTS(W(the_first_evaluation_is_left_and_done_later),
	     W(one_between_steps_is_left_by_the_signal_and_done_later),
	     W(a_switch_is_left_before_it_and_is_the_next_attempts),
	     W(the_last_evaluation_is_left_and_done_later),
	     W(a_step_of_many_pieces_is_left),
	     W(told_with_its_welcome_it_ends))

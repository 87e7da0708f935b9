/* test_jobs.c: the manager against real processes that train nothing
 * (fake_worker.h), a real store, and itself closed and opened again: jobs that
 * live without trouble, records, requests, samples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../shim.h"
#include "manager.h"

/* ---- a life without trouble ------------------------------------------------ */

static void a_job_runs_to_its_end_and_leaves_its_rows(void **state)
{
	int64_t job;
	json_t *phases;
	char path[256];

	(void)state;
	set_ctl("steps", "12");
	set_ctl("end", "done");
	job = submit();
	snprintf(path, sizeof(path), "%s/jobs/1", f.state);
	assert_true(fake_has(path, LH_JOB_SPEC) && fake_has(path, LH_JOB_FILE));
	RUN_UNTIL(is_in(job, "DONE"));
	RUN_UNTIL(query_db("SELECT count(*) FROM jobs WHERE state = 'DONE'") == 1);
	assert_true(has_steps(12));
	assert_int_equal(f.steps_pushed, 12);
	assert_int_equal(query_db("SELECT count(*) FROM steps WHERE grad_norm IS NULL AND "
				  "loss = 1.0 / step"), 12);
	assert_int_equal(query_db("SELECT count(*) FROM checkpoints"), 1);
	assert_int_equal(query_db("SELECT count(*) FROM attempts WHERE outcome = 'done' AND "
				  "exit_code = 0 AND exit_signal IS NULL AND first_step = 0 "
				  "AND pid > 0 AND ended_ms > 0"), 1);
	assert_int_equal(query_db("SELECT group_concat(text, '|') LIKE "
				  "'QUEUED -> STARTING (%|STARTING -> RUNNING (%|"
				  "RUNNING -> STOPPING (%|STOPPING -> DONE (%' FROM events "
				  "WHERE kind = 'job.state'"), 1);
	RUN_UNTIL(query_db("SELECT count(*) FROM events") == f.events_pushed);
	assert_int_equal(lh_jobs_last_event(f.jobs), f.last_event);
	phases = lh_jobs_phases(f.jobs, job);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(phases, 0),
							    "first_step")), 0);
	assert_true(json_is_null(json_object_get(json_array_get(phases, 1), "first_step")));
	json_decref(phases);
	assert_int_equal(number(job, "total_steps"), 50);
	assert_int_equal(lh_jobs_workers(f.jobs), 0);
	refused(job, "cancel", "DONE");
	refused(job, "switch", "DONE");
}

static void the_total_follows_a_switch(void **state)
{
	int64_t job = start_running(), id;

	(void)state;
	run_to_step(job, "7");
	refused_phase(job, "switch", "p9", LH_ENOTFOUND, "p0, p1");
	refused_phase(job, "switch", "p0", LH_ESTATE, "already");
	id = command(job, "switch");
	RUN_UNTIL(number(job, "phase") == 1 && is_in(job, "RUNNING"));
	assert_int_equal(number(job, "total_steps"), 7 + 20);
	refused(job, "switch", "last phase");
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome = 'applied' AND "
			   "method = 'job.switch' AND step = 7 AND uid = 12 AND pid = 34 AND "
			   "program = 'test' AND message = 'because'") == 1);
	assert_int_equal(query_db("SELECT json_extract(data_json, '$.command') FROM events "
				  "WHERE kind = 'command.applied'"), id);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'job.state' AND "
				  "(text LIKE 'RUNNING -> SWITCHING%' OR "
				  "text LIKE 'SWITCHING -> RUNNING%')"), 2);
	/* The names of phases work as well as their absence. */
	command_phase(job, "switch", "p0");
	RUN_UNTIL(number(job, "phase") == 0);
}

static void a_job_that_says_it_failed_fails_and_is_not_restarted(void **state)
{
	int64_t job;

	(void)state;
	set_ctl("steps", "3");
	set_ctl("end", "failed");
	job = submit();
	RUN_UNTIL(is_in(job, "FAILED"));
	assert_true(reason_has(job, "the loss is not finite"));
	assert_int_equal(number(job, "attempt"), 1);
	assert_int_equal(number(job, "restarts"), 0);
}

/* It has not begun: the job is STARTING, at the step where it was, and says why. */
static void a_worker_that_waits_for_its_gpu_says_why(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "8");
	command(job, "checkpoint");
	RUN_UNTIL(query_db("SELECT count(*) FROM checkpoints WHERE step = 8") == 1);
	set_ctl("waits", "waits: another has it");
	kill_worker(job, 1);
	RUN_UNTIL(number(job, "attempt") == 2 && reason_has(job, "waits: another has it"));
	assert_true(is_in(job, "STARTING"));
	assert_int_equal(number(job, "step"), 8);
	RUN_UNTIL(query_db("SELECT count(*) FROM jobs WHERE reason LIKE 'waits: %'") == 1);
	unset_ctl("waits");
	RUN_UNTIL(is_in(job, "RUNNING"));
	RUN_UNTIL(query_db("SELECT first_step FROM attempts WHERE attempt = 2") == 8);

	set_ctl("waits", "waits: another has it");
	kill_worker(job, 2);
	RUN_UNTIL(number(job, "attempt") == 3 && reason_has(job, "waits: another has it"));
	command(job, "cancel");
	RUN_UNTIL(is_in(job, "CANCELLED"));
}

static void the_queue_starts_by_priority_then_age(void **state)
{
	int64_t first = start_running(), low, younger, older;

	(void)state;
	low = submit_with("low", 0, -1);
	older = submit_with("older", 0, 0); /* no higher than the first: it takes no place */
	younger = submit_with("younger", 0, 0);
	assert_true(is_in(low, "QUEUED") && is_in(younger, "QUEUED") && is_in(older, "QUEUED"));
	command(first, "cancel");
	RUN_UNTIL(is_in(older, "RUNNING"));
	assert_true(is_in(first, "CANCELLED") && is_in(younger, "QUEUED"));
	command(older, "cancel");
	RUN_UNTIL(is_in(younger, "RUNNING"));
	assert_true(is_in(low, "QUEUED"));
	command(younger, "cancel");
	RUN_UNTIL(is_in(low, "RUNNING"));
}

static void a_queued_job_can_be_held_freed_and_cancelled(void **state)
{
	int64_t first = start_running(), second = submit(), third = submit();

	(void)state;
	refused(second, "switch", "queue");
	refused(second, "checkpoint", "queue");
	refused(second, "resume", "not paused");
	command(second, "pause");
	refused(second, "pause", "paused");
	command(third, "cancel");
	assert_true(is_in(third, "CANCELLED")); /* with the answer, not later */
	command(first, "cancel");
	RUN_UNTIL(is_in(first, "CANCELLED"));
	assert_true(is_in(second, "QUEUED"));
	close_all(); /* and it is still held after a restart */
	open_all();
	assert_true(is_in(second, "QUEUED"));
	command(second, "resume");
	RUN_UNTIL(is_in(second, "RUNNING"));
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome IS NULL") == 0);
}

/* ---- records --------------------------------------------------------------- */

static void records_are_stored_once_across_reconnects(void **state)
{
	int64_t job = start_running();

	(void)state;
	run_to_step(job, "10");
	for (int i = 2; i <= 4; i++) {
		char steps[8];

		set_ctl("redial", "");
		RUN_UNTIL(!fake_has(f.ctl, "redial"));
		snprintf(steps, sizeof(steps), "%d", 10 * i);
		run_to_step(job, steps);
	}
	RUN_UNTIL(has_steps(40));
	assert_int_equal(query_db("SELECT count(*) FROM steps"), 40);
	assert_int_equal(f.steps_pushed, 40);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'job.state'"), 2);
}

static void a_record_is_acknowledged_only_once_committed(void **state)
{
	int64_t job = start_running(), before;
	char *dir = attempt_dir(job, 1);
	sqlite3 *other;

	(void)state;
	RUN_UNTIL(fake_number(dir, "acked", 0) == 1); /* the state record */
	assert_int_equal(sqlite3_open(f.db, &other), 0);
	sqlite3_busy_timeout(other, 5000);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), 0);
	before = fake_number(dir, "acked", 0);
	run_to_step(job, "20"); /* they are all here, in memory */
	RUN_UNTIL(*lh_store_trouble(f.store));
	assert_int_equal(fake_number(dir, "acked", 0), before);
	assert_int_equal(query_db("SELECT count(*) FROM steps"), 0);
	assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), 0);
	sqlite3_close(other);
	command(job, "checkpoint"); /* what it brings is durable, and all before it */
	RUN_UNTIL(fake_number(dir, "acked", 0) > before + 20);
	assert_true(has_steps(20));
}

static int shim_setup(void **state)
{
	shim_install();
	return setup(state);
}

/* Else a power cut could take from the database what the spool has forgotten. */
static void a_record_is_acknowledged_only_once_a_power_cut_leaves_it(void **state)
{
	int64_t job = start_running();
	char *dir = attempt_dir(job, 1);

	(void)state;
	for (int i = 1; i <= 60; i++) {
		char steps[16];

		snprintf(steps, sizeof(steps), "%d", i);
		run_to_step(job, steps);
		RUN_UNTIL(has_steps(i));
		/* Nothing else is written meanwhile. */
		if (fake_number(dir, "acked", 0) == i + 1)
			assert_false(atomic_load(&shim_unsynced));
	}
	command(job, "checkpoint");
	RUN_UNTIL(fake_number(dir, "acked", 0) > 61);
	assert_false(atomic_load(&shim_unsynced));
}

/* ---- requests -------------------------------------------------------------- */

static void a_request_id_makes_a_retry_harmless(void **state)
{
	struct answer a, b, c, d;
	int64_t job;

	(void)state;
	ask_submit(&a, "one", 2, 0, "id-1");
	ask_submit(&b, "one", 2, 0, "id-1");   /* while the first is under way */
	ask_submit(&c, "other", 2, 0, "id-1");
	RUN_UNTIL(a.count && b.count && c.count);
	ask_submit(&d, "one", 2, 0, "id-1");   /* and after it */
	RUN_UNTIL(d.count);
	job = a.job;
	assert_true(job && b.job == job && d.job == job);
	assert_true(a.command && b.command == a.command && d.command == a.command);
	assert_int_equal(c.code, LH_ECONFLICT);
	assert_int_equal(lh_jobs_count(f.jobs), 1);
	RUN_UNTIL(is_in(job, "RUNNING"));
	ask(&a, job, "switch", NULL, "id-2");
	RUN_UNTIL(a.count);
	RUN_UNTIL(number(job, "phase") == 1);
	ask(&b, job, "switch", NULL, "id-2");  /* now refused, were it new */
	ask(&c, job, "switch", "p1", "id-2");
	ask(&d, job, "pause", NULL, "id-2");
	RUN_UNTIL(b.count && c.count && d.count);
	assert_int_equal(b.code, 0);
	assert_int_equal(b.command, a.command);
	assert_int_equal(c.code, LH_ECONFLICT);
	assert_int_equal(d.code, LH_ECONFLICT);
	/* A refused request leaves no trace. */
	ask(&a, job, "resume", NULL, "id-3");
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, LH_ESTATE);
	command(job, "pause");
	RUN_UNTIL(is_in(job, "PAUSED"));
	ask(&a, job, "resume", NULL, "id-3");
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, 0);
}

static void an_accepted_command_is_in_the_journal_before_the_answer(void **state)
{
	int64_t job = start_running();
	sqlite3 *other;
	struct answer a;
	char sql[128];

	(void)state;
	assert_int_equal(sqlite3_open(f.db, &other), 0);
	sqlite3_busy_timeout(other, 5000);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), 0);
	ask(&a, job, "pause", NULL, NULL);
	RUN_UNTIL(*lh_store_trouble(f.store));
	assert_int_equal(a.count, 0);
	assert_true(is_in(job, "RUNNING"));
	assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), 0);
	sqlite3_close(other);
	RUN_UNTIL(a.count);
	snprintf(sql, sizeof(sql), "SELECT count(*) FROM commands WHERE id = %lld",
		 (long long)a.command);
	assert_int_equal(query_db(sql), 1);
	RUN_UNTIL(is_in(job, "PAUSED"));
}

static void commands_of_a_job_that_ended_are_refused_with_an_event(void **state)
{
	int64_t job = start_running();

	(void)state;
	set_ctl("deaf", "");
	command(job, "pause");
	set_ctl("end", "done");
	RUN_UNTIL(is_in(job, "DONE"));
	RUN_UNTIL(query_db("SELECT count(*) FROM commands WHERE outcome = 'refused' AND "
			   "text LIKE '%ended%'") == 1);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'command.refused'"), 1);
}

/* ---- sampling -------------------------------------------------------------- */

static void on_piece(void *arg, json_t *piece)
{
	struct answer *a = arg;

	strncat(a->pieces, json_string_value(json_object_get(piece, "text")),
		sizeof(a->pieces) - strlen(a->pieces) - 1);
}

static int64_t ask_sample(struct answer *a, int64_t job, const char *prompt)
{
	json_t *args = json_pack("{s:s}", "prompt", prompt);
	int64_t handle;

	memset(a, 0, sizeof(*a));
	handle = lh_jobs_sample(f.jobs, job, args, on_piece, on_reply, a);
	json_decref(args);
	return handle;
}

static void a_sample_comes_from_the_worker_that_runs(void **state)
{
	int64_t job = start_running();
	struct answer a, b;

	(void)state;
	ask_sample(&a, job, "x");
	RUN_UNTIL(a.count);
	assert_string_equal(a.sample, "ab");
	assert_string_equal(a.pieces, "ab");
	set_ctl("deaf", ""); /* it never answers, and is lost */
	ask_sample(&a, job, "x");
	lh_jobs_sample_abandon(f.jobs, ask_sample(&b, job, "x"));
	kill_worker(job, 1);
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, LH_EWORKER);
	assert_int_equal(b.count, 0);
}

static void a_sample_without_a_worker_comes_from_the_newest_checkpoint(void **state)
{
	int64_t job = start_running();
	struct answer a, b, c;
	int64_t handle;
	char path[256];

	(void)state;
	command(job, "cancel");
	RUN_UNTIL(is_in(job, "CANCELLED"));
	ask_sample(&a, 99, "x");
	assert_int_equal(a.code, LH_ENOTFOUND);
	ask_sample(&a, job, "x");
	RUN_UNTIL(a.count);
	assert_int_equal(a.code, LH_ESTATE);
	assert_true(*a.hint);
	for (int step = 9; step <= 11; step++) {
		snprintf(path, sizeof(path), "%s/jobs/1/checkpoints/step-%010d", f.state, step);
		assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	}
	snprintf(path, sizeof(path), "%s/jobs/1/checkpoints/step-0000000012.tmp", f.state);
	assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	ask_sample(&a, job, "tower");
	RUN_UNTIL(a.count);
	assert_string_equal(a.text, "");
	assert_string_equal(a.sample, "tower");
	assert_string_equal(a.pieces, "tower");
	/* Two at a time; the third is told so; abandoning ends the process. */
	handle = ask_sample(&a, job, "hang");
	RUN_UNTIL(processes(0) == 1);
	ask_sample(&b, job, "hang");
	RUN_UNTIL(processes(0) == 2);
	ask_sample(&c, job, "x");
	RUN_UNTIL(c.count);
	assert_int_equal(c.code, LH_EBUSY);
	lh_jobs_sample_abandon(f.jobs, handle);
	RUN_UNTIL(processes(0) == 1);
	assert_int_equal(a.count, 0);
	processes(SIGKILL);
	RUN_UNTIL(b.count);
	assert_int_equal(b.code, LH_EWORKER);
}

static void closing_ends_samples_and_leaves_workers(void **state)
{
	int64_t job = start_running();
	struct answer a, b;
	char path[256];

	(void)state;
	ask_sample(&a, job, "x");
	command(job, "cancel");
	RUN_UNTIL(is_in(job, "CANCELLED"));
	snprintf(path, sizeof(path), "%s/jobs/1/checkpoints/step-0000000003", f.state);
	assert_int_equal(lh_fs_mkdirs(path, NULL), 0);
	ask_sample(&b, job, "hang");
	RUN_UNTIL(processes(0) == 1);
	start_running();
	close_all();
	assert_int_equal(b.count, 0);
	while (processes(0) != 2) /* keeper and worker of the second job */
		usleep(1000);
}

MANAGER_TESTS(T(a_job_runs_to_its_end_and_leaves_its_rows),
	      T(the_total_follows_a_switch),
	      T(a_job_that_says_it_failed_fails_and_is_not_restarted),
	      T(a_worker_that_waits_for_its_gpu_says_why),
	      T(the_queue_starts_by_priority_then_age),
	      T(a_queued_job_can_be_held_freed_and_cancelled),
	      T(records_are_stored_once_across_reconnects),
	      T(a_record_is_acknowledged_only_once_committed),
	      cmocka_unit_test_setup_teardown(
		      a_record_is_acknowledged_only_once_a_power_cut_leaves_it, shim_setup,
		      teardown),
	      T(a_request_id_makes_a_retry_harmless),
	      T(an_accepted_command_is_in_the_journal_before_the_answer),
	      T(commands_of_a_job_that_ended_are_refused_with_an_event),
	      T(a_sample_comes_from_the_worker_that_runs),
	      T(a_sample_without_a_worker_comes_from_the_newest_checkpoint),
	      T(closing_ends_samples_and_leaves_workers))

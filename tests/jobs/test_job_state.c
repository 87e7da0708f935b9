/* test_job_state.c: the state machine of one job: every pair of states, what a
 * legal transition leaves behind, and that an illegal one is a caught bug. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/log.h"
#include "jobs/job.h"

/* The machine as design.md tells it: a row a state, its successors by name. */
static const char *const successors[LH_JOB_STATES] = {
	[LH_JOB_QUEUED] = "STARTING CANCELLED",
	[LH_JOB_STARTING] = "RUNNING PAUSED STOPPING RESTARTING",
	[LH_JOB_RUNNING] = "PAUSED SWITCHING STOPPING RESTARTING",
	[LH_JOB_PAUSED] = "RUNNING SWITCHING STOPPING RESTARTING",
	[LH_JOB_SWITCHING] = "RUNNING PAUSED STOPPING RESTARTING",
	[LH_JOB_STOPPING] = "DONE FAILED CANCELLED QUEUED RESTARTING",
	[LH_JOB_RESTARTING] = "STARTING FAILED CANCELLED QUEUED",
	[LH_JOB_DONE] = "",
	[LH_JOB_FAILED] = "",
	[LH_JOB_CANCELLED] = "",
};

static bool is_legal(int from, int to)
{
	char list[128], name[32];

	snprintf(list, sizeof(list), " %s ", successors[from]);
	snprintf(name, sizeof(name), " %s ", lh_job_state_name(to));
	return strstr(list, name) != NULL;
}

struct fixture {
	uv_loop_t loop;
	char dir[64];
	struct lh_store *store;
	struct lh_journal *journal;
	json_t *events; /* pushed */
	int answered;
	bool closed;
};

static void on_event(void *arg, const struct lh_event *ev)
{
	json_array_append(((struct fixture *)arg)->events, ev->json);
}

static int setup(void **state)
{
	struct fixture *f = lh_calloc(1, sizeof(*f));
	struct lh_err err = LH_ERR_INIT;
	char path[96];

	lh_log_set_level(LH_LOG_ERROR + 1);
	strcpy(f->dir, "/tmp/lh-state-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(path, sizeof(path), "%s/t.db", f->dir);
	uv_loop_init(&f->loop);
	assert_int_equal(lh_store_open(&f->store, &f->loop, path, &err), 0);
	f->events = json_array();
	f->journal = lh_journal_new(f->store, 41, on_event, f);
	*state = f;
	return 0;
}

static void on_closed(void *arg)
{
	((struct fixture *)arg)->closed = true;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	lh_journal_close(f->journal);
	lh_store_close(f->store, on_closed, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->closed);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	lh_fs_remove_tree(f->dir, NULL);
	json_decref(f->events);
	free(f);
	return 0;
}

static void on_done(void *arg, int rc, const struct lh_err *err)
{
	assert_int_equal(rc, 0);
	assert_null(err);
	((struct fixture *)arg)->answered++;
}

/* A run in state `from`, fit to enter `to`: a worker is there or is not. */
static struct lh_job_run *run_in(struct fixture *f, int from, int to)
{
	struct lh_job spec = { .phase_count = 1 };
	json_t *none = json_object();
	struct lh_job_run *run = lh_job_run_new(f->journal, 7, &spec, none);

	json_decref(none);
	run->state = (enum lh_job_state)from;
	run->attempt = 1;
	run->started_ms = 5;
	run->worker = lh_job_has_worker((enum lh_job_state)to) ?
			      (struct lh_worker *)f : NULL;
	return run;
}

static void submit_row(struct fixture *f)
{
	struct lh_batch *b = lh_batch_new(f->journal);

	lh_batch_add(b, LH_STMT_JOB_INSERT,
		     (struct lh_bind[]){ LH_INT(7), LH_TEXT("t"), LH_TEXT("{}"),
					 LH_TEXT(""), LH_INT(0), LH_TEXT("QUEUED"),
					 LH_TEXT(""), LH_INT(1), LH_NULL, LH_NULL },
		     10);
	lh_batch_commit(b, true, NULL, NULL);
}

static int read_row(sqlite3 *db, void *arg, struct lh_err *err)
{
	bool more;

	*(json_t **)arg = lh_store_rows(db, "SELECT state, reason, ended_ms FROM jobs",
					NULL, 0, 1, &more, err);
	return *(json_t **)arg ? 0 : LH_ESTORE;
}

static const char *field(json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static void check_legal(struct fixture *f, int from, int to)
{
	struct lh_job_run *run = run_in(f, from, to);
	struct lh_batch *b = lh_batch_new(f->journal);
	int answered = f->answered;
	size_t events = json_array_size(f->events);
	char want[80];
	json_t *row, *event;

	assert_true(lh_job_may(from, to));
	lh_job_set_state(run, b, to, "because of %d", 12);
	assert_int_equal(run->state, to);
	assert_string_equal(run->reason, "because of 12");
	assert_int_equal(run->ended_ms != 0, lh_job_has_ended(to));
	lh_batch_commit(b, true, on_done, f);
	/* Nobody is told before it is stored. */
	assert_int_equal(json_array_size(f->events), events);
	while (f->answered == answered)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(json_array_size(f->events), events + 1);
	event = json_array_get(f->events, events);
	snprintf(want, sizeof(want), "%s -> %s (because of 12)", lh_job_state_name(from),
		 lh_job_state_name(to));
	assert_string_equal(field(event, "kind"), "job.state");
	assert_string_equal(field(event, "text"), want);
	assert_string_equal(field(json_object_get(event, "data"), "to"),
			    lh_job_state_name(to));
	assert_int_equal(lh_store_read_now(f->store, read_row, &row, NULL), 0);
	assert_string_equal(field(json_array_get(row, 0), "state"), lh_job_state_name(to));
	assert_string_equal(field(json_array_get(row, 0), "reason"), "because of 12");
	json_decref(row);
	lh_job_run_free(run);
}

/* In a process of its own, which must die of it. */
static bool aborts(void (*what)(struct fixture *f, int from, int to), struct fixture *f,
		   int from, int to)
{
	int status, pid = fork();

	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		if (!freopen("/dev/null", "w", stderr))
			_exit(3);
		what(f, from, to);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void enter(struct fixture *f, int from, int to)
{
	lh_job_set_state(run_in(f, from, to), lh_batch_new(f->journal), to, "x");
}

/* As enter, but the worker is there exactly when it must not be. */
static void enter_unfit(struct fixture *f, int from, int to)
{
	struct lh_job_run *run = run_in(f, from, to);

	run->worker = run->worker ? NULL : (struct lh_worker *)f;
	lh_job_set_state(run, lh_batch_new(f->journal), to, "x");
}

static void enter_without_reason(struct fixture *f, int from, int to)
{
	lh_job_set_state(run_in(f, from, to), lh_batch_new(f->journal), to, "%s", "");
}

static void every_legal_transition_is_stored_and_told(void **state)
{
	struct fixture *f = *state;
	int count = 0;

	submit_row(f);
	for (int from = 0; from < LH_JOB_STATES; from++)
		for (int to = 0; to < LH_JOB_STATES; to++)
			if (is_legal(from, to)) {
				check_legal(f, from, to);
				count++;
			}
	assert_int_equal(count, 27);
	/* Ids are given out without a gap, after the store's highest. */
	assert_int_equal(lh_journal_last_event(f->journal), 41 + count);
}

static void every_other_transition_is_a_caught_bug(void **state)
{
	struct fixture *f = *state;

	for (int from = 0; from < LH_JOB_STATES; from++)
		for (int to = 0; to < LH_JOB_STATES; to++) {
			if (is_legal(from, to))
				continue;
			assert_false(lh_job_may(from, to));
			if (!aborts(enter, f, from, to))
				fail_msg("%s -> %s went through", lh_job_state_name(from),
					 lh_job_state_name(to));
		}
}

static void a_state_whose_invariant_is_broken_is_a_caught_bug(void **state)
{
	struct fixture *f = *state;

	for (int from = 0; from < LH_JOB_STATES; from++)
		for (int to = 0; to < LH_JOB_STATES; to++)
			if (is_legal(from, to))
				assert_true(aborts(enter_unfit, f, from, to));
	assert_true(aborts(enter_without_reason, f, LH_JOB_STOPPING, LH_JOB_FAILED));
	assert_false(aborts(enter_without_reason, f, LH_JOB_RUNNING, LH_JOB_PAUSED));
}

static void names_are_words_and_go_back(void **state)
{
	(void)state;
	for (int s = 0; s < LH_JOB_STATES; s++)
		assert_int_equal(lh_job_state_of(lh_job_state_name(s)), s);
	for (int w = 0; w < LH_WANTS; w++)
		assert_int_equal(lh_job_wanted_of(lh_job_wanted_name(w)), w);
	assert_int_equal(lh_job_state_of("running"), -1);
	assert_int_equal(lh_job_state_of(NULL), -1);
	assert_int_equal(lh_job_wanted_of("stop"), -1);
}

static void a_reason_of_hostile_bytes_is_made_harmless(void **state)
{
	struct fixture *f = *state;
	struct lh_job_run *run = run_in(f, LH_JOB_QUEUED, LH_JOB_CANCELLED);

	lh_job_set_state(run, NULL, LH_JOB_CANCELLED, "a\x1b[2J\n\xff");
	assert_string_equal(run->reason, "a\\x1b[2J\\x0a\\xff");
	while (!json_array_size(f->events))
		uv_run(&f->loop, UV_RUN_ONCE);
	lh_job_run_free(run);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_legal_transition_is_stored_and_told),
		T(every_other_transition_is_a_caught_bug),
		T(a_state_whose_invariant_is_broken_is_a_caught_bug),
		cmocka_unit_test(names_are_words_and_go_back),
		T(a_reason_of_hostile_bytes_is_made_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_store.c: the store against a real database file: what is written, in
 * what order it is answered, and what a foreign lock or schema does to it. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/log.h"
#include "store/migrations.h"
#include "store/store.h"

enum { LIMIT_MS = 20000 };

struct fixture {
	uv_loop_t loop;
	char dir[64], path[96];
	struct lh_store *store;
	int64_t answered[64]; /* args of done callbacks, in order */
	int64_t ids[64];
	int rcs[64];
	int count;
	bool closed;
};

static struct fixture *current;

static void open_store(struct fixture *f)
{
	struct lh_err err = LH_ERR_INIT;

	if (lh_store_open(&f->store, &f->loop, f->path, &err))
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	struct fixture *f = lh_calloc(1, sizeof(*f));

	lh_log_set_level(LH_LOG_ERROR + 1);
	strcpy(f->dir, "/tmp/lh-store-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/t.db", f->dir);
	uv_loop_init(&f->loop);
	current = f;
	*state = f;
	return 0;
}

static void on_closed(void *arg)
{
	((struct fixture *)arg)->closed = true;
}

/* Runs the loop until `cond`, at most LIMIT_MS. */
#define RUN_UNTIL(f, cond)                                                     \
	do {                                                                   \
		int64_t end_ms_ = lh_time_ms() + LIMIT_MS;                     \
		while (!(cond)) {                                              \
			if (lh_time_ms() > end_ms_)                            \
				fail_msg("did not happen: %s", #cond);         \
			uv_run(&(f)->loop, UV_RUN_NOWAIT);                     \
			sqlite3_sleep(1);                                      \
		}                                                              \
	} while (0)

static void close_store(struct fixture *f)
{
	f->closed = false;
	lh_store_close(f->store, on_closed, f);
	RUN_UNTIL(f, f->closed);
	f->store = NULL;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->store)
		close_store(f);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	lh_fs_remove_tree(f->dir, NULL);
	free(f);
	return 0;
}

static void on_done(void *arg, int rc, int64_t id, const struct lh_err *err)
{
	struct fixture *f = current;

	assert_int_equal(rc, err ? LH_ESTORE : 0);
	f->answered[f->count] = (int64_t)(intptr_t)arg;
	f->rcs[f->count] = rc;
	assert_true(!rc || *err->text);
	f->ids[f->count++] = id;
}

static struct lh_write *event_write(int64_t id, const char *text)
{
	struct lh_write *w = lh_write_new();

	lh_write_add(w, LH_STMT_EVENT_INSERT,
		     (struct lh_bind[]){ LH_INT(id), LH_NULL, LH_NULL, LH_NULL, LH_INT(1),
					 LH_TEXT("test"), LH_TEXT(text), LH_TEXT("{}") },
		     8);
	return w;
}

static void submit(struct fixture *f, int64_t id, bool durable)
{
	lh_store_submit_take(f->store, event_write(id, "x"), durable, on_done,
			     (void *)(intptr_t)id);
}

/* A query of one integer over a connection of its own, as any user would. */
static int64_t query(struct fixture *f, const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *st;
	int64_t v;

	assert_int_equal(sqlite3_open_v2(f->path, &db, SQLITE_OPEN_READONLY, NULL), 0);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), 0);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	v = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return v;
}

static void a_new_database_gets_every_migration_and_is_private(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	open_store(f);
	assert_int_equal(query(f, "PRAGMA user_version"), lh_migration_count);
	assert_int_equal(query(f, "SELECT count(*) FROM jobs"), 0);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	close_store(f);
	open_store(f); /* and opening again changes nothing */
	assert_int_equal(query(f, "PRAGMA user_version"), lh_migration_count);
}

static void answers_come_in_order_of_submission(void **state)
{
	struct fixture *f = *state;

	open_store(f);
	for (int i = 1; i <= 40; i++)
		submit(f, i, i % 7 == 0);
	assert_int_equal(lh_store_backlog(f->store), 40);
	RUN_UNTIL(f, f->count == 40);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(f->answered[i], i + 1);
		assert_int_equal(f->ids[i], i + 1);
		assert_int_equal(f->rcs[i], 0);
	}
	assert_int_equal(lh_store_backlog(f->store), 0);
	assert_int_equal(query(f, "SELECT count(*) FROM events"), 40);
}

/* Frames of the log file grow by a commit record a transaction: many writes that
 * were handed over together must cost one, not one each. */
static void writes_are_grouped_into_one_transaction(void **state)
{
	struct fixture *f = *state;
	int64_t before;
	char wal[128];
	struct stat st;

	open_store(f);
	submit(f, 1, true);
	RUN_UNTIL(f, f->count == 1);
	snprintf(wal, sizeof(wal), "%s-wal", f->path);
	assert_int_equal(stat(wal, &st), 0);
	before = st.st_size;
	for (int i = 2; i <= 60; i++)
		submit(f, i, i == 60);
	RUN_UNTIL(f, f->count == 60);
	assert_int_equal(stat(wal, &st), 0);
	/* At least one 4 KiB page would be logged per transaction. */
	assert_true(st.st_size - before < 30 * 4096);
}

static void a_durable_write_is_committed_when_it_is_answered(void **state)
{
	struct fixture *f = *state;

	open_store(f);
	submit(f, 5, true);
	RUN_UNTIL(f, f->count == 1);
	assert_int_equal(query(f, "SELECT count(*) FROM events WHERE id = 5"), 1);
}

static void who_awaits_the_writes_before_can_read_them(void **state)
{
	struct fixture *f = *state;

	open_store(f);
	submit(f, 1, false);
	submit(f, 2, false);
	lh_store_await(f->store, on_done, (void *)3);
	RUN_UNTIL(f, f->count == 3);
	assert_int_equal(f->answered[2], 3);
	assert_int_equal(f->rcs[2], 0);
	assert_int_equal(query(f, "SELECT count(*) FROM events"), 2);
	lh_store_await(f->store, on_done, (void *)4); /* and with nothing to wait for */
	RUN_UNTIL(f, f->count == 4);
	assert_int_equal(f->rcs[3], 0);
}

static void a_write_is_stored_whole_or_not_at_all(void **state)
{
	struct fixture *f = *state;
	struct lh_write *w;

	open_store(f);
	submit(f, 1, false);
	w = event_write(2, "first statement");
	lh_write_add(w, LH_STMT_PHASE_INSERT, /* no such job: foreign key */
		     (struct lh_bind[]){ LH_INT(99), LH_INT(0), LH_TEXT("p"),
					 LH_TEXT("full") },
		     4);
	lh_store_submit_take(f->store, w, false, on_done, (void *)2);
	submit(f, 3, false);
	RUN_UNTIL(f, f->count == 3);
	assert_int_equal(f->rcs[0], 0);
	assert_int_equal(f->rcs[1], LH_ESTORE);
	assert_int_equal(f->rcs[2], 0);
	assert_int_equal(query(f, "SELECT count(*) FROM events"), 2);
	assert_int_equal(query(f, "SELECT count(*) FROM events WHERE id = 2"), 0);
}

static void a_record_stored_twice_is_stored_once(void **state)
{
	struct fixture *f = *state;

	open_store(f);
	for (int i = 0; i < 2; i++) {
		struct lh_write *w = lh_write_new();

		lh_write_add(w, LH_STMT_STEP_INSERT,
			     (struct lh_bind[]){ LH_INT(1), LH_INT(1), LH_INT(7), LH_INT(0),
						 LH_INT(9), LH_REAL(NAN), LH_REAL(INFINITY),
						 LH_REAL(0.5), LH_INT(64), LH_REAL(1),
						 LH_REAL(64000), LH_INT(0) },
			     12);
		lh_store_submit_take(f->store, w, false, on_done, NULL);
	}
	RUN_UNTIL(f, f->count == 2);
	assert_int_equal(f->rcs[1], 0);
	assert_int_equal(query(f, "SELECT count(*) FROM steps"), 1);
	assert_int_equal(query(f, "SELECT count(*) FROM steps WHERE loss IS NULL AND "
				  "grad_norm IS NULL AND lr = 0.5"), 1);
}

static void a_foreign_lock_delays_writes_and_loses_none(void **state)
{
	struct fixture *f = *state;
	sqlite3 *other;

	open_store(f);
	assert_int_equal(sqlite3_open(f->path, &other), 0);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), 0);
	for (int i = 1; i <= 20; i++)
		submit(f, i, i == 3);
	RUN_UNTIL(f, *lh_store_trouble(f->store));
	assert_non_null(strstr(lh_store_trouble(f->store), "locked"));
	assert_int_equal(f->count, 0);
	assert_int_equal(lh_store_backlog(f->store), 20);
	assert_int_equal(query(f, "SELECT count(*) FROM events"), 0); /* reads go on */
	submit(f, 21, true);
	assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), 0);
	sqlite3_close(other);
	RUN_UNTIL(f, f->count == 21);
	RUN_UNTIL(f, !*lh_store_trouble(f->store));
	for (int i = 0; i < 21; i++)
		assert_int_equal(f->answered[i], i + 1);
	assert_int_equal(query(f, "SELECT count(*) FROM events"), 21);
}

/* As if the disk were full: no file of this process grows beyond `bytes`. */
static void limit_files(rlim_t bytes)
{
	struct rlimit r;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
	r.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void a_disk_that_takes_nothing_refuses_only_what_may_fail(void **state)
{
	struct fixture *f = *state;
	struct lh_write *w;

	open_store(f);
	limit_files(4096);
	submit(f, 1, true);
	RUN_UNTIL(f, *lh_store_trouble(f->store));
	for (int i = 2; i <= 3; i++) { /* the first is behind one that waits */
		w = event_write(i, "x");
		lh_write_may_fail(w);
		lh_store_submit_take(f->store, w, true, on_done, (void *)(intptr_t)i);
		RUN_UNTIL(f, f->count == i - 1);
		assert_int_equal(f->answered[i - 2], i);
		assert_int_equal(f->rcs[i - 2], LH_ESTORE);
	}
	assert_int_equal(lh_store_backlog(f->store), 1);
	limit_files(RLIM_INFINITY);
	RUN_UNTIL(f, f->count == 3);
	assert_int_equal(f->rcs[2], 0);
	RUN_UNTIL(f, !*lh_store_trouble(f->store));
	assert_int_equal(query(f, "SELECT sum(id) FROM events"), 1);
}

static void closing_writes_what_is_queued(void **state)
{
	struct fixture *f = *state;

	open_store(f);
	for (int i = 1; i <= 10; i++)
		submit(f, i, false);
	close_store(f);
	assert_int_equal(f->count, 10);
	assert_int_equal(query(f, "SELECT count(*) FROM events"), 10);
}

static void alter(struct fixture *f, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(f->path, &db), 0);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), 0);
	sqlite3_close(db);
}

static void refused(struct fixture *f, const char *word)
{
	struct lh_err err = LH_ERR_INIT;

	assert_int_equal(lh_store_open(&f->store, &f->loop, f->path, &err), LH_ESTORE);
	f->store = NULL;
	if (!strstr(err.text, word) || !strstr(err.text, f->path))
		fail_msg("no '%s' in: %s", word, err.text);
}

static void a_newer_schema_is_refused_with_a_hint(void **state)
{
	struct fixture *f = *state;
	struct lh_err err = LH_ERR_INIT;

	open_store(f);
	close_store(f);
	alter(f, "PRAGMA user_version = 1000");
	refused(f, "1000");
	lh_store_open(&f->store, &f->loop, f->path, &err);
	f->store = NULL;
	assert_true(*err.hint);
	assert_int_equal(query(f, "PRAGMA user_version"), 1000);
}

static void a_foreign_database_is_refused_untouched(void **state)
{
	struct fixture *f = *state;

	alter(f, "CREATE TABLE recipes (name TEXT)");
	refused(f, "another program");
	assert_int_equal(query(f, "SELECT count(*) FROM sqlite_schema"), 1);
}

static void a_file_that_is_no_database_is_refused(void **state)
{
	struct fixture *f = *state;
	char junk[8192];

	memset(junk, 'x', sizeof(junk));
	assert_int_equal(lh_fs_write_atomic(f->path, junk, sizeof(junk), NULL), 0);
	refused(f, "not a database");
}

struct reading {
	int rc, after;
	bool wrote, more;
	json_t *rows;
	struct lh_err err;
};

static int read_work(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct reading *r = arg;

	r->wrote = sqlite3_exec(db, "DELETE FROM events", NULL, NULL, NULL) == SQLITE_OK;
	r->rows = lh_store_rows(db, "SELECT id, job, text, data_json, 1.5 AS half "
				    "FROM events WHERE id > ? ORDER BY id",
				(struct lh_bind[]){ LH_INT(1) }, 1, 2, &r->more, err);
	return r->rows ? 0 : LH_ESTORE;
}

static int bad_work(sqlite3 *db, void *arg, struct lh_err *err)
{
	bool more;

	(void)arg;
	assert_null(lh_store_rows(db, "SELECT * FROM nothing", NULL, 0, 1, &more, err));
	return LH_ESTORE;
}

static void read_done(void *arg, int rc, const struct lh_err *err)
{
	struct reading *r = arg;

	r->rc = rc;
	r->after = 1;
	if (err)
		r->err = *err;
}

static void reads_give_rows_as_json_and_cannot_write(void **state)
{
	struct fixture *f = *state;
	struct reading r = { 0 }, bad = { 0 };
	json_t *want;

	open_store(f);
	for (int i = 1; i <= 4; i++)
		submit(f, i, i == 4);
	RUN_UNTIL(f, f->count == 4);
	lh_store_read(f->store, read_work, read_done, &r);
	lh_store_read(f->store, bad_work, read_done, &bad);
	RUN_UNTIL(f, r.after && bad.after);
	assert_int_equal(r.rc, 0);
	assert_false(r.wrote);
	assert_true(r.more);
	want = json_pack("[{s:i,s:n,s:s,s:{},s:f},{s:i,s:n,s:s,s:{},s:f}]", "id", 2, "job",
			 "text", "x", "data", "half", 1.5, "id", 3, "job", "text", "x",
			 "data", "half", 1.5);
	assert_true(json_equal(r.rows, want));
	json_decref(r.rows);
	json_decref(want);
	assert_int_equal(bad.rc, LH_ESTORE);
	assert_non_null(strstr(bad.err.text, "nothing"));
	assert_int_equal(query(f, "SELECT count(*) FROM events"), 4);
}

static void closing_waits_for_a_read_in_flight(void **state)
{
	struct fixture *f = *state;
	struct reading r = { 0 };

	open_store(f);
	lh_store_read(f->store, read_work, read_done, &r);
	close_store(f);
	assert_int_equal(r.after, 1);
	json_decref(r.rows);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_new_database_gets_every_migration_and_is_private),
		T(answers_come_in_order_of_submission),
		T(writes_are_grouped_into_one_transaction),
		T(a_durable_write_is_committed_when_it_is_answered),
		T(who_awaits_the_writes_before_can_read_them),
		T(a_write_is_stored_whole_or_not_at_all),
		T(a_record_stored_twice_is_stored_once),
		T(a_foreign_lock_delays_writes_and_loses_none),
		T(a_disk_that_takes_nothing_refuses_only_what_may_fail),
		T(closing_writes_what_is_queued),
		T(a_newer_schema_is_refused_with_a_hint),
		T(a_foreign_database_is_refused_untouched),
		T(a_file_that_is_no_database_is_refused),
		T(reads_give_rows_as_json_and_cannot_write),
		T(closing_waits_for_a_read_in_flight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_nth_store.c: every call of SQLite that touches a file fails once: the store
 * opens or says why not, what it answered is there, once, and nothing is answered
 * that is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../shim.h"
#include "base/fs.h"
#include "base/log.h"
#include "store/store.h"

enum { LIMIT_MS = 30000, WRITES = 4 };

static uv_loop_t loop;
static char dir[64], path[96];
static struct lh_store *store;
static int answered, rcs[WRITES + 1];
static bool closed;

static int setup(void **state)
{
	(void)state;
	shim_install();
	lh_log_set_level(LH_LOG_ERROR + 1);
	strcpy(dir, "/tmp/lh-nth-store-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/t.db", dir);
	return uv_loop_init(&loop);
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(uv_loop_close(&loop), 0);
	return lh_fs_remove_tree(dir, NULL);
}

#define RUN_UNTIL(cond)                                                        \
	do {                                                                   \
		int64_t end_ms_ = lh_time_ms() + LIMIT_MS;                     \
		while (!(cond)) {                                              \
			if (lh_time_ms() > end_ms_)                            \
				fail_msg("did not happen: %s (call %d)", #cond, \
					 shim_fail_at);                        \
			uv_run(&loop, UV_RUN_NOWAIT);                          \
			sqlite3_sleep(1);                                      \
		}                                                              \
	} while (0)

static void on_done(void *arg, int rc, int64_t id, const struct lh_err *err)
{
	(void)id;
	assert_true(!rc || *err->text);
	rcs[(intptr_t)arg] = rc;
	answered++;
}

static void submit(intptr_t id)
{
	struct lh_write *w = lh_write_new();

	lh_write_add(w, LH_STMT_EVENT_INSERT,
		     (struct lh_bind[]){ LH_INT(id), LH_NULL, LH_NULL, LH_NULL, LH_INT(1),
					 LH_TEXT("test"), LH_TEXT("x"), LH_TEXT("{}") },
		     8);
	lh_store_submit_take(store, w, id % 2, on_done, (void *)id);
}

static void on_closed(void *arg)
{
	(void)arg;
	closed = true;
}

static int count_rows(sqlite3 *db, void *arg, struct lh_err *err)
{
	bool more;
	json_t *rows = lh_store_rows(db, "SELECT id FROM events ORDER BY id", NULL, 0, 100,
				     &more, err);

	*(json_t **)arg = rows;
	return rows ? 0 : LH_ESTORE;
}

/* Opens, writes, reads, closes. */
static void use(void)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *rows = NULL;

	answered = 0;
	memset(rcs, -1, sizeof(rcs));
	closed = false;
	if (lh_store_open(&store, &loop, path, &err)) {
		assert_true(*err.text);
		return;
	}
	for (intptr_t id = 1; id <= WRITES; id++)
		submit(id);
	RUN_UNTIL(answered == WRITES);
	if (lh_store_read_now(store, count_rows, &rows, &err))
		assert_true(*err.text);
	json_decref(rows);
	lh_store_close(store, on_closed, NULL);
	RUN_UNTIL(closed);
}

/* With nothing failing: what was answered is there. */
static void check(void)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *rows = NULL;
	bool there[WRITES + 1] = { false };

	if (lh_store_open(&store, &loop, path, &err) ||
	    lh_store_read_now(store, count_rows, &rows, &err))
		fail_msg("%s", err.text);
	for (size_t i = 0; i < json_array_size(rows); i++)
		there[json_integer_value(json_object_get(json_array_get(rows, i), "id"))] = true;
	for (int id = 1; id <= WRITES; id++)
		if (there[id] != !rcs[id])
			fail_msg("call %d: write %d was answered %d and is %sthere",
				 shim_fail_at, id, rcs[id], there[id] ? "" : "not ");
	json_decref(rows);
	closed = false;
	lh_store_close(store, on_closed, NULL);
	RUN_UNTIL(closed);
}

static void try_all(bool fresh)
{
	int n = 1;
	bool failed = true;

	for (; failed; n++) {
		assert_int_equal(lh_fs_remove_tree(dir, NULL), 0);
		assert_int_equal(lh_fs_mkdirs(dir, NULL), 0);
		if (!fresh) { /* all migrations are done */
			struct lh_err err;

			closed = false;
			assert_int_equal(lh_store_open(&store, &loop, path, &err), 0);
			lh_store_close(store, on_closed, NULL);
			RUN_UNTIL(closed);
		}
		shim_calls = 0;
		shim_fail_at = n;
		use();
		failed = shim_calls >= n;
		shim_fail_at = 0;
		check();
	}
	assert_in_range(n, 20, 2000);
}

static void a_new_store_survives_each_call_that_fails(void **state)
{
	(void)state;
	try_all(true);
}

static void a_store_survives_each_call_that_fails(void **state)
{
	(void)state;
	try_all(false);
}

#define NTH_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		NTH_TEST(a_new_store_survives_each_call_that_fails),
		NTH_TEST(a_store_survives_each_call_that_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_session.c: tokens and keys: how often, how long, for whom, and what is stored. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "http/session.h"

#define NOW_MS INT64_C(1000000)

static char token[LH_SECRET_BYTES], key[LH_SECRET_BYTES];

static struct lh_session exchange(struct lh_sessions *s, int64_t now_ms)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_session is;

	if (lh_sessions_exchange(s, token, now_ms, key, &is, &err))
		fail_msg("%s", err.text);
	return is;
}

static void expect_no_key(struct lh_sessions *s, const char *given, int64_t now_ms)
{
	struct lh_err err = LH_ERR_INIT;
	struct lh_session is;

	assert_int_equal(lh_sessions_exchange(s, given, now_ms, key, &is, &err), LH_EDENIED);
	assert_string_not_equal(err.hint, "");
}

static void a_token_gives_one_key_of_its_role_and_uid(void **state)
{
	struct lh_sessions *s = lh_sessions_new(NULL);
	struct lh_session is;

	(void)state;
	assert_int_equal(lh_sessions_token(s, 42, LH_ROLE_STEER, NOW_MS, token),
			 NOW_MS + LH_TOKEN_MS);
	assert_int_equal(strlen(token), LH_SECRET_BYTES - 1);
	expect_no_key(s, "", NOW_MS);
	expect_no_key(s, "0", NOW_MS);
	is = exchange(s, NOW_MS + LH_TOKEN_MS - 1);
	assert_int_equal(is.uid, 42);
	assert_int_equal(is.role, LH_ROLE_STEER);
	assert_string_not_equal(key, token);
	assert_true(lh_sessions_find(s, key, NOW_MS, &is));
	assert_int_equal(is.uid, 42);
	assert_false(lh_sessions_find(s, token, NOW_MS, &is));
	assert_false(lh_sessions_find(s, "", NOW_MS, &is));
	expect_no_key(s, token, NOW_MS);
	lh_sessions_free(s);
}

static void tokens_and_keys_end(void **state)
{
	struct lh_sessions *s = lh_sessions_new(NULL);
	struct lh_session is;

	(void)state;
	lh_sessions_token(s, 1, LH_ROLE_READ, NOW_MS, token);
	expect_no_key(s, token, NOW_MS + LH_TOKEN_MS);
	lh_sessions_token(s, 1, LH_ROLE_READ, NOW_MS, token);
	is = exchange(s, NOW_MS);
	assert_int_equal(is.expires_ms, NOW_MS + LH_KEY_MS);
	assert_true(lh_sessions_find(s, key, is.expires_ms - 1, &is));
	assert_false(lh_sessions_find(s, key, is.expires_ms, &is));
	lh_sessions_free(s);
}

static void one_too_many_takes_the_place_of_the_oldest(void **state)
{
	struct lh_sessions *s = lh_sessions_new(NULL);
	char first[LH_SECRET_BYTES], second[LH_SECRET_BYTES];
	struct lh_session is;

	(void)state;
	lh_sessions_token(s, 1, LH_ROLE_READ, NOW_MS, first);
	for (int i = 1; i <= LH_TOKENS_MAX; i++)
		lh_sessions_token(s, 1, LH_ROLE_READ, NOW_MS + i, token);
	expect_no_key(s, first, NOW_MS);
	for (int i = 0; i <= LH_KEYS_MAX; i++) {
		lh_sessions_token(s, 1, LH_ROLE_READ, NOW_MS + i, token);
		exchange(s, NOW_MS + i);
		if (i < 2)
			memcpy(i ? second : first, key, sizeof(key));
	}
	assert_false(lh_sessions_find(s, first, NOW_MS, &is));
	assert_true(lh_sessions_find(s, second, NOW_MS, &is));
	assert_true(lh_sessions_find(s, key, NOW_MS, &is));
	lh_sessions_free(s);
}

static void a_fixed_key_reads_for_ever(void **state)
{
	struct lh_sessions *s = lh_sessions_new(NULL);
	struct lh_session fixed = { 7, LH_ROLE_READ, INT64_MAX }, is;

	(void)state;
	assert_false(lh_sessions_find(s, "", NOW_MS, &is)); /* there is none yet */
	lh_secret_make(key);
	lh_sessions_set_fixed(s, key, &fixed);
	assert_true(lh_sessions_find(s, key, NOW_MS + 1000 * LH_KEY_MS, &is));
	assert_int_equal(is.uid, 7);
	assert_int_equal(is.role, LH_ROLE_READ);
	lh_sessions_free(s);
}

/* ---- with a store ---------------------------------------------------------- */

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void close_store(struct lh_store *store, uv_loop_t *loop)
{
	bool closed = false;

	lh_store_close(store, on_closed, &closed);
	uv_run(loop, UV_RUN_DEFAULT);
	assert_true(closed);
}

static void open_store(struct lh_store **store, uv_loop_t *loop, const char *path)
{
	struct lh_err err = LH_ERR_INIT;

	if (lh_store_open(store, loop, path, &err))
		fail_msg("%s", err.text);
}

static void keys_outlive_lhd_until_they_end(void **state)
{
	char dir[] = "/tmp/lighthouse-test-XXXXXX", path[64], other[LH_SECRET_BYTES];
	struct lh_err err = LH_ERR_INIT;
	struct lh_sessions *s;
	struct lh_store *store;
	struct lh_session is;
	uv_loop_t loop;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/test.db", dir);
	assert_int_equal(uv_loop_init(&loop), 0);
	open_store(&store, &loop, path);
	s = lh_sessions_new(store);
	lh_sessions_token(s, 1, LH_ROLE_READ, NOW_MS, token);
	exchange(s, NOW_MS);
	memcpy(other, key, sizeof(other));
	lh_sessions_token(s, 9, LH_ROLE_STEER, NOW_MS + 5, token);
	exchange(s, NOW_MS + 5);
	close_store(store, &loop);
	lh_sessions_free(s);

	open_store(&store, &loop, path);
	s = lh_sessions_new(store);
	assert_int_equal(lh_sessions_load(s, NOW_MS + LH_KEY_MS, &err), 0);
	assert_false(lh_sessions_find(s, other, NOW_MS, &is)); /* was over, not loaded */
	assert_true(lh_sessions_find(s, key, NOW_MS, &is));
	assert_int_equal(is.uid, 9);
	assert_int_equal(is.role, LH_ROLE_STEER);
	assert_int_equal(is.expires_ms, NOW_MS + 5 + LH_KEY_MS);
	expect_no_key(s, token, NOW_MS);
	close_store(store, &loop);
	lh_sessions_free(s);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_int_equal(lh_fs_remove_tree(dir, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_token_gives_one_key_of_its_role_and_uid),
		cmocka_unit_test(tokens_and_keys_end),
		cmocka_unit_test(one_too_many_takes_the_place_of_the_oldest),
		cmocka_unit_test(a_fixed_key_reads_for_ever),
		cmocka_unit_test(keys_outlive_lhd_until_they_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_sealed.c: a line on which nobody is heard who has not the token, and nothing twice;
 * and the file that has it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../scratch.h"
#include "join/joinfile.h"
#include "join/sealed.h"

static struct lh_sealed door, rank;

static void connect_both(const char *doors, const char *ranks)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	lh_sealed_init(&door, fd[0], true, doors);
	lh_sealed_init(&rank, fd[1], false, ranks);
}

static int take(struct lh_sealed *s, const char *text)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *m;
	int rc;

	lh_sealed_read(s);
	rc = lh_sealed_next(s, &m, &err);
	if (rc > 0)
		assert_string_equal(json_string_value(json_object_get(m, "text")), text);
	assert_true((m != NULL) == (rc > 0));
	json_decref(m);
	return rc;
}

static void say(struct lh_sealed *s, const char *text)
{
	lh_sealed_send_take(s, json_pack("{s:s}", "text", text));
}

static int teardown(void **state)
{
	(void)state;
	lh_sealed_release(&door);
	lh_sealed_release(&rank);
	return 0;
}

static void those_with_the_token_hear_each_other(void **state)
{
	(void)state;
	connect_both("secret", "secret");
	assert_false(lh_sealed_is_greeted(&rank));
	assert_int_equal(take(&rank, NULL), 0);
	assert_true(lh_sealed_is_greeted(&rank));
	say(&rank, "may I");
	say(&rank, "please");
	assert_int_equal(take(&door, "may I"), 1);
	assert_int_equal(take(&door, "please"), 1);
	assert_true(door.is_open);
	say(&door, "yes");
	assert_int_equal(take(&rank, "yes"), 1);
	assert_int_equal(take(&rank, NULL), 0);
	shutdown(door.fd, SHUT_RDWR);
	assert_int_equal(take(&rank, NULL), 0);
	assert_true(rank.is_over);
}

static void another_token_is_known_at_both_ends(void **state)
{
	(void)state;
	connect_both("secret", "guessed");
	take(&rank, NULL);
	say(&rank, "may I");
	assert_int_equal(take(&door, NULL), LH_EDENIED);
	assert_false(door.is_open);
	say(&door, "no");
	assert_int_equal(take(&rank, NULL), LH_EDENIED);
}

/* Somebody in between has a whole, good line. */
static void nothing_is_heard_twice_or_changed(void **state)
{
	char line[1024];
	ssize_t n;

	(void)state;
	connect_both("secret", "secret");
	take(&rank, NULL);
	say(&rank, "may I");
	n = recv(door.fd, line, sizeof(line), MSG_PEEK);
	assert_true(n > 0);
	assert_int_equal(take(&door, "may I"), 1);
	assert_int_equal(send(rank.fd, line, (size_t)n, 0), n);
	assert_int_equal(take(&door, NULL), LH_EDENIED);
	teardown(NULL);

	connect_both("secret", "secret");
	take(&rank, NULL);
	say(&rank, "may I");
	n = recv(door.fd, line, sizeof(line), 0);
	line[n - 4]++; /* of the text, or the nonce */
	assert_int_equal(send(rank.fd, line, (size_t)n, 0), n);
	assert_true(take(&door, NULL) < 0);
}

static void what_is_no_message_is_refused(void **state)
{
	static const char *const lines[] = { "GET / HTTP/1.0\r\n", "{}\n", "x\n", "[1]\n",
		"0000000000000000000000000000000000000000000000000000000000000000 {}\n",
		"0000000000000000000000000000000000000000000000000000000000000000 "
		"{\"nonce\":\"'; drop\"}\n" };

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		connect_both("secret", "secret");
		assert_true(send(rank.fd, lines[i], strlen(lines[i]), 0) > 0);
		assert_int_equal(take(&door, NULL), LH_EPROTO);
		assert_true(send(door.fd, lines[i], strlen(lines[i]), 0) > 0);
		lh_sealed_read(&rank); /* the greeting, and then that */
		teardown(NULL);
	}
	connect_both("secret", "secret");
}

static void a_join_file_is_read_as_it_was_written(void **state)
{
	struct lh_job job = { .name = (char *)"j", .device = LH_DEVICE_CUDA, .devices = 4,
			      .join = (char *)"node1:29400" };
	struct lh_err err = LH_ERR_INIT;
	char *path = scratch_path("join");
	struct lh_joinfile one, two;
	struct stat st;

	(void)state;
	assert_int_equal(lh_joinfile_read(&one, path, &err), LH_ENOTFOUND);
	assert_int_equal(lh_joinfile_write(path, 7, &job, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(lh_joinfile_read(&one, path, &err), 0);
	assert_int_equal(one.job, 7);
	assert_int_equal(one.device, LH_DEVICE_CUDA);
	assert_int_equal(one.devices, 4);
	assert_string_equal(one.address, "node1:29400");
	assert_int_equal(lh_joinfile_write(path, 7, &job, &err), 0);
	assert_int_equal(lh_joinfile_read(&two, path, &err), 0);
	assert_string_not_equal(one.token, two.token);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(lh_joinfile_read(&one, path, &err), LH_EDENIED);
	scratch_write("join", "{}", 2);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(lh_joinfile_read(&one, path, &err), LH_ECORRUPT);
	free(path);
}

static void an_address_has_a_host_and_a_port(void **state)
{
	static const char *const bad[] = { "", "x", ":1", "x:", "x:0", "x:65536", "x:1y",
					   "x:-1", "x y:1", "::1:5", "x:1:2", "http://x:1" };
	static const char *const good[] = { "x:1", "127.0.0.1:65535", "a.b-c:29400" };
	struct lh_err err = LH_ERR_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(lh_address_check(bad[i], &err), LH_EINVAL);
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_int_equal(lh_address_check(good[i], &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(those_with_the_token_hear_each_other, teardown),
		cmocka_unit_test_teardown(another_token_is_known_at_both_ends, teardown),
		cmocka_unit_test_teardown(nothing_is_heard_twice_or_changed, teardown),
		cmocka_unit_test_teardown(what_is_no_message_is_refused, teardown),
		SCRATCH_TEST(a_join_file_is_read_as_it_was_written),
		cmocka_unit_test(an_address_has_a_host_and_a_port),
	};

	return cmocka_run_group_tests_name("sealed", tests, NULL, NULL);
}

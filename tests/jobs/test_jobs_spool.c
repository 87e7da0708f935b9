/* test_jobs_spool.c: the records that a worker had not sent when it died; see
 * manager.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>

#include "base/io.h"
#include "manager.h"

/* ---- a spool that cannot be opened or read --------------------------------- */

static struct lh_io io;
static atomic_int open_errno, read_errno; /* 0: it can */
static atomic_int failures;
static atomic_int spool_fd;

static int open_file(const char *path, int flags, mode_t mode)
{
	bool spool = strstr(path, "/" LH_ATTEMPT_SPOOL) != NULL;
	int fd;

	if (spool && open_errno) {
		failures++;
		errno = open_errno;
		return -1;
	}
	fd = lh_io_posix.open(path, flags, mode);
	if (spool)
		spool_fd = fd;
	return fd;
}

static ssize_t read_file(int fd, void *data, size_t bytes)
{
	if (!read_errno || fd != spool_fd)
		return lh_io_posix.read(fd, data, bytes);
	failures++;
	errno = read_errno;
	return -1;
}

static int close_file(int fd)
{
	if (fd == spool_fd)
		spool_fd = -1;
	return lh_io_posix.close(fd);
}

static int setup_io(void **state)
{
	open_errno = read_errno = failures = 0;
	spool_fd = -1;
	io = lh_io_posix;
	io.open = open_file;
	io.read = read_file;
	io.close = close_file;
	lh_io = &io;
	return setup(state);
}

static int teardown_io(void **state)
{
	int rc = teardown(state);

	lh_io = &lh_io_posix;
	return rc;
}

/* ---- a worker that dies with records in it --------------------------------- */

/* Has it run to step 600, of which lhd knows the first five: more than a batch. */
static int64_t start_unsent(void)
{
	int64_t job = start_running();
	bool found = false;

	run_to_step(job, "5");
	set_ctl("mute", "");
	set_ctl("steps", "600");
	while (!found) {
		char *spool = fake_text(attempt_dir(job, 1), LH_ATTEMPT_SPOOL);

		found = strstr(spool, "\"step\":600,") != NULL;
		free(spool);
	}
	assert_int_equal(number(job, "step"), 5);
	return job;
}

static void die(int64_t job)
{
	kill_worker(job, 1);
	unset_ctl("mute");
	set_ctl("steps", "0"); /* of the next attempt */
}

static FILE *open_spool(int64_t job)
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", attempt_dir(job, 1), LH_ATTEMPT_SPOOL);
	file = fopen(path, "a");
	assert_non_null(file);
	return file;
}

static bool all_is_stored(void)
{
	return query_db("SELECT count(*) FROM steps WHERE attempt = 1") == 600 &&
	       has_steps(600);
}

static bool is_told_of_loss(const char *why)
{
	char sql[200];

	snprintf(sql, sizeof(sql), "SELECT count(*) FROM events WHERE kind = 'worker.warn' "
		 "AND attempt = 1 AND text LIKE '%%are lost%%%s%%'", why);
	return query_db(sql) == 1;
}

static bool is_replaced(int64_t job)
{
	return number(job, "attempt") == 2 && is_in(job, "RUNNING");
}

static void what_a_dead_worker_had_not_sent_is_read_from_its_spool(void **state)
{
	int64_t job = start_unsent();
	FILE *file;

	(void)state;
	file = open_spool(job);
	fputs("{\"seq\":602,\"t\":\"step\",\"step\":601", file); /* the machine stopped */
	fclose(file);
	die(job);
	RUN_UNTIL(all_is_stored());
	RUN_UNTIL(is_replaced(job));
	assert_false(is_told_of_loss(""));
}

/* lhd has too many files open, say. That passes, and no record is lost. */
static void while_it_cannot_be_opened_the_attempt_is_not_over(void **state)
{
	int64_t job = start_unsent();

	(void)state;
	open_errno = EMFILE;
	die(job);
	RUN_UNTIL(failures > 1);
	assert_int_equal(query_db("SELECT count(*) FROM events WHERE kind = 'attempt.lost'"), 0);
	open_errno = 0;
	RUN_UNTIL(all_is_stored());
	RUN_UNTIL(is_replaced(job));
	assert_false(is_told_of_loss(""));
}

static void while_memory_is_short_the_attempt_is_not_over(void **state)
{
	int64_t job = start_unsent();

	(void)state;
	read_errno = ENOMEM;
	die(job);
	RUN_UNTIL(failures > 1);
	read_errno = 0;
	RUN_UNTIL(all_is_stored());
	RUN_UNTIL(is_replaced(job));
}

/* In the middle of a wait that may be long. */
static void closing_does_not_wait_for_it(void **state)
{
	int64_t job = start_unsent();

	(void)state;
	open_errno = EMFILE;
	die(job);
	RUN_UNTIL(failures > 1);
	close_all();
	open_errno = 0;
	open_all();
	RUN_UNTIL(all_is_stored());
	RUN_UNTIL(is_replaced(job));
}

static void what_a_broken_disk_does_not_give_is_told_of(void **state)
{
	int64_t job = start_unsent();

	(void)state;
	read_errno = EIO;
	die(job);
	RUN_UNTIL(is_replaced(job));
	RUN_UNTIL(is_told_of_loss("Input/output error"));
	assert_int_equal(failures, 1);
	assert_int_equal(query_db("SELECT max(step) FROM steps WHERE attempt = 1"), 5);
}

static void one_that_was_never_begun_is_no_loss(void **state)
{
	int64_t job = start_running();
	char path[300];

	(void)state;
	RUN_UNTIL(fake_number(attempt_dir(job, 1), "acked", 0) > 0);
	snprintf(path, sizeof(path), "%s/%s", attempt_dir(job, 1), LH_ATTEMPT_SPOOL);
	assert_int_equal(unlink(path), 0);
	kill_worker(job, 1);
	RUN_UNTIL(is_replaced(job));
	assert_false(is_told_of_loss(""));
}

/* Neither a worker nor a wire would have taken it. What comes after it has a gap. */
static void a_line_longer_than_any_record_is_not_taken(void **state)
{
	int64_t job = start_unsent();
	char *fill = lh_alloc(LH_PROTO_LINE_MAX_BYTES + 1);
	FILE *file;

	(void)state;
	memset(fill, 'x', LH_PROTO_LINE_MAX_BYTES);
	fill[LH_PROTO_LINE_MAX_BYTES] = '\0';
	file = open_spool(job);
	for (int seq = 602; seq <= 603; seq++)
		fprintf(file, "{\"seq\": %d, \"t\": \"event\", \"step\": 600, \"level\": "
			"\"info\", \"text\": \"%s\"}\n", seq, seq == 602 ? fill : "short");
	fclose(file);
	free(fill);
	die(job);
	RUN_UNTIL(all_is_stored());
	RUN_UNTIL(is_replaced(job));
	RUN_UNTIL(is_told_of_loss("record 603 comes after record 601"));
	assert_int_equal(query_db("SELECT last_seq FROM attempts WHERE attempt = 1"), 601);
}

#define IO(name) cmocka_unit_test_setup_teardown(name, setup_io, teardown_io)

MANAGER_TESTS(IO(what_a_dead_worker_had_not_sent_is_read_from_its_spool),
	      IO(while_it_cannot_be_opened_the_attempt_is_not_over),
	      IO(while_memory_is_short_the_attempt_is_not_over),
	      IO(closing_does_not_wait_for_it),
	      IO(what_a_broken_disk_does_not_give_is_told_of),
	      IO(one_that_was_never_begun_is_no_loss),
	      IO(a_line_longer_than_any_record_is_not_taken))

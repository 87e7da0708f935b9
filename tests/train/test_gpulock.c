/* test_gpulock.c: a GPU is one state directory's at a time, whoever its user is. The
 * locks are those of the machine, of a GPU that there is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../scratch.h"
#include "train/gpulock.h"

enum { NOBODY = 65534 };

static char uuid[48], *file, *mine, *theirs;

static int setup(void **state)
{
	if (scratch_setup(state))
		return -1;
	snprintf(uuid, sizeof(uuid), "GPU-test-%d", (int)getpid());
	file = lh_gpulock_path(uuid);
	mine = scratch_path("mine");
	theirs = scratch_path("theirs");
	return lh_fs_mkdirs(mine, NULL) || lh_fs_mkdirs(theirs, NULL);
}

static int teardown(void **state)
{
	unlink(file);
	free(file);
	free(mine);
	free(theirs);
	return scratch_teardown(state);
}

static int take(const char *state_dir, struct lh_err *err)
{
	*err = (struct lh_err)LH_ERR_INIT;
	return lh_gpulock_take(uuid, state_dir, err);
}

static int taken(const char *state_dir)
{
	struct lh_err err;
	int fd = take(state_dir, &err);

	if (fd < 0)
		fail_msg("%s", err.text);
	return fd;
}

static void is_refused(const char *state_dir, int code, const char *word)
{
	struct lh_err err;

	assert_int_equal(take(state_dir, &err), code);
	if (!strstr(err.text, word))
		fail_msg("'%s' does not say '%s'", err.text, word);
}

/* A process that has it, until it is killed. `uid`: whose it is. */
static int holder(const char *state_dir, uid_t uid)
{
	int ready[2], pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct lh_err err;

		if ((uid && setuid(uid)) || take(state_dir, &err) < 0)
			_exit(1);
		if (write(ready[1], "r", 1) != 1)
			_exit(2);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void end(int pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void workers_of_one_state_directory_share_it(void **state)
{
	int first = taken(mine), second;

	(void)state;
	second = taken(mine);
	is_refused(theirs, LH_EBUSY, mine);
	close(first);
	is_refused(theirs, LH_EBUSY, mine);
	close(second);
	second = taken(theirs);
	is_refused(mine, LH_EBUSY, theirs);
	close(second);
}

static void it_names_its_owner_and_ends_with_him(void **state)
{
	int pid = holder(mine, 0), fd;
	struct lh_err err;
	char who[64];

	(void)state;
	snprintf(who, sizeof(who), "process %d, ", pid);
	assert_int_equal(take(theirs, &err), LH_EBUSY);
	assert_non_null(strstr(err.text, uuid));
	assert_non_null(strstr(err.text, who));
	assert_non_null(strstr(err.text, mine));
	assert_non_null(strstr(err.hint, mine));
	end(pid);
	fd = taken(theirs);
	is_refused(mine, LH_EBUSY, theirs);
	close(fd);
}

/* Two containers call their directories alike. */
static void a_state_directory_is_more_than_its_path(void **state)
{
	char *away = scratch_path("away");
	int fd = taken(mine);

	(void)state;
	assert_int_equal(rename(mine, away), 0);
	assert_int_equal(lh_fs_mkdirs(mine, NULL), 0);
	is_refused(mine, LH_EBUSY, mine);
	close(taken(away));
	close(fd);
	free(away);
}

/* As root: others' files open for us, ours for others. */
static void it_is_between_users(void **state)
{
	int pid, fd, status;
	mode_t old;

	(void)state;
	if (geteuid())
		skip();
	old = umask(077);
	assert_int_equal(chmod(scratch_dir, 0755), 0);
	assert_int_equal(chown(theirs, NOBODY, NOBODY), 0);
	pid = holder(theirs, NOBODY);
	is_refused(mine, LH_EBUSY, theirs);
	end(pid);
	fd = taken(mine);
	close(fd);
	unlink(file);

	fd = taken(mine);
	pid = fork();
	if (!pid) {
		struct lh_err err;

		_exit(setuid(NOBODY) || take(theirs, &err) != LH_EBUSY);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(fd);
	pid = holder(theirs, NOBODY);
	is_refused(mine, LH_EBUSY, theirs);
	end(pid);
	umask(old);
}

/* Somebody laid a link to our file where the lock is to be. */
static void what_is_no_lock_is_not_touched(void **state)
{
	char *path = scratch_path("precious");
	size_t bytes;
	char *text;

	(void)state;
	scratch_write("precious", "x", 1);
	assert_int_equal(symlink(path, file), 0);
	is_refused(mine, LH_EIO, file);
	unlink(file);
	assert_int_equal(mkfifo(file, 0666), 0);
	is_refused(mine, LH_EIO, file);
	unlink(file);
	if (!link(path, file)) { /* on another file system there is no such link */
		is_refused(mine, LH_EIO, file);
		text = scratch_read("precious", &bytes);
		assert_int_equal(bytes, 1);
		free(text);
	}
	free(path);
}

/* Held by whoever wrote nonsense there, it is another's; left by him, it is nobody's. */
static void what_it_says_is_hostile(void **state)
{
	static const char *const texts[] = { "", "\n", "1:2", "1:2 3", "1:2 3\n/a\033[31mb\n",
					     "%s%n 1\n%s\n", ": 99999999999999\n\n" };
	struct lh_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0666);

		assert_int_equal(flock(fd, LOCK_SH), 0);
		assert_true(write(fd, texts[i], strlen(texts[i])) >= 0);
		assert_int_equal(take(mine, &err), LH_EBUSY);
		assert_null(strchr(err.text, '\033'));
		assert_null(strchr(err.hint, '\033'));
		close(fd);
		close(taken(mine));
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(workers_of_one_state_directory_share_it),
		T(it_names_its_owner_and_ends_with_him),
		T(a_state_directory_is_more_than_its_path),
		T(it_is_between_users),
		T(what_is_no_lock_is_not_touched),
		T(what_it_says_is_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

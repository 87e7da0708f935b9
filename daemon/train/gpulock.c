/* gpulock.c: see gpulock.h. */
#include "train/gpulock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum {
	TRIES = 100, TRY_AGAIN_US = 2000, /* somebody writes his name */
	NAME_BYTES = 48,
	TEXT_MAX_BYTES = PATH_MAX + 64,
};

struct owner {
	char name[NAME_BYTES]; /* "DEV:INO" */
	int pid;
	char path[PATH_MAX];
};

char *lh_gpulock_path(const char *uuid)
{
	struct stat st;
	/* The same one for every user, so by nothing that is a user's own. */
	bool shared = !stat("/run/lock", &st) && S_ISDIR(st.st_mode) &&
		      (st.st_mode & 01777) == 01777;

	return lh_asprintf("%s/lighthouse-%s.lock", shared ? "/run/lock" : "/tmp", uuid);
}

static int fail(struct lh_err *err, const char *what, const char *path)
{
	return lh_err_set(err, LH_EIO, "cannot %s '%s': %s", what, path, strerror(errno));
}

/* Every user's at once, whatever the umask is. Other threads' files name modes that
 * need none. */
static int create(const char *path, int flags)
{
	mode_t old = umask(0);
	int fd = open(path, flags | O_CREAT | O_EXCL, 0666);

	umask(old);
	return fd;
}

/* The file must be what we would make: a link could lead to any other. Not created by
 * the call that opens it, because Linux refuses that call a file that another user
 * has made in such a directory. */
static int open_file(const char *path, struct lh_err *err)
{
	const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	struct stat st;
	int fd = open(path, flags);

	if (fd < 0 && errno == ENOENT)
		fd = create(path, flags);
	if (fd < 0 && errno == EEXIST) /* meanwhile */
		fd = open(path, flags);
	if (fd < 0)
		return fail(err, "open", path);
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_nlink == 1)
		return fd;
	close(fd);
	lh_err_set(err, LH_EIO, "'%s' is not the lock of a GPU", path);
	return lh_err_hint(err, "remove it");
}

static int describe(struct owner *me, const char *state_dir, struct lh_err *err)
{
	struct stat st;

	if (!realpath(state_dir, me->path) || stat(me->path, &st))
		return fail(err, "look at", state_dir);
	snprintf(me->name, sizeof(me->name), "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	me->pid = getpid();
	return 0;
}

static int write_owner(int fd, const struct owner *me, const char *path,
		       struct lh_err *err)
{
	char text[TEXT_MAX_BYTES];
	int n = snprintf(text, sizeof(text), "%s %d\n%s\n", me->name, me->pid, me->path);

	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
		return fail(err, "write", path);
	return 0;
}

/* Empty fields for what is not there. */
static void read_owner(int fd, struct owner *o)
{
	char text[TEXT_MAX_BYTES], *end;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	memset(o, 0, sizeof(*o));
	text[n > 0 ? n : 0] = '\0';
	if (sscanf(text, "%47[0-9:] %d", o->name, &o->pid) != 2 || !(end = strchr(text, '\n')))
		return;
	snprintf(o->path, sizeof(o->path), "%.*s", (int)strcspn(end + 1, "\n"), end + 1);
}

static int busy(const struct owner *o, const char *uuid, struct lh_err *err)
{
	char path[120];

	lh_escape(path, sizeof(path), o->path);
	lh_err_set(err, LH_EBUSY, "'%s' is used by process %d, a worker of the lhd of '%s'",
		   uuid, o->pid, path);
	return lh_err_hint(err, "'lhctl --state %s ls' tells of its job; another GPU: "
			   "CUDA_VISIBLE_DEVICES, for lhd", path);
}

/* Exclusive for as long as it takes to write our name, then shared; whoever comes
 * between the two has written his. */
static int take(int fd, const struct owner *me, const char *uuid, const char *path,
		struct lh_err *err)
{
	struct owner o = { 0 };

	for (int i = 0; i < TRIES; i++) {
		if (!flock(fd, LOCK_EX | LOCK_NB) && write_owner(fd, me, path, err))
			return LH_EIO;
		if (!flock(fd, LOCK_SH | LOCK_NB)) {
			read_owner(fd, &o);
			return strcmp(o.name, me->name) ? busy(&o, uuid, err) : 0;
		}
		if (errno != EWOULDBLOCK)
			return fail(err, "lock", path);
		usleep(TRY_AGAIN_US);
	}
	read_owner(fd, &o);
	return busy(&o, uuid, err);
}

int lh_gpulock_take(const char *uuid, const char *state_dir, struct lh_err *err)
{
	char *path = lh_gpulock_path(uuid);
	struct owner me;
	int fd = describe(&me, state_dir, err), rc;

	if (!fd)
		fd = open_file(path, err);
	if (fd >= 0) {
		rc = take(fd, &me, uuid, path, err);
		if (rc) {
			close(fd);
			fd = rc;
		}
	}
	free(path);
	return fd;
}

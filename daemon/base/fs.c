/* fs.c: file operations done one right way; see fs.h. */
#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/io.h"

static int fail(struct lh_err *err, const char *what, const char *path)
{
	int why = errno;

	lh_err_set(err, LH_EIO, "cannot %s '%s': %s", what, path, strerror(why));
	if (err && (why == ENOSPC || why == EDQUOT))
		lh_err_hint(err, "make room on its disk");
	else if (err && why == EROFS)
		lh_err_hint(err, "its disk is read-only: remount it, or choose another");
	return LH_EIO;
}

int lh_fs_sync_parent(const char *path, struct lh_err *err)
{
	char *dir = lh_strdup(path), *slash = strrchr(dir, '/');
	int rc;

	if (slash)
		*slash = '\0';
	rc = lh_fs_sync_dir(!slash ? "." : *dir ? dir : "/", err);
	free(dir);
	return rc;
}

int lh_fs_mkdirs(const char *path, struct lh_err *err)
{
	char *part = lh_strdup(path), *p;
	int rc = 0;

	for (p = part + 1; rc == 0; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (!lh_io->mkdir(part, 0700))
			rc = lh_fs_sync_parent(part, err);
		else if (errno != EEXIST)
			rc = fail(err, "create directory", part);
		*p = c;
		if (!c)
			break;
	}
	free(part);
	return rc;
}

int lh_fs_read(const char *path, size_t max_bytes, char **data, size_t *bytes,
	       struct lh_err *err)
{
	int fd = lh_io->open(path, O_RDONLY | O_CLOEXEC, 0), rc;
	size_t cap = 4096, used = 0;
	char *buf;

	if (fd < 0 && errno == ENOENT)
		return lh_err_set(err, LH_ENOTFOUND, "no such file: '%s'", path);
	if (fd < 0)
		return fail(err, "open", path);
	buf = lh_alloc(cap);
	for (;;) {
		ssize_t n = lh_io->read(fd, buf + used, cap - used - 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			rc = fail(err, "read", path);
			goto fail_read;
		}
		if (n == 0)
			break;
		used += (size_t)n;
		if (used > max_bytes) {
			rc = lh_err_set(err, LH_ETOOBIG,
					"'%s' is larger than %zu bytes", path,
					max_bytes);
			goto fail_read;
		}
		if (cap - used < 2)
			buf = lh_realloc(buf, cap *= 2);
	}
	lh_io->close(fd);
	buf[used] = '\0';
	*data = buf;
	*bytes = used;
	return 0;

fail_read:
	free(buf);
	lh_io->close(fd);
	return rc;
}

int lh_fs_write_at(int fd, const void *data, size_t bytes, int64_t at)
{
	while (bytes) {
		ssize_t n = lh_io->pwrite(fd, data, bytes, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		data = (const char *)data + n;
		bytes -= (size_t)n;
		at += n;
	}
	return 0;
}

int lh_fs_write_atomic(const char *path, const void *data, size_t bytes,
		       struct lh_err *err)
{
	char *tmp = lh_asprintf("%s.tmp", path);
	int fd = lh_io->open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc;

	if (fd < 0) {
		rc = fail(err, "create", tmp);
		goto done;
	}
	if (LH_FAILS("file.write") || lh_fs_write_at(fd, data, bytes, 0) ||
	    LH_FAILS("file.sync") || lh_io->fsync(fd)) {
		rc = fail(err, "write", tmp);
		lh_io->close(fd);
		lh_io->unlink(tmp);
		goto done;
	}
	lh_io->close(fd);
	if (LH_FAILS("file.rename") || lh_io->rename(tmp, path)) {
		rc = fail(err, "rename to", path);
		lh_io->unlink(tmp);
		goto done;
	}
	LH_FAILPOINT("file.renamed");
	rc = lh_fs_sync_parent(path, err);
done:
	free(tmp);
	return rc;
}

int lh_fs_sync_dir(const char *path, struct lh_err *err)
{
	int fd = lh_io->open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), rc = 0;

	if (fd < 0)
		return fail(err, "open directory", path);
	if (lh_io->fsync(fd))
		rc = fail(err, "sync directory", path);
	lh_io->close(fd);
	return rc;
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	bool dir = type == FTW_DP || type == FTW_DNR;
	int rc = dir ? lh_io->rmdir(path) : lh_io->unlink(path);

	(void)st, (void)ftw;
	return rc && errno != ENOENT ? -1 : 0;
}

int lh_fs_remove_tree(const char *path, struct lh_err *err)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
		return fail(err, "remove", path);
	return 0;
}

static int is_torn(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return n > 4 && !strcmp(e->d_name + n - 4, ".tmp");
}

void lh_fs_remove_torn(const char *dir)
{
	struct dirent **list = NULL;
	int n = scandir(dir, &list, is_torn, NULL);

	for (int i = 0; i < n; i++) {
		char *path = lh_asprintf("%s/%s", dir, list[i]->d_name);

		lh_fs_remove_tree(path, NULL);
		free(path);
		free(list[i]);
	}
	free(list);
}

bool lh_fs_exists(const char *path)
{
	return access(path, F_OK) == 0;
}

int lh_fs_lock(const char *path, struct lh_err *err)
{
	int fd = lh_io->open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return fail(err, "open", path);
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	rc = errno == EWOULDBLOCK ?
		     lh_err_set(err, LH_EBUSY, "another process holds '%s'", path) :
		     fail(err, "lock", path);
	lh_io->close(fd);
	return rc;
}

uint64_t lh_proc_start_time(int pid)
{
	char path[64], text[1024], *p;
	unsigned long long start;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	/* The name, field 2, may hold spaces and ')': count from its last ')'.
	 * A zombie has ended: its number is only waiting to be collected. */
	p = strrchr(text, ')');
	if (!p || p[1] != ' ' || p[2] == 'Z')
		return 0;
	if (sscanf(p + 2,
		   "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d "
		   "%*d %*d %*d %*d %llu",
		   &start) != 1)
		return 0;
	return start;
}

int64_t lh_time_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t lh_clock_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t lh_host_memory_bytes(void)
{
	return (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

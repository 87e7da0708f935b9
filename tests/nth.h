/* nth.h: the nth call of base/io.h fails, once.
 *
 *   struct nth nth;
 *   while (nth_next(&nth)) {    each n, with each way to fail in turn, until a run
 *       ... preparation ...     in which no call came to fail
 *       nth_arm(&nth);
 *       ... what is tested ...
 *       nth_disarm();           nth_failed: whether one did
 *       ... what must be true ...
 *   }
 *
 * Start with a zeroed one. Include after cmocka.h. */
#ifndef LIGHTHOUSE_TEST_NTH_H
#define LIGHTHOUSE_TEST_NTH_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/io.h"

/* 0: a write that takes half of the bytes, and no error. */
static const int nth_errors[] = { EIO, ENOSPC, EMFILE, EINTR, 0 };
enum { NTH_ERRORS = sizeof(nth_errors) / sizeof(nth_errors[0]) };

struct nth {
	int error; /* of nth_errors */
	int n;     /* 1, 2, ... */
	int tried; /* runs in which a call failed */
};

static atomic_int nth_calls, nth_at;
static atomic_bool nth_failed;
static int nth_errno;

static inline bool nth_fails(void)
{
	if (atomic_fetch_add(&nth_calls, 1) + 1 != atomic_load(&nth_at))
		return false;
	atomic_store(&nth_failed, true);
	errno = nth_errno;
	return true;
}

/* A failure that is none where half of it cannot be done. */
#define NTH(call) return nth_fails() && nth_errno ? -1 : lh_io_posix.call

static inline int nth_open(const char *path, int flags, mode_t mode)
{
	NTH(open(path, flags, mode));
}

static inline ssize_t nth_read(int fd, void *data, size_t bytes)
{
	NTH(read(fd, data, bytes));
}

static inline ssize_t nth_pread(int fd, void *data, size_t bytes, off_t at)
{
	NTH(pread(fd, data, bytes, at));
}

static inline ssize_t nth_pwrite(int fd, const void *data, size_t bytes, off_t at)
{
	if (!nth_fails())
		return lh_io_posix.pwrite(fd, data, bytes, at);
	if (nth_errno == EINTR || nth_errno == EMFILE)
		return -1;
	/* Part of it is there, whatever the caller hears. */
	bytes = bytes > 1 ? bytes / 2 : bytes;
	return lh_io_posix.pwrite(fd, data, bytes, at) == (ssize_t)bytes && !nth_errno ?
		       (ssize_t)bytes : (errno = nth_errno, -1);
}

static inline int nth_ftruncate(int fd, off_t bytes)
{
	NTH(ftruncate(fd, bytes));
}

static inline int nth_fsync(int fd)
{
	(void)fd; /* as fast as memory */
	return nth_fails() && nth_errno ? -1 : 0;
}

static inline int nth_mkdir(const char *path, mode_t mode)
{
	NTH(mkdir(path, mode));
}

static inline int nth_rename(const char *from, const char *to)
{
	NTH(rename(from, to));
}

static inline int nth_exchange(const char *a, const char *b)
{
	NTH(exchange(a, b));
}

static inline int nth_unlink(const char *path)
{
	NTH(unlink(path));
}

static inline int nth_rmdir(const char *path)
{
	NTH(rmdir(path));
}

static inline void nth_arm(const struct nth *t)
{
	static struct lh_io failing;

	failing = lh_io_posix;
	failing.open = nth_open;
	failing.read = nth_read;
	failing.pread = nth_pread;
	failing.pwrite = nth_pwrite;
	failing.ftruncate = nth_ftruncate;
	failing.fsync = nth_fsync;
	failing.mkdir = nth_mkdir;
	failing.rename = nth_rename;
	failing.exchange = nth_exchange;
	failing.unlink = nth_unlink;
	failing.rmdir = nth_rmdir;
	nth_errno = nth_errors[t->error];
	atomic_store(&nth_calls, 0);
	atomic_store(&nth_failed, false);
	atomic_store(&nth_at, t->n);
	lh_io = &failing;
}

static inline void nth_disarm(void)
{
	atomic_store(&nth_at, 0); /* syncing stays as it is */
}

static inline bool nth_next(struct nth *t)
{
	bool failed = t->n && nth_failed;

	t->tried += failed;
	t->error += t->n && !failed;
	t->n = failed ? t->n + 1 : 1;
	if (t->error == NTH_ERRORS) {
		lh_io = &lh_io_posix;
		return false;
	}
	return true;
}

#endif

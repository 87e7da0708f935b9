/* io.c: the real table; see io.h. */
#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_file(const char *path, int flags, mode_t mode)
{
	return open(path, flags, mode);
}

static int exchange(const char *a, const char *b)
{
	return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

const struct lh_io lh_io_posix = {
	.open = open_file,
	.close = close,
	.read = read,
	.pread = pread,
	.pwrite = pwrite,
	.ftruncate = ftruncate,
	.fsync = fsync,
	.mkdir = mkdir,
	.rename = rename,
	.exchange = exchange,
	.unlink = unlink,
	.rmdir = rmdir,
};

const struct lh_io *lh_io = &lh_io_posix;

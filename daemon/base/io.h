/* io.h: the calls by which files that must last are read and written, as a table.
 *
 * What is left after a power cut hangs on these calls and on their order. So
 * checkpoints, spools and the files of a state directory go through lh_io alone,
 * and a test can put another table in its place: one that notes the calls down,
 * leaves some out, or makes one fail. Every entry is the system call of its name:
 * -1 and errno when it fails.
 *
 * Use fs.h where it has what you need; it does these in the right order.
 */
#ifndef LIGHTHOUSE_IO_H
#define LIGHTHOUSE_IO_H

#include <sys/types.h>

struct lh_io {
	int (*open)(const char *path, int flags, mode_t mode);
	int (*close)(int fd);
	ssize_t (*read)(int fd, void *data, size_t bytes);
	ssize_t (*pread)(int fd, void *data, size_t bytes, off_t at);
	ssize_t (*pwrite)(int fd, const void *data, size_t bytes, off_t at);
	int (*ftruncate)(int fd, off_t bytes);
	int (*fsync)(int fd); /* of directories too */
	int (*mkdir)(const char *path, mode_t mode);
	int (*rename)(const char *from, const char *to);
	int (*exchange)(const char *a, const char *b); /* names of two that are there */
	int (*unlink)(const char *path);
	int (*rmdir)(const char *path);
};

extern const struct lh_io lh_io_posix;
/* In use, by any thread; a test sets it before it starts one. */
extern const struct lh_io *lh_io;

#endif

/* fs.h: the few file operations that must be done one right way.
 *
 * Blocking; not for the daemon's loop unless the file is tiny and local.
 * Errors are LH_EIO with the path and the system's words, and a hint where the
 * disk is full or read-only.
 */
#ifndef LIGHTHOUSE_FS_H
#define LIGHTHOUSE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lighthouse/err.h"

/* Creates the directory and its missing parents, mode 0700; each new one's entry
 * is synced, so that what is synced in it later is not lost with it. */
int lh_fs_mkdirs(const char *path, struct lh_err *err);

/* Reads a whole file (NUL appended, not counted). *data is the caller's.
 * More than max_bytes is LH_ETOOBIG; a missing file LH_ENOTFOUND. */
int lh_fs_read(const char *path, size_t max_bytes, char **data, size_t *bytes,
	       struct lh_err *err);

/* Complete or absent: writes PATH.tmp (mode 0600), fsyncs it, renames, fsyncs
 * the directory. */
int lh_fs_write_atomic(const char *path, const void *data, size_t bytes,
		       struct lh_err *err);

/* All bytes, at that offset: 0, or -1 and errno. */
int lh_fs_write_at(int fd, const void *data, size_t bytes, int64_t at);

/* fsync of a directory, after a rename in it; and of the one PATH stands in. */
int lh_fs_sync_dir(const char *path, struct lh_err *err);
int lh_fs_sync_parent(const char *path, struct lh_err *err);

/* Removes DIR/NAME.tmp of every write that never ended; nobody may be writing. */
void lh_fs_remove_torn(const char *dir);

/* Removes a tree; a missing one is fine. Does not follow symbolic links. */
int lh_fs_remove_tree(const char *path, struct lh_err *err);

bool lh_fs_exists(const char *path);

/* Opens (creating, 0600) and takes an exclusive flock without waiting: an fd to
 * keep, LH_EBUSY when somebody holds it, LH_EIO. */
int lh_fs_lock(const char *path, struct lh_err *err);

/* Start time of a process in clock ticks since boot, from /proc/PID/stat; a pid
 * with it names one process for ever. 0 when there is no such process. */
uint64_t lh_proc_start_time(int pid);

/* Wall clock, Unix milliseconds; and a clock that never jumps, microseconds. */
int64_t lh_time_ms(void);
int64_t lh_clock_us(void);

/* Of this machine, whoever uses it. */
int64_t lh_host_memory_bytes(void);

#endif

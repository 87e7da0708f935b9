/* shim.h: SQLite's files under a test's eyes: whether all that was written is
 * synced, and the nth call failing.
 *
 * shim_install() once, before the first database is opened. */
#ifndef LIGHTHOUSE_TEST_SHIM_H
#define LIGHTHOUSE_TEST_SHIM_H

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>

static atomic_bool shim_unsynced; /* something was written since the last sync */
static atomic_int shim_calls;     /* that could fail */
static atomic_int shim_fail_at;   /* the nth of them does, 0: none */

static sqlite3_vfs shim_vfs, *shim_real;
/* SQLite closes and locks a database and its log differently; it reads and writes
 * them with the same functions. */
static sqlite3_io_methods shim_methods[2];
static const sqlite3_io_methods *shim_real_methods;

static inline bool shim_fails(void)
{
	return atomic_fetch_add(&shim_calls, 1) + 1 == atomic_load(&shim_fail_at);
}

static inline int shim_read(sqlite3_file *f, void *data, int bytes, sqlite3_int64 at)
{
	return shim_fails() ? SQLITE_IOERR_READ : shim_real_methods->xRead(f, data, bytes, at);
}

static inline int shim_write(sqlite3_file *f, const void *data, int bytes, sqlite3_int64 at)
{
	if (shim_fails()) /* both are met with */
		return at % 3 ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	atomic_store(&shim_unsynced, true);
	return shim_real_methods->xWrite(f, data, bytes, at);
}

static inline int shim_truncate(sqlite3_file *f, sqlite3_int64 bytes)
{
	return shim_fails() ? SQLITE_IOERR_TRUNCATE : shim_real_methods->xTruncate(f, bytes);
}

static inline int shim_sync(sqlite3_file *f, int flags)
{
	if (shim_fails())
		return SQLITE_IOERR_FSYNC;
	atomic_store(&shim_unsynced, false);
	return shim_real_methods->xSync(f, flags);
}

static inline int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags,
			    int *out)
{
	int rc;

	(void)vfs;
	f->pMethods = NULL;
	rc = shim_fails() ? SQLITE_CANTOPEN : shim_real->xOpen(shim_real, name, f, flags, out);
	/* Those of temporary files are left as they are. */
	if (!rc && flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) {
		sqlite3_io_methods *m = &shim_methods[!(flags & SQLITE_OPEN_WAL)];

		shim_real_methods = f->pMethods;
		*m = *f->pMethods;
		m->xRead = shim_read;
		m->xWrite = shim_write;
		m->xTruncate = shim_truncate;
		m->xSync = shim_sync;
		f->pMethods = m;
	}
	return rc;
}

static inline void shim_install(void)
{
	if (shim_real)
		return;
	shim_real = sqlite3_vfs_find(NULL);
	shim_vfs = *shim_real;
	shim_vfs.zName = "shim";
	shim_vfs.xOpen = shim_open;
	sqlite3_vfs_register(&shim_vfs, 1);
}

#endif

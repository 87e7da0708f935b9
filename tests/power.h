/* power.h: what a power cut may leave of files, tried out at every moment.
 *
 *   power_record(dir)   from here on lh_io notes down what is done in `dir`
 *   power_moment(n)     ... and this number, for the calls that follow
 *   power_check(check)  for every prefix of the calls, and everything that a cut
 *                       after it may leave: builds it in a directory of its own
 *                       and calls check(dir, n). Gives how many were built, or -1
 *                       when one was refused; power_text says which
 *
 * (Of a story with a forgotten sync, prefixes that end before it are not tried.)
 *
 * The model. Of a file there is what was synced, and of what was written since:
 * nothing, all, the first half, or zeros of the right length. Of the entries of a
 * directory there are those synced; each change since (a file made, a rename, a
 * removal) happened or not, whatever became of the others. A rename is one change.
 *
 * power_forget is a pattern (fnmatch) of paths below `dir`, "" for itself, of which
 * the nth sync is forgotten: a bug to be found. Nothing is really synced. Include
 * after cmocka.h. */
#ifndef LIGHTHOUSE_TEST_POWER_H
#define LIGHTHOUSE_TEST_POWER_H

#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/fs.h"
#include "base/io.h"
#include "power_disk.h"

enum { POWER_FDS = 256 };

static const char *const power_kinds[] = { "open", "write", "cut", "sync", "mkdir",
					   "rename", "exchange", "remove" };

static struct {
	char root[128];
	pthread_mutex_t mutex;
	struct power_call calls[POWER_CALLS];
	int count, moment, files, matches;
	int good_calls; /* before the first that was forgotten */
	int file_of_fd[POWER_FDS];
	char *path_of_file[POWER_CALLS];
} power = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static const char *power_forget; /* NULL: nothing */
static int power_forget_nth;     /* 1, 2, ... */
static char power_text[1024];

/* ---- noting down ----------------------------------------------------------- */

static inline char *power_below(const char *path)
{
	size_t n = strlen(power.root);

	if (strncmp(path, power.root, n) || (path[n] && path[n] != '/'))
		return NULL;
	return lh_strdup(path[n] ? path + n + 1 : "");
}

static inline struct power_call *power_note(enum power_kind kind)
{
	struct power_call *c = &power.calls[power.count++];

	if (power.count == POWER_CALLS)
		abort();
	*c = (struct power_call){ .kind = kind, .moment = power.moment };
	return c;
}

/* Both steps are one: another thread's call comes before or after. */
#define POWER_DO(result, call, note)                                           \
	do {                                                                   \
		pthread_mutex_lock(&power.mutex);                              \
		result = call;                                                 \
		if (result >= 0) {                                             \
			note;                                                  \
		}                                                              \
		pthread_mutex_unlock(&power.mutex);                            \
	} while (0)

static inline int power_open(const char *path, int flags, mode_t mode)
{
	int fd;

	POWER_DO(fd, lh_io_posix.open(path, flags, mode), {
		struct power_call *c = power_note(POWER_OPEN);

		assert_in_range(fd, 0, POWER_FDS - 1);
		c->path = power_below(path);
		c->file = power.file_of_fd[fd] = power.files++;
		c->create = flags & O_CREAT;
		c->empty = flags & O_TRUNC;
		power.path_of_file[c->file] = c->path;
	});
	return fd;
}

static inline ssize_t power_pwrite(int fd, const void *data, size_t bytes, off_t at)
{
	ssize_t n;

	POWER_DO(n, lh_io_posix.pwrite(fd, data, bytes, at), {
		struct power_call *c = power_note(POWER_WRITE);

		c->file = power.file_of_fd[fd];
		c->data = memcpy(lh_alloc((size_t)n), data, (size_t)n);
		c->bytes = (size_t)n;
		c->at = at;
	});
	return n;
}

static inline int power_ftruncate(int fd, off_t bytes)
{
	int rc;

	POWER_DO(rc, lh_io_posix.ftruncate(fd, bytes), {
		struct power_call *c = power_note(POWER_CUT);

		c->file = power.file_of_fd[fd];
		c->at = bytes;
	});
	return rc;
}

static inline bool power_is_forgotten(const char *path)
{
	if (!power_forget || !path || fnmatch(power_forget, path, FNM_PATHNAME) ||
	    ++power.matches != power_forget_nth)
		return false;
	power.good_calls = power.count;
	return true;
}

static inline int power_fsync(int fd)
{
	int rc;

	POWER_DO(rc, 0, {
		int file = power.file_of_fd[fd];
		const char *path = power.path_of_file[file];

		if (!power_is_forgotten(path))
			power_note(POWER_SYNC)->file = file;
	});
	return rc;
}

static inline void power_note_names(enum power_kind kind, const char *path, const char *to)
{
	struct power_call *c = power_note(kind);

	c->path = power_below(path);
	c->to = to ? power_below(to) : NULL;
}

static inline int power_mkdir(const char *path, mode_t mode)
{
	int rc;

	POWER_DO(rc, lh_io_posix.mkdir(path, mode), power_note_names(POWER_MKDIR, path, NULL));
	return rc;
}

static inline int power_rename(const char *from, const char *to)
{
	int rc;

	POWER_DO(rc, lh_io_posix.rename(from, to), power_note_names(POWER_RENAME, from, to));
	return rc;
}

static inline int power_exchange(const char *a, const char *b)
{
	int rc;

	POWER_DO(rc, lh_io_posix.exchange(a, b), power_note_names(POWER_EXCHANGE, a, b));
	return rc;
}

static inline int power_unlink(const char *path)
{
	int rc;

	POWER_DO(rc, lh_io_posix.unlink(path), power_note_names(POWER_REMOVE, path, NULL));
	return rc;
}

static inline int power_rmdir(const char *path)
{
	int rc;

	POWER_DO(rc, lh_io_posix.rmdir(path), power_note_names(POWER_REMOVE, path, NULL));
	return rc;
}

static inline int power_no_fsync(int fd)
{
	(void)fd;
	return 0;
}

static inline void power_moment(int n)
{
	pthread_mutex_lock(&power.mutex);
	power.moment = n;
	pthread_mutex_unlock(&power.mutex);
}

static inline void power_stop(void)
{
	static struct lh_io quick;

	quick = lh_io_posix;
	quick.fsync = power_no_fsync; /* as fast as memory */
	lh_io = &quick;
}

static inline void power_record(const char *root)
{
	static struct lh_io noting;

	noting = lh_io_posix;
	noting.open = power_open;
	noting.pwrite = power_pwrite;
	noting.ftruncate = power_ftruncate;
	noting.fsync = power_fsync;
	noting.mkdir = power_mkdir;
	noting.rename = power_rename;
	noting.exchange = power_exchange;
	noting.unlink = power_unlink;
	noting.rmdir = power_rmdir;
	snprintf(power.root, sizeof(power.root), "%s", root);
	power.count = power.files = power.moment = power.matches = 0;
	power.good_calls = 0;
	lh_io = &noting;
}

static inline void power_release(void)
{
	for (int i = 0; i < power.count; i++) {
		free(power.calls[i].path);
		free(power.calls[i].to);
		free(power.calls[i].data);
	}
	power.count = power.files = 0;
	lh_io = &lh_io_posix;
}

/* ---- what may be left ------------------------------------------------------ */

enum { LEFT_ALL, LEFT_SAFE, LEFT_HALF, LEFT_ZEROS, LEFT_KINDS };

struct left_file {
	char path[192];
	const struct power_node *node;
	int kind;
};

static struct {
	struct left_file file[POWER_FILES];
	int count;
	uint64_t *seen;
	size_t seens, cap;
} left;

static inline void left_walk(const struct power_node *dir, const char *path, unsigned happened)
{
	struct power_list l = dir->safe;

	for (int i = 0; i < disk.pendings; i++)
		for (int k = 0; k < disk.pending[i].count; k++)
			if (disk.pending[i].dir == dir && happened >> i & 1)
				disk_set(&l, &disk.pending[i].set[k]);
	for (int i = 0; i < l.count; i++) {
		struct left_file *f = &left.file[left.count++];

		if (left.count == POWER_FILES)
			abort();
		snprintf(f->path, sizeof(f->path), "%s/%s", path, l.entry[i].name);
		f->node = l.entry[i].node;
		f->kind = LEFT_ALL;
		if (f->node->is_dir)
			left_walk(f->node, f->path, happened);
	}
}

/* The bytes of a file as it is left; heap. */
static inline char *left_bytes(const struct left_file *f, size_t *bytes)
{
	const struct power_node *n = f->node;
	char *data;

	*bytes = f->kind == LEFT_SAFE ? n->safe_bytes :
		 f->kind == LEFT_HALF ? (n->safe_bytes + n->bytes) / 2 : n->bytes;
	data = lh_calloc(*bytes, 1);
	if (f->kind == LEFT_SAFE || f->kind == LEFT_ZEROS)
		memcpy(data, n->safe_data ? n->safe_data : "",
		       n->safe_bytes < *bytes ? n->safe_bytes : *bytes);
	else
		memcpy(data, n->data ? n->data : "", n->bytes < *bytes ? n->bytes : *bytes);
	return data;
}

static inline bool left_is_new(int moment)
{
	uint64_t sum = (uint64_t)moment;

	for (int i = 0; i < left.count; i++) {
		const struct left_file *f = &left.file[i];
		uint64_t h = XXH64(f->path, strlen(f->path), f->node->is_dir);
		size_t bytes;
		char *data = left_bytes(f, &bytes);

		sum += XXH64(data, bytes, h); /* in any order */
		free(data);
	}
	for (size_t i = 0; i < left.seens; i++)
		if (left.seen[i] == sum)
			return false;
	if (left.seens == left.cap)
		left.seen = lh_realloc(left.seen, (left.cap = 2 * left.cap + 1024) * 8);
	left.seen[left.seens++] = sum;
	return true;
}

static inline void left_build(const char *dir)
{
	assert_int_equal(mkdir(dir, 0700), 0);
	for (int i = 0; i < left.count; i++) {
		const struct left_file *f = &left.file[i];
		char *path = lh_asprintf("%s%s", dir, f->path), *data;
		size_t bytes;
		int fd;

		if (f->node->is_dir) {
			assert_int_equal(mkdir(path, 0700), 0);
		} else {
			data = left_bytes(f, &bytes);
			fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
			assert_true(fd >= 0);
			assert_int_equal(write(fd, data, bytes), bytes);
			close(fd);
			free(data);
		}
		free(path);
	}
}

/* The next choice of how dirty files are left; false after the last. */
static inline bool left_next(void)
{
	for (int i = 0; i < left.count; i++) {
		struct left_file *f = &left.file[i];

		if (!f->node->dirty)
			continue;
		if (++f->kind < LEFT_KINDS)
			return true;
		f->kind = LEFT_ALL;
	}
	return false;
}

typedef bool (*power_checker)(const char *dir, int moment);

static inline void power_say(int calls)
{
	const struct power_call *c = &power.calls[calls ? calls - 1 : 0];
	size_t n = strlen(power_text);
	const char *path = c->path ? c->path : power.path_of_file[c->file];

	n += (size_t)snprintf(power_text + n, sizeof(power_text) - n,
			      " (after call %d, %s '%s'; left:", calls, power_kinds[c->kind],
			      path ? path : "?");
	for (int i = 0; i < left.count && n < sizeof(power_text); i++)
		n += (size_t)snprintf(power_text + n, sizeof(power_text) - n, " %s%s",
				      left.file[i].path, (const char *[]){ "", "(old)",
				      "(half)", "(zeros)" }[left.file[i].kind]);
}

static inline int power_check_prefix(int calls, power_checker check)
{
	int moment = calls < power.count ? power.calls[calls].moment : power.moment;
	int built = 0;
	char dir[160];

	/* In memory where there is such a place: they are thousands. */
	snprintf(dir, sizeof(dir), "%s/lighthouse-cut-%d",
		 access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid());
	assert_in_range(disk.pendings, 0, POWER_PENDING);
	for (unsigned happened = 0; happened < 1u << disk.pendings; happened++) {
		left.count = 0;
		left_walk(disk.node[0], "", happened);
		do {
			bool good;

			if (!left_is_new(moment))
				continue;
			left_build(dir);
			built++;
			good = check(dir, moment);
			lh_fs_remove_tree(dir, NULL);
			if (good)
				continue;
			power_say(calls);
			return -1;
		} while (left_next());
	}
	return built;
}

static inline int power_check(power_checker check)
{
	int built = 0, n = 0;

	power_stop();
	disk_begin();
	left.seens = 0;
	*power_text = '\0';
	for (int calls = 0; n >= 0 && calls <= power.count; calls++) {
		if (calls)
			disk_do(&power.calls[calls - 1]);
		if (calls >= power.good_calls)
			n = power_check_prefix(calls, check);
		built += calls >= power.good_calls ? n : 0;
	}
	disk_end();
	free(left.seen);
	memset(&left, 0, sizeof(left));
	return n < 0 ? -1 : built;
}

#endif

/* publish.c: see publish.h. */
#include "base/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/io.h"

/* Whether DIR may become ours. */
static int check_free(const struct lh_publish *p, struct lh_err *err)
{
	struct stat s;
	char *mark;
	bool same;

	if (lstat(p->dir, &s)) {
		if (errno == ENOENT)
			return 0;
		return lh_err_set(err, LH_EIO, "cannot look at '%s': %s", p->dir,
				  strerror(errno));
	}
	if (!p->replaces) {
		lh_err_set(err, LH_EINVAL, "'%s' is there already", p->dir);
		return lh_err_hint(err, "choose another name; --force replaces it");
	}
	mark = lh_asprintf("%s/%s", p->dir, p->replaces);
	same = S_ISDIR(s.st_mode) && lh_fs_exists(mark);
	free(mark);
	if (same)
		return 0;
	lh_err_set(err, LH_EINVAL, "'%s' is there already, and holds no '%s'", p->dir,
		   p->replaces);
	return lh_err_hint(err, "only a directory of the same kind is replaced: choose "
			   "another name, or remove it");
}

static int make_tmp(struct lh_publish *p, struct lh_err *err)
{
	mode_t mask = umask(0);

	umask(mask);
	p->tmp = lh_asprintf("%s.XXXXXX", p->dir);
	if (mkdtemp(p->tmp) && !chmod(p->tmp, 0777 & ~mask))
		return 0;
	return lh_err_set(err, LH_EIO, "cannot create a directory beside '%s': %s", p->dir,
			  strerror(errno));
}

int lh_publish_begin(struct lh_publish *p, const char *dir, const char *replaces,
		     struct lh_err *err)
{
	size_t n = strlen(dir);
	int rc;

	while (n > 1 && dir[n - 1] == '/')
		n--;
	*p = (struct lh_publish){ .dir = lh_asprintf("%.*s", (int)n, dir),
				  .replaces = replaces };
	rc = check_free(p, err);
	if (!rc)
		rc = make_tmp(p, err);
	if (rc)
		lh_publish_abort(p);
	return rc;
}

int lh_publish_file(const struct lh_publish *p, const char *name, const void *data,
		    size_t bytes, struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", p->tmp, name);
	int fd = lh_io->open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666), rc = 0;

	if (fd < 0 || lh_fs_write_at(fd, data, bytes, 0) || lh_io->fsync(fd))
		rc = lh_err_set(err, LH_EIO, "cannot write '%s': %s", path, strerror(errno));
	if (fd >= 0)
		lh_io->close(fd);
	free(path);
	return rc;
}

/* Into place; p->tmp is then what is to be removed, or not there. */
static int give_name(const struct lh_publish *p, struct lh_err *err)
{
	if (!lh_io->rename(p->tmp, p->dir))
		return 0;
	if ((errno == EEXIST || errno == ENOTEMPTY) && p->replaces &&
	    !lh_io->exchange(p->tmp, p->dir))
		return 0;
	return lh_err_set(err, LH_EIO, "cannot rename to '%s': %s", p->dir, strerror(errno));
}

int lh_publish_commit(struct lh_publish *p, struct lh_err *err)
{
	int rc = lh_fs_sync_dir(p->tmp, err);

	if (!rc) /* somebody may have been there meanwhile */
		rc = check_free(p, err);
	if (!rc)
		rc = give_name(p, err);
	if (!rc)
		rc = lh_fs_sync_parent(p->dir, err);
	lh_publish_abort(p);
	return rc;
}

void lh_publish_abort(struct lh_publish *p)
{
	if (p->tmp)
		lh_fs_remove_tree(p->tmp, NULL);
	free(p->tmp);
	free(p->dir);
	memset(p, 0, sizeof(*p));
}

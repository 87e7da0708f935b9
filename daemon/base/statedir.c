/* statedir.c: see statedir.h. */
#include "base/statedir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/fs.h"
#include "lighthouse/proto.h"

static const struct {
	unsigned long type;
	const char *name;
} network[] = {
	{ 0x6969, "NFS" },       { 0x0bd00bd0, "Lustre" }, { 0xff534d42, "CIFS" },
	{ 0xfe534d42, "SMB" },   { 0x00c36400, "Ceph" },   { 0x47504653, "GPFS" },
	{ 0x19830326, "BeeGFS" }, { 0x5346414f, "AFS" },
};

char *lh_statedir_default(struct lh_err *err)
{
	const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

	if (geteuid() == 0)
		return lh_strdup("/var/lib/lighthouse");
	if (xdg && xdg[0] == '/')
		return lh_asprintf("%s/lighthouse", xdg);
	if (home && home[0] == '/')
		return lh_asprintf("%s/.local/state/lighthouse", home);
	lh_err_set(err, LH_EINVAL, "there is no place for a state directory: "
		   "neither XDG_STATE_HOME nor HOME is an absolute path");
	lh_err_hint(err, "name one with --state");
	return NULL;
}

const char *lh_statedir_network_fs(unsigned long type)
{
	size_t i;

	for (i = 0; i < sizeof(network) / sizeof(network[0]); i++)
		if (network[i].type == (type & 0xffffffff))
			return network[i].name;
	return NULL;
}

static int check_fs(const char *path, struct lh_err *err)
{
	struct statfs fs;
	const char *name;

	if (statfs(path, &fs))
		return lh_err_set(err, LH_EIO, "cannot look at '%s': %s", path,
				  strerror(errno));
	name = lh_statedir_network_fs((unsigned long)fs.f_type);
	if (!name)
		return 0;
	lh_err_set(err, LH_EUNSUPPORTED, "state directory '%s' lies on %s", path,
		   name);
	return lh_err_hint(err, "choose a local disk with --state; only data files "
				"may lie on a network file system");
}

/* The lock file holds the owner's pid, for people. */
static int take_lock(struct lh_statedir *d, struct lh_err *err)
{
	char *file = lh_asprintf("%s/%s", d->path, LH_STATE_LOCK), *text = NULL;
	size_t n;
	long pid;

	d->lock_fd = lh_fs_lock(file, err);
	if (d->lock_fd == LH_EBUSY) {
		pid = lh_fs_read(file, 64, &text, &n, NULL) ? 0 : atol(text);
		lh_err_set(err, LH_EBUSY,
			   "another lhd (pid %ld) owns this state directory", pid);
		lh_err_hint(err, "stop it with 'lhctl stop', or choose another "
				 "directory with --state");
		free(text);
	} else if (d->lock_fd >= 0 &&
		   (ftruncate(d->lock_fd, 0) ||
		    dprintf(d->lock_fd, "%ld\n", (long)getpid()) < 0)) {
		lh_err_set(err, LH_EIO, "cannot write '%s': %s", file,
			   strerror(errno));
		lh_err_hint(err, "make room on its disk, or choose another directory "
				 "with --state");
		close(d->lock_fd);
		d->lock_fd = LH_EIO;
	}
	free(file);
	return d->lock_fd < 0 ? d->lock_fd : 0;
}

static int next_generation(struct lh_statedir *d, struct lh_err *err)
{
	char *file = lh_asprintf("%s/%s", d->path, LH_STATE_GENERATION);
	char *text = NULL, *end, line[32];
	size_t n;
	int rc = lh_fs_read(file, 64, &text, &n, err);

	if (rc == LH_ENOTFOUND) {
		rc = 0;
	} else if (!rc) {
		errno = 0;
		d->generation = strtoll(text, &end, 10);
		if (errno || end == text || strcmp(end, "\n") || d->generation < 1 ||
		    d->generation == INT64_MAX) {
			lh_err_set(err, LH_ECORRUPT, "'%s' does not hold a number",
				   file);
			rc = lh_err_hint(err, "write a number into it that is larger "
					      "than the 'generation' in any "
					      "jobs/*/attempt-*/start.json");
		}
	}
	if (!rc) {
		d->generation++;
		snprintf(line, sizeof(line), "%" PRId64 "\n", d->generation);
		rc = lh_fs_write_atomic(file, line, strlen(line), err);
		LH_FAILPOINT("generation.taken");
	}
	free(text);
	free(file);
	return rc;
}

/* One that was there before may be anybody's, and open to anybody. */
static int make_ours(const char *path, mode_t mode, struct lh_err *err)
{
	struct stat st;

	if (stat(path, &st) || (st.st_uid == geteuid() && (st.st_mode & 07777) != mode &&
				chmod(path, mode)))
		return lh_err_set(err, LH_EIO, "cannot set the mode of '%s': %s", path,
				  strerror(errno));
	if (st.st_uid == geteuid())
		return 0;
	lh_err_set(err, LH_EDENIED, "state directory '%s' belongs to uid %u", path,
		   (unsigned)st.st_uid);
	return lh_err_hint(err, "run lhd as that user, or choose another with --state");
}

int lh_statedir_open(struct lh_statedir *d, const char *path, mode_t mode,
		     struct lh_err *err)
{
	int rc = lh_fs_mkdirs(path, err);

	memset(d, 0, sizeof(*d));
	d->lock_fd = -1;
	if (rc)
		return rc;
	d->path = realpath(path, NULL);
	if (!d->path)
		return lh_err_set(err, LH_EIO, "cannot open '%s': %s", path,
				  strerror(errno));
	rc = check_fs(d->path, err);
	if (!rc)
		rc = make_ours(d->path, mode, err);
	if (!rc)
		rc = take_lock(d, err);
	if (!rc)
		rc = next_generation(d, err);
	if (rc)
		lh_statedir_close(d);
	return rc;
}

void lh_statedir_close(struct lh_statedir *d)
{
	if (!d->path)
		return;
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	free(d->path);
	memset(d, 0, sizeof(*d));
}

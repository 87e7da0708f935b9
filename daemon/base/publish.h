/* publish.h: a directory of files that appears complete or not at all.
 *
 *   lh_publish_begin(&p, "DIR", replaces, err);
 *   ... files are written in p.tmp, by the caller or by lh_publish_file ...
 *   lh_publish_commit(&p, err);
 *
 * The files are written beside DIR, under a name of their own, as the caller and with
 * the caller's umask; the commit syncs them and gives the directory its name. What
 * had it before is replaced only where that is allowed and it is of the same kind.
 *
 * Blocking; one thread.
 */
#ifndef LIGHTHOUSE_PUBLISH_H
#define LIGHTHOUSE_PUBLISH_H

#include "lighthouse/err.h"

struct lh_publish {
	char *dir;            /* as it will be called */
	char *tmp;            /* where its files are written; NULL: not begun */
	const char *replaces; /* borrowed */
};

/* `replaces` names a file by which a directory is known to be of the same kind, so
 * that one may be replaced; NULL: none may. LH_EINVAL when DIR is there and must stay.
 * Only a begun one needs a commit or an abort. */
int lh_publish_begin(struct lh_publish *p, const char *dir, const char *replaces,
		     struct lh_err *err);
int lh_publish_file(const struct lh_publish *p, const char *name, const void *data,
		    size_t bytes, struct lh_err *err);
/* Either way nothing is left of p, and after an error nothing of its files. */
int lh_publish_commit(struct lh_publish *p, struct lh_err *err);
void lh_publish_abort(struct lh_publish *p); /* zeroed is allowed */

#endif

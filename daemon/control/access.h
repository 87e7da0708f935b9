/* access.h: who may call what, besides the owner.
 *
 * lhd's own user and root may call everything. Others are named at lhd's start,
 * `--allow USER=ROLE` or `--allow @GROUP=ROLE` (names or numbers), and get a role:
 *
 *   read    methods of role "read": look, and subscribe
 *   steer   those and "steer": switch, pause, checkpoint, cancel, sample ...
 *
 * "submit" (new jobs, rules, stopping lhd) makes lhd run what its caller chose and
 * read files by path, and is given to nobody. Who belongs to several entries has the
 * greatest of their roles. A peer is who the kernel says it is (SO_PEERCRED,
 * SO_PEERGROUPS); with no entry the socket's mode lets nobody else connect at all.
 */
#ifndef LIGHTHOUSE_ACCESS_H
#define LIGHTHOUSE_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "control/rpc.h"
#include "lighthouse/err.h"

enum { LH_ACCESS_MAX = 64 };

struct lh_access {
	struct {
		bool group;
		uint32_t id;
		enum lh_role role;
	} entry[LH_ACCESS_MAX];
	int count;
};

/* One value of --allow. LH_EINVAL: it is none; LH_ENOTFOUND: no such user or group. */
int lh_access_allow(struct lh_access *a, const char *text, struct lh_err *err);
/* What a user may; false: nothing. `a` may be NULL. */
bool lh_access_role(const struct lh_access *a, uint32_t uid, const uint32_t *groups,
		    int group_count, enum lh_role *role);
const char *lh_access_role_name(enum lh_role role); /* "steer" */

#endif

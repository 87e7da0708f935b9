/* access.c: see access.h. */
#include "control/access.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const role_names[] = { "read", "steer", "submit" };

const char *lh_access_role_name(enum lh_role role)
{
	return role_names[role];
}

/* A number, or the id of a name. Blocking: at start. */
static int find_id(const char *name, bool group, uint32_t *id, struct lh_err *err)
{
	const struct passwd *user;
	const struct group *g;
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(name, &end, 10);
	if (*name && !*end && !errno && n < UINT32_MAX && *name != '-') {
		*id = (uint32_t)n;
		return 0;
	}
	g = group ? getgrnam(name) : NULL;
	user = group ? NULL : getpwnam(name);
	if (g)
		*id = g->gr_gid;
	else if (user)
		*id = user->pw_uid;
	else
		return lh_err_set(err, LH_ENOTFOUND, "there is no %s '%s'",
				  group ? "group" : "user", name);
	return 0;
}

static int refuse(const char *text, struct lh_err *err)
{
	lh_err_set(err, LH_EINVAL, "--allow is '%.100s'", text);
	return lh_err_hint(err, "--allow USER=read, USER=steer, @GROUP=read or @GROUP=steer; "
				"submitting is for lhd's own user");
}

int lh_access_allow(struct lh_access *a, const char *text, struct lh_err *err)
{
	bool group = *text == '@';
	const char *name = text + group, *equals = strrchr(text, '=');
	enum lh_role role = LH_ROLE_READ;
	char who[64];
	int rc;

	if (!equals || equals == name || equals - name >= (long)sizeof(who))
		return refuse(text, err);
	while (role < LH_ROLE_SUBMIT && strcmp(role_names[role], equals + 1))
		role++;
	if (role == LH_ROLE_SUBMIT)
		return refuse(text, err);
	if (a->count == LH_ACCESS_MAX)
		return lh_err_set(err, LH_ETOOBIG, "more than %d times --allow",
				  LH_ACCESS_MAX);
	snprintf(who, sizeof(who), "%.*s", (int)(equals - name), name);
	rc = find_id(who, group, &a->entry[a->count].id, err);
	if (rc)
		return rc;
	a->entry[a->count].group = group;
	a->entry[a->count++].role = role;
	return 0;
}

static bool is_member(uint32_t id, const uint32_t *groups, int count)
{
	while (count && groups[count - 1] != id)
		count--;
	return count;
}

bool lh_access_role(const struct lh_access *a, uint32_t uid, const uint32_t *groups,
		    int group_count, enum lh_role *role)
{
	bool known = uid == geteuid() || !uid;

	*role = known ? LH_ROLE_SUBMIT : LH_ROLE_READ;
	for (int i = 0; a && i < a->count && *role != LH_ROLE_SUBMIT; i++) {
		if (a->entry[i].group ? !is_member(a->entry[i].id, groups, group_count) :
					a->entry[i].id != uid)
			continue;
		known = true;
		if (a->entry[i].role > *role)
			*role = a->entry[i].role;
	}
	return known;
}

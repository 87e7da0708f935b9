/* jobfile_sets.c: the validation sets of a job file: one path, or several by name.
 *
 * A name goes into records, labels and columns of a terminal; the first set is the one
 * that rules, `wait` and the gap are about. Pure; any thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/jobfile.h"
#include "jobs/jobfile_int.h"

enum { NAME_MAX_BYTES = 64 };

static bool is_name(const char *text)
{
	const char *ok = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	return *text && strlen(text) <= NAME_MAX_BYTES && strspn(text, ok) == strlen(text);
}

static bool has_set(const struct lh_job_data *d, const char *name)
{
	for (int i = 0; i < d->validation_count; i++)
		if (!strcmp(d->validation[i].name, name))
			return true;
	return false;
}

int lh__check_name(const struct lh_reader *r, const struct lh_node *at, const char *path,
		   const char *what, const char *name, bool is_known)
{
	if (is_name(name) && !is_known)
		return 0;
	if (is_name(name))
		lh_err_set(r->err, LH_EJOBFILE, "two %s are named '%.64s'", what, name);
	else
		lh_err_set(r->err, LH_EJOBFILE, "found the name '%.64s', up to 64 letters, "
			   "digits, '.', '_' and '-' are allowed", name);
	lh_err_hint(r->err, "each of the %s needs a name of its own", what);
	return lh_node_blame(at, path, r->err);
}

/* `at`: the node that gave the name. */
static int add(const struct lh_reader *r, const char *name, const struct lh_node *at,
	       const struct lh_node *n, const char *path, const struct lh_key *key,
	       struct lh_job_data *d)
{
	struct lh_job_set *set = &d->validation[d->validation_count];
	int rc;

	if (!lh_node_is_text(n) || !*n->text)
		return lh__reader_refuse(r, n, path, key, "a path");
	rc = lh__check_name(r, at, path, "sets", name, has_set(d, name));
	if (!rc)
		rc = lh__read_path(r, n, path, key, &set->path);
	if (rc)
		return rc;
	set->name = lh_strdup(name);
	d->validation_count++;
	return 0;
}

/* { name, path } of a list. */
static int add_item(const struct lh_reader *r, const struct lh_node *n, const char *path,
		    const struct lh_key *key, struct lh_job_data *d)
{
	const struct lh_node *name = NULL, *file = NULL;

	if (n->kind == LH_NODE_MAP && n->count == 2) {
		name = lh_node_get(n, "name");
		file = lh_node_get(n, "path");
	}
	if (!name || !file || name->kind != LH_NODE_SCALAR)
		return lh__reader_refuse(r, n, path, key, "{ name: NAME, path: PATH }");
	return add(r, name->text, name, file, path, key, d);
}

int lh__read_sets(const struct lh_reader *r, const struct lh_node *n, const char *path,
		  const struct lh_key *key, struct lh_job_data *d)
{
	char allowed[48];
	int rc = 0;

	if (n->kind == LH_NODE_SCALAR && n->quoted && !*n->text)
		return 0;
	if (n->kind == LH_NODE_SCALAR)
		return add(r, LH_SET_NAME, n, n, path, key, d);
	if (!n->count || n->count > LH_SETS_MAX) {
		snprintf(allowed, sizeof(allowed), "a path, or 1 to %d of them by name",
			 LH_SETS_MAX);
		return lh__reader_refuse(r, n, path, key, allowed);
	}
	for (int i = 0; !rc && i < n->count; i++) {
		const struct lh_node *c = n->child[i];

		rc = n->kind == LH_NODE_LIST ? add_item(r, c, path, key, d) :
					       add(r, c->key, c, c, path, key, d);
	}
	return rc;
}

json_t *lh__sets_json(const struct lh_job_data *d)
{
	json_t *list;

	if (!d->validation_count)
		return json_string("");
	if (d->validation_count == 1 && !strcmp(d->validation[0].name, LH_SET_NAME))
		return json_string(d->validation[0].path);
	list = json_array();
	for (int i = 0; i < d->validation_count; i++)
		json_array_append_new(list, json_pack("{s:s, s:s}", "name",
						      d->validation[i].name, "path",
						      d->validation[i].path));
	return list;
}

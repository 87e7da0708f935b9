/* jobfile_sets.c: files of a job file to be evaluated on: one path, or several by name.
 *
 * A name goes into records, labels and columns of a terminal; of validation sets the
 * first one is what rules, `wait` and the gap are about. Pure; any thread. */
#include <stddef.h>
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

/* The sets that a key is about, and what one without a name is called. */
struct sets {
	struct lh_job_set *set;
	int *count;
	const char *name;
};

static struct sets sets_of(const struct lh_key *key, struct lh_job *job)
{
	if (key->offset == offsetof(struct lh_job, data.validation))
		return (struct sets){ job->data.validation, &job->data.validation_count,
				      LH_SET_NAME };
	return (struct sets){ job->evaluation.choices.files,
			      &job->evaluation.choices.file_count, LH_CHOICES_NAME };
}

static bool has_set(const struct sets *s, const char *name)
{
	for (int i = 0; i < *s->count; i++)
		if (!strcmp(s->set[i].name, name))
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
	       struct sets *s)
{
	struct lh_job_set *set = &s->set[*s->count];
	int rc;

	if (!lh_node_is_text(n) || !*n->text)
		return lh__reader_refuse(r, n, path, key, "a path");
	rc = lh__check_name(r, at, path, "sets", name, has_set(s, name));
	if (!rc)
		rc = lh__read_path(r, n, path, key, &set->path);
	if (rc)
		return rc;
	set->name = lh_strdup(name);
	++*s->count;
	return 0;
}

/* { name, path } of a list. */
static int add_item(const struct lh_reader *r, const struct lh_node *n, const char *path,
		    const struct lh_key *key, struct sets *s)
{
	const struct lh_node *name = NULL, *file = NULL;

	if (n->kind == LH_NODE_MAP && n->count == 2) {
		name = lh_node_get(n, "name");
		file = lh_node_get(n, "path");
	}
	if (!name || !file || name->kind != LH_NODE_SCALAR)
		return lh__reader_refuse(r, n, path, key, "{ name: NAME, path: PATH }");
	return add(r, name->text, name, file, path, key, s);
}

int lh__read_sets(const struct lh_reader *r, const struct lh_node *n, const char *path,
		  const struct lh_key *key, struct lh_job *job)
{
	struct sets s = sets_of(key, job);
	char allowed[48];
	int rc = 0;

	if (n->kind == LH_NODE_SCALAR && n->quoted && !*n->text)
		return 0;
	if (n->kind == LH_NODE_SCALAR)
		return add(r, s.name, n, n, path, key, &s);
	if (!n->count || n->count > LH_SETS_MAX) {
		snprintf(allowed, sizeof(allowed), "a path, or 1 to %d of them by name",
			 LH_SETS_MAX);
		return lh__reader_refuse(r, n, path, key, allowed);
	}
	for (int i = 0; !rc && i < n->count; i++) {
		const struct lh_node *c = n->child[i];

		rc = n->kind == LH_NODE_LIST ? add_item(r, c, path, key, &s) :
					       add(r, c->key, c, c, path, key, &s);
	}
	return rc;
}

json_t *lh__sets_json(const struct lh_key *key, const struct lh_job *job)
{
	const struct sets s = sets_of(key, (struct lh_job *)job);
	json_t *list;

	if (!*s.count)
		return json_string("");
	if (*s.count == 1 && !strcmp(s.set->name, s.name))
		return json_string(s.set->path);
	list = json_array();
	for (int i = 0; i < *s.count; i++)
		json_array_append_new(list, json_pack("{s:s, s:s}", "name", s.set[i].name,
						      "path", s.set[i].path));
	return list;
}

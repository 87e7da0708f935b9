/* jobfile_paths.c: paths of a job file: relative ones, globs, and mixtures of shards. */
#include "jobs/jobfile.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "jobs/jobfile_int.h"

static char *absolute(const struct lh_reader *r, const char *path)
{
	if (*path == '/' || !*path || !r->base_dir)
		return lh_strdup(path);
	return lh_asprintf("%s/%s", r->base_dir, path);
}

/* A name must survive JSON, or the worker would be told another. */
static int check_name(const struct lh_reader *r, const struct lh_node *n, const char *path,
		      const char *file)
{
	json_t *name = json_string(file);

	if (!name) {
		lh_err_set(r->err, LH_EDATA, "the name of '%.200s' is not UTF-8", file);
		lh_err_hint(r->err, "rename the file");
		return lh_node_blame(n, path, r->err);
	}
	json_decref(name);
	return 0;
}

static bool is_word(const struct lh_key *key, const char *text)
{
	for (int i = 0; key->names[i]; i++)
		if (!strcmp(key->names[i], text))
			return true;
	return false;
}

int lh__read_path(const struct lh_reader *r, const struct lh_node *n, const char *path,
		  const struct lh_key *key, char **out)
{
	char *text = NULL;
	int rc = lh__read_string(r, n, path, key, &text);

	if (rc)
		return rc;
	free(*out);
	*out = is_word(key, text) ? lh_strdup(text) : absolute(r, text);
	free(text);
	rc = check_name(r, n, path, *out);
	if (rc) {
		free(*out);
		*out = NULL;
	}
	return rc;
}

/* A glob under base_dir, whose own bytes stand for themselves. */
static char *glob_pattern(const struct lh_reader *r, const char *text)
{
	char *out = lh_alloc(2 * strlen(r->base_dir) + strlen(text) + 2), *o = out;

	for (const char *b = r->base_dir; *text != '/' && *b; b++) {
		if (strchr("*?[\\", *b))
			*o++ = '\\';
		*o++ = *b;
	}
	sprintf(o, "%s%s", *text == '/' ? "" : "/", text);
	return out;
}

static int add_shard(const struct lh_reader *r, const struct lh_node *n, const char *path,
		     struct lh_job_data *d, const char *file)
{
	if (check_name(r, n, path, file))
		return r->err->code;
	d->train = lh_realloc(d->train,
			      (size_t)(d->train_count + 1) * sizeof(*d->train));
	d->train[d->train_count++] = lh_strdup(file);
	return 0;
}

static int add_glob(const struct lh_reader *r, const struct lh_node *n, const char *path,
		    struct lh_job_data *d)
{
	char *pattern = glob_pattern(r, n->text);
	glob_t g = { 0 };
	int rc = 0;

	if (glob(pattern, 0, NULL, &g)) {
		lh_err_set(r->err, LH_EDATA, "no file matches '%.200s'", pattern);
		lh_err_hint(r->err, "paths are relative to the job file");
		rc = lh_node_blame(n, path, r->err);
	}
	for (size_t i = 0; !rc && i < g.gl_pathc; i++)
		rc = add_shard(r, n, path, d, g.gl_pathv[i]);
	globfree(&g);
	free(pattern);
	return rc;
}

/* A path or glob into job->data.train. A file that is there is itself, whatever
 * its name. Without a base_dir a path is taken as it stands. */
static int add_paths(const struct lh_reader *r, const struct lh_node *n, const char *path,
		     const struct lh_key *key, struct lh_job_data *d)
{
	char *file = NULL;
	int rc = lh__read_path(r, n, path, key, &file);

	if (rc)
		return rc;
	if (!*file)
		rc = lh__reader_refuse(r, n, path, key, "a path");
	else if (r->base_dir && strpbrk(n->text, "*?[") && !lh_fs_exists(file))
		rc = add_glob(r, n, path, d);
	else
		rc = add_shard(r, n, path, d, file);
	free(file);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* In order of name, each once: a shard that two globs match is trained on once. Those
 * before `from` are of other sources. */
static void sort_paths(struct lh_job_data *d, int from)
{
	int kept = from;

	if (d->train_count > from)
		qsort(d->train + from, (size_t)(d->train_count - from), sizeof(*d->train),
		      by_name);
	for (int i = from; i < d->train_count; i++) {
		if (kept > from && !strcmp(d->train[kept - 1], d->train[i]))
			free(d->train[i]);
		else
			d->train[kept++] = d->train[i];
	}
	d->train_count = kept;
}

/* A path, a glob or a list of them. */
static int read_shards(const struct lh_reader *r, const struct lh_node *n, const char *path,
		       const struct lh_key *key, struct lh_job_data *d)
{
	int from = d->train_count, rc = 0;

	if (n->kind != LH_NODE_LIST)
		rc = add_paths(r, n, path, key, d);
	else if (!n->count)
		rc = lh__reader_refuse(r, n, path, key, "a path or a list of them");
	for (int i = 0; !rc && n->kind == LH_NODE_LIST && i < n->count; i++)
		rc = add_paths(r, n->child[i], path, key, d);
	/* A resolved list stays as it is: a cursor in a checkpoint counts on it. */
	if (r->base_dir)
		sort_paths(d, from);
	return rc;
}

/* ---- mixtures -------------------------------------------------------------- */

static const struct lh_key weight_key = {
	.path = "weight", .type = LH_KEY_NUMBER, .max_number = LH_WEIGHT_MAX,
	.doc = "share of the sequences that the source gives, relative to the others" };

static bool has_source(const struct lh_job_data *d, const char *name)
{
	for (int i = 0; i < d->source_count; i++)
		if (!strcmp(d->sources[i].name, name))
			return true;
	return false;
}

/* The one that the file gives, or its place. */
static int name_source(const struct lh_reader *r, const struct lh_node *n, const char *path,
		       const struct lh_key *key, struct lh_job_data *d)
{
	const struct lh_node *given = lh_node_get(n, "name");
	char place[12];
	int rc;

	snprintf(place, sizeof(place), "%d", d->source_count + 1);
	if (given && given->kind != LH_NODE_SCALAR)
		return lh__reader_refuse(r, given, path, key, "a name");
	rc = lh__check_name(r, given ? given : n, path, "sources",
			    given ? given->text : place,
			    has_source(d, given ? given->text : place));
	if (!rc)
		d->sources[d->source_count].name = lh_strdup(given ? given->text : place);
	return rc;
}

/* { path: ..., weight: ..., name: ... } */
static int read_source(const struct lh_reader *r, const struct lh_node *n, const char *path,
		       const struct lh_key *key, struct lh_job_data *d)
{
	const char *what = "a list of paths, or of { path: PATH, weight: NUMBER, name: NAME }";
	struct lh_job_source *source = &d->sources[d->source_count];
	const struct lh_node *weight, *shards;
	int from = d->train_count, rc = 0;

	if (n->kind != LH_NODE_MAP)
		return lh__reader_refuse(r, n, path, key, what);
	shards = lh_node_get(n, "path");
	weight = lh_node_get(n, "weight");
	if (!shards || n->count != 1 + !!weight + !!lh_node_get(n, "name"))
		return lh__reader_refuse(r, n, path, key, what);
	source->weight = 1;
	rc = name_source(r, n, path, key, d);
	if (!rc && weight)
		rc = lh__read_number(r, weight, path, &weight_key, &source->weight);
	if (!rc)
		rc = read_shards(r, shards, path, key, d);
	source->shards = d->train_count - from;
	d->source_count++; /* it has what is to be freed */
	return rc;
}

/* With weights of 0 alone there is nothing to draw. */
static int check_weights(const struct lh_reader *r, const struct lh_node *n, const char *path,
			 const struct lh_key *key, const struct lh_job_data *d)
{
	for (int i = 0; i < d->source_count; i++)
		if (d->sources[i].weight > 0)
			return 0;
	return lh__reader_refuse(r, n, path, key, "a mixture with a weight above 0");
}

int lh__read_paths(const struct lh_reader *r, const struct lh_node *n, const char *path,
		   const struct lh_key *key, struct lh_job_data *d)
{
	char most[64];
	int rc = 0;

	if (n->kind != LH_NODE_LIST || !n->count || n->child[0]->kind != LH_NODE_MAP)
		return read_shards(r, n, path, key, d);
	if (n->count > LH_SOURCES_MAX) {
		snprintf(most, sizeof(most), "a mixture of at most %d sources", LH_SOURCES_MAX);
		return lh__reader_refuse(r, n, path, key, most);
	}
	for (int i = 0; !rc && i < n->count; i++)
		rc = read_source(r, n->child[i], path, key, d);
	return rc ? rc : check_weights(r, n, path, key, d);
}

/* hf_dir.c: a directory that somebody else wrote, read with suspicion; see hf_int.h.
 *
 * Names in an index are names of files in the directory, no paths. Each file that is
 * opened, links resolved, lies in the directory; or, where it is a snapshot in a cache
 * of Hugging Face's tools (MODEL/snapshots/REVISION, whose files are links into
 * MODEL/blobs), in MODEL. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "train/hf_int.h"

/* The index of a model of 10^5 tensors has 8 MB; ours have some 1,500 at most. */
enum { CONFIG_MAX_BYTES = 1 << 20, INDEX_MAX_BYTES = 16 << 20, FILES_MAX = 1000,
       TENSORS_MAX = 100000 };

static char *root_of(const char *path)
{
	char *root = lh_strdup(path), *slash = strrchr(root, '/');

	*slash = '\0';
	if (strlen(root) > 10 && !strcmp(root + strlen(root) - 10, "/snapshots"))
		*strrchr(root, '/') = '\0';
	else
		*slash = '/';
	return root;
}

static bool lies_in(const char *path, const char *root)
{
	size_t n = strlen(root);

	return !strncmp(path, root, n) && (path[n] == '/' || (n && root[n - 1] == '/'));
}

/* Absolute, a regular file inside the root; heap. NULL and *err, of which LH_ENOTFOUND
 * may be no error to the caller. */
static char *resolve(const struct lh_hf_dir *d, const char *name, struct lh_err *err)
{
	char *path = lh_asprintf("%s/%s", d->path, name), *real = realpath(path, NULL);
	struct stat s;
	int rc = 0;

	if (!real)
		rc = lh_err_set(err, errno == ENOENT ? LH_ENOTFOUND : LH_EIO,
				"cannot open '%s': %s", name, strerror(errno));
	else if (!lies_in(real, d->root))
		rc = lh_err_set(err, LH_ECORRUPT, "'%s' is a link out of the directory", name);
	else if (stat(real, &s) || !S_ISREG(s.st_mode))
		rc = lh_err_set(err, LH_ECORRUPT, "'%s' is no regular file", name);
	if (rc == LH_ECORRUPT)
		lh_err_hint(err, "put the file itself in its place, if you trust where it is "
			    "from");
	free(path);
	if (!rc)
		return real;
	free(real);
	return NULL;
}

char *lh_hf_file(const char *dir, const char *name, struct lh_err *err)
{
	struct lh_hf_dir d = { .path = realpath(*dir ? dir : "/", NULL) };
	char *path;

	if (!d.path) {
		lh_err_set(err, errno == ENOENT ? LH_ENOTFOUND : LH_EIO, "cannot open '%s': %s",
			   dir, strerror(errno));
		return NULL;
	}
	d.root = root_of(d.path);
	path = resolve(&d, name, err);
	free(d.path);
	free(d.root);
	return path;
}

static int read_json(const struct lh_hf_dir *d, const char *name, size_t max_bytes,
		     json_t **out, struct lh_err *err)
{
	char *path = resolve(d, name, err), *text;
	json_error_t e;
	size_t bytes;
	int rc;

	if (!path)
		return err->code;
	rc = lh_fs_read(path, max_bytes, &text, &bytes, err);
	free(path);
	if (rc)
		return rc;
	*out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &e);
	free(text);
	if (json_is_object(*out))
		return 0;
	json_decref(*out);
	*out = NULL;
	return lh_err_set(err, LH_ECORRUPT, "'%s' is no JSON object", name);
}

static int open_file(struct lh_hf_dir *d, const char *name, struct lh_err *err)
{
	char *path = resolve(d, name, err);
	int rc;

	if (!path)
		return err->code;
	rc = lh_safetensors_open(&d->file[d->files], path, err);
	free(path);
	if (rc)
		return rc;
	d->tensors += d->file[d->files].count;
	d->name[d->files++] = lh_strdup(name);
	if (d->tensors <= TENSORS_MAX)
		return 0;
	return lh_err_set(err, LH_ETOOBIG, "there are more than %d tensors", TENSORS_MAX);
}

static int file_of(const struct lh_hf_dir *d, const char *name)
{
	for (int f = 0; f < d->files; f++)
		if (!strcmp(d->name[f], name))
			return f;
	return -1;
}

static int check_name(const char *tensor, const char *name, struct lh_err *err)
{
	size_t n = name ? strlen(name) : 0;

	if (n > 12 && n < NAME_MAX && !strchr(name, '/') && *name != '.' &&
	    !strcmp(name + n - 12, ".safetensors"))
		return 0;
	lh_err_set(err, LH_ECORRUPT, "'%s' says that '%.80s' is in '%.160s'", LH_HF_INDEX,
		   tensor, name ? name : "");
	return lh_err_hint(err, "only names of .safetensors files in the directory itself "
			   "are followed");
}

static int open_indexed(struct lh_hf_dir *d, const json_t *index, struct lh_err *err)
{
	json_t *map = json_object_get(index, "weight_map"), *name;
	const char *tensor;
	int rc = 0;

	if (!json_object_size(map))
		return lh_err_set(err, LH_ECORRUPT, "'%s' has no weight_map", LH_HF_INDEX);
	d->map = json_incref(map);
	d->file = lh_calloc(FILES_MAX, sizeof(*d->file));
	d->name = lh_calloc(FILES_MAX, sizeof(*d->name));
	json_object_foreach (map, tensor, name) {
		const char *file = json_string_value(name);

		rc = check_name(tensor, file, err);
		if (!rc && file_of(d, file) >= 0)
			continue;
		if (!rc && d->files == FILES_MAX)
			rc = lh_err_set(err, LH_ETOOBIG, "'%s' names more than %d files",
					LH_HF_INDEX, FILES_MAX);
		if (!rc)
			rc = open_file(d, file, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* One file, or those of an index: in the order in which transformers looks. */
static int open_tensors(struct lh_hf_dir *d, struct lh_err *err)
{
	char *single = lh_asprintf("%s/%s", d->path, LH_HF_SINGLE);
	bool is_single = lh_fs_exists(single);
	json_t *index = NULL;
	int rc;

	free(single);
	if (is_single) {
		d->file = lh_calloc(1, sizeof(*d->file));
		d->name = lh_calloc(1, sizeof(*d->name));
		return open_file(d, LH_HF_SINGLE, err);
	}
	rc = read_json(d, LH_HF_INDEX, INDEX_MAX_BYTES, &index, err);
	if (rc == LH_ENOTFOUND) {
		lh_err_set(err, LH_ENOTFOUND, "there is neither '%s' nor '%s'", LH_HF_SINGLE,
			   LH_HF_INDEX);
		lh_err_hint(err, "weights of other forms (.bin, .pth, .gguf) are not read: have "
			    "transformers save them as safetensors");
	}
	if (!rc)
		rc = open_indexed(d, index, err);
	json_decref(index);
	return rc;
}

int lh_hf_dir_open(struct lh_hf_dir *d, const char *path, struct lh_err *err)
{
	int rc;

	memset(d, 0, sizeof(*d));
	d->path = realpath(path, NULL);
	if (!d->path)
		return lh_err_set(err, errno == ENOENT ? LH_ENOTFOUND : LH_EIO,
				  "cannot open '%s': %s", path, strerror(errno));
	d->root = root_of(d->path);
	rc = read_json(d, LH_HF_CONFIG, CONFIG_MAX_BYTES, &d->config, err);
	if (rc == LH_ENOTFOUND)
		lh_err_hint(err, "a directory of config.json and safetensors is wanted, as "
			    "transformers saves a model");
	if (!rc)
		rc = open_tensors(d, err);
	if (rc)
		lh_hf_dir_close(d);
	return rc;
}

void lh_hf_dir_close(struct lh_hf_dir *d)
{
	for (int f = 0; f < d->files; f++) {
		lh_safetensors_close(&d->file[f]);
		free(d->name[f]);
	}
	free(d->file);
	free(d->name);
	free(d->path);
	free(d->root);
	json_decref(d->config);
	json_decref(d->map);
	memset(d, 0, sizeof(*d));
}

const struct lh_tensor *lh_hf_dir_find(const struct lh_hf_dir *d, const char *name,
				       int *file)
{
	const char *in = json_string_value(json_object_get(d->map, name));

	*file = d->map ? (in ? file_of(d, in) : -1) : 0;
	return *file < 0 ? NULL : lh_safetensors_find(&d->file[*file], name);
}

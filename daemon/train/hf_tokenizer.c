/* hf_tokenizer.c: the tokenizer that lies with a model; see hf_int.h.
 *
 * Its files are foreign as the weights are: links out of their directory are not
 * followed, or an export would carry along what they lead to. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "train/hf_int.h"

enum { FILE_MAX_BYTES = 128 << 20 };

/* The first two are tokenizers, in the order of enum lh_vocabulary_kind. */
static const char *const names[] = { "tokenizer.json", "tokenizer.model",
				     "tokenizer_config.json", "special_tokens_map.json",
				     "added_tokens.json", "vocab.json", "merges.txt",
				     "chat_template.jinja" };
enum { NAMES = sizeof(names) / sizeof(names[0]), TOKENIZERS = 2 };

/* *there: the directory has a file of that name, and it may be read. */
static int look(const char *dir, const char *name, bool *there, struct lh_err *err)
{
	struct lh_err why = LH_ERR_INIT;
	char *path = lh_hf_file(dir, name, &why);

	*there = path;
	free(path);
	if (*there || why.code == LH_ENOTFOUND)
		return 0;
	*err = why;
	return err->code;
}

/* Whether the model can have the ids of the file; *left_out says why not. */
static bool fits(const char *path, int64_t vocab, struct lh_err *left_out)
{
	struct lh_vocabulary v;
	json_t *name = json_string(path);

	json_decref(name);
	if (!name) {
		lh_err_set(left_out, LH_EDATA, "the name of '%s' is not UTF-8", path);
		return false;
	}
	if (lh_vocabulary_read(&v, path, left_out))
		return false;
	if (v.size <= vocab)
		return true;
	lh_err_set(left_out, LH_EDATA, "'%s' has ids up to %lld, the model those below %lld",
		   path, (long long)v.size - 1, (long long)vocab);
	return false;
}

int lh_hf_tokenizer_find(const char *dir, int64_t vocab, char **path,
			 struct lh_err *left_out, struct lh_err *err)
{
	bool there;

	*path = NULL;
	for (int i = NAMES - 1; i >= 0; i--) {
		if (look(dir, names[i], &there, err)) {
			free(*path);
			*path = NULL;
			return err->code;
		}
		if (i >= TOKENIZERS || !there)
			continue;
		free(*path);
		*path = lh_asprintf("%s/%s", dir, names[i]);
	}
	if (*path && !fits(*path, vocab, left_out)) {
		free(*path);
		*path = NULL;
	}
	return 0;
}

static int copy(const char *dir, const char *name, const char *as,
		const struct lh_publish *out, struct lh_err *err)
{
	char *path = lh_hf_file(dir, name, err), *data;
	size_t bytes;
	int rc;

	if (!path)
		return err->code;
	rc = lh_fs_read(path, FILE_MAX_BYTES, &data, &bytes, err);
	free(path);
	if (rc)
		return rc;
	rc = lh_publish_file(out, as, data, bytes, err);
	free(data);
	return rc;
}

int lh_hf_tokenizer_copy(const char *path, const struct lh_vocabulary *v,
			 const struct lh_publish *out, struct lh_err *err)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char *dir = slash ? lh_asprintf("%.*s", (int)(slash - path), path) : lh_strdup(".");
	int rc = copy(dir, name, names[v->kind], out, err);

	for (int i = 0; !rc && i < NAMES; i++) {
		struct lh_err why = LH_ERR_INIT;

		/* What lies beside one that has a name of its own may be another's. */
		if (!strcmp(names[i], names[v->kind]) ||
		    (i < TOKENIZERS && strcmp(name, names[v->kind])))
			continue;
		if (copy(dir, names[i], names[i], out, &why) && why.code != LH_ENOTFOUND) {
			*err = why;
			rc = err->code;
		}
	}
	free(dir);
	return rc ? lh_err_prefix(err, "tokenizer '%s'", path) : 0;
}

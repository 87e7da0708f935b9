/* vocabulary.c: see vocabulary.h; vocabulary_pieces.c has SentencePiece's format.
 *
 * A JSON text can hold a value every two bytes, each of which takes some forty bytes of
 * memory; those of tokenizers have far fewer, so what could hold more than VALUES_MAX is
 * refused before it is parsed. jansson limits the depth. */
#include "data/vocabulary.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/fs.h"
#include "data/vocabulary_int.h"

/* The largest that are known have 33 MB and 2.3 million values. */
enum { FILE_MAX_BYTES = 128 << 20, BESIDE_MAX_BYTES = 16 << 20, VALUES_MAX = 8 << 20 };

static int damaged(const char *path, const char *what, struct lh_err *err)
{
	lh_err_set(err, LH_EDATA, "'%s': %s", path, what);
	return lh_err_hint(err, "a tokenizer.json of Hugging Face or a .model of "
			   "SentencePiece is wanted; was it copied whole?");
}

/* `err` may be NULL. */
static int read_file(const char *path, size_t max_bytes, char **data, size_t *bytes,
		     struct lh_err *err)
{
	struct stat s;

	if (stat(path, &s)) {
		lh_err_set(err, LH_EDATA, "there is no tokenizer '%s'", path);
		return lh_err_hint(err, "is the path right?");
	}
	if (S_ISDIR(s.st_mode)) {
		lh_err_set(err, LH_EDATA, "the tokenizer '%s' is a directory", path);
		return lh_err_hint(err, "name the tokenizer.json or tokenizer.model in it");
	}
	if (!S_ISREG(s.st_mode)) /* a pipe would be waited for */
		return damaged(path, "is no regular file", err);
	if (!lh_fs_read(path, max_bytes, data, bytes, err))
		return 0;
	if (err)
		err->code = LH_EDATA;
	return lh_err_hint(err, "is it a tokenizer?");
}

/* ---- JSON ------------------------------------------------------------------ */

static bool is_bomb(const char *text, size_t bytes)
{
	int64_t values = 0;

	for (size_t i = 0; i < bytes; i++)
		values += text[i] == ',' || text[i] == '[' || text[i] == '{';
	return values > VALUES_MAX;
}

/* An object, or NULL. */
static json_t *parse(const char *text, size_t bytes)
{
	json_t *j = is_bomb(text, bytes) ? NULL : json_loadb(text, bytes, JSON_ALLOW_NUL, NULL);

	if (json_is_object(j))
		return j;
	json_decref(j);
	return NULL;
}

static bool note_id(struct lh_vocabulary *v, const json_t *id)
{
	json_int_t n = json_integer_value(id);

	if (!json_is_integer(id) || n < 0 || n >= LH__VOCABULARY_IDS_MAX)
		return false;
	v->size = n >= v->size ? n + 1 : v->size;
	return true;
}

/* Of BPE and others an object of ids by token, of Unigram a list in the order of ids. */
static bool note_ids(struct lh_vocabulary *v, const json_t *vocab, const json_t *added)
{
	const char *token;
	json_t *id, *one;
	size_t i;

	if (!json_is_object(vocab) && !json_is_array(vocab))
		return false;
	v->size = (int64_t)json_array_size(vocab);
	json_object_foreach ((json_t *)vocab, token, id)
		if (!note_id(v, id))
			return false;
	json_array_foreach (added, i, one)
		if (!note_id(v, json_object_get(one, "id")))
			return false;
	return v->size > 0 && v->size <= LH__VOCABULARY_IDS_MAX;
}

static int64_t id_of(const json_t *tokenizer, const char *token)
{
	json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab");
	json_t *id = json_object_get(vocab, token), *one;
	size_t i;

	json_array_foreach (json_object_get(tokenizer, "added_tokens"), i, one) {
		const char *content = json_string_value(json_object_get(one, "content"));

		if (content && !strcmp(content, token))
			id = json_object_get(one, "id");
	}
	json_array_foreach (vocab, i, one) {
		const char *content = json_string_value(json_array_get(one, 0));

		if (!id && content && !strcmp(content, token))
			return (int64_t)i;
	}
	return json_is_integer(id) ? json_integer_value(id) : -1;
}

/* The token that `key` names in a file beside `path`: a text, or an object with one. */
static int64_t id_named(const json_t *tokenizer, const char *path, const char *beside,
			const char *key)
{
	const char *slash = strrchr(path, '/');
	char *file = lh_asprintf("%.*s%s", slash ? (int)(slash + 1 - path) : 0, path, beside);
	char *text = NULL;
	json_t *config = NULL, *token;
	int64_t id = -1;
	size_t bytes;

	if (!read_file(file, BESIDE_MAX_BYTES, &text, &bytes, NULL))
		config = parse(text, bytes);
	token = json_object_get(config, key);
	if (json_is_object(token))
		token = json_object_get(token, "content");
	if (json_is_string(token))
		id = id_of(tokenizer, json_string_value(token));
	json_decref(config);
	free(text);
	free(file);
	return id;
}

static int64_t special_id(const json_t *tokenizer, const char *path, const char *key)
{
	int64_t id = id_named(tokenizer, path, "tokenizer_config.json", key);

	return id >= 0 ? id : id_named(tokenizer, path, "special_tokens_map.json", key);
}

static int read_json(struct lh_vocabulary *v, const json_t *tokenizer, const char *path,
		     struct lh_err *err)
{
	json_t *model = json_object_get(tokenizer, "model");

	if (!note_ids(v, json_object_get(model, "vocab"),
		      json_object_get(tokenizer, "added_tokens")))
		return damaged(path, "has no vocabulary, or ids that are none", err);
	if (json_number_value(json_object_get(model, "dropout")) > 0) {
		lh_err_set(err, LH_EDATA, "'%s' leaves out merges by chance", path);
		return lh_err_hint(err, "set \"dropout\" to null in it, so that a text always "
				   "gives the same ids");
	}
	v->bos = special_id(tokenizer, path, "bos_token");
	v->eos = special_id(tokenizer, path, "eos_token");
	return 0;
}

/* ---- either ---------------------------------------------------------------- */

static bool looks_like_json(const char *text)
{
	return text[strspn(text, " \t\r\n")] == '{';
}

int lh_vocabulary_read(struct lh_vocabulary *v, const char *path, struct lh_err *err)
{
	json_t *tokenizer;
	char *data;
	size_t bytes;
	int rc = read_file(path, FILE_MAX_BYTES, &data, &bytes, err);

	if (rc)
		return rc;
	*v = (struct lh_vocabulary){ .bos = -1, .eos = -1, .hash = XXH64(data, bytes, 0) };
	if (looks_like_json(data)) {
		tokenizer = parse(data, bytes);
		rc = tokenizer ? read_json(v, tokenizer, path, err) :
				 damaged(path, "is no JSON of a tokenizer", err);
		json_decref(tokenizer);
	} else {
		v->kind = LH_VOCABULARY_SENTENCEPIECE;
		if (lh__vocabulary_read_pieces(v, data, bytes))
			rc = damaged(path, "is no model of SentencePiece", err);
	}
	free(data);
	return rc;
}

int lh_vocabulary_find(const char *path, const char *token, int64_t *id, struct lh_err *err)
{
	json_t *tokenizer = NULL;
	char *data;
	size_t bytes;
	int rc = read_file(path, FILE_MAX_BYTES, &data, &bytes, err);

	if (rc)
		return rc;
	if (looks_like_json(data))
		tokenizer = parse(data, bytes);
	*id = tokenizer ? id_of(tokenizer, token) :
			  lh__vocabulary_find_piece(data, bytes, token);
	json_decref(tokenizer);
	free(data);
	if (*id >= 0)
		return 0;
	lh_err_set(err, LH_EDATA, "'%s' has no token '%.100s'", path, token);
	return lh_err_hint(err, "spaces and capitals count; the number of an id will do too");
}

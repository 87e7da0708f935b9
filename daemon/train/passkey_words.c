/* passkey_words.c: what texts that hide a digit are made of, in bytes or from a file; see
 * passkey.h. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "train/passkey.h"

enum { VERSION = 1, FILE_MAX_BYTES = 1 << 20 };

static struct lh_passkey_part add_bytes(struct lh_passkey_words *w, int32_t *used,
					const char *text, size_t n)
{
	struct lh_passkey_part part = { *used, (int32_t)n };

	for (size_t i = 0; i < n; i++)
		w->ids[(*used)++] = (unsigned char)text[i];
	return part;
}

/* ---- bytes ----------------------------------------------------------------- */

static void take_bytes(struct lh_passkey_words *w)
{
	static const char question[] = " The pass key is ", end[] = ". ";
	static const char filler[] = "abcdefghijklmnopqrstuvwxyz"
				     "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	int n = (int)sizeof(filler) - 1;
	int32_t used = 0;

	w->ids = lh_calloc(sizeof(question) + sizeof(end) + sizeof(filler), sizeof(*w->ids));
	w->filler = lh_calloc((size_t)n, sizeof(*w->filler));
	w->question = add_bytes(w, &used, question, sizeof(question) - 1);
	w->end = add_bytes(w, &used, end, sizeof(end) - 1);
	for (int d = 0; d < 10; d++)
		w->digit[d] = '0' + d;
	for (int i = 0; i < n; i++)
		w->filler[i] = add_bytes(w, &used, filler + i, 1);
	w->filler_count = w->one_id_count = n;
}

/* ---- a file ---------------------------------------------------------------- */

struct reader {
	struct lh_passkey_words *w;
	int64_t vocab;
	int32_t used;       /* of w->ids, for all of which there is room */
	struct lh_err *err;
};

static int bad(const struct reader *r, const char *what)
{
	lh_err_set(r->err, LH_EDATA, "%s", what);
	return lh_err_hint(r->err, "'lhctl ids --passkey' makes such a file, of the "
			   "tokenizer that the job's data have");
}

static int add_ids(struct reader *r, const json_t *list, size_t min, size_t max,
		   struct lh_passkey_part *part)
{
	size_t n = json_array_size(list), i;
	json_t *id;

	if (!json_is_array(list) || n < min || n > max)
		return bad(r, "a part of its texts is missing, or too long");
	*part = (struct lh_passkey_part){ r->used, (int32_t)n };
	json_array_foreach (list, i, id) {
		json_int_t v = json_is_integer(id) ? json_integer_value(id) : -1;

		if (v < 0 || v >= r->vocab) {
			lh_err_set(r->err, LH_EDATA, "token id %" JSON_INTEGER_FORMAT
				   ", model.vocab is %" PRId64, v, r->vocab);
			return lh_err_hint(r->err, "use the tokenizer that the job's data have");
		}
		r->w->ids[r->used++] = (int32_t)v;
	}
	return 0;
}

/* Filler, those of one id first. */
static int add_words(struct reader *r, const json_t *words)
{
	struct lh_passkey_words *w = r->w;
	json_t *word;
	size_t i;

	for (int one = 1; one >= 0; one--) {
		json_array_foreach (words, i, word) {
			if ((json_array_size(word) == 1) != one)
				continue;
			if (add_ids(r, word, 1, LH_PASSKEY_WORD_IDS_MAX,
				    &w->filler[w->filler_count]))
				return r->err->code;
			w->filler_count++;
		}
		if (one)
			w->one_id_count = w->filler_count;
	}
	return w->one_id_count ? 0 : bad(r, "it has no word of one id");
}

static int add_digits(struct reader *r, const json_t *digits)
{
	struct lh_passkey_words *w = r->w;
	struct lh_passkey_part part;
	int rc = add_ids(r, digits, 10, 10, &part);

	for (int d = 0; !rc && d < 10; d++) {
		w->digit[d] = w->ids[part.from + d];
		for (int e = 0; !rc && e < d; e++)
			if (w->digit[d] == w->digit[e])
				rc = bad(r, "two digits have one id");
	}
	return rc;
}

/* Room for all of them. */
static bool reserve(struct lh_passkey_words *w, const json_t *words)
{
	size_t n = json_array_size(words);

	if (!n || n > LH_PASSKEY_WORDS_MAX)
		return false;
	w->filler = lh_calloc(n, sizeof(*w->filler));
	w->ids = lh_calloc(2 * LH_PASSKEY_SAID_IDS_MAX + 10 + n * LH_PASSKEY_WORD_IDS_MAX,
			   sizeof(*w->ids));
	return true;
}

static int read_object(struct reader *r, const json_t *j)
{
	const char *tokenizer = json_string_value(json_object_get(j, "tokenizer"));
	const json_t *words = json_object_get(j, "words");
	struct lh_passkey_words *w = r->w;
	int rc;

	if (json_integer_value(json_object_get(j, "passkey")) != VERSION || !tokenizer)
		return bad(r, "it has no words for passkeys, or those of another version");
	w->tokenizer = strtoull(tokenizer, NULL, 16);
	if (!reserve(w, words))
		return bad(r, "it has no words, or too many");
	rc = add_ids(r, json_object_get(j, "question"), 1, LH_PASSKEY_SAID_IDS_MAX,
		     &w->question);
	if (!rc)
		rc = add_ids(r, json_object_get(j, "end"), 0, LH_PASSKEY_SAID_IDS_MAX, &w->end);
	if (!rc && 2 * w->question.count + 1 + w->end.count > LH_PASSKEY_SAID_IDS_MAX)
		rc = bad(r, "its sentence is too long");
	if (!rc)
		rc = add_digits(r, json_object_get(j, "digits"));
	return rc ? rc : add_words(r, words);
}

static int read_file(struct lh_passkey_words *w, const char *path, int64_t vocab,
		     struct lh_err *err)
{
	struct reader r = { .w = w, .vocab = vocab, .err = err };
	struct stat s;
	size_t bytes;
	char *text;
	json_t *j;
	int rc;

	if (!stat(path, &s) && !S_ISREG(s.st_mode)) { /* a pipe would be waited for */
		bad(&r, "it is no regular file");
		return lh_err_prefix(err, "'%s'", path);
	}
	rc = lh_fs_read(path, FILE_MAX_BYTES, &text, &bytes, err);
	if (rc) {
		lh_err_hint(err, "'lhctl ids --passkey' makes such a file");
		return rc;
	}
	j = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
	rc = read_object(&r, j);
	json_decref(j);
	free(text);
	return rc ? lh_err_prefix(err, "'%s'", path) : 0;
}

int lh_passkey_words_read(struct lh_passkey_words *w, const struct lh_job *job,
			  struct lh_err *err)
{
	const char *file = job->evaluation.passkey.file;
	int rc = 0;

	*w = (struct lh_passkey_words){ 0 };
	if (*file)
		rc = read_file(w, file, job->model.vocab, err);
	else if (lh_job_tokenizer(job) == LH_TOKENIZER_BYTES)
		take_bytes(w);
	if (rc)
		lh_passkey_words_release(w);
	return rc;
}

void lh_passkey_words_release(struct lh_passkey_words *w)
{
	free(w->ids);
	free(w->filler);
	*w = (struct lh_passkey_words){ 0 };
}

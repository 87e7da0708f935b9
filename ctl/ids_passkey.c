/* ids_passkey.c: what texts that hide a digit are made of; see ids.h and train/passkey.h.
 *
 * Ids of a word are those it has within a text: behind a letter, which is left out again.
 * At the start of a text some tokenizers put a blank of their own. That words may stand
 * one behind the other is not taken on trust: a text of all of them must have their ids. */
#include "ids.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/passkey.h"
#include "train/rng.h"

#define BEFORE "x"
enum { WORDS = 1024, SAYINGS = 10, TEXTS = 1 + SAYINGS + WORDS, TEXT_BYTES = 40 };

struct words {
	struct ctl_tokenizer *t;
	char text[TEXTS][TEXT_BYTES]; /* BEFORE; it and a sentence or a word */
	struct ctl_ids ids;           /* of all of them */
	int64_t from[TEXTS], count[TEXTS];
};

static int unsuited(struct lh_err *err, const char *what)
{
	lh_err_set(err, LH_EUNSUPPORTED, "the tokenizer %s", what);
	return lh_err_hint(err, "no digit can be hidden then: leave evaluation.passkey out");
}

/* ---- texts ----------------------------------------------------------------- */

/* All letters and digits, then two to six of them, the same ones always. */
static void put_word(char *out, int number)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	const uint32_t n = sizeof(letters) - 1;
	uint32_t r[8];
	int length;

	lh_rng_block(0, LH_RNG_PASSKEY, 2 * (uint64_t)number, r);
	lh_rng_block(0, LH_RNG_PASSKEY, 2 * (uint64_t)number + 1, r + 4);
	length = number < (int)n ? 1 : 2 + (int)(r[7] % 5);
	*out++ = ' ';
	for (int i = 0; i < length; i++)
		*out++ = letters[number < (int)n ? (uint32_t)number : r[i] % n];
	*out = '\0';
}

static void put_texts(struct words *w)
{
	for (int i = 0; i < TEXTS; i++)
		strcpy(w->text[i], BEFORE);
	for (int d = 0; d < SAYINGS; d++)
		snprintf(w->text[1 + d], TEXT_BYTES, BEFORE " The pass key is %d.", d);
	for (int i = 0; i < WORDS; i++)
		put_word(w->text[1 + SAYINGS + i] + strlen(BEFORE), i);
}

/* What has no ids of its own behind BEFORE gets none. */
static int encode(struct words *w, struct lh_err *err)
{
	struct ctl_text texts[TEXTS];
	int64_t at = 0, before;
	int rc;

	put_texts(w);
	for (int i = 0; i < TEXTS; i++)
		texts[i] = (struct ctl_text){ w->text[i], (int64_t)strlen(w->text[i]) };
	rc = ctl_tokenizer_encode(w->t, texts, TEXTS, &w->ids, w->count, err);
	if (rc)
		return rc;
	before = w->count[0];
	for (int i = 0; i < TEXTS; i++) {
		const int32_t *ids = w->ids.ids;

		w->from[i] = at + before;
		at += w->count[i];
		w->count[i] = w->count[i] > before &&
			      !memcmp(ids, ids + w->from[i] - before, (size_t)before * 4) ?
				      w->count[i] - before : 0;
	}
	return 0;
}

/* ---- the sentence ---------------------------------------------------------- */

static int32_t said(const struct words *w, int digit, int64_t i)
{
	return w->ids.ids[w->from[1 + digit] + i];
}

/* Whether all digits have id i of the sentence in common, or all have their own. */
static bool is_common(const struct words *w, int64_t i, bool own)
{
	for (int d = 1; d < SAYINGS; d++)
		for (int e = 0; e < d; e++)
			if ((said(w, d, i) != said(w, e, i)) != own)
				return false;
	return true;
}

/* The one place in which sentences differ; -1: there is none, or more. */
static int64_t place_of_digit(const struct words *w)
{
	int64_t n = w->count[1], place = -1;

	for (int d = 0; d < SAYINGS; d++)
		if (w->count[1 + d] != n)
			return -1;
	for (int64_t i = 0; i < n; i++) {
		if (is_common(w, i, false))
			continue;
		if (place >= 0 || !is_common(w, i, true))
			return -1;
		place = i;
	}
	return place > 0 ? place : -1;
}

/* ---- words one behind the other -------------------------------------------- */

struct whole {
	struct lh_buf text, ids;
};

static void add(struct whole *all, const struct words *w, int i)
{
	const char *text = w->text[i] + strlen(BEFORE);

	lh_buf_append(&all->text, text, strlen(text));
	lh_buf_append(&all->ids, w->ids.ids + w->from[i], (size_t)w->count[i] * 4);
}

/* Every word, and now and then a sentence between them. */
static bool have_their_ids(const struct words *w, struct lh_err *err)
{
	struct ctl_ids ids = { 0 };
	struct whole all = { 0 };
	struct ctl_text text;
	int64_t count;
	bool same;

	lh_buf_append(&all.text, BEFORE, strlen(BEFORE));
	lh_buf_append(&all.ids, w->ids.ids, (size_t)w->from[0] * 4);
	for (int i = 0; i < WORDS; i++) {
		if (w->count[1 + SAYINGS + i])
			add(&all, w, 1 + SAYINGS + i);
		if (i % 16 == 0)
			add(&all, w, 1 + i / 16 % SAYINGS);
	}
	text = (struct ctl_text){ all.text.data, (int64_t)all.text.used_bytes };
	same = !ctl_tokenizer_encode(w->t, &text, 1, &ids, &count, err) &&
	       (size_t)count * 4 == all.ids.used_bytes &&
	       !memcmp(ids.ids, all.ids.data, all.ids.used_bytes);
	lh_buf_release(&all.text);
	lh_buf_release(&all.ids);
	free(ids.ids);
	return same;
}

/* ---- the file -------------------------------------------------------------- */

static json_t *list_of(const struct words *w, int64_t from, int64_t n)
{
	json_t *list = json_array();

	for (int64_t i = 0; i < n; i++)
		json_array_append_new(list, json_integer(w->ids.ids[from + i]));
	return list;
}

static void put_file(const struct words *w, int64_t place, uint64_t hash,
		     struct lh_buf *out)
{
	json_t *digits = json_array(), *words = json_array(), *j;
	char name[20];

	snprintf(name, sizeof(name), "%016" PRIx64, hash);
	for (int d = 0; d < SAYINGS; d++)
		json_array_append_new(digits, json_integer(said(w, d, place)));
	for (int i = 1 + SAYINGS; i < TEXTS; i++)
		if (w->count[i])
			json_array_append_new(words, list_of(w, w->from[i], w->count[i]));
	j = json_pack("{s:i, s:s, s:o, s:o, s:o, s:o}", "passkey", 1, "tokenizer", name,
		      "question", list_of(w, w->from[1], place), "digits", digits, "end",
		      list_of(w, w->from[1] + place + 1, w->count[1] - place - 1), "words",
		      words);
	lh_buf_json(out, j);
	lh_buf_append(out, "\n", 1);
	json_decref(j);
}

/* Whether some have one id; what has too many is left out. */
static bool has_short_words(struct words *w)
{
	bool found = false;

	for (int i = 1 + SAYINGS; i < TEXTS; i++) {
		found |= w->count[i] == 1;
		if (w->count[i] > LH_PASSKEY_WORD_IDS_MAX)
			w->count[i] = 0;
	}
	return found;
}

static int make(struct words *w, uint64_t hash, struct lh_buf *out, struct lh_err *err)
{
	int64_t place;
	int rc = encode(w, err);

	if (rc)
		return rc;
	place = place_of_digit(w);
	if (place < 0)
		return unsuited(err, "has no id for each digit behind ' The pass key is'");
	if (2 * place + w->count[1] - place > LH_PASSKEY_SAID_IDS_MAX)
		return unsuited(err, "makes too many ids of ' The pass key is'");
	if (!has_short_words(w))
		return unsuited(err, "has no word of one id: a blank and a letter or digit");
	if (!have_their_ids(w, err))
		return err->code ? err->code :
			unsuited(err, "cuts text elsewhere than between words");
	put_file(w, place, hash, out);
	return 0;
}

int ids_of_passkey(struct ctl_tokenizer *t, uint64_t hash, struct lh_buf *out,
		   struct lh_err *err)
{
	struct words *w = lh_calloc(1, sizeof(*w));
	int rc;

	w->t = t;
	rc = make(w, hash, out, err);
	free(w->ids.ids);
	free(w);
	return rc;
}

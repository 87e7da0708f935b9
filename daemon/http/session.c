/* session.c: see session.h. Secrets are looked for by their hashes, so how long that
 * takes tells nothing of them. */
#include "http/session.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "control/access.h"

enum { HASH_BYTES = 2 * SHA256_DIGEST_SIZE + 1 };

struct secret {
	char hash[HASH_BYTES];
	struct lh_session is;
};

struct lh_sessions {
	struct lh_store *store;
	struct secret tokens[LH_TOKENS_MAX], keys[LH_KEYS_MAX], fixed; /* hash "": none */
};

static void to_hex(char *out, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static void hash_of(const char *secret, char hash[HASH_BYTES])
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, strlen(secret), (const uint8_t *)secret);
	sha256_digest(&ctx, sizeof(digest), digest);
	to_hex(hash, digest, sizeof(digest));
}

void lh_secret_make(char secret[LH_SECRET_BYTES])
{
	uint8_t bytes[(LH_SECRET_BYTES - 1) / 2];

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		LH_BUG("no random numbers: %s", strerror(errno));
	to_hex(secret, bytes, sizeof(bytes));
}

/* ---- sets of secrets ------------------------------------------------------- */

/* The one that is good now, or NULL. */
static struct secret *look_up(struct secret *set, int n, const char *secret, int64_t now_ms)
{
	char hash[HASH_BYTES];

	hash_of(secret, hash);
	for (int i = 0; i < n; i++)
		if (!strcmp(set[i].hash, hash))
			return set[i].is.expires_ms > now_ms ? &set[i] : NULL;
	return NULL;
}

/* In the place of the one that ends first; an unused place ends at 0. */
static struct secret *put(struct secret *set, int n, const char *hash,
			  const struct lh_session *is)
{
	struct secret *place = set;

	for (int i = 1; i < n; i++)
		if (set[i].is.expires_ms < place->is.expires_ms)
			place = &set[i];
	snprintf(place->hash, sizeof(place->hash), "%s", hash);
	place->is = *is;
	return place;
}

/* ---- the store ------------------------------------------------------------- */

struct loading {
	struct lh_sessions *sessions;
	int64_t now_ms;
};

static int load(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct loading *l = arg;
	struct lh_bind binds[] = { LH_INT(l->now_ms), LH_INT(LH_KEYS_MAX) };
	bool more;
	json_t *rows = lh_store_rows(db,
		"SELECT sha256, role, uid, expires_ms FROM page_keys"
		" WHERE expires_ms > ?1 ORDER BY expires_ms DESC LIMIT ?2",
		binds, 2, LH_KEYS_MAX, &more, err);
	json_t *row;
	size_t i;

	json_array_foreach (rows, i, row) {
		const char *role = json_string_value(json_object_get(row, "role"));
		struct lh_session is = {
			.uid = json_integer_value(json_object_get(row, "uid")),
			.role = !strcmp(role, "steer") ? LH_ROLE_STEER : LH_ROLE_READ,
			.expires_ms = json_integer_value(json_object_get(row, "expires_ms")),
		};

		put(l->sessions->keys, LH_KEYS_MAX,
		    json_string_value(json_object_get(row, "sha256")), &is);
	}
	json_decref(rows);
	return rows ? 0 : err->code;
}

int lh_sessions_load(struct lh_sessions *s, int64_t now_ms, struct lh_err *err)
{
	struct loading l = { s, now_ms };

	return lh_store_read_now(s->store, load, &l, err);
}

/* Nobody waits for it: a key that is lost with lhd before that costs a new token. */
static void keep(struct lh_sessions *s, const struct secret *key, int64_t now_ms)
{
	struct lh_write *w;

	if (!s->store)
		return;
	w = lh_write_new();
	lh_write_add(w, LH_STMT_PAGE_KEYS_OVER, (struct lh_bind[]){ LH_INT(now_ms) }, 1);
	lh_write_add(w, LH_STMT_PAGE_KEY_INSERT,
		     (struct lh_bind[]){ LH_TEXT(key->hash),
					 LH_TEXT(lh_access_role_name(key->is.role)),
					 LH_INT(key->is.uid), LH_INT(now_ms),
					 LH_INT(key->is.expires_ms) },
		     5);
	lh_store_submit_take(s->store, w, false, NULL, NULL);
}

/* ---- the rest -------------------------------------------------------------- */

struct lh_sessions *lh_sessions_new(struct lh_store *store)
{
	struct lh_sessions *s = lh_calloc(1, sizeof(*s));

	s->store = store;
	return s;
}

void lh_sessions_free(struct lh_sessions *s)
{
	free(s);
}

int64_t lh_sessions_token(struct lh_sessions *s, int64_t uid, enum lh_role role,
			  int64_t now_ms, char token[LH_SECRET_BYTES])
{
	struct lh_session is = { uid, role, now_ms + LH_TOKEN_MS };
	char hash[HASH_BYTES];

	lh_secret_make(token);
	hash_of(token, hash);
	put(s->tokens, LH_TOKENS_MAX, hash, &is);
	return is.expires_ms;
}

int lh_sessions_exchange(struct lh_sessions *s, const char *token, int64_t now_ms,
			 char key[LH_SECRET_BYTES], struct lh_session *session,
			 struct lh_err *err)
{
	struct secret *t = look_up(s->tokens, LH_TOKENS_MAX, token, now_ms);
	char hash[HASH_BYTES];

	if (!t) {
		lh_err_set(err, LH_EDENIED, "the token is not known, was used, or is older "
			   "than %d s", LH_TOKEN_MS / 1000);
		return lh_err_hint(err, "'lhctl dashboard' prints a new address");
	}
	*session = (struct lh_session){ t->is.uid, t->is.role, now_ms + LH_KEY_MS };
	*t = (struct secret){ 0 };
	lh_secret_make(key);
	hash_of(key, hash);
	keep(s, put(s->keys, LH_KEYS_MAX, hash, session), now_ms);
	return 0;
}

void lh_sessions_set_fixed(struct lh_sessions *s, const char *key,
			   const struct lh_session *session)
{
	hash_of(key, s->fixed.hash);
	s->fixed.is = *session;
}

bool lh_sessions_find(const struct lh_sessions *s, const char *key, int64_t now_ms,
		      struct lh_session *session)
{
	struct lh_sessions *own = (struct lh_sessions *)s; /* nothing is changed */
	struct secret *found = look_up(own->keys, LH_KEYS_MAX, key, now_ms);

	if (!found)
		found = look_up(&own->fixed, 1, key, now_ms);
	if (found)
		*session = found->is;
	return found;
}

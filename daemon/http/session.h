/* session.h: who may read the page's data: tokens, and the keys they turn into.
 *
 * Loopback is open to everybody on this machine, so reading needs a key too. The owner
 * asks for a token over the control socket (daemon.dashboard) and opens its address; the
 * page hands the token in and gets a key, which it sends with each request:
 *
 *   token   one use, LH_TOKEN_MS, in memory alone
 *   key     LH_KEY_MS; its SHA-256 lies in the store, so that pages live on when lhd is
 *           restarted or killed, and who reads the database or a copy of it has no key
 *
 * Either carries a role, read or steer, and the uid that asked for the token. Both are
 * 256 bits of the kernel's random numbers, as hex digits. At most LH_TOKENS_MAX and
 * LH_KEYS_MAX are good at a time: one more takes the place of the oldest.
 *
 * Times are the wall clock's, given by the caller. Loop thread.
 */
#ifndef LIGHTHOUSE_SESSION_H
#define LIGHTHOUSE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "control/rpc.h"
#include "lighthouse/err.h"
#include "store/store.h"

#define LH_TOKEN_MS 60000
#define LH_KEY_MS (7 * INT64_C(86400000))

enum { LH_TOKENS_MAX = 16, LH_KEYS_MAX = 256, LH_SECRET_BYTES = 65 }; /* with its NUL */

struct lh_session {
	int64_t uid;
	enum lh_role role;
	int64_t expires_ms;
};

struct lh_sessions;

/* `store` keeps the keys and must outlive it; NULL: they die with it. */
struct lh_sessions *lh_sessions_new(struct lh_store *store);
/* The keys that are stored and not over. Blocking, at start. LH_ESTORE. */
int lh_sessions_load(struct lh_sessions *s, int64_t now_ms, struct lh_err *err);
void lh_sessions_free(struct lh_sessions *s);

/* A new secret, of the kernel. */
void lh_secret_make(char secret[LH_SECRET_BYTES]);
/* A new token; gives when it ends. */
int64_t lh_sessions_token(struct lh_sessions *s, int64_t uid, enum lh_role role,
			  int64_t now_ms, char token[LH_SECRET_BYTES]);
/* Takes a token for a key. LH_EDENIED: it is none, was used, or is over. */
int lh_sessions_exchange(struct lh_sessions *s, const char *token, int64_t now_ms,
			 char key[LH_SECRET_BYTES], struct lh_session *session,
			 struct lh_err *err);
/* A key of a file of the owner, for `session` and as long as this lives. */
void lh_sessions_set_fixed(struct lh_sessions *s, const char *key,
			   const struct lh_session *session);
/* Whether it is a key that is good now, and whose. */
bool lh_sessions_find(const struct lh_sessions *s, const char *key, int64_t now_ms,
		      struct lh_session *session);

#endif

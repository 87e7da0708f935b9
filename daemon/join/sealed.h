/* sealed.h: a line between a door and a rank that wants in, on which each knows that the
 * other has the job's token.
 *
 * The door greets with its nonce; the rank's first message brings its own. From there on
 * every message is a line "MAC JSON": HMAC-SHA256, keyed by the token, of who speaks, both
 * nonces, the number of the message in its direction, and the JSON. So the token never
 * travels, nobody else's word is taken, none twice, and what a rank is told to run comes
 * from its own lhd. Nothing is secret: MPI and NCCL do not hide what they send, either.
 *
 *   lh_sealed_init(&s, fd, is_door, token);        greets, if it is the door
 *   when fd is readable: lh_sealed_read(&s);
 *                        while ((rc = lh_sealed_next(&s, &m, &err)) > 0) ... use m ...
 *   lh_sealed_send_take(&s, m);
 *   lh_sealed_release(&s);
 *
 * One thread. Sending waits for seconds at most.
 */
#ifndef LIGHTHOUSE_SEALED_H
#define LIGHTHOUSE_SEALED_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/frame.h"

enum { LH_SEALED_PROTO = 1, LH_NONCE_BYTES = 33, LH_TOKEN_TEXT_BYTES = 65 };

struct lh_sealed {
	int fd;                  /* its own from init on */
	bool is_door;
	bool is_open;            /* both nonces are known, and the other has the token */
	bool is_over;            /* the other end is gone */
	const char *token;       /* the caller's; outlives it */
	char nonces[2][LH_NONCE_BYTES]; /* door, rank */
	int64_t sent, taken;
	struct lh_frame in;
};

void lh_sealed_init(struct lh_sealed *s, int fd, bool is_door, const char *token);
void lh_sealed_release(struct lh_sealed *s);

/* Takes what has arrived; sets is_over at its end. */
void lh_sealed_read(struct lh_sealed *s);
/* 1 and a message (the caller's); 0: none is complete. LH_EDENIED: it was sealed with
 * another token; LH_EPROTO: it is no message. Nothing of the line is good after that. A
 * rank's first answer is the greeting, which is no message of the caller's. */
int lh_sealed_next(struct lh_sealed *s, json_t **m, struct lh_err *err);
/* A rank may speak once the door has greeted. What cannot be sent makes it over. */
void lh_sealed_send_take(struct lh_sealed *s, json_t *m);
/* A rank's: it has been greeted. */
bool lh_sealed_is_greeted(const struct lh_sealed *s);

/* `bytes` - 1 digits of a random number, in hex, and NUL. */
void lh_sealed_random(char *text, size_t bytes);

#endif

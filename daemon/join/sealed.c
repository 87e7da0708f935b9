/* sealed.c: see sealed.h. */
#include "join/sealed.h"

#include <errno.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "lighthouse/proto.h"

enum { MAC_TEXT_BYTES = 2 * SHA256_DIGEST_SIZE, SEND_S = 10, READ_BYTES = 65536,
       ASKED_MAX_BYTES = 65536 /* of a line that anybody may have sent */ };

void lh_sealed_random(char *text, size_t bytes)
{
	unsigned char noise[64];
	size_t n = (bytes - 1) / 2;

	LH_ASSERT(n <= sizeof(noise));
	if (getrandom(noise, n, 0) != (ssize_t)n)
		LH_BUG("the kernel gives no random bytes");
	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", noise[i]);
}

static void seal(const struct lh_sealed *s, bool by_door, int64_t number, const char *json,
		 char mac[MAC_TEXT_BYTES + 1])
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct hmac_sha256_ctx c;
	char *head = lh_asprintf("%s %s %s %lld ", by_door ? "door" : "rank", s->nonces[0],
				 s->nonces[1], (long long)number);

	hmac_sha256_set_key(&c, strlen(s->token), (const uint8_t *)s->token);
	hmac_sha256_update(&c, strlen(head), (const uint8_t *)head);
	hmac_sha256_update(&c, strlen(json), (const uint8_t *)json);
	hmac_sha256_digest(&c, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(mac + 2 * i, 3, "%02x", digest[i]);
	free(head);
}

/* ---- sending --------------------------------------------------------------- */

static void send_text(struct lh_sealed *s, const char *text)
{
	size_t left = strlen(text);

	while (left && !s->is_over) {
		ssize_t n = send(s->fd, text, left, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			s->is_over = true;
			return;
		}
		text += n;
		left -= (size_t)n;
	}
}

void lh_sealed_send_take(struct lh_sealed *s, json_t *m)
{
	char *json, *line, mac[MAC_TEXT_BYTES + 1];

	LH_ASSERT(m);
	if (!s->is_door && !s->sent)
		json_object_set_new(m, "nonce", json_string(s->nonces[1]));
	json = json_dumps(m, JSON_COMPACT);
	seal(s, s->is_door, s->sent++, json, mac);
	line = lh_asprintf("%s %s\n", mac, json);
	send_text(s, line);
	free(line);
	free(json);
	json_decref(m);
}

static void greet(struct lh_sealed *s)
{
	char *line = lh_asprintf("{\"m\":\"door\",\"proto\":%d,\"nonce\":\"%s\"}\n",
				 LH_SEALED_PROTO, s->nonces[0]);

	send_text(s, line);
	free(line);
}

/* ---- receiving ------------------------------------------------------------- */

/* A nonce of the other's: it is part of a text, so nothing but digits. */
static int take_nonce(struct lh_sealed *s, int whose, const json_t *m, struct lh_err *err)
{
	const char *text = json_string_value(json_object_get(m, "nonce"));

	if (!text || strlen(text) != LH_NONCE_BYTES - 1 ||
	    strspn(text, "0123456789abcdef") != LH_NONCE_BYTES - 1)
		return lh_err_set(err, LH_EPROTO, "it speaks of something else");
	memcpy(s->nonces[whose], text, LH_NONCE_BYTES);
	return 0;
}

static int take_greeting(struct lh_sealed *s, const char *line, struct lh_err *err)
{
	json_t *m = json_loads(line, 0, NULL);
	int proto = (int)json_integer_value(json_object_get(m, "proto"));
	int rc = take_nonce(s, 0, m, err);

	if (!rc && proto != LH_SEALED_PROTO)
		rc = lh_err_set(err, LH_EPROTO, "it speaks version %d of joining, this is "
				"version %d", proto, LH_SEALED_PROTO);
	json_decref(m);
	return rc;
}

static int open_line(struct lh_sealed *s, const char *line, json_t **m, struct lh_err *err)
{
	char mac[MAC_TEXT_BYTES + 1];
	int rc = 0;

	if (strlen(line) < MAC_TEXT_BYTES + 2 || line[MAC_TEXT_BYTES] != ' ')
		return lh_err_set(err, LH_EPROTO, "it speaks of something else");
	*m = json_loads(line + MAC_TEXT_BYTES + 1, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(*m))
		rc = lh_err_set(err, LH_EPROTO, "it sent what is no message");
	else if (s->is_door && !s->taken)
		rc = take_nonce(s, 1, *m, err);
	if (!rc) {
		seal(s, !s->is_door, s->taken++, line + MAC_TEXT_BYTES + 1, mac);
		s->is_open = memeql_sec(mac, line, MAC_TEXT_BYTES);
		if (!s->is_open)
			rc = lh_err_set(err, LH_EDENIED, "it has another token");
	}
	if (rc) {
		json_decref(*m);
		*m = NULL;
	}
	return rc ? rc : 1;
}

int lh_sealed_next(struct lh_sealed *s, json_t **m, struct lh_err *err)
{
	char *line;
	size_t bytes;
	int rc = lh_frame_next(&s->in, &line, &bytes);

	*m = NULL;
	if (rc > 0 && !lh_sealed_is_greeted(s)) {
		rc = take_greeting(s, line, err);
		return rc ? rc : lh_sealed_next(s, m, err);
	}
	if (rc < 0)
		return lh_err_set(err, LH_EPROTO, "it sent too long a line");
	return rc ? open_line(s, line, m, err) : 0;
}

void lh_sealed_read(struct lh_sealed *s)
{
	char *data = lh_alloc(READ_BYTES);
	ssize_t n = recv(s->fd, data, READ_BYTES, MSG_DONTWAIT);

	if (n > 0)
		lh_frame_push(&s->in, data, (size_t)n);
	else if (!n || (errno != EAGAIN && errno != EINTR))
		s->is_over = true;
	free(data);
}

/* ---- lifetime -------------------------------------------------------------- */

bool lh_sealed_is_greeted(const struct lh_sealed *s)
{
	return *s->nonces[0];
}

void lh_sealed_init(struct lh_sealed *s, int fd, bool is_door, const char *token)
{
	const struct timeval most = { .tv_sec = SEND_S };

	*s = (struct lh_sealed){ .fd = fd, .is_door = is_door, .token = token };
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
	lh_frame_init(&s->in, is_door ? ASKED_MAX_BYTES : LH_PROTO_LINE_MAX_BYTES);
	lh_sealed_random(s->nonces[is_door ? 0 : 1], LH_NONCE_BYTES);
	if (is_door)
		greet(s);
}

void lh_sealed_release(struct lh_sealed *s)
{
	close(s->fd);
	lh_frame_release(&s->in);
	*s = (struct lh_sealed){ .fd = -1 };
}

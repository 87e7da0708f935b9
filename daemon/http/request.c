/* request.c: one request: what is checked before anything is done for it, its body, its
 * answer; see http_int.h. In reading order: life, answers, checks, what is called. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fs.h"
#include "base/log.h"
#include "http/http_int.h"

/* ---- life ------------------------------------------------------------------ */

static struct lh_request *request_new(struct lh_http *h, struct MHD_Connection *connection)
{
	struct lh_request *r = lh_calloc(1, sizeof(*r));

	r->http = h;
	r->connection = connection;
	r->next = h->requests;
	r->link = &h->requests;
	if (r->next)
		r->next->link = &r->next;
	h->requests = r;
	h->request_count++;
	return r;
}

void lh__request_settle(struct lh_request *r)
{
	struct lh_http *h = r->http;

	if (!r->over || r->pending || r->peer.call_count)
		return;
	*r->link = r->next;
	if (r->next)
		r->next->link = r->link;
	lh__stream_free(r);
	lh_buf_release(&r->body);
	lh_buf_release(&r->answer);
	free(r);
	h->request_count--;
	lh__http_settle(h);
}

void lh__request_completed(void *http, struct MHD_Connection *connection, void **request,
			   enum MHD_RequestTerminationCode how)
{
	struct lh_request *r = *request;

	(void)http;
	(void)how;
	lh__connection_limit(connection, LH_HTTP_ASK_MS); /* of the next one */
	if (!r)
		return;
	*request = NULL;
	r->over = true;
	r->pending++; /* what it began may end in this, and free it */
	lh__stream_release(r);
	lh_peer_lost(&r->peer);
	r->pending--;
	lh__request_settle(r);
}

void lh__request_suspend(struct lh_request *r)
{
	r->suspended = true;
	MHD_suspend_connection(r->connection);
}

void lh__request_resume(struct lh_request *r)
{
	if (!r->suspended)
		return;
	r->suspended = false;
	MHD_resume_connection(r->connection);
	lh__http_kick(r->http);
}

/* ---- answers --------------------------------------------------------------- */

void lh__response_guard(struct MHD_Response *response)
{
	static const char *const headers[][2] = {
		{ "Content-Security-Policy",
		  "default-src 'none'; script-src 'self'; style-src 'self'; "
		  "img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; "
		  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'" },
		{ "X-Content-Type-Options", "nosniff" },
		{ "Referrer-Policy", "no-referrer" },
		{ "Cross-Origin-Opener-Policy", "same-origin" },
		{ "Cross-Origin-Resource-Policy", "same-origin" },
	};

	for (size_t i = 0; i < sizeof(headers) / sizeof(*headers); i++)
		MHD_add_response_header(response, headers[i][0], headers[i][1]);
}

void lh__request_answer(struct lh_request *r, unsigned status, const char *type)
{
	LH_ASSERT(!r->ready);
	r->ready = true;
	r->status = status;
	r->type = type;
	lh__request_resume(r);
}

void lh__request_refuse(struct lh_request *r, unsigned status, const struct lh_err *err)
{
	char text[4 * sizeof(err->text)], hint[4 * sizeof(err->hint)];
	json_t *body = json_pack("{s:{s:s, s:s, s:s}}", "error", "code",
				 lh_err_name(err->code), "message",
				 lh_escape(text, sizeof(text), err->text), "hint",
				 lh_escape(hint, sizeof(hint), err->hint));

	lh_buf_json(&r->answer, body);
	json_decref(body);
	lh__request_answer(r, status, "application/json");
}

static enum MHD_Result queue_take(struct lh_request *r, unsigned status,
				  struct MHD_Response *response, const char *type)
{
	enum MHD_Result rc;

	lh__response_guard(response);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_UNAUTHORIZED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE,
					"Bearer");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, r->route->method);
	lh__connection_limit(r->connection, r->stream ? 0 : LH_HTTP_TAKE_MS);
	rc = MHD_queue_response(r->connection, status, response);
	MHD_destroy_response(response);
	return rc;
}

static enum MHD_Result queue_answer(struct lh_request *r)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
		r->answer.used_bytes, r->answer.data, MHD_RESPMEM_PERSISTENT);

	LH_ASSERT(response); /* r outlives it */
	return queue_take(r, r->status, response, r->type);
}

/* ---- checks ---------------------------------------------------------------- */

static const char *header(const struct lh_request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

/* A page of another site may have a name that leads here; its requests then carry that
 * name. The port is anybody's: people forward it. */
static bool is_our_name(const char *host)
{
	static const char *const names[] = { "127.0.0.1", "localhost", "[::1]" };

	for (size_t i = 0; host && i < sizeof(names) / sizeof(*names); i++) {
		size_t n = strlen(names[i]);

		if (strncasecmp(host, names[i], n))
			continue;
		if (!host[n])
			return true;
		return host[n] == ':' && strspn(host + n + 1, "0123456789") ==
						 strlen(host + n + 1);
	}
	return false;
}

static int check_origin(struct lh_request *r, struct lh_err *err)
{
	const char *host = header(r, MHD_HTTP_HEADER_HOST);
	const char *origin = header(r, MHD_HTTP_HEADER_ORIGIN);

	if (!is_our_name(host)) {
		lh_err_set(err, LH_EDENIED, "host '%.100s' is not this server's name",
			   host ? host : "");
		return lh_err_hint(err, "use the address that 'lhctl dashboard' prints");
	}
	if (origin && (strncmp(origin, "http://", 7) || strcasecmp(origin + 7, host)))
		return lh_err_set(err, LH_EDENIED, "a page of '%.100s' may not ask here",
				  origin);
	return 0;
}

static int check_key(struct lh_request *r, struct lh_err *err)
{
	const char *given = header(r, MHD_HTTP_HEADER_AUTHORIZATION);

	if (given && !strncasecmp(given, "Bearer ", 7) &&
	    lh_sessions_find(r->http->sessions, given + 7, lh_time_ms(), &r->session))
		return 0;
	lh_err_set(err, LH_EDENIED, given ? "the key is not known, or is over" :
					    "this takes a key");
	return lh_err_hint(err, "'lhctl dashboard' prints an address that opens the page");
}

static bool is_json(const char *type)
{
	const char *json = "application/json";
	size_t n = strlen(json);

	return type && !strncasecmp(type, json, n) &&
	       (!type[n] || type[n] == ';' || type[n] == ' ');
}

static bool has_too_much_body(const struct lh_request *r)
{
	const char *length = header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return length && strtoull(length, NULL, 10) > r->route->body_max_bytes;
}

/* ---- routes ---------------------------------------------------------------- */

static void session_start(struct lh_request *r)
{
	json_t *body = json_loadb(r->body.data ? r->body.data : "", r->body.used_bytes,
				  JSON_REJECT_DUPLICATES, NULL);
	const char *token = json_string_value(json_object_get(body, "token"));
	struct lh_err err = LH_ERR_INIT;
	struct lh_session session;
	char key[LH_SECRET_BYTES];

	if (!token) {
		lh_err_set(&err, LH_EREQUEST, "the body is not {\"token\": \"...\"}");
		lh__request_refuse(r, MHD_HTTP_BAD_REQUEST, &err);
	} else if (lh_sessions_exchange(r->http->sessions, token, lh_time_ms(), key, &session,
					&err)) {
		lh__request_refuse(r, MHD_HTTP_FORBIDDEN, &err);
	} else {
		lh_buf_printf(&r->answer,
			      "{\"key\":\"%s\",\"role\":\"%s\",\"expires_ms\":%" PRId64 "}",
			      key, session.role == LH_ROLE_STEER ? "steer" : "read",
			      session.expires_ms);
		lh__request_answer(r, MHD_HTTP_OK, "application/json");
	}
	json_decref(body);
}

static const struct lh_route routes[] = {
	{ "/session", "POST", false, 4096, session_start },
	{ "/rpc", "POST", true, 256 << 10, lh__call_start },
	{ "/events", "GET", true, 0, lh__stream_start },
	{ "/metrics", "GET", true, 0, lh__metrics_start },
};

/* What is at no other path. */
static const struct lh_route files = { .path = "", .method = "GET, HEAD" };

static const struct lh_route *find_route(const char *path)
{
	for (size_t i = 0; i < sizeof(routes) / sizeof(*routes); i++)
		if (!strcmp(routes[i].path, path))
			return &routes[i];
	return &files;
}

static bool may_be(const struct lh_route *route, const char *method)
{
	if (route == &files)
		return !strcmp(method, "GET") || !strcmp(method, "HEAD");
	return !strcmp(route->method, method);
}

/* 0, or the status to refuse it with. Who asks comes before what it asks for. */
static unsigned check_head(struct lh_request *r, const char *method, struct lh_err *err)
{
	if (check_origin(r, err))
		return MHD_HTTP_FORBIDDEN;
	if (!may_be(r->route, method)) {
		lh_err_set(err, LH_EREQUEST, "'%.20s' is no method of this path", method);
		return MHD_HTTP_METHOD_NOT_ALLOWED;
	}
	if (r->route->wants_key && check_key(r, err))
		return MHD_HTTP_UNAUTHORIZED;
	if (r->route->body_max_bytes &&
	    !is_json(header(r, MHD_HTTP_HEADER_CONTENT_TYPE))) {
		lh_err_set(err, LH_EREQUEST, "the body must be application/json");
		return MHD_HTTP_UNSUPPORTED_MEDIA_TYPE;
	}
	if (has_too_much_body(r)) {
		lh_err_set(err, LH_ETOOBIG, "the body may have %zu bytes",
			   r->route->body_max_bytes);
		return MHD_HTTP_CONTENT_TOO_LARGE;
	}
	return 0;
}

/* ---- what is called -------------------------------------------------------- */

static enum MHD_Result take_head(struct lh_request *r, const char *url, const char *method)
{
	struct lh_err err = LH_ERR_INIT;
	unsigned status;

	r->route = find_route(url);
	status = check_head(r, method, &err);
	if (!status)
		return MHD_YES;
	lh__request_refuse(r, status, &err);
	return queue_answer(r);
}

/* A body that did not say its length, and is too long, ends its connection. */
static enum MHD_Result take_body(struct lh_request *r, const char *upload, size_t *bytes)
{
	if (r->body.used_bytes + *bytes > r->route->body_max_bytes)
		return MHD_NO;
	lh_buf_append(&r->body, upload, *bytes);
	*bytes = 0;
	return MHD_YES;
}

static enum MHD_Result serve_file(struct lh_request *r, const char *url)
{
	struct lh_err err = LH_ERR_INIT;
	enum MHD_Result rc;

	lh__connection_limit(r->connection, LH_HTTP_TAKE_MS);
	if (lh__asset_queue(r->connection, url, &rc))
		return rc;
	lh_err_set(&err, LH_ENOTFOUND, "there is nothing at '%.100s'", url);
	lh__request_refuse(r, MHD_HTTP_NOT_FOUND, &err);
	return queue_answer(r);
}

static enum MHD_Result answer(struct lh_request *r, const char *url)
{
	if (r->route == &files)
		return serve_file(r, url);
	if (!r->started) {
		r->started = true;
		lh__connection_limit(r->connection, 0);
		r->route->start(r);
	}
	if (r->ready)
		return queue_answer(r);
	if (r->stream)
		return queue_take(r, MHD_HTTP_OK, lh__stream_response(r),
				  "text/event-stream");
	lh__request_suspend(r);
	return MHD_YES;
}

enum MHD_Result lh__request_take(void *http, struct MHD_Connection *connection,
				 const char *url, const char *method, const char *version,
				 const char *upload, size_t *upload_bytes, void **request)
{
	(void)version;
	if (!*request) {
		*request = request_new(http, connection);
		return take_head(*request, url, method);
	}
	return *upload_bytes ? take_body(*request, upload, upload_bytes) :
			       answer(*request, url);
}

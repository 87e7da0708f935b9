/* rpc.c: JSON-RPC 2.0; see rpc.h.
 *
 * In reading order: the ends of a call, the checks of parameters, the checks of
 * a request. Nothing here knows a method by name. jansson does the strict part
 * of reading: UTF-8, nesting of at most 2048, one value a line; we refuse
 * duplicate keys with it. */
#include "control/rpc.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/access.h"

/* ---- the ends of a call --------------------------------------------------- */

static json_t *envelope(json_t *id)
{
	json_t *m = json_object();

	json_object_set_new(m, "jsonrpc", json_string("2.0"));
	if (id)
		json_object_set(m, "id", id);
	return m;
}

static void send_take(struct lh_peer *peer, json_t *message, bool piece)
{
	struct lh_buf text = { 0 };

	lh_buf_json(&text, message);
	json_decref(message);
	peer->send(peer, &text, piece);
	lh_buf_release(&text);
}

static void end(struct lh_call *call)
{
	struct lh_peer *peer = call->peer;

	*call->link = call->next;
	if (call->next)
		call->next->link = call->link;
	peer->call_count--;
	json_decref(call->id);
	json_decref(call->params);
	free(call);
	if (peer->ended)
		peer->ended(peer);
}

void lh_call_drop(struct lh_call *call)
{
	end(call);
}

void lh_reply_ok(struct lh_call *call, json_t *result)
{
	LH_ASSERT(result);
	if (call->id) {
		json_t *m = envelope(call->id);

		json_object_set_new(m, "result", result);
		send_take(call->peer, m, false);
	} else {
		json_decref(result);
	}
	end(call);
}

void lh_reply_text(struct lh_call *call, const struct lh_buf *result)
{
	struct lh_buf m = { 0 };

	if (call->id) {
		lh_buf_printf(&m, "{\"jsonrpc\":\"2.0\",\"id\":");
		lh_buf_json(&m, call->id);
		lh_buf_printf(&m, ",\"result\":");
		lh_buf_append(&m, result->data, result->used_bytes);
		lh_buf_append(&m, "}", 1);
		call->peer->send(call->peer, &m, false);
		lh_buf_release(&m);
	}
	end(call);
}

/* Error texts quote the input; what is not UTF-8 in it must not reach JSON. */
static json_t *safe_string(const char *s)
{
	char buf[4 * sizeof(((struct lh_err *)0)->text) + 1];

	return json_string(lh_escape(buf, sizeof(buf), s));
}

static void send_error(struct lh_peer *peer, json_t *id, const struct lh_err *err)
{
	json_t *m = envelope(id), *e = json_object(), *data = json_object();

	json_object_set_new(data, "name", json_string(lh_err_name(err->code)));
	json_object_set_new(data, "hint", safe_string(err->hint));
	json_object_set_new(e, "code", json_integer(lh_err_rpc_code(err->code)));
	json_object_set_new(e, "message", safe_string(err->text));
	json_object_set_new(e, "data", data);
	json_object_set_new(m, "error", e);
	send_take(peer, m, false);
}

void lh_reply_err(struct lh_call *call, const struct lh_err *err)
{
	LH_ASSERT(err->code < 0);
	if (call->id)
		send_error(call->peer, call->id, err);
	end(call);
}

void lh_rpc_refuse(struct lh_peer *peer, const struct lh_err *err)
{
	send_error(peer, json_null(), err);
}

void lh_call_piece(struct lh_call *call, const char *method, const json_t *piece)
{
	json_t *m, *params;

	if (!call->id)
		return;
	m = envelope(NULL);
	params = json_object();
	json_object_set(params, "id", call->id);
	json_object_update(params, (json_t *)piece);
	json_object_set_new(m, "method", json_string(method));
	json_object_set_new(m, "params", params);
	send_take(call->peer, m, true);
}

void lh_peer_lost(struct lh_peer *peer)
{
	struct lh_call *call, *next;

	for (call = peer->calls; call; call = next) {
		next = call->next;
		if (call->gone)
			call->gone(call);
	}
}

/* ---- parameters ----------------------------------------------------------- */

int64_t lh_call_int(const struct lh_call *call, const char *name, int64_t absent)
{
	json_t *v = json_object_get(call->params, name);

	return v ? json_integer_value(v) : absent;
}

bool lh_call_bool(const struct lh_call *call, const char *name, bool absent)
{
	json_t *v = json_object_get(call->params, name);

	return v ? json_is_true(v) : absent;
}

const char *lh_call_str(const struct lh_call *call, const char *name,
			const char *absent)
{
	json_t *v = json_object_get(call->params, name);

	return v ? json_string_value(v) : absent;
}

static const char *const type_words[] = { "any value", "an integer", "a number",
					  "a string",  "true or false",
					  "an object", "an array" };

static bool has_type(const json_t *v, enum lh_rpc_type type)
{
	switch (type) {
	case LH_RPC_ANY:
		return true;
	case LH_RPC_INTEGER:
		return json_is_integer(v);
	case LH_RPC_NUMBER:
		return json_is_number(v);
	case LH_RPC_STRING:
		return json_is_string(v);
	case LH_RPC_BOOLEAN:
		return json_is_boolean(v);
	case LH_RPC_OBJECT:
		return json_is_object(v);
	case LH_RPC_ARRAY:
		return json_is_array(v);
	}
	LH_BUG("no such type of parameter: %d", (int)type);
}

static void put(char *out, size_t out_bytes, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Appends, as far as there is room. */
static void put(char *out, size_t out_bytes, const char *fmt, ...)
{
	size_t n = strlen(out);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(out + n, out_bytes - n, fmt, ap);
	va_end(ap);
}

/* "an integer from 1 to 10000", "one of 'final', 'all'". */
static const char *allowed(const struct lh_rpc_param *p, char *out, size_t bytes)
{
	int i;

	out[0] = '\0';
	if (p->values) {
		put(out, bytes, "one of");
		for (i = 0; p->values[i]; i++)
			put(out, bytes, "%s '%s'", i ? "," : "", p->values[i]);
		return out;
	}
	put(out, bytes, "%s", type_words[p->type]);
	if (isfinite(p->min) && isfinite(p->max))
		put(out, bytes, " from %.17g to %.17g", p->min, p->max);
	else if (isfinite(p->min))
		put(out, bytes, " of at least %.17g", p->min);
	else if (isfinite(p->max))
		put(out, bytes, " of at most %.17g", p->max);
	if (p->items)
		put(out, bytes, " with %s in each place", type_words[p->items]);
	if (p->max_bytes)
		put(out, bytes, " of at most %zu bytes", p->max_bytes);
	return out;
}

/* What was found, short: a long value is named by its size. */
static const char *found(const json_t *v, char *out, size_t bytes)
{
	char text[64];
	size_t n = json_dumpb(v, text, sizeof(text), JSON_COMPACT | JSON_ENCODE_ANY);

	out[0] = '\0';
	if (n && n < sizeof(text))
		put(out, bytes, "%.*s", (int)n, text);
	else if (json_is_string(v))
		put(out, bytes, "a string of %zu bytes", json_string_length(v));
	else
		put(out, bytes, "%s of %zu values",
		    json_is_array(v) ? "an array" : "an object",
		    json_is_array(v) ? json_array_size(v) : json_object_size(v));
	return out;
}

static bool string_fits(const struct lh_rpc_param *p, const json_t *v)
{
	int i;

	if (p->max_bytes && json_string_length(v) > p->max_bytes)
		return false;
	if (!p->values)
		return true;
	for (i = 0; p->values[i]; i++)
		if (!strcmp(p->values[i], json_string_value(v)))
			return true;
	return false;
}

static bool fits(const struct lh_rpc_param *p, const json_t *v)
{
	json_t *item;
	size_t i;

	if (!has_type(v, p->type))
		return false;
	if (json_is_number(v))
		return json_number_value(v) >= p->min &&
		       json_number_value(v) <= p->max;
	if (json_is_string(v))
		return string_fits(p, v);
	json_array_foreach (v, i, item)
		if (!has_type(item, p->items))
			return false;
	return true;
}

static int check_param(const struct lh_rpc_param *p, const json_t *v,
		       struct lh_err *err)
{
	char a[256], f[128];

	if (!v && !p->required)
		return 0;
	if (!v)
		lh_err_set(err, LH_EPARAMS,
			   "parameter '%s' is missing; it must be %s", p->name,
			   allowed(p, a, sizeof(a)));
	else if (!fits(p, v))
		lh_err_set(err, LH_EPARAMS,
			   "parameter '%s' is %s; it must be %s", p->name,
			   found(v, f, sizeof(f)), allowed(p, a, sizeof(a)));
	else
		return 0;
	return lh_err_hint(err, "%s: %s", p->name, p->doc);
}

static int unknown_param(const struct lh_rpc_method *m, const char *name,
			 struct lh_err *err)
{
	char list[sizeof(err->hint)] = "";
	int i;

	for (i = 0; i < m->param_count; i++)
		put(list, sizeof(list), "%s '%s'", i ? "," : "", m->params[i].name);
	lh_err_set(err, LH_EPARAMS, "unknown parameter '%.100s'", name);
	return lh_err_hint(err, "%s takes%s", m->name, *list ? list : " none");
}

static int check_params(const struct lh_rpc_method *m, json_t *params,
			struct lh_err *err)
{
	size_t given = 0;
	const char *name;
	json_t *v;
	int i;

	for (i = 0; i < m->param_count; i++) {
		v = json_object_get(params, m->params[i].name);
		given += v != NULL;
		if (check_param(&m->params[i], v, err))
			return err->code;
	}
	if (given == json_object_size(params))
		return 0;
	json_object_foreach (params, name, v) {
		for (i = 0; i < m->param_count; i++)
			if (!strcmp(name, m->params[i].name))
				break;
		if (i == m->param_count)
			return unknown_param(m, name, err);
	}
	LH_BUG("%s: a parameter was counted twice", m->name);
}

/* ---- requests ------------------------------------------------------------- */

static const struct lh_rpc_method *find(const struct lh_rpc *rpc, const char *name)
{
	int i;

	for (i = 0; i < rpc->method_count; i++)
		if (!strcmp(rpc->methods[i].name, name))
			return &rpc->methods[i];
	return NULL;
}

static struct lh_call *call_new(const struct lh_rpc *rpc, struct lh_peer *peer,
				json_t *id, json_t *params)
{
	struct lh_call *call = lh_calloc(1, sizeof(*call));

	call->rpc = rpc;
	call->peer = peer;
	call->id = json_incref(id);
	call->params = params ? json_incref(params) : json_object();
	call->next = peer->calls;
	call->link = &peer->calls;
	if (call->next)
		call->next->link = &call->next;
	peer->calls = call;
	peer->call_count++;
	return call;
}

/* Protocol first: what is refused here has no method yet. */
static int check_request(json_t *request, struct lh_err *err)
{
	json_t *id = json_object_get(request, "id");
	json_t *params = json_object_get(request, "params");
	const char *version;

	if (json_is_array(request))
		return lh_err_set(err, LH_EREQUEST,
				  "one object a line; batches are not supported");
	if (!json_is_object(request))
		return lh_err_set(err, LH_EREQUEST, "a request must be an object");
	version = json_string_value(json_object_get(request, "jsonrpc"));
	if (!version || strcmp(version, "2.0"))
		return lh_err_set(err, LH_EREQUEST, "'jsonrpc' must be \"2.0\"");
	if (!json_is_string(json_object_get(request, "method")))
		return lh_err_set(err, LH_EREQUEST, "'method' must be a string");
	if (id && !json_is_string(id) && !json_is_number(id) && !json_is_null(id))
		return lh_err_set(err, LH_EREQUEST,
				  "'id' must be a string, a number or null");
	if (params && !json_is_object(params) && !json_is_array(params))
		return lh_err_set(err, LH_EREQUEST, "'params' must be an object");
	return 0;
}

static void deny(struct lh_call *call)
{
	const struct lh_rpc *rpc = call->rpc;
	struct lh_err err = LH_ERR_INIT;

	lh_err_set(&err, LH_EDENIED, "uid %lld may not call %s: that takes the role '%s', it "
		   "has '%s'", (long long)call->peer->uid, call->method->name,
		   lh_access_role_name(call->method->role),
		   lh_access_role_name(call->peer->role));
	lh_err_hint(&err, "%s", call->peer->role_hint ? call->peer->role_hint :
		    "lhd's own user and root may; lhd --allow gives others a role");
	if (rpc->denied)
		rpc->denied(rpc->ctx, call->peer, call->method->name);
	lh_reply_err(call, &err);
}

static void dispatch(struct lh_call *call, const char *name)
{
	struct lh_err err = LH_ERR_INIT;

	call->method = find(call->rpc, name);
	if (!call->method) {
		lh_err_set(&err, LH_EMETHOD, "no method is named '%.100s'", name);
		lh_err_hint(&err, "an older lhd may lack it; see daemon.info");
		lh_reply_err(call, &err);
		return;
	}
	if (call->method->role > call->peer->role) {
		deny(call);
		return;
	}
	if (!json_is_object(call->params)) {
		lh_err_set(&err, LH_EPARAMS,
			   "parameters are given by name, in an object");
		lh_reply_err(call, &err);
		return;
	}
	if (check_params(call->method, call->params, &err))
		lh_reply_err(call, &err);
	else
		call->method->handler(call);
}

void lh_rpc_line(const struct lh_rpc *rpc, struct lh_peer *peer, const char *line,
		 size_t len)
{
	struct lh_err err = LH_ERR_INIT;
	json_error_t e;
	json_t *request = json_loadb(line, len,
				     JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
	json_t *id;

	if (!request) {
		lh_err_set(&err, LH_EPARSE, "byte %d: %.160s", e.position, e.text);
		lh_rpc_refuse(peer, &err);
		return;
	}
	id = json_object_get(request, "id");
	if (check_request(request, &err)) {
		send_error(peer,
			   json_is_string(id) || json_is_number(id) ? id :
								      json_null(),
			   &err);
		json_decref(request);
		return;
	}
	dispatch(call_new(rpc, peer, id, json_object_get(request, "params")),
		 json_string_value(json_object_get(request, "method")));
	json_decref(request);
}

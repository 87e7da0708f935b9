/* rpc.h: JSON-RPC 2.0 calls: from a line to a handler, and back.
 *
 * One line holds one request object. rpc.c checks it against the protocol, finds
 * the method in a table generated from schema/rpc/ and checks the parameters
 * against it, so that a handler gets only what its file allows. It knows nothing
 * of sockets: a peer is where messages go.
 *
 *   call        answered
 *   ----------  -----------------------------------------------------------
 *   not JSON    LH_EPARSE, id null
 *   not allowed LH_EDENIED: the peer's role is less than the method's
 *   not a call  LH_EREQUEST, with the id if it could be read. Batches: never
 *   no "id"     a notification: done, but never answered, whatever happens
 *   else        a result, or {code, message, data: {name, hint}}
 *
 * Every call ends exactly once: lh_reply_ok, _text, _err or lh_call_drop, at
 * once or later. The peer must outlive its calls; see lh_peer_lost. Loop thread.
 */
#ifndef LIGHTHOUSE_RPC_H
#define LIGHTHOUSE_RPC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "lighthouse/err.h"

enum lh_rpc_type {
	LH_RPC_ANY,
	LH_RPC_INTEGER,
	LH_RPC_NUMBER,
	LH_RPC_STRING,
	LH_RPC_BOOLEAN,
	LH_RPC_OBJECT,
	LH_RPC_ARRAY,
};

enum lh_role { LH_ROLE_READ, LH_ROLE_STEER, LH_ROLE_SUBMIT };

struct lh_access;
struct lh_call;
struct lh_peer;

/* One parameter, as in its schema. */
struct lh_rpc_param {
	const char *name;
	enum lh_rpc_type type;
	enum lh_rpc_type items;     /* of an array */
	bool required;
	double min, max;            /* of numbers; infinite = no limit */
	size_t max_bytes;           /* of strings; 0 = no limit */
	const char *const *values;  /* of strings, NULL-terminated; NULL = any */
	const char *doc;
};

struct lh_rpc_method {
	const char *name;
	const char *summary;
	enum lh_role role;
	const struct lh_rpc_param *params;
	int param_count;
	void (*handler)(struct lh_call *call);
};

struct lh_rpc {
	const struct lh_rpc_method *methods;
	int method_count;
	void *ctx;                  /* for handlers */
	const struct lh_access *access; /* who may call, besides the owner; or NULL */
	/* Told of a method that a peer may not call; NULL method: may not connect. */
	void (*denied)(void *ctx, const struct lh_peer *peer, const char *method);
};

/* Who calls, and where messages go. */
struct lh_peer {
	/* Takes a message, as JSON without a newline, to the peer; borrowed. `piece`: it
	 * is one on the way, not the answer. */
	void (*send)(struct lh_peer *peer, const struct lh_buf *message, bool piece);
	/* A call ended, answered or not; after its message was sent. */
	void (*ended)(struct lh_peer *peer);
	struct lh_feed *feed;       /* its subscriptions (subscribe.h); NULL: takes none */
	int64_t uid, pid;           /* pid 0: not known */
	const char *program;        /* what it is, for the journal; NULL: as it says itself */
	enum lh_role role;          /* the greatest that it may call */
	const char *role_hint;      /* how it gets a greater one; NULL: by lhd --allow */
	struct lh_call *calls;      /* private: not ended yet */
	int call_count;             /* how many */
};

struct lh_call {
	const struct lh_rpc *rpc;
	const struct lh_rpc_method *method;
	struct lh_peer *peer;
	json_t *id;                 /* NULL: a notification */
	json_t *params;             /* an object, checked */
	/* Set by a handler that answers later and wants to stop early when nobody
	 * waits any more: must end the call. */
	void (*gone)(struct lh_call *call);
	void *handler_data;         /* for `gone` */
	struct lh_call *next, **link;
};

/* One line, NUL-terminated, borrowed. */
void lh_rpc_line(const struct lh_rpc *rpc, struct lh_peer *peer, const char *line,
		 size_t len);
/* An error that answers no call in particular (id null). */
void lh_rpc_refuse(struct lh_peer *peer, const struct lh_err *err);
/* The peer will read nothing more: runs `gone` of the calls that have one.
 * Others end when their work does; what they send goes to the peer still. */
void lh_peer_lost(struct lh_peer *peer);

/* Ends of a call; `call` is freed. */
void lh_reply_ok(struct lh_call *call, json_t *result /* stolen */);
/* The result as JSON, made where it held nobody up; borrowed. */
void lh_reply_text(struct lh_call *call, const struct lh_buf *result);
void lh_reply_err(struct lh_call *call, const struct lh_err *err);
void lh_call_drop(struct lh_call *call);
/* A message on the way: {"id": the call's, ...piece} as notification `method`. */
void lh_call_piece(struct lh_call *call, const char *method, const json_t *piece);

/* A parameter's value; what `absent` says when it was not given. Strings live as
 * long as the call. */
int64_t lh_call_int(const struct lh_call *call, const char *name, int64_t absent);
bool lh_call_bool(const struct lh_call *call, const char *name, bool absent);
const char *lh_call_str(const struct lh_call *call, const char *name,
			const char *absent);

#endif

/* call.c: POST /rpc: one call, over the same dispatch as the control socket.
 *
 * The request is the peer. Its one call ends before it is freed; a notification (no id)
 * ends without a message and is answered 204. Pieces of a sample are not passed on: its
 * result has the whole text. */
#include "base/log.h"
#include "http/http_int.h"

static void on_send(struct lh_peer *peer, const struct lh_buf *message, bool piece)
{
	struct lh_request *r = (struct lh_request *)peer;

	if (r->ready || piece)
		return;
	lh_buf_append(&r->answer, message->data, message->used_bytes);
	lh__request_answer(r, MHD_HTTP_OK, "application/json");
}

static void on_ended(struct lh_peer *peer)
{
	struct lh_request *r = (struct lh_request *)peer;

	if (!r->ready)
		lh__request_answer(r, MHD_HTTP_NO_CONTENT, "application/json");
	lh__request_settle(r);
}

void lh__call_start(struct lh_request *r)
{
	r->peer.send = on_send;
	r->peer.ended = on_ended;
	r->peer.uid = r->session.uid;
	r->peer.program = "page";
	r->peer.role = r->session.role;
	r->peer.role_hint = r->session.role == LH_ROLE_READ ?
		"'lhctl dashboard --steer' prints an address of a page that may steer" :
		"lhd's own user and root may, by lhctl";
	lh_buf_append(&r->body, "", 1); /* as text; the NUL is not counted */
	r->pending++; /* it is not freed under our feet */
	lh_rpc_line(r->http->config.rpc, &r->peer, r->body.data, r->body.used_bytes - 1);
	r->pending--;
}

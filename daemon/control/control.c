/* control.c: the server and the generated table put together; see control.h. */
#include "control/control.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/fs.h"
#include "base/log.h"
#include "devices/devices.h"
#include "http/http.h"
#include "lighthouse/proto.h"
#include "rpc_table.h"

/* ---- what was denied ------------------------------------------------------- */

enum { TELL_EVERY_MS = 10000 };

/* Journals it; of one user once in TELL_EVERY_MS, with the number of those between. */
static void on_denied(void *ctx, const struct lh_peer *peer, const char *method)
{
	struct lh_control *c = ctx;
	struct lh_denials *d = &c->denials;
	int64_t now_ms = (int64_t)uv_now(c->loop);
	struct lh_caller who = { .uid = peer->uid, .pid = peer->pid,
				  .program = peer->program ? peer->program : "" };
	int i = 0, n = sizeof(d->of) / sizeof(d->of[0]);

	while (i < n && d->of[i].uid != peer->uid)
		i++;
	if (i == n) {
		i = d->next++ % n;
		d->of[i].uid = peer->uid;
		d->of[i].told_ms = now_ms - TELL_EVERY_MS;
		d->of[i].untold = 0;
	}
	if (now_ms - d->of[i].told_ms < TELL_EVERY_MS) {
		d->of[i].untold++;
		return;
	}
	lh_jobs_note_denied(c->jobs, &who, method ? method : "connect", d->of[i].untold);
	d->of[i].told_ms = now_ms;
	d->of[i].untold = 0;
}

/* ---- open and closed ------------------------------------------------------- */

/* A port that was asked for and is not to be had is an error; that there is no other
 * one is not: lhd can do without its page. */
static int open_page(struct lh_control *c, struct lh_err *err)
{
	struct lh_http_config page = {
		.loop = c->loop,
		.state_dir = c->config.state_dir,
		.port = c->config.page_port,
		.generation = c->config.generation,
		.rpc = &c->rpc,
		.server = c->server,
		.jobs = c->jobs,
		.store = c->store,
		.devices = c->devices,
	};
	int rc = lh_http_open(&c->http, &page, err);

	if (!rc || page.port)
		return rc;
	lh_log_err(LH_LOG_WARN, "no page is served", err);
	return 0;
}

int lh_control_open(struct lh_control **control, uv_loop_t *loop,
		    struct lh_jobs *jobs, struct lh_store *store,
		    const struct lh_control_config *config, struct lh_err *err)
{
	struct lh_control *c = lh_calloc(1, sizeof(*c));
	char *path = lh_asprintf("%s/%s", config->state_dir,
				 LH_STATE_CONTROL_SOCKET);
	int rc;

	c->config = *config;
	c->loop = loop;
	c->jobs = jobs;
	c->store = store;
	c->started_ms = lh_time_ms();
	c->rpc = (struct lh_rpc){ lh_rpc_methods, lh_rpc_method_count, c, config->access,
				  on_denied };
	for (size_t i = 0; i < sizeof(c->denials.of) / sizeof(c->denials.of[0]); i++)
		c->denials.of[i].uid = -1;
	rc = lh_server_open(&c->server, loop, path, &c->rpc, err);
	free(path);
	if (rc) {
		free(c);
		return rc;
	}
	c->devices = lh_devices_new(loop, jobs, config->state_dir, config->bin_dir);
	*control = c;
	return config->page_port == LH_CONTROL_NO_PAGE ? 0 : open_page(c, err);
}

void lh_control_publish(struct lh_control *c, const struct lh_event *ev)
{
	lh_hub_publish(lh_server_hub(c->server), ev);
}

void lh_control_stop_accepting(struct lh_control *c)
{
	lh_server_stop_accepting(c->server);
	if (c->http)
		lh_http_stop_accepting(c->http);
}

static void on_devices_closed(void *arg)
{
	struct lh_control *c = arg;
	void (*closed)(void *arg) = c->closed_cb;
	void *closed_arg = c->closed_arg;

	free(c);
	closed(closed_arg);
}

/* No call waits any more. */
static void on_server_closed(void *arg)
{
	struct lh_control *c = arg;

	lh_devices_close(c->devices, on_devices_closed, c);
}

static void on_page_closed(void *arg)
{
	struct lh_control *c = arg;

	c->http = NULL;
	lh_server_close(c->server, on_server_closed, c);
}

void lh_control_close(struct lh_control *c, void (*closed)(void *arg), void *arg)
{
	c->closed_cb = closed;
	c->closed_arg = arg;
	/* First the page: its feeds hang on the server's hub. */
	if (c->http)
		lh_http_close(c->http, on_page_closed, c);
	else
		lh_server_close(c->server, on_server_closed, c);
}

struct lh_control *lh_control_of(const struct lh_call *call)
{
	return call->rpc->ctx;
}

bool lh_control_find_job(struct lh_call *call, int64_t *job)
{
	struct lh_err err = LH_ERR_INIT;

	*job = lh_call_int(call, "job", 0);
	if (!*job || lh_jobs_exists(lh_control_of(call)->jobs, *job))
		return true;
	lh_err_set(&err, LH_ENOTFOUND, "there is no job %" PRId64, *job);
	lh_err_hint(&err, "job.list shows all jobs");
	lh_reply_err(call, &err);
	return false;
}

struct lh_caller lh_control_caller(const struct lh_call *call)
{
	return (struct lh_caller){
		.uid = call->peer->uid,
		.pid = call->peer->pid,
		.program = call->peer->program ? call->peer->program :
						 lh_call_str(call, "program", ""),
		.request_id = lh_call_str(call, "request_id", NULL),
		.message = lh_call_str(call, "message", ""),
	};
}

void lh_control_answer(void *arg, json_t *result, const struct lh_err *err)
{
	struct lh_call *call = arg;

	if (result)
		lh_reply_ok(call, json_incref(result));
	else
		lh_reply_err(call, err);
}

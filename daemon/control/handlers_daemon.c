/* handlers_daemon.c: methods about lhd itself, and subscriptions. */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "control/access.h"
#include "control/control.h"
#include "devices/devices.h"
#include "http/http.h"
#include "lighthouse/proto.h"
#include "lighthouse/version.h"
#include "rpc_table.h"

void rpc_daemon_info(struct lh_call *call)
{
	struct lh_control *c = lh_control_of(call);
	const struct lh_gpu *gpu = lh_jobs_gpu(c->jobs);
	json_t *r = json_object();

	json_object_set_new(r, "version", json_string(LH_VERSION));
	json_object_set_new(r, "pid", json_integer(getpid()));
	json_object_set_new(r, "generation", json_integer(c->config.generation));
	json_object_set_new(r, "started_ms", json_integer(c->started_ms));
	json_object_set_new(r, "state_dir", json_string(c->config.state_dir));
	json_object_set_new(r, "database",
			    json_sprintf("%s/%s", c->config.state_dir,
					 LH_STATE_DB));
	json_object_set_new(r, "jobs", json_integer(lh_jobs_count(c->jobs)));
	json_object_set_new(r, "clients",
			    json_integer(lh_server_clients(c->server)));
	json_object_set_new(r, "gpu", json_string(gpu->usable ? gpu->name :
								gpu->why.text));
	json_object_set_new(r, "workers", json_integer(lh_jobs_workers(c->jobs)));
	json_object_set_new(r, "page", c->http ? json_string(lh_http_address(c->http)) :
						 json_null());
	json_object_set_new(r, "foreign_workers", lh_jobs_foreign_workers(c->jobs));
	lh_reply_ok(call, r);
}

static void on_devices(void *arg, json_t *devices)
{
	lh_reply_ok(arg, json_incref(devices));
}

void rpc_daemon_devices(struct lh_call *call)
{
	lh_devices_ask(lh_control_of(call)->devices, on_devices, call);
}

void rpc_daemon_dashboard(struct lh_call *call)
{
	enum lh_role role = lh_call_bool(call, "steer", false) ? LH_ROLE_STEER : LH_ROLE_READ;
	struct lh_http *http = lh_control_of(call)->http;
	struct lh_err err = LH_ERR_INIT;
	int64_t expires_ms;
	char *url;

	if (!http) {
		lh_err_set(&err, LH_EUNSUPPORTED, "this lhd serves no page");
		lh_err_hint(&err, "start it without --no-page; its log says if there is "
				  "another reason");
		lh_reply_err(call, &err);
		return;
	}
	url = lh_http_dashboard(http, call->peer->uid, role, &expires_ms);
	lh_info("page: uid %lld asked for an address, to %s", (long long)call->peer->uid,
		lh_access_role_name(role));
	lh_reply_ok(call, json_pack("{s:s, s:s, s:I}", "url", url, "role",
				    lh_access_role_name(role), "expires_ms",
				    (json_int_t)expires_ms));
	free(url);
}

void rpc_daemon_stop(struct lh_call *call)
{
	struct lh_control *c = lh_control_of(call);

	lh_reply_ok(call, json_pack("{s:s}", "state", "stopping"));
	c->config.stop(c->config.arg);
}

static void on_restart_journalled(void *arg, json_t *result, const struct lh_err *err)
{
	struct lh_call *call = arg;
	struct lh_control *c = lh_control_of(call);

	if (!result) {
		lh_reply_err(call, err);
		return;
	}
	lh_reply_ok(call, json_incref(result));
	c->config.restart(c->config.arg);
}

void rpc_daemon_restart(struct lh_call *call)
{
	struct lh_caller who = lh_control_caller(call);

	lh_jobs_restart(lh_control_of(call)->jobs, &who, on_restart_journalled, call);
}

void rpc_job_subscribe(struct lh_call *call)
{
	struct lh_control *c = lh_control_of(call);
	struct lh_err err = LH_ERR_INIT;
	int64_t job, id;

	if (!call->peer->feed) {
		lh_err_set(&err, LH_EUNSUPPORTED, "nothing can be pushed over this connection");
		lh_err_hint(&err, "the page's GET /events pushes the same");
		lh_reply_err(call, &err);
		return;
	}
	if (!lh_control_find_job(call, &job))
		return;
	id = lh_feed_add(call->peer->feed, job, lh_call_bool(call, "steps", false),
			 &err);
	if (id < 0)
		lh_reply_err(call, &err);
	else
		lh_reply_ok(call, json_pack("{s:I,s:I}", "subscription",
					    (json_int_t)id, "last_event",
					    (json_int_t)lh_jobs_last_event(c->jobs)));
}

void rpc_job_unsubscribe(struct lh_call *call)
{
	struct lh_err err = LH_ERR_INIT;
	int64_t id = lh_call_int(call, "subscription", 0);

	if (!call->peer->feed) {
		lh_err_set(&err, LH_ENOTFOUND, "this connection has no subscriptions");
		lh_reply_err(call, &err);
		return;
	}
	if (lh_feed_remove(call->peer->feed, id, &err))
		lh_reply_err(call, &err);
	else
		lh_reply_ok(call, json_pack("{s:I}", "subscription", (json_int_t)id));
}

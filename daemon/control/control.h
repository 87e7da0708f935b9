/* control.h: the control interface of lhd: the socket, with all methods behind, and the
 * page's server, which has the same ones.
 *
 * One handler a method, named after it (job.switch: rpc_job_switch), in
 * handlers_daemon.c, handlers_job.c (what changes a job or talks to its worker),
 * handlers_rule.c; handlers_read.c, handlers_metrics.c and handlers_logs.c (what is
 * looked up). Handlers answer from memory at once; what needs the disk goes to the
 * thread pool first.
 *
 * To add a method: a file in schema/rpc/, a handler. Loop thread.
 */
#ifndef LIGHTHOUSE_CONTROL_H
#define LIGHTHOUSE_CONTROL_H

#include <stdint.h>
#include <uv.h>

#include "control/rpc.h"
#include "control/server.h"
#include "jobs/jobs.h"
#include "lighthouse/err.h"
#include "store/store.h"

enum { LH_CONTROL_NO_PAGE = -1 };

struct lh_control_config {
	const char *state_dir;      /* absolute; borrowed while it is open */
	const char *bin_dir;        /* where lhgpus lies; borrowed while it is opened */
	int64_t generation;         /* of this lhd */
	const struct lh_access *access; /* borrowed while it is open */
	int page_port;              /* of http/http.h; LH_CONTROL_NO_PAGE: none is served */
	void (*stop)(void *arg);    /* daemon.stop was called; on the loop */
	void (*restart)(void *arg); /* daemon.restart, once it is journalled */
	void *arg;
};

struct lh_devices;
struct lh_http;

/* What was refused lately, so that asking again and again fills no disk. */
struct lh_denials {
	struct {
		int64_t uid, told_ms;
		int untold;
	} of[16];
	int next;
};

struct lh_control {
	struct lh_control_config config; /* all set at open */
	uv_loop_t *loop;
	struct lh_jobs *jobs;
	struct lh_store *store;
	int64_t started_ms;
	struct lh_rpc rpc;
	struct lh_denials denials;
	struct lh_server *server;
	struct lh_devices *devices;
	struct lh_http *http;       /* NULL: no page is served */
	void (*closed_cb)(void *arg);
	void *closed_arg;
};

/* Serves STATE/control.sock, and the page. Jobs and store must outlive it. */
int lh_control_open(struct lh_control **control, uv_loop_t *loop,
		    struct lh_jobs *jobs, struct lh_store *store,
		    const struct lh_control_config *config, struct lh_err *err);
/* An event or step for the subscribers. */
void lh_control_publish(struct lh_control *c, const struct lh_event *ev);
void lh_control_stop_accepting(struct lh_control *c);
/* Ends the connections; calls that wait for jobs or store end first, so close
 * this before them. */
void lh_control_close(struct lh_control *c, void (*closed)(void *arg), void *arg);

/* The control of a call, for handlers. */
struct lh_control *lh_control_of(const struct lh_call *call);
/* The job of a call; false, and the call answered LH_ENOTFOUND, if its id is
 * no job's. Absent: 0 and true. */
bool lh_control_find_job(struct lh_call *call, int64_t *job);
/* Who made a call, for the journal. Its strings are the call's. */
struct lh_caller lh_control_caller(const struct lh_call *call);
/* An lh_jobs_reply: answers the call that `arg` is. */
void lh_control_answer(void *arg, json_t *result, const struct lh_err *err);

#endif

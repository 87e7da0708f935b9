/* cmd_events.c: what happened, and what happens.
 *
 * Following, the store is read behind the newest event printed whenever the daemon
 * says that there is a newer one. What it says only wakes: so no event is missed
 * between the reading and the listening, or when it says that some were lost, and
 * none is printed twice. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"

enum { DEFAULT_ROWS = 1000, FOLLOW_ROWS = 10 };

static const struct ctl_option options[] = {
	{ "follow", 'f', NULL, false, "go on as events happen, until Ctrl-C" },
	{ "since", 0, "WHEN", false, "behind an id, from a time, or 10m, 2h, 3d ago on" },
	{ "kind", 0, "KIND", false, "only of this kind; 'job.*' stands for all such" },
	{ "limit", 0, "N", false, "the newest N (1000; 10 with -f; with --since all)" },
	{ "json", 0, NULL, false, "the daemon's answer, as data; with -f an event a line" },
	{ NULL },
};

struct events {
	const struct ctl *c;
	struct ctl_table *table;
	int64_t told;    /* newest the daemon spoke of */
	bool lost;       /* it spoke of some without their ids */
};

static void add_id(struct ctl_table *t, const json_t *e, const char *key)
{
	if (ctl_has(e, key))
		ctl_table_addf(t, "%" PRId64, ctl_int(e, key));
	else
		ctl_table_add(t, "-");
}

static void print_row(void *arg, const json_t *e)
{
	struct events *ev = arg;
	struct ctl_table *t = ev->table;
	char when[32];

	ctl_time(when, ctl_int(e, "time_ms"));
	add_id(t, e, "id");
	ctl_table_add(t, when);
	add_id(t, e, "job");
	add_id(t, e, "step");
	ctl_table_add(t, ctl_str(e, "kind"));
	ctl_table_add(t, ctl_str(e, "text"));
}

static void flush(void *arg)
{
	ctl_table_flush(((struct events *)arg)->table);
}

static void go_on(json_t *params, const json_t *last)
{
	json_object_set_new(params, "after_id", json_integer(ctl_int(last, "id")));
}

/* What the daemon is asked, but for where to begin. */
static json_t *filters(const struct ctl *c)
{
	const char *kind = ctl_opt(c, "kind");
	json_t *params = json_object();

	if (kind)
		json_object_set_new(params, "kind", ctl_text(c, "the kind", kind));
	return params;
}

/* Sets where the reading begins; the rows to read, -1 all. */
static int64_t begin(const struct ctl *c, json_t *params)
{
	struct ctl_since since = ctl_opt_since(c);
	int64_t few = ctl_opt(c, "follow") ? FOLLOW_ROWS : DEFAULT_ROWS;
	int64_t limit = ctl_opt_int(c, "limit", since.given ? -1 : few, 1, 10000);

	if (since.after_id)
		json_object_set_new(params, "after_id", json_integer(since.after_id));
	if (since.ms)
		json_object_set_new(params, "since_ms", json_integer(since.ms));
	if (limit >= 0)
		json_object_set_new(params, "newest", json_true());
	return limit;
}

static int print_stored(struct ctl_client *k, struct events *ev, json_t *params,
			int64_t limit)
{
	struct ctl_pages pages = { .method = "job.events", .list = "events",
				   .params = params, .limit = limit, .go_on = go_on,
				   .print = print_row, .flush = flush, .arg = ev };
	bool more;
	int rc = ctl_pages_print(ev->c, k, &pages, &more);

	if (rc == CTL_DONE && more && !ctl_opt(ev->c, "limit"))
		fputs("there are older ones; --limit and --since choose\n", stderr);
	return rc;
}

/* ---- following ------------------------------------------------------------- */

static void on_note(void *arg, const char *method, json_t *params)
{
	struct events *ev = arg;

	if (!strcmp(method, "event") && ctl_int(params, "id") > ev->told)
		ev->told = ctl_int(params, "id");
	ev->lost |= !strcmp(method, "lost");
}

/* What is stored behind params.after_id: the newest `limit`, or -1: all. */
static int print_newer(struct ctl_client *k, struct events *ev, json_t *params,
		       int64_t limit)
{
	struct lh_err err = LH_ERR_INIT;
	int64_t told = ev->told;
	bool more = true;

	ev->lost = false;
	json_object_set_new(params, "limit", json_integer(limit < 0 ? 10000 : limit));
	while (more) {
		json_t *result = ctl_call(k, "job.events", json_incref(params), &err), *e;
		size_t i;

		if (!result)
			return ctl_fail(&err);
		json_array_foreach (json_object_get(result, "events"), i, e) {
			if (ctl_opt(ev->c, "json"))
				ctl_print_json_line(e);
			else
				print_row(ev, e);
			go_on(params, e);
		}
		more = limit < 0 && json_is_true(json_object_get(result, "more"));
		json_decref(result);
		ctl_table_flush(ev->table);
	}
	/* What was told of by then and does not match is not looked at again. */
	if (told > ctl_int(params, "after_id"))
		json_object_set_new(params, "after_id", json_integer(told));
	return CTL_DONE;
}

static int follow(struct ctl_client *k, struct events *ev, json_t *params, int64_t job,
		  int64_t limit)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *sub;
	int rc;

	ctl_on_note(k, on_note, ev);
	sub = ctl_call(k, "job.subscribe",
		       job ? json_pack("{s:I}", "job", (json_int_t)job) : NULL, &err);
	if (!sub)
		return ctl_fail(&err);
	ev->told = ctl_int(sub, "last_event");
	json_decref(sub);
	rc = print_newer(k, ev, params, limit);
	json_object_del(params, "newest");
	json_object_del(params, "since_ms");
	while (rc == CTL_DONE) {
		while (!ev->lost && ev->told <= ctl_int(params, "after_id"))
			if ((rc = ctl_listen(k, -1, &err)) && rc != LH_ETIMEOUT)
				return ctl_fail(&err);
		rc = print_newer(k, ev, params, -1);
	}
	return rc;
}

static int run(struct ctl *c)
{
	static const char *const heads[] = { "ID", "TIME", "JOB", "STEP", "KIND", "TEXT" };
	struct events ev = { .c = c };
	json_t *params = filters(c);
	int64_t limit = begin(c, params), job = 0;
	struct ctl_client *k = ctl_connect(c);
	int rc = k ? CTL_DONE : CTL_UNREACHABLE;

	ev.table = ctl_table_new(6, heads);
	if (k && c->arg_count)
		rc = ctl_job(k, c->args[0], &job);
	if (job)
		json_object_set_new(params, "job", json_integer(job));
	if (rc == CTL_DONE)
		rc = ctl_opt(c, "follow") ? follow(k, &ev, params, job, limit) :
					    print_stored(k, &ev, params, limit);
	ctl_table_free(ev.table);
	json_decref(params);
	if (k)
		ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_events = {
	"events", "[JOB]",
	"Print what happened, of one job or all, and with -f what happens.\n"
	"Columns: id, time, job, step, kind, text.",
	"  lhctl events my-job --since 2h --kind 'command.*'\n"
	"  lhctl events -f --json | while read -r event; do notify \"$event\"; done\n"
	"  lhctl events --since '2026-01-31 08:00'\n", 0, 1, options, run };

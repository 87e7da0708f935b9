/* steer.c: see steer.h.
 *
 * A command is accepted first and done at the next step boundary. This listens before
 * it asks, so that the outcome cannot be missed; when the daemon says that events were
 * lost, the journal has it. */
#include "steer.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

struct outcome {
	int64_t command, job;
	bool known, applied, lost;
	char text[400], hint[256];
	json_t *heard; /* outcomes of any command, not looked at yet */
};

/* Outcomes that come before we know our command's id are kept: the answer and
 * the outcome may arrive together. */
static void on_note(void *arg, const char *method, json_t *params)
{
	const char *kind = ctl_str(params, "kind");
	struct outcome *o = arg;

	if (!strcmp(method, "event") && (!strcmp(kind, "command.applied") ||
					 !strcmp(kind, "command.refused")))
		json_array_append(o->heard, params);
	else if (!strcmp(method, "lost") && ctl_int(params, "events"))
		o->lost = true;
}

static void settle(struct outcome *o, bool applied, const char *text, const char *hint)
{
	o->known = true;
	o->applied = applied;
	snprintf(o->text, sizeof(o->text), "%s", text);
	snprintf(o->hint, sizeof(o->hint), "%s", hint);
}

static void look_at_heard(struct outcome *o)
{
	json_t *e;
	size_t i;

	json_array_foreach (o->heard, i, e) {
		json_t *data = json_object_get(e, "data");

		if (ctl_int(data, "command") == o->command)
			settle(o, !strcmp(ctl_str(e, "kind"), "command.applied"),
			       ctl_str(e, "text"), ctl_str(data, "hint"));
	}
	json_array_clear(o->heard);
}

/* For an outcome whose event was lost, or came long ago: of a request that was
 * repeated. */
static void look_at_journal(struct ctl_client *k, struct outcome *o, struct lh_err *err)
{
	o->lost = false;
	json_t *result = ctl_call(k, "job.journal",
				  json_pack("{s:I, s:i}", "job", (json_int_t)o->job,
					    "limit", 10000), err), *c;
	size_t i;

	json_array_foreach (json_object_get(result, "commands"), i, c)
		if (ctl_int(c, "command") == o->command && ctl_has(c, "outcome"))
			settle(o, strcmp(ctl_str(c, "outcome"), "refused"),
			       ctl_str(c, "text"), "");
	json_decref(result);
}

static int wait_outcome(const struct ctl *c, struct ctl_client *k, struct outcome *o,
			struct lh_err *err)
{
	char safe[800];

	o->lost |= ctl_opt(c, "request-id") != NULL;
	for (look_at_heard(o); !o->known; look_at_heard(o)) {
		int rc = 0;

		if (o->lost)
			look_at_journal(k, o, err);
		else
			rc = ctl_listen(k, -1, err);
		if (rc == LH_ETIMEOUT && !ctl_opt(c, "timeout"))
			continue; /* a signal */
		if (rc) {
			lh_err_hint(err, "command %lld stays accepted; 'lhctl journal' "
				    "tells its outcome", (long long)o->command);
			return ctl_fail(err);
		}
	}
	if (!o->applied) {
		lh_err_set(err, LH_ESTATE, "%s", o->text);
		lh_err_hint(err, "%s", o->hint);
		return ctl_fail(err);
	}
	if (!ctl_opt(c, "json"))
		printf("applied: %s\n", lh_escape(safe, sizeof(safe), o->text));
	return CTL_DONE;
}

int ctl_steer(struct ctl *c, const char *method, json_t *more)
{
	double timeout_s = ctl_opt_number(c, "timeout", -1, 0, 1e9);
	struct ctl_client *k = ctl_connect(c);
	struct outcome o = { 0 };
	struct lh_err err = LH_ERR_INIT;
	json_t *params, *result = NULL, *sub = NULL;
	int rc;

	if (!k) {
		json_decref(more);
		return CTL_UNREACHABLE;
	}
	ctl_deadline(k, timeout_s);
	rc = ctl_job(k, c->args[0], &o.job);
	if (rc)
		goto done;
	params = ctl_steer_params(c, o.job);
	json_object_update(params, more);
	o.heard = json_array();
	ctl_on_note(k, on_note, &o);
	sub = ctl_call(k, "job.subscribe", json_pack("{s:I}", "job", (json_int_t)o.job),
		       &err);
	result = sub ? ctl_call(k, method, json_incref(params), &err) : NULL;
	json_decref(params);
	if (!result) {
		rc = ctl_fail(&err);
		goto done;
	}
	o.command = ctl_int(result, "command");
	rc = CTL_DONE;
	if (ctl_opt(c, "json"))
		rc = ctl_print_json_take(json_incref(result));
	else if (ctl_opt(c, "no-wait"))
		printf("accepted as command %lld\n", (long long)o.command);
	if (!ctl_opt(c, "no-wait")) {
		fflush(stdout);
		rc = wait_outcome(c, k, &o, &err);
	}
done:
	json_decref(more);
	json_decref(o.heard);
	json_decref(sub);
	json_decref(result);
	ctl_disconnect(k);
	return rc;
}

/* cmd_steer.c: switch, pause, resume, cancel, checkpoint.
 *
 * A command is accepted first and done at the next step boundary; these wait for
 * the outcome unless told not to. They listen before they ask, so that the
 * outcome cannot be missed; when the daemon says that events were lost, the
 * journal has it. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "commands.h"

#define OPTIONS                                                                \
	{ "message", 'm', "WHY", false, "kept in the journal" },               \
	{ "no-wait", 0, NULL, false, "do not wait for the outcome" },          \
	{ "request-id", 0, "UUID", false,                                      \
	  "repeating a request with its id is harmless" },                     \
	{ "timeout", 0, "S", false, "seconds to wait for the outcome (no limit)" }, \
	{ "json", 0, NULL, false, "the daemon's answer, as data; the exit "    \
	  "status has the outcome" },                                          \
	{ NULL },

static const struct ctl_option options[] = { OPTIONS };
static const struct ctl_option checkpoint_options[] = {
	{ "pin", 0, NULL, false, "keep it, however many come after it" },
	OPTIONS
};
static const struct ctl_option pause_options[] = {
	{ "release", 0, NULL, false, "end its worker once all is on disk" },
	OPTIONS
};

static const struct ctl_option resume_options[] = {
	{ "micro-sequences", 0, "N", false, "of a released job: sequences at once in memory" },
	OPTIONS
};

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

/* Takes `more`, parameters of this method. */
static int steer(struct ctl *c, const char *method, json_t *more)
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

/* {flag: true} if the option was given. */
static json_t *flagged(const struct ctl *c, const char *flag)
{
	return ctl_opt(c, flag) ? json_pack("{s:b}", flag, true) : json_object();
}

static int run_switch(struct ctl *c)
{
	json_t *more = json_object();

	if (c->arg_count > 1)
		json_object_set_new(more, "phase", ctl_text(c, "the phase", c->args[1]));
	return steer(c, "job.switch", more);
}

static int run_pause(struct ctl *c)
{
	return steer(c, "job.pause", flagged(c, "release"));
}

static int run_resume(struct ctl *c)
{
	int64_t micro = ctl_opt_int(c, "micro-sequences", -1, 0, 65536);

	return steer(c, "job.resume", micro < 0 ? json_object() :
		     json_pack("{s:I}", "micro_sequences", (json_int_t)micro));
}

static int run_cancel(struct ctl *c)
{
	return steer(c, "job.cancel", json_object());
}

static int run_checkpoint(struct ctl *c)
{
	return steer(c, "job.checkpoint", flagged(c, "pin"));
}

const struct ctl_command ctl_cmd_switch = {
	"switch", "JOB [PHASE]",
	"Go to another phase at the next step boundary.\n"
	"PHASE is its name or number from 0; the next one unless given. A checkpoint is\n"
	"written first and the validation loss measured before and after.",
	"  lhctl switch my-job\n  lhctl switch my-job recovery -m 'loss is flat'\n", 1, 2,
	options, run_switch };
const struct ctl_command ctl_cmd_pause = {
	"pause", "JOB",
	"Stop a job at the next step boundary.\n"
	"Its worker keeps everything in memory, or with --release ends once all is on\n"
	"disk: then its GPU and its slot are free, and resume starts another worker. A\n"
	"job in the queue is held there.",
	"  lhctl pause my-job -m 'to look at it'\n"
	"  lhctl pause my-job --release -m 'the GPU is needed'\n", 1, 1, pause_options,
	run_pause };
const struct ctl_command ctl_cmd_resume = {
	"resume", "JOB",
	"Let a paused job go on.\n"
	"One that was released may get other micro-batches, e.g. for a device with less\n"
	"memory: weights, optimizer and data go on as they were, and losses are equal in\n"
	"exact arithmetic, not bit for bit.",
	"  lhctl resume my-job\n  lhctl resume my-job --micro-sequences 1\n", 1, 1,
	resume_options, run_resume };
const struct ctl_command ctl_cmd_cancel = {
	"cancel", "JOB",
	"End a job for good.\nA running one writes a checkpoint first, which is kept.",
	"  lhctl cancel my-job\n  lhctl cancel 7 -m 'wrong data'\n", 1, 1, options,
	run_cancel };
const struct ctl_command ctl_cmd_checkpoint = {
	"checkpoint", "JOB", "Write a checkpoint at the next step boundary.\n"
	"A pinned one has a file 'pinned' in it and stays until that is removed.",
	"  lhctl checkpoint my-job\n  lhctl checkpoint my-job --pin\n", 1, 1,
	checkpoint_options, run_checkpoint };

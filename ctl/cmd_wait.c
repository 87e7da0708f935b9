/* cmd_wait.c: until a job is where somebody wants it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

static const struct ctl_option options[] = {
	{ "for", 0, "WHAT", false, "state=STATE, phase=NAME or step=N (state=DONE)" },
	{ "timeout", 0, "S", false, "seconds to wait at most (no limit)" },
	{ "json", 0, NULL, false, "the job as it is then, as data" },
	{ NULL },
};

struct goal {
	const char *state, *phase;
	int64_t step;
};

static int parse_goal(const struct ctl *c, struct goal *g)
{
	const char *what = ctl_opt(c, "for");
	char *end;

	memset(g, 0, sizeof(*g));
	if (!what)
		what = "state=DONE";
	if (!strncmp(what, "state=", 6))
		g->state = what + 6;
	else if (!strncmp(what, "phase=", 6))
		g->phase = what + 6;
	else if (!strncmp(what, "step=", 5) && what[5] &&
		 (g->step = strtoll(what + 5, &end, 10)) > 0 && !*end)
		return 0;
	else
		return ctl_usage(c->command, "--for is '%s', state=STATE, phase=NAME or "
				 "step=N is allowed", what);
	ctl_check_state(c, g->state);
	return 0;
}

/* A phase the job does not have is no reason to wait until the job ends. */
static int check_phase(struct ctl_client *k, int64_t id, const char *phase,
		       struct lh_err *err)
{
	json_t *show = ctl_call(k, "job.show", json_pack("{s:I}", "job", (json_int_t)id),
				err), *p;
	char all[200] = "";
	bool found = false;
	size_t i, used = 0;

	if (!show)
		return err->code;
	json_array_foreach (json_object_get(show, "phases"), i, p) {
		found |= !strcmp(ctl_str(p, "name"), phase);
		snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "",
			 ctl_str(p, "name"));
		used = strlen(all);
	}
	json_decref(show);
	if (found)
		return 0;
	lh_err_set(err, LH_ENOTFOUND, "job %lld has no phase '%.64s'", (long long)id, phase);
	return lh_err_hint(err, "its phases are %s", all);
}

/* In the queue a job has a phase, but is not in it. */
static bool in_phase(const json_t *job, const char *phase)
{
	return !strcmp(ctl_str(job, "phase_name"), phase) && ctl_int(job, "attempt") > 0 &&
	       strcmp(ctl_str(job, "state"), "QUEUED");
}

static bool reached(const struct goal *g, const json_t *job)
{
	if (g->state)
		return !strcmp(ctl_str(job, "state"), g->state);
	if (g->phase)
		return in_phase(job, g->phase);
	return ctl_int(job, "step") >= g->step;
}

static int answer(const struct ctl *c, json_t *job, bool good)
{
	if (ctl_opt(c, "json"))
		ctl_print_json_take(json_incref(job));
	else
		printf("job %lld is %s in phase '%s' at step %lld\n",
		       (long long)ctl_int(job, "job"), ctl_safe(job, "state"),
		       ctl_safe(job, "phase_name"), (long long)ctl_int(job, "step"));
	return good ? CTL_DONE : CTL_JOB_ENDED;
}

static int wait_for(const struct ctl *c, struct ctl_client *k, int64_t id,
		    const struct goal *g, struct lh_err *err)
{
	for (;;) {
		json_t *job = ctl_call(k, "job.get",
				       json_pack("{s:I}", "job", (json_int_t)id), err);
		int rc;

		if (!job)
			return ctl_fail(err);
		if (reached(g, job) || ctl_has_ended(job)) {
			rc = answer(c, job, reached(g, job));
			json_decref(job);
			return rc;
		}
		json_decref(job);
		rc = ctl_listen(k, -1, err);
		if (rc == LH_ETIMEOUT && !ctl_opt(c, "timeout"))
			continue; /* a signal */
		if (rc == LH_ETIMEOUT) {
			lh_err_set(err, rc, "it did not happen within %s s",
				   ctl_opt(c, "timeout"));
			lh_err_hint(err, "'lhctl show %lld' tells where the job is",
				    (long long)id);
		}
		if (rc)
			return ctl_fail(err);
	}
}

static int run(struct ctl *c)
{
	double timeout_s = ctl_opt_number(c, "timeout", -1, 0, 1e9);
	struct lh_err err = LH_ERR_INIT;
	struct ctl_client *k;
	struct goal g;
	json_t *sub;
	int64_t id;
	int rc = parse_goal(c, &g);

	if (rc)
		return rc;
	k = ctl_connect(c);
	if (!k)
		return CTL_UNREACHABLE;
	ctl_deadline(k, timeout_s);
	rc = ctl_job(k, c->args[0], &id);
	if (!rc && g.phase && check_phase(k, id, g.phase, &err)) {
		rc = ctl_fail(&err);
	} else if (!rc) {
		/* Anything that happens to the job wakes us to look. */
		sub = ctl_call(k, "job.subscribe",
			       json_pack("{s:I, s:b}", "job", (json_int_t)id, "steps",
					 g.step > 0), &err);
		rc = sub ? wait_for(c, k, id, &g, &err) : ctl_fail(&err);
		json_decref(sub);
	}
	ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_wait = {
	"wait", "JOB",
	"Wait until a job has reached something.\n"
	"Exit status 4 if it did not in time, 5 if the job ended without it.",
	"  lhctl wait my-job && echo trained\n"
	"  lhctl wait my-job --for step=1000 --timeout 600\n"
	"  lhctl wait my-job --for phase=recovery\n", 1, 1, options, run };

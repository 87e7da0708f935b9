/* cmd_wait.c: until a job is where somebody wants it.
 *
 * A loss may cross its limit for one step only, so every step and evaluation that
 * the daemon pushes is looked at; everything else is asked for when something
 * happened. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "lighthouse/job.h"

enum { SETTLE_MS = 300 };

static const struct ctl_option options[] = {
	{ "for", 0, "WHAT", false, "see below (state=DONE)" },
	{ "timeout", 0, "S", false, "seconds to wait at most (no limit)" },
	{ "json", 0, NULL, false, "the job as it is then, as data" },
	{ NULL },
};

/* One of state, phase, step, and a limit of a loss. */
struct goal {
	const char *state, *phase;
	int64_t step;
	bool loss, val_loss; /* training's, validation's with full attention */
	char side;           /* of the limit: '<' or '>' */
	double limit;
	bool crossed;        /* has been seen */
	bool lost;           /* some were not seen */
	bool settled;        /* no more will come */
};

/* "<2.5" */
static bool parse_limit(struct goal *g, const char *text)
{
	char *end;

	g->side = *text;
	if (*text != '<' && *text != '>')
		return false;
	g->limit = strtod(text + 1, &end);
	return text[1] && !*end && isfinite(g->limit);
}

static bool parse_step(struct goal *g, const char *text)
{
	char *end;

	g->step = strtoll(text, &end, 10);
	return *text && !*end && g->step > 0;
}

static bool parse_goal(struct goal *g, const char *what)
{
	if (!strncmp(what, "step=", 5))
		return parse_step(g, what + 5);
	if (!strncmp(what, "state=", 6))
		g->state = what + 6;
	else if (!strncmp(what, "phase=", 6))
		g->phase = what + 6;
	else if (!strncmp(what, "loss", 4))
		return g->loss = parse_limit(g, what + 4);
	else if (!strncmp(what, "val_loss", 8))
		return g->val_loss = parse_limit(g, what + 8);
	return g->state || (g->phase && *g->phase);
}

static void get_goal(const struct ctl *c, struct goal *g)
{
	const char *what = ctl_opt(c, "for");

	memset(g, 0, sizeof(*g));
	if (!parse_goal(g, what ? what : "state=DONE"))
		exit(ctl_usage(c->command, "--for is '%s'; state=STATE, phase=NAME, step=N, "
			       "loss<X, loss>X, val_loss<X or val_loss>X is allowed", what));
	ctl_check_state(c, g->state);
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
	if (g->step)
		return ctl_int(job, "step") >= g->step;
	return g->crossed;
}

/* A loss that is not finite is above every limit. */
static void look_at_loss(struct goal *g, const json_t *row)
{
	double loss = ctl_has(row, "loss") ? ctl_real(row, "loss") : INFINITY;

	g->crossed |= g->side == '<' ? loss < g->limit : loss > g->limit;
}

/* Of the first validation set, with full attention: what val_loss is. */
static bool is_val_loss(const json_t *evaluation)
{
	return !strcmp(ctl_str(evaluation, "attention"), "full") &&
	       !ctl_int(evaluation, "set_no");
}

static void on_note(void *arg, const char *method, json_t *params)
{
	json_t *data = json_object_get(params, "data");
	struct goal *g = arg;

	if (g->loss && !strcmp(method, "step"))
		look_at_loss(g, params);
	else if (g->val_loss && !strcmp(method, "event") &&
		 !strcmp(ctl_str(params, "kind"), "job.eval") && is_val_loss(data))
		look_at_loss(g, data);
	g->lost |= !strcmp(method, "lost");
}

/* The newest losses that are known without having been pushed. */
static int look_back(struct ctl_client *k, const json_t *job, struct goal *g,
		     struct lh_err *err)
{
	json_t *result, *e, *newest = NULL;
	size_t i;

	g->lost = false;
	if (g->loss && ctl_has(job, "loss"))
		look_at_loss(g, job);
	if (!g->val_loss)
		return 0;
	result = ctl_call(k, "job.evaluations",
			  json_pack("{s:I, s:b, s:i}", "job",
				    (json_int_t)ctl_int(job, "job"), "newest", 1, "limit",
				    4 * LH_SETS_MAX), err);
	if (!result)
		return err->code;
	json_array_foreach (json_object_get(result, "evaluations"), i, e)
		if (is_val_loss(e))
			newest = e;
	if (newest)
		look_at_loss(g, newest);
	json_decref(result);
	return 0;
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

/* When a job has ended, its last losses may still be on their way: once, they are
 * waited for. */
static bool let_settle(struct ctl_client *k, struct goal *g)
{
	struct lh_err err = LH_ERR_INIT;

	if (!(g->loss || g->val_loss) || g->crossed || g->settled)
		return false;
	while (!ctl_listen(k, SETTLE_MS, &err))
		;
	return g->settled = g->lost = true;
}

static int wait_for(const struct ctl *c, struct ctl_client *k, int64_t id,
		    struct goal *g, struct lh_err *err)
{
	for (;;) {
		json_t *job = ctl_call(k, "job.get",
				       json_pack("{s:I}", "job", (json_int_t)id), err);
		int rc;

		if (!job || (g->lost && look_back(k, job, g, err))) {
			json_decref(job);
			return ctl_fail(err);
		}
		if (ctl_has_ended(job) && let_settle(k, g)) {
			json_decref(job);
			continue;
		}
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
	int rc;

	get_goal(c, &g);
	k = ctl_connect(c);
	if (!k)
		return CTL_UNREACHABLE;
	ctl_deadline(k, timeout_s);
	rc = ctl_job(k, c->args[0], &id);
	if (!rc && g.phase && check_phase(k, id, g.phase, &err)) {
		rc = ctl_fail(&err);
	} else if (!rc) {
		/* Anything that happens to the job wakes us to look. */
		ctl_on_note(k, on_note, &g);
		g.lost = true;
		sub = ctl_call(k, "job.subscribe",
			       json_pack("{s:I, s:b}", "job", (json_int_t)id, "steps",
					 g.step > 0 || g.loss), &err);
		rc = sub ? wait_for(c, k, id, &g, &err) : ctl_fail(&err);
		json_decref(sub);
	}
	ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_wait = {
	"wait", "JOB",
	"Wait until a job has reached something.\n"
	"  state=STATE      it is in this state\n"
	"  phase=NAME       it is in this phase\n"
	"  step=N           it has done N steps\n"
	"  loss<X, loss>X   the training loss of a step is below, above X\n"
	"  val_loss<X, val_loss>X   so is a validation loss with full attention\n"
	"The newest loss counts too; one that is not finite is above any X. Exit status 0\n"
	"when it is reached, 4 if it was not in time, 5 if the job ended without it, 1 if\n"
	"there is no such job or phase.",
	"  lhctl wait my-job && echo trained\n"
	"  lhctl wait my-job --for step=1000 --timeout 600\n"
	"  lhctl wait my-job --for phase=recovery\n"
	"  lhctl wait my-job --for 'val_loss<2.2' && lhctl switch my-job\n", 1, 1, options,
	run };

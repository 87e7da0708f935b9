/* rule.c: looking at rules; see rule.h.
 *
 *   touch, or a second passed -> look: on the thread pool, conditions are evaluated
 *      and events read -> looked: what holds fires (rule_fire.c)
 *
 * One look is under way at a time, over all rules. A rule that is waiting for its
 * command's answer or its script (`busy`) is passed over. */
#include "jobs/rule_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "jobs/jobfile.h"

enum { TOUCH_MS = 100, LOOK_EVERY_MS = 1000 };

struct item {
	int64_t rule;
	char *when, *on;
	int64_t cursor;
	struct lh_rule_scope scope;
	/* found */
	bool holds;
	json_t *values;      /* of `now`, or the event, or NULL */
	struct lh_err err;
};

struct look {
	struct lh_jobs *jobs;
	struct item *items;
	int count;
};

static void scope_of(struct lh_rule_scope *s, const struct lh_rule *r)
{
	const struct lh_job_run *run = r->run;
	int64_t first = run->first_step[run->phase];

	lh_rule_scope_of_job(s, &run->spec, &run->settings);
	s->job = run->id;
	s->step = run->step;
	s->phase = run->phase;
	s->phase_step = first >= 0 ? run->step - first : 0;
	s->steps_planned = lh_job_total_steps(run);
	s->now_ms = lh_time_ms();
	s->created_ms = r->created_ms;
	s->elapsed_s = (double)(s->now_ms - run->started_ms) / 1000;
	s->restarts = run->restarts;
	s->state = lh_job_state_name(run->state);
	for (int i = 0; i < s->phase_count; i++)
		s->phases[i].entered = run->first_step[i] >= 0 && run->step > run->first_step[i];
}

static bool wants_look(const struct lh_rule *r)
{
	enum lh_job_state s = r->run->state;

	if (!r->armed || r->busy || r->removed)
		return false;
	return *r->on ? !r->idle : s == LH_JOB_RUNNING || s == LH_JOB_PAUSED;
}

/* The next event that the rule is about; not those of rules, or one would answer
 * itself for ever. */
static int read_event(sqlite3 *db, struct item *i, struct lh_err *err)
{
	bool more;
	json_t *rows = lh_store_rows(db, "SELECT id, job, attempt, step, time_ms, kind, text, "
				     "data_json FROM events WHERE job = ? AND id > ? AND kind "
				     "GLOB ? AND kind NOT GLOB 'rule.*' ORDER BY id LIMIT 1",
				     (struct lh_bind[]){ LH_INT(i->scope.job),
							 LH_INT(i->cursor), LH_TEXT(i->on) },
				     3, 1, &more, err);

	if (!rows)
		return LH_ESTORE;
	i->values = json_incref(json_array_get(rows, 0));
	i->holds = i->values != NULL;
	json_decref(rows);
	return 0;
}

static int look_work(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct look *l = arg;

	for (int i = 0; i < l->count; i++) {
		struct item *it = &l->items[i];

		if (*it->on && read_event(db, it, err))
			return LH_ESTORE;
		if (*it->when)
			lh_rule_sql_eval(db, &it->scope, it->when, &it->holds, &it->values,
					 &it->err);
	}
	return 0;
}

static void tell_trouble(struct lh_rule *r, const struct lh_err *err)
{
	struct lh_batch *b;

	if (!strncmp(r->trouble, err->text, sizeof(r->trouble) - 1))
		return; /* told already, or all is well as before */
	snprintf(r->trouble, sizeof(r->trouble), "%.199s", err->text);
	if (!err->code)
		return;
	b = lh_batch_new(r->run->journal);
	lh_batch_event_take(b, r->run->id, r->run->attempt, r->run->step, "rule.failed",
			    json_pack("{s:s}", "rule", r->name), "rule '%s': %s", r->name,
			    err->text);
	lh_batch_commit(b, false, NULL, NULL);
}

static bool is_cool(const struct lh_rule *r)
{
	int64_t since_ms = (int64_t)uv_now(r->run->jobs->loop) - r->fired_ms;

	return !r->fired_ms || (double)since_ms >= 1000 * r->cooldown_s;
}

static void decide(struct lh_rule *r, struct item *i)
{
	struct lh_batch *b;

	tell_trouble(r, &i->err);
	if (*r->on) {
		r->idle = !i->holds && lh_job_has_ended(r->run->state);
		if (i->holds)
			lh_rule_fire(r, i->values, json_integer_value(json_object_get(i->values, "id")));
		return;
	}
	if (i->holds && (!r->held || !r->fired) && is_cool(r)) {
		lh_rule_fire(r, i->values, 0);
	} else if (!i->holds && r->held) {
		r->held = false;
		b = lh_batch_new(r->run->journal);
		lh_rule_store(r, b);
		lh_batch_commit(b, false, NULL, NULL);
	}
}

static void look_free(struct look *l)
{
	for (int i = 0; i < l->count; i++) {
		free(l->items[i].when);
		free(l->items[i].on);
		json_decref(l->items[i].values);
	}
	free(l->items);
	free(l);
}

static void looked(void *arg, int rc, const struct lh_err *err)
{
	struct look *l = arg;
	struct lh_jobs *jobs = l->jobs;

	(void)err; /* the store tells of its troubles itself */
	jobs->rules->looking = false;
	for (int i = 0; !rc && !jobs->closing && i < l->count; i++) {
		struct lh_rule *r = lh_rule_find(jobs, l->items[i].rule);

		if (r && wants_look(r))
			decide(r, &l->items[i]);
	}
	look_free(l);
}

static void look(struct lh_jobs *jobs)
{
	struct lh_rules *all = jobs->rules;
	struct look *l = lh_calloc(1, sizeof(*l));
	int n = 0;

	for (struct lh_rule *r = all->first; r; r = r->next)
		n += wants_look(r);
	l->jobs = jobs;
	l->items = lh_calloc((size_t)n + 1, sizeof(*l->items));
	for (struct lh_rule *r = all->first; r; r = r->next) {
		struct item *i = &l->items[l->count];

		if (!wants_look(r))
			continue;
		l->count++;
		i->rule = r->id;
		i->when = lh_strdup(r->when);
		i->on = lh_strdup(r->on);
		i->cursor = r->cursor;
		scope_of(&i->scope, r);
	}
	if (!n) {
		look_free(l);
		return;
	}
	all->looking = true;
	lh_jobs_read(jobs, look_work, looked, l);
}

static void on_timer(uv_timer_t *timer)
{
	struct lh_jobs *jobs = timer->data;
	struct lh_rules *all = jobs->rules;

	all->touched = false;
	lh_rule_sweep(jobs);
	if (!all->looking && !jobs->draining)
		look(jobs);
	/* Deadlines and events come without a step. */
	if (all->first)
		uv_timer_start(timer, on_timer, LOOK_EVERY_MS, 0);
}

void lh_rules_touch(struct lh_jobs *jobs)
{
	struct lh_rules *all = jobs->rules;

	if (!all->first || all->touched || jobs->closing)
		return;
	all->touched = true;
	uv_timer_start(&all->timer, on_timer, TOUCH_MS, 0);
}

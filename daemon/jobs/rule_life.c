/* rule_life.c: rules made, removed, listed and loaded; see rule.h.
 *
 * Rows of removed rules stay; in memory they go once nothing is under way for them. */
#include "jobs/rule_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "jobs/jobfile.h"

/* ---- the list -------------------------------------------------------------- */

struct lh_rule *lh_rule_find(struct lh_jobs *jobs, int64_t id)
{
	struct lh_rule *r = jobs->rules->first;

	while (r && r->id != id)
		r = r->next;
	return r;
}

static struct lh_rule *find_name(struct lh_jobs *jobs, int64_t job, const char *name)
{
	struct lh_rule *r = jobs->rules->first;

	while (r && (r->removed || r->run->id != job || strcmp(r->name, name)))
		r = r->next;
	return r;
}

static int count_of(struct lh_jobs *jobs, int64_t job)
{
	int n = 0;

	for (struct lh_rule *r = jobs->rules->first; r; r = r->next)
		n += !r->removed && r->run->id == job;
	return n;
}

static void free_rule(struct lh_rule *r)
{
	free(r->name);
	free(r->when);
	free(r->on);
	free(r->action);
	free(r->program);
	free(r);
}

/* Removed, and nobody will come back to it. */
void lh_rule_sweep(struct lh_jobs *jobs)
{
	struct lh_rule **p = &jobs->rules->first, *r;

	while ((r = *p)) {
		if (r->removed && !r->busy) {
			*p = r->next;
			free_rule(r);
		} else {
			p = &r->next;
		}
	}
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static int64_t int_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

/* From args of rule.add or the row of a job file; armed. */
static struct lh_rule *rule_new(struct lh_job_run *run, int64_t id, const json_t *args,
				int64_t uid, int64_t pid, const char *program)
{
	struct lh_rule *r = lh_calloc(1, sizeof(*r)), **p = &run->jobs->rules->first;

	r->run = run;
	r->id = id;
	r->uid = uid;
	r->pid = pid;
	r->created_ms = lh_time_ms();
	r->name = lh_strdup(text_of(args, "name"));
	r->when = lh_strdup(text_of(args, "when"));
	r->on = lh_strdup(text_of(args, "on"));
	r->action = lh_strdup(text_of(args, "do"));
	r->program = lh_strdup(program);
	r->repeat = json_is_true(json_object_get(args, "repeat"));
	r->cooldown_s = json_number_value(json_object_get(args, "cooldown_s"));
	r->armed = true;
	while (*p)
		p = &(*p)->next;
	*p = r;
	return r;
}

/* ---- rows ------------------------------------------------------------------ */

static void insert_row(struct lh_batch *b, int64_t id, int64_t job, const json_t *args,
		       int64_t cursor, const struct lh_request *who)
{
	lh_batch_add(b, LH_STMT_RULE_INSERT,
		     (struct lh_bind[]){
			     LH_INT(id), LH_INT(job), LH_TEXT(text_of(args, "name")),
			     LH_TEXT(text_of(args, "when")), LH_TEXT(text_of(args, "on")),
			     LH_TEXT(text_of(args, "do")),
			     LH_INT(json_is_true(json_object_get(args, "repeat"))),
			     LH_REAL(json_number_value(json_object_get(args, "cooldown_s"))),
			     LH_TEXT("armed"), LH_INT(cursor), LH_INT(who->uid),
			     LH_INT(who->pid), LH_TEXT(who->program),
			     LH_INT(who->accepted_ms) },
		     14);
}

void lh_rule_store(const struct lh_rule *r, struct lh_batch *b)
{
	lh_batch_add(b, LH_STMT_RULE_STATE,
		     (struct lh_bind[]){
			     LH_INT(r->id),
			     LH_TEXT(r->removed ? "removed" : r->armed ? "armed" : "fired"),
			     LH_INT(r->held), LH_INT(r->fired), LH_INT(r->cursor) },
		     5);
}

static json_t *summary(const struct lh_rule *r)
{
	json_t *j = json_pack("{s:I, s:I, s:s, s:s, s:s, s:s, s:b, s:f, s:s, s:I, s:I, s:s, "
			      "s:o}",
			      "rule", (json_int_t)r->id, "job", (json_int_t)r->run->id,
			      "name", r->name, "when", r->when, "on", r->on, "do", r->action,
			      "repeat", r->repeat, "cooldown_s", r->cooldown_s, "state",
			      r->armed ? "armed" : "fired", "fired", (json_int_t)r->fired,
			      "created_ms", (json_int_t)r->created_ms, "program", r->program,
			      "trouble", json_string(r->trouble));

	LH_ASSERT(j);
	return j;
}

json_t *lh_rules_list(struct lh_jobs *jobs, int64_t job)
{
	json_t *list = json_array();

	for (struct lh_rule *r = jobs->rules->first; r; r = r->next)
		if (!r->removed && (!job || r->run->id == job))
			json_array_append_new(list, summary(r));
	return list;
}

/* ---- made and removed ------------------------------------------------------ */

/* rule.add on its way: the condition is checked on the pool. */
struct adding {
	struct lh_request *r;
	struct lh_rule_scope scope;
};

static void add_check(void *arg)
{
	struct adding *a = arg;
	const json_t *args = a->r->args;

	a->r->err.code = lh_rule_check(&a->scope, text_of(args, "when"), text_of(args, "on"),
			       text_of(args, "do"), &a->r->err);
}

static json_t *accepted(const struct lh_request *r)
{
	return json_pack("{s:I, s:I, s:s}", "command", (json_int_t)r->command, "job",
			 (json_int_t)r->job, "state", "accepted");
}

static void journal_request(struct lh_request *r, struct lh_batch *b, const char *kind,
			    const char *name)
{
	struct lh_job_run *run = lh_jobs_find(r->jobs, r->job);

	lh_request_journal_done(r, b, "applied", run->step, "");
	lh_batch_event_take(b, r->job, run->attempt, run->step, kind,
			    json_pack("{s:s, s:I}", "rule", name, "command",
				      (json_int_t)r->command),
			    "rule '%s' was %s", name, strchr(kind, '.') + 1);
}

static void on_added(void *arg, int rc, const struct lh_err *err)
{
	struct lh_request *r = arg;
	struct lh_rule *rule = lh_rule_find(r->jobs, r->first_rule);

	if (rc && rule)
		rule->removed = true;
	if (rule)
		rule->busy = false;
	lh_rule_sweep(r->jobs);
	lh_request_answer_take(r, rc ? NULL : accepted(r), rc ? err : NULL);
}

static void refuse_take(struct lh_request *r, int code, const char *text, const char *hint)
{
	struct lh_err err = LH_ERR_INIT;

	lh_err_set(&err, code, "%s", text);
	lh_err_hint(&err, "%s", hint);
	lh_request_answer_take(r, NULL, &err);
}

static void add_checked(void *arg)
{
	struct adding *a = arg;
	struct lh_request *r = a->r;
	struct lh_jobs *jobs = r->jobs;
	struct lh_job_run *run = lh_jobs_find(jobs, r->job);
	const char *name = text_of(r->args, "name");
	struct lh_rule *rule;
	struct lh_batch *b;

	free(a);
	if (jobs->closing)
		return; /* freed with the rest */
	if (!r->err.code)
		lh_rule_check_action(&run->spec, &run->settings, run->phase,
				     text_of(r->args, "do"), &r->err);
	if (r->err.code) {
		lh_request_answer_take(r, NULL, &r->err);
	} else if (find_name(jobs, r->job, name)) {
		refuse_take(r, LH_ESTATE, "the job has a rule of that name",
			    "remove that one first, or take another name");
	} else if (count_of(jobs, r->job) >= LH_RULES_OF_JOB_MAX) {
		refuse_take(r, LH_ETOOBIG, "the job has as many rules as one may have",
			    "remove one first");
	} else {
		r->accepted_ms = lh_time_ms();
		rule = rule_new(run, ++jobs->rules->last_id, r->args, r->uid, r->pid,
				r->program);
		rule->busy = true; /* until it is stored */
		r->first_rule = rule->id;
		/* Of what happened before it was made it knows nothing. */
		rule->cursor = lh_jobs_last_event(jobs);
		b = lh_batch_new(jobs->journal);
		insert_row(b, rule->id, r->job, r->args, rule->cursor, r);
		journal_request(r, b, "rule.added", name);
		lh_batch_commit(b, true, on_added, r);
		lh_rules_touch(jobs);
	}
}

static void add_go(struct lh_request *r)
{
	struct adding *a = lh_calloc(1, sizeof(*a));
	const struct lh_job_run *run = lh_jobs_find(r->jobs, r->job);

	a->r = r;
	lh_rule_scope_of_job(&a->scope, &run->spec, &run->settings);
	a->scope.created_ms = lh_time_ms();
	lh_jobs_task(r->jobs, add_check, add_checked, a);
}

static void on_removed(void *arg, int rc, const struct lh_err *err)
{
	struct lh_request *r = arg;

	lh_request_answer_take(r, rc ? NULL : accepted(r), rc ? err : NULL);
}

static void remove_go(struct lh_request *r)
{
	const char *name = text_of(r->args, "name");
	struct lh_rule *rule = find_name(r->jobs, r->job, name);
	struct lh_batch *b;

	if (!rule) {
		refuse_take(r, LH_ENOTFOUND, "the job has no rule of that name",
			    "rule.list names all");
		return;
	}
	r->accepted_ms = lh_time_ms();
	rule->removed = true;
	b = lh_batch_new(r->jobs->journal);
	lh_rule_store(rule, b);
	journal_request(r, b, "rule.removed", name);
	lh_rule_sweep(r->jobs);
	lh_batch_commit(b, true, on_removed, r);
}

static void ask(struct lh_jobs *jobs, const char *method, int64_t job, const json_t *args,
		const struct lh_caller *who, void (*go)(struct lh_request *r),
		lh_jobs_reply reply, void *arg)
{
	struct lh_request *r = lh_request_new(jobs, method, job, who, reply, arg);

	r->args = json_deep_copy(args);
	r->go = go;
	if (!lh_jobs_find(jobs, job))
		refuse_take(r, LH_ENOTFOUND, "there is no such job", "job.list names all");
	else if (jobs->draining)
		refuse_take(r, LH_ESTATE, "lhd is stopping and takes no commands",
			    "ask again once lhd was started again");
	else
		lh_request_begin(r);
}

void lh_rules_add(struct lh_jobs *jobs, int64_t job, const json_t *args,
		  const struct lh_caller *who, lh_jobs_reply reply, void *arg)
{
	ask(jobs, "rule.add", job, args, who, add_go, reply, arg);
}

void lh_rules_remove(struct lh_jobs *jobs, int64_t job, const json_t *args,
		     const struct lh_caller *who, lh_jobs_reply reply, void *arg)
{
	ask(jobs, "rule.remove", job, args, who, remove_go, reply, arg);
}

/* ---- with a job ------------------------------------------------------------ */

void lh_rules_submit(struct lh_request *r, struct lh_batch *b)
{
	const json_t *one;
	size_t i;

	r->first_rule = r->jobs->rules->last_id + 1;
	json_array_foreach (json_object_get(r->spec_json, "rules"), i, one)
		insert_row(b, ++r->jobs->rules->last_id, r->job, one, 0, r);
}

void lh_rules_submitted(struct lh_request *r)
{
	struct lh_job_run *run = lh_jobs_find(r->jobs, r->job);
	const json_t *one;
	size_t i;

	json_array_foreach (json_object_get(r->spec_json, "rules"), i, one)
		rule_new(run, r->first_rule + (int64_t)i, one, r->uid, r->pid, r->program);
	lh_rules_touch(r->jobs);
}

/* ---- from the store, and the end ------------------------------------------- */

struct loaded {
	json_t *rules, *firings, *last;
};

static int load_rows(sqlite3 *db, void *arg, struct lh_err *err)
{
	struct loaded *l = arg;
	bool more;

	l->rules = lh_store_rows(db, "SELECT id, job, name, when_sql AS \"when\", on_kind AS "
				 "\"on\", action AS \"do\", repeat, cooldown_s, state, held, "
				 "fired, cursor_event, uid, pid, program, created_ms FROM "
				 "rules WHERE state <> 'removed' ORDER BY id", NULL, 0,
				 INT64_MAX, &more, err);
	if (l->rules)
		l->firings = lh_store_rows(db, "SELECT rule, n, event, values_json FROM "
					   "rule_firings WHERE outcome IS NULL", NULL, 0,
					   INT64_MAX, &more, err);
	if (l->firings)
		l->last = lh_store_rows(db, "SELECT coalesce(max(id), 0) AS id FROM rules",
					NULL, 0, 1, &more, err);
	return l->last ? 0 : LH_ESTORE;
}

static void load_rule(struct lh_jobs *jobs, json_t *row)
{
	struct lh_job_run *run = lh_jobs_find(jobs, int_of(row, "job"));
	struct lh_rule *r;

	if (!run)
		return;
	r = rule_new(run, int_of(row, "id"), row, int_of(row, "uid"), int_of(row, "pid"),
		     text_of(row, "program"));
	r->repeat = int_of(row, "repeat");
	r->created_ms = int_of(row, "created_ms");
	r->armed = !strcmp(text_of(row, "state"), "armed");
	r->held = int_of(row, "held");
	r->fired = int_of(row, "fired");
	r->cursor = int_of(row, "cursor_event");
}

int lh_rules_load(struct lh_jobs *jobs, struct lh_err *err)
{
	struct loaded l = { 0 };
	json_t *row;
	size_t i;
	int rc = lh_store_read_now(jobs->store, load_rows, &l, err);

	json_array_foreach (l.rules, i, row)
		load_rule(jobs, row);
	jobs->rules->last_id = int_of(json_array_get(l.last, 0), "id");
	jobs->rules->cut_short = l.firings;
	json_decref(l.rules);
	json_decref(l.last);
	return rc;
}

void lh_rules_open(struct lh_jobs *jobs)
{
	struct lh_rules *all = lh_calloc(1, sizeof(*all));

	jobs->rules = all;
	uv_timer_init(jobs->loop, &all->timer);
	all->timer.data = jobs;
	jobs->handles++;
}

void lh_rules_begin(struct lh_jobs *jobs)
{
	json_t *row;
	size_t i;

	json_array_foreach (jobs->rules->cut_short, i, row) {
		struct lh_rule *r = lh_rule_find(jobs, int_of(row, "rule"));

		if (!r || r->busy)
			continue;
		lh_rule_refire(r, json_object_get(row, "values"), int_of(row, "event"),
			       int_of(row, "n"));
	}
	json_decref(jobs->rules->cut_short);
	jobs->rules->cut_short = NULL;
	lh_rules_touch(jobs);
}

static void on_closed(uv_handle_t *handle)
{
	struct lh_jobs *jobs = handle->data;

	jobs->handles--;
	lh_jobs_settle(jobs);
}

void lh_rules_close(struct lh_jobs *jobs)
{
	for (struct lh_rule *r = jobs->rules->first; r; r = r->next) {
		if (r->exec)
			lh_rule_exec_abandon(r->exec);
		if (r->running)
			lh_firing_free(r->running);
		r->exec = NULL;
		r->running = NULL;
	}
	uv_close((uv_handle_t *)&jobs->rules->timer, on_closed);
}

void lh_rules_free(struct lh_jobs *jobs)
{
	struct lh_rule *r;

	while ((r = jobs->rules->first)) {
		jobs->rules->first = r->next;
		free_rule(r);
	}
	json_decref(jobs->rules->cut_short);
	free(jobs->rules);
}

/* cmd_ls.c: all jobs, a line each. */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "commands.h"

#define DEFAULT_COLUMNS "job,name,state,phase,step,loss,tokens_per_s,left"

static const struct ctl_option options[] = {
	{ "state", 's', "STATE,...", true, "only jobs in one of these states" },
	{ "name", 0, "NAME", false, "only jobs of this name; * and ? stand for any" },
	{ "sort", 0, "[-]COLUMN", false, "in this order, with '-' the other way (job)" },
	{ "columns", 'c', "COLUMN,...", false, "these columns (" DEFAULT_COLUMNS ")" },
	{ "no-headers", 0, NULL, false, "no heads on a terminal either" },
	CTL_OPTION_JSON,
	{ NULL },
};

/* ---- columns --------------------------------------------------------------- */

struct column {
	const char *name, *head;
	const char *key;  /* of the job that it shows and is sorted by */
	void (*add)(struct ctl_table *t, const json_t *job, const char *key);
};

static void add_text(struct ctl_table *t, const json_t *job, const char *key)
{
	ctl_table_add(t, ctl_str(job, key));
}

static void add_int(struct ctl_table *t, const json_t *job, const char *key)
{
	ctl_table_addf(t, "%lld", (long long)ctl_int(job, key));
}

static void add_job(struct ctl_table *t, const json_t *job, const char *key)
{
	if (ctl_has(job, key))
		add_int(t, job, key);
	else
		ctl_table_add(t, "-");
}

static void add_steps(struct ctl_table *t, const json_t *job, const char *key)
{
	if (ctl_has(job, "total_steps"))
		ctl_table_addf(t, "%lld/%lld", (long long)ctl_int(job, key),
			       (long long)ctl_int(job, "total_steps"));
	else
		add_int(t, job, key);
}

static void add_loss(struct ctl_table *t, const json_t *job, const char *key)
{
	if (ctl_has(job, key))
		ctl_table_addf(t, "%.4f", ctl_real(job, key));
	else
		ctl_table_add(t, "-");
}

static void add_rate(struct ctl_table *t, const json_t *job, const char *key)
{
	if (ctl_has(job, key))
		ctl_table_addf(t, "%.0f", ctl_real(job, key));
	else
		ctl_table_add(t, "-");
}

static void add_duration(struct ctl_table *t, const json_t *job, const char *key)
{
	char text[32];

	ctl_duration(text, ctl_real(job, key));
	ctl_table_add(t, text);
}

static void add_time(struct ctl_table *t, const json_t *job, const char *key)
{
	char text[32] = "-";

	if (ctl_has(job, key))
		ctl_time(text, ctl_int(job, key));
	ctl_table_add(t, text);
}

static const struct column columns[] = {
	{ "job", "JOB", "job", add_int },
	{ "name", "NAME", "name", add_text },
	{ "state", "STATE", "state", add_text },
	{ "reason", "REASON", "reason", add_text },
	{ "phase", "PHASE", "phase_name", add_text },
	{ "step", "STEP", "step", add_steps },
	{ "loss", "LOSS", "loss", add_loss },
	{ "tokens_per_s", "TOKENS/S", "tokens_per_s", add_rate },
	{ "left", "LEFT", "eta_s", add_duration },
	{ "priority", "PRIORITY", "priority", add_int },
	{ "attempt", "ATTEMPT", "attempt", add_int },
	{ "restarts", "RESTARTS", "restarts", add_int },
	{ "submitted", "SUBMITTED", "submitted_ms", add_time },
	{ "at", "AT", "not_before_ms", add_time },
	{ "after", "AFTER", "after", add_job },
	{ "started", "STARTED", "started_ms", add_time },
	{ "ended", "ENDED", "ended_ms", add_time },
};
enum { COLUMNS = sizeof(columns) / sizeof(columns[0]) };

static const struct column *find_column(const struct ctl *c, const char *name, size_t n)
{
	char all[200] = "";

	for (int i = 0; i < COLUMNS; i++) {
		if (strlen(columns[i].name) == n && !strncmp(columns[i].name, name, n))
			return &columns[i];
		strcat(strcat(all, i ? ", " : ""), columns[i].name);
	}
	exit(ctl_usage(c->command, "there is no column '%.*s'; the columns are %s", (int)n,
		       name, all));
}

/* ---- which, and in what order ---------------------------------------------- */

/* Calls back for each part of "a,b,c". */
static void each_part(const struct ctl *c, const char *list,
		      void (*part)(const struct ctl *c, const char *s, size_t n, void *arg),
		      void *arg)
{
	for (;; list++) {
		size_t n = strcspn(list, ",");

		part(c, list, n, arg);
		list += n;
		if (!*list)
			return;
	}
}

static void check_state(const struct ctl *c, const char *s, size_t n, void *arg)
{
	char *state = lh_asprintf("%.*s", (int)n, s);

	(void)arg;
	ctl_check_state(c, state);
	free(state);
}

struct match {
	const char *state;
	bool found;
};

static void match_state(const struct ctl *c, const char *s, size_t n, void *arg)
{
	struct match *m = arg;

	(void)c;
	m->found |= strlen(m->state) == n && !strncmp(m->state, s, n);
}

static bool wanted(const struct ctl *c, const json_t *job)
{
	struct match m = { ctl_str(job, "state"), !c->repeated_count };
	const char *name = ctl_opt(c, "name");

	for (int i = 0; i < c->repeated_count; i++)
		each_part(c, c->repeated[i], match_state, &m);
	return m.found && (!name || !fnmatch(name, ctl_str(job, "name"), 0));
}

struct order {
	const char *key;
	int sign;
};

/* What is not known comes last, either way; equals by number. */
static int compare(const void *a, const void *b, void *arg)
{
	const json_t *one = *(json_t *const *)a, *two = *(json_t *const *)b;
	const struct order *o = arg;
	const json_t *x = json_object_get(one, o->key), *y = json_object_get(two, o->key);
	double d = 0;

	if (json_is_null(x) || json_is_null(y))
		d = o->sign * (json_is_null(x) - json_is_null(y));
	else if (json_is_string(x) && json_is_string(y))
		d = strcmp(json_string_value(x), json_string_value(y));
	else
		d = json_number_value(x) - json_number_value(y);
	if (d != 0)
		return d < 0 ? -o->sign : o->sign;
	return ctl_int(one, "job") < ctl_int(two, "job") ? -1 : 1;
}

static struct order order_of(const struct ctl *c)
{
	const char *name = ctl_opt(c, "sort");
	struct order o = { "job", 1 };

	if (!name)
		return o;
	o.sign = *name == '-' ? -1 : 1;
	name += *name == '-';
	o.key = find_column(c, name, strlen(name))->key;
	return o;
}

/* The jobs that are wanted, in order. New reference. */
static json_t *choose(const struct ctl *c, const json_t *jobs, struct order order)
{
	json_t **found = lh_calloc(json_array_size(jobs) + 1, sizeof(*found));
	json_t *chosen = json_array(), *job;
	size_t i, n = 0;

	json_array_foreach (jobs, i, job)
		if (wanted(c, job))
			found[n++] = job;
	qsort_r(found, n, sizeof(*found), compare, &order);
	for (i = 0; i < n; i++)
		json_array_append(chosen, found[i]);
	free(found);
	return chosen;
}

/* ---- printing -------------------------------------------------------------- */

struct selection {
	const struct column *column[COLUMNS];
	const char *heads[COLUMNS];
	int count;
};

static void select_column(const struct ctl *c, const char *s, size_t n, void *arg)
{
	struct selection *sel = arg;

	if (sel->count == COLUMNS)
		exit(ctl_usage(c->command, "more columns than there are"));
	sel->column[sel->count] = find_column(c, s, n);
	sel->heads[sel->count] = sel->column[sel->count]->head;
	sel->count++;
}

static void print(const struct ctl *c, const struct selection *sel, const json_t *jobs)
{
	struct ctl_table *t = ctl_table_new(sel->count, sel->heads);
	json_t *job;
	size_t i;

	if (ctl_opt(c, "no-headers"))
		ctl_table_hide_heads(t);
	json_array_foreach (jobs, i, job)
		for (int k = 0; k < sel->count; k++)
			sel->column[k]->add(t, job, sel->column[k]->key);
	ctl_table_print_take(t);
}

static int run(struct ctl *c)
{
	const char *names = ctl_opt(c, "columns");
	struct order order = order_of(c);
	struct selection sel = { .count = 0 };
	json_t *result, *chosen;
	int rc;

	for (int i = 0; i < c->repeated_count; i++)
		each_part(c, c->repeated[i], check_state, NULL);
	each_part(c, names ? names : DEFAULT_COLUMNS, select_column, &sel);
	result = ctl_ask(c, "job.list", json_object(), &rc);
	if (!result)
		return rc;
	chosen = choose(c, json_object_get(result, "jobs"), order);
	json_object_set_new(result, "jobs", chosen);
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(result);
	print(c, &sel, chosen);
	json_decref(result);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_ls = {
	"ls", "", "List all jobs, the newest last.\nWith options those wanted, as wanted.",
	"  lhctl ls -s RUNNING,PAUSED\n"
	"  lhctl ls --name 'sweep-*' --sort loss -c name,loss,left\n"
	"  lhctl ls --json\n", 0, 0, options, run };

/* rule_int.h: what the files of rules share behind rule.h.
 *
 *   rule.c        looking at rules
 *   rule_fire.c   what a rule does when it fires
 *   rule_life.c   rules made, removed, listed, loaded
 *   rule_check.c  whether a rule is one
 *   rule_sql.c, rule_action.c, rule_exec.c   conditions, actions, scripts
 */
#ifndef LIGHTHOUSE_RULE_INT_H
#define LIGHTHOUSE_RULE_INT_H

#include "jobs/jobs_int.h"
#include "jobs/rule.h"
#include "jobs/rule_exec.h"
#include "jobs/rule_sql.h"

/* A firing between its reason and its answer. */
struct lh_firing {
	struct lh_jobs *jobs;
	int64_t rule, n;
	json_t *values;      /* of `now`, or the event */
	int64_t event;       /* 0: of a condition */
	bool stored;         /* with its command */
};

struct lh_rule {
	struct lh_rule *next;    /* ascending ids */
	/* set at creation */
	struct lh_job_run *run;
	int64_t id, uid, pid, created_ms;
	char *name, *when, *on, *action, *program;
	bool repeat;
	double cooldown_s;
	/* the row */
	bool armed;
	bool held;               /* when last looked at */
	int64_t fired;           /* times */
	int64_t cursor;          /* events up to it were dealt with */
	/* in memory */
	int64_t fired_ms;        /* loop's clock; 0: not by this lhd */
	bool busy;
	bool removed;
	bool idle;               /* `on`, and its job has ended: nothing comes any more */
	struct lh_rule_exec *exec;
	struct lh_firing *running; /* of exec; owned */
	char trouble[200];       /* why its condition could not be evaluated, "" */
};

struct lh_rules {
	struct lh_rule *first;
	int64_t last_id;
	json_t *cut_short;       /* rows of scripts that the last lhd left running */
	uv_timer_t timer;
	bool looking, touched;
};

/* ---- rule_life.c ----------------------------------------------------------- */
struct lh_rule *lh_rule_find(struct lh_jobs *jobs, int64_t id); /* or NULL */
/* Frees removed rules that nobody will come back to. */
void lh_rule_sweep(struct lh_jobs *jobs);
void lh_rule_store(const struct lh_rule *r, struct lh_batch *b);

/* ---- rule_check.c ---------------------------------------------------------- */
/* What a condition may ask about a job that has not run. */
void lh_rule_scope_of_job(struct lh_rule_scope *s, const struct lh_job *spec,
			  const struct lh_settings *settings);
int lh_rule_check(const struct lh_rule_scope *scope, const char *when, const char *on,
		  const char *action, struct lh_err *err);
/* Whether the job could do it in `phase`, with settings as they are. */
int lh_rule_check_action(const struct lh_job *job, const struct lh_settings *settings,
			 int phase, const char *action, struct lh_err *err);

/* ---- rule_fire.c ----------------------------------------------------------- */
/* `values` of `now`, or the event of that id. */
void lh_rule_fire(struct lh_rule *r, json_t *values, int64_t event);
/* A script that was cut short, again: firing n with its stored input. */
void lh_rule_refire(struct lh_rule *r, json_t *input, int64_t event, int64_t n);

#endif

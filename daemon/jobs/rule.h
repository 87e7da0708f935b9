/* rule.h: rules that steer jobs by themselves.
 *
 * A rule belongs to a job and has a name, a reason to fire and an action:
 *
 *   when   a condition on the job's metrics (jobs/rule_sql.h), looked at whenever
 *          steps were stored, at most ten times a second, and once a second
 *          otherwise; only while the job runs or is paused
 *   on     a glob over kinds of events of the job ("job.state", "job.*")
 *   do     "switch PHASE", "set NAME=VALUE ...", "pause", "pause release", "resume",
 *          "checkpoint", "checkpoint pin", "cancel": the command, as if its maker had
 *          given it; "exec FILE": STATE/hooks/FILE with one line of JSON on its stdin
 *
 * A rule with `when` fires once; with `repeat` each time its condition becomes true
 * after it was not, at most every cooldown_s seconds. Firing and command are one
 * transaction, so a rule never fires twice for one reason, whatever crashes. A
 * script runs at least once for each firing: one that lhd's end cut short runs
 * again, with the same rule and firing numbers.
 *
 * A script is a regular file of lhd's user or root that nobody else may write; it
 * gets a clean environment, no shell, a process group of its own, and
 * LH_RULE_EXEC_MS before that group is killed. Its output goes to STATE/hooks.log.
 *
 * Loop thread, but for what says otherwise.
 */
#ifndef LIGHTHOUSE_RULE_H
#define LIGHTHOUSE_RULE_H

#include "jobs/jobs.h"

enum { LH_RULE_EXEC_MS = 60000, LH_RULES_OF_JOB_MAX = 64 };

struct lh_batch;
struct lh_firing;
struct lh_request;
struct lh_job_run;
struct lh_rules;

/* ---- for job files: any thread ---------------------------------------------- */
/* Every rule of a job: condition, action, kinds. LH_EJOBFILE. */
int lh_rules_check(const struct lh_job *job, struct lh_err *err);

/* ---- for the control socket -------------------------------------------------- */
/* rule.add {name, when | on, do, repeat, cooldown_s} and rule.remove {name}: in the
 * journal, answered {command, job, state} once durable. */
void lh_rules_add(struct lh_jobs *jobs, int64_t job, const json_t *args,
		  const struct lh_caller *who, lh_jobs_reply reply, void *arg);
void lh_rules_remove(struct lh_jobs *jobs, int64_t job, const json_t *args,
		     const struct lh_caller *who, lh_jobs_reply reply, void *arg);
/* rule.list; job 0: of all. New reference. */
json_t *lh_rules_list(struct lh_jobs *jobs, int64_t job);

/* ---- for the manager --------------------------------------------------------- */
void lh_rules_open(struct lh_jobs *jobs);
/* From the store; blocking, before lh_rules_begin. */
int lh_rules_load(struct lh_jobs *jobs, struct lh_err *err);
/* Goes on with scripts that were cut short, and looks at the rules. */
void lh_rules_begin(struct lh_jobs *jobs);
void lh_rules_close(struct lh_jobs *jobs); /* handles; memory with lh_rules_free */
void lh_rules_free(struct lh_jobs *jobs);
/* Rows of the rules that a submitted job brings, then the rules themselves. */
void lh_rules_submit(struct lh_request *r, struct lh_batch *b);
void lh_rules_submitted(struct lh_request *r);
/* Something was stored of a job that may have rules. */
void lh_rules_touch(struct lh_jobs *jobs);
/* A request that a rule makes is journalled in `b`: so is the firing. */
void lh_rules_journal(struct lh_request *r, struct lh_batch *b);
void lh_firing_free(struct lh_firing *f); /* NULL is allowed */

#endif

/* rule_exec.h: scripts that rules run; rule.h says what they get and may.
 *
 * Loop thread.
 */
#ifndef LIGHTHOUSE_RULE_EXEC_H
#define LIGHTHOUSE_RULE_EXEC_H

#include "jobs/jobs.h"

struct lh_rule_exec;

/* `ok`: it ended with status 0; `text` says how it ended. Once, never from within
 * lh_rule_exec_start. */
typedef void (*lh_rule_exec_done)(void *arg, bool ok, const char *text);

/* Runs STATE/hooks/`file` with `input` as a line on its stdin. NULL and *err when
 * it may not or cannot be run; no `done` then. */
struct lh_rule_exec *lh_rule_exec_start(struct lh_jobs *jobs, const char *file,
					const json_t *input, lh_rule_exec_done done,
					void *arg, struct lh_err *err);
/* Kills it; there is no `done` any more. */
void lh_rule_exec_abandon(struct lh_rule_exec *x);

#endif

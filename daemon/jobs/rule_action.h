/* rule_action.h: what a rule does, from the words it is written in. Pure.
 *
 *   "switch recovery"   verb "switch", args {"phase": "recovery"}
 *   "set lr=1e-3 clip=1"  verb "set", args {"lr": 0.001, "clip": 1.0}
 *   "pause release"     verb "pause", args {"release": true}
 *   "exec notify.sh"    verb "exec", args {"file": "notify.sh"}
 */
#ifndef LIGHTHOUSE_RULE_ACTION_H
#define LIGHTHOUSE_RULE_ACTION_H

#include <jansson.h>
#include <stdbool.h>

#include "lighthouse/err.h"

struct lh_rule_action {
	const char *verb;   /* literal */
	json_t *args;       /* as a command's; owned */
};

/* LH_EINVAL names what is allowed. */
int lh_rule_action_parse(struct lh_rule_action *a, const char *text, struct lh_err *err);
void lh_rule_action_release(struct lh_rule_action *a);

#endif

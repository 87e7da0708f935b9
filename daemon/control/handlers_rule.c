/* handlers_rule.c: methods about the rules of jobs; see jobs/rule.h. */
#include "control/control.h"
#include "jobs/rule.h"
#include "rpc_table.h"

/* A rule's parameters: what is not who, why and of which job. */
static json_t *rule_args(const struct lh_call *call)
{
	static const char *const others[] = { "job", "request_id", "message", "program" };
	json_t *args = json_copy(call->params);

	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		json_object_del(args, others[i]);
	return args;
}

static void change(struct lh_call *call,
		   void (*make)(struct lh_jobs *jobs, int64_t job, const json_t *args,
				const struct lh_caller *who, lh_jobs_reply reply, void *arg))
{
	struct lh_caller who = lh_control_caller(call);
	json_t *args = rule_args(call);

	make(lh_control_of(call)->jobs, lh_call_int(call, "job", 0), args, &who,
	     lh_control_answer, call);
	json_decref(args);
}

void rpc_rule_add(struct lh_call *call)
{
	change(call, lh_rules_add);
}

void rpc_rule_remove(struct lh_call *call)
{
	change(call, lh_rules_remove);
}

void rpc_rule_list(struct lh_call *call)
{
	int64_t job;

	if (lh_control_find_job(call, &job))
		lh_reply_ok(call, json_pack("{s:o}", "rules",
					    lh_rules_list(lh_control_of(call)->jobs, job)));
}

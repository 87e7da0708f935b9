/* command_own.c: commands that lhd does itself, whatever the job is at: its priority,
 * a note. The row of the journal, what it does and its outcome are one transaction, so
 * none is ever pending. */
#include "jobs/jobs_int.h"

#include <stdio.h>
#include <string.h>

static int64_t priority_of(const struct lh_request *r)
{
	return json_integer_value(json_object_get(r->stored, "priority"));
}

static void add_priority(const struct lh_request *r, const struct lh_job_run *run,
			 struct lh_batch *b)
{
	char text[64];

	lh_batch_add(b, LH_STMT_JOB_PRIORITY,
		     (struct lh_bind[]){ LH_INT(run->id), LH_INT(priority_of(r)) }, 2);
	snprintf(text, sizeof(text), "priority %d, was %d", (int)priority_of(r),
		 run->priority);
	lh_command_add_outcome(run, b, r->command, "priority", "applied", run->step, text, "");
}

static void set_priority(const struct lh_request *r, struct lh_job_run *run)
{
	run->priority = (int)priority_of(r);
}

static void add_note(const struct lh_request *r, const struct lh_job_run *run,
		     struct lh_batch *b)
{
	const char *text = json_string_value(json_object_get(r->stored, "text"));

	lh_batch_event_take(b, run->id, run->attempt, run->step, "job.note",
			    json_pack("{s:I, s:I}", "command", (json_int_t)r->command, "uid",
				      (json_int_t)r->uid),
			    "%s", text);
	lh_command_add_outcome(run, b, r->command, "annotate", "applied", run->step, text, "");
}

static const struct own {
	const char *method;
	void (*add)(const struct lh_request *r, const struct lh_job_run *run,
		    struct lh_batch *b);
	void (*done)(const struct lh_request *r, struct lh_job_run *run); /* or NULL */
} owns[] = {
	{ "job.priority", add_priority, set_priority },
	{ "job.annotate", add_note, NULL },
};

static const struct own *find(const struct lh_request *r)
{
	for (size_t i = 0; i < sizeof(owns) / sizeof(*owns); i++)
		if (!strcmp(owns[i].method, r->method))
			return &owns[i];
	return NULL;
}

bool lh_command_is_own(const struct lh_request *r)
{
	return find(r) != NULL;
}

void lh_command_own_add(const struct lh_request *r, const struct lh_job_run *run,
			struct lh_batch *b)
{
	find(r)->add(r, run, b);
}

void lh_command_own_done(const struct lh_request *r, struct lh_job_run *run)
{
	if (find(r)->done)
		find(r)->done(r, run);
}

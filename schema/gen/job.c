/* job.c: job.json -> job_table.h and job_table.c. */
#include "gen.h"

void gen_job(const char *schema, const char *out)
{
	(void)schema;
	gen_close(gen_open(out, "job_table.h"));
	gen_close(gen_open(out, "job_table.c"));
}

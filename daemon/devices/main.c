/* main.c: lhgpus: tells what the GPUs do, for lhd, which asks no driver itself.
 *
 * Answers each line on stdin with one on stdout, and ends with its stdin:
 *
 *   {"gpus": [...]}      nvml.h's
 *   {"why": "..."}       there are none that one could ask
 */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "devices/nvml.h"

static void print_take(json_t *answer)
{
	json_dumpf(answer, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(answer);
}

int main(int argc, char **argv)
{
	struct lh_err err = LH_ERR_INIT;
	char line[16];
	int rc;

	if (argc > 1) {
		fprintf(stderr, "usage: echo | %s\n", argv[0]);
		return 2;
	}
	/* It may hang when lhd is gone, and would not see that its stdin has ended. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rc = lh_nvml_open(&err);
	while (fgets(line, sizeof(line), stdin)) {
		json_t *gpus = rc ? NULL : lh_nvml_read(&err);

		print_take(gpus ? json_pack("{s:o}", "gpus", gpus) :
				  json_pack("{s:s}", "why", err.text));
	}
	return 0;
}

/* fuzz_attempt.c: what a dead worker left in its directory, as lhd reads it to find
 * out how it went (daemon/jobs/finish.c): exit.json, the log's last words, the spool.
 *
 * The input is these three, a NUL between them. Job 3 comes to an end by it, since
 * it allows no restart, and the next lhd finds a store that it can load. */
#include "lhd.h"

static void write_files(const uint8_t *data, size_t bytes)
{
	static const char *const names[] = { LH_ATTEMPT_EXIT, LH_ATTEMPT_LOG,
					     LH_ATTEMPT_SPOOL };
	struct fuzz_part rest = { (const char *)data, bytes }, part;
	char *dir = lhd_attempt_dir();

	for (int i = 0; i < 2 && fuzz_next(&rest, '\0', &part); i++)
		fuzz_write(dir, names[i], part.text, part.bytes);
	if (rest.text)
		fuzz_write(dir, names[2], rest.text, rest.bytes);
	free(dir);
}

static bool has_ended(void)
{
	json_t *j = lh_jobs_get(lhd.jobs, LHD_RUNNING);
	const char *state = json_string_value(json_object_get(j, "state"));
	bool ended = !strcmp(state, "DONE") || !strcmp(state, "FAILED") ||
		     !strcmp(state, "CANCELLED") || !strcmp(state, "QUEUED");

	json_decref(j);
	return ended;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	lhd_reset(false);
	write_files(data, bytes);
	lhd_reopen();
	while (!has_ended())
		uv_run(&lhd.loop, UV_RUN_ONCE);
	lhd_look();
	lhd_close();
	lhd_reopen();
	lhd_look();
	lhd_close();
	return 0;
}

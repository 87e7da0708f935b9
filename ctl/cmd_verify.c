/* cmd_verify.c: reads a whole checkpoint against its manifest: no daemon, and no
 * model, so that a copy on another host can be checked where it lies. */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "commands.h"
#include "train/manifest.h"

static const struct ctl_option options[] = {
	{ "json", 0, NULL, false, "as data" },
	{ NULL },
};

static void print_file(void *arg, const char *file, int64_t bytes,
		       const struct lh_err *why)
{
	char safe[1200];

	(void)arg;
	/* What cannot be read now, or by this version, may be whole. */
	if (why)
		printf("%s: %s: %s\n", file,
		       why->code == LH_ECORRUPT || why->code == LH_ENOTFOUND ?
			       "damaged" : "not checked",
		       lh_escape(safe, sizeof(safe), why->text));
	else
		printf("%s: %" PRId64 " bytes, as written\n", file, bytes);
	/* Each takes its time, and the error that may follow is on stderr. */
	fflush(stdout);
}

static void add_file(void *arg, const char *file, int64_t bytes,
		     const struct lh_err *why)
{
	char safe[1200];

	json_array_append_new(
		arg, json_pack("{s:s, s:I, s:b, s:s}", "file", file, "bytes",
			       (json_int_t)bytes, "ok", !why, "why",
			       why ? lh_escape(safe, sizeof(safe), why->text) : ""));
}

static int run(struct ctl *c)
{
	bool as_data = ctl_opt(c, "json");
	json_t *files = json_array();
	struct lh_err err = LH_ERR_INIT;
	int rc = lh_manifest_verify(c->args[0], as_data ? add_file : print_file, files,
				    &err);

	if (as_data)
		ctl_print_json_take(json_pack("{s:o, s:b}", "files", files, "ok", !rc));
	else
		json_decref(files);
	if (rc)
		return ctl_fail(&err);
	if (!as_data)
		puts("ok");
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_verify = {
	"verify", "CHECKPOINT_DIR",
	"Read a whole checkpoint and compare it with its manifest.\n"
	"Every file's size and checksum; no daemon is needed. A damaged one exits with 1.",
	"  lhctl verify ~/.local/state/lighthouse/jobs/1/checkpoints/step-0000000500\n"
	"  lhctl verify --json /backup/step-0000000500\n", 1, 1, options, run };

/* cmd_export.c: a checkpoint in the form that others load: by lhctl itself, from the
 * checkpoint's files, so that what is written belongs to whoever asked for it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "commands.h"
#include "train/hf.h"
#include "transfer.h"

static const struct ctl_option options[] = {
	{ "dtype", 0, "TYPE", false, "of the weights: bf16, fp16 or fp32 (bf16)" },
	{ "max-shard-bytes", 0, "N", false, "of tensors in a file, at most (5000000000)" },
	{ "force", 'f', NULL, false, "replace an export of that name" },
	{ "json", 0, NULL, false, "what was written, as data" },
	{ NULL },
};

static enum lh_tensor_type type_of(const struct ctl *c)
{
	static const struct {
		const char *name;
		enum lh_tensor_type type;
	} types[] = { { "bf16", LH_TENSOR_BF16 }, { "fp16", LH_TENSOR_F16 },
		      { "fp32", LH_TENSOR_F32 } };
	const char *name = ctl_opt(c, "dtype");

	for (size_t i = 0; name && i < sizeof(types) / sizeof(*types); i++)
		if (!strcmp(types[i].name, name))
			return types[i].type;
	if (name)
		exit(ctl_usage(c->command, "--dtype is bf16, fp16 or fp32"));
	return LH_TENSOR_BF16;
}

/* The newest checkpoint of the job that is still there; heap. NULL after printing
 * why, *rc is the code to exit with. */
static char *newest_of(const struct ctl *c, int *rc)
{
	json_t *result = ctl_ask(c, "job.checkpoints", json_object(), rc), *one;
	struct lh_err err = LH_ERR_INIT;
	char *path = NULL;
	size_t i;

	if (!result)
		return NULL;
	json_array_foreach (json_object_get(result, "checkpoints"), i, one)
		if (!json_is_true(json_object_get(one, "removed"))) {
			free(path);
			path = lh_strdup(ctl_str(one, "path"));
		}
	json_decref(result);
	if (path)
		return path;
	lh_err_set(&err, LH_ENOTFOUND, "job '%s' has no checkpoint yet", c->args[0]);
	lh_err_hint(&err, "'lhctl checkpoint %s' writes one", c->args[0]);
	*rc = ctl_fail(&err);
	return NULL;
}

/* What the first operand names: a checkpoint's directory, or a job's newest. */
static char *checkpoint_of(const struct ctl *c, int *rc)
{
	char *manifest = lh_asprintf("%s/manifest.json", c->args[0]);
	bool there = lh_fs_exists(manifest);

	free(manifest);
	return there || strchr(c->args[0], '/') ? lh_strdup(c->args[0]) : newest_of(c, rc);
}

static int print(const struct ctl *c, const char *from, const struct lh_hf_written *w)
{
	char safe[1200];

	ctl_transfer_left_out(&w->left_out);
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(json_pack(
			"{s:o, s:s, s:I, s:i, s:I, s:I, s:b}", "checkpoint",
			ctl_text(c, "the checkpoint's name", from), "model", w->model, "step",
			(json_int_t)w->step, "files", w->files, "bytes", (json_int_t)w->bytes,
			"parameters", (json_int_t)w->parameters, "tokenizer",
			w->has_tokenizer));
	printf("%s: %s of step %" PRId64 ", %.1f M parameters, %.2f GB in %d file%s%s\n",
	       lh_escape(safe, sizeof(safe), c->args[1]), w->model, w->step,
	       (double)w->parameters / 1e6, (double)w->bytes / 1e9, w->files,
	       w->files == 1 ? "" : "s", w->has_tokenizer ? ", its tokenizer" : "");
	return CTL_DONE;
}

static int run(struct ctl *c)
{
	struct ctl_transfer t = { 0 };
	struct lh_hf_export how = {
		.type = type_of(c), .replace = ctl_opt(c, "force"),
		.file_bytes = ctl_opt_int(c, "max-shard-bytes", LH_HF_FILE_BYTES, 1, INT64_MAX),
		.progress = { ctl_transfer_moved, &t } };
	struct lh_hf_written written;
	struct lh_err err = LH_ERR_INIT;
	int rc = CTL_DONE;
	char *from = checkpoint_of(c, &rc);

	if (!from)
		return rc;
	rc = lh_hf_export(from, c->args[1], &how, &written, &err);
	ctl_transfer_end(&t);
	rc = rc ? ctl_fail(&err) : print(c, from, &written);
	free(from);
	return rc;
}

const struct ctl_command ctl_cmd_export = {
	"export", "JOB|CHECKPOINT DIR",
	"Write a model as Hugging Face loads it.\n"
	"DIR gets config.json, generation_config.json, safetensors and the files of the job's\n"
	"tokenizer, and appears when all of it is there. Of a job it is the newest checkpoint; training goes on meanwhile.",
	"  lhctl export my-job ~/models/mine\n"
	"  lhctl export STATE/jobs/1/checkpoints/step-0000000500 mine --dtype fp32\n",
	2, 2, options, run };

/* cmd_import.c: a model that others saved as the start of a job: by lhctl itself, so
 * that nobody reads foreign files but whoever brought them. */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "commands.h"
#include "train/hf.h"
#include "transfer.h"

static const struct ctl_option options[] = {
	{ "output", 'o', "DIR", false, "where the weights go; a job's model.from" },
	{ "force", 'f', NULL, false, "replace weights of that name" },
	{ "json", 0, NULL, false, "what was written, as data" },
	{ NULL },
};

static int print(const struct ctl *c, const char *dir, const struct lh_hf_written *w)
{
	char safe[1200];

	ctl_transfer_left_out(&w->left_out);
	if (ctl_opt(c, "json"))
		return ctl_print_json_take(json_pack(
			"{s:o, s:s, s:i, s:I, s:I, s:b}", "checkpoint",
			ctl_text(c, "the output's name", dir), "model", w->model, "files",
			w->files, "bytes", (json_int_t)w->bytes, "parameters",
			(json_int_t)w->parameters, "tokenizer", w->has_tokenizer));
	lh_escape(safe, sizeof(safe), dir);
	printf("%s: %s, %.1f M parameters, %.2f GB%s; start from it with model: { from: %s }\n",
	       safe, w->model, (double)w->parameters / 1e6, (double)w->bytes / 1e9,
	       w->has_tokenizer ? ", with its tokenizer" : "", safe);
	return CTL_DONE;
}

static int run(struct ctl *c)
{
	struct ctl_transfer t = { 0 };
	struct lh_hf_progress progress = { ctl_transfer_moved, &t };
	const char *dir = ctl_opt(c, "output");
	struct lh_hf_written written;
	struct lh_err err = LH_ERR_INIT;
	int rc;

	if (!dir)
		return ctl_usage(c->command, "--output is missing");
	rc = lh_hf_import(c->args[0], dir, ctl_opt(c, "force"), &progress, &written, &err);
	ctl_transfer_end(&t);
	return rc ? ctl_fail(&err) : print(c, dir, &written);
}

const struct ctl_command ctl_cmd_import = {
	"import", "DIR",
	"Read a model as Hugging Face saves it, as the start of a job.\n"
	"DIR holds config.json and safetensors (bf16, fp16 or fp32), in one file or with an\n"
	"index. The weights become a checkpoint, every bit as it is; a job file names it in\n"
	"model: { from: ... }, and its dimensions are taken from there, as is data.tokenizer: a\n"
	"tokenizer.json or tokenizer.model in DIR, which stays there.",
	"  lhctl import ~/models/Llama-3.2-1B -o llama-1b\n"
	"  lhctl import mine -o start && lhctl submit job.yaml --set model.from=$PWD/start\n",
	1, 1, options, run };

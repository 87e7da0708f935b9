/* cmd_ids.c: what a job's evaluations ask its model, as ids of a tokenizer: made once, by
 * lhctl, which alone has tokenizers. */
#include <inttypes.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/log.h"
#include "commands.h"
#include "ids.h"

static const struct ctl_option options[] = {
	{ "tokenizer", 0, "FILE", false, "the data's: a tokenizer.json or SentencePiece .model" },
	{ "output", 'o', "FILE", false, "what is written" },
	{ "passkey", 0, NULL, false, "what texts that hide a digit are made of" },
	{ NULL },
};

static int make(const struct ctl *c, struct lh_buf *out, int64_t *items, struct lh_err *err)
{
	const char *path = ctl_opt(c, "tokenizer");
	struct ctl_tokenizer *t = NULL;
	struct lh_vocabulary v;
	int rc = lh_vocabulary_read(&v, path, err);

	if (!rc)
		rc = ctl_tokenizer_open(&t, path, &v, err);
	if (!rc)
		rc = ctl_opt(c, "passkey") ?
			     ids_of_passkey(t, v.hash, out, err) :
			     ids_of_choices(t, v.hash, c->args[0], out, items, err);
	ctl_tokenizer_close(t);
	return rc;
}

static int run(struct ctl *c)
{
	const char *to = ctl_opt(c, "output");
	struct lh_err err = LH_ERR_INIT;
	struct lh_buf out = { 0 };
	int64_t items = 0;
	char safe[1200];
	int rc;

	if (!to || !ctl_opt(c, "tokenizer"))
		return ctl_usage(c->command, "--%s is missing", to ? "tokenizer" : "output");
	if (!ctl_opt(c, "passkey") == !c->arg_count)
		return ctl_usage(c->command, "a FILE of multiple choice, or --passkey");
	rc = make(c, &out, &items, &err);
	if (!rc)
		rc = lh_fs_write_atomic(to, out.data, out.used_bytes, &err);
	lh_buf_release(&out);
	if (rc)
		return ctl_fail(&err);
	lh_escape(safe, sizeof(safe), to);
	if (ctl_opt(c, "passkey"))
		printf("%s: for evaluation.passkey.file\n", safe);
	else
		printf("%s: %" PRId64 " items, for evaluation.choices.files\n", safe, items);
	return CTL_DONE;
}

const struct ctl_command ctl_cmd_ids = {
	"ids", "[FILE]",
	"Make ids of what evaluations ask, by the tokenizer that the data were packed with.\n"
	"Jobs of bytes need none of this. FILE has multiple choice, JSON objects, one a line:\n"
	"ctx, endings, label; ctx_ids and endings_ids are added, as lm-evaluation-harness cuts\n"
	"them, and a job names the output in evaluation.choices.files. With --passkey the\n"
	"output is what texts that hide a digit are made of, for evaluation.passkey.file; a\n"
	"tokenizer that has no id for each digit is refused.",
	"  lhctl ids --tokenizer Llama-3.2-1B/tokenizer.json -o quiz.ids.jsonl hellaswag.jsonl\n"
	"  lhctl ids --tokenizer Llama-3.2-1B/tokenizer.json -o passkey.json --passkey\n",
	0, 1, options, run };

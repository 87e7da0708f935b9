/* cmd_sample.c: text from a job's model, as it is written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

enum { PROMPT_MAX_BYTES = 65536 };

static const struct ctl_option options[] = {
	{ "prompt", 'p', "TEXT", false, "text to continue; '-' reads it from stdin" },
	{ "tokens", 'n', "N", false, "tokens to write at most (200)" },
	{ "temperature", 't', "X", false, "0 takes always the likeliest (0.8)" },
	{ "top-k", 'k', "N", false, "choose among the N likeliest, 0 = all (40)" },
	{ "top-p", 0, "X", false, "of those the fewest with this share, 1 = all (1)" },
	{ "seed", 0, "N", false, "of the draw (1)" },
	CTL_OPTION_JSON,
	{ NULL },
};

static void on_note(void *arg, const char *method, json_t *params)
{
	(void)arg;
	if (!strcmp(method, "sample"))
		ctl_put_text(ctl_str(params, "text"));
}

/* The prompt; heap. What the model would not see whole is refused: exits 2. */
static char *prompt_of(const struct ctl *c)
{
	const char *text = ctl_opt(c, "prompt");
	char *out = lh_calloc(PROMPT_MAX_BYTES + 2, 1);
	size_t n = 0;

	if (text && !strcmp(text, "-"))
		n = fread(out, 1, PROMPT_MAX_BYTES + 1, stdin);
	else if (text)
		n = (size_t)snprintf(out, PROMPT_MAX_BYTES + 2, "%s", text);
	if (n > PROMPT_MAX_BYTES)
		exit(ctl_usage(c->command, "the prompt has more than %d bytes",
			       PROMPT_MAX_BYTES));
	if (strlen(out) != n)
		exit(ctl_usage(c->command, "the prompt holds a NUL byte"));
	return out;
}

static json_t *params_of(const struct ctl *c, int64_t job, const char *prompt)
{
	return json_pack("{s:I, s:o, s:I, s:f, s:I, s:f, s:I}", "job", (json_int_t)job,
			 "prompt", ctl_text(c, "the prompt", prompt), "max_tokens",
			 (json_int_t)ctl_opt_int(c, "tokens", 200, 1, 65536),
			 "temperature", ctl_opt_number(c, "temperature", 0.8, 0, 100),
			 "top_k", (json_int_t)ctl_opt_int(c, "top-k", 40, 0, 1000000),
			 "top_p", ctl_opt_number(c, "top-p", 1, 1e-6, 1),
			 "seed", (json_int_t)ctl_opt_int(c, "seed", 1, 0, INT64_MAX));
}

static int run(struct ctl *c)
{
	struct ctl_client *k = ctl_connect(c);
	struct lh_err err = LH_ERR_INIT;
	char *prompt;
	json_t *params, *result = NULL;
	int64_t job;
	int rc;

	if (!k)
		return CTL_UNREACHABLE;
	rc = ctl_job(k, c->args[0], &job);
	prompt = prompt_of(c);
	if (rc == CTL_DONE) {
		params = params_of(c, job, prompt);
		if (!ctl_opt(c, "json")) {
			ctl_put_text(prompt); /* so that the text reads whole */
			ctl_on_note(k, on_note, NULL);
		}
		result = ctl_call(k, "job.sample", params, &err);
		if (!result)
			rc = ctl_fail(&err);
		else if (ctl_opt(c, "json"))
			rc = ctl_print_json_take(json_incref(result));
		else
			putchar('\n');
	}
	json_decref(result);
	free(prompt);
	ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_sample = {
	"sample", "JOB",
	"Let the model write.\n"
	"A running job answers between two steps, an ended one from its checkpoint.",
	"  lhctl sample my-job --prompt 'int main(' --tokens 300\n"
	"  lhctl sample my-job --top-k 0 --top-p 0.9 --seed 7\n"
	"  lhctl sample my-job --temperature 0 --json\n", 1, 1, options, run };

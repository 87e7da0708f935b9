/* cmd_metrics.c: the numbers of a job: every step, steps put together, evaluations and
 * what they looked at besides. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "looks.h"
#include "tensorboard.h"

static const struct ctl_option options[] = {
	{ "kind", 0, "KIND", false, "steps (default), evals, selection, positions, passkey or choices" },
	{ "points", 0, "N", false, "steps put together in N groups of equal width" },
	{ "attempt", 0, "N", false, "only this attempt, abandoned steps too" },
	{ "all-attempts", 0, NULL, false, "all attempts, abandoned steps too" },
	{ "from", 0, "STEP", false, "first step wanted" },
	{ "to", 0, "STEP", false, "last step wanted" },
	{ "limit", 0, "N", false, "rows at most (all)" },
	{ "tensorboard", 0, "DIR", false, "write event files in DIR, for 'tensorboard --logdir DIR'" },
	{ "force", 0, NULL, false, "with --tensorboard: in place of those that are there" },
	{ "csv", 0, NULL, false, "all values, comma-separated, with a head" },
	CTL_OPTION_JSON,
	{ NULL },
};

struct metrics {
	const struct ctl *c;
	const struct kind *kind;
	struct ctl_table *table;
	bool headed; /* of CSV */
};

/* What can be had, and how a row of it is shown. */
struct kind {
	const char *name;
	const char *method, *list;
	const char *const *heads;
	int columns;
	void (*add)(struct ctl_table *t, const json_t *row);
	void (*go_on)(json_t *params, const json_t *last); /* NULL: one page is all */
	bool is_look; /* `add` gets its flat rows */
};

/* ---- rows ------------------------------------------------------------------ */

static void add_real(struct ctl_table *t, const char *fmt, const json_t *row,
		     const char *key)
{
	char text[40] = "-";

	if (ctl_has(row, key))
		snprintf(text, sizeof(text), fmt, ctl_real(row, key));
	ctl_table_add(t, text);
}

static void add_int(struct ctl_table *t, const json_t *row, const char *key)
{
	ctl_table_addf(t, "%" PRId64, ctl_int(row, key));
}

static void add_step(struct ctl_table *t, const json_t *s)
{
	add_int(t, s, "attempt");
	add_int(t, s, "step");
	add_int(t, s, "phase");
	add_real(t, "%.4f", s, "loss");
	add_real(t, "%.3f", s, "grad_norm");
	add_real(t, "%.3e", s, "lr");
	add_real(t, "%.1f", s, "step_ms");
	add_real(t, "%.0f", s, "tokens_per_s");
}

static void add_evaluation(struct ctl_table *t, const json_t *e)
{
	add_int(t, e, "attempt");
	add_int(t, e, "step");
	add_int(t, e, "phase");
	add_real(t, "%.4f", e, "loss");
	ctl_table_add(t, ctl_str(e, "set_name"));
	ctl_table_add(t, ctl_str(e, "attention"));
	ctl_table_add(t, ctl_str(e, "reason"));
}

static void add_point(struct ctl_table *t, const json_t *p)
{
	add_int(t, p, "first_step");
	add_int(t, p, "last_step");
	add_real(t, "%.4f", p, "loss_min");
	add_real(t, "%.4f", p, "loss_mean");
	add_real(t, "%.4f", p, "loss_max");
	add_real(t, "%.3f", p, "grad_norm_mean");
	add_real(t, "%.3f", p, "grad_norm_max");
	add_real(t, "%.3e", p, "lr_mean");
	add_real(t, "%.1f", p, "step_ms_mean");
	add_real(t, "%.0f", p, "tokens_per_s_mean");
}

static void add_level(struct ctl_table *t, const json_t *r)
{
	add_int(t, r, "attempt");
	add_int(t, r, "step");
	add_int(t, r, "level");
	add_real(t, "%.4f", r, "expanded");
	add_real(t, "%.4f", r, "any_head");
	add_real(t, "%.4f", r, "heads");
	add_real(t, "%.4f", r, "kept");
	add_real(t, "%.4f", r, "never");
}

static void add_bucket(struct ctl_table *t, const json_t *r)
{
	add_int(t, r, "attempt");
	add_int(t, r, "step");
	ctl_table_add(t, ctl_str(r, "set_name"));
	ctl_table_add(t, ctl_str(r, "attention"));
	add_int(t, r, "from");
	add_int(t, r, "to");
	add_real(t, "%.4f", r, "loss");
	add_int(t, r, "tokens");
}

static void add_context(struct ctl_table *t, const json_t *r)
{
	static const char *const depths[] = { "depth_0",  "depth_15", "depth_30", "depth_50",
					      "depth_70", "depth_85", "depth_100" };

	add_int(t, r, "attempt");
	add_int(t, r, "step");
	ctl_table_add(t, ctl_str(r, "attention"));
	add_int(t, r, "context");
	for (size_t i = 0; i < sizeof(depths) / sizeof(*depths); i++)
		add_real(t, "%.2f", r, depths[i]);
}

static void add_choice(struct ctl_table *t, const json_t *r)
{
	add_int(t, r, "attempt");
	add_int(t, r, "step");
	ctl_table_add(t, ctl_str(r, "set_name"));
	ctl_table_add(t, ctl_str(r, "attention"));
	add_int(t, r, "items");
	add_real(t, "%.4f", r, "acc");
	add_real(t, "%.4f", r, "acc_norm");
	add_real(t, "%.4f", r, "chance");
}

static const char *const step_heads[] = { "ATTEMPT", "STEP", "PHASE", "LOSS", "GRAD NORM",
					  "LR", "MS", "TOKENS/S" };
static const char *const evaluation_heads[] = { "ATTEMPT", "STEP", "PHASE",
						"VALIDATION LOSS", "SET", "ATTENTION",
						"WHEN" };
static const char *const point_heads[] = { "FROM", "TO", "LEAST LOSS", "MEAN LOSS",
					   "MOST LOSS", "MEAN NORM", "MOST NORM", "LR",
					   "MS", "TOKENS/S" };

static const char *const level_heads[] = { "ATTEMPT", "STEP", "LEVEL", "EXPANDED", "ANY HEAD",
					   "HEADS AGREE", "AS BEFORE", "STARVED" };
static const char *const bucket_heads[] = { "ATTEMPT", "STEP", "SET", "ATTENTION", "FROM",
					    "TO", "LOSS", "TOKENS" };
static const char *const context_heads[] = { "ATTEMPT", "STEP", "ATTENTION", "CONTEXT", "0 %",
					     "15 %", "30 %", "50 %", "70 %", "85 %",
					     "100 %" };

static const char *const choice_heads[] = { "ATTEMPT", "STEP", "SET", "ATTENTION", "ITEMS",
					    "RIGHT", "BY LENGTH", "BY CHANCE" };

static const struct kind kinds[] = {
	{ "steps", "job.steps", "steps", step_heads, 8, add_step, ctl_behind_step, false },
	{ "evals", "job.evaluations", "evaluations", evaluation_heads, 7, add_evaluation,
	  ctl_behind_evaluation, false },
	{ "selection", "job.looks", "looks", level_heads, 8, add_level, ctl_behind_evaluation,
	  true },
	{ "positions", "job.looks", "looks", bucket_heads, 8, add_bucket,
	  ctl_behind_evaluation, true },
	{ "passkey", "job.looks", "looks", context_heads, 11, add_context,
	  ctl_behind_evaluation, true },
	{ "choices", "job.looks", "looks", choice_heads, 8, add_choice, ctl_behind_evaluation,
	  true },
};
static const struct kind points = { "steps", "job.curve", "points", point_heads, 10, add_point,
				    NULL, false };

static const struct kind *find_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (!name || !strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

/* The kind asked for, or NULL after printing why it cannot be. */
static const struct kind *choose(const struct ctl *c)
{
	const struct kind *kind = find_kind(ctl_opt(c, "kind"));
	bool want_points = ctl_opt(c, "points") != NULL;
	const char *wrong = NULL;

	if (!kind)
		wrong = "--kind is none of steps, evals, selection, positions, passkey and choices";
	else if (want_points && kind != kinds)
		wrong = "--points is for steps";
	else if (want_points && (ctl_opt(c, "all-attempts") || ctl_opt(c, "limit")))
		wrong = "--points goes with neither --all-attempts nor --limit";
	else if (ctl_opt(c, "attempt") && ctl_opt(c, "all-attempts"))
		wrong = "--attempt and --all-attempts exclude each other";
	else if (ctl_opt(c, "csv") && ctl_opt(c, "json"))
		wrong = "--csv and --json exclude each other";
	if (!wrong)
		return want_points ? &points : kind;
	ctl_usage(c->command, "%s", wrong);
	return NULL;
}

/* ---- asking and printing --------------------------------------------------- */

static void print_row(struct metrics *m, const json_t *row)
{
	if (!ctl_opt(m->c, "csv")) {
		m->kind->add(m->table, row);
		return;
	}
	if (!m->headed)
		ctl_csv_row(row, true);
	m->headed = true;
	ctl_csv_row(row, false);
}

static void print(void *arg, const json_t *row)
{
	struct metrics *m = arg;
	json_t *rows = m->kind->is_look ? ctl_look_rows(row) : NULL, *one;
	size_t i;

	if (!rows)
		print_row(m, row);
	json_array_foreach (rows, i, one)
		print_row(m, one);
	json_decref(rows);
}

static void flush(void *arg)
{
	ctl_table_flush(((struct metrics *)arg)->table);
}

/* What the daemon is asked, but for the job. */
static json_t *chosen(const struct ctl *c)
{
	static const struct {
		const char *option, *param;
		int64_t min, max;
	} numbers[] = { { "attempt", "attempt", 1, INT32_MAX },
			{ "from", "from_step", 0, INT64_C(1) << 50 },
			{ "to", "to_step", 0, INT64_C(1) << 50 },
			{ "points", "points", 1, 10000 } };
	json_t *params = json_object();

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		int64_t n = ctl_opt_int(c, numbers[i].option, -1, numbers[i].min,
					numbers[i].max);

		if (n >= 0)
			json_object_set_new(params, numbers[i].param, json_integer(n));
	}
	if (ctl_opt(c, "all-attempts"))
		json_object_set_new(params, "attempts", json_string("all"));
	return params;
}

static int print_points(struct ctl_client *k, struct metrics *m, json_t *params)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *result = ctl_call(k, m->kind->method, json_incref(params), &err), *row;
	size_t i;

	if (!result)
		return ctl_fail(&err);
	if (ctl_opt(m->c, "json"))
		return ctl_print_json_take(result);
	json_array_foreach (json_object_get(result, m->kind->list), i, row)
		print(m, row);
	flush(m);
	json_decref(result);
	return CTL_DONE;
}

static int print_pages(struct ctl_client *k, struct metrics *m, json_t *params,
		       int64_t limit)
{
	struct ctl_pages pages = { .method = m->kind->method, .list = m->kind->list,
				   .params = params, .limit = limit,
				   .go_on = m->kind->go_on, .print = print,
				   .flush = flush, .arg = m };
	bool more;

	return ctl_pages_print(m->c, k, &pages, &more);
}

/* An event file has all there is, so nothing chooses among it. */
static bool check_tensorboard(const struct ctl *c)
{
	static const char *const choices[] = { "kind", "points", "attempt", "all-attempts",
					       "from", "to", "limit", "csv", "json" };
	bool wanted = ctl_opt(c, "tensorboard") != NULL;

	if (!wanted && ctl_opt(c, "force")) {
		ctl_usage(c->command, "--force goes with --tensorboard");
		return false;
	}
	for (size_t i = 0; wanted && i < sizeof(choices) / sizeof(choices[0]); i++)
		if (ctl_opt(c, choices[i])) {
			ctl_usage(c->command, "--tensorboard writes all there is, --%s does not "
				  "go with it", choices[i]);
			return false;
		}
	return true;
}

static int run(struct ctl *c)
{
	struct metrics m = { .c = c, .kind = choose(c) };
	int64_t limit = ctl_opt_int(c, "limit", -1, 1, INT64_C(1) << 50), job = 0;
	struct ctl_client *k;
	json_t *params;
	int rc;

	if (!m.kind || !check_tensorboard(c))
		return CTL_USAGE;
	params = chosen(c);
	if (m.kind->is_look)
		json_object_set_new(params, "kind", json_string(m.kind->name));
	k = ctl_connect(c);
	rc = k ? ctl_job(k, c->args[0], &job) : CTL_UNREACHABLE;
	json_object_set_new(params, "job", json_integer(job));
	m.table = ctl_table_new(m.kind->columns, m.kind->heads);
	if (rc == CTL_DONE && ctl_opt(c, "tensorboard"))
		rc = ctl_tensorboard_write(c, k, job, ctl_opt(c, "tensorboard"),
					   ctl_opt(c, "force"));
	else if (rc == CTL_DONE)
		rc = m.kind->go_on ? print_pages(k, &m, params, limit) :
				     print_points(k, &m, params);
	ctl_table_free(m.table);
	json_decref(params);
	if (k)
		ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_metrics = {
	"metrics", "JOB",
	"Print the numbers of a job.\n"
	"Each step once, from the newest attempt that reached it: the line that counts.\n"
	"With --points the smallest, mean and largest of each group of steps.\n"
	"With --tensorboard losses, learning rate, gradient norm and pace go to DIR/NAME-JOB;\n"
	"attempts whose steps were done again are runs of their own below it.",
	"  lhctl metrics my-job --from 100 --to 120\n"
	"  lhctl metrics my-job --csv >steps.csv\n"
	"  lhctl metrics my-job --points 200 --json\n"
	"  lhctl metrics my-job --kind evals\n"
	"  lhctl metrics my-job --kind positions --csv >loss-by-place.csv\n"
	"  lhctl metrics my-job --tensorboard runs && tensorboard --logdir runs\n", 1, 1, options, run };

/* tensorboard.c: see tensorboard.h. All steps of all attempts are read once, in order; of
 * each attempt those up to the step from which a later one went on are the line that
 * counts (control/handlers_metrics.c), the others are abandoned. */
#include "tensorboard.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tfevents.h"

struct run {
	int64_t attempt;          /* 0: the line that counts */
	struct ctl_tfevents *file; /* NULL: it has nothing yet */
};

struct board {
	const struct ctl *c;
	struct ctl_client *k;
	int64_t job;
	char *dir;                /* of the line that counts */
	bool replace;
	json_t *attempts;         /* of job.show */
	int64_t begun_ms;         /* by which the files are called: the same each time */
	struct run *runs;         /* one for each attempt, behind the line that counts */
	size_t run_count;
	int64_t steps;            /* of all attempts */
	struct lh_err err;        /* the first that went wrong */
};

/* The last step of an attempt that counts. */
static int64_t last_counted(const struct board *b, size_t attempt)
{
	int64_t last = INT64_MAX;

	for (size_t i = attempt + 1; i < json_array_size(b->attempts); i++) {
		const json_t *a = json_array_get(b->attempts, i);

		if (ctl_has(a, "first_step") && ctl_int(a, "first_step") < last)
			last = ctl_int(a, "first_step");
	}
	return last;
}

/* Where a row belongs; NULL: to an attempt that began meanwhile. */
static struct run *run_of(struct board *b, const json_t *row)
{
	for (size_t i = 0; i < json_array_size(b->attempts); i++)
		if (ctl_int(json_array_get(b->attempts, i), "attempt") ==
		    ctl_int(row, "attempt"))
			return ctl_int(row, "step") <= last_counted(b, i) ? &b->runs[0] :
									   &b->runs[i + 1];
	return NULL;
}

/* The run's file, opened by its first row; NULL when that fails. */
static struct ctl_tfevents *file_of(struct board *b, struct run *r)
{
	char *dir;

	if (r->file || b->err.code)
		return b->err.code ? NULL : r->file;
	dir = r->attempt ? lh_asprintf("%s/abandoned-attempt-%" PRId64, b->dir, r->attempt) :
			   lh_strdup(b->dir);
	ctl_tfevents_open(&r->file, dir, b->begun_ms, b->replace, &b->err);
	free(dir);
	return r->file;
}

static void write_row(struct board *b, const json_t *row, const struct ctl_scalar *scalars,
		      int count)
{
	struct run *r = run_of(b, row);
	struct ctl_tfevents *file = r ? file_of(b, r) : NULL;

	if (file)
		ctl_tfevents_write(file, ctl_int(row, "time_ms"), ctl_int(row, "step"), scalars,
				   count);
}

/* A null is a value that was not finite. */
static void on_step(void *arg, const json_t *row)
{
	struct ctl_scalar scalars[] = {
		{ "loss/train", ctl_real(row, "loss") },
		{ "train/lr", ctl_real(row, "lr") },
		{ "train/grad_norm", ctl_real(row, "grad_norm") },
		{ "train/tokens_per_s", ctl_real(row, "tokens_per_s") },
	};

	write_row(arg, row, scalars, 4);
	((struct board *)arg)->steps++;
}

/* The first validation set has the tag that the only one has, others their names behind. */
static void on_evaluation(void *arg, const json_t *row)
{
	bool first = !ctl_int(row, "set_no");
	char *tag = lh_asprintf("loss/validation_%s%s%s", ctl_str(row, "attention"),
				first ? "" : "/", first ? "" : ctl_str(row, "set_name"));
	struct ctl_scalar scalar = { tag, ctl_real(row, "loss") };

	write_row(arg, row, &scalar, 1);
	free(tag);
}

static void on_page(void *arg)
{
	(void)arg;
}

static int read_rows(struct board *b, const char *method, const char *list,
		     void (*on_row)(void *arg, const json_t *row),
		     void (*go_on)(json_t *params, const json_t *last))
{
	json_t *params = json_pack("{s:I, s:s}", "job", (json_int_t)b->job, "attempts", "all");
	struct ctl_pages pages = { .method = method, .list = list, .params = params,
				   .limit = -1, .go_on = go_on, .print = on_row,
				   .flush = on_page, .arg = b };
	bool more;
	int rc = ctl_pages_print(b->c, b->k, &pages, &more);

	json_decref(params);
	if (rc == CTL_DONE && b->err.code)
		rc = ctl_fail(&b->err);
	return rc;
}

/* Takes what is known of the job. */
static void open_board(struct board *b, const json_t *show, const char *dir)
{
	const json_t *summary = json_object_get(show, "summary");
	size_t n;

	b->dir = lh_asprintf("%s/%s-%" PRId64, dir, ctl_str(summary, "name"), b->job);
	b->begun_ms = ctl_int(summary, "submitted_ms");
	b->attempts = json_incref(json_object_get(show, "attempts"));
	n = json_array_size(b->attempts);
	b->run_count = n + 1;
	b->runs = lh_calloc(b->run_count, sizeof(*b->runs));
	for (size_t i = 0; i < n; i++)
		b->runs[i + 1].attempt = ctl_int(json_array_get(b->attempts, i), "attempt");
}

/* With `rc` CTL_DONE the files get their names, else there are none. */
static int close_board(struct board *b, int rc)
{
	struct lh_err err = LH_ERR_INIT;

	for (size_t i = 0; i < b->run_count; i++) {
		struct ctl_tfevents *f = b->runs[i].file;

		if (rc != CTL_DONE)
			ctl_tfevents_discard(f);
		else if (f && ctl_tfevents_close(f, &err))
			rc = ctl_fail(&err);
	}
	free(b->runs);
	free(b->dir);
	json_decref(b->attempts);
	return rc;
}

int ctl_tensorboard_write(const struct ctl *c, struct ctl_client *k, int64_t job,
			  const char *dir, bool replace)
{
	struct board b = { .c = c, .k = k, .job = job, .replace = replace,
			   .err = LH_ERR_INIT };
	struct lh_err err = LH_ERR_INIT;
	json_t *show = ctl_call(k, "job.show", json_pack("{s:I}", "job", (json_int_t)job), &err);
	char *written;
	int rc;

	if (!show)
		return ctl_fail(&err);
	open_board(&b, show, dir);
	json_decref(show);
	rc = read_rows(&b, "job.steps", "steps", on_step, ctl_behind_step);
	if (rc == CTL_DONE)
		rc = read_rows(&b, "job.evaluations", "evaluations", on_evaluation,
			       ctl_behind_evaluation);
	written = lh_strdup(b.dir);
	rc = close_board(&b, rc);
	if (rc == CTL_DONE)
		fprintf(stderr, "%s: %" PRId64 " steps, of all attempts\n", written, b.steps);
	free(written);
	return rc;
}

/* cmd_logs.c: what a job's workers have printed, and print.
 *
 * Following, the end of the file is looked at twice a second. An attempt that is
 * over is read to its end before the next one begins, and the following ends with
 * the job. On a terminal control characters are escaped: a worker prints what
 * libraries and file names make it print. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "commands.h"

enum { POLL_MS = 500, PIECE_BYTES = 256 << 10 };

static const struct ctl_option options[] = {
	{ "follow", 'f', NULL, false, "go on as it is printed, until the job ends" },
	{ "attempt", 0, "N", false, "of this attempt (the newest)" },
	{ "lines", 'n', "N", false, "only the last N lines (all; 10 with -f)" },
	{ "json", 0, NULL, false, "the daemon's answer, as data; a piece a line" },
	{ NULL },
};

/* Line ends and tabs stay, the rest is escaped. */
static void print_safe(const char *text)
{
	while (*text) {
		size_t n = strcspn(text, "\n\t");
		char *raw = lh_asprintf("%.*s", (int)n, text);
		char *safe = lh_calloc(1, 4 * n + 1);

		fputs(lh_escape(safe, 4 * n + 1, raw), stdout);
		free(safe);
		free(raw);
		if (text[n])
			putchar(text[n++]);
		text += n;
	}
}

static void print_piece(const struct ctl *c, const json_t *piece)
{
	const char *text = ctl_str(piece, "text");

	if (ctl_opt(c, "json")) {
		if (*text)
			ctl_print_json_line(piece);
	} else if (isatty(STDOUT_FILENO)) {
		print_safe(text);
	} else {
		fputs(text, stdout);
	}
	fflush(stdout);
}

/* A piece, or NULL after printing why not. */
static json_t *read_piece(struct ctl_client *k, const json_t *params, int *rc)
{
	struct lh_err err = LH_ERR_INIT;
	json_t *piece = ctl_call(k, "job.logs", json_copy((json_t *)params), &err);

	*rc = piece ? CTL_DONE : ctl_fail(&err);
	return piece;
}

/* Points params behind a piece; false when the following ends with it. */
static bool go_on(const struct ctl *c, json_t *params, const json_t *piece)
{
	int64_t attempt = ctl_int(piece, "attempt");
	bool over = !json_is_true(json_object_get(piece, "live")) &&
		    !json_is_true(json_object_get(piece, "more"));
	int64_t offset = ctl_int(piece, "next_offset");

	if (over && (ctl_opt(c, "attempt") || attempt == ctl_int(piece, "newest_attempt")))
		return false;
	if (over) {
		attempt++;
		offset = 0;
		fprintf(stderr, "attempt %" PRId64 ":\n", attempt);
	}
	json_object_del(params, "lines");
	json_object_set_new(params, "offset", json_integer(offset));
	if (attempt)
		json_object_set_new(params, "attempt", json_integer(attempt));
	return true;
}

/* Pieces up to the end of the file, or following up to the job's. */
static int print_all(const struct ctl *c, struct ctl_client *k, json_t *params)
{
	struct lh_err err = LH_ERR_INIT;
	bool follow = ctl_opt(c, "follow"), more = true;
	int rc = CTL_DONE;

	while (more) {
		json_t *piece = read_piece(k, params, &rc);
		bool end, live;

		if (!piece)
			return rc;
		end = !json_is_true(json_object_get(piece, "more"));
		live = json_is_true(json_object_get(piece, "live"));
		print_piece(c, piece);
		if (!follow && !ctl_int(piece, "attempt"))
			fputs("it has not started yet\n", stderr);
		more = (follow || !end) && go_on(c, params, piece);
		json_decref(piece);
		if (more && end && live && (rc = ctl_listen(k, POLL_MS, &err)) &&
		    rc != LH_ETIMEOUT)
			return ctl_fail(&err);
	}
	return CTL_DONE;
}

static int run(struct ctl *c)
{
	int64_t lines = ctl_opt_int(c, "lines", ctl_opt(c, "follow") ? 10 : -1, 0, 1000000);
	int64_t attempt = ctl_opt_int(c, "attempt", 0, 1, INT32_MAX), job;
	struct ctl_client *k = ctl_connect(c);
	json_t *params;
	int rc;

	if (!k)
		return CTL_UNREACHABLE;
	rc = ctl_job(k, c->args[0], &job);
	if (rc == CTL_DONE) {
		params = json_pack("{s:I, s:i}", "job", (json_int_t)job, "limit_bytes",
				   PIECE_BYTES);
		if (attempt)
			json_object_set_new(params, "attempt", json_integer(attempt));
		if (lines >= 0)
			json_object_set_new(params, "lines", json_integer(lines));
		rc = print_all(c, k, params);
		json_decref(params);
	}
	ctl_disconnect(k);
	return rc;
}

const struct ctl_command ctl_cmd_logs = {
	"logs", "JOB",
	"Print what a job's worker has printed.\n"
	"With -f also what it prints from now on, those of later attempts too, until the\n"
	"job ends. The last lines are looked for in the last 16 MiB.",
	"  lhctl logs my-job -n 50\n  lhctl logs my-job -f\n"
	"  lhctl logs my-job --attempt 1\n", 1, 1, options, run };

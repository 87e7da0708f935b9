/* loss.c: what is known of an attempt's end, and what a loss costs the job.
 *
 * Evidence: the keeper's exit.json, the last lines of the log, what the parent
 * of a lost rank wrote (train/peers.h), the kernel's count of processes it killed for want
 * of memory, and what the worker last said it was doing. It goes into the attempt's row,
 * its event, and one sentence.
 *
 * Cost: one of job.restarts, and a pause that doubles with each. All are forgiven
 * once a checkpoint lies beyond the furthest step at which one happened: then
 * training has passed the place for good, and the next loss is another story. A
 * worker that always dies at the same step is never forgiven. */
#include "jobs/jobs_int.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "base/oom.h"
#include "lighthouse/proto.h"

enum {
	SMALL_FILE_BYTES = 1 << 16,
	TAIL_BYTES = 8192,     /* of the log that is looked at */
	LOG_LINES = 20,
	LINE_BYTES = 400,      /* of a line that is kept */
	LAST_WORDS_BYTES = 200,
	PAUSE_MS = 250,
	PAUSE_MAX_MS = 10000,
};

/* ---- evidence, on the pool ------------------------------------------------- */

static void read_exit(const char *dir, struct lh_remains *r)
{
	json_t *exit;

	lh_json_read(dir, LH_ATTEMPT_EXIT, SMALL_FILE_BYTES, &exit, NULL);
	r->exit_code = r->exit_signal = -1;
	if (!exit)
		return;
	r->exit_signal = (int)json_integer_value(json_object_get(exit, "signal"));
	if (!r->exit_signal)
		r->exit_code = (int)json_integer_value(json_object_get(exit, "code"));
	json_decref(exit);
}

/* Lines are hostile input: what is kept of them is printable UTF-8. */
static void add_line(json_t *log, const char *line)
{
	char safe[LINE_BYTES];

	json_array_append_new(log, json_string(lh_escape(safe, sizeof(safe), line)));
}

static void read_log(const char *dir, json_t *log)
{
	char *path = lh_asprintf("%s/%s", dir, LH_ATTEMPT_LOG), tail[TAIL_BYTES + 1];
	char *line = tail, *end;
	FILE *f = fopen(path, "re");
	bool last;
	size_t n;

	free(path);
	if (!f)
		return;
	if (fseek(f, -TAIL_BYTES, SEEK_END))
		rewind(f);
	else
		line = NULL; /* its first line is cut off */
	n = fread(tail, 1, TAIL_BYTES, f);
	fclose(f);
	for (size_t i = 0; i < n; i++)
		if (!tail[i])
			tail[i] = ' ';
	while (n && tail[n - 1] == '\n')
		n--;
	tail[n] = '\0';
	if (!line) {
		line = strchr(tail, '\n');
		line = line ? line + 1 : tail;
	}
	while (*line) {
		end = strchrnul(line, '\n');
		last = !*end;
		*end = '\0';
		add_line(log, line);
		if (json_array_size(log) > LOG_LINES)
			json_array_remove(log, 0);
		line = last ? end : end + 1;
	}
}

/* Which of several ranks was lost: the launcher ended the others. */
static void read_fault(const char *dir, struct lh_remains *r)
{
	char *path = lh_asprintf("%s/%s", dir, LH_ATTEMPT_FAULT), *text;
	size_t bytes;

	if (!lh_fs_read(path, SMALL_FILE_BYTES, &text, &bytes, NULL)) {
		lh_escape(r->fault, sizeof(r->fault), text);
		free(text);
	}
	free(path);
}

void lh_loss_read(const struct lh_worker *w, struct lh_remains *r)
{
	read_exit(w->dir, r);
	read_fault(w->dir, r);
	r->log = json_array();
	read_log(w->dir, r->log);
	r->oom_kills = lh_oom_kills(w->jobs->oom_file);
}

/* ---- the story ------------------------------------------------------------- */

void lh_loss_take(struct lh_worker *w, struct lh_remains *r)
{
	struct lh_jobs *jobs = w->jobs;

	json_decref(w->log);
	w->log = r->log;
	r->log = NULL;
	snprintf(w->fault, sizeof(w->fault), "%s", r->fault);
	w->exit_code = r->exit_code;
	w->exit_signal = r->exit_signal;
	/* Of a rank that was killed its launcher has a code alone. */
	w->oom_killed = (w->exit_signal == SIGKILL || *w->fault) && !w->killed &&
			jobs->oom_kills >= 0 && r->oom_kills > jobs->oom_kills;
	jobs->oom_kills = r->oom_kills;
}

/* What the keeper has waited for is the launcher of several ranks: somebody killed that. */
static bool lost_its_launcher(const struct lh_worker *w)
{
	return w->run->spec.devices > 1 && w->exit_signal > 0 && !w->killed;
}

/* "was killed by signal 9 (Killed) while training after step 57" */
static char *how_it_ended(const struct lh_worker *w)
{
	char how[160], doing[96] = "", hung[64] = "";

	if (w->exit_signal > 0)
		snprintf(how, sizeof(how), "was killed by signal %d (%s)%s", w->exit_signal,
			 strsignal(w->exit_signal),
			 w->oom_killed ? ", by the kernel, for want of memory," : "");
	else if (w->exit_code >= 0)
		snprintf(how, sizeof(how), "exited with code %d", w->exit_code);
	else
		snprintf(how, sizeof(how), "ended and nothing tells how");
	if (lh_worker_is_lost(w) && *w->doing)
		snprintf(doing, sizeof(doing), " while %s after step %" PRId64, w->doing,
			 w->run->step);
	if (w->hung_ms)
		snprintf(hung, sizeof(hung), "made no progress for %.1f s and ",
			 (double)w->hung_ms / 1000);
	return lh_asprintf("the %s %s%s%s", lost_its_launcher(w) ? "launcher of its ranks" :
								  "worker", hung, how, doing);
}

char *lh_loss_story(const struct lh_worker *w)
{
	size_t lines = json_array_size(w->log);
	const char *last = lines ? json_string_value(json_array_get(w->log, lines - 1)) : "";
	char words[LAST_WORDS_BYTES], *how, *story;

	if (*w->trouble)
		return lh_strdup(w->trouble);
	how = how_it_ended(w);
	/* One that ended well has none. */
	lh_escape(words, sizeof(words), w->exit_code == 0 ? "" : last);
	/* What it said itself is better than what its log says. */
	if (*w->outcome && *w->end_text && lh_worker_is_lost(w))
		story = lh_asprintf("%s: %s", how, w->end_text);
	else if (*w->fault && !w->killed && !lost_its_launcher(w))
		story = lh_asprintf("%s: %s", how, w->fault);
	else
		story = lh_asprintf("%s%s%s%s", how, *words ? "; its last words: '" : "",
				    words, *words ? "'" : "");
	free(how);
	return story;
}

const char *lh_loss_hint(const struct lh_worker *w)
{
	if (w->oom_killed)
		return "it needs less memory (batch.micro_sequences, data.seq_len), or the "
		       "cgroup of lhd a higher limit";
	if (w->exit_signal == SIGKILL && !w->killed)
		return "lhd did not send that signal: the kernel may have killed it for want "
		       "of memory; 'dmesg' would tell";
	return "";
}

void lh_loss_store(const struct lh_worker *w, struct lh_batch *b, const char *story)
{
	char *log = json_dumps(w->log, JSON_COMPACT | JSON_ENCODE_ANY);

	lh_batch_add(b, LH_STMT_ATTEMPT_REMAINS,
		     (struct lh_bind[]){ LH_INT(w->run->id), LH_INT(w->attempt),
					 LH_INT(w->run->step),
					 *w->doing ? LH_TEXT(w->doing) : LH_NULL,
					 LH_TEXT(story), LH_TEXT(lh_loss_hint(w)),
					 log ? LH_TEXT(log) : LH_NULL },
		     7);
	free(log);
}

/* ---- the cost -------------------------------------------------------------- */

int64_t lh_loss_pause_ms(const struct lh_job_run *run)
{
	int64_t ms = PAUSE_MS;

	for (int i = 1; i < run->restarts && ms < PAUSE_MAX_MS; i++)
		ms *= 2;
	return ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
}

void lh_loss_count(struct lh_job_run *run)
{
	run->restarts++;
	if (run->step > run->lost_step)
		run->lost_step = run->step;
}

void lh_loss_forgive(struct lh_worker *w, struct lh_batch *b, int64_t saved_step)
{
	struct lh_job_run *run = w->run;

	if (!run->restarts || saved_step <= run->lost_step)
		return;
	lh_batch_event_take(b, run->id, w->attempt, saved_step, "job.recovered",
			    json_pack("{s:i, s:I}", "restarts", run->restarts, "lost_step",
				      (json_int_t)run->lost_step),
			    "step %" PRId64 " is saved, beyond step %" PRId64
			    " where a worker was lost: all restarts may be used again",
			    saved_step, run->lost_step);
	run->restarts = 0;
	run->lost_step = 0;
}

/* fake_worker.h: a keeper and a worker that train nothing, in the test's own
 * binary: it is started again under their names and speaks proto.h like them.
 *
 * What the worker does is told by files of the state directory's ctl/:
 *   steps    go on to this step (text of a number)
 *   end      end with this outcome ("done", "failed", ...) once there
 *   code     error code of an end as "failed"
 *   deaf     commands are not answered
 *   stubborn SIGTERM is ignored (looked at once, at start)
 *   silent   it does not dial
 *   slow     told to end, it saves for as long as this is there
 *   step_ms  what a step is said to take (2)
 *   stuck    its counter of progress stands still
 *   mute     records go to the spool and are not sent
 *   orphan   the keeper is killed before it has noted the worker
 *   exits    it exits with this code, at once
 *   redial   hang up, remove the file, dial again, send every record again
 *   proto    version in its hello
 *   waits    for as long as this is there, it has not begun; its text is why
 * It writes attempt-N/acked, the highest seq it was told is stored. Its
 * checkpoint is the file jobs/ID/saved; the next attempt starts at that step. */
#ifndef LIGHTHOUSE_FAKE_WORKER_H
#define LIGHTHOUSE_FAKE_WORKER_H

#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/frame.h"
#include "base/fs.h"
#include "lighthouse/proto.h"

enum { FAKE_TICK_MS = 3, FAKE_LINGER_MS = 3000, FAKE_PROGRESS_MS = 50, FAKE_LIFE_S = 120 };

static char *fake_text(const char *dir, const char *name)
{
	char path[512], *text = NULL;
	size_t bytes;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return lh_fs_read(path, 1 << 20, &text, &bytes, NULL) ? NULL : text;
}

static void fake_write(const char *dir, const char *name, const char *text)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (lh_fs_write_atomic(path, text, strlen(text), NULL))
		exit(9);
}

static bool fake_has(const char *dir, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return lh_fs_exists(path);
}

static int64_t fake_number(const char *dir, const char *name, int64_t none)
{
	char *text = fake_text(dir, name);
	int64_t v = text ? atoll(text) : none;

	free(text);
	return v;
}

/* ---- keeper ---------------------------------------------------------------- */

static int fake_keeper(char **argv)
{
	char text[256];
	int status, pid = fork();

	if (pid == 0) {
		execv(argv[3], argv + 3);
		_exit(127);
	}
	snprintf(text, sizeof(text), "%s/../../../ctl", argv[1]);
	if (fake_has(text, "orphan"))
		raise(SIGKILL);
	snprintf(text, sizeof(text),
		 "{\"pid\": %d, \"start_time\": %llu, \"keeper_pid\": %d, "
		 "\"keeper_start_time\": %llu}",
		 pid, (unsigned long long)lh_proc_start_time(pid), (int)getpid(),
		 (unsigned long long)lh_proc_start_time(getpid()));
	fake_write(argv[1], LH_ATTEMPT_PID, text);
	waitpid(pid, &status, 0);
	snprintf(text, sizeof(text),
		 "{\"code\": %d, \"signal\": %d, \"started_ms\": 1, \"ended_ms\": 2}",
		 WIFEXITED(status) ? WEXITSTATUS(status) : 0,
		 WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	fake_write(argv[1], LH_ATTEMPT_EXIT, text);
	return 0;
}

/* ---- worker ---------------------------------------------------------------- */

struct fake {
	char dir[400], job_dir[400], ctl[400];
	json_t *start, *records; /* all of them; seq = index + 1 */
	FILE *spool;
	int64_t job, attempt, step, acked, sent;
	int64_t beat, progress_ms;
	int phase, fd;
	bool welcome, paused, over, resend_all, waits;
	const char *ending; /* it was told to, or NULL */
	struct lh_frame in;
	int64_t seen[64];
	int seen_count;
};

static void fake_post(struct fake *k, const char *t, json_t *fields)
{
	json_object_set_new(fields, "t", json_string(t));
	json_object_set_new(fields, "step", json_integer(k->step));
	json_object_set_new(fields, "time_ms", json_integer(lh_time_ms()));
	json_object_set_new(fields, "seq",
			    json_integer((json_int_t)json_array_size(k->records) + 1));
	json_dumpf(fields, k->spool, JSON_COMPACT);
	fputc('\n', k->spool);
	fflush(k->spool);
	json_array_append_new(k->records, fields);
}

static void fake_state(struct fake *k, const char *state, const char *reason)
{
	fake_post(k, "state", json_pack("{s:s, s:s}", "state", state, "reason", reason));
}

static void fake_hang_up(struct fake *k)
{
	if (k->fd >= 0)
		close(k->fd);
	k->fd = -1;
	k->welcome = false;
	lh_frame_release(&k->in);
}

static void fake_send(struct fake *k, json_t *m)
{
	char *text = json_dumps(m, JSON_COMPACT);
	size_t n = strlen(text);

	text[n] = '\n';
	if (k->fd >= 0 && send(k->fd, text, n + 1, MSG_NOSIGNAL) != (ssize_t)n + 1)
		fake_hang_up(k);
	free(text);
	json_decref(m);
}

static void fake_dial(struct fake *k)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	strcpy(a.sun_path, json_string_value(json_object_get(k->start, "socket")));
	k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(k->fd, (struct sockaddr *)&a, sizeof(a))) {
		fake_hang_up(k);
		return;
	}
	fake_send(k, json_pack("{s:s, s:I, s:I, s:I, s:O, s:i, s:I, s:i, s:i, s:I, s:I, "
			       "s:i, s:s}", "m", "hello", "proto",
			       (json_int_t)fake_number(k->ctl, "proto", LH_PROTO_VERSION),
			       "job", (json_int_t)k->job, "attempt", (json_int_t)k->attempt,
			       "token", json_object_get(k->start, "token"), "pid",
			       (int)getpid(), "start_time",
			       (json_int_t)lh_proc_start_time(getpid()), "generation", 1,
			       "first_seq", 1, "next_seq",
			       (json_int_t)json_array_size(k->records) + 1, "step",
			       (json_int_t)k->step, "phase", k->phase, "state", "running"));
}

static void fake_outcome(struct fake *k, int64_t id, const char *text)
{
	fake_post(k, "command", json_pack("{s:I, s:s, s:s, s:s}", "command", (json_int_t)id,
					  "outcome", "applied", "text", text, "hint", ""));
}

static void fake_save(struct fake *k)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long)k->step);
	fake_write(k->job_dir, "saved", text);
	fake_post(k, "checkpoint", json_pack("{s:s, s:i, s:f, s:s}", "path", "somewhere",
					     "bytes", 5, "duration_ms", 1.5, "reason", "x"));
}

static void fake_end(struct fake *k, const char *outcome)
{
	char *code = fake_text(k->ctl, "code");

	fake_state(k, "stopping", outcome);
	if (strcmp(outcome, "failed"))
		fake_save(k);
	fake_post(k, "end", json_pack("{s:s, s:s, s:s, s:s}", "outcome", outcome, "code",
				      code ? code : "", "text", strcmp(outcome, "failed") ? "" :
							"the loss is not finite",
				      "hint", ""));
	free(code);
	k->over = true;
}

static void fake_command(struct fake *k, const json_t *m)
{
	int64_t id = json_integer_value(json_object_get(m, "id"));
	const char *verb = json_string_value(json_object_get(m, "verb"));
	const char *phase = json_string_value(
		json_object_get(json_object_get(m, "args"), "phase"));

	if (fake_has(k->ctl, "deaf"))
		return;
	for (int i = 0; i < k->seen_count; i++)
		if (k->seen[i] == id)
			return;
	k->seen[k->seen_count++] = id;
	if (!strcmp(verb, "pause") || !strcmp(verb, "resume")) {
		k->paused = *verb == 'p';
		fake_state(k, k->paused ? "paused" : "running", "by command");
	} else if (!strcmp(verb, "switch")) {
		k->phase = phase ? phase[strlen(phase) - 1] - '0' : -1;
		fake_state(k, "switching", "by command");
		fake_post(k, "phase", json_pack("{s:i, s:s, s:s, s:I}", "phase", k->phase,
						"name", phase ? phase : "", "reason", "c",
						"command", (json_int_t)id));
		fake_state(k, k->paused ? "paused" : "running", "by command");
	} else if (!strcmp(verb, "checkpoint")) {
		fake_save(k);
	}
	if (id != LH_PROTO_UNANSWERED)
		fake_outcome(k, id, "ok");
	if (!strcmp(verb, "cancel") || !strcmp(verb, "stop"))
		k->ending = *verb == 'c' ? "cancelled" : "stopped";
}

static void fake_call(struct fake *k, const json_t *m)
{
	json_t *call = json_object_get(m, "call");

	if (fake_has(k->ctl, "deaf"))
		return;
	fake_send(k, json_pack("{s:s, s:O, s:s}", "m", "piece", "call", call, "text", "ab"));
	fake_send(k, json_pack("{s:s, s:O, s:{s:s, s:i, s:I}}", "m", "reply", "call", call,
			       "result", "text", "ab", "tokens", 2, "step",
			       (json_int_t)k->step));
}

static void fake_message(struct fake *k, const json_t *m)
{
	const char *name = json_string_value(json_object_get(m, "m"));
	char text[32];

	if (!strcmp(name, "welcome")) {
		k->welcome = true;
		k->acked = json_integer_value(json_object_get(m, "stored_seq"));
		k->sent = k->resend_all ? 0 : k->acked;
	} else if (!strcmp(name, "ack")) {
		k->acked = json_integer_value(json_object_get(m, "seq"));
	} else if (!strcmp(name, "command")) {
		fake_command(k, m);
	} else if (!strcmp(name, "call")) {
		fake_call(k, m);
	} else if (!strcmp(name, "refuse")) {
		exit(7);
	}
	snprintf(text, sizeof(text), "%lld", (long long)k->acked);
	fake_write(k->dir, "acked", text);
}

static void fake_receive(struct fake *k)
{
	struct pollfd p = { .fd = k->fd, .events = POLLIN };
	char buf[4096], *line;
	size_t len;
	ssize_t n;

	if (poll(&p, 1, FAKE_TICK_MS) <= 0 || k->fd < 0)
		return;
	n = recv(k->fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n <= 0) {
		fake_hang_up(k);
		return;
	}
	lh_frame_push(&k->in, buf, (size_t)n);
	while (k->fd >= 0 && lh_frame_next(&k->in, &line, &len) > 0) {
		json_t *m = json_loadb(line, len, 0, NULL);

		fake_message(k, m);
		json_decref(m);
	}
}

/* The end comes by itself: a worker may say it long after its last save. */
static bool fake_is_end(const struct fake *k)
{
	const json_t *r = json_array_get(k->records, (size_t)k->sent);

	return !strcmp(json_string_value(json_object_get(r, "t")), "end");
}

static void fake_send_records(struct fake *k)
{
	json_t *batch;

	if (!k->welcome || fake_has(k->ctl, "mute") ||
	    k->sent == (int64_t)json_array_size(k->records))
		return;
	batch = json_array();
	while (k->sent < (int64_t)json_array_size(k->records) && json_array_size(batch) < 7 &&
	       !(json_array_size(batch) && fake_is_end(k)))
		json_array_append(batch, json_array_get(k->records, (size_t)k->sent++));
	fake_send(k, json_pack("{s:s, s:o}", "m", "records", "records", batch));
}

static void fake_progress(struct fake *k)
{
	if (!k->welcome || lh_time_ms() < k->progress_ms)
		return;
	k->progress_ms = lh_time_ms() + FAKE_PROGRESS_MS;
	k->beat += !fake_has(k->ctl, "stuck");
	fake_send(k, json_pack("{s:s, s:I, s:i, s:s, s:s, s:I}", "m", "progress", "step",
			       (json_int_t)k->step, "phase", k->phase, "state",
			       k->paused ? "paused" : "running", "doing",
			       k->ending ? "saving" : k->paused ? "paused" : "training", "beat",
			       (json_int_t)k->beat));
}

static void fake_step(struct fake *k)
{
	k->step++;
	fake_post(k, "step", json_pack("{s:f, s:n, s:f, s:i, s:f, s:f, s:i, s:i}", "loss",
				       1.0 / (double)k->step, "grad_norm", "lr", 0.1,
				       "tokens", 10, "step_ms",
				       (double)fake_number(k->ctl, "step_ms", 2), "tokens_per_s", 5000.0,
				       "phase", k->phase, "data_epoch", 0));
}

static void fake_begin(struct fake *k)
{
	k->waits = false;
	k->step = fake_number(k->job_dir, "saved", 0);
	fake_state(k, k->paused ? "paused" : "running", "began");
}

static void fake_tick(struct fake *k)
{
	char path[512], *end;
	int64_t to;

	if (fake_has(k->ctl, "exits"))
		exit((int)fake_number(k->ctl, "exits", 0));
	if (k->ending && !k->over && !fake_has(k->ctl, "slow"))
		fake_end(k, k->ending);
	if (k->ending || (k->waits && fake_has(k->ctl, "waits")))
		return;
	if (k->waits)
		fake_begin(k);
	to = k->over || k->paused ? 0 : fake_number(k->ctl, "steps", 0);

	if (k->step < to) {
		for (int i = 0; i < 10 && k->step < to; i++)
			fake_step(k);
		return;
	}
	end = k->over || k->paused ? NULL : fake_text(k->ctl, "end");
	if (end)
		fake_end(k, end);
	free(end);
	if (fake_has(k->ctl, "redial")) {
		snprintf(path, sizeof(path), "%s/redial", k->ctl);
		unlink(path);
		k->resend_all = true;
		fake_hang_up(k);
	}
}

static volatile sig_atomic_t fake_term;
static void fake_on_term(int signal)
{
	(void)signal;
	fake_term = 1;
}

static void fake_open(struct fake *k, const char *dir)
{
	char path[512], *text;

	snprintf(k->dir, sizeof(k->dir), "%s", dir);
	snprintf(k->job_dir, sizeof(k->job_dir), "%s", dir);
	*strrchr(k->job_dir, '/') = '\0';
	snprintf(k->ctl, sizeof(k->ctl), "%s", k->job_dir);
	*strrchr(k->ctl, '/') = '\0';
	strcpy(strrchr(k->ctl, '/'), "/ctl");
	text = fake_text(dir, LH_ATTEMPT_START);
	k->start = text ? json_loads(text, 0, NULL) : NULL;
	free(text);
	/* Before the spool is there: a test that waits for it may send the signal then. */
	signal(SIGTERM, fake_has(k->ctl, "stubborn") ? SIG_IGN : fake_on_term);
	snprintf(path, sizeof(path), "%s/%s", dir, LH_ATTEMPT_SPOOL);
	k->spool = fopen(path, "w");
	if (!k->start || !k->spool)
		exit(1);
	k->job = json_integer_value(json_object_get(k->start, "job"));
	k->attempt = json_integer_value(json_object_get(k->start, "attempt"));
	k->paused = json_is_true(json_object_get(k->start, "paused"));
	k->records = json_array();
	k->fd = -1;
	lh_frame_init(&k->in, 1 << 20);
	text = fake_text(k->ctl, "waits");
	k->waits = text != NULL;
	if (k->waits)
		fake_state(k, "starting", text);
	else
		fake_begin(k);
	free(text);
}

static int fake_train(const char *dir)
{
	struct fake k = { 0 };
	int64_t over_ms = 0;

	fake_open(&k, dir);
	for (;;) {
		if (k.fd < 0 && !fake_has(k.ctl, "silent"))
			fake_dial(&k);
		if (k.fd < 0)
			usleep(FAKE_TICK_MS * 1000);
		fake_receive(&k);
		fake_tick(&k);
		if (fake_term && !k.ending)
			k.ending = "stopped";
		fake_send_records(&k);
		fake_progress(&k);
		if (k.over && !over_ms)
			over_ms = lh_time_ms();
		if (k.over && (k.acked == (int64_t)json_array_size(k.records) ||
			       k.fd < 0 || lh_time_ms() - over_ms > FAKE_LINGER_MS))
			break;
	}
	fclose(k.spool);
	json_decref(k.records);
	json_decref(k.start);
	lh_frame_release(&k.in);
	return 0;
}

/* Repeats the prompt, or never answers it when that is "hang". */
static int fake_sample(const char *checkpoint)
{
	json_t *args = json_loadf(stdin, JSON_DISABLE_EOF_CHECK, NULL);
	const char *prompt = json_string_value(json_object_get(args, "prompt"));

	while (!strcmp(prompt, "hang"))
		pause();
	printf("{\"m\": \"piece\", \"text\": \"%s\"}\n", prompt);
	printf("{\"m\": \"reply\", \"result\": {\"text\": \"%s\", \"tokens\": 1, "
	       "\"step\": %d}}\n", prompt, atoi(strrchr(checkpoint, '-') + 1));
	json_decref(args);
	return 0;
}

/* True when the test binary was started as one of them; *status is its exit. */
static bool fake_main(int argc, char **argv, int *status)
{
	const char *name = strrchr(argv[0], '/');

	/* A test that crashed does not leave them behind for long. */
	if (name && !strncmp(name, "/lh", 3))
		alarm(FAKE_LIFE_S);
	if (name && !strcmp(name, "/lhkeeper") && argc > 4)
		*status = fake_keeper(argv);
	else if (name && !strncmp(name, "/lhworker-c", 11) && argc == 2)
		*status = 1; /* asked for its device: there is none to tell of */
	else if (name && !strncmp(name, "/lhworker-c", 11) && argc == 3)
		*status = !strcmp(argv[1], "--attempt") ? fake_train(argv[2]) :
							  fake_sample(argv[2]);
	else
		return false;
	return true;
}

#endif

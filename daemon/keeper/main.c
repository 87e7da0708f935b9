/* main.c: lhkeeper, the parent of one worker, small enough not to fail.
 *
 *   lhkeeper ATTEMPT_DIR -- PROGRAM ARGS...
 *
 * lhd may die and come back; somebody else has to wait for the worker. The
 * keeper starts it in a session of its own with its output in a file, writes
 * pid.json, waits, ends what the worker has left, and writes exit.json with the
 * code or signal. It forwards SIGTERM and otherwise does nothing; both ignore a
 * terminal's signals.
 *
 * What is left: ranks of a launcher that was killed, in sessions of their own. Orphans
 * among its descendants come to the keeper, so an attempt is over when it says so. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/failpoint.h"
#include "base/reap.h"
#include "lighthouse/proto.h"

static volatile sig_atomic_t child;

static void forward(int signal)
{
	if (child > 0)
		kill(child, signal);
}

static void write_json_take(const char *dir, const char *name, json_t *json)
{
	char *path = lh_asprintf("%s/%s", dir, name);
	char *text = json_dumps(json, 0);
	struct lh_err err = LH_ERR_INIT;

	if (lh_fs_write_atomic(path, text, strlen(text), &err))
		fprintf(stderr, "lhkeeper: %s\n", err.text);
	free(text);
	free(path);
	json_decref(json);
}

/* stdin from nowhere, output to the log, nothing else open. */
static void redirect(const char *dir)
{
	char *log = lh_asprintf("%s/%s", dir, LH_ATTEMPT_LOG);
	int null = open("/dev/null", O_RDONLY);
	int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (null < 0 || out < 0) {
		fprintf(stderr, "lhkeeper: cannot open '%s': %s\n", log,
			strerror(errno));
		exit(1);
	}
	dup2(null, 0);
	dup2(out, 1);
	dup2(out, 2);
	if (close_range(3, ~0U, 0)) {
		perror("lhkeeper: close_range");
		exit(1);
	}
	free(log);
}

/* The child's number, -1 with errno. SIGTERM waits until it can be forwarded. */
static int start(char **argv)
{
	struct sigaction term = { .sa_handler = forward, .sa_flags = SA_RESTART };
	sigset_t set, old;
	int pid;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, &old);
	sigaction(SIGTERM, &term, NULL);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	pid = fork();
	if (pid == 0) {
		signal(SIGTERM, SIG_DFL);
		sigprocmask(SIG_SETMASK, &old, NULL);
		execv(argv[0], argv);
		fprintf(stderr, "lhkeeper: cannot run '%s': %s\n", argv[0],
			strerror(errno));
		_exit(127);
	}
	child = pid;
	sigprocmask(SIG_SETMASK, &old, NULL);
	return pid;
}

int main(int argc, char **argv)
{
	int64_t started_ms = lh_time_ms();
	int status = 1 << 8, pid; /* code 1 if there is no child to ask */

	if (argc < 4 || strcmp(argv[2], "--")) {
		fputs("usage: lhkeeper ATTEMPT_DIR -- PROGRAM ARGS...\n", stderr);
		return 2;
	}
	setsid(); /* fails only where it is done */
	redirect(argv[1]);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pid = start(argv + 3);
	if (pid > 0) {
		LH_FAILPOINT("keeper.started");
		write_json_take(argv[1], LH_ATTEMPT_PID,
				json_pack("{s:i, s:I, s:i, s:I}", "pid", pid,
					  "start_time",
					  (json_int_t)lh_proc_start_time(pid),
					  "keeper_pid", getpid(), "keeper_start_time",
					  (json_int_t)lh_proc_start_time(getpid())));
		LH_FAILPOINT("keeper.noted");
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		LH_FAILPOINT("keeper.reaped");
		child = 0; /* its number may be somebody else's now */
		lh_reap_kill();
	} else {
		fprintf(stderr, "lhkeeper: cannot fork: %s\n", strerror(errno));
	}
	write_json_take(argv[1], LH_ATTEMPT_EXIT,
			json_pack("{s:i, s:i, s:I, s:I}", "code",
				  WIFEXITED(status) ? WEXITSTATUS(status) : 0, "signal",
				  WIFSIGNALED(status) ? WTERMSIG(status) : 0,
				  "started_ms", (json_int_t)started_ms, "ended_ms",
				  (json_int_t)lh_time_ms()));
	LH_FAILPOINT("keeper.ended");
	return pid > 0 ? 0 : 1;
}
